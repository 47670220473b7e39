package regions

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPickingTheOrderAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMonitor(steady(), &network{})
		p := mustPool(t, m, Clouds()[0], "mde", nil, "")
		run(t, m)
		time.Sleep(time.Second)
		if got := testing.AllocsPerRun(1000, func() {
			p.Begin()
			p.Measured(t.Context(), time.Second)
			order, _ := p.Choice()
			for _, e := range order {
				_ = e.Lost()
			}
		}); got != 0 {
			t.Errorf("%v allocations, want none", got)
		}
	})
}

func TestTheReasonIsThatOfTheOrderItComesWith(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	p := mustPool(t, m, lab(US, EU), "mde", nil, "")
	us := find(p, US)
	reasons := map[Name]string{US: "nearest: 10ms", EU: "not measured yet; us is suspect: no connection: connection refused"}
	m.note(us, Answered(401), true, 10*time.Millisecond)
	var all sync.WaitGroup
	defer all.Wait()
	ended := make(chan struct{})
	defer close(ended)
	all.Go(func() {
		for !closed(ended) {
			m.note(us, ConnectFailed(errRefused), false, 0)
			m.note(us, Answered(401), true, 10*time.Millisecond)
		}
	})
	for range 10_000 {
		if order, reason := p.Choice(); len(order) != 2 || reason != reasons[order[0].Region] {
			t.Fatalf("the order begins with %s, the reason is %q", order[0].Region, reason)
		}
	}
}

func TestAMonitorTellsWhenItHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay = time.Second })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US), "mde", nil, "")
		if closed(m.Started()) {
			t.Error("it has begun before it was run")
		}
		for i := range 2 {
			ctx, stop := context.WithCancel(t.Context())
			var all sync.WaitGroup
			all.Go(func() {
				if err := m.Run(ctx); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
			<-m.Started()
			if start := time.Now(); i == 0 {
				p.Measured(t.Context(), time.Minute)
				if got := time.Since(start); got != 2*time.Second {
					t.Errorf("a request that came just after waited for %v, want the 2 s of a probe", got)
				}
			}
			stop()
			all.Wait()
		}
	})
}

func TestRepeatsAreAShareOfTheRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMonitor(steady(), &network{})
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		// Every one of 1,000 requests fails and asks for a repeat, 100 a second.
		repeats := 0
		for range 1000 {
			p.Begin()
			if p.Repeat() {
				repeats++
			}
			time.Sleep(10 * time.Millisecond)
		}
		// 200 are the share, 10 were there to begin with, 10 came with the seconds.
		if repeats < 200 || repeats > 220 {
			t.Errorf("%d repeats of 1,000 requests, want 200 and up to 20 more", repeats)
		}
	})
}

func TestTheBudgetOfRepeats(t *testing.T) {
	for name, tc := range map[string]struct {
		requests int
		wait     time.Duration
		again    time.Duration // waited after all was spent
		want     int
		wantThen int
	}{
		"a pool that was never used has ten":                         {0, 0, 0, 10, 0},
		"it has no more than ten however long it waits":              {0, time.Hour, 0, 10, 0},
		"what is spent comes back, one a second":                     {0, 0, 3 * time.Second, 10, 3},
		"it comes back to ten":                                       {0, 0, time.Hour, 10, 10},
		"five requests give one":                                     {5, 0, 0, 11, 0},
		"four give none":                                             {4, 0, 0, 10, 0},
		"a hundred are saved":                                        {500, 0, 0, 110, 0},
		"and not more":                                               {100_000, time.Hour, 0, 110, 0},
		"what requests earned is not lost while nothing happens":     {50, 24 * time.Hour, 0, 20, 0},
		"what requests earned is not earned again after it is spent": {500, 0, 5 * time.Second, 110, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustPool(t, NewMonitor(steady(), &network{}), lab(US, EU), "mde", nil, "")
				spend := func() (n int) {
					for p.Repeat() {
						n++
					}
					return n
				}
				for range tc.requests {
					p.Begin()
				}
				time.Sleep(tc.wait)
				if got := spend(); got != tc.want {
					t.Errorf("got %d repeats, want %d", got, tc.want)
				}
				time.Sleep(tc.again)
				if got := spend(); got != tc.wantThen {
					t.Errorf("after %v got %d more, want %d", tc.again, got, tc.wantThen)
				}
			})
		})
	}
}

func TestPoolsDoNotShareTheirBudgets(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	a := mustPool(t, m, lab(US, EU), "mde", nil, "")
	b := mustPool(t, m, lab(US, EU), "mde", []Name{EU}, "")
	for a.Repeat() {
	}
	if !b.Repeat() {
		t.Error("one pool spent what another had")
	}
}

func TestTheBudgetHoldsForManyCallersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPool(t, NewMonitor(steady(), &network{}), lab(US, EU), "mde", nil, "")
		var repeats atomic.Int64
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				for range 100 {
					p.Begin()
					if p.Repeat() {
						repeats.Add(1)
					}
				}
			})
		}
		callers.Wait()
		for p.Repeat() {
			repeats.Add(1)
		}
		// Nothing was lost, for never more than a hundred were saved.
		if got := repeats.Load(); got != 5000/repeatCost+freeRepeats {
			t.Errorf("%d repeats of 5,000 requests at one moment, want %d", got, 5000/repeatCost+freeRepeats)
		}
	})
}

func TestTheFirstRequestsWaitForTheNearestToAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay, h.cold = 100*time.Millisecond, 300*time.Millisecond })
		n.set(EU, func(h *host) { h.delay, h.cold = 20*time.Millisecond, 60*time.Millisecond })
		n.set(UK, func(h *host) { h.delay = time.Hour })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU, UK), "mde", nil, "")
		run(t, m)
		synctest.Wait()
		start := time.Now()
		var waiters sync.WaitGroup
		for range 1000 {
			waiters.Go(func() {
				p.Begin()
				p.Measured(t.Context(), time.Minute)
				if waited := time.Since(start); waited != 100*time.Millisecond {
					t.Errorf("waited for %v, want the 80 ms of a new connection and 20 of a warm one", waited)
				}
				if e, reason := p.Current(); e.Region != EU {
					t.Errorf("the first is %s (%s), want eu", e.Region, reason)
				}
			})
		}
		waiters.Wait()
		p.Measured(t.Context(), time.Minute)
		if waited := time.Since(start); waited != 100*time.Millisecond {
			t.Errorf("a request that came later waited until %v", waited)
		}
	})
}

func TestMeasuredEnds(t *testing.T) {
	bad := func(h *host) { h.err, h.cut, h.delay = errRefused, true, 50*time.Millisecond }
	for name, tc := range map[string]struct {
		prefer Name
		set    map[Name]func(*host)
		then   func(m *Monitor, stop func())
		until  time.Duration // the context's end, an hour when zero
		want   time.Duration
	}{
		"when each region has failed once": {
			set:  map[Name]func(*host){US: bad, EU: bad},
			want: 50 * time.Millisecond,
		},
		"not when only some have failed": {
			set:  map[Name]func(*host){US: bad, EU: func(h *host) { h.delay, h.err = 2*time.Second, errRefused }},
			want: 2 * time.Second,
		},
		"when one answers and the other does not": {
			set:  map[Name]func(*host){US: func(h *host) { h.delay = time.Hour }, EU: func(h *host) { h.delay = 30 * time.Millisecond }},
			want: 60 * time.Millisecond,
		},
		"when each has answered that it is not well": {
			set:  map[Name]func(*host){US: func(h *host) { h.status = 503 }, EU: func(h *host) { h.status, h.delay = 503, time.Second }},
			want: time.Second,
		},
		"when the preferred region has answered, not before": {
			prefer: EU,
			set:    map[Name]func(*host){EU: func(h *host) { h.delay = 300 * time.Millisecond }},
			want:   600 * time.Millisecond,
		},
		"when the preferred region has failed and another has answered": {
			prefer: EU,
			set:    map[Name]func(*host){EU: bad, US: func(h *host) { h.delay = 40 * time.Millisecond }},
			want:   80 * time.Millisecond,
		},
		"with its context": {
			set:   map[Name]func(*host){US: func(h *host) { h.delay = time.Hour }, EU: func(h *host) { h.delay = time.Hour }},
			until: 3 * time.Second,
			want:  3 * time.Second,
		},
		"after the longest time it may take": {
			set:  map[Name]func(*host){US: func(h *host) { h.delay = time.Hour }, EU: func(h *host) { h.delay = time.Hour }},
			want: 4 * time.Second,
		},
		"when the monitor ends": {
			set:  map[Name]func(*host){US: func(h *host) { h.delay = time.Hour }, EU: func(h *host) { h.delay = time.Hour }},
			then: func(_ *Monitor, stop func()) { time.Sleep(time.Second); stop() },
			want: time.Second,
		},
		"when the pool is forgotten": {
			set:  map[Name]func(*host){US: func(h *host) { h.delay = time.Hour }, EU: func(h *host) { h.delay = time.Hour }},
			then: func(m *Monitor, _ func()) { time.Sleep(2 * time.Second); m.Keep(nil) },
			want: 2 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n network
				for region, change := range tc.set {
					n.set(region, change)
				}
				m := NewMonitor(steady(), &n)
				p := mustPool(t, m, lab(US, EU), "mde", nil, tc.prefer)
				running, stop := context.WithCancel(t.Context())
				defer stop()
				var all sync.WaitGroup
				defer all.Wait()
				all.Go(func() {
					if err := m.Run(running); err != nil {
						t.Errorf("Run: %v", err)
					}
				})
				defer stop()
				synctest.Wait()
				if tc.then != nil {
					all.Go(func() { tc.then(m, stop) })
				}
				ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(tc.until, time.Hour))
				defer cancel()
				start := time.Now()
				p.Measured(ctx, 4*time.Second)
				if got := time.Since(start); got != tc.want {
					t.Errorf("waited for %v, want %v", got, tc.want)
				}
			})
		})
	}
}

func TestMeasuredDoesNotWaitForAMonitorThatDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay = time.Hour })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US), "mde", nil, "")
		start := time.Now()
		p.Measured(t.Context(), time.Minute)
		runFor(t, m, time.Second)
		p.Measured(t.Context(), time.Minute)
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited for %v beyond the second in which it ran", waited-time.Second)
		}
	})
}

func TestAPoolOfWhatIsKnownIsMeasuredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay = time.Second })
		m := NewMonitor(steady(), &n)
		mustPool(t, m, lab(US, EU), "mde", []Name{EU}, "")
		run(t, m)
		time.Sleep(time.Minute)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		start := time.Now()
		p.Measured(t.Context(), time.Minute)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited for %v although eu is known", waited)
		}
		wantOrder(t, p, "eu, us")
	})
}

func TestDoubtBringsAProbeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay = 10 * time.Millisecond })
		n.set(EU, func(h *host) { h.delay = 50 * time.Millisecond })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU, UK), "mde", nil, "")
		run(t, m)
		time.Sleep(10 * time.Second)
		us := find(p, US)
		n.set(US, func(h *host) { h.delay = time.Hour })
		before, doubted := n.rounds(US), time.Now()
		m.Doubt(us)
		synctest.Wait()
		if got := n.asked(US); n.rounds(US) != before+1 || got[len(got)-1] != doubted {
			t.Errorf("%d probes, want one at once", n.rounds(US)-before)
		}
		for range 40 { // one is under way
			m.Doubt(us)
			time.Sleep(100 * time.Millisecond)
		}
		if got := n.rounds(US) - before; got != 1 {
			t.Errorf("%d probes while one is under way, want that one", got)
		}
		select {
		case <-us.Lost():
		case <-time.After(time.Minute):
		}
		if took := time.Since(doubted); took != m.settings.ProbeTimeout {
			t.Errorf("lost after %v, want %v", took, m.settings.ProbeTimeout)
		}
		if first, _ := p.Current(); first == us {
			t.Error("what is lost is the first still")
		}
	})
}

func TestDoubtBringsNoMoreThanAProbeASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		run(t, m)
		time.Sleep(10 * time.Second)
		us, before := find(p, US), n.rounds(US)
		for range 995 {
			m.Doubt(us)
			time.Sleep(10 * time.Millisecond)
		}
		if got := n.rounds(US) - before; got != 10 {
			t.Errorf("%d probes in 10 s of doubt, want 10", got)
		}
		m.Doubt(Endpoint{})
		time.Sleep(time.Hour)
		if !state(t, m, US).Resting {
			t.Fatal("it does not rest")
		}
		before = n.rounds(US)
		m.Doubt(us)
		synctest.Wait()
		if n.rounds(US) != before+1 {
			t.Error("doubt did not wake what rests")
		}
	})
}
