package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// The nearest region refuses connections while eight callers read, two hundred
// times and more. No read fails, only those that were on their way pay anything,
// and none of them as much as one connect attempt. When it is back, so are they.
func TestWhileTheNearestRegionRefusesNoReadFailsAndFewPay(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, s setup) {
		const callers = 8
		connect := 8 * time.Second
		w := newWorld(t, s.and(func(c object) {
			preferring(c, "eu", "uk", "us")
			timing(c, "probe_interval", "1s", "connect_timeout", connect.String())
		}))
		w.nearest("eu")
		readers := w.readers(callers)
		readers.more(50)
		if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
			t.Fatal(err)
		}
		readers.more(200)
		if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
			t.Fatal(err)
		}
		w.nearest("eu")
		readers.more(20)
		if a := w.get("/api/machines?$top=1"); a.hop() != "eu" {
			t.Errorf("when it is back: %v", a)
		}
		all := readers.end()
		if n := readers.broken.Load(); n > callers {
			t.Errorf("%d answers broke off, of %d that can have begun to come", n, callers)
		}
		paid := late(all)
		// One read of each caller was on its way. An answer that comes from the
		// region just as it goes down speaks for it once more.
		if len(paid) > 2*callers {
			t.Errorf("%d of %d reads were sent to more than one region", len(paid), len(all))
		}
		for _, r := range all {
			if took := time.Duration(r.Duration * float64(time.Millisecond)); took > connect/2 {
				t.Errorf("a read took %v: %+v", took, r)
			}
		}
	})
}

// The nearest region becomes a black hole: what is sent there is swallowed, on
// the connections that are open and on new ones. The reads that are on their way
// lose the time until that is noticed, once. None after them does, and none
// fails. Within two probe intervals of its recovery the region is used again.
func TestABlackHoleCostsOnlyTheReadsThatWereOnTheirWay(t *testing.T) {
	t.Parallel()
	const (
		callers  = 4
		interval = 2 * time.Second
	)
	w, ways := afar(t, setup{config: func(c object) {
		preferring(c, "eu", "uk", "us")
		timing(c, "probe_interval", interval.String(), "connect_timeout", "4s")
	}}, "eu", "uk", "us")
	w.nearest("eu")
	readers := w.readers(callers)
	readers.more(20)
	ways["eu"].swallow(true)
	readers.more(200)
	noticed := time.Now()
	readers.more(100)
	if rows := w.places("mde"); len(rows["eu"].Chosen) != 0 {
		t.Errorf("the black hole is still first: %+v", rows["eu"])
	}
	ways["eu"].heal()
	healed := time.Now()
	w.nearest("eu")
	// Beyond the two intervals there is the time of this machine, which is busy.
	if took := time.Since(healed); took > 2*interval+6*time.Second {
		t.Errorf("it took %v until the region was used again, with a probe every %v", took, interval)
	}
	readers.more(20)
	all := readers.end()
	if n := readers.broken.Load(); n != 0 {
		t.Errorf("%d answers broke off", n)
	}
	paid := late(all)
	if len(paid) == 0 || len(paid) > callers {
		t.Errorf("%d of %d reads were sent to more than one region, want those of %d callers once", len(paid), len(all), callers)
	}
	for _, r := range paid {
		if r.Time.After(noticed) || r.Duration > 20_000 {
			t.Errorf("a read paid: %+v", r)
		}
	}
}

// A read waits on a connection that has died without a word, and no probe is due
// for an hour. After a while the proxy has doubts, looks, and another region
// answers. A write in the same place goes on waiting, because it may have
// arrived; its caller is told so in the end.
func TestAReadThatWaitsOnADeadPathMovesOnAndAWriteDoesNot(t *testing.T) {
	t.Parallel()
	w, ways := afar(t, respond(func(c object) {
		preferring(c, "eu", "uk")
		timing(c, "probe_interval", "1h", "connect_timeout", "4s", "first_byte_timeout", "14s")
	}), "eu", "uk")
	w.nearest("eu")
	for range 3 {
		w.get("/api/alerts?$top=1")
	}
	w.sim.ResetRequests()
	ways["eu"].swallow(false)
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	var both sync.WaitGroup
	both.Go(func() {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		a, err := ask(ctx, http.MethodGet, w.url+"/api/alerts?$top=1", "")
		// 5 s until it is doubted, 4 s for the probe; and the machine is busy.
		if took := time.Since(begun); err != nil || a.status != http.StatusOK || a.hop() != "uk" || took > 20*time.Second {
			t.Errorf("the read after %v: %v, %v", took, a, err)
		}
	})
	both.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		a, err := ask(ctx, http.MethodPost, w.url+path, `{"Comment":"x"}`)
		if code, message := a.refused(); err != nil || a.status != http.StatusGatewayTimeout || code != "RegionUnavailable" || !strings.Contains(message, "may have been carried out") {
			t.Errorf("the write: %v, %v", a, err)
		}
	})
	both.Wait()
	if n := len(w.arrivals(http.MethodPost, path)); n != 1 {
		t.Errorf("the write arrived %d times", n)
	}
	if n := len(w.arrivals(http.MethodGet, "/api/alerts")); n != 2 {
		t.Errorf("the read arrived %d times, want once in each region", n)
	}
}

// A region answers everything with 101, probes too, and keeps the connection. It
// is looked at again all the same, and used when it has come to its senses.
func TestARegionThatSwitchesProtocolsIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) {
		inRegions(c, "eu", "uk")
		timing(c, "probe_interval", "1s", "connect_timeout", "1s")
	}})
	w.nearest("eu")
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultUpgrade}); err != nil {
		t.Fatal(err)
	}
	w.nearest("uk")
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK || a.hop() != "uk" {
		t.Errorf("while eu switches protocols: %v", a)
	}
	if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	w.nearest("eu")
}

// Every region answers 503 to three hundred reads. The proxy tries elsewhere for
// some of them, but not for all: an outage is not made worse. The answer that
// callers get is Microsoft's, and the last region is tried rather than none.
func TestAnOutageIsNotMultipliedByRepeats(t *testing.T) {
	t.Parallel()
	const reads, callers = 300, 10
	w := newWorld(t, setup{config: func(c object) { preferring(c, "eu", "uk", "us") }})
	w.nearest("eu")
	for _, region := range []string{"eu", "uk", "us"} {
		if err := w.sim.SetRegion(region, simulator.Fault{Kind: simulator.FaultStatus, Status: 503}); err != nil {
			t.Fatal(err)
		}
	}
	before := sum(w.metrics(), "defender_proxy_attempts_total")
	begun := time.Now()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range reads / callers {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				a, err := ask(ctx, http.MethodGet, w.url+"/api/alerts?$top=1", "")
				cancel()
				if code, _ := a.refused(); err != nil || a.status != http.StatusServiceUnavailable || code != "ServiceUnavailable" || a.ours() {
					t.Errorf("got %v, %v; want Microsoft's own 503", a, err)
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	w.eventually("all are counted", func() error {
		if n := sum(w.metrics(), "defender_proxy_attempts_total") - before; n < reads {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	// A fifth of the traffic; ten that a quiet proxy has in reserve, refilled by
	// one a second.
	sent, most := sum(w.metrics(), "defender_proxy_attempts_total")-before, 1.2*reads+10+took.Seconds()+2
	if sent > most {
		t.Errorf("%v requests were sent for %d reads within %v, want %v at most", sent, reads, took, most)
	}
	if sent < reads+10 {
		t.Errorf("%v requests were sent for %d reads: nothing was repeated", sent, reads)
	}
	if n := float64(len(w.arrivals(http.MethodGet, "/api/alerts"))); n > most {
		t.Errorf("%v requests arrived for %d reads", n, reads)
	}
}

// A hunting query was sent, and its answer was lost. It changes nothing, but it
// costs quota: it is sent to another region only where the operator says so.
func TestAHuntingQueryThatWasLostIsRepeatedOnlyWhereTheOperatorSaysSo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		repeat  any
		status  int
		regions string
	}{
		{"by default it is not", nil, http.StatusBadGateway, "[eu]"},
		{"when told not to it is not", false, http.StatusBadGateway, "[eu]"},
		{"when told to it is", true, http.StatusOK, "[eu uk]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{config: func(c object) {
				preferring(c, "eu", "uk")
				if tc.repeat != nil {
					timing(c, "repeat_hunting", tc.repeat)
				}
			}})
			w.nearest("eu")
			for _, path := range []string{"/api/advancedqueries/run", "/api/advancedhunting/run", "/v1.0/security/runHuntingQuery"} {
				w.sim.ResetRequests()
				if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultReset, Match: path, Count: 1}); err != nil {
					t.Fatal(err)
				}
				a := w.do(http.MethodPost, path, `{"Query":"DeviceInfo | take 1"}`)
				if a.status != tc.status {
					t.Errorf("%s: %v", path, a)
				}
				if _, message := a.refused(); tc.status != http.StatusOK && !strings.Contains(message, "may have run and spent quota") {
					t.Errorf("%s: the caller is told %q", path, message)
				}
				var where []string
				for _, r := range w.arrivals(http.MethodPost, path) {
					where = append(where, r.Region)
				}
				if fmt.Sprint(where) != tc.regions {
					t.Errorf("%s arrived in %v, want %s", path, where, tc.regions)
				}
			}
		})
	}
}
