package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// The operator asks why requests go where they go. The answer is the same
// wherever it is looked for: in the command, on the operator's page, in the
// metrics, in the record of each request, and it is a measure. When the near
// region becomes slow the next one takes over, and all of them say so.
func TestTheNearestRegionIsFoundByMeasureAndTheReasonIsToldEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{Delays: farApart}, config: func(c object) {
		inRegions(c, "eu", "uk", "us")
		probing(c)
	}})
	w.nearest("eu")
	// The measures move while they are looked at, so all of them are looked at again
	// until they agree.
	told := func(region string) {
		t.Helper()
		w.eventually("all tell that the nearest is "+region, func() error {
			a := w.get("/api/alerts?$top=1")
			if rs := w.recordsOf(a); a.hop() != region || len(rs) != 1 || rs[0].Region != region || !strings.Contains(rs[0].RegionReason, "nearest") {
				return fmt.Errorf("the answer came from %q; its record: %+v", a.hop(), rs)
			}
			rows := w.places("mde")
			for name, r := range rows {
				if name == region != (len(r.Chosen) == 1 && strings.Contains(r.Chosen[0], "nearest")) {
					return fmt.Errorf("the operator's page says of %s: %+v", name, r)
				}
				if r.LatencyMS <= 0 || r.LatencyMS < rows[region].LatencyMS {
					return fmt.Errorf("%s was measured at %v ms, and %s at %v ms", name, r.LatencyMS, region, rows[region].LatencyMS)
				}
			}
			m := w.metrics()
			if all, one := sum(m, "defender_proxy_region_chosen", `service="mde"`), sum(m, "defender_proxy_region_chosen", `service="mde"`, `region="`+region+`"`); all != 1 || one != 1 {
				return fmt.Errorf("by the metrics %v of %v tenants go there first", one, all)
			}
			return nil
		})
	}
	told("eu")

	// A process of its own, so that it measures by itself.
	for _, output := range []string{"json", "table"} {
		args := []string{"regions", "--config", w.file}
		if output == "json" {
			args = append(args, "--output", "json")
		}
		out, err := command([]string{secretVariable + "=" + simulator.DefaultSecret}, args...).Output()
		if err != nil {
			t.Fatalf("the command regions: %v", err)
		}
		if output == "json" {
			var view struct{ Regions []place }
			if err := json.Unmarshal(out, &view); err != nil || len(view.Regions) != 9 {
				t.Errorf("the command regions prints %d rows, %v:\n%s", len(view.Regions), err, out)
			}
			for _, r := range view.Regions {
				if r.LatencyMS <= 0 || (r.Region == "eu") != (len(r.Chosen) == 1 && strings.Contains(r.Chosen[0], "nearest")) {
					t.Errorf("the command regions says %+v", r)
				}
			}
			continue
		}
		lines := 0
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "nearest") && strings.Contains(line, " ms ") && strings.Contains(line, " eu ") {
				lines++
			}
		}
		if lines != 3 {
			t.Errorf("the table names eu the nearest %d times, want once for each of 3 services:\n%s", lines, out)
		}
	}

	if err := w.sim.SetDelay("eu", 700*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	w.nearest("uk")
	told("uk")
	w.eventually("the log tells of the change", func() error { return w.logged(`"event":"chosen"`) })
}

// A region that is a little better now and then is no reason to move. Only one
// that is better by both margins takes over, once.
func TestARegionThatIsBetterByLessThanBothMarginsChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{
		sim: simulator.Config{Delays: map[string]time.Duration{"eu": 0, "uk": 150 * time.Millisecond}},
		// Or a slow start of this machine might begin with uk, and stay there.
		before: func(sim *simulator.Simulator) {
			if err := sim.SetRegion("uk", simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
				t.Fatal(err)
			}
		},
		config: func(c object) {
			inRegions(c, "eu", "uk")
			timing(c, "probe_interval", "1s", "switch_margin", "20%", "switch_margin_min", "600ms")
		},
	})
	w.nearest("eu")
	if err := w.sim.SetRegion("uk", simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("uk is measured", func() error {
		if r := w.places("mde")["uk"]; r.Samples == 0 || !r.Healthy {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	chosen := func() int { return strings.Count(w.stderr.String(), `"event":"chosen"`) }
	before := chosen()
	// By a share of it uk is far better now, by time it is not.
	if err := w.sim.SetDelay("eu", 350*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	w.eventually("uk is better, but not by enough", func() error {
		if rows := w.places("mde"); rows["eu"].LatencyMS < rows["uk"].LatencyMS+100 || len(rows["eu"].Chosen) != 1 || !strings.Contains(rows["eu"].Chosen[0], "near enough") {
			return fmt.Errorf("%+v", rows)
		}
		return nil
	})
	for i := range 10 {
		if a := w.get("/api/alerts?$top=1"); a.hop() != "eu" {
			t.Errorf("request %d: %v", i, a)
		}
	}
	if n := chosen() - before; n != 0 {
		t.Errorf("the region changed %d times", n)
	}
	if err := w.sim.SetDelay("eu", 2*time.Second); err != nil {
		t.Fatal(err)
	}
	w.nearest("uk")
	if a := w.get("/api/alerts?$top=1"); a.hop() != "uk" {
		t.Errorf("once uk is better by both margins: %v", a)
	}
}

// A region answers probes as quickly as ever, at its edge, and takes its time over
// the reads themselves. That counts too: callers are sent to the next one.
func TestARegionThatIsSlowBehindAQuickEdgeIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{Delays: farApart}, config: func(c object) {
		inRegions(c, "eu", "uk")
		probing(c)
	}})
	w.nearest("eu")
	// One operation that is slow would tell of the query and not of the region.
	var page struct{ Value []struct{ ID string } }
	if a := w.get("/api/alerts?$top=1"); json.Unmarshal([]byte(a.body), &page) != nil || len(page.Value) != 1 {
		t.Fatalf("no alert: %v", a)
	}
	readers := w.readers(4, "/api/alerts?$top=3", "/api/alerts/"+page.Value[0].ID)
	readers.more(200) // what is usual
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultDelay, Delay: time.Second, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	w.nearest("uk")
	if rows := w.places("mde"); rows["eu"].LatencyMS > rows["uk"].LatencyMS {
		t.Errorf("the probes are slow as well, so nothing is shown: %+v", rows)
	}
	readers.end()
	if n := readers.broken.Load(); n != 0 {
		t.Errorf("%d answers broke off", n)
	}
}

// Callers stand at the door before the proxy knows anything of the regions. None
// of them is sent to one that has not been measured: the first to answer a probe
// is the nearest, and they wait for that.
func TestCallersThatWaitAtTheStartAreNotSentToRegionsThatNobodyHasMeasured(t *testing.T) {
	t.Parallel()
	// Tokens come at once, measures only later.
	const far = 2 * time.Second
	delays := map[string]time.Duration{"us": far, "eu": 500 * time.Millisecond, "uk": far, "au": far, "swa": far, "ina": far, "aea": far}
	w := newWorld(t, setup{
		sim:     simulator.Config{Delays: delays},
		config:  func(c object) { timing(c, "connect_timeout", "30s") }, // as long as they wait at most
		unready: true,
	})
	var callers sync.WaitGroup
	for i := range 24 {
		path := []string{"/api/alerts?$top=1", "/api/incidents?$top=1", "/v1.0/security/alerts_v2?$top=1"}[i%3]
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if a, err := ask(ctx, http.MethodGet, w.url+path, ""); err != nil || a.status != http.StatusOK {
				t.Errorf("%s: %v, %v", path, a, err)
			}
		})
	}
	callers.Wait()
	// A region is measured when it has answered a probe.
	measured := make(map[string]time.Time)
	for _, r := range w.sim.Requests() {
		if at := r.Time.Add(delays[r.Region]); r.Method == http.MethodHead && r.Status != 0 && (measured[r.Region].IsZero() || at.Before(measured[r.Region])) {
			measured[r.Region] = at
		}
	}
	arrived := w.upstream()
	if len(arrived) != 24 {
		t.Errorf("%d requests arrived", len(arrived))
	}
	for _, r := range arrived {
		if at := measured[r.Region]; at.IsZero() || r.Time.Before(at) {
			t.Errorf("at %v a caller's request explored %s, which was measured at %v", r.Time, r.Region, at)
		}
	}
}

// Probes cost nobody anything: they carry no token, and those of services and
// tenants that nobody uses stop. A call brings them back. What callers use is
// measured on and on.
func TestProbesCarryNoTokenAndRestWhereNobodyCalls(t *testing.T) {
	t.Parallel()
	idle := customer(1)
	w := newWorld(t, setup{
		sim: simulator.Config{Tenants: []simulator.Tenant{simulator.DefaultTenant(), idle}},
		config: func(c object) {
			all := c["clouds"].([]object)[0]["endpoints"].(object)["mde"].(object)
			some := func(names ...string) object {
				o := object{}
				for _, n := range names {
					o[n] = all[n]
				}
				return o
			}
			// Each service has regions of its own, so that its probes can be told.
			c["clouds"].([]object)[0]["endpoints"] = object{"mde": some("eu", "uk", "ina"), "xdr": some("us"), "graph": some("au")}
			inRegions(c, "eu", "uk", "us", "au")
			other := entry(idle, bySecret())
			other["regions"] = object{"allow": []string{"ina"}}
			c["tenants"] = append(c["tenants"].([]object), other)
			c["listeners"].([]object)[0]["tenant"] = "contoso"
			probing(c)
		},
	})
	probes := func() map[string]int {
		n := make(map[string]int)
		for _, r := range w.sim.Requests() {
			if r.Listener == "api" && r.Method == http.MethodHead {
				n[r.Region]++
				if r.Header.Get("Authorization") != "" || r.Token != nil {
					t.Errorf("a probe carries a token: %+v", r)
				}
			}
		}
		return n
	}
	w.eventually("every region is probed", func() error {
		if n := probes(); len(n) != 5 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	w.eventually("what nobody uses rests", func() error {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
			return fmt.Errorf("%v", a)
		}
		time.Sleep(200 * time.Millisecond)
		mde, xdr, graph := w.places("mde"), w.places("xdr"), w.places("graph")
		if mde["eu"].Resting || mde["uk"].Resting {
			t.Fatalf("what is used rests: %+v", mde)
		}
		if !xdr["us"].Resting || !graph["au"].Resting || !mde["ina"].Resting {
			return fmt.Errorf("%+v\n%+v\n%+v", mde, xdr, graph)
		}
		return nil
	})
	w.sim.ResetRequests()
	w.eventually("what is used is probed on", func() error {
		if n := probes(); n["eu"] < 10 || n["uk"] < 10 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	if n := probes(); n["us"]+n["au"]+n["ina"] != 0 {
		t.Errorf("while others rest, the probes are %v", n)
	}
	for path, region := range map[string]string{"/api/incidents?$top=1": "us", "/v1.0/security/alerts_v2?$top=1": "au", "/t/" + idle.Name + "/api/alerts?$top=1": "ina"} {
		if a := w.get(path); a.status != http.StatusOK || a.hop() != region {
			t.Errorf("%s after a rest: %v", path, a)
		}
	}
	w.eventually("a call brings the probes back", func() error {
		if n := probes(); n["us"] == 0 || n["au"] == 0 || n["ina"] == 0 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
}
