package regions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errRefused = errors.New("connection refused")

// closed reports whether c is closed by now.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestOneWordOfNoConnectionMakesARegionSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []Change
		s := steady()
		s.OnChange = func(c Change) { changes = append(changes, c) }
		m := NewMonitor(s, &network{})
		p := mustPool(t, m, lab(US, EU, UK), "mde", nil, "")
		us := find(p, US)

		m.Report(us, ConnectFailed(errRefused))
		wantOrder(t, p, "eu, uk, us")
		if _, reason := p.Current(); reason != "not measured yet; us is suspect: no connection: connection refused" {
			t.Errorf("reason is %q", reason)
		}
		if st := state(t, m, US); !st.Suspect || !st.Healthy || st.Failures != 1 {
			t.Errorf("state is %+v, want suspect and not out", st)
		}
		m.Report(us, ConnectFailed(errRefused))
		if len(changes) != 1 || changes[0].Event != Chosen || changes[0].Region != EU {
			t.Errorf("got changes %+v, want that eu was chosen", changes)
		}
		m.Report(us, Answered(404)) // on a connection that was there already
		wantOrder(t, p, "eu, uk, us")
		if st := state(t, m, US); !st.Suspect || st.Failures != 0 {
			t.Errorf("after a request's answer the state is %+v, want suspect still and no failures", st)
		}
		m.note(us, Answered(401), true, 10*time.Millisecond)
		wantOrder(t, p, "us, eu, uk")
		if st := state(t, m, US); st.Suspect || st.Failures != 0 {
			t.Errorf("after a probe's answer the state is %+v", st)
		}
		for range outAfter {
			m.Report(us, ConnectFailed(errRefused))
		}
		if st := state(t, m, US); st.Healthy || !st.Suspect {
			t.Errorf("after three failures in a row the state is %+v, want out", st)
		}
		if last := changes[len(changes)-1]; last.Event != WentOut {
			t.Errorf("the last change is %+v, want that us went out", last)
		}
	})
}

func TestOneFailureOfAnotherKindMakesNoRegionSuspect(t *testing.T) {
	for name, failure := range map[string]Outcome{
		"a time-out":          TimedOut(context.DeadlineExceeded),
		"a broken connection": Broken(io.ErrUnexpectedEOF),
		"502":                 Answered(502),
		"503":                 Answered(503),
		"504":                 Answered(504),
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMonitor(steady(), &network{})
			p := mustPool(t, m, lab(US, EU), "mde", nil, "")
			us := find(p, US)
			m.Report(us, failure)
			m.Report(us, failure)
			wantOrder(t, p, "us, eu")
			if st := state(t, m, US); st.Suspect || closed(us.Lost()) {
				t.Errorf("state is %+v, lost %v", st, closed(us.Lost()))
			}
			m.Report(us, failure)
			wantOrder(t, p, "eu, us")
			if st := state(t, m, US); st.Healthy || st.Suspect || closed(us.Lost()) {
				t.Errorf("state is %+v, lost %v, want out and not lost: it can be reached", st, closed(us.Lost()))
			}
		})
	}
}

func TestAProbeWithoutAnAnswerMakesARegionSuspect(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*host)
		suspect bool
	}{
		"refused":         {func(h *host) { h.err, h.cut = errRefused, true }, true},
		"reset":           {func(h *host) { h.err = io.ErrUnexpectedEOF }, true},
		"a black hole":    {func(h *host) { h.delay = time.Hour }, true},
		"answered by 503": {func(h *host) { h.status = 503 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n network
				m := NewMonitor(steady(), &n)
				p := mustPool(t, m, lab(US, EU), "mde", nil, "")
				n.set(EU, func(h *host) { h.delay = 50 * time.Millisecond })
				run(t, m)
				time.Sleep(time.Second)
				us := find(p, US)
				n.set(US, tc.change)
				for state(t, m, US).Failures == 0 {
					time.Sleep(10 * time.Millisecond)
				}
				if st := state(t, m, US); st.Suspect != tc.suspect || closed(us.Lost()) != tc.suspect || !st.Healthy {
					t.Errorf("lost %v, state %+v, want suspect %v", closed(us.Lost()), st, tc.suspect)
				}
				if tc.suspect {
					wantOrder(t, p, "eu, us")
				}
				n.set(US, func(h *host) { *h = host{asked: h.asked} })
				time.Sleep(1200 * time.Millisecond)
				if st := state(t, m, US); st.Suspect || st.LastFailure == "" {
					t.Errorf("a second later the state is %+v", st)
				}
				wantOrder(t, p, "us, eu")
				if closed(us.Lost()) {
					t.Error("the region that answered again is lost")
				}
			})
		})
	}
}

// Of regions that are all suspect the nearest is tried; one that is out comes
// after them.
func TestTheLeastBadIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay = 40 * time.Millisecond })
		n.set(EU, func(h *host) { h.delay = 20 * time.Millisecond })
		n.set(UK, func(h *host) { h.delay = 10 * time.Millisecond })
		n.set(AU, func(h *host) { h.delay = time.Hour })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU, UK, AU), "mde", nil, "")
		run(t, m)
		time.Sleep(5500 * time.Millisecond) // au has failed its first probe
		for range outAfter {
			m.Report(find(p, UK), ConnectFailed(errRefused))
		}
		m.Report(find(p, US), ConnectFailed(errRefused))
		wantOrder(t, p, "eu, us, au, uk")
		m.Report(find(p, EU), ConnectFailed(errRefused))
		wantOrder(t, p, "eu, us, au, uk")
		if _, reason := p.Current(); reason != "no allowed region is healthy: this one is suspect, not out" {
			t.Errorf("reason is %q", reason)
		}
		if !p.Answering() {
			t.Error("one word of no connection takes the readiness away")
		}
	})
}

func TestAPreferredRegionGivesWayWhileItIsSuspect(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	p := mustPool(t, m, lab(US, EU), "mde", nil, EU)
	m.Report(find(p, EU), ConnectFailed(errRefused))
	wantOrder(t, p, "us, eu")
	m.note(find(p, EU), Answered(401), true, time.Millisecond)
	wantOrder(t, p, "eu, us")
}

// A network proxy may refuse new connections while those that are there go on
// working, and probes with them.
func TestARegionThatIsReachedOnlyNowAndThenMovesNobodyMoreThanOnceASecond(t *testing.T) {
	for name, each := range map[string][]Outcome{
		"a failure and an answer in turn":   {ConnectFailed(errRefused), Answered(200)},
		"three failures and an answer":      {ConnectFailed(errRefused), ConnectFailed(errRefused), ConnectFailed(errRefused), Answered(200)},
		"one failure and a hundred answers": append(slices.Repeat([]Outcome{Answered(200)}, 100), ConnectFailed(errRefused)),
	} {
		for _, allowed := range [][]Name{{US, EU}, {US}} {
			t.Run(fmt.Sprint(name, ", of ", len(allowed)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var n network
					n.set(US, func(h *host) { h.delay = 10 * time.Millisecond })
					n.set(EU, func(h *host) { h.delay = 100 * time.Millisecond })
					var mu sync.Mutex
					events := make(map[Event]int)
					s := steady()
					s.OnChange = func(c Change) {
						mu.Lock()
						defer mu.Unlock()
						events[c.Event]++
					}
					m := NewMonitor(s, &n)
					p := mustPool(t, m, lab(allowed...), "mde", nil, "")
					run(t, m)
					time.Sleep(10 * time.Second)
					synctest.Wait()
					mu.Lock()
					clear(events)
					mu.Unlock()
					us := find(p, US)
					const seconds = 200
					for i := range 100 * seconds {
						p.Begin()
						m.Report(us, each[i%len(each)])
						time.Sleep(10 * time.Millisecond)
					}
					mu.Lock()
					for event, count := range events {
						if count > seconds {
							t.Errorf("%q %d times in %d s, want one a second at most", event, count, seconds)
						}
					}
					mu.Unlock()
					time.Sleep(2 * s.ProbeInterval)
					if wantOrder(t, p, string(us.Region)+map[int]string{1: "", 2: ", eu"}[len(allowed)]); !us.Up() || !p.Answering() {
						t.Errorf("when all is well again the state is %+v", state(t, m, US))
					}
				})
			})
		}
	}
}

// What is out for want of a connection is looked at soon when a request gets
// through after all, and does not wait for the probe that comes by itself.
func TestAnAnswerHastensTheProbeOfWhatIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.err, h.cut = errRefused, true })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US), "mde", nil, "")
		run(t, m)
		time.Sleep(70 * time.Second) // probed last after 63 s, and then after 108
		us, before := find(p, US), n.rounds(US)
		n.set(US, func(h *host) { h.err, h.cut = nil, false })
		m.Report(us, Answered(200))
		if us.Up() || n.rounds(US) != before {
			t.Errorf("up %v after %d probes, want that a probe decides", us.Up(), n.rounds(US)-before)
		}
		time.Sleep(suspectAgain + 10*time.Millisecond)
		if !us.Up() || !p.Answering() {
			t.Errorf("not up %v after the answer: %+v", suspectAgain, state(t, m, US))
		}
	})
}

func TestASuspectIsProbedWithinASecondHoweverOftenItWasSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Second)
		us := find(p, US)
		for i := range 6 {
			m.Report(us, ConnectFailed(errRefused))
			if !state(t, m, US).Suspect {
				t.Fatalf("time %d: not suspect", i)
			}
			before := n.rounds(US)
			time.Sleep(1100 * time.Millisecond)
			if got := n.rounds(US) - before; got != 1 || state(t, m, US).Suspect {
				t.Errorf("time %d: %d probes within a second, suspect %v", i, got, state(t, m, US).Suspect)
			}
			time.Sleep(10 * time.Second)
		}
	})
}

// When there is nothing else to try, requests fail all the time at regions that
// are out. That is no reason to probe more often.
func TestRequestsThatFailDoNotHastenTheProbesOfWhatIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.err, h.cut = errRefused, true })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US), "mde", nil, "")
		start := time.Now()
		run(t, m)
		time.Sleep(2 * time.Second)
		for range 10 * 110 {
			p.Begin()
			m.Report(find(p, US), ConnectFailed(errRefused))
			time.Sleep(100 * time.Millisecond)
		}
		var got []time.Duration
		for _, at := range n.asked(US) {
			got = append(got, at.Sub(start)/time.Second)
		}
		if want := []time.Duration{0, 1, 3, 11, 27, 59, 104}; !slices.Equal(got, want) {
			t.Errorf("probes after seconds %d, want %d", got, want)
		}
	})
}

func TestLostIsClosedOnceAndRenewedByAnAnswer(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	us := find(mustPool(t, m, lab(US), "mde", nil, ""), US)
	first := us.Lost()
	if closed(first) || first != us.Lost() {
		t.Error("the channel of a region that can be reached is closed or not the same")
	}
	for range 2 * outAfter {
		m.Report(us, ConnectFailed(errRefused))
		if !closed(first) || us.Lost() != first {
			t.Error("the channel of a region that cannot be reached is open")
		}
	}
	m.note(us, Answered(503), true, 0) // not well yet
	if !closed(us.Lost()) {
		t.Error("503 is no answer that a request could want")
	}
	m.Report(us, Answered(200)) // on a connection that was there already
	if !closed(us.Lost()) {
		t.Error("only a probe tells that there are new connections")
	}
	m.note(us, Answered(401), true, time.Millisecond)
	if closed(us.Lost()) || !closed(first) {
		t.Error("after an answer the channel is not a new one")
	}
	if Endpoint.Lost(Endpoint{}) != nil {
		t.Error("the zero Endpoint has a channel")
	}
}
