package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// balancer leads to one place, and to another one from one moment to the next. Some
// take out of answers what they do not know.
func balancer(t *testing.T, sim *simulator.Simulator, strips bool) (address string, lead func(string)) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sim.CA())
	var to atomic.Pointer[url.URL]
	lead = func(address string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		to.Store(u)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true, MaxIdleConnsPerHost: 64}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to.Load()) },
		ModifyResponse: func(r *http.Response) error {
			if strips {
				r.Header.Del("Proxy-Status")
			}
			return nil
		},
	})
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return server.URL, lead
}

// Proxies have run for hours when somebody changes a balancer's rule, and Microsoft's
// name leads to the other proxy, or back to the same one. Nobody has seen an answer
// yet that would give it away. A call goes out once, is known where it comes in, and
// goes no further: it is neither sent on nor announced as a write again.
func TestALoopThatBeginsUnderTrafficMakesNothingOfOneRequest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name          string
		alone, strips bool
	}{
		{"two proxies", false, false},
		{"two proxies, and what is between them takes Proxy-Status out", false, true},
		{"one proxy behind a port forwarding", true, false},
		{"one proxy behind something that takes Proxy-Status out", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n := 2
			if tc.alone {
				n = 1
			}
			all, leads := make([]*world, n), make([]func(string), n)
			for i := range all {
				var address string
				var sim *simulator.Simulator
				all[i] = newWorld(t, setup{
					permissions: map[string][]string{"mde": {"Machine.Isolate"}},
					before: func(s *simulator.Simulator) {
						sim = s
						address, leads[i] = balancer(t, s, tc.strips)
						leads[i](s.Endpoint("eu"))
					},
					config: func(c object) {
						allow(c, "read", "hunt", "respond")
						c["regions"] = object{"probe_interval": "1h"} // which would find it
						c["clouds"].([]object)[0]["endpoints"] = object{"mde": object{"eu": address}}
					},
				})
				if a := all[i].get("/api/alerts"); a.status != http.StatusOK {
					t.Fatalf("before: %v", a)
				}
				for _, r := range sim.Requests() {
					if got := strings.Join(r.Header["Cdn-Loop"], ", "); got != "defender-proxy" {
						t.Errorf("%s %s arrived with CDN-Loop %q", r.Method, r.Target, got)
					}
				}
			}
			for i, lead := range leads {
				lead("http://" + all[(i+1)%n].address())
			}
			before := make([]int, n)
			for i, w := range all {
				w.eventually("what went before is recorded", func() error {
					if before[i] = len(records(t, w.stdout.bytes())); before[i] == 0 {
						return fmt.Errorf("nothing is")
					}
					return nil
				})
			}
			begun := time.Now()
			path := "/api/machines/" + all[0].sim.MachineID() + "/isolate"
			a := all[0].do(http.MethodPost, path, `{"Comment":"odd traffic","IsolationType":"Full"}`)
			if a.status < 400 {
				t.Errorf("the write: %v", a)
			}
			if !tc.strips {
				if code, message := a.refused(); code != "RegionUnavailable" || !strings.Contains(message, "may have been carried out") || !strings.Contains(message, "egress.resolve") {
					t.Errorf("the caller is told %v", a)
				}
			} else if code, message := a.refused(); a.status != http.StatusLoopDetected || code != "InvalidRequest" || !strings.Contains(message, "egress.resolve") {
				t.Errorf("the caller is told %v", a)
			}
			for range 10 {
				if a := all[0].get("/api/alerts"); a.status < 400 {
					t.Errorf("a read: %v", a)
				}
			}
			all[0].recordsOf(a)
			time.Sleep(100 * time.Millisecond) // for what should not come
			own, came, intents := 0, 0, 0
			for i, w := range all {
				for _, r := range records(t, w.stdout.bytes())[before[i]:] {
					switch {
					case r.Event == "intent":
						intents++
					case r.Status == http.StatusLoopDetected && r.Code == "InvalidRequest":
						came++
					default:
						own++
					}
				}
			}
			// Without Proxy-Status each call goes out, and comes in once.
			if most := 11; own != 11 || came < 1 || came > most || intents != 1 {
				t.Errorf("%d records of 11 calls, %d of what came round, %d intents of one write", own, came, intents)
			}
			if most := 2 + int(time.Since(begun)/(5*time.Second)); !tc.strips && came > most {
				t.Errorf("%d calls came round; the first gives the other end away", came)
			}
		})
	}
}
