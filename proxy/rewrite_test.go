package proxy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

func jsonAnswer(body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_, _ = io.WriteString(w, body)
	}
}

func TestLinksLeadHome(t *testing.T) {
	const page = `{"@odata.context":"https://api.securitycenter.microsoft.com/api/$metadata#Alerts","value":[{"id":"https://api.securitycenter.microsoft.com/api/alerts/1"}],"@odata.nextLink":"https://api.securitycenter.microsoft.com/api/alerts?$skiptoken=a%2Bb=="}`
	for _, c := range []struct {
		name, path string
		o          options
		header     []string
		base       string // HERE is the listener's URL
	}{
		{name: "the address that was called", path: "/api/alerts", base: "HERE"},
		{name: "the name that was called", path: "/api/alerts", o: options{listener: Listener{Hosts: []string{"defender.corp.example"}}}, header: []string{"Host", "defender.corp.example:81"}, base: "http://defender.corp.example:81"},
		{name: "the tenant that was named", path: "/t/contoso/api/alerts", base: "HERE/t/contoso"},
		{name: "the public URL", path: "/api/alerts", o: options{listener: Listener{PublicURL: "https://front.example/"}}, base: "https://front.example"},
		{name: "the public URL with a tenant", path: "/t/contoso/api/alerts", o: options{listener: Listener{PublicURL: "https://front.example"}}, base: "https://front.example/t/contoso"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.o)
			w.regions[0].answer(jsonAnswer(page))
			got := w.do("GET", c.path, "", c.header...)
			base := strings.ReplaceAll(c.base, "HERE", w.server.URL)
			want := strings.ReplaceAll(page, `"@odata.nextLink":"https://api.securitycenter.microsoft.com`, `"@odata.nextLink":"`+base)
			want = strings.ReplaceAll(want, `"@odata.context":"https://api.securitycenter.microsoft.com`, `"@odata.context":"`+base)
			if got.body != want {
				t.Errorf("got  %s\nwant %s", got.body, want)
			}
			if got.header.Get("Content-Length") != strconv.Itoa(len(want)) {
				t.Errorf("Content-Length is %q, want %d", got.header.Get("Content-Length"), len(want))
			}
		})
	}
}

func TestLinksLeadHomeInGzip(t *testing.T) {
	long := `{"value":[` + strings.Repeat(`{"id":"1","title":"x"},`, 20000) + `0],"@odata.nextLink":"https://us.api.security.microsoft.com/api/alerts?$skip=1"}`
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, long)
	_ = z.Close()
	w := newWorld(t, options{})
	w.regions[0].answer(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") == "gzip" {
			jsonAnswer(packed.String(), "Content-Encoding", "gzip")(rw, r)
			return
		}
		jsonAnswer(long)(rw, r)
	})
	want := strings.ReplaceAll(long, "https://us.api.security.microsoft.com", w.server.URL)
	for name, accept := range map[string]string{"gzip": "br, gzip;q=0.9", "anything": "*", "plain": "identity", "no gzip": "gzip;q=0, br", "nothing said": ""} {
		got := w.do("GET", "/api/alerts", "", "Accept-Encoding", accept)
		body := got.body
		if zipped := name == "gzip" || name == "anything"; zipped != (got.header.Get("Content-Encoding") == "gzip") {
			t.Errorf("%s: Content-Encoding is %q", name, got.header.Get("Content-Encoding"))
		} else if zipped {
			r, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			body = string(plain)
		}
		if body != want {
			t.Errorf("%s: got %d bytes that end with %.120q", name, len(body), body[max(0, len(body)-120):])
		}
	}
	w.regions[0].answer(jsonAnswer(packed.String()[:packed.Len()/2], "Content-Encoding", "gzip"))
	got := w.do("GET", "/api/alerts", "", "Accept-Encoding", "gzip")
	if r, err := gzip.NewReader(strings.NewReader(got.body)); err == nil && got.err == nil {
		if _, err := io.ReadAll(r); err == nil {
			t.Error("half an answer in gzip looks complete")
		}
	}
	w.regions[0].answer(jsonAnswer("no gzip at all", "Content-Encoding", "gzip"))
	if got := w.do("GET", "/api/alerts", "", "Accept-Encoding", "gzip"); got.code() != "InvalidAnswer" {
		t.Errorf("something that is not gzip gives %d %s", got.status, got.body)
	}
}

func TestWhatIsNotJSONPassesByteForByte(t *testing.T) {
	w := newWorld(t, options{})
	body := `"@odata.nextLink":"https://api.securitycenter.microsoft.com/api/alerts"` + "\x00\xff"
	for _, header := range [][]string{
		{"Content-Type", "text/plain"}, {"Content-Type", "application/octet-stream"}, {"Content-Type", "not a type;;"},
		{"Content-Type", "application/json", "Content-Encoding", "br"},
	} {
		w.regions[0].answer(jsonAnswer(body, header...))
		if got := w.do("GET", "/api/alerts", ""); got.body != body || got.header.Get("Content-Type") != header[1] {
			t.Errorf("%v: got %q, %v", header, got.body, got.header)
		}
	}
}

func TestStatusesPassAsTheyCame(t *testing.T) {
	w := newWorld(t, options{})
	for _, code := range []int{200, 201, 202, 204, 304, 400, 403, 404, 409, 429, 500} {
		w.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			if code != 204 && code != 304 {
				fmt.Fprintf(w, `{"error":{"code":"X%d"}}`, code)
			}
		})
		got := w.do("GET", "/api/alerts", "")
		want := fmt.Sprintf(`{"error":{"code":"X%d"}}`, code)
		if code == 204 || code == 304 {
			want = ""
		}
		if got.status != code || got.body != want || got.err != nil {
			t.Errorf("%d: got %d %q %v", code, got.status, got.body, got.err)
		}
	}
}

func TestHEADHasHeadersAndNoBody(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].answer(jsonAnswer(`{"value":[]}`, "ETag", `"e"`))
	if got := w.do("HEAD", "/api/alerts", ""); got.status != 200 || got.body != "" || got.header.Get("ETag") != `"e"` {
		t.Errorf("got %d %q %v", got.status, got.body, got.header)
	}
	if up := w.regions[0].requests(); up[0].method != "HEAD" {
		t.Errorf("upstream got %s", up[0].method)
	}
}

func TestRedirects(t *testing.T) {
	for _, c := range []struct {
		name, location, want string
		status               int
	}{
		{"to one of our paths on Microsoft's host", "https://eu.api.security.microsoft.com/api/alerts?a=b", "HERE/t/contoso/api/alerts?a=b", 307},
		{"to one of our paths on an odd host", "http://evil.example:1/api/alerts", "HERE/t/contoso/api/alerts", 302},
		{"to one of our paths without a host", "/api/alerts", "/t/contoso/api/alerts", 308},
		{"elsewhere", "https://evil.example/login", "", 302},
		{"elsewhere without a host", "/login", "", 301},
		{"to a host without a scheme", "//evil.example/api/alerts", "", 302},
		{"to another scheme", "javascript:alert(1)", "", 303},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{})
			w.regions[0].answer(status(c.status, "Location", c.location))
			got := w.do("GET", "/t/contoso/api/alerts", "")
			if c.want == "" {
				if got.code() != "InvalidAnswer" || got.header.Get("Location") != "" {
					t.Errorf("got %d %s %q", got.status, got.body, got.header.Get("Location"))
				}
				return
			}
			if want := strings.ReplaceAll(c.want, "HERE", w.server.URL); got.status != c.status || got.header.Get("Location") != want {
				t.Errorf("got %d %q, want %q", got.status, got.header.Get("Location"), want)
			}
			if n := len(w.regions[0].requests()); n != 1 {
				t.Errorf("the redirect was followed: %d requests", n)
			}
		})
	}
}

// What Microsoft answers is shown in a browser under the proxy's own name: it must not
// ask the proxy for anything.
func TestWhatIsRelayedCannotActInABrowser(t *testing.T) {
	w := newWorld(t, options{})
	for _, kind := range []string{"text/html", "application/json", "image/svg+xml", ""} {
		for _, status := range []int{200, 404} {
			w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", kind)
				rw.Header()["Content-Security-Policy"] = []string{"default-src *", "script-src *"}
				rw.Header().Set("X-Content-Type-Options", "sniff")
				rw.WriteHeader(status)
				_, _ = io.WriteString(rw, "<script>fetch('/-/approvals')</script>")
			})
			h := w.do("GET", "/api/alerts", "", "Accept", "text/html").header
			if csp, sniff := h["Content-Security-Policy"], h["X-Content-Type-Options"]; len(csp) != 1 || csp[0] != "sandbox; default-src 'none'" || len(sniff) != 1 || sniff[0] != "nosniff" {
				t.Errorf("%d of %q: %q %q", status, kind, csp, sniff)
			}
		}
	}
}

// Sums and ranges are of the bytes that Microsoft sent. An ETag goes back to it as it
// is, in If-Match.
func TestSumsOfABodyGoWithItsBytes(t *testing.T) {
	w := newWorld(t, options{})
	sums := []string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Accept-Ranges"}
	for kind, kept := range map[string]bool{"application/json": false, "application/octet-stream": true} {
		w.regions[0].answer(gives(200, `{"@odata.nextLink":"https://api.securitycenter.microsoft.com/api/alerts?$skip=1","value":[]}`, "Content-Type", kind,
			"Content-MD5", "AAAA", "Digest", "sha-256=x", "Content-Digest", "sha-256=:x:", "Repr-Digest", "sha-256=:x:", "Accept-Ranges", "bytes", "ETag", `"strong"`))
		got := w.do("GET", "/api/alerts", "")
		for _, name := range sums {
			if (got.header.Get(name) != "") != kept {
				t.Errorf("%s: %s is %q", kind, name, got.header.Get(name))
			}
		}
		if got.status != 200 || got.header.Get("ETag") != `"strong"` {
			t.Errorf("%s: %d %v", kind, got.status, got.header)
		}
	}
}
