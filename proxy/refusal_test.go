package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/links"
	"defender-proxy/policy"
)

// Each code of the table is reached here through a real socket, with its
// status, its words and its record; the last lines see that none is left out.
func TestEveryRefusalIsReached(t *testing.T) {
	reached := map[Code]bool{clientGone: true} // see TestACallerThatLeaves
	plain := func(method, target string) func(*world) *reply {
		return func(w *world) *reply { return w.do(method, target, "") }
	}
	for _, c := range []struct {
		name   string
		o      options
		before func(*world)
		ask    func(*world) *reply
		code   Code
		status int
		words  []string
		header map[string]string
	}{
		{name: "an ambiguous path", ask: plain("GET", "/api/alerts/%2e%2e/machines"), code: InvalidPath, status: 400, words: []string{"dot", "plain form"}},
		{name: "a fragment", ask: func(w *world) *reply {
			return w.raw("GET /api/alerts?a=b#c HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		}, code: InvalidPath, status: 400, words: []string{"number sign"}},
		{name: "the asterisk form", ask: func(w *world) *reply {
			return w.raw("OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		}, code: InvalidPath, status: 400},
		{name: "a body that breaks off", ask: func(w *world) *reply {
			return w.raw("POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
		}, code: InvalidRequest, status: 400},
		{name: "an explanation of nothing", ask: plain("GET", "/-/explain"), code: InvalidRequest, status: 400, words: []string{"/-/explain?method="}},
		{name: "an address of no group", o: options{deps: func(d *Deps) {
			d.Clients[0].From = []clients.Source{clients.Addresses(netip.MustParsePrefix("10.0.0.0/8"))}
		}},
			ask: plain("GET", "/api/alerts"), code: ClientNotAdmitted, status: 403, words: []string{"127.0.0.1", "from"}},
		{name: "a host that is not ours", ask: func(w *world) *reply { return w.do("GET", "/api/alerts", "", "Host", "evil.example") },
			code: HostNotAllowed, status: 421, words: []string{"evil.example", "hosts"}},
		{name: "a page of another origin", ask: func(w *world) *reply { return w.do("GET", "/api/alerts", "", "Origin", "https://evil.example") },
			code: CrossSiteRequest, status: 403, words: []string{"Origin"}},
		{name: "a cross-site navigation", ask: func(w *world) *reply { return w.do("GET", "/", "", "Sec-Fetch-Site", "cross-site") },
			code: CrossSiteRequest, status: 403},
		{name: "a preflight", ask: func(w *world) *reply {
			return w.do("OPTIONS", "/api/alerts", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Private-Network", "true")
		}, code: CrossSiteRequest, status: 403},
		{name: "a tenant of nobody", ask: plain("GET", "/t/nobody/api/alerts"), code: UnknownTenant, status: 404, words: []string{"nobody", "contoso"}},
		{name: "a path of nobody", ask: plain("GET", "/api/nothing"), code: UnknownOperation, status: 404, words: []string{"/-/operations"}},
		{name: "a path outside the APIs", ask: plain("GET", "/admin"), code: UnknownOperation, status: 404},
		{name: "a batch", ask: plain("POST", "/api/$batch"), code: UnknownOperation, status: 404},
		{name: "a wrong method", ask: plain("DELETE", "/api/alerts"), code: MethodNotAllowed, status: 405, words: []string{"GET, HEAD"}, header: map[string]string{"Allow": "GET, HEAD"}},
		{name: "TRACE", ask: plain("TRACE", "/api/alerts"), code: MethodNotAllowed, status: 405},
		{name: "CONNECT", ask: func(w *world) *reply {
			return w.raw("CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n\r\n")
		}, code: MethodNotAllowed, status: 405, words: []string{"proxy settings"}},
		{name: "a write to a page", ask: plain("POST", "/-/whoami"), code: MethodNotAllowed, status: 405},
		{name: "what was not granted", o: options{allow: []string{"read"}}, ask: plain("POST", "/api/machines/m1/isolate"), code: NotGranted, status: 403,
			words: []string{"machines.isolate", "respond", "local", "allow"}},
		{name: "what was denied", o: options{deny: []string{"machines.*"}}, ask: plain("POST", "/api/machines/m1/isolate"), code: NotGranted, status: 403,
			words: []string{`"machines.*"`, "deny"}},
		{name: "a permission that is missing", ask: plain("POST", "/api/machines/m1/offboard"), code: MissingPermission, status: 403,
			words: []string{"POST /api/machines/{id}/offboard needs Machine.Offboard", "tenant contoso holds Alert.Read.All", "WindowsDefenderATP", clientID, "Grant admin consent"}},
		{name: "an approval of nobody", o: options{deps: twoPeople(t, nil)}, ask: func(w *world) *reply {
			return w.isolate("m1", "X-Approval-Id", "A")
		}, code: NotApproved, status: 403, words: []string{"There is no approval", "X-Approval-Id"}},
		{name: "a link of nobody's", o: options{deps: func(d *Deps) { d.Downloads = NewDownloads([][]byte{downloadKey}) }},
			ask: plain("GET", "/blob/AAAA"), code: InvalidLink, status: 404, words: []string{"Ask for the link again"}},
		{name: "a link that is over", o: options{deps: func(d *Deps) { d.Downloads = NewDownloads([][]byte{downloadKey}) }}, ask: func(w *world) *reply {
			sealed, err := w.proxy.Downloads.Sealer.Seal(links.Download{URL: "https://a.blob.example/f", Expires: time.Unix(0, 0)}, "contoso", "local")
			if err != nil {
				t.Fatal(err)
			}
			return w.do("GET", blobPrefix+sealed, "")
		}, code: LinkExpired, status: 410, words: []string{"1970-01-01T00:00:00Z", "Ask for the link again"}},
		{name: "a token without any permission", o: options{roles: []string{}}, ask: plain("GET", "/api/alerts"), code: MissingPermission, status: 403,
			words: []string{"one of Alert.Read.All, Alert.ReadWrite.All", "no permission at all"}},
		{name: "a user's token where only applications are documented", o: options{scopes: []string{"Ti.ReadWrite"}}, ask: plain("DELETE", "/api/indicators/1"), code: MissingPermission, status: 403,
			words: []string{"delegated", "policy.operations"}},
		{name: "no token", before: func(w *world) { w.entra.set(func(e *entra) { e.refuses = true }) }, ask: plain("GET", "/api/alerts"), code: TokenUnavailable, status: 503,
			words: []string{"contoso", "secret"}, header: map[string]string{"Retry-After": "*"}},
		{name: "no region", before: func(w *world) {
			for _, r := range w.regions {
				r.server.Close()
			}
		}, ask: plain("GET", "/api/alerts"), code: RegionUnavailable, status: 502, words: []string{"us, eu", "refused", "/-/regions"}, header: map[string]string{"Retry-After": "5"}},
		{name: "no answer in time", o: options{limits: func(l *Limits) { l.FirstByteTimeout = 100 * time.Millisecond }}, before: func(w *world) {
			for _, r := range w.regions {
				r.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			}
		}, ask: plain("POST", "/api/machines/m1/isolate"), code: RegionUnavailable, status: 504, words: []string{"may have been carried out", "look at its effect"}},
		{name: "a redirect to elsewhere", before: func(w *world) {
			w.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://evil.example/")
				w.WriteHeader(302)
			})
		}, ask: plain("GET", "/api/alerts"), code: InvalidAnswer, status: 502, words: []string{"redirect"}},
		{name: "a write without its record", before: func(w *world) { w.records.setFail(errors.New("disk full")) }, ask: plain("POST", "/api/machines/m1/isolate"),
			code: AuditUnavailable, status: 503, words: []string{"not sent", "audit.file"}},
		{name: "a body too large by its length", ask: func(w *world) *reply {
			return w.raw("POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000000\r\n\r\n")
		}, code: RequestTooLarge, status: 413, words: []string{"1048576", "max_request_bytes"}},
		{name: "a body too large by what comes", ask: func(w *world) *reply {
			return w.raw("POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + strings.Repeat("x", 0x200000) + "\r\n0\r\n\r\n")
		}, code: RequestTooLarge, status: 413},
		{name: "a body that does not go on", o: options{limits: func(l *Limits) { l.BodyIdle = 100 * time.Millisecond }}, ask: func(w *world) *reply {
			return w.raw("POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nabc")
		}, code: RequestTimeout, status: 408},
		{name: "too many at once", before: func(w *world) { w.proxy.load.total = 64 }, ask: plain("GET", "/api/alerts"), code: Overloaded, status: 503,
			words: []string{"max_in_flight"}, header: map[string]string{"Retry-After": "1"}},
		{name: "a bug", before: func(w *world) { w.proxy.Policy = &policy.Policy{} }, ask: plain("GET", "/api/alerts"), code: Internal, status: 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.o)
			if c.before != nil {
				c.before(w)
			}
			got := c.ask(w)
			w.records.setFail(nil)
			if got.status != c.status || got.code() != string(c.code) {
				t.Fatalf("got %d %q %s, want %d %s", got.status, got.code(), got.body, c.status, c.code)
			}
			reached[c.code] = true
			for _, word := range c.words {
				if !strings.Contains(got.message(), word) {
					t.Errorf("%q is not in %s", word, got.message())
				}
			}
			for k, v := range c.header {
				if have := got.header.Get(k); have != v && (v != "*" || have == "") {
					t.Errorf("%s is %q, want %q", k, have, v)
				}
			}
			if s := got.header.Get("Proxy-Status"); !strings.HasPrefix(s, "defender-proxy; error=") || !strings.Contains(s, string(c.code)) {
				t.Errorf("Proxy-Status is %q", s)
			}
			if ct := got.header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
				t.Errorf("Content-Type is %q", ct)
			}
			for k := range got.header {
				if strings.HasPrefix(k, "Access-Control-") {
					t.Errorf("%s is sent", k)
				}
			}
			if c.code == AuditUnavailable {
				return // its record could not be kept either
			}
			lines := w.lines(1)
			if rec := lines[len(lines)-1]; rec["code"] != string(c.code) || rec["status"] != float64(c.status) || rec["request_id"] != got.header.Get("X-Request-Id") {
				t.Errorf("the record is %v", rec)
			}
		})
	}
	for code := range codes {
		if !reached[code] {
			t.Errorf("no case reaches %s", code)
		}
	}
}

func TestNothingRefusedReachesUpstream(t *testing.T) {
	w := newWorld(t, options{allow: []string{"read"}})
	for _, ask := range []func() *reply{
		func() *reply { return w.do("POST", "/api/machines/m1/isolate", `{"Comment":"x"}`) },
		func() *reply { return w.do("GET", "/api/alerts/..%2fmachines", "") },
		func() *reply { return w.do("GET", "/api/alerts", "", "Host", "evil.example") },
		func() *reply { return w.do("GET", "/api/alerts", "", "Origin", "null") },
		func() *reply {
			return w.do("GET", "/api/alerts?x=1", "", "X-HTTP-Method-Override", "POST", "Sec-Fetch-Site", "cross-site")
		},
		func() *reply { return w.do("PUT", "/api/alerts", "x") },
	} {
		if got := ask(); got.code() == "" {
			t.Errorf("got %d %s, want a refusal", got.status, got.body)
		}
	}
	for _, r := range w.regions {
		if up := r.requests(); len(up) > 0 {
			t.Errorf("region %s got %+v", r.name, up)
		}
	}
	if n := len(w.entra.tokens()); n != 0 {
		t.Errorf("%d tokens were asked for", n)
	}
}

// What net/http itself answers never gets to a handler; it must be an error and
// close the connection.
func TestMalformedFramingIsRefused(t *testing.T) {
	w := newWorld(t, options{})
	for name, request := range map[string]string{
		"two lengths that differ":         "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"a length that is no number":      "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0x1\r\n\r\na",
		"a length with a sign":            "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: +1\r\n\r\na",
		"an unknown transfer coding":      "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"two transfer codings":            "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a space before a colon":          "GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nX : 1\r\n\r\n",
		"two hosts":                       "GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n",
		"no host":                         "GET /api/alerts HTTP/1.1\r\n\r\n",
		"a null byte in a header":         "GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n",
		"a bare line feed in a chunk":     "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
		"a space in the target":           "GET /api/alerts x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"a control character in the path": "GET /api/al\x01erts HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"something that is not HTTP":      "\x16\x03\x01\x00\x05hello\r\n\r\n",
		"an unknown version":              "GET /api/alerts HTTP/3.7\r\nHost: 127.0.0.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", w.server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatal(err)
			}
			all, err := io.ReadAll(c)
			if err != nil {
				t.Fatalf("the connection stays open: %v", err)
			}
			status, _, _ := strings.Cut(string(all), "\r\n")
			if !strings.HasPrefix(status, "HTTP/1.1 4") && !strings.HasPrefix(status, "HTTP/1.1 5") || strings.Count(string(all), "HTTP/1.1 ") != 1 {
				t.Errorf("got %q, want one error", all)
			}
		})
	}
	if up := w.regions[0].requests(); len(up) > 0 {
		t.Errorf("upstream got %+v", up)
	}
}

// net/http takes a length beside chunks, by which two parsers could read two
// messages. Ours reads one, framing goes out made anew, and what is left over is
// a request of its own, judged like any other.
func TestALengthBesideChunksSmugglesNothing(t *testing.T) {
	w := newWorld(t, options{})
	c := w.dial()
	_, _ = io.WriteString(c, "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"+
		"POST /api/machines/m1/offboard HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	all, err := io.ReadAll(c)
	if err != nil || strings.Count(string(all), "HTTP/1.1 ") != 2 || !strings.Contains(string(all), "MissingPermission") {
		t.Errorf("got %q, %v", all, err)
	}
	up := w.regions[0].requests()
	if len(up) != 1 || up[0].body != "{}" || up[0].length != 2 || up[0].header.Get("Transfer-Encoding") != "" {
		t.Errorf("upstream got %+v", up)
	}
}

func TestPipelinedRequestsAreEachJudged(t *testing.T) {
	w := newWorld(t, options{allow: []string{"read"}})
	c, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nPOST /api/machines/m1/isolate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
	r := bufio.NewReader(c)
	for i, want := range []int{200, 403} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := readReply(t, resp); got.status != want {
			t.Errorf("answer %d is %d %s, want %d", i+1, got.status, got.body, want)
		}
	}
}

func TestAPanicIsABareFiveHundredWithoutItsValue(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.Transport = panicking{} }})
	got := w.do("GET", "/api/alerts", "")
	if got.code() != "Internal" || strings.Contains(got.body, "canary") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if log := w.log.String(); !strings.Contains(log, "panick") || strings.Contains(log, "canary-panic") {
		t.Errorf("the log should tell of the panic and not its value: %s", log)
	}
	if got := w.do("GET", "/-/operations", ""); got.status != 200 {
		t.Errorf("the next request gives %d", got.status)
	}
	if w.proxy.load.total != 0 {
		t.Errorf("%d requests count as under way", w.proxy.load.total)
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("canary-panic") }

func TestACallerThatLeavesIsNoFailureOfTheRegion(t *testing.T) {
	w := newWorld(t, options{})
	arrived, gone := make(chan struct{}), make(chan struct{})
	w.regions[0].answer(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	req, err := http.NewRequestWithContext(ctx, "GET", w.server.URL+"/api/alerts", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req); err == nil {
		t.Fatal("the caller got an answer")
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("upstream was not told that the caller left")
	}
	rec := w.lines(1)[0]
	if rec["code"] != string(clientGone) || rec["status"] != 499.0 || rec["attempts"] != 1.0 {
		t.Errorf("the record is %v", rec)
	}
	for _, st := range w.proxy.Monitor.Snapshot() {
		if st.Failures > 0 {
			t.Errorf("region %s counts %d failures", st.Region, st.Failures)
		}
	}
}

func TestReportModeLetsPassAndSaysSo(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.Policy.ReportOnly = true }})
	if got := w.do("POST", "/api/machines/m1/offboard", `{"Comment":"x"}`); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	rec := w.lines(2)[1]
	if rec["decision"] != "allowed" || !strings.Contains(fmt.Sprint(rec["reason"]), "Machine.Offboard") {
		t.Errorf("the record is %v", rec)
	}
}

func TestNewRefusesPartsThatAreMissing(t *testing.T) {
	if _, err := New(Deps{}); err == nil {
		t.Error("a proxy without a policy is made")
	}
	w := newWorld(t, options{})
	d := w.proxy.Deps
	for name, change := range map[string]func(*Deps){
		"audit":     func(d *Deps) { d.Audit = nil },
		"transport": func(d *Deps) { d.Transport = nil },
		"limits":    func(d *Deps) { d.Limits = Limits{} },
		"two tenants of one name": func(d *Deps) {
			d.Tenants = []Tenant{{ClientID: "1"}, {ClientID: "2"}}
		},
	} {
		broken := d
		change(&broken)
		if _, err := New(broken); err == nil {
			t.Errorf("a proxy is made with a fault in %s", name)
		}
	}
	for name, l := range map[string]Listener{"a group": {Clients: []string{"nobody"}}, "a tenant": {Tenant: "nobody"}} {
		if _, err := w.proxy.Handler(l); err == nil {
			t.Errorf("a listener with %s that does not exist is made", name)
		}
	}
}

// A record says refused where the proxy said no before anything went out, whatever the
// grants and the token allowed, and allowed where something else failed after that.
func TestTheRecordOfARefusalSaysRefused(t *testing.T) {
	allowed := policy.Decision{Verdict: policy.Allowed}
	for code := range codes {
		later := map[Code]bool{RegionUnavailable: true, InvalidAnswer: true, TokenUnavailable: true, Internal: true, clientGone: true}[code]
		for _, c := range []struct {
			name     string
			decision policy.Decision
			arrived  int
			want     string
		}{
			{"before the decision", policy.Decision{}, 0, "refused"},
			{"after the decision", allowed, 0, map[bool]string{true: "allowed", false: "refused"}[later]},
			{"after it was sent", allowed, 1, "allowed"},
		} {
			x := &Exchange{Listener: &listener{}, Decision: c.decision, Arrived: c.arrived, Err: fmt.Errorf("step: %w", &Refusal{Code: code, Message: "x"})}
			if rec := x.record(audit.Request, httptest.NewRequest("POST", "/", nil)); rec.Decision != c.want || rec.Code != string(code) {
				t.Errorf("%s, %s: %s %s, want %s", code, c.name, rec.Decision, rec.Code, c.want)
			}
		}
	}
	x := &Exchange{Listener: &listener{}}
	if rec := x.record(audit.Request, httptest.NewRequest("GET", "/", nil)); rec.Decision != "allowed" {
		t.Errorf("no error: %s", rec.Decision)
	}
}

func TestACallThatIsNotApprovedIsRecordedAsRefused(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	records := w.recordsOf(w.isolate("m1", "X-Approval-Id", "AAAA"))
	if len(records) != 1 || records[0]["code"] != "NotApproved" || records[0]["decision"] != "refused" {
		t.Errorf("the records are %v", records)
	}
}
