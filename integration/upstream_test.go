package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// The other side misbehaves, by accident or because somebody sits between. The
// caller gets a plain answer, an honest refusal, or a connection that ends in
// the middle: never something that looks whole and is not, and nothing that
// speaks to browsers about Microsoft's origin or leads past the proxy.
func TestWhatAMisbehavingUpstreamSendsDoesNotFoolTheCaller(t *testing.T) {
	t.Parallel()
	refusedWith := func(status int, code string) func(*testing.T, *world, answer) {
		return func(t *testing.T, _ *world, a answer) {
			if got, _ := a.refused(); a.status != status || got != code || !a.ours() || a.err != nil {
				t.Errorf("got %v, want %d %s", a, status, code)
			}
		}
	}
	for _, tc := range []struct {
		name  string
		fault simulator.Fault
		path  string
		check func(*testing.T, *world, answer)
	}{
		{"a long answer that breaks off", simulator.Fault{Kind: simulator.FaultTruncate}, "/api/alerts?$top=300", func(t *testing.T, _ *world, a answer) {
			if a.status != http.StatusOK || a.err == nil || len(a.body) < 50<<10 {
				t.Errorf("the answer looks whole: %v of %d bytes", a, len(a.body))
			}
		}},
		{"a short answer that breaks off", simulator.Fault{Kind: simulator.FaultTruncate}, "/api/alerts?$top=1", refusedWith(502, "InvalidAnswer")},
		{"a page of HTML", simulator.Fault{Kind: simulator.FaultGarbage}, "/api/alerts", func(t *testing.T, _ *world, a answer) {
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/html" || !strings.HasPrefix(string(a.body), "<!DOCTYPE html>") || a.ours() {
				t.Errorf("an answer that is none of ours to judge passes as it came: %v", a)
			}
		}},
		{"JSON that stops", simulator.Fault{Kind: simulator.FaultBadJSON}, "/api/alerts", func(t *testing.T, w *world, a answer) {
			want := `{"@odata.context":"` + w.url + `/api/$metadata#Alerts","value":[{"id":"da6`
			if a.status != http.StatusOK || string(a.body) != want {
				t.Errorf("got %v, want the bytes as they came and the link turned home, %s", a, want)
			}
		}},
		{"a redirect to another host", simulator.Fault{Kind: simulator.FaultRedirect, Location: "https://evil.example/collect?x=1"}, "/api/alerts", refusedWith(502, "InvalidAnswer")},
		{"a redirect to a look-alike host", simulator.Fault{Kind: simulator.FaultRedirect, Location: "//api.security.microsoft.com@evil.example/"}, "/api/alerts", refusedWith(502, "InvalidAnswer")},
		{"a redirect to one of our paths", simulator.Fault{Kind: simulator.FaultRedirect, Location: "https://api-us.securitycenter.microsoft.com/api/machines?$top=2"}, "/api/alerts", func(t *testing.T, w *world, a answer) {
			if a.status != http.StatusFound || a.header.Get("Location") != w.url+"/api/machines?$top=2" {
				t.Errorf("got %v", a)
			}
		}},
		{"a 101 that nobody asked for", simulator.Fault{Kind: simulator.FaultUpgrade}, "/api/alerts", refusedWith(502, "InvalidAnswer")},
		{"a thousand early hints", simulator.Fault{Kind: simulator.FaultFlood1xx}, "/api/alerts", func(t *testing.T, w *world, a answer) {
			refusedWith(502, "InvalidAnswer")(t, w, a)
			got := raw(t, w.address(), "GET /api/alerts HTTP/1.1\r\nHost: "+w.address()+"\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 502 ") || strings.Contains(got, "style.css") {
				t.Errorf("hints came through: %.400s", got)
			}
		}},
		{"two megabytes of header", simulator.Fault{Kind: simulator.FaultHugeHeaders}, "/api/alerts", refusedWith(502, "RegionUnavailable")},
		{"cookies, CORS and other headers of Microsoft's origin", simulator.Fault{Kind: simulator.FaultCookies}, "/api/alerts?$top=1", func(t *testing.T, _ *world, a answer) {
			if a.status != http.StatusOK {
				t.Errorf("got %v", a)
			}
			for name := range a.header {
				if slices.Contains([]string{"Set-Cookie", "Alt-Svc", "Strict-Transport-Security", "Www-Authenticate"}, name) || strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("the header %s came through", name)
				}
			}
		}},
		{"a body that trickles", simulator.Fault{Kind: simulator.FaultSlowBody, Delay: 20 * time.Millisecond}, "/api/alerts?$top=300", func(t *testing.T, _ *world, a answer) {
			if p := a.page(t); len(p.Value) != 300 || a.err != nil {
				t.Errorf("%d rows, %v", len(p.Value), a.err)
			}
		}},
		{"a 429 with a Retry-After", simulator.Fault{Kind: simulator.FaultThrottle, RetryAfter: "37"}, "/api/alerts", func(t *testing.T, w *world, a answer) {
			if code, _ := a.refused(); a.status != 429 || code != "TooManyRequests" || a.header.Get("Retry-After") != "37" || a.ours() {
				t.Errorf("got %v", a)
			}
			if n := len(w.upstream()); n != 1 {
				t.Errorf("it was asked %d times", n)
			}
		}},
		{"an error of Microsoft's", simulator.Fault{Kind: simulator.FaultStatus, Status: 500}, "/api/alerts", func(t *testing.T, w *world, a answer) {
			if code, _ := a.refused(); a.status != 500 || code != "InternalServerError" || a.ours() {
				t.Errorf("got %v", a)
			}
		}},
		{"an answer in gzip", simulator.Fault{}, "/api/alerts?$top=5", func(t *testing.T, w *world, _ answer) {
			a := w.get("/api/alerts?$top=5", "Accept-Encoding", "gzip, br")
			plain := gunzip(t, a.body)
			if a.header.Get("Content-Encoding") != "gzip" || !strings.Contains(plain, `"@odata.context":"`+w.url+"/api/") || strings.Contains(plain, "securitycenter.microsoft.com") {
				t.Errorf("got %v: %.200s", a, plain)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{sim: simulator.Config{Alerts: 300, PageSize: 100}, config: func(c object) { inRegions(c, "eu") }})
			w.sim.ResetRequests()
			if err := w.sim.SetRegion("eu", tc.fault); err != nil {
				t.Fatal(err)
			}
			a := w.get(tc.path)
			tc.check(t, w, a)
			if all := fmt.Sprint(a.header, string(a.body)); strings.Contains(all, "evil.example") || strings.Contains(all, "127.0.0.1") && a.ours() {
				t.Errorf("the answer names what it should not: %v", a)
			}
			// Whatever it was, the next request finds a proxy that works.
			if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
				t.Fatal(err)
			}
			if a := w.get("/api/machines?$top=1"); a.status != http.StatusOK {
				t.Errorf("afterwards: %v", a)
			}
		})
	}
}

// Microsoft's own pages show next links with odd hosts, ports and schemes. All
// of them lead back through the proxy, and following them reaches the end.
func TestLinksToOddHostsLeadBackThroughTheProxy(t *testing.T) {
	t.Parallel()
	const alerts, pageSize = 80, 10
	w := newWorld(t, setup{sim: simulator.Config{Alerts: alerts, PageSize: pageSize}, config: func(c object) { inRegions(c, "eu") }})
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultOddLinks}); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "/t/contoso"} {
		seen := make(map[string]bool)
		for next := w.url + prefix + "/api/alerts"; next != ""; {
			p := w.get(next).page(t)
			for _, row := range p.Value {
				seen[row.ID] = true
			}
			if p.Next != "" && !strings.HasPrefix(p.Next, w.url+prefix+"/api/alerts?") {
				t.Fatalf("a next link leads to %s", p.Next)
			}
			next = p.Next
		}
		if len(seen) != alerts {
			t.Errorf("with prefix %q: %d alerts of %d", prefix, len(seen), alerts)
		}
	}
}

// An answer that never ends is streamed for as long as somebody reads. When the
// reader leaves, both connections end, and the record says that it left.
func TestWhenTheCallerLeavesAnEndlessAnswerBothSidesEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { inRegions(c, "eu") }})
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultEndless}); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", w.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET /api/alerts HTTP/1.1\r\nHost: %s\r\n\r\n", w.address())
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.CopyN(io.Discard, resp.Body, 4<<20); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	c.Close()
	w.eventually("Microsoft's side sees it go", func() error {
		// The simulator notes the status when its handler has ended.
		if got := w.upstream(); len(got) != 1 || got[0].Status == 0 {
			return fmt.Errorf("it has %+v", got)
		}
		return nil
	})
	rs := w.recordsOf(answer{header: resp.Header})
	if len(rs) != 1 || rs[0].Code != "ClientGone" || rs[0].BytesOut < 4<<20 {
		t.Errorf("the records: %+v", rs)
	}
}

// A caller that leaves while it waits takes its request along.
func TestWhenTheCallerLeavesWhileItWaitsTheRequestUpstreamEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { inRegions(c, "eu") }})
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultHang}); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", w.address())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /api/alerts HTTP/1.1\r\nHost: %s\r\n\r\n", w.address())
	w.eventually("it arrives", func() error {
		if len(w.upstream()) == 0 {
			return fmt.Errorf("nothing so far")
		}
		return nil
	})
	c.Close()
	w.eventually("its record says 499", func() error {
		for _, r := range records(t, w.stdout.bytes()) {
			if r.Path == "/api/alerts" && r.Status == 499 && r.Code == "ClientGone" {
				return nil
			}
		}
		return fmt.Errorf("records: %s", w.stdout)
	})
}

// With the documented limits on, the caller meets Microsoft's own 429: its
// words, its Retry-After, and no other region tried in its place.
func TestAnExhaustedQuotaIsMicrosoftsAnswerToTheCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{Quotas: true}, config: probing})
	w.nearest("eu")
	const path, limit = "/api/machines/SoftwareInventoryExport", 5
	for i := range limit {
		if a := w.get(path); a.status != http.StatusOK {
			t.Fatalf("call %d of %d: %v", i+1, limit, a)
		}
	}
	w.sim.ResetRequests()
	a := w.get(path)
	code, message := a.refused()
	if a.status != http.StatusTooManyRequests || code != "TooManyRequests" || !strings.Contains(message, "5 calls per minute") || a.ours() {
		t.Errorf("got %v", a)
	}
	if after := a.header.Get("Retry-After"); after == "" || !strings.Contains(message, "in "+after+" second") {
		t.Errorf("Retry-After %q does not go with %q", after, message)
	}
	if got := w.upstream(); len(got) != 1 || got[0].Status != http.StatusTooManyRequests {
		t.Errorf("arrived: %+v", got)
	}
}
