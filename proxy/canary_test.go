package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/clients"
)

// canaries are secrets of each kind that a caller may send: by mistake, because a
// tool does, or to see where they turn up. mark is the part that nobody may see.
var canaries = []struct {
	kind, value, mark string
	// bare canaries look like any word. They are known by where they stand alone.
	bare bool
}{
	{"a token", "eyJhbGciOiJub25lIiwiY2FuYXJ5IjoxfQ.eyJjYW5hcnkiOiJjYW5hcnkifQ.c2lnbmF0dXJl", "eyJjYW5hcnki", false},
	{"a client secret", "can8Q~aryCANARYaryCANARYaryCANARY12345", "aryCANARY", false},
	{"a refresh token", "0.AXcanaryCANARYcanary123.AgABAAEAAAcanaryCANARY", "canaryCANARY", false},
	{"a download link", "https://canary.blob.core.windows.net/c/f?sv=2020&se=2026&sig=canarySIG%2Fabc%3D", "canarySIG", false},
	{"a basic credential", "Basic Y2FuYXJ5OmNhbmFyeTEyMw==", "Y2FuYXJ5OmNhbmFyeTEyMw", false},
	{"a URL with a password", "https://user:canaryPASS@corp.example/x", "canaryPASS", false},
	{"a form", "client_secret=canaryFORM1", "canaryFORM1", false},
	{"a member of JSON", `{"password":"canary JSON"}`, "canary JSON", false},
	{"a long opaque word", strings.Repeat("canaryLONG0", 12), "canaryLONG0canaryLONG0", false},
	{"a word", "canary-hunter2", "canary-hunter2", true},
}

type place struct {
	request string
	secret  bool
}

// places are where in a request they stand: @ is the canary, ^ the canary escaped
// for a URL, * its length. Those that are secret take a bare canary too, because what stands there
// is never shown.
var places = []place{
	{"GET /api/alerts?x=^ HTTP/1.1\r\n", true},
	{"GET /api/alerts?^ HTTP/1.1\r\n", true},
	{"GET /api/alerts?^=1&$top=1 HTTP/1.1\r\n", true},
	{"GET /api/alerts?$filter=id%20eq%20'^' HTTP/1.1\r\n", true},
	{"GET /api/alerts?$top=^&$select=^ HTTP/1.1\r\n", true},
	{"GET /api/alerts?access_token=^&sig=^ HTTP/1.1\r\n", true},
	{"GET /api/alerts?a=b?^#^ HTTP/1.1\r\n", true},
	{"GET /api/alerts#^ HTTP/1.1\r\n", true},
	{"GET http://^:^@127.0.0.1/api/alerts HTTP/1.1\r\n", true},
	{"GET http://127.0.0.1/api/alerts?^ HTTP/1.1\r\n", true},
	{"GET /?^ HTTP/1.1\r\n", true},
	{"GET /-/whoami?x=^ HTTP/1.1\r\n", true},
	{"GET /-/operations?^ HTTP/1.1\r\n", true},
	{"GET /-/explain?method=GET&path=/api/^ HTTP/1.1\r\n", true},
	{"GET /-/explain?method=^&path=^&tenant=^&client=^ HTTP/1.1\r\n", true},
	{"POST /api/machines/m1/isolate?x=^ HTTP/1.1\r\nContent-Length: 0\r\n", true},
	{"DELETE /api/alerts?x=^ HTTP/1.1\r\n", true},
	{"GET /api/nothing?x=^ HTTP/1.1\r\n", true},
	{"GET /t/fabrikam/api/alerts?x=^ HTTP/1.1\r\n", true},
	{"GET /api/..%2f?x=^ HTTP/1.1\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nAuthorization: Bearer @\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nAuthorization: @\r\n", true},
	{"GET /api/nothing HTTP/1.1\r\nAuthorization: @\r\nProxy-Authorization: @\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nCookie: s=@; t=@\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nX-Api-Key: @\r\nX-Local-Key: @\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nReferer: https://x/?@\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nForwarded: for=@\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nX-Original-Url: /@\r\nX-Http-Method-Override: @\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nAccept: @\r\nPrefer: @\r\nClient-Request-Id: @\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nUpgrade: @\r\nConnection: Upgrade, @\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\nX-Approval-Id: @\r\n", true},
	{"POST /api/indicators HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: *\r\n\r\n@", true},
	{"POST /api/machines/m1/isolate HTTP/1.1\r\nContent-Type: @\r\nContent-Length: *\r\n\r\n@", true},
	{"POST /api/advancedqueries/run HTTP/1.1\r\nContent-Length: *\r\n\r\n@", true},
	{"POST /api/indicators HTTP/1.1\r\nContent-Length: 500\r\n\r\n@", true},
	{"POST /api/indicators HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n@\r\n@", true},
	{"POST /api/indicators HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;@=@\r\nx\r\n0\r\nX-Trailer: @\r\n\r\n", true},
	{"GET /api/alerts HTTP/@\r\n", true},
	{"GET /api/alerts HTTP/1.1\r\n@\r\n", true},
	{"CONNECT user:^@x:443 HTTP/1.1\r\n", true},

	{"GET /api/alerts/^ HTTP/1.1\r\n", false},
	{"GET /api/^ HTTP/1.1\r\n", false},
	{"GET /api/^/../^ HTTP/1.1\r\n", false},
	{"GET /api/%^ HTTP/1.1\r\n", false},
	{"GET ^ HTTP/1.1\r\n", false},
	{"GET /t/^/api/alerts HTTP/1.1\r\n", false},
	{"GET /t/^ HTTP/1.1\r\n", false},
	{"POST /api/machines/^/isolate HTTP/1.1\r\nContent-Length: 0\r\n", false},
	{"DELETE /api/alerts/^ HTTP/1.1\r\n", false},
	{"GET /api/alerts HTTP/1.1\r\nUser-Agent: @\r\n", false},
	{"GET /api/nothing HTTP/1.1\r\nUser-Agent: tool/1.0 (@)\r\n", false},
	{"GET /api/alerts HTTP/1.1\r\nHost: @\r\n", false},
	{"GET /api/alerts HTTP/1.1\r\nOrigin: https://@\r\n", false},
	{"GET /api/alerts HTTP/1.1\r\nX-Forwarded-For: 10.0.0.1, @\r\n", false},
	{"GET /api/alerts HTTP/1.1\r\nSec-Fetch-Site: @\r\n", false},
	{"GET /api/alerts HTTP/1.1\r\nX_Local.@: 1\r\n", false},
	{"^ /api/alerts HTTP/1.1\r\n", false},
	{"^ /api/nothing HTTP/1.1\r\n", false},
	{"GET ^://127.0.0.1/api/alerts HTTP/1.1\r\n", false},
}

// init adds places where the canary stands across the cut of what a record quotes:
// half of a secret is harder to know.
func init() {
	for _, n := range []int{150, 232, 239, 240} {
		filler := strings.Repeat("x", n)
		for _, request := range []string{"GET /api/alerts HTTP/1.1\r\nUser-Agent: ~ @\r\n", "GET /api/alerts HTTP/1.1\r\nHost: ~.@\r\n", "GET /api/..%2f~/^ HTTP/1.1\r\n"} {
			places = append(places, place{strings.Replace(request, "~", filler, 1), false})
		}
	}
}

// escapedPlainly is a canary as a careless tool writes it into a URL: what cannot
// stand there is escaped, what can be misread is not.
func escapedPlainly(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c >= 0x7f || c == '{' || c == '}' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// TestNoCanaryIsSeen sends each canary in each place through proxies that fare
// differently. What the operator gets to see holds none of them, nor the proxy's own
// token and secret, which no caller sees either.
func TestNoCanaryIsSeen(t *testing.T) {
	for name, o := range canaryWorlds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o.options)
			if o.ready != nil {
				o.ready(w)
			}
			answers := 0
			for i, c := range canaries {
				for j, p := range places {
					if c.bare && !p.secret {
						continue
					}
					for k, escape := range []func(string) string{url.QueryEscape, escapedPlainly} {
						if !o.all && (i+j+k)%3 != 0 {
							continue // in turns: each canary and each place, but not all pairs
						}
						request := strings.NewReplacer("@", c.value, "^", escape(c.value), "*", fmt.Sprint(len(c.value))).Replace(p.request)
						answer := w.send(request)
						if answer != "" {
							answers++
						}
						for _, own := range append(w.entra.tokens(), secretCanary) {
							if strings.Contains(answer, own) {
								t.Errorf("%s in %q: the answer shows what is the proxy's", c.kind, p.request)
							}
						}
					}
				}
			}
			w.server.Close() // and so the last record is written
			if least := len(canaries) * len(places) / 4; answers < least {
				t.Errorf("%d answers, want at least %d: the test shows nothing", answers, least)
			}
			for where, text := range map[string]string{"the log": w.log.String(), "the audit": w.records.String()} {
				for _, c := range canaries {
					for _, form := range []string{c.mark, url.QueryEscape(c.mark), url.PathEscape(c.mark)} {
						if i := strings.Index(text, form); i >= 0 {
							line := text[strings.LastIndexByte(text[:i], '\n')+1:]
							line, _, _ = strings.Cut(line, "\n")
							t.Errorf("%s shows %s: %s", where, c.kind, line)
							break
						}
					}
				}
				for _, own := range append(w.entra.tokens(), secretCanary) {
					for part := range strings.SplitSeq(own, ".") {
						if strings.Contains(text, part) {
							t.Errorf("%s shows the proxy's own token or secret", where)
						}
					}
				}
			}
			if o.told != "" && !strings.Contains(w.log.String()+w.records.String(), o.told) {
				t.Errorf("nothing tells of %s: the test did not go that way", o.told)
			}
			for _, r := range w.regions {
				for _, a := range r.requests() {
					for name, values := range a.header {
						if name == "Authorization" && len(values) == 1 && strings.HasPrefix(values[0], "Bearer ") && !strings.Contains(values[0], "canary") {
							continue
						}
						if known := "Accept Prefer Client-Request-Id User-Agent Content-Type"; strings.Contains(fmt.Sprint(values), "canary") && !strings.Contains(known, name) {
							t.Errorf("Microsoft's side got %s: %q", name, values)
						}
					}
				}
			}
		})
	}
}

type canaryWorld struct {
	options options
	ready   func(*world)
	told    string // what the log or the audit says then
	all     bool   // each canary goes to each place
}

// canaryWorlds are proxies that fare differently: what is around them fails in
// ways that quote what they were sent.
func canaryWorlds() map[string]canaryWorld {
	everywhere := func(h http.HandlerFunc) func(*world) {
		return func(w *world) {
			for _, r := range w.regions {
				r.answer(h)
			}
		}
	}
	through := func(rt func(http.RoundTripper, *http.Request) (*http.Response, error)) options {
		return options{deps: func(d *Deps) {
			inner := d.Transport
			d.Transport = roundTripper(func(r *http.Request) (*http.Response, error) { return rt(inner, r) })
		}}
	}
	sent := func(r *http.Request) string {
		return fmt.Sprintf("%s %s %v", r.Method, r.URL, r.Header["Authorization"])
	}
	return map[string]canaryWorld{
		"all is well": {told: "alerts.list", all: true},
		"an answer repeats the request": {ready: everywhere(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Location", r.RequestURI)
			rw.Header().Set("X-Echo", url.QueryEscape(r.RequestURI+r.UserAgent()))
			rw.WriteHeader(http.StatusInternalServerError)
			_, _ = io.Copy(rw, r.Body)
		})},
		"an answer repeats the token": {told: "InvalidAnswer", ready: everywhere(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Echo", r.Header.Get("Authorization"))
		})},
		"a redirect repeats the token": {told: "InvalidAnswer", ready: everywhere(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Location", "https://evil.example/?sig=x&t="+r.Header.Get("Authorization"))
			rw.WriteHeader(http.StatusFound)
		})},
		"a malformed answer repeats the request": {told: "malformed", ready: everywhere(func(rw http.ResponseWriter, r *http.Request) {
			if c, _, err := http.NewResponseController(rw).Hijack(); err == nil {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Ech o: %s %s\r\n%s\r\n\r\n", r.Header.Get("Authorization"), r.RequestURI, r.Header.Get("Authorization"))
				c.Close()
			}
		})},
		"no region answers": {told: "RegionUnavailable", ready: everywhere(reset)},
		"an error repeats the request": {told: "RegionUnavailable", options: through(func(_ http.RoundTripper, r *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: r.Method, URL: r.URL.String(), Err: errors.New("cannot send " + sent(r))}
		})},
		"the transport panics with the request": {told: "panicked", options: through(func(_ http.RoundTripper, r *http.Request) (*http.Response, error) {
			panic(fmt.Errorf("%s %v", sent(r), r.Header))
		})},
		"an answer's body panics with the request": {told: "panicked", options: through(func(rt http.RoundTripper, r *http.Request) (*http.Response, error) {
			resp, err := rt.RoundTrip(r)
			if err == nil {
				_ = resp.Body.Close()
				resp.Body = panickingBody(fmt.Sprint(r.Header))
			}
			return resp, err
		})},
		"Entra ID refuses":       {told: "TokenUnavailable", ready: func(w *world) { w.entra.set(func(e *entra) { e.refuses = true }) }},
		"nothing is granted":     {told: "NotGranted", options: options{allow: []string{"libraryfiles.list"}}},
		"the token permits none": {told: "MissingPermission", options: options{roles: []string{"Score.Read.All"}}},
		"nobody is admitted": {told: "ClientNotAdmitted", options: options{deps: func(d *Deps) {
			d.Clients[0].From = []clients.Source{clients.Addresses(netip.MustParsePrefix("10.0.0.0/8"))}
		}}},
		"callers come through a proxy": {told: "ClientNotAdmitted", options: options{listener: Listener{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}},
		"the audit cannot be written":  {told: "audit record lost", ready: func(w *world) { w.records.setFail(errors.New("no space left on device")) }},
		"comments are annotated":       {options: options{deps: func(d *Deps) { d.Annotate = true }}},
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type panickingBody string

func (p panickingBody) Read([]byte) (int, error) { panic(string(p)) }
func (p panickingBody) Close() error             { return nil }

// send writes a request to the listener's socket, with what it lacks to be one, and
// gives all that comes back.
func (w *world) send(request string) string {
	w.t.Helper()
	head, body, _ := strings.Cut(request, "\r\n\r\n")
	head = strings.TrimSuffix(head, "\r\n")
	if !strings.Contains(head, "\r\nHost:") {
		head += "\r\nHost: 127.0.0.1"
	}
	c, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(c, head+"\r\nConnection: close\r\n\r\n"+body) // the proxy may have closed
	if strings.Contains(head, "Content-Length: 500") || strings.Contains(head, "chunked") {
		_ = c.(*net.TCPConn).CloseWrite() // a body that breaks off; others would count as having left
	}
	answer, _ := io.ReadAll(c) // whatever there is of it
	return string(answer)
}
