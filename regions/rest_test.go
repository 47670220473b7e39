package regions

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatNobodyUsesRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(EU, func(h *host) { h.delay = 20 * time.Millisecond })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		run(t, m)
		interval := m.settings.ProbeInterval
		time.Sleep(restAfter*interval - time.Second)
		if state(t, m, US).Resting || state(t, m, EU).Resting {
			t.Error("it rests before 20 intervals are over")
		}
		p.Begin()
		time.Sleep(restAfter*interval - time.Second)
		if state(t, m, US).Resting {
			t.Error("it rests although there was a request")
		}
		time.Sleep(2 * interval)
		us, eu := n.rounds(US), n.rounds(EU)
		known := state(t, m, EU)
		if !known.Resting || !known.Healthy || known.Samples == 0 {
			t.Errorf("the state is %+v, want resting and healthy", known)
		}
		time.Sleep(24 * time.Hour)
		if n.rounds(US) != us || n.rounds(EU) != eu {
			t.Errorf("%d and %d probes while nobody asked, want none", n.rounds(US)-us, n.rounds(EU)-eu)
		}
		if got := state(t, m, EU); got.Latency != known.Latency || got.Samples != known.Samples || !p.Answering() {
			t.Errorf("what was known, %+v, became %+v", known, got)
		}
		wantOrder(t, p, "us, eu")

		woken := time.Now()
		p.Begin()
		p.Begin()
		synctest.Wait()
		for _, name := range []Name{US, EU} {
			asked := n.asked(name)
			if last := asked[len(asked)-1]; last != woken {
				t.Errorf("%s was asked %v after the request, want at once", name, last.Sub(woken))
			}
		}
		time.Sleep(interval + time.Second)
		if got := state(t, m, EU); got.Resting || got.Samples < known.Samples+2 {
			t.Errorf("an interval after a request the state is %+v, before %+v", got, known)
		}
	})
}

func TestWhatOnePoolUsesDoesNotRestForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		both := mustPool(t, m, lab(US, EU), "mde", nil, "")
		used := mustPool(t, m, lab(US, EU), "mde", []Name{EU}, "")
		graph := mustPool(t, m, lab(US, EU), "graph", nil, "")
		run(t, m)
		for range 60 {
			used.Begin()
			time.Sleep(m.settings.ProbeInterval)
		}
		if us, eu, global := state(t, m, US), state(t, m, EU), state(t, m, Global); !us.Resting || eu.Resting || !global.Resting {
			t.Errorf("resting: us %v, eu %v, global %v; want only eu awake, which is used", us.Resting, eu.Resting, global.Resting)
		}
		// The pool that nobody used knows what rests in it.
		both.Begin()
		synctest.Wait()
		if state(t, m, US).Resting || !state(t, m, Global).Resting {
			t.Error("a request through its pool did not wake us, or woke what is not in its pool")
		}
		graph.Begin()
		synctest.Wait()
		if state(t, m, Global).Resting {
			t.Error("a request through its pool did not wake it")
		}
	})
}

func TestANewPoolWakesWhatRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		mustPool(t, m, lab(US, EU), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Hour)
		before := n.rounds(EU)
		mustPool(t, m, lab(US, EU), "mde", []Name{EU}, "")
		time.Sleep(time.Second)
		if !state(t, m, US).Resting || state(t, m, EU).Resting || n.rounds(EU) != before+1 {
			t.Errorf("eu: %d probes, %+v; us: %+v", n.rounds(EU)-before, state(t, m, EU), state(t, m, US))
		}
	})
}

// What failed is probed on until it answers, or readiness could never come back
// to a proxy that, not being ready, gets no requests.
func TestWhatFailedIsProbedOnAlthoughNobodyUsesIt(t *testing.T) {
	for name, change := range map[string]func(*host){
		"refused":          func(h *host) { h.err, h.cut = errRefused, true },
		"in a black hole":  func(h *host) { h.delay = time.Hour },
		"answering by 503": func(h *host) { h.status = 503 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n network
				m := NewMonitor(steady(), &n)
				p := mustPool(t, m, lab(US, EU), "mde", nil, "")
				run(t, m)
				time.Sleep(restAfter/2*m.settings.ProbeInterval + time.Second)
				n.set(US, change)
				n.set(EU, change)
				time.Sleep(24 * time.Hour)
				if p.Answering() || state(t, m, US).Resting || state(t, m, EU).Resting {
					t.Errorf("after a day of outage: answering %v, us %+v", p.Answering(), state(t, m, US))
				}
				for _, region := range []Name{US, EU} {
					n.set(region, func(h *host) { *h = host{asked: h.asked} })
				}
				time.Sleep(2 * m.settings.ProbeInterval)
				if !p.Answering() || !state(t, m, US).Healthy || !state(t, m, EU).Healthy {
					t.Errorf("two intervals after the outage: answering %v, us %+v", p.Answering(), state(t, m, US))
				}
				time.Sleep(2 * m.settings.ProbeInterval)
				before := n.rounds(US)
				time.Sleep(24 * time.Hour)
				if !state(t, m, US).Resting || n.rounds(US) != before {
					t.Errorf("after the outage %d probes, and the state is %+v, want rest", n.rounds(US)-before, state(t, m, US))
				}
			})
		})
	}
}

func TestAFailureEndsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Hour)
		n.set(US, func(h *host) { h.err, h.cut = errRefused, true })
		m.Report(find(p, US), TimedOut(nil)) // of a request that began long ago
		time.Sleep(time.Minute)
		if st := state(t, m, US); st.Resting || st.Healthy {
			t.Errorf("state is %+v, want probed and out", st)
		}
	})
}

func TestARequestWhileNothingRunsWakesWhatRested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US), "mde", nil, "")
		runFor(t, m, time.Hour)
		before := n.rounds(US)
		p.Begin()
		runFor(t, m, time.Second)
		if got := n.rounds(US); got != before+1 || state(t, m, US).Resting {
			t.Errorf("%d probes, %+v, want one", got-before, state(t, m, US))
		}
	})
}

// However requests and the decision to rest meet, what rests is woken by the next
// request.
func TestNoRequestIsMissedByWhatGoesToRest(t *testing.T) {
	s := DefaultSettings()
	s.ProbeInterval = time.Millisecond
	m := NewMonitor(s, roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Body: http.NoBody}, nil
	}))
	p := mustPool(t, m, lab(US, EU), "mde", nil, "")
	run(t, m)
	for range 60 {
		time.Sleep(15*time.Millisecond + time.Duration(rand.IntN(15))*time.Millisecond)
		before := state(t, m, US).Samples
		until(t, "requests were followed by a probe", func() bool {
			p.Begin()
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, e := range p.endpoints {
				if e.health.resting && !p.rests.Load() {
					t.Fatalf("%s rests, and the pool does not know", e.Region)
				}
			}
			return find(p, US).health.samples > before
		})
	}
}
