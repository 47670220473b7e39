package token

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// After a laptop's sleep the first calls got 401: the monotonic clock stands
// still meanwhile, the wall clock does not.
func TestAfterTheMachineSleptTheTokenIsDead(t *testing.T) {
	for name, jump := range map[string]func(*instant, time.Duration){
		"the wall clock went on alone":                       func(n *instant, d time.Duration) { n.wall += int64(d) },
		"the wall clock was set back while time went on":     func(n *instant, d time.Duration) { n.mono += int64(d); n.wall -= int64(d) },
		"both clocks went on, as in a suspend that counts":   func(n *instant, d time.Duration) { n.mono += int64(d); n.wall += int64(d) },
		"the monotonic clock went on alone, set in a resume": func(n *instant, d time.Duration) { n.mono += int64(d) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var slept atomic.Bool
				f := &entra{}
				e := New(Options{Transport: f})
				e.now = func() instant {
					n := readClocks()
					if slept.Load() {
						jump(&n, 2*time.Hour)
					}
					return n
				}
				start(t, e)
				s := e.Source(contoso(), mde)
				first := mustBearer(t, s)
				synctest.Wait()
				slept.Store(true)
				if _, ok := s.Current(); ok {
					t.Fatal("the token from before the sleep was handed out")
				}
				if b := mustBearer(t, s); b == first {
					t.Error("Bearer gave the token from before the sleep")
				}
			})
		})
	}
}

func TestASleepIsNoticedByTheSchedulerItself(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var slept atomic.Bool
		f := &entra{}
		e := New(Options{Transport: f})
		e.now = func() instant {
			n := readClocks()
			if slept.Load() {
				n.wall += int64(50 * time.Minute)
			}
			return n
		}
		start(t, e)
		s := e.Source(contoso(), mde)
		mustBearer(t, s)
		synctest.Wait()
		slept.Store(true)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got := f.requests.Load(); got != 2 {
			t.Errorf("%d fetches within 31 s after a sleep past the renewal, want 2", got)
		}
	})
}

// Clocks minutes off broke assertions and lifetimes.
func TestAWrongClockOfThisMachineRefusesNoTokenAndIsMeasured(t *testing.T) {
	for _, off := range []time.Duration{-6 * time.Hour, -10 * time.Minute, 10 * time.Minute, 6 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				e := New(Options{Transport: &entra{}, Log: quiet})
				e.now = func() instant {
					n := readClocks()
					n.wall += int64(off)
					return n
				}
				start(t, e)
				s := e.Source(contoso(), mde)
				b := mustBearer(t, s)
				// The server's clock is known to the second.
				if b.life > time.Hour || b.life < time.Hour-time.Second {
					t.Errorf("the token lives %v, want an hour", b.life)
				}
				st := s.State()
				if want := -off; !st.SkewKnown || (st.Skew-want).Abs() > time.Second {
					t.Errorf("skew %v (known: %v), want %v", st.Skew, st.SkewKnown, want)
				}
			})
		})
	}
}

// A token's exp and the Date header have whole seconds, so that together they
// hide up to one. The token is dead at its exp all the same.
func TestWholeSecondsOfTheServersClockDoNotLengthenALife(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		time.Sleep(900 * time.Millisecond)
		const life = 6 * time.Second
		e := running(t, Options{Transport: &entra{respond: func(int, map[string]string) (*http.Response, error) {
			return answer(200, granted(contoso(), mde, life)), nil
		}}, Log: quiet})
		b := mustBearer(t, e.Source(contoso(), mde))
		exp := b.Claims().Expiry
		if left := time.Until(exp); left >= life {
			t.Fatalf("the token's exp is %v away: the test has lost its point", left)
		}
		now := readClocks()
		now.wall, now.mono = now.wall+int64(time.Until(exp)), now.mono+int64(time.Until(exp))
		if b.live(now) {
			t.Errorf("the token is handed out at its exp, %v", exp)
		}
	})
}
