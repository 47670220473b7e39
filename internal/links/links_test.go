package links

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

func mustTarget(t testing.TB, base string) Target {
	t.Helper()
	target, err := NewTarget(base)
	if err != nil {
		t.Fatalf("NewTarget(%q): %v", base, err)
	}
	return target
}

// rewritten is what a Reader makes of doc when it comes in one piece.
func rewritten(t testing.TB, doc string, target Target) string {
	t.Helper()
	out, err := io.ReadAll(NewReader(strings.NewReader(doc), target))
	if err != nil {
		t.Fatalf("reading %q: %v", doc, err)
	}
	return string(out)
}

const home = "http://127.0.0.1:8080/t/contoso"

func TestReaderTurnsLinksHome(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for name, tc := range map[string]struct{ in, want string }{
		"the next link of a page leads to the proxy": {
			`{"value":[],"@odata.nextLink":"https://api.securitycenter.microsoft.com/api/alerts?$skiptoken=a%2Bb"}`,
			`{"value":[],"@odata.nextLink":"` + home + `/api/alerts?$skiptoken=a%2Bb"}`,
		},
		"context and delta link do as well, and white space stays": {
			"{ \"@odata.context\" :\r\n\t\"https://eu.api.security.microsoft.com/api/$metadata#Alerts\" , \"@odata.deltaLink\":\"https://x/api/d\"}",
			"{ \"@odata.context\" :\r\n\t\"" + home + "/api/$metadata#Alerts\" , \"@odata.deltaLink\":\"" + home + "/api/d\"}",
		},
		"a key may carry the name of a property in front": {
			`{"value@odata.nextLink":"https://x/api/a"}`, `{"value@odata.nextLink":"` + home + `/api/a"}`,
		},
		"links are found at any depth": {
			`[[{"a":{"b":[{"@odata.nextLink":"https://x/api/a"}]}}]]`, `[[{"a":{"b":[{"@odata.nextLink":"` + home + `/api/a"}]}}]]`,
		},
		"any host, port, user information and letter case is replaced": {
			`{"@odata.nextLink":"HTTP://User:pw@[::1]:8443/API/Alerts"}`, `{"@odata.nextLink":"` + home + `/API/Alerts"}`,
		},
		"escapes are recognised before the path and kept after it": {
			`{"@odata.nextLink":"https\u003A\/\u002fx\u002Ecom\/\u0061pi\/alerts?a=1\u0026b=\"2\"\\"}`,
			`{"@odata.nextLink":"` + home + `\/\u0061pi\/alerts?a=1\u0026b=\"2\"\\"}`,
		},
		"a path may end at the word api": {
			`{"@odata.nextLink":"https://x/api"}`, `{"@odata.nextLink":"` + home + `/api"}`,
		},
		"a query may follow the word api": {
			`{"@odata.nextLink":"https://x/api?a//../b"}`, `{"@odata.nextLink":"` + home + `/api?a//../b"}`,
		},
		"Graph's security paths are ours": {
			`{"@odata.nextLink":"https://graph.microsoft.com/v1.0/security/alerts_v2?$skiptoken=x"}`,
			`{"@odata.nextLink":"` + home + `/v1.0/security/alerts_v2?$skiptoken=x"}`,
		},
		"Graph's metadata is ours in a context": {
			`{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#security/alerts_v2"}`,
			`{"@odata.context":"` + home + `/v1.0/$metadata#security/alerts_v2"}`,
		},
		"OData functions in a path are ours": {
			`{"@odata.nextLink":"https://x/api/machines/findbyip(ip='1.2.3.4',timestamp=2019-09-22T08:44:05Z)"}`,
			`{"@odata.nextLink":"` + home + `/api/machines/findbyip(ip='1.2.3.4',timestamp=2019-09-22T08:44:05Z)"}`,
		},
		"a token of any length may follow": {
			`{"@odata.nextLink":"https://x/api/a?` + long + `"}`, `{"@odata.nextLink":"` + home + `/api/a?` + long + `"}`,
		},
		"the slashes of a long path may be escaped": {
			`{"@odata.nextLink":"https:\/\/x\/api` + strings.Repeat(`\/a`, 3000) + `?a"}`, `{"@odata.nextLink":"` + home + `\/api` + strings.Repeat(`\/a`, 3000) + `?a"}`,
		},
		"a path of several KiB is turned": {
			`{"@odata.nextLink":"https://x/api/machines/findbytag(tag='` + strings.Repeat("b", 8000) + `')?$top=1"}`, `{"@odata.nextLink":"` + home + `/api/machines/findbytag(tag='` + strings.Repeat("b", 8000) + `')?$top=1"}`,
		},
		"links within an expanded collection, of rows and of the whole": {
			`{"value":[{"id":"1","machines@odata.context":"https://x/api/$metadata#A('1')/machines","machines@odata.count":2,"machines":[{}],"machines@odata.nextLink":"https://x/api/alerts('1')/machines?$skip=1"}],"@odata.nextLink":"https://x/api/alerts?$skip=1"}`,
			`{"value":[{"id":"1","machines@odata.context":"` + home + `/api/$metadata#A('1')/machines","machines@odata.count":2,"machines":[{}],"machines@odata.nextLink":"` + home + `/api/alerts('1')/machines?$skip=1"}],"@odata.nextLink":"` + home + `/api/alerts?$skip=1"}`,
		},
		"a link beside one that is null": {
			`[{"@odata.nextLink":null,"@odata.deltaLink":"https://x/api/d"},{"@odata.nextLink" : null}]`, `[{"@odata.nextLink":null,"@odata.deltaLink":"` + home + `/api/d"},{"@odata.nextLink" : null}]`,
		},
		"escapes in the query stay byte for byte": {
			`{"@odata.nextLink":"https:\/\/x\/api\/alerts?$filter=a+eq+'\u0027b\u00e9'\u0026$skiptoken\u003dA%2bB\/\u002F\u002f=="}`,
			`{"@odata.nextLink":"` + home + `\/api\/alerts?$filter=a+eq+'\u0027b\u00e9'\u0026$skiptoken\u003dA%2bB\/\u002F\u002f=="}`,
		},
		"an entity's context": {
			`{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#security/incidents/$entity"}`, `{"@odata.context":"` + home + `/v1.0/$metadata#security/incidents/$entity"}`,
		},
		"a link behind backslashes of any number": {
			`{"a":"\\","b\\":"\\\"","\\\\@odata.nextLink":"https://x/api/a?\\"}`, `{"a":"\\","b\\":"\\\"","\\\\@odata.nextLink":"` + home + `/api/a?\\"}`,
		},
		"the second of two markers in a row is seen": {
			`{"@odata.@odata.nextLink":"https://x/api/a"}`, `{"@odata.@odata.nextLink":"` + home + `/api/a"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := rewritten(t, tc.in, mustTarget(t, home)); got != tc.want {
				t.Errorf("got  %.300s\nwant %.300s", got, tc.want)
			}
		})
	}
}

func TestReaderLeavesTheRestAlone(t *testing.T) {
	for name, doc := range map[string]string{
		"a document without members":                       `[1,2,"@odata.nextLink"]`,
		"an empty body":                                    ``,
		"a relative link":                                  `{"@odata.nextLink":"/api/alerts"}`,
		"a link without a scheme":                          `{"@odata.nextLink":"//x/api/alerts"}`,
		"no link":                                          `{"@odata.nextLink":null}`,
		"an empty link":                                    `{"@odata.nextLink":""}`,
		"a link that is an object":                         `{"@odata.nextLink":{"a":"https://x/api/a"}}`,
		"another scheme":                                   `{"@odata.nextLink":"ftp://x/api/alerts"}`,
		"a scheme that only begins like one":               `{"@odata.nextLink":"httpss://x/api/alerts"}`,
		"another member":                                   `{"@odata.id":"https://x/api/a","@odata.type":"#t","nextLink":"https://x/api/a"}`,
		"a name in other letters":                          `{"@odata.nextlink":"https://x/api/a","@OData.nextLink":"https://x/api/a"}`,
		"a name that goes on":                              `{"@odata.nextLinks":"https://x/api/a"}`,
		"a path that is not ours":                          `{"@odata.nextLink":"https://x/secret"}`,
		"a path that only begins like one of ours":         `{"@odata.nextLink":"https://x/apis/a"}`,
		"one of our paths behind another":                  `{"@odata.nextLink":"https://x/y/api/a"}`,
		"no path":                                          `{"@odata.nextLink":"https://x?/api/a"}`,
		"no authority":                                     `{"@odata.nextLink":"https:///api/a"}`,
		"a doubled slash before the path":                  `{"@odata.nextLink":"https://x//api/a"}`,
		"an escaped doubled slash before the path":         `{"@odata.nextLink":"https://x\/\u002fapi/a"}`,
		"a dot segment before the path":                    `{"@odata.nextLink":"https://x/./api/a"}`,
		"a dot segment in the path":                        `{"@odata.nextLink":"https://x/api/../secret"}`,
		"a dot segment with escapes":                       `{"@odata.nextLink":"https://x/api/\u002e%2E/secret"}`,
		"a dot segment at the end":                         `{"@odata.nextLink":"https://x/api/.."}`,
		"a backslash before the path":                      `{"@odata.nextLink":"https://x\\/api/a"}`,
		"a backslash instead of a slash":                   `{"@odata.nextLink":"https://x/api\\..\\a"}`,
		"a control in the path":                            `{"@odata.nextLink":"https://x/api/.\t./a"}`,
		"a host beyond ASCII":                              `{"@odata.nextLink":"https://bücher.example/api/a"}`,
		"Graph's other paths in a next link":               `{"@odata.nextLink":"https://graph.microsoft.com/v1.0/users"}`,
		"beta paths":                                       `{"@odata.context":"https://graph.microsoft.com/beta/$metadata"}`,
		"the members' names in a value":                    `{"a":"@odata.nextLink","b":"\"@odata.nextLink\":\"https://x/api/a\""}`,
		"a key spelt with escapes":                         `{"\u0040odata.nextLink":"https://x/api/a"}`,
		"a link in the text of a comment":                  `{"comments":[{"comment":"see {\"@odata.nextLink\":\"https://x/api/a\"} and \\\"@odata.context\\\":\\\"https://x/api/b\\\""}]}`,
		"a text that ends like a key, before another text": `["a@odata.nextLink","https://x/api/a",":","https://x/api/b"]`,
		"a text that ends like a key and goes on escaped":  `{"a":"@odata.nextLink\":\"https://x/api/a"}`,
		"members that are not among those promised":        `{"@odata.id":"https://x/api/a","@odata.editLink":"https://x/api/b","@odata.readLink":"https://x/api/c","a@odata.navigationLink":"https://x/api/d","a@odata.associationLink":"https://x/api/e"}`,
		"links elsewhere":                                  `{"value":"https://x/api/a","webUrl":"https://security.microsoft.com/api/a"}`,
		"a path that is longer than is looked at":          `{"@odata.nextLink":"https://x/api/` + strings.Repeat("a", maxHeld) + `"}`,
		"a host that is longer than is looked at":          `{"@odata.nextLink":"https://` + strings.Repeat("a", maxHeld) + `/api"}`,
		"more white space than is looked at":               `{"@odata.nextLink":` + strings.Repeat(" ", maxHeld) + `"https://x/api/a"}`,
		"a document cut off in a link":                     `{"@odata.nextLink":"https://x/ap`,
		"a document cut off in an escape":                  `{"@odata.nextLink":"https://x\u00`,
		"a document cut off in a marker":                   `{"@odata`,
		"what isn't JSON, though it has something like it": "@odata.nextLink\xff\x00: https://x/api/a",
	} {
		t.Run(name, func(t *testing.T) {
			if got := rewritten(t, doc, mustTarget(t, home)); got != doc {
				t.Errorf("got  %.300s\nwant %.300s", got, doc)
			}
		})
	}
}

func TestReaderWithoutATargetChangesNothing(t *testing.T) {
	doc := `{"@odata.nextLink":"https://x/api/a"}`
	if got := rewritten(t, doc, Target{}); got != doc {
		t.Errorf("got %s, want %s", got, doc)
	}
}

// hosts are some that Microsoft's pages show, and some that nobody should write.
var hosts = []string{
	"api.securitycenter.microsoft.com", "API.SecurityCenter.Windows.COM", "wdatpprd-eus3.securitycenter.windows.com", "api-gov.securitycenter.microsoft.us", "us.api.security.microsoft.com.",
	"xn--bcher-kva.example", "localhost", "127.0.0.1:8443", "[::1]", "[2001:db8::1%25eth0]:443", "graph.microsoft.com:443", "x:", "user:password@x", "a_b.example", "0x7f.1", "x:99999",
}

func TestEveryHostLeadsHome(t *testing.T) {
	for _, base := range []string{home, "http://127.0.0.1:8080", "https://[::1]:8443", "https://corp.example/defender/t/contoso"} {
		target := mustTarget(t, base)
		for _, host := range hosts {
			for _, scheme := range []string{"https", "http", "HTTPS"} {
				for _, path := range []string{"/api/alerts?a=b", "/API/v1.0/Machines", "/v1.0/security/incidents?$skip=1#x"} {
					link := scheme + "://" + host + path
					escape := strings.NewReplacer("/", `\/`).Replace
					if got, want := rewritten(t, `{"@odata.nextLink":"`+link+`"}`, target), `{"@odata.nextLink":"`+base+path+`"}`; got != want {
						t.Errorf("got %s, want %s", got, want)
					}
					if got, want := rewritten(t, `{"@odata.nextLink":"`+escape(link)+`"}`, target), `{"@odata.nextLink":"`+base+escape(path)+`"}`; got != want {
						t.Errorf("escaped: got %s, want %s", got, want)
					}
					if got, ok := Header(link, target); !ok || got != base+path {
						t.Errorf("Header(%q): got %q, %v, want %q", link, got, ok, base+path)
					}
				}
			}
		}
	}
}

func TestReaderKeepsALinkAtTheVeryLimit(t *testing.T) {
	head := `@odata.nextLink":"https://x/api/`
	for extra, want := range map[int]bool{-1: true, 0: true, 1: false} {
		fill := strings.Repeat("a", maxHeld-len(head)-1+extra)
		doc := `{"` + head + fill + `"}`
		split := len(doc) - 100
		for _, src := range []io.Reader{strings.NewReader(doc), io.MultiReader(strings.NewReader(doc[:split]), iotest.OneByteReader(strings.NewReader(doc[split:])))} {
			out, err := io.ReadAll(NewReader(src, mustTarget(t, home)))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(out) != doc; got != want {
				t.Errorf("%d bytes beyond the limit: rewritten is %v, want %v", extra, got, want)
			}
		}
	}
}

// pieces returns src in pieces of random length, and sometimes nothing.
type pieces struct {
	src *bytes.Reader
	rnd *rand.Rand
	max int
}

func (p *pieces) Read(b []byte) (int, error) {
	return p.src.Read(b[:min(len(b), p.rnd.IntN(p.max+1))])
}

// readOddly reads r in pieces of random length, and sometimes of none.
func readOddly(t testing.TB, r io.Reader, rnd *rand.Rand, max int) []byte {
	t.Helper()
	var out []byte
	buf := make([]byte, max)
	for {
		n, err := r.Read(buf[:rnd.IntN(max+1)])
		out = append(out, buf[:n]...)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatalf("read: %v", err)
		}
	}
}

func TestReaderGivesTheSameForEverySplit(t *testing.T) {
	target := mustTarget(t, home)
	doc := `{"@odata.context":"https:\/\/x\u002ey/api/$metadata#A","value":[{"a@odata.x":1,"b":"@oda"}],"@odata.nextLink" : "https://x/api/alerts?$skiptoken=a%2Bb","@odata`
	want := rewritten(t, doc, target)
	if strings.Count(want, home) != 2 {
		t.Fatalf("the document should hold two links: %s", want)
	}
	for i := range doc {
		src := io.MultiReader(strings.NewReader(doc[:i]), strings.NewReader(doc[i:]))
		out, err := io.ReadAll(NewReader(src, target))
		if err != nil || string(out) != want {
			t.Fatalf("split at %d: got %s, %v", i, out, err)
		}
	}
	for name, src := range map[string]io.Reader{
		"one byte at a time":        iotest.OneByteReader(strings.NewReader(doc)),
		"the end with the last one": iotest.DataErrReader(strings.NewReader(doc)),
	} {
		if out, err := io.ReadAll(iotest.OneByteReader(NewReader(src, target))); err != nil || string(out) != want {
			t.Errorf("%s: got %s, %v", name, out, err)
		}
	}
}

func TestReaderHandsOutWhatIsDecided(t *testing.T) {
	src, feed := io.Pipe()
	r := NewReader(src, mustTarget(t, home))
	go func() {
		io.WriteString(feed, `{"value":[1],"@odata.next`)
		io.WriteString(feed, `Link":"https://x/api/a`)
		io.WriteString(feed, `lerts?more`)
		feed.CloseWithError(io.ErrUnexpectedEOF)
	}()
	buf := make([]byte, 4096)
	for _, want := range []string{`{"value":[1],"`, `@odata.nextLink":"` + home + `/api/alerts?more`} {
		n, err := r.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
		}
	}
	for range 2 {
		if n, err := r.Read(buf); n != 0 || err != io.ErrUnexpectedEOF {
			t.Fatalf("at the end: got %d bytes and error %v, want none and unexpected EOF", n, err)
		}
	}
}

func TestReaderHandsOutAllBytesBeforeAnError(t *testing.T) {
	broken := errors.New("connection reset")
	doc := `{"@odata.nextLink":"https://x/ap`
	src := io.MultiReader(strings.NewReader(doc), iotest.ErrReader(broken))
	out, err := io.ReadAll(NewReader(src, mustTarget(t, home)))
	if string(out) != doc || !errors.Is(err, broken) {
		t.Errorf("got %q, %v, want %q and the error of the source", out, err, doc)
	}
}

// counts is a source that lies about what it read.
type counts int

func (c counts) Read(p []byte) (int, error) {
	if c == 0 {
		return 0, nil
	}
	return len(p) + int(c), nil
}

func TestReaderRefusesASourceThatLies(t *testing.T) {
	if out, err := io.ReadAll(NewReader(counts(1), mustTarget(t, home))); len(out) > 0 || err != errImpossibleCount {
		t.Errorf("too many bytes: got %d bytes, %v", len(out), err)
	}
	if out, err := io.ReadAll(NewReader(counts(0), mustTarget(t, home))); len(out) > 0 || err != io.ErrNoProgress {
		t.Errorf("no bytes for ever: got %d bytes, %v", len(out), err)
	}
}

func TestHeader(t *testing.T) {
	for name, tc := range map[string]struct {
		in, want string
		ok       bool
	}{
		"an absolute link gets the base":             {"https://eu.api.security.microsoft.com/api/machineactions/1", home + "/api/machineactions/1", true},
		"a relative link gets the prefix":            {"/api/machineactions/1?a=%2B", "/t/contoso/api/machineactions/1?a=%2B", true},
		"case, port and fragment are kept":           {"HTTPS://x:8443/API/a#f", home + "/API/a#f", true},
		"Graph's security paths lead home":           {"https://graph.microsoft.com/v1.0/security/alerts_v2", home + "/v1.0/security/alerts_v2", true},
		"another host's other path does not":         {"https://login.microsoftonline.com/common/oauth2", "", false},
		"Graph's other paths do not":                 {"https://graph.microsoft.com/v1.0/users", "", false},
		"a host without a scheme does not":           {"//evil.example/api/a", "", false},
		"a path relative to the current one doesn't": {"api/a", "", false},
		"a query alone does not":                     {"?a=b", "", false},
		"dot segments do not":                        {"https://x/api/../secret", "", false},
		"encoded dot segments do not":                {"/api/%2E%2e/secret", "", false},
		"backslashes do not":                         {`https://x/api\..\a`, "", false},
		"a slash escaped as in JSON does not":        {`https:\/\/x/api/a`, "", false},
		"quotes do not":                              {`https://x/api/"`, "", false},
		"line breaks do not":                         {"/api/a\r\nSet-Cookie: a=b", "", false},
		"other schemes do not":                       {"javascript://x/api/a", "", false},
		"nothing does not":                           {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := Header(tc.in, mustTarget(t, home))
			if got != tc.want || ok != tc.ok {
				t.Errorf("Header(%q): got %q, %v, want %q, %v", tc.in, got, ok, tc.want, tc.ok)
			}
		})
	}
	if got, ok := Header("/api/a", Target{}); ok {
		t.Errorf("without a target: got %q, want none", got)
	}
}

func TestNewTarget(t *testing.T) {
	for _, base := range []string{
		"http://127.0.0.1:8080", "https://[::1]:8443", "https://defender.corp.example/t/contoso",
		"https://corp.example/defender/t/a-b_c.d~e",
	} {
		if target := mustTarget(t, base); target.String() != base {
			t.Errorf("NewTarget(%q) has base %q", base, target)
		}
	}
	for name, base := range map[string]string{
		"nothing":                 "",
		"no scheme":               "127.0.0.1:8080",
		"another scheme":          "ftp://x",
		"a scheme in capitals":    "HTTP://x",
		"no host":                 "http://",
		"no host but a port":      "http://:8080",
		"a bad port":              "http://x:y",
		"a slash at the end":      "http://x/",
		"a slash after a prefix":  "http://x/t/a/",
		"a doubled slash":         "http://x//t",
		"a dot segment":           "http://x/t/..",
		"a quote":                 `http://x"/t`,
		"a backslash":             `http://x\t`,
		"a line break":            "http://x\r\ny",
		"user information":        "http://a@x",
		"a query":                 "http://x?a",
		"a fragment":              "http://x#a",
		"a percent":               "http://x/%2e",
		"a character beyond":      "http://é",
		"more than a base can be": "http://x/" + strings.Repeat("a", maxBase),
	} {
		t.Run(name, func(t *testing.T) {
			if target, err := NewTarget(base); err == nil {
				t.Errorf("NewTarget(%q) = %q, want an error", base, target)
			}
		})
	}
}
