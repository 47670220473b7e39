package links

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// link is what a rewritten link looks like once it is decoded: the origin, then
// the path up to the character that ends it.
var (
	link        = regexp.MustCompile(`^(?i:https?://)[!$-.0->@-\[\]-~]+((?:/[!$-.0->@-\[\]-~]*)+)(?:[?#]|$)`)
	ownPath     = regexp.MustCompile(`^(?:/[aA][pP][iI]|/[vV]1\.0/[sS][eE][cC][uU][rR][iI][tT][yY])(?:/|$)`)
	contextPath = regexp.MustCompile(`^/[vV]1\.0(?:/|$)`)
	oddPath     = regexp.MustCompile(`//|/(?:\.|%2[eE]){1,2}(?:/|$)`)
)

// reference rewrites doc, which is valid JSON, slowly and by other means: it
// walks encoding/json's tokens and decodes keys and values in full. told are the
// links that OnNext should hear of.
func reference(t testing.TB, doc []byte, target Target) (out []byte, told []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var (
		done  int64 // bytes of doc that are in out
		stack []bool
		isKey bool
		key   string // raw, with its quotes
		keyAt int64
	)
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return append(out, doc[done:]...), told
		}
		if err != nil {
			t.Fatalf("reference: %v", err)
		}
		end := d.InputOffset()
		object := len(stack) > 0 && stack[len(stack)-1]
		if s, ok := tok.(string); ok && object && isKey {
			raw := doc[:end]
			keyAt = end
			key = string(raw[max(0, len(raw)-len(s)*6-20):])
			isKey = false
			continue
		}
		if s, ok := tok.(string); ok && object {
			colon := keyAt + int64(bytes.IndexByte(doc[keyAt:], ':'))
			start := colon + int64(bytes.IndexByte(doc[colon:], '"')) + 1
			if n := originOf(doc, key, keyAt, start, end-1, s); n > 0 {
				out = append(append(out, doc[done:start]...), target.String()...)
				done = start + n
				if strings.HasSuffix(key, `@odata.nextLink"`) && end-1-done <= maxNext {
					told = append(told, s[link.FindStringSubmatchIndex(s)[2]:])
				}
			}
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			stack = append(stack, tok == json.Delim('{'))
			isKey = tok == json.Delim('{')
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		isKey = len(stack) > 0 && stack[len(stack)-1]
	}
}

// originOf measures the raw origin of the string at doc[start:end], whose
// decoded form is s; 0 when it is to stay.
func originOf(doc []byte, key string, keyAt, start, end int64, s string) int64 {
	i := slices.IndexFunc([]string{"nextLink", "deltaLink", "context"}, func(name string) bool {
		return strings.HasSuffix(key, "@odata."+name+`"`)
	})
	m := link.FindStringSubmatchIndex(s)
	if i < 0 || m == nil {
		return 0
	}
	path := s[m[2]:m[3]]
	if oddPath.MatchString(path) || !ownPath.MatchString(path) && !(i == 2 && contextPath.MatchString(path)) {
		return 0
	}
	decided := rawLen(doc[start:end], s[:m[1]])
	if m[1] == m[3] {
		decided++ // the path ends with the string, so the quote decides
	}
	marker := keyAt - int64(len(key)-strings.LastIndex(key, "@odata."))
	if start+decided-marker > maxHeld {
		return 0
	}
	return rawLen(doc[start:end], s[:m[2]])
}

// rawLen is the length of the JSON text at the start of raw that decodes to s.
func rawLen(raw []byte, s string) int64 {
	for n := range len(raw) + 1 {
		var got string
		if json.Unmarshal(fmt.Appendf(nil, `"%s"`, raw[:n]), &got) == nil && got == s {
			return int64(n)
		}
	}
	panic(fmt.Sprintf("%q does not begin with %q", raw, s))
}

// toldOf are the links that OnNext is told of when doc comes in one piece.
func toldOf(t testing.TB, doc string, target Target) (told []string) {
	t.Helper()
	r := NewReader(strings.NewReader(doc), target)
	r.OnNext = func(link string) { told = append(told, link) }
	if out, err := io.ReadAll(r); err != nil || string(out) != rewritten(t, doc, target) {
		t.Fatalf("with OnNext: got %q, %v, want what comes without", out, err)
	}
	return told
}

// check holds the Reader against the reference, whole and in odd pieces.
func check(t testing.TB, doc []byte, seed uint64) {
	t.Helper()
	target := mustTarget(t, home)
	whole := rewritten(t, string(doc), target)
	told := toldOf(t, string(doc), target)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for _, max := range []int{1, 7, 100} {
		r := NewReader(&pieces{src: bytes.NewReader(doc), rnd: rnd, max: max}, target)
		var parts []string
		r.OnNext = func(link string) { parts = append(parts, link) }
		if got := readOddly(t, r, rnd, max); string(got) != whole {
			t.Fatalf("in pieces of up to %d bytes: got %q\nin one piece %q", max, got, whole)
		}
		if !slices.Equal(parts, told) {
			t.Fatalf("in pieces of up to %d bytes: told of %q\nin one piece %q", max, parts, told)
		}
	}
	if !json.Valid(doc) {
		return
	}
	want, links := reference(t, doc, target)
	if whole != string(want) {
		t.Fatalf("document  %q\ngot       %q\nreference %q", doc, whole, want)
	}
	if !slices.Equal(told, links) {
		t.Fatalf("document  %q\ntold of   %q\nreference %q", doc, told, links)
	}
	if !json.Valid([]byte(whole)) {
		t.Fatalf("document %q: the output is no longer JSON: %q", doc, whole)
	}
}

var seeds = []string{
	`{"@odata.context":"https://api.security.microsoft.com/api/$metadata#Alerts","value":[{"id":"da1"}],"@odata.nextLink":"https://x/api/alerts?$skiptoken=a%2Bb"}`,
	`{"value@odata.nextLink" : "http:\/\/a:b@x\u002f\u0061pi/a\u0026","@odata.deltaLink":null}`,
	`{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#security/alerts_v2","a":{"@odata.nextLink":"https://x/v1.0/security/../users"}}`,
	`[{"a":"\"@odata.nextLink\":\"https://x/api/a\""},"@odata.nextLink",{"@odata.@odata.context":"https://x/api"}]`,
	"{\"@odata.nextLink\":\"https://x/api/a?\\ud83d\\u0041\xff\\t\"}",
	`{"value":[{"comment":"\"@odata.nextLink\":\"https://x/api/a\" and \\\"@odata.context\\\":\\\"https://x/api\\\"","machines@odata.nextLink":"https:\/\/x\/api\/a?\u0026b\u003dc"}]}`,
	`{"\\\\@odata.nextLink":"https://x/api\\","a\\\"@odata.nextLink":"\"https://x/api","@odata.nextLink\"":"https://x/api/b"}`,
	"{\"@odata.nextLink\"\n:\t\"https://x\\\\/api/a\",\"@odata.nextLink\":\"https://x/API?\xff\"}",
}

// FuzzReader holds the Reader against encoding/json, and against itself on
// other splits of the document.
func FuzzReader(f *testing.F) {
	for i, s := range seeds {
		f.Add([]byte(s), uint64(i))
	}
	f.Fuzz(func(t *testing.T, doc []byte, seed uint64) { check(t, doc, seed) })
}

// FuzzValue does the same for one link, so that the fuzzer need not find JSON.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		`https://x/api/alerts`, `https:\/\/x\/api`, `HTTP\u003a//u:p@[::1]:1/v1.0/security/a/`, `https://x/v1.0/$metadata#a`,
		`https://x//api`, `https://x/api/%2e./a`, `https://x/api\u005c`, `https://x/api/\u00e9`,
	} {
		f.Add(s, uint8(0))
	}
	f.Fuzz(func(t *testing.T, value string, name uint8) {
		m := members[int(name)%len(members)].name
		check(t, fmt.Appendf(nil, `{"@odata.%s:"%s"}`, m, value), uint64(name))
	})
}

// FuzzHeader: what Header accepts is one of the proxy's own URLs, with the end
// of the original.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{"https://x/api/a", "/api/a?b", "//x/api", "https://x/api/../a", "/v1.0/security"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		target := mustTarget(t, home)
		got, ok := Header(value, target)
		if !ok {
			if got != "" {
				t.Fatalf("Header(%q) refuses but returns %q", value, got)
			}
			return
		}
		rest, found := strings.CutPrefix(got, target.String())
		if !found {
			rest, found = strings.CutPrefix(got, target.prefix)
		}
		path, _, _ := strings.Cut(rest, "?")
		path, _, _ = strings.Cut(path, "#")
		if !found || !strings.HasSuffix(value, rest) || !ownPath.MatchString(path) || oddPath.MatchString(path) {
			t.Fatalf("Header(%q) = %q", value, got)
		}
	})
}

// TestReaderAgreesWithTheReference builds documents from the words that matter,
// which a fuzzer of bytes is slow to find.
func TestReaderAgreesWithTheReference(t *testing.T) {
	keys := []string{`@odata.nextLink`, `@odata.context`, `v@odata.deltaLink`, `@odata.type`, `@odata.`, `id`, `\u0040odata.nextLink`, `\"@odata.nextLink`, `\\@odata.context`}
	schemes := []string{`https://`, `http://`, `HTTPS:\/\/`, `http\u003A/\u002f`, `ftp://`, `//`, `https:/`, ``}
	hosts := []string{`x`, `x:8443`, `u:p@x`, `[::1]`, `x\u002ecom`, ``, `\\`, `é`, `x\n`}
	paths := []string{`/api`, `/api/`, `\/api/alerts`, `/\u0061PI/a`, `/v1.0/security/a`, `/v1.0/$metadata`, `/v1.0`, `//api`, `/./api`, `/api/../a`, `/api/%2e%2E`, `/x`, ``, `/api\\a`}
	ends := []string{``, `?a=b//..`, `#f`, `\u003fa\u0026b`, `\"`, `?@odata.nextLink`, `?\ud83d\ude00\ud83dé\\`}
	spaces := []string{``, ` `, "\r\n\t"}
	fragments := []string{`\\`, `\"`, `\u0022`, `\u005c`, `\/`, `@odata.nextLink`, `@odata.`, `context`, `:`, `,`, `{`, ` `, `https://x/api/a`, `https:\/\/x\/api`, `/`, `?`}
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(words []string) string { return words[rnd.IntN(len(words))] }
	text := func() string { // of a comment, say, that quotes an answer
		var b strings.Builder
		for range rnd.IntN(12) {
			b.WriteString(pick(fragments))
		}
		return b.String()
	}
	var document func(depth int) string
	document = func(depth int) string {
		switch n := rnd.IntN(6); {
		case n == 0:
			return `"@odata.nextLink"`
		case n == 1 && rnd.IntN(2) == 0:
			return `{"` + text() + `":"` + text() + `","comment":"` + text() + `"}`
		case n == 1 || depth == 0:
			return pick([]string{`null`, `-1.5e3`, `true`, `"\"@odata.nextLink\":\"https://x/api/a"`})
		case n == 2:
			return `[` + document(depth-1) + pick(spaces) + `,` + document(depth-1) + `]`
		}
		var b strings.Builder
		for i := range 3 {
			if i > 0 {
				b.WriteByte(',')
			}
			value := `"` + pick(schemes) + pick(hosts) + pick(paths) + pick(ends) + `"`
			if rnd.IntN(4) == 0 {
				value = document(depth - 1)
			}
			b.WriteString(pick(spaces) + `"` + pick(keys) + `"` + pick(spaces) + `:` + pick(spaces) + value)
		}
		return `{` + b.String() + `}`
	}
	changed := 0
	for i := range 5000 {
		doc := document(4)
		if !json.Valid([]byte(doc)) {
			t.Fatalf("the generator made no JSON: %s", doc)
		}
		check(t, []byte(doc), uint64(i))
		if rewritten(t, doc, mustTarget(t, home)) != doc {
			changed++
		}
	}
	if changed < 500 {
		t.Errorf("only %d of 5000 documents held a link of ours: the generator is too weak", changed)
	}
}
