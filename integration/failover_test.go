package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// The region next door answers, until it does not. Readers go on without seeing
// it; whoever changes something is told the truth, and what they sent arrives
// once at most. The regions that the tenant may not use see nothing, ever. When
// the near one is well again, requests go back to it.
func TestWhenTheNearestRegionFailsReadsGoOnAndNoWriteArrivesTwice(t *testing.T) {
	t.Parallel()
	const (
		refused  = iota // nothing arrives, so the write goes on to the next region
		answered        // Microsoft's own answer comes back, and is the last word
		lost            // it arrived, and nobody knows what became of it
	)
	for _, tc := range []struct {
		name   string
		fault  simulator.Fault
		write  int
		status int
		code   string
	}{
		{"its port is closed", simulator.Fault{Kind: simulator.FaultRefuse}, refused, 201, ""},
		{"its handshake fails", simulator.Fault{Kind: simulator.FaultTLS}, refused, 201, ""},
		{"it resets what it has read", simulator.Fault{Kind: simulator.FaultReset, Match: "/"}, lost, 502, "RegionUnavailable"},
		{"it hangs", simulator.Fault{Kind: simulator.FaultHang}, lost, 504, "RegionUnavailable"},
		{"it answers 503", simulator.Fault{Kind: simulator.FaultStatus, Status: 503}, answered, 503, "ServiceUnavailable"},
		{"it answers 502", simulator.Fault{Kind: simulator.FaultStatus, Status: 502}, answered, 502, "BadGateway"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, respond(func(c object) {
				inRegions(c, "eu", "uk", "us")
				c["regions"] = object{"probe_interval": "1s", "first_byte_timeout": "1s", "connect_timeout": "1s"}
			}))
			w.nearest("eu")
			w.sim.ResetRequests()
			if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK || a.header.Get("Proxy-Status") != "defender-proxy; next-hop=eu" {
				t.Fatalf("while all is well: %v", a)
			}

			if err := w.sim.SetRegion("eu", tc.fault); err != nil {
				t.Fatal(err)
			}
			if tc.write == refused {
				// The fault has cut the connections that were kept. A write that
				// took one before that is noticed counts as sent; a read is not.
				if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
					t.Errorf("the first read: %v", a)
				}
			}
			// While the proxy still believes in the region.
			path := "/api/machines/" + w.sim.MachineID() + "/isolate"
			a := w.do(http.MethodPost, path, `{"Comment":"x"}`)
			arrived := w.arrivals(http.MethodPost, path)
			code, message := a.refused()
			if a.status != tc.status || code != tc.code {
				t.Errorf("the write was answered %v", a)
			}
			switch tc.write {
			case refused:
				if len(arrived) != 1 || arrived[0].Region == "eu" {
					t.Errorf("the write arrived as %+v", arrived)
				}
			case answered:
				if len(arrived) != 1 || arrived[0].Region != "eu" || a.ours() {
					t.Errorf("the write arrived as %+v, and was answered %v", arrived, a)
				}
			case lost:
				if len(arrived) != 1 || arrived[0].Region != "eu" || !a.ours() {
					t.Errorf("the write arrived as %+v", arrived)
				}
				if !strings.Contains(message, "region eu") || !strings.Contains(message, "may have been carried out") || a.header.Get("Retry-After") != "" {
					t.Errorf("of a write that may have arrived the caller is told: %v", a)
				}
			}
			for i := range 5 {
				a := w.get("/api/alerts?$top=1")
				if hop := a.header.Get("Proxy-Status"); a.status != http.StatusOK || hop != "defender-proxy; next-hop=uk" && hop != "defender-proxy; next-hop=us" {
					t.Errorf("read %d: %v", i, a)
				}
			}
			w.nearest("uk")

			if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
				t.Fatal(err)
			}
			w.nearest("eu")
			if a := w.get("/api/alerts?$top=1"); a.header.Get("Proxy-Status") != "defender-proxy; next-hop=eu" {
				t.Errorf("when it is well again: %v", a)
			}
			if n := len(w.arrivals(http.MethodPost, path)); n != 1 {
				t.Errorf("in the end the write had arrived %d times", n)
			}
			for _, r := range w.sim.Requests() {
				if r.Listener == "api" && !slices.Contains([]string{"eu", "uk", "us"}, r.Region) {
					t.Fatalf("something went to a region that is not allowed: %+v", r)
				}
			}
		})
	}
}

// When no region is left the caller reads which were tried, in Microsoft's
// shape, and when to come again; the process lives and says why it is not ready.
func TestWhenEveryRegionIsDownTheRefusalNamesThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) {
		inRegions(c, "eu", "uk")
		c["regions"] = object{"probe_interval": "1s"}
	}})
	w.nearest("eu")
	for _, r := range []string{"eu", "uk"} {
		if err := w.sim.SetRegion(r, simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
			t.Fatal(err)
		}
	}
	a := w.get("/api/alerts")
	code, message := a.refused()
	if a.status != http.StatusBadGateway || code != "RegionUnavailable" || a.header.Get("Retry-After") == "" || !a.ours() ||
		!strings.Contains(message, "Tried: eu, uk") || strings.Contains(message, "127.0.0.1") {
		t.Errorf("got %v", a)
	}
	w.eventually("readiness says so", func() error {
		if a := w.get(w.admin + "/-/ready"); a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "no region has answered") {
			return fmt.Errorf("got %v", a)
		}
		return nil
	})
	if a := w.get(w.admin + "/-/healthy"); a.status != http.StatusOK {
		t.Errorf("a process without regions is healthy all the same: %v", a)
	}
	if err := w.sim.SetRegion("uk", simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	w.ready()
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK || a.header.Get("Proxy-Status") != "defender-proxy; next-hop=uk" {
		t.Errorf("with one region back: %v", a)
	}
}
