package integration

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"defender-proxy/internal/simulator"
)

// tripwire is an address that nobody may connect to.
func tripwire(t *testing.T) (url string, touched *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	touched = new(atomic.Int32)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			touched.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return "https://" + l.Addr().String(), touched
}

// A tenant's data must not leave two regions. Both of them fail in every way, for
// reads, queries and writes: whatever the callers are told, not even a
// connection is made to a region outside, by no retry and no probe.
func TestNothingLeavesTheAllowedRegionsWhateverFails(t *testing.T) {
	t.Parallel()
	outside, touched := tripwire(t)
	w := newWorld(t, respond(func(c object) {
		endpoints := c["clouds"].([]object)[0]["endpoints"].(object)["mde"].(object)
		for name := range endpoints {
			if name != "eu" && name != "uk" {
				endpoints[name] = outside
			}
		}
		inRegions(c, "eu", "uk")
		timing(c, "probe_interval", "1s", "connect_timeout", "1s", "first_byte_timeout", "1s")
	}))
	w.nearest("eu")
	for _, fault := range []simulator.Fault{
		{Kind: simulator.FaultRefuse}, {Kind: simulator.FaultTLS}, {Kind: simulator.FaultReset}, {Kind: simulator.FaultReset, Match: "/"},
		{Kind: simulator.FaultStatus, Status: 503}, {Kind: simulator.FaultThrottle, RetryAfter: "60"}, {Kind: simulator.FaultHang},
		{Kind: simulator.FaultRedirect, Location: "https://us.api.security.microsoft.com/api/alerts"},
	} {
		for _, region := range []string{"eu", "uk"} {
			if err := w.sim.SetRegion(region, fault); err != nil {
				t.Fatal(err)
			}
		}
		for _, request := range [][3]string{
			{http.MethodGet, "/api/alerts?$top=1"},
			{http.MethodPost, "/api/advancedqueries/run", `{"Query":"DeviceInfo | take 1"}`},
			{http.MethodPost, "/api/machines/" + w.sim.MachineID() + "/isolate", `{"Comment":"x"}`},
		} {
			if a := w.do(request[0], request[1], request[2]); a.status < 300 {
				t.Errorf("with %s in every region %s %s: %v", fault.Kind, request[0], request[1], a)
			}
		}
	}
	for _, region := range []string{"eu", "uk"} {
		if err := w.sim.SetRegion(region, simulator.Fault{}); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("all is well again", func() error {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if n := touched.Load(); n != 0 {
		t.Errorf("%d connections were made to regions outside", n)
	}
}

// The operator prefers a region that is not the nearest. It is used while it is
// well, the nearest of the others while it is not, and then again.
func TestAPreferredRegionIsUsedWhileItIsWell(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{Delays: farApart}, config: func(c object) {
		preferring(c, "us", "eu", "uk")
		probing(c)
	}})
	w.nearest("us")
	a := w.get("/api/alerts?$top=1")
	if rs := w.recordsOf(a); a.hop() != "us" || len(rs) != 1 || !strings.Contains(rs[0].RegionReason, "preferred") {
		t.Errorf("got %v, and the record %+v", a, rs)
	}
	if err := w.sim.SetRegion("us", simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK || a.hop() == "us" {
			t.Errorf("read %d while us refuses: %v", i, a)
		}
	}
	w.nearest("eu")
	if err := w.sim.SetRegion("us", simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	w.nearest("us")
	if a := w.get("/api/alerts?$top=1"); a.hop() != "us" {
		t.Errorf("once us is well: %v", a)
	}
}

// A cloud of one's own has one endpoint, under a name that Microsoft does not
// know, and no more services than it says.
func TestACloudWithOneEndpointOfOnesOwnIsUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) {
		lab := c["clouds"].([]object)[0]
		endpoint := lab["endpoints"].(object)["mde"].(object)["swa"]
		lab["endpoints"] = object{"mde": object{"bunker": endpoint}}
		lab["audiences"] = object{"mde": "https://api.securitycenter.microsoft.com"}
		probing(c)
	}})
	w.nearest("bunker")
	a := w.get("/api/alerts?$top=1")
	if rs := w.recordsOf(a); a.status != http.StatusOK || a.hop() != "bunker" || len(rs) != 1 || !strings.Contains(rs[0].RegionReason, "only region") {
		t.Errorf("got %v, and the record %+v", a, rs)
	}
	if a := w.get("/api/incidents"); a.status < 400 || !a.ours() {
		t.Errorf("a service that the cloud does not have: %v", a)
	}
	if err := w.sim.SetRegion("swa", simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
		t.Fatal(err)
	}
	a = w.get("/api/alerts?$top=1")
	if code, message := a.refused(); a.status != http.StatusBadGateway || code != "RegionUnavailable" || !strings.Contains(message, "Tried: bunker") {
		t.Errorf("while it refuses: %v", a)
	}
	// Out or not, it is tried: there is no other.
	for range 4 {
		w.get("/api/alerts?$top=1")
	}
	if err := w.sim.SetRegion("swa", simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
		t.Errorf("when it is back, and before any probe can tell: %v", a)
	}
}

// Where a request goes is the operator's business. A caller that names a region,
// in a header, the host, the path or the query, is refused or not listened to.
func TestACallerCannotNameARegion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { preferring(c, "eu", "uk", "us") }})
	w.nearest("eu")
	w.sim.ResetRequests()
	uk := strings.TrimPrefix(w.sim.Endpoint("uk"), "https://")
	own := "Host: " + w.address() + "\r\n"
	requests := []string{
		"GET /api/alerts?$top=1&region=uk HTTP/1.1\r\n" + own,
		"GET /api/alerts?$top=1&$region=uk&api-region=uk&host=" + uk + " HTTP/1.1\r\n" + own,
		"GET /uk/api/alerts HTTP/1.1\r\n" + own,
		"GET /t/uk/api/alerts HTTP/1.1\r\n" + own,
		"GET /t/contoso/uk/api/alerts HTTP/1.1\r\n" + own,
		"GET /api/alerts HTTP/1.1\r\nHost: uk.api.security.microsoft.com\r\n",
		"GET /api/alerts HTTP/1.1\r\nHost: " + uk + "\r\n",
		"GET https://" + uk + "/api/alerts HTTP/1.1\r\nHost: " + uk + "\r\n",
		"GET http://uk.api.security.microsoft.com/api/alerts HTTP/1.1\r\n" + own,
		"GET //" + uk + "/api/alerts HTTP/1.1\r\n" + own,
		"GET @" + uk + "/api/alerts HTTP/1.1\r\n" + own,
	}
	for _, header := range []string{
		"X-Region: uk", "X-MS-Region: uk", "Region: uk", "Prefer: region=uk", "X-Forwarded-Host: " + uk, "X-Host: " + uk, "X-Original-Host: " + uk,
		"Forwarded: host=" + uk, "X-Original-URL: https://" + uk + "/api/alerts", "X-Rewrite-URL: /uk/api/alerts", "Proxy-Status: defender-proxy; next-hop=uk",
		"Connection: Host",
	} {
		requests = append(requests, "GET /api/alerts?$top=1 HTTP/1.1\r\n"+own+header+"\r\n")
	}
	answered := 0
	for _, request := range requests {
		connection := "Connection: close\r\n"
		if strings.Contains(request, "Connection:") {
			request = strings.Replace(request, "Connection: Host", "Connection: close, Host", 1)
			connection = ""
		}
		got := raw(t, w.address(), request+connection+"\r\n")
		switch {
		case strings.Contains(got, "Proxy-Status: defender-proxy; next-hop=eu\r\n"):
			answered++ // $region Microsoft refuses by itself
		case !strings.HasPrefix(got, "HTTP/1.1 4"):
			t.Errorf("%q: %.300s", request, got)
		}
	}
	arrived := w.upstream()
	if answered < 10 || len(arrived) != answered {
		t.Errorf("%d were answered and %d arrived", answered, len(arrived))
	}
	eu := strings.TrimPrefix(w.sim.Endpoint("eu"), "https://")
	for _, r := range arrived {
		if r.Region != "eu" || r.Host != eu {
			t.Errorf("it went to region %s as host %s: %s %v", r.Region, r.Host, r.Target, r.Header)
		}
	}
}
