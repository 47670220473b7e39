package regions

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// durations are what requests take beyond the way to the region and back.
type durations func(r *rand.Rand, operation int) time.Duration

var ordinary durations = func(r *rand.Rand, operation int) time.Duration {
	return time.Duration(operation+1)*20*time.Millisecond + time.Duration(r.Int64N(int64(20*time.Millisecond)))
}

// traffic is a service that is asked for operations of a few kinds, in the region
// that its pool has first.
type traffic struct {
	probes   map[Name]time.Duration
	settings Settings
	gap      time.Duration // between requests
	seed     uint64
	mostly   float64 // the share of requests that are for operation 0 anyway
	took     func(r *rand.Rand, n Name, operation, i int) time.Duration
}

// operations is how many kinds of requests a traffic has.
const operations = 5

// play sends requests and tells of each, before it is sent, where it goes. It
// returns how often another region came first.
func (w traffic) play(t *testing.T, requests int, each func(i int, p *Pool, first Name)) (changes int, end []State) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var n network
		var names []Name
		for region, delay := range w.probes {
			names = append(names, region)
			n.set(region, func(h *host) { h.delay = delay })
		}
		w.settings.OnChange = func(Change) { changes++ }
		m := NewMonitor(w.settings, &n)
		p := mustPool(t, m, lab(names...), "mde", nil, "")
		run(t, m)
		time.Sleep(2 * time.Second)
		changes = 0
		rnd := rand.New(rand.NewPCG(w.seed, 1))
		for i := range requests {
			p.Begin()
			first, _ := p.Current()
			each(i, p, first.Region)
			operation := rnd.IntN(operations)
			if w.mostly > 0 && rnd.Float64() < w.mostly {
				operation = 0
			}
			m.Took(first, "operation "+strconv.Itoa(operation), w.probes[first.Region]+w.took(rnd, first.Region, operation, i))
			time.Sleep(w.gap)
		}
		end = m.Snapshot()
	})
	return changes, end
}

func TestARegionWithASlowBackEndIsLeftAndTriedAgain(t *testing.T) {
	const ms = time.Millisecond
	closer := steady()
	closer.SwitchMarginMin = 5 * ms // else 12 ms are near enough for ever
	for _, c := range []struct {
		name     string
		settings Settings
		other    time.Duration
		gap      time.Duration
	}{
		{"the other is nearly as near, ten requests a second", closer, 12 * ms, 100 * ms},
		{"the other is nearly as near, a request each five seconds", closer, 12 * ms, 5 * time.Second},
		{"the other is farther, ten requests a second", steady(), 40 * ms, 100 * ms},
		{"the other is farther, a request each five seconds", steady(), 40 * ms, 5 * time.Second},
		{"the other is far away", steady(), 150 * ms, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			const slow, quick = 1000, 20_000 // the request at which us becomes slow, and quick again
			left, slowed, tried, late := -1, 0, 0, 0
			w := traffic{probes: map[Name]time.Duration{US: 5 * ms, EU: c.other}, settings: c.settings, gap: c.gap}
			w.took = func(r *rand.Rand, n Name, operation, i int) time.Duration {
				d := ordinary(r, operation)
				if n == US && slow <= i && i < quick {
					d += 300 * ms
				}
				return d
			}
			last := US
			_, end := w.play(t, 40_000, func(i int, _ *Pool, first Name) {
				switch {
				case i < slow && first != US:
					t.Fatalf("request %d goes to %s, want us, which is nearest", i, first)
				case i >= slow && first == EU && left < 0:
					left = i - slow
				case slow <= i && i < quick && first == US:
					slowed++
					if last != US {
						tried++
					}
				case i >= quick && first == EU:
					late = i - quick
				}
				last = first
			})
			if left < 0 || left > 200 {
				t.Errorf("us was left after %d requests, want 200 at most", left)
			}
			if tried == 0 {
				t.Error("us was never tried again")
			}
			if slowed > 100+10*tried {
				t.Errorf("%d of %d requests went to the slow region, which was tried %d times: want about a hundred, and ten for each time", slowed, quick-slow, tried)
			}
			if took := time.Duration(late) * c.gap; took > 2*time.Hour {
				t.Errorf("us is first again for good %v after it became quick, want 2h at most", took)
			}
			if last != US {
				t.Errorf("in the end requests go to %s: %+v", last, end)
			}
		})
	}
}

// Durations that vary as much as they like move nothing, as long as they are alike
// in all regions.
func TestLongRequestsThatAreAlikeInAllRegionsMoveNothing(t *testing.T) {
	const ms = time.Millisecond
	for name, d := range map[string]durations{
		"a few milliseconds apart": ordinary,
		"three in ten take 1 to 100 s": func(r *rand.Rand, operation int) time.Duration {
			if r.IntN(10) < 3 {
				return time.Second + time.Duration(r.Int64N(int64(99*time.Second)))
			}
			return ordinary(r, operation)
		},
		"all the same": func(_ *rand.Rand, operation int) time.Duration { return time.Duration(operation) * ms },
		"100 ms to 2 s": func(r *rand.Rand, _ int) time.Duration {
			return 100*ms + time.Duration(r.Int64N(int64(1900*ms)))
		},
		"100 ms to 100 s": func(r *rand.Rand, _ int) time.Duration {
			return 100*ms + time.Duration(r.Int64N(int64(100*time.Second)))
		},
		"none": func(*rand.Rand, int) time.Duration { return -2 * ms },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				w := traffic{
					probes:   map[Name]time.Duration{US: 5 * ms, EU: 12 * ms, UK: 12500 * time.Microsecond},
					settings: steady(), gap: 100 * ms, seed: seed,
					took: func(r *rand.Rand, _ Name, operation, _ int) time.Duration { return d(r, operation) },
				}
				w.play(t, 10_000, func(i int, p *Pool, _ Name) {
					if got := order(p); got != "us, eu, uk" {
						t.Fatalf("seed %d, request %d: the order is %s, want us, eu, uk", seed, i, got)
					}
				})
			}
		})
	}
}

// Callers whose queries take long in every region say nothing against the one
// that they go to, however many they are, as long as they ask for one thing.
func TestOneOperationAloneMovesNoRegion(t *testing.T) {
	const ms = time.Millisecond
	only := func(_ *rand.Rand, operation, _ int) bool { return operation == 0 }
	for _, c := range []struct {
		name string
		// heavy says whether request i is a query of three seconds, given its operation.
		heavy  func(r *rand.Rand, operation, i int) bool
		mostly float64
		usual  durations
	}{
		{"a fifth of the requests", only, 0, ordinary},
		{"most requests", only, 0.9, ordinary},
		{"most requests, among others of 100 ms to 100 s", only, 0.9, func(r *rand.Rand, _ int) time.Duration {
			return 100*ms + time.Duration(r.Int64N(int64(100*time.Second)))
		}},
		{"three in five of one that is most requests", func(r *rand.Rand, operation, _ int) bool { return operation == 0 && r.IntN(5) < 3 }, 0.9, ordinary},
		{"50 of 300, again and again", func(_ *rand.Rand, operation, i int) bool { return operation == 0 && i%300 < 50 }, 0.9, ordinary},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(5) {
				w := traffic{
					probes:   map[Name]time.Duration{US: 10 * ms, EU: 100 * ms},
					settings: steady(), gap: 100 * ms, seed: seed, mostly: c.mostly,
					took: func(r *rand.Rand, _ Name, operation, i int) time.Duration {
						if i >= 1000 && c.heavy(r, operation, i) {
							return 3 * time.Second
						}
						return c.usual(r, operation)
					},
				}
				w.play(t, 6000, func(i int, _ *Pool, first Name) {
					if first != US {
						t.Fatalf("seed %d, request %d goes to %s, want us", seed, i, first)
					}
				})
			}
		})
	}
}

func TestARegionThatIsAskedForOneOperationOnlyIsMeasuredByItsProbes(t *testing.T) {
	for name, slow := range map[string]func(i int) bool{
		"all are slow":         func(int) bool { return true },
		"three in five":        func(i int) bool { return i%5 < 3 },
		"fifty in a row, once": func(i int) bool { return i < 50 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, p := measured(t)
				for range 200 {
					m.Took(find(p, US), "alerts.list", 40*time.Millisecond)
				}
				for i := range 1000 {
					wait := 40 * time.Millisecond
					if slow(i) {
						wait = 3 * time.Second
					}
					m.Took(find(p, US), "alerts.list", wait)
					if s := state(t, m, US); s.Surplus != 0 {
						t.Fatalf("after request %d the surplus is %v, want none", i, s.Surplus)
					}
				}
				wantOrder(t, p, "us, eu")
			})
		})
	}
}

func TestWhenAllRegionsBecomeSlowAlikeThatIsUsualSoon(t *testing.T) {
	w := traffic{
		probes:   map[Name]time.Duration{US: 5 * time.Millisecond, EU: 12 * time.Millisecond, UK: 30 * time.Millisecond},
		settings: steady(), gap: 5 * time.Second,
		took: func(r *rand.Rand, _ Name, operation, i int) time.Duration {
			d := ordinary(r, operation)
			if i > 1000 {
				d += 300 * time.Millisecond
			}
			return d
		},
	}
	changes, end := w.play(t, 10_000, func(int, *Pool, Name) {})
	if changes > 30 {
		t.Errorf("another region came first %d times, want 30 at most", changes)
	}
	for _, s := range end {
		if len(s.Chosen) > 0 && s.Surplus > 10*time.Millisecond {
			t.Errorf("in the end %s, which is in use, has a surplus of %v, want 10ms at most", s.Region, s.Surplus)
		}
	}
}

// measured is a Monitor that has measured us and eu once.
func measured(t *testing.T) (*Monitor, *Pool) {
	var n network
	n.set(US, func(h *host) { h.delay = 5 * time.Millisecond })
	n.set(EU, func(h *host) { h.delay = 12 * time.Millisecond })
	m := NewMonitor(steady(), &n)
	p := mustPool(t, m, lab(US, EU), "mde", nil, "")
	run(t, m)
	time.Sleep(time.Second)
	return m, p
}

func TestAnOperationThatWasNeverSeenMovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := measured(t)
		for range 1000 {
			m.Took(find(p, US), "alerts.list", 50*time.Millisecond)
		}
		for i := range 30 {
			for range earlySamples {
				m.Took(find(p, US), fmt.Sprint("hunting ", i), 100*time.Second)
			}
		}
		if s := state(t, m, US); s.Surplus != 0 || s.Real != 1000-earlySamples {
			t.Errorf("surplus is %v after %d requests, want none after %d", s.Surplus, s.Real, 1000-earlySamples)
		}
		wantOrder(t, p, "us, eu")
	})
}

// reads tells of so many requests for each of two operations, by turns.
func reads(m *Monitor, e Endpoint, n int, took time.Duration) {
	for range n {
		m.Took(e, "alerts.list", took)
		m.Took(e, "machines.list", took)
	}
}

func TestOneLongRequestOfEachOperationMovesTheSurplusByOneStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := measured(t)
		reads(m, find(p, US), 100, 50*time.Millisecond)
		reads(m, find(p, US), 1, 200*time.Second)
		if s := state(t, m, US); s.Surplus > surplusStep {
			t.Errorf("surplus is %v, want %v at most", s.Surplus, surplusStep)
		}
	})
}

func TestTheSurplusIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := measured(t)
		us := find(p, US)
		reads(m, us, 100, 50*time.Millisecond)
		for i := range 120 {
			reads(m, us, 1, 24*time.Hour)
			if s := state(t, m, US); s.Surplus < 0 || s.Surplus > maxSurplus {
				t.Fatalf("after %d requests of a day the surplus is %v, want %v at most", i+1, s.Surplus, maxSurplus)
			}
		}
		if s := state(t, m, US); s.Surplus < maxSurplus*9/10 {
			t.Errorf("after 120 requests of a day the surplus is %v, want about %v", s.Surplus, maxSurplus)
		}
		for i := range 300 {
			reads(m, us, 1, 0)
			if s := state(t, m, US); s.Surplus < 0 {
				t.Fatalf("after %d requests of no time the surplus is %v", i+1, s.Surplus)
			}
		}
		if s := state(t, m, US); s.Surplus != 0 {
			t.Errorf("after 300 requests of no time the surplus is %v, want none", s.Surplus)
		}
	})
}

func TestTheSurplusFadesWhileThereAreNoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := measured(t)
		us := find(p, US)
		reads(m, us, 100, 50*time.Millisecond)
		reads(m, us, 40, 350*time.Millisecond)
		time.Sleep(31 * time.Second) // the requests came before this probe
		full := state(t, m, US).Surplus
		if full < 30*time.Millisecond {
			t.Fatalf("surplus is %v, want 30ms at least", full)
		}
		wantOrder(t, p, "eu, us")
		time.Sleep(30 * time.Second)
		if got, want := state(t, m, US).Surplus, full*3/4; (got - want).Abs() > time.Microsecond {
			t.Errorf("after a probe without requests the surplus is %v, want %v of %v", got, want, full)
		}
	})
}

func TestTheRegionThatTheOperatorPrefersIsNotLeftForBeingSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := measured(t)
		p := mustPool(t, m, lab(US, EU), "mde", nil, US)
		reads(m, find(p, US), 100, 50*time.Millisecond)
		reads(m, find(p, US), 50, 350*time.Millisecond)
		if s := state(t, m, US); s.Surplus < 100*time.Millisecond {
			t.Errorf("surplus is %v, want 100ms at least", s.Surplus)
		}
		wantOrder(t, p, "us, eu")
	})
}

func TestWhatTellsNothingIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cold := NewMonitor(steady(), &network{})
		unmeasured := mustPool(t, cold, lab(US), "mde", nil, "").Order()[0]
		m, p := measured(t)
		for range 2 * earlySamples {
			m.Took(Endpoint{}, "alerts.list", time.Second)
			m.Took(find(p, US), "", time.Second)
			m.Took(find(p, US), "alerts.list", -time.Second)
			cold.Took(unmeasured, "alerts.list", time.Second)
		}
		for _, m := range []*Monitor{cold, m} {
			if s := state(t, m, US); s.Real != 0 || len(m.usual.services) != 0 {
				t.Errorf("heard %d requests for %v", s.Real, m.usual.services)
			}
		}
	})
}

func TestManyRequestsAtOnceAreHeard(t *testing.T) {
	var n network
	for _, region := range []Name{US, EU} {
		n.set(region, func(h *host) { h.delay = 100 * time.Microsecond })
	}
	settings := steady()
	settings.ProbeInterval = time.Millisecond
	m := NewMonitor(settings, &n)
	p := mustPool(t, m, lab(US, EU), "mde", nil, "")
	run(t, m)
	until(t, "both are measured", func() bool { return state(t, m, US).Samples > 0 && state(t, m, EU).Samples > 0 })
	var all sync.WaitGroup
	const each = 2000
	for i := range 8 {
		all.Go(func() {
			for j := range each {
				p.Begin()
				m.Took(p.Order()[j%2], "operation "+strconv.Itoa(i%4), time.Duration(j%100+1)*time.Millisecond)
				if j%100 == 0 {
					m.Snapshot()
				}
			}
		})
	}
	all.Wait()
	if got, want := state(t, m, US).Real+state(t, m, EU).Real, 8*each-4*earlySamples; got != want {
		t.Errorf("%d requests were heard, want %d", got, want)
	}
}

func BenchmarkTook(b *testing.B) {
	m := NewMonitor(steady(), &network{})
	p := mustPool(b, m, lab(US, EU, UK), "mde", nil, "")
	for _, e := range p.Order() {
		m.note(e, Answered(401), true, 20*time.Millisecond)
	}
	us := p.Order()[0]
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("machines.operation%d", i)
	}
	r := rand.New(rand.NewPCG(1, 2))
	waits := make([]time.Duration, 1024)
	for i := range waits {
		waits[i] = time.Duration(20+r.IntN(100)) * time.Millisecond
	}
	for i := range 100 * earlySamples {
		m.Took(us, names[i%100], waits[i%1024])
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Took(us, names[i%100], waits[i%1024])
	}
}
