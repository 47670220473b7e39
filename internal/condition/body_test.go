package condition

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestParseBodyJudgesTheHeaders(t *testing.T) {
	const text = `{"a":1}`
	for _, tc := range []struct {
		name           string
		kind, encoding []string
		want           string // contained in the error; empty: none
	}{
		{"JSON", []string{"application/json"}, nil, ""},
		{"JSON in capitals", []string{"Application/JSON"}, nil, ""},
		{"JSON with a charset", []string{"application/json; charset=UTF-8"}, nil, ""},
		{"JSON with a quoted charset", []string{`application/json; charset="utf-8"`}, nil, ""},
		{"JSON with the parameters of OData", []string{"application/json;odata.metadata=minimal"}, nil, ""},
		{"JSON as older tools call it", []string{"text/json"}, nil, ""},
		{"an encoding that is none", []string{"application/json"}, []string{"identity"}, ""},
		{"no type", nil, nil, "no Content-Type"},
		{"an empty type", []string{""}, nil, "not JSON"},
		{"two types", []string{"application/json", "text/plain"}, nil, "more than one Content-Type"},
		{"two types in a line", []string{"application/json, text/plain"}, nil, "not JSON"},
		{"what curl -d says", []string{"application/x-www-form-urlencoded"}, nil, `"application/x-www-form-urlencoded", not JSON; send Content-Type: application/json`},
		{"something like JSON", []string{"application/jsonp"}, nil, "not JSON"},
		{"a type with rubbish behind", []string{"application/json; ="}, nil, "not JSON"},
		{"another charset", []string{"application/json; charset=utf-16"}, nil, `in "utf-16", not UTF-8`},
		{"a charset that hides letters", []string{"application/json; charset=utf-7"}, nil, "not UTF-8"},
		{"the charset twice", []string{"application/json; charset=utf-8; charset=utf-7"}, nil, "not JSON"},
		{"gzip", []string{"application/json"}, []string{"gzip"}, "encoded (Content-Encoding: gzip)"},
		{"gzip behind nothing", []string{"application/json"}, []string{"identity", "gzip"}, "encoded"},
		{"two encodings in a line", []string{"application/json"}, []string{"identity, gzip"}, "encoded"},
		{"a long type", []string{strings.Repeat("x", 10_000)}, nil, "…"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := ParseBody(tc.kind, tc.encoding, []byte(text))
			switch {
			case tc.want == "" && (err != nil || b == nil):
				t.Errorf("got %v, want none", err)
			case tc.want != "" && (b != nil || err == nil || !strings.Contains(err.Error(), tc.want) || len(err.Error()) > 400):
				t.Errorf("got %v, %v; want an error with %q", b, err, tc.want)
			}
		})
	}
}

func TestParseBodyReads(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       any
	}{
		{"nothing", ``, nil},
		{"null", ` null `, nil},
		{"a text", `"a\u00e4\ud83d\ude00"`, "aä😀"},
		{"an integer", `-12`, int64(-12)},
		{"the largest integer", `9223372036854775807`, int64(math.MaxInt64)},
		{"a fraction", `1.50`, 1.5},
		{"an exponent", `1e2`, 100.0},
		{"an object", `{"a":[true,{"b":null}],"c":{}}`, map[string]any{"a": []any{true, map[string]any{"b": nil}}, "c": map[string]any{}}},
		{"the same key in two objects", `[{"a":1},{"a":2}]`, []any{map[string]any{"a": int64(1)}, map[string]any{"a": int64(2)}}},
		{"as deep as may be", strings.Repeat("[", 64) + strings.Repeat("]", 64), nest(64)},
		{"as long as may be", `"` + strings.Repeat("a", MaxBody-2) + `"`, strings.Repeat("a", MaxBody-2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := ParseBody([]string{"application/json"}, nil, []byte(tc.text))
			if err != nil || !reflect.DeepEqual(b.value, tc.want) {
				t.Errorf("got %v, %v; want %v", b, err, tc.want)
			}
		})
	}
}

func nest(n int) any {
	v := []any{}
	for range n - 1 {
		v = []any{v}
	}
	return v
}

func TestParseBodyRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"a byte too long", `"` + strings.Repeat("a", MaxBody-1) + `"`, "longer than 65536 bytes"},
		{"a byte order mark", "\ufeff{}", "byte order mark"},
		{"UTF-16", "{\x00}\x00", "no JSON"},
		{"bytes that are no UTF-8", "\"\xff\"", "not UTF-8"},
		{"half a surrogate pair", `"\ud800"`, "a character that is none"},
		{"half a surrogate pair in a key", `{"\udc00":1}`, "a character that is none"},
		{"a key twice", `{"a":1,"b":2,"a":1}`, `the key "a" twice`},
		{"a key twice, once escaped", `{"a":1,"\u0061":1}`, `the key "a" twice`},
		{"a key twice further inside", `[{"x":{"a":1,"a":2}}]`, `the key "a" twice`},
		{"a key in two letter cases", `{"Comment":1,"comment":2}`, `the keys "Comment" and "comment"`},
		{"a key with another s", `{"class":1,"cla\u017fs":2}`, `the keys`},
		{"a number that no reader holds", `1e400`, "a number too large"},
		{"an integer that some readers round", `9223372036854775808`, "a number too large"},
		{"two values", `{} {}`, "more than one value"},
		{"a value and rubbish", `{}x`, "more than one value"},
		{"a comment", `{"a":1}/* {"a":2} */`, "more than one value"},
		{"a comma too many", `{"a":1,}`, "no JSON"},
		{"single quotes", `{'a':1}`, "no JSON"},
		{"a key without quotes", `{a:1}`, "no JSON"},
		{"a number that is none", `NaN`, "no JSON"},
		{"a leading zero", `01`, "no JSON"},
		{"a raw line feed in a text", "\"a\nb\"", "no JSON"},
		{"an object that breaks off", `{"a":`, "it breaks off"},
		{"blanks alone", ` `, "it breaks off"},
		{"brackets that do not match", `[1}`, "no JSON"},
		{"too deep", strings.Repeat("[", 65) + strings.Repeat("]", 65), "deeper than 64 levels"},
		{"deep without end", strings.Repeat("[", MaxBody), "deeper than 64 levels"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := ParseBody([]string{"application/json"}, nil, []byte(tc.text))
			if b != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want an error with %q", b, err, tc.want)
			}
		})
	}
}

// What is accepted is JSON, means the same to encoding/json, and has no key that
// could be taken for another one of its object.
func FuzzParseBody(f *testing.F) {
	for _, s := range []string{`{"IsolationType":"Selective"}`, `{"a":1,"A":2}`, `[1,-0,1.5e3,null,true,{"a":{"b":[]}}]`, `{"a":1,"\u0061":2}`, `"\ud800"`, ``, ` `, `[1}`, `{"a" 1}`, `[1 2]`, `{"a":1}{`, "\"\xff\"", `[,]`, `{,}`, `{"a"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ParseBody([]string{"application/json"}, nil, text)
		if (b == nil) == (err == nil) {
			t.Fatalf("got %v, %v", b, err)
		}
		if err != nil || len(text) == 0 {
			return
		}
		if !json.Valid(text) || !utf8.Valid(text) {
			t.Fatalf("%q is accepted and no JSON", text)
		}
		var second any
		if err := json.Unmarshal(text, &second); err != nil {
			t.Fatalf("%q is accepted, but %v", text, err)
		}
		if !same(b.value, second) {
			t.Fatalf("%q gives %#v, a second reading %#v", text, b.value, second)
		}
	})
}

// same compares a body with what encoding/json makes of it, and looks for keys that
// differ in letter case alone.
func same(got, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for k, v := range w {
			for other := range w {
				if k != other && (strings.EqualFold(k, other) || strings.Map(unicode.ToUpper, k) == strings.Map(unicode.ToUpper, other)) {
					return false
				}
			}
			if !same(g[k], v) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !same(g[i], w[i]) {
				return false
			}
		}
		return true
	case float64:
		if i, ok := got.(int64); ok {
			return float64(i) == w
		}
	}
	return reflect.DeepEqual(got, want)
}

// Whatever stands in when: and in a body, a condition gives an answer, and it is no
// when there is an error.
func FuzzHolds(f *testing.F) {
	for _, s := range [][2]string{
		{selective, `{"IsolationType":"Selective"}`},
		{`has(request.body.a) && request.body.a[0] > 1.5 || request.tenant.matches("c.*")`, `{"a":[2]}`},
		{`request.body.all(k, k in ["a", "b"])`, `{"a":1}`},
		{`request.body.map(k, request.body[k] + 1).size() == 2`, `{"a":1,"b":9223372036854775807}`},
		{`timestamp(request.body.t) < timestamp("2026-01-01T00:00:00Z")`, `{"t":"2025-01-01T00:00:00Z"}`},
		{`request.body.a == request.body.b`, `{"a":[[1]],"b":[[1.0]]}`},
	} {
		f.Add(s[0], []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, when string, text []byte) {
		c, err := Compile(when)
		if (c == nil) == (err == nil) {
			t.Fatalf("Compile(%q) = %v, %v", when, c, err)
		}
		if err != nil {
			return
		}
		calls := 0
		r := isolate("")
		r.Body = func() (*Body, error) {
			calls++
			return ParseBody([]string{"application/json"}, nil, text)
		}
		holds, err := c.Holds(r)
		if holds && err != nil || calls > 1 || calls > 0 && !c.names.body {
			t.Fatalf("%s of %q = %v, %v with %d calls", when, text, holds, err, calls)
		}
		r.Body = nil
		if calls > 0 {
			if holds, _ := c.Holds(r); holds {
				t.Fatalf("%s holds without the body that it asked for", when)
			}
		}
	})
}
