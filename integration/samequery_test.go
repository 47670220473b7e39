package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// overBoth runs a story with HTTP/1.1 and with HTTP/2 towards Microsoft.
func overBoth(t *testing.T, story func(t *testing.T, s setup)) {
	for _, http2 := range []bool{false, true} {
		name := "over HTTP/1.1"
		if http2 {
			name = "over HTTP/2"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, setup{sim: simulator.Config{HTTP2: http2}, config: func(c object) { c["egress"].(object)["http2"] = http2 }})
		})
	}
}

// farApart are delays of regions that no busy machine brings out of order.
var farApart = map[string]time.Duration{"eu": 0, "uk": 200 * time.Millisecond, "us": 400 * time.Millisecond}

// and adds to what a setup does to the configuration.
func (s setup) and(more func(object)) setup {
	inner := s.config
	s.config = func(c object) {
		if inner != nil {
			inner(c)
		}
		more(c)
	}
	return s
}

// A query has many pages, and they belong together: they come from the region
// that gave the first, although another has become the nearest meanwhile and new
// queries go there, and although the configuration was read again. When the
// region dies the pages go on elsewhere, and stay there.
func TestThePagesOfAQueryComeFromOneRegionWhileItLives(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, s setup) {
		const alerts, pageSize = 110, 10
		s.sim.Alerts, s.sim.PageSize = alerts, pageSize
		s.sim.Delays = farApart
		w := newWorld(t, s.and(func(c object) {
			inRegions(c, "eu", "uk", "us")
			probing(c)
		}))
		w.nearest("eu")
		seen := make(map[string]bool)
		next := w.url + "/api/alerts"
		var last answer
		page := func(region string) {
			t.Helper()
			last = w.get(next)
			p := last.page(t)
			if last.hop() != region {
				t.Errorf("page %d came from %q, want %s", len(seen)/pageSize+1, last.hop(), region)
			}
			for _, row := range p.Value {
				seen[row.ID] = true
			}
			next = p.Next
		}
		page("eu")
		page("eu")
		if err := w.sim.SetDelay("eu", 800*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		w.nearest("uk")
		if a := w.get("/api/alerts"); a.hop() != "uk" {
			t.Errorf("a new query: %v", a)
		}
		page("eu")
		if rs := w.recordsOf(last); len(rs) != 1 || !strings.Contains(rs[0].RegionReason, "page") {
			t.Errorf("the reason in the record of a page that stays: %+v", rs)
		}

		c := w.configuration()
		s.and(func(c object) {
			inRegions(c, "eu", "uk", "us")
			probing(c)
			allow(c, "read")
		}).config(c)
		w.configure(c)
		if a := w.do(http.MethodPost, w.admin+"/-/reload", ""); a.status != http.StatusOK {
			t.Fatalf("reload: %v", a)
		}
		page("eu")
		page("eu")

		if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
			t.Fatal(err)
		}
		page("uk")
		if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
			t.Fatal(err)
		}
		if err := w.sim.SetDelay("eu", 0); err != nil {
			t.Fatal(err)
		}
		w.nearest("eu")
		for next != "" {
			page("uk")
		}
		if len(seen) != alerts {
			t.Errorf("%d alerts of %d", len(seen), alerts)
		}
	})
}

// Incidents have no next link: callers count with $top and $skip. Their pages
// belong together as well, each caller's query on its own.
func TestPagesThatACallerCountsComeFromOneRegionToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{Delays: farApart}, config: func(c object) {
		inRegions(c, "eu", "uk")
		probing(c)
	}})
	w.nearestOf("xdr", "eu")
	page := func(query, region string) {
		t.Helper()
		if a := w.get("/api/incidents?" + query); a.status != http.StatusOK || a.hop() != region {
			t.Errorf("%s came from %q, want %s: %v", query, a.hop(), region, a)
		}
	}
	page("$top=5", "eu")
	page("$filter=status+eq+'Active'&$skip=0&$top=5", "eu")
	if err := w.sim.SetDelay("eu", 800*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	w.nearestOf("xdr", "uk")
	for skip := 5; skip <= 15; skip += 5 {
		page(fmt.Sprintf("$top=5&$skip=%d", skip), "eu")
		page(fmt.Sprintf("$filter=status+eq+'Active'&$skip=%d&$top=5", skip), "eu")
	}
	page("$top=7", "uk")
	page("$top=7&$skip=7", "uk")
	page("$filter=status+eq+'Resolved'&$skip=5&$top=5", "uk")
	// Those who begin anew begin at the nearest.
	page("$top=5", "uk")
	page("$top=5&$skip=5", "uk")
}
