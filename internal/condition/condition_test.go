package condition

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// isolate is a request with a JSON body.
func isolate(body string) Request {
	return Request{
		Method: "POST", Path: "/api/machines/m1/isolate", Tenant: "contoso", Client: "soc", Operation: "machines.isolate",
		Body: func() (*Body, error) { return ParseBody([]string{"application/json"}, nil, []byte(body)) },
	}
}

func compile(t testing.TB, text string) *Condition {
	t.Helper()
	c, err := Compile(text)
	if err != nil {
		t.Fatalf("Compile(%s): %v", text, err)
	}
	return c
}

const selective = `request.body.IsolationType == "Selective"`

func TestHolds(t *testing.T) {
	for _, tc := range []struct {
		name, when, body string
		want             bool
		err              string // contained in the error; empty: none
	}{
		{"a field has the value", selective, `{"IsolationType":"Selective","Comment":"c"}`, true, ""},
		{"a field has another value", selective, `{"IsolationType":"Full"}`, false, ""},
		{"a value in another letter case is another value", selective, `{"IsolationType":"selective"}`, false, ""},
		{"a value of another type is another value", selective, `{"IsolationType":["Selective"]}`, false, ""},
		{"a key written with escapes is the same key", selective, `{"\u0049solationType":"Selective"}`, true, ""},
		{"a missing field is no yes", selective, `{"Comment":"c"}`, false, "no such key: IsolationType"},
		{"a missing field is no yes for the opposite either", `request.body.IsolationType != "Full"`, `{}`, false, "no such key: IsolationType"},
		{"the presence of a field", `!has(request.body.IsolationType)`, `{"Comment":"c"}`, true, ""},
		{"a body that is no object has no fields", `!has(request.body.IsolationType)`, `"text"`, true, ""},
		{"an empty body is null", `request.body == null`, ``, true, ""},
		{"a field of an empty body", selective, ``, false, "no such key"},

		{"a key in another letter case may be the field and may not", selective, `{"isolationtype":"Selective"}`, false, `spells IsolationType as "isolationtype"`},
		{"nor does it count as missing", `!has(request.body.IsolationType)`, `{"isolationType":"Full"}`, false, `spells IsolationType as`},
		{"nor where another reason would suffice", `request.tenant == "contoso" || ` + selective, `{}`, true, ""},
		{"nor where another reason comes later", selective + ` || request.tenant == "contoso"`, `{"ISOLATIONTYPE":"Full"}`, false, `spells IsolationType as`},
		{"nor when asked for as an index", `!("IsolationType" in request.body)`, `{"isolationType":"Full"}`, false, `spells IsolationType as`},
		{"nor in a loop over the keys", `!request.body.exists(k, k == "IsolationType")`, `{"isolationType":"Full"}`, false, `spells IsolationType as`},
		{"nor further inside", `request.body.all(k, !has(request.body[k].Action))`, `{"a":{"action":1}}`, false, `spells Action as`},
		{"letters beyond ASCII fold too", `!has(request.body.Kind)`, `{"\u212aind":1}`, false, `spells Kind as`},
		{"a value is no key", `request.body.Kind == "Comment"`, `{"Kind":"Comment","comment":""}`, true, ""},
		{"a condition may name both spellings", `has(request.body.Kind) || has(request.body.kind)`, `{"kind":1}`, true, ""},

		{"the same key twice", selective, `{"IsolationType":"Full","IsolationType":"Selective"}`, false, `the key "IsolationType" twice`},
		{"the same key in two letter cases", selective, `{"IsolationType":"Selective","isolationType":"Full"}`, false, `the keys "IsolationType" and "isolationType"`},
		{"a body that is no JSON", selective, `IsolationType=Selective`, false, "no JSON"},

		{"numbers are compared by value", `request.body.Minutes <= 30`, `{"Minutes":30.0}`, true, ""},
		{"a number above the bound", `request.body.Minutes <= 30`, `{"Minutes":31}`, false, ""},
		{"a number as text is no number", `request.body.Minutes <= 30`, `{"Minutes":"5"}`, false, "no such overload"},
		{"every element of a list", `request.body.ids.all(i, i.startsWith("a"))`, `{"ids":["a1","a2"]}`, true, ""},
		{"one element of a list is another", `request.body.ids.all(i, i.startsWith("a"))`, `{"ids":["a1","b2"]}`, false, ""},
		{"no more keys than these", `request.body.all(k, k in ["Comment", "IsolationType"])`, `{"Comment":"","Force":true}`, false, ""},
		{"a pattern", `request.body.Comment.matches("^INC[0-9]+ ")`, `{"Comment":"INC12 virus"}`, true, ""},
		{"lower case", `request.body.Comment.lowerAscii() == "a"`, `{"Comment":"A"}`, true, ""},
		{"a field that is true", `request.body.HasParameters`, `{"HasParameters":true}`, true, ""},
		{"a field that is false", `request.body.HasParameters`, `{"HasParameters":false}`, false, ""},
		{"a field that is neither", `request.body.HasParameters`, `{"HasParameters":"true"}`, false, "type string, not true or false"},
		{"a field that is null", `request.body.HasParameters`, `{"HasParameters":null}`, false, "type null_type, not true or false"},
		{"an element that is not there", `request.body.ids[1] == "a"`, `{"ids":["a"]}`, false, "index out of bounds"},

		{"the rest of the request", `request.method == "POST" && request.path.startsWith("/api/machines/m1/") && request.client == "soc" && request.operation == "machines.isolate"`, `no JSON`, true, ""},
		{"another tenant", `request.tenant == "fabrikam"`, `no JSON`, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := compile(t, tc.when).Holds(isolate(tc.body))
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s of %s = %v, %v; want %v, %q", tc.when, tc.body, got, err, tc.want, tc.err)
			}
		})
	}
}

func TestTheBodyIsAskedForOnceAndOnlyIfNeeded(t *testing.T) {
	for _, tc := range []struct {
		when  string
		calls int
		looks bool
	}{
		{`request.tenant == "contoso"`, 0, false},
		{selective + ` && request.body.Comment != "" && request.body.all(k, k != "x")`, 1, true},
		{`request.tenant == "contoso" || ` + selective, 0, true},
	} {
		calls := 0
		r := isolate("")
		r.Body = func() (*Body, error) {
			calls++
			return ParseBody([]string{"application/json"}, nil, []byte(`{"IsolationType":"Selective","Comment":"c"}`))
		}
		c := compile(t, tc.when)
		if holds, err := c.Holds(r); !holds || err != nil || calls != tc.calls || c.names.body != tc.looks {
			t.Errorf("%s: %v, %v with %d calls, looks %v; want true with %d, %v", tc.when, holds, err, calls, c.names.body, tc.calls, tc.looks)
		}
	}
}

func TestWithoutABodyNothingHolds(t *testing.T) {
	failure := errors.New("the caller broke off")
	for name, body := range map[string]func() (*Body, error){
		"no way to get it": nil,
		"a failure":        func() (*Body, error) { return nil, failure },
		"a failure beside": func() (*Body, error) { return &Body{}, failure },
		"nothing":          func() (*Body, error) { return nil, nil },
	} {
		r := isolate("")
		r.Body = body
		for _, when := range []string{selective, `request.body == null`, selective + ` || true`, `request.body != null`} {
			if holds, err := compile(t, when).Holds(r); holds || err == nil {
				t.Errorf("%s: %s = %v, %v; want false and why", name, when, holds, err)
			}
		}
	}
}

func TestNoConditionNeverHolds(t *testing.T) {
	for name, c := range map[string]*Condition{"nil": nil, "the zero value": {}} {
		if holds, err := c.Holds(isolate(`{}`)); holds || err == nil || c.String() != "" {
			t.Errorf("%s: %v, %v; want false and why", name, holds, err)
		}
	}
}

func TestCompileSaysWhatIsWrongAndWhere(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", " \n", "the condition is empty"},
		{"one equals sign", `request.body.IsolationType = "Selective"`, "line 1, column 28: = compares nothing; did you mean ==?"},
		{"three equals signs", `request.body.a === "x"`, "line 1, column 18: === compares nothing; did you mean ==?"},
		{"unequal as in SQL", `request.body.a <> "x"`, "did you mean !=?"},
		{"and", `request.body.a == "x" and request.body.b == "y"`, "line 1, column 23: and joins nothing; write && for and, || for or"},
		{"OR", `request.body.a == "x" OR request.body.b == "y"`, "OR joins nothing; write && for and, || for or"},
		{"one ampersand", `request.body.a == "x" & request.body.b == "y"`, "& joins nothing; write && for and"},
		{"not", `not request.body.a`, "! for not"},
		{"is", `request.body.a is "x"`, "is compares nothing; did you mean ==?"},
		{"a text without quotes", `request.body.IsolationType == Selective`, "undeclared reference to 'Selective'; a text needs quotes, as in \"Selective\""},
		{"two words without quotes", `request.body.ScanType == Quick scan`, "unexpected scan; a text needs quotes"},
		{"a list of texts without quotes", `request.body.action in [Alert, Audit]`, "'Audit'; a text needs quotes"},
		{"quotes of a word processor", `request.body.a == “x”`, "is no quote; a text stands in straight ones"},
		{"a fault on the second line", "request.tenant == 'a' &&\n  request.body.x ==", "line 2, column "},
		{"a part that the request has not", `request.bdy.IsolationType == "Selective"`, "the request has .method, .path, .tenant, .client, .operation and .body"},
		{"the request as a whole", `request == null`, "undeclared reference to 'request'; the request has"},
		{"another name", `body.IsolationType == "Selective"`, "undeclared reference to 'body.IsolationType' (did you mean 'request.body'"},
		{"a list", `[request.tenant]`, "gives a value of type list(string)"},
		{"a text", `request.tenant`, "gives a value of type string"},
		{"two types that are never the same", `request.tenant == 1`, "found no matching overload"},
		{"a function of nobody", `request.body.x.shout() == "A"`, "undeclared reference to 'shout'"},
		{"a function that a caller could make expensive", `request.body.x.replace("a", request.body.y) == ""`, "the function replace is not for conditions"},
		{"a pattern that the caller gives", `request.tenant.matches(request.body.pattern)`, "the pattern of matches must be written out"},
		{"a faulty pattern", `request.tenant.matches("(")`, "invalid matches argument"},
		{"a huge pattern", `request.tenant.matches("a{600}b{600}")`, "regex"},
		{"loops three deep", `request.body.a.all(x, request.body.b.all(y, request.body.c.all(z, x == y && y == z)))`, "comprehension exceeds nesting limit"},
		{"a text too long", `request.tenant == "` + strings.Repeat("a", maxText) + `"`, "exceed"},
		{"parentheses without end", strings.Repeat("(", 2000) + "true" + strings.Repeat(")", 2000), "recursion limit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Compile(tc.text)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, %v; want an error in one line with %q", c, err, tc.want)
			}
		})
	}
}

// A caller that knows the condition cannot make it expensive.
func TestWorkIsBounded(t *testing.T) {
	numbers := "[" + strings.TrimSuffix(strings.Repeat("1,", 16_000), ",") + "]"
	long := `"` + strings.Repeat("a", 30_000) + `"`
	for _, tc := range []struct{ name, when, body string }{
		{"a loop in a loop", `request.body.a.all(x, request.body.b.all(y, x + y < 5))`, `{"a":` + numbers + `,"b":` + numbers + `}`},
		{"texts joined over and over", `request.body.a.map(x, request.body.s + request.body.s).size() > 0`, `{"a":` + numbers + `,"s":` + long + `}`},
		{"a long text searched over and over", `request.body.a.all(x, request.body.s.lowerAscii().contains("b") || true)`, `{"a":` + numbers + `,"s":` + long + `}`},
		{"a long text matched over and over", `request.body.a.all(x, !request.body.s.matches("(a|aa)+b"))`, `{"a":` + numbers + `,"s":` + long + `}`},
		{"lists searched over and over", `request.body.a.all(x, !(2 in request.body.b))`, `{"a":` + numbers + `,"b":` + numbers + `}`},
		{"lists compared over and over", `request.body.a.all(x, request.body.b == request.body.b)`, `{"a":` + numbers + `,"b":` + numbers + `}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, r := compile(t, tc.when), isolate(tc.body)
			began := time.Now()
			holds, err := c.Holds(r)
			if holds || err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
				t.Errorf("got %v, %v; want an end for its cost", holds, err)
			}
			t.Logf("ended after %v", time.Since(began))
		})
	}
}

func TestErrorsAreShort(t *testing.T) {
	_, err := compile(t, `int(request.body.x) == 1`).Holds(isolate(`{"x":"` + strings.Repeat("ä", 20_000) + `"}`))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("got an error of %d bytes", len(err.Error()))
	}
}

func TestConditionsAreAskedConcurrently(t *testing.T) {
	c := compile(t, selective)
	b, err := ParseBody([]string{"application/json"}, nil, []byte(`{"IsolationType":"Selective"}`))
	if err != nil {
		t.Fatal(err)
	}
	r := isolate("")
	r.Body = func() (*Body, error) { return b, nil }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if holds, err := c.Holds(r); !holds || err != nil {
					t.Errorf("got %v, %v; want true", holds, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkHolds(b *testing.B) {
	parsed, err := ParseBody([]string{"application/json"}, nil, []byte(`{"IsolationType":"Selective","Comment":"INC12"}`))
	if err != nil {
		b.Fatal(err)
	}
	for name, when := range map[string]string{"a field": selective, "the tenant": `request.tenant == "contoso"`} {
		b.Run(name, func(b *testing.B) {
			c, r := compile(b, when), isolate("")
			r.Body = func() (*Body, error) { return parsed, nil }
			b.ReportAllocs()
			for b.Loop() {
				if holds, err := c.Holds(r); !holds || err != nil {
					b.Fatal(holds, err)
				}
			}
		})
	}
}

// The conditions that docs/policy.md shows are conditions, and allow what they say.
func TestTheConditionsOfTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(request\\.[^`]*)` \\| [^|]* \\|$").FindAllStringSubmatch(string(text), -1) {
		if strings.ContainsAny(row[1], " (") {
			shown = append(shown, row[1])
		}
	}
	bodies := []struct{ yes, no string }{
		{`{"IsolationType":"Selective","Comment":"c"}`, `{"IsolationType":"Full","Comment":"c"}`},
		{`{"ScanType":"Quick","Comment":"INC12 virus"}`, `{"ScanType":"Quick","Comment":"just so"}`},
		{`{"action":"Audit","indicatorType":"IpAddress"}`, `{"action":"Block","indicatorType":"IpAddress"}`},
		{`{"Indicators":[{"action":"Alert"},{"action":"Audit"}]}`, `{"Indicators":[{"action":"Alert"},{"action":"Block"}]}`},
		{`{"Commands":[{"type":"RunScript","params":[{"key":"ScriptName","value":"triage.ps1"}]}]}`, `{"Commands":[{"type":"RunScript","params":[{"key":"ScriptName","value":"triage.ps1"},{"key":"Args","value":"-Force"}]}]}`},
		{`{"Comment":"c","IsolationType":"Selective"}`, `{"Comment":"c","IsolationType":"Selective","Force":true}`},
		{``, ``},
	}
	if len(shown) != len(bodies) {
		t.Fatalf("the document shows %d conditions, want %d: %q", len(shown), len(bodies), shown)
	}
	for i, when := range shown {
		yes, no := isolate(bodies[i].yes), isolate(bodies[i].no)
		yes.Path = "/api/v1.0/machines/A1B2/isolate"
		c := compile(t, when)
		if holds, err := c.Holds(yes); !holds || err != nil {
			t.Errorf("%s of %s = %v, %v; want true", when, bodies[i].yes, holds, err)
		}
		if holds, err := c.Holds(no); holds {
			t.Errorf("%s of %s = true, %v; want false", when, bodies[i].no, err)
		}
	}
}
