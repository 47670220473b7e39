package regions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// attempt is one try of a call.
type attempt struct {
	region Name
	begun  time.Time
	took   time.Duration
	failed bool
}

// call goes through the pool as package proxy does with a read: to one region
// after the other, each of which has connect for a connection. Nothing of the
// network keeps it waiting but a black hole.
func call(m *Monitor, p *Pool, n *network, connect time.Duration) []attempt {
	p.Begin()
	var all []attempt
	for _, e := range p.Order() {
		ctx, cancel := context.WithTimeout(context.Background(), connect)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL.String()+"/api/alerts", nil)
		if err != nil {
			panic(err)
		}
		begun := time.Now()
		_, err = n.RoundTrip(req)
		cancel()
		all = append(all, attempt{e.Region, begun, time.Since(begun), err != nil})
		if err == nil {
			m.Report(e, Answered(200))
			return all
		}
		m.Report(e, ConnectFailed(err))
	}
	return all
}

// A black hole costs the time of one connect attempt to those that are under way
// until the first of them gives up, and nothing to anyone after that.
func TestABlackHoleIsPaidForOnlyByTheRequestsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connect = 5 * time.Second
		var n network
		n.set(US, func(h *host) { h.delay = 10 * time.Millisecond })
		n.set(EU, func(h *host) { h.delay = 30 * time.Millisecond })
		n.set(UK, func(h *host) { h.delay = 60 * time.Millisecond })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU, UK), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Second)

		var mu sync.Mutex
		var calls [][]attempt
		var callers sync.WaitGroup
		var hole time.Time
		for i := range 100 * 300 { // 300 s of 100 calls a second
			if i == 2000 {
				hole = time.Now()
				n.set(US, func(h *host) { h.delay = time.Hour })
			}
			callers.Go(func() {
				made := call(m, p, &n, connect)
				mu.Lock()
				calls = append(calls, made)
				mu.Unlock()
			})
			time.Sleep(10 * time.Millisecond)
		}
		callers.Wait()

		paid := 0
		for _, made := range calls {
			last := made[len(made)-1]
			if last.failed {
				t.Fatalf("no region answered %+v", made)
			}
			for _, a := range made[:len(made)-1] {
				paid++
				if a.region != US || a.took > connect || a.begun.Sub(hole) > connect {
					t.Fatalf("%+v went out %v after the hole opened", made, a.begun.Sub(hole))
				}
			}
			if len(made) > 2 {
				t.Fatalf("more than one region failed: %+v", made)
			}
		}
		if want := int(connect/(10*time.Millisecond)) + 2; paid == 0 || paid > want {
			t.Errorf("%d calls of %d paid for the hole, want some and at most %d", paid, len(calls), want)
		}
		if state(t, m, US).Healthy {
			t.Error("the region in the hole is not out")
		}
	})
}

// A region that answers again is the first again within two probe intervals,
// whenever it recovers, whichever way the jitter falls, and even when the probe
// before came a moment too early and waits for its whole time.
func TestTheNearestIsBackWithinTwoIntervalsOfItsRecovery(t *testing.T) {
	for _, interval := range []time.Duration{10 * time.Second, 30 * time.Second, 2 * time.Minute} {
		for kind, change := range map[string]func(*host){
			"refused":      func(h *host) { h.err, h.cut = errRefused, true },
			"reset":        func(h *host) { h.err = io.ErrUnexpectedEOF },
			"a black hole": func(h *host) { h.delay = time.Hour },
			"503":          func(h *host) { h.status = 503 },
		} {
			for _, jitter := range []float64{0, 0.5, 0.999999} {
				t.Run(fmt.Sprintf("%s, probed every %v, jitter at %v", kind, interval, jitter), func(t *testing.T) {
					rnd := rand.New(rand.NewPCG(1, uint64(interval)))
					worst := time.Duration(0)
					for range 20 {
						outage := 4*interval + time.Duration(rnd.Float64()*float64(4*interval))
						worst = max(worst, recovery(t, interval, jitter, outage, change))
					}
					if worst > 2*interval {
						t.Errorf("the nearest was back after %v, want two intervals of %v at most", worst, interval)
					}
				})
			}
		}
	}
}

// recovery cuts the nearest of two regions off for the time of outage and returns
// how long after that it takes until it is the first again.
func recovery(t *testing.T, interval time.Duration, jitter float64, outage time.Duration, change func(*host)) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay, h.cold = 20*time.Millisecond, 60*time.Millisecond })
		n.set(EU, func(h *host) { h.delay, h.cold = 120*time.Millisecond, 360*time.Millisecond })
		back := make(chan time.Time, 1)
		s := steady()
		s.ProbeInterval = interval
		s.Rand = func() float64 { return jitter }
		s.OnChange = func(c Change) {
			if c.Event == Chosen && c.Region == US {
				select {
				case back <- time.Now():
				default:
				}
			}
		}
		m := NewMonitor(s, &n)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		run(t, m)
		time.Sleep(interval)
		wantOrder(t, p, "us, eu")
		n.set(US, change)
		time.Sleep(outage)
		wantOrder(t, p, "eu, us")
		recovered := time.Now()
		n.set(US, func(h *host) {
			*h = host{delay: 20 * time.Millisecond, cold: 60 * time.Millisecond, asked: h.asked}
		})
		select {
		case at := <-back:
			took = at.Sub(recovered)
		case <-time.After(10 * interval):
			t.Error("the nearest is not back after ten intervals")
		}
	})
	return took
}

// However the wait is doubled, it stays below one and a half intervals and a
// minute.
func TestTheLongestWaitForAProbe(t *testing.T) {
	for _, tc := range []struct{ interval, timeout, want time.Duration }{
		{30 * time.Second, 5 * time.Second, 45 * time.Second},
		{2 * time.Minute, 5 * time.Second, time.Minute},
		{time.Hour, time.Minute, time.Minute},
		{10 * time.Second, time.Second, 15 * time.Second},
		{11 * time.Second, 5500 * time.Millisecond, 10 * time.Second},    // 2·11 less twice the time-out, less jitter
		{time.Second, 5 * time.Second, 500 * time.Millisecond},           // the time-out alone is longer: as well as can be
		{20 * time.Millisecond, time.Millisecond, 30 * time.Millisecond}, // even for the first
	} {
		s := Settings{ProbeInterval: tc.interval, ProbeTimeout: tc.timeout}
		if got := s.longestRetry().Round(time.Microsecond); got != tc.want {
			t.Errorf("every %v, time-out %v: got %v, want %v", tc.interval, tc.timeout, got, tc.want)
		}
		first, longest := NewMonitor(s, &network{}).retries()
		if first > longest || first > firstRetry {
			t.Errorf("every %v: the first wait is %v, the longest %v", tc.interval, first, longest)
		}
	}
}

// Two replicas that start together, and regions that fail together, are not
// probed in step for long.
func TestJitterSpreadsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(7, 7))
		names := []Name{US, EU, UK, AU, SWA, INA}
		var n network
		s := DefaultSettings()
		s.Rand = rnd.Float64
		m := NewMonitor(s, &n)
		p := mustPool(t, m, lab(names...), "mde", nil, "")
		run(t, m)
		start := time.Now()
		for range 100 {
			p.Begin()
			time.Sleep(s.ProbeInterval / 2)
		}
		for _, name := range names {
			asked := n.asked(name)
			for i := 1; i < len(asked); i++ {
				wait := asked[i].Sub(asked[i-1])
				if wait != 0 && (wait < s.ProbeInterval*9/10 || wait > s.ProbeInterval*11/10) {
					t.Fatalf("%s was asked again after %v, want %v and a tenth to both sides", name, wait, s.ProbeInterval)
				}
			}
		}
		late := make(map[time.Duration]int) // how many regions fall into each second of the last minute
		for _, name := range names {
			for i, at := range n.asked(name) {
				if since := at.Sub(start); since > 49*s.ProbeInterval && (i == 0 || n.asked(name)[i-1] != at) {
					late[since.Truncate(time.Second)]++
				}
			}
		}
		for second, count := range late {
			if count > len(names)/2 {
				t.Errorf("%d regions were probed in second %v, want them apart", count, second)
			}
		}
	})
}

// The margins are against flapping. They do not keep requests from the nearest
// region once it has recovered from an outage.
func TestAfterAnOutageTheNearestComesBackThoughTheOtherIsNearEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.set("eu", func(h *host) { h.delay = 12 * time.Millisecond })
		n.set("uk", func(h *host) { h.delay = 18 * time.Millisecond })
		m := NewMonitor(steady(), n)
		p := mustPool(t, m, lab("eu", "uk"), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Minute)
		wantOrder(t, p, "eu, uk")
		n.set("eu", func(h *host) { h.err = errors.New("refused") })
		time.Sleep(2 * time.Minute)
		p.Begin()
		wantOrder(t, p, "uk, eu")
		n.set("eu", func(h *host) { h.err = nil })
		time.Sleep(time.Minute)
		wantOrder(t, p, "eu, uk")

		// Without an outage the margins hold, whoever is first.
		n.set("eu", func(h *host) { h.delay = 40 * time.Millisecond })
		for range 20 {
			p.Begin()
			time.Sleep(30 * time.Second)
		}
		wantOrder(t, p, "uk, eu")
		n.set("eu", func(h *host) { h.delay = 12 * time.Millisecond })
		for range 20 {
			p.Begin()
			time.Sleep(30 * time.Second)
		}
		wantOrder(t, p, "uk, eu")
	})
}

// A single probe that waited for a lost packet moves nothing.
func TestOneSlowProbeMovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.set("eu", func(h *host) { h.delay = 12 * time.Millisecond })
		n.set("uk", func(h *host) { h.delay = 30 * time.Millisecond })
		moved := 0
		s := steady()
		s.OnChange = func(c Change) {
			if c.Event == Chosen {
				moved++
			}
		}
		m := NewMonitor(s, n)
		p := mustPool(t, m, lab("eu", "uk"), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Minute)
		wantOrder(t, p, "eu, uk")
		moved = 0
		asked := len(n.asked("eu"))
		n.set("eu", func(h *host) { h.delay = 230 * time.Millisecond })
		for len(n.asked("eu")) == asked {
			p.Begin()
			time.Sleep(10 * time.Millisecond)
		}
		n.set("eu", func(h *host) { h.delay = 12 * time.Millisecond })
		time.Sleep(10 * time.Minute)
		if moved != 0 || order(p) != "eu, uk" {
			t.Errorf("after one slow probe requests moved %d times; the order is %s", moved, order(p))
		}
		n.set("eu", func(h *host) { h.delay = 230 * time.Millisecond })
		time.Sleep(5 * time.Minute)
		wantOrder(t, p, "uk, eu") // what is slow twice is slow
	})
}
