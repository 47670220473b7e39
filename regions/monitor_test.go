package regions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheNearestComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay = 90 * time.Millisecond })
		n.set(EU, func(h *host) { h.delay = 20 * time.Millisecond })
		n.set(UK, func(h *host) { h.delay = 40 * time.Millisecond })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(UK, EU, US), "mde", nil, "")
		wantOrder(t, p, "us, eu, uk") // the cloud's order until something is measured
		run(t, m)
		time.Sleep(time.Second)
		wantOrder(t, p, "eu, uk, us")
		if e, reason := p.Current(); e.Region != EU || e.URL.String() != "https://eu.example" || reason != "nearest: 20ms" {
			t.Errorf("current is %s at %s: %q", e.Region, e.URL, reason)
		}
	})
}

// Connections come about in any order; until every region has been measured the
// margins do not hold the one that happened to be first.
func TestTheFirstToAnswerIsNotTheNearest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(EU, func(h *host) { h.delay, h.cold = 4*time.Millisecond, 50*time.Millisecond })
		n.set(UK, func(h *host) { h.delay, h.cold = 8*time.Millisecond, time.Millisecond })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(EU, UK), "mde", nil, "")
		run(t, m)
		time.Sleep(30 * time.Millisecond)
		wantOrder(t, p, "uk, eu")
		if !p.Answering() {
			t.Error("a pool with a region that answered is not answering")
		}
		time.Sleep(time.Second)
		wantOrder(t, p, "eu, uk")
		n.set(EU, func(h *host) { h.delay = 16 * time.Millisecond }) // smoothed: 11.6 ms, within the margins of 8
		time.Sleep(61 * time.Second)
		if e, reason := p.Current(); e.Region != EU || reason != "near enough: 10.1ms; uk at 8ms is not better by both margins" {
			t.Errorf("current is %s: %q", e.Region, reason)
		}
	})
}

func TestAPoolWithoutAnAnswerIsNotAnswering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(EU, func(h *host) { h.err = errors.New("refused") })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(EU), "mde", nil, "")
		if p.Answering() {
			t.Error("a pool that nobody has asked is answering")
		}
		run(t, m)
		time.Sleep(time.Minute)
		if p.Answering() {
			t.Error("a pool whose region is out is answering")
		}
	})
}

func TestOnlyAWarmConnectionCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(EU, func(h *host) { h.delay, h.cold = 20*time.Millisecond, time.Second })
		m := NewMonitor(steady(), &n)
		mustPool(t, m, lab(US, EU, UK), "mde", nil, "") // eu is the last of the three, so one connection is kept
		run(t, m)
		time.Sleep(2 * time.Second)
		s := state(t, m, EU)
		if s.Latency != 20*time.Millisecond || s.Samples != 1 || len(n.asked(EU)) != 2 {
			t.Errorf("got latency %v from %d samples and %d requests, want 20ms from 1 and 2", s.Latency, s.Samples, len(n.asked(EU)))
		}
		time.Sleep(30 * time.Second)
		if got := len(n.asked(EU)); got != 3 {
			t.Errorf("got %d requests after an interval, want a third alone, for the connection is warm", got)
		}
	})
}

func TestAServerThatKeepsNoConnectionIsMeasuredAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(EU, func(h *host) { h.delay, h.cold = 20*time.Millisecond, time.Second })
		m := NewMonitor(steady(), roundTrip(func(req *http.Request) (*http.Response, error) {
			n.set(EU, func(h *host) { h.warm = false })
			return n.RoundTrip(req)
		}))
		mustPool(t, m, lab(EU), "mde", nil, "")
		run(t, m)
		time.Sleep(5 * time.Second)
		if s := state(t, m, EU); s.Latency != 1020*time.Millisecond || s.Samples != 1 {
			t.Errorf("got latency %v from %d samples, want 1.02s from 1", s.Latency, s.Samples)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestAProbeCarriesNoTokenAndIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		mustPool(t, m, lab(EU), "mde", nil, "")
		mustPool(t, m, lab(EU), "graph", nil, "")
		run(t, m)
		time.Sleep(time.Second)
		n.mu.Lock()
		defer n.mu.Unlock()
		for host, url := range map[string]string{"eu.example": "https://eu.example/api/", "global.example": "https://global.example/v1.0/"} {
			req := n.host(host).last
			if req == nil || req.Method != http.MethodHead || req.URL.String() != url {
				t.Fatalf("probe of %s: got %v, want HEAD %s", host, req, url)
			}
			if got := fmt.Sprint(req.Header); got != "map[User-Agent:[defender-proxy]]" {
				t.Errorf("headers of the probe of %s: got %s", host, got)
			}
		}
	})
}

func TestFlappingWithinTheMarginsNeverSwitches(t *testing.T) {
	for name, tc := range map[string]struct{ low, high time.Duration }{
		"within both margins":            {20 * time.Millisecond, 23 * time.Millisecond},
		"beyond the relative one alone":  {5 * time.Millisecond, 12 * time.Millisecond},
		"beyond the absolute one alone":  {200 * time.Millisecond, 235 * time.Millisecond},
		"equal to one another all along": {50 * time.Millisecond, 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n network
				var switches atomic.Int32
				s := steady()
				s.OnChange = func(Change) { switches.Add(1) }
				m := NewMonitor(s, &n)
				n.set(EU, func(h *host) { h.delay = tc.low })
				n.set(UK, func(h *host) { h.delay = tc.high })
				p := mustPool(t, m, lab(EU, UK), "mde", nil, "")
				run(t, m)
				time.Sleep(time.Second)
				// Of two that are equal the one measured first leads.
				first, _ := p.Current()
				switches.Store(0)
				for i := range 100 {
					time.Sleep(s.ProbeInterval)
					if i%2 == 0 {
						n.set(EU, func(h *host) { h.delay = tc.high })
						n.set(UK, func(h *host) { h.delay = tc.low })
					} else {
						n.set(EU, func(h *host) { h.delay = tc.low })
						n.set(UK, func(h *host) { h.delay = tc.high })
					}
				}
				if now, reason := p.Current(); now != first || switches.Load() != 0 {
					t.Errorf("got %d changes, from %s to %s (%s), want none", switches.Load(), first.Region, now.Region, reason)
				}
			})
		})
	}
}

func TestARegionBetterByBothMarginsTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		var changes []Change
		s := steady()
		s.OnChange = func(c Change) { changes = append(changes, c) }
		m := NewMonitor(s, &n)
		n.set(EU, func(h *host) { h.delay = 20 * time.Millisecond })
		n.set(UK, func(h *host) { h.delay = 40 * time.Millisecond })
		p := mustPool(t, m, lab(EU, UK), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Second)
		n.set(EU, func(h *host) { h.delay = 200 * time.Millisecond })
		time.Sleep(30 * time.Second) // smoothed: 20 + 0.3·180 = 74 ms against 40
		wantOrder(t, p, "uk, eu")
		synctest.Wait()
		want := Change{Event: Chosen, Service: "mde", Region: UK, From: EU, Reason: "nearest: 40ms against 74ms of eu"}
		if len(changes) != 1 || changes[0] != want {
			t.Errorf("got changes %+v, want %+v", changes, want)
		}
	})
}

func TestSettingsBetter(t *testing.T) {
	s := Settings{SwitchMargin: 0.20, SwitchMarginMin: 10 * time.Millisecond}
	for _, tc := range []struct {
		a, b time.Duration // in milliseconds
		want bool
	}{{40, 50, true}, {41, 50, false}, {80, 100, true}, {81, 100, false}, {5, 14, false}, {5, 15, true}, {50, 50, false}, {50, 40, false}} {
		if got := s.better(tc.a*time.Millisecond, tc.b*time.Millisecond); got != tc.want {
			t.Errorf("%d ms better than %d ms: got %v, want %v", tc.a, tc.b, got, tc.want)
		}
	}
	if (Settings{}).better(5, 5) || !(Settings{}).better(4, 5) {
		t.Error("without margins the lower latency should win, and no other")
	}
}

func TestThreeFailuresPutARegionOutAndOneSuccessBringsItBack(t *testing.T) {
	for name, failure := range map[string]Outcome{
		"a time-out":          TimedOut(context.DeadlineExceeded),
		"a broken connection": Broken(io.ErrUnexpectedEOF),
		"502":                 Answered(502),
		"503":                 Answered(503),
		"504":                 Answered(504),
	} {
		t.Run(name, func(t *testing.T) {
			var changes []Change
			s := steady()
			s.OnChange = func(c Change) { changes = append(changes, c) }
			m := NewMonitor(s, &network{})
			p := mustPool(t, m, lab(US, EU, UK), "mde", nil, "")
			us := find(p, US)
			m.Report(us, failure)
			m.Report(us, failure)
			m.Report(us, Answered(200))
			m.Report(us, failure)
			m.Report(us, failure)
			wantOrder(t, p, "us, eu, uk")
			m.Report(us, failure)
			wantOrder(t, p, "eu, uk, us")
			if got := state(t, m, US); got.Healthy || got.Failures != 3 || got.LastFailure != failure.failure || got.LastFailureAt.IsZero() {
				t.Errorf("state is %+v", got)
			}
			m.Report(us, Answered(401))
			if got := state(t, m, US); !got.Healthy || got.Failures != 0 {
				t.Errorf("after an answer the state is %+v", got)
			}
			var events []Event
			for _, c := range changes {
				events = append(events, c.Event)
			}
			// With nothing measured the cloud's order decides again.
			if want := []Event{WentOut, Chosen, CameBack, Chosen}; !slices.Equal(events, want) {
				t.Errorf("got changes %v, want %v", events, want)
			}
		})
	}
}

func TestAnswersThatAreNoIllHealth(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	p := mustPool(t, m, lab(US, EU), "mde", nil, "")
	for _, status := range []int{200, 301, 400, 401, 403, 404, 429, 500, 501} {
		for range outAfter {
			m.Report(find(p, US), Answered(status))
		}
	}
	for range outAfter {
		m.Report(find(p, US), Outcome{})
		m.Report(Endpoint{}, Answered(502))
	}
	if s := state(t, m, US); !s.Healthy || s.Failures != 0 {
		t.Errorf("state is %+v, want healthy", s)
	}
}

func TestTheTextOfAFailureIsBoundedAndHoldsNoURL(t *testing.T) {
	err := &url.Error{Op: "Get", URL: "https://eu.example/api?secret=1", Err: errors.New(strings.Repeat("é", 1000))}
	got := ConnectFailed(fmt.Errorf("try: %w", err)).failure
	if strings.Contains(got, "secret") || len(got) > maxFailureText+50 || !strings.HasPrefix(got, "no connection: éé") {
		t.Errorf("got %q", got)
	}
	if got := TimedOut(nil).failure; got != "no answer in time" {
		t.Errorf("got %q", got)
	}
}

func TestAFailedRegionIsProbedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		n.set(US, func(h *host) { h.err = errors.New("connection refused") })
		start := time.Now()
		run(t, m)
		time.Sleep(4 * time.Minute)
		wantOrder(t, p, "eu, us")
		var got []time.Duration
		for _, at := range n.asked(US) {
			got = append(got, at.Sub(start)/time.Second)
		}
		if want := []time.Duration{0, 1, 3, 7, 15, 31, 63, 108, 153, 198}; !slices.Equal(got, want) {
			t.Errorf("probes after seconds %d, want %d", got, want)
		}
		n.set(US, func(h *host) { h.err = nil })
		time.Sleep(5 * time.Second)
		if s := state(t, m, US); !s.Healthy || s.Since.Sub(start) != 243*time.Second {
			t.Errorf("after recovery the state is %+v", s)
		}
	})
}

func TestAReportedFailureBringsAProbeSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		run(t, m)
		time.Sleep(10 * time.Second)
		before := n.rounds(US)
		for range 50 {
			m.Report(find(p, US), Answered(503))
		}
		wantOrder(t, p, "eu, us")
		time.Sleep(1100 * time.Millisecond)
		if got := n.rounds(US) - before; got != 1 || !state(t, m, US).Healthy {
			t.Errorf("got %d probes within a second and state %+v, want one and healthy", got, state(t, m, US))
		}
	})
}

func TestARegionThatFailsRealRequestsAloneIsTakenBackEverLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Second)
		us := find(p, US)
		var outages []time.Duration
		for range 6 {
			for range outAfter {
				m.Report(us, Answered(502))
			}
			start := time.Now()
			for !state(t, m, US).Healthy {
				time.Sleep(100 * time.Millisecond)
			}
			outages = append(outages, time.Since(start).Round(time.Second)/time.Second)
		}
		if want := []time.Duration{1, 4, 8, 16, 30, 30}; !slices.Equal(outages, want) {
			t.Errorf("out for seconds %d, want %d", outages, want)
		}
	})
}

func TestAProbeThatIsNotAnsweredTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(EU, func(h *host) { h.delay = time.Hour })
		m := NewMonitor(steady(), &n)
		mustPool(t, m, lab(EU), "mde", nil, "")
		run(t, m)
		time.Sleep(5100 * time.Millisecond)
		if s := state(t, m, EU); s.Failures != 1 || s.LastFailure != "no answer in time: context deadline exceeded" {
			t.Errorf("state is %+v", s)
		}
	})
}

func TestTheEndOfRunIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(EU, func(h *host) { h.delay = time.Second })
		m := NewMonitor(steady(), &n)
		mustPool(t, m, lab(EU), "mde", nil, "")
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := m.Run(ctx); err != nil {
			t.Fatalf("Run: %v", err)
		}
		if s := state(t, m, EU); s.Failures != 0 || s.LastFailure != "" {
			t.Errorf("state is %+v", s)
		}
		again, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if err := m.Run(again); err != nil {
			t.Fatalf("Run again: %v", err)
		}
		if s := state(t, m, EU); s.Samples != 1 {
			t.Errorf("after a second Run: %+v, want a sample", s)
		}
	})
}

func TestRunRefusesToRunTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMonitor(steady(), &network{})
		run(t, m)
		synctest.Wait()
		if err := m.Run(t.Context()); err == nil {
			t.Error("a second Run should be refused")
		}
	})
}

func TestAPoolAddedLaterIsProbedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		run(t, m)
		time.Sleep(time.Minute)
		mustPool(t, m, lab(EU, UK), "mde", []Name{EU}, "")
		mustPool(t, m, lab(EU, UK), "mde", []Name{EU, UK}, "")
		time.Sleep(time.Second)
		// One on a new connection, one that is the measure, four that keep connections warm.
		if a, b := len(n.asked(EU)), len(n.asked(UK)); a != 6 || b != 6 {
			t.Errorf("got %d and %d requests, want 6 and 6: what pools share is probed once", a, b)
		}
	})
}

func TestProbesAreBoundedAndSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		inFlight := make(map[string]int)
		most := 0
		moments := make(map[time.Duration]bool) // of the second round, in tenths of a second
		start := time.Now()
		rt := roundTrip(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			inFlight[req.URL.Host]++
			most = max(most, len(inFlight))
			if since := time.Since(start); since > 20*time.Second {
				moments[since.Truncate(100*time.Millisecond)] = true
			}
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			if inFlight[req.URL.Host]--; inFlight[req.URL.Host] == 0 {
				delete(inFlight, req.URL.Host)
			}
			mu.Unlock()
			return &http.Response{StatusCode: 401, Body: http.NoBody}, nil
		})
		m := NewMonitor(DefaultSettings(), rt)
		var names []Name
		for i := range 40 {
			names = append(names, Name(fmt.Sprintf("r%d", i)))
		}
		mustPool(t, m, lab(names...), "mde", nil, "")
		run(t, m)
		time.Sleep(50 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if most != maxProbes {
			t.Errorf("at most %d regions probed at once, want %d", most, maxProbes)
		}
		if len(moments) < 15 {
			t.Errorf("40 probes fell into %d tenths of a second, want them spread", len(moments))
		}
	})
}

func TestMeasuringRealServersOverTLS(t *testing.T) {
	var redirected atomic.Bool
	serve := func(delay time.Duration) *httptest.Server {
		return httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/api/" {
				redirected.Store(true)
			}
			time.Sleep(delay)
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}))
	}
	near, far := serve(0), serve(60*time.Millisecond)
	defer near.Close()
	defer far.Close()
	cloud := Cloud{Name: "lab", Endpoints: map[Service]map[Name]string{"mde": {US: far.URL, EU: near.URL}}}
	transport := near.Client().Transport.(*http.Transport).Clone() // both use httptest's own certificate
	defer transport.CloseIdleConnections()

	s := DefaultSettings()
	s.ProbeInterval = 20 * time.Millisecond
	m := NewMonitor(s, transport)
	p := mustPool(t, m, cloud, "mde", nil, "")
	run(t, m)
	until(t, "both are measured and the nearer is first", func() bool {
		p.Begin() // what nobody uses rests
		return state(t, m, US).Samples > 1 && state(t, m, EU).Samples > 1 && order(p) == "eu, us"
	})
	if us := state(t, m, US); us.Latency < 60*time.Millisecond || us.Host != strings.TrimPrefix(far.URL, "https://") {
		t.Errorf("the far region's state is %+v, want 60 ms at %s", us, far.URL)
	}

	near.CloseClientConnections()
	near.Close()
	for range outAfter {
		m.Report(find(p, EU), ConnectFailed(errors.New("connection refused")))
	}
	until(t, "a probe has failed too, and us is first", func() bool {
		p.Begin()
		return state(t, m, EU).Failures > outAfter && order(p) == "us, eu"
	})
	if redirected.Load() {
		t.Error("a probe followed a redirect")
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s until %s", what)
		}
	}
}
