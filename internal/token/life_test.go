package token

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestATokenIsRenewedWhenAFifthOfItsLifeIsLeft(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{}
		e := running(t, Options{Transport: f, Log: quiet})
		s := e.Source(contoso(), mde)
		first := mustBearer(t, s)

		time.Sleep(48*time.Minute - time.Second)
		synctest.Wait()
		if got := f.requests.Load(); got != 1 {
			t.Fatalf("%d fetches before four fifths of the life, want 1", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		second, ok := s.Current()
		if !ok || second == first || f.requests.Load() != 2 {
			t.Fatalf("no new token after four fifths of the life: %d fetches", f.requests.Load())
		}
	})
}

func TestRenewalIsSpreadByJitter(t *testing.T) {
	for _, c := range []struct {
		rand float64
		want time.Duration
	}{
		{0, 48*time.Minute + 72*time.Second},
		{0.5, 48 * time.Minute},
		{1, 48*time.Minute - 72*time.Second},
	} {
		inBubble(t, func(t *testing.T) {
			e := running(t, Options{Transport: &entra{}, Rand: func() float64 { return c.rand }})
			s := e.Source(contoso(), mde)
			mustBearer(t, s)
			if got := time.Until(s.State().NextFetch); got != c.want {
				t.Errorf("with rand %v the next fetch is in %v, want %v", c.rand, got, c.want)
			}
		})
	}
}

// A refresh that failed once ended the refresh loop for good: flap the
// provider, then expect renewal. Expired tokens kept being injected while it
// was down. Both over a day of fake time, with a request a minute.
func TestAFlappingProviderEndsNeitherRenewalNorLetsADeadTokenOut(t *testing.T) {
	const seed = 20261107
	inBubble(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 1)) // the test's own
		var mu sync.Mutex                     // guards what follows
		answers := rand.New(rand.NewPCG(seed, 2))
		healthy := true
		deaths := make(map[string]time.Time) // by Authorization
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if !healthy {
				switch answers.IntN(6) {
				case 0:
					return nil, errors.New("connection refused")
				case 1:
					return answer(503, map[string]any{}), nil
				case 2:
					return nil, nil // hangs
				case 3:
					return refusal(400, "90033", "A transient error has occurred."), nil
				case 4:
					panic("the transport panics")
				default:
					return answer(200, map[string]any{}), nil
				}
			}
			a := granted(contoso(), mde, time.Hour)
			deaths["Bearer "+a["access_token"].(string)] = time.Now().Add(time.Hour)
			return answer(200, a), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet, Rand: rand.Float64})
		s := e.Source(contoso(), mde)
		mustBearer(t, s)

		outage, missing := 0, 0
		for range 24 * 60 {
			time.Sleep(time.Minute)
			mu.Lock()
			switch {
			case healthy && rng.IntN(30) == 0:
				healthy, outage = false, 1+rng.IntN(90)
			case !healthy:
				if outage--; outage == 0 {
					healthy = true
				}
			}
			mu.Unlock()
			b, err := s.Bearer(t.Context())
			if err != nil {
				missing++
				continue
			}
			mu.Lock()
			left := time.Until(deaths[b.Authorization()])
			mu.Unlock()
			if left < 30*time.Second {
				t.Fatalf("seed %d: a token with %v left was handed out", seed, left)
			}
		}
		mu.Lock()
		healthy = true
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, ok := s.Current(); !ok {
			t.Errorf("seed %d: no token two minutes after the provider came back", seed)
		}
		st := s.State()
		if st.Failures == 0 || missing == 0 {
			t.Errorf("seed %d: the provider never failed (%d failures, %d requests without a token): the test shows nothing", seed, st.Failures, missing)
		}
		before := f.requests.Load()
		time.Sleep(49 * time.Minute)
		if f.requests.Load() == before {
			t.Errorf("seed %d: renewal has ended", seed)
		}
	})
}

func TestTheOldTokenServesUntilItIsDeadAndNotASecondLonger(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(n int, _ map[string]string) (*http.Response, error) {
			if n > 1 {
				return answer(503, map[string]any{}), nil
			}
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		s := e.Source(contoso(), mde)
		first := mustBearer(t, s)

		time.Sleep(time.Hour - 30*time.Second - time.Nanosecond)
		if b := mustBearer(t, s); b != first {
			t.Fatal("another token than the first")
		}
		time.Sleep(time.Nanosecond)
		if _, ok := s.Current(); ok {
			t.Error("Current hands out a token within its last 30 s")
		}
		mustFail(t, s, Unavailable)
		if s.State().Live {
			t.Error("State calls the dead token live")
		}
	})
}

func TestTheMarginOfAShortLifeIsATwentieth(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			return answer(200, granted(contoso(), mde, 100*time.Second)), nil
		}}
		e := New(Options{Transport: f})
		stop := start(t, e)
		s := e.Source(contoso(), mde)
		mustBearer(t, s)
		stop()
		time.Sleep(95*time.Second - time.Nanosecond)
		if _, ok := s.Current(); !ok {
			t.Error("no token before the last twentieth of its life")
		}
		time.Sleep(time.Nanosecond)
		if _, ok := s.Current(); ok {
			t.Error("a token within the last twentieth of its life")
		}
	})
}

func TestLifeCountsFromBeforeTheRequestWasSent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		// The token was made when the request arrived, the answer took ten seconds.
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			a := granted(contoso(), mde, time.Hour)
			time.Sleep(10 * time.Second)
			return answer(200, a), nil
		}}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		sent := time.Now()
		b := mustBearer(t, s)
		if got, want := b.Expires(), sent.Add(time.Hour); !got.Equal(want) {
			t.Errorf("the token expires at %v, want %v", got, want)
		}
	})
}

func TestASourceThatNobodyUsesIsLetLapseAndTheNextRequestFetches(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		mustBearer(t, s)
		// The first token was used, so it is renewed; the second never is.
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if got := f.requests.Load(); got != 2 {
			t.Fatalf("%d fetches in five hours with one request, want 2", got)
		}
		if st := s.State(); st.Live || !st.NextFetch.IsZero() {
			t.Errorf("after five idle hours the state is %+v", st)
		}
		mustBearer(t, s)
		if got := f.requests.Load(); got != 3 {
			t.Errorf("%d fetches after the next request, want 3", got)
		}
	})
}

func TestTheFirstUseInTheLastFifthOfALifeRenews(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		mustBearer(t, s)
		time.Sleep(48*time.Minute + 55*time.Minute) // seven minutes into the last fifth of the second
		synctest.Wait()
		second, ok := s.Current()
		if !ok || f.requests.Load() != 2 {
			t.Fatalf("the second token is not there: %v, %d fetches", ok, f.requests.Load())
		}
		synctest.Wait()
		if third, ok := s.Current(); !ok || third == second {
			t.Errorf("using the token did not renew it: %d fetches", f.requests.Load())
		}
	})
}

func TestTheBackgroundGivesUpOnASourceThatNobodyAsksAnHourAfterTheLastUse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			return refusal(401, "7000215", "Invalid client secret provided."), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		s := e.Source(contoso(), mde)
		mustFail(t, s, Rejected)
		time.Sleep(idleAfter + time.Minute)
		synctest.Wait()
		after := f.requests.Load()
		if after < 60 {
			t.Errorf("%d fetches in the hour after the request, want one a minute", after)
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if got := f.requests.Load() - after; got < 24*6 || got > 27*6 {
			t.Errorf("%d fetches in a day without a request, want one each ten minutes, to find the secret mended", got)
		}
	})
}

func TestFailuresPauseOneSecondDoublingToAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var at []time.Time
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			at = append(at, time.Now())
			return answer(500, map[string]any{}), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet, Rand: func() float64 { return 0 }})
		s := e.Source(contoso(), mde)
		mustFail(t, s, Unavailable)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}
		for i, w := range want {
			if i+1 >= len(at) {
				t.Fatalf("only %d fetches in five minutes", len(at))
			}
			if got := at[i+1].Sub(at[i]); got != w*time.Second {
				t.Errorf("pause %d is %v, want %v", i+1, got, w*time.Second)
			}
		}
	})
}

func TestASuccessEndsTheRowOfFailures(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			if broken.Load() {
				return answer(500, map[string]any{}), nil
			}
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		s := e.Source(contoso(), mde)
		mustFail(t, s, Unavailable)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := s.State(); st.FailuresInRow != 4 || st.Failures != 4 || st.Error == nil {
			t.Fatalf("state after ten bad seconds: %+v", st)
		}
		broken.Store(false)
		time.Sleep(10 * time.Second)
		first := mustBearer(t, s)
		if st := s.State(); st.FailuresInRow != 0 || st.Failures != 4 || st.Fetches != 5 || st.Error != nil || !st.Live {
			t.Errorf("state after the success: %+v", st)
		}
		broken.Store(true)
		var failure *Error
		if _, err := s.Replace(t.Context(), first, ""); !errors.As(err, &failure) {
			t.Fatalf("Replace gave %v", err)
		}
		if got, want := failure.RetryAfter, 900*time.Millisecond; got != want {
			t.Errorf("the first pause of a new row is %v, want %v", got, want)
		}
	})
}

func TestATokenThatDiedOnTheWayIsNeitherHandedOutNorFetchedAgainAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			a := granted(contoso(), mde, 10*time.Second)
			time.Sleep(12 * time.Second)
			return answer(200, a), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		mustFail(t, e.Source(contoso(), mde), BadAnswer)
		if got := f.requests.Load(); got != 1 {
			t.Errorf("%d fetches, want 1", got)
		}
	})
}

func TestATokenThatNobodyWaitedForAnyMoreIsLetLapse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{delay: 5 * time.Second}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Bearer(ctx); err == nil {
			t.Fatal("a token before the answer")
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if got := f.requests.Load(); got != 1 {
			t.Errorf("%d fetches for a token that nobody used, want 1", got)
		}
	})
}

func TestRetryAfterOfEntraIsHonouredUpToFiveMinutes(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"120":                           2 * time.Minute,
		"86400":                         5 * time.Minute,
		"99999999999999999999":          5 * time.Minute,
		"-5":                            900 * time.Millisecond,
		"soon":                          900 * time.Millisecond,
		"Sat, 01 Jan 2000 00:03:00 GMT": 3 * time.Minute,
	} {
		t.Run(value, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
					r := answer(429, map[string]any{})
					r.Header.Set("Retry-After", value)
					return r, nil
				}}
				e := running(t, Options{Transport: f, Log: quiet})
				s := e.Source(contoso(), mde)
				if got := mustFail(t, s, Unavailable).RetryAfter; got != want {
					t.Errorf("RetryAfter is %v, want %v", got, want)
				}
				e.Source(contoso(), mde) // configuration is applied again
				time.Sleep(want - time.Nanosecond)
				synctest.Wait()
				if got := f.requests.Load(); got != 1 {
					t.Errorf("%d fetches before %v had passed", got, want)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if got := f.requests.Load(); got != 2 {
					t.Errorf("%d fetches after %v, want 2", got, want)
				}
			})
		})
	}
}

func TestCallersDuringAPauseGetTheFailureAtOnceAndCauseNoFetch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			return answer(500, map[string]any{}), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		s := e.Source(contoso(), mde)
		mustFail(t, s, Unavailable)
		start := time.Now()
		for range 1000 {
			mustFail(t, s, Unavailable)
		}
		if took := time.Since(start); took != 0 || f.requests.Load() != 1 {
			t.Errorf("1000 callers took %v and caused %d fetches, want none of either", took, f.requests.Load()-1)
		}
		time.Sleep(500 * time.Millisecond)
		if got, want := mustFail(t, s, Unavailable).RetryAfter, 400*time.Millisecond; got != want {
			t.Errorf("half a second into the pause RetryAfter is %v, want %v", got, want)
		}
	})
}

func TestApplyingConfigurationAgainShortensAPauseAndUsesTheNewSecret(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
			if form["client_secret"] != "new" {
				return refusal(401, "7000215", "Invalid client secret provided."), nil
			}
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		s := e.Source(contoso(), mde)
		mustFail(t, s, Rejected)
		time.Sleep(2 * time.Minute) // the pause is a minute by now
		synctest.Wait()
		a := contoso()
		a.Credential = secret(func() (string, error) { return "new", nil })
		if again := e.Source(a, mde); again != s {
			t.Fatal("the same account and audience have another Source")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if b, ok := s.Current(); !ok {
			t.Errorf("no token a second after the secret was mended: %v", s.State().Error)
		} else if b.Claims().Tenant != contosoID {
			t.Errorf("token of tenant %v", b.Claims().Tenant)
		}
	})
}

func TestTheSecretIsReadForEachFetch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var sent []string
		f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
			sent = append(sent, form["client_secret"])
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}}
		e := running(t, Options{Transport: f})
		reads := 0
		a := contoso()
		a.Credential = secret(func() (string, error) { reads++; return fmt.Sprintf("secret %d", reads), nil })
		s := e.Source(a, mde)
		mustBearer(t, s)
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		if len(sent) != 2 || sent[0] != "secret 1" || sent[1] != "secret 2" {
			t.Errorf("Entra got %q, want the secret as it stood at each fetch", sent)
		}
	})
}

func TestAReloadShortensOurOwnPauseAndNotWhatEntraAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(n int, _ map[string]string) (*http.Response, error) {
			r := answer(503, "down")
			if n == 8 { // our own pause is longer by now
				r.Header.Set("Retry-After", "40")
			}
			return r, nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		s := e.Source(contoso(), mde)
		mustFail(t, s, Unavailable)
		for f.requests.Load() < 8 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		e.Source(contoso(), mde)
		time.Sleep(38 * time.Second)
		synctest.Wait()
		if got := f.requests.Load(); got != 8 {
			t.Errorf("%d requests, before the 40 s were over that Entra ID asked for", got)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := f.requests.Load(); got != 9 {
			t.Errorf("%d requests once they were over, want 9", got)
		}
	})
}

// "Do not try often: Entra ID locks the account."
func TestAWrongPasswordIsTriedFourTimesAnHour(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			return refusal(400, "50126", "Invalid username or password."), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		s := e.Source(contoso(), mde)
		for range 60 {
			_ = mustFail(t, s, Rejected)
			time.Sleep(time.Minute)
		}
		if got := f.requests.Load(); got > 5 {
			t.Errorf("%d tries in an hour", got)
		}
		time.Sleep(5 * time.Minute) // well between two tries
		synctest.Wait()
		before := f.requests.Load()
		e.Source(contoso(), mde) // the password may have been mended
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := f.requests.Load(); got != before+1 {
			t.Errorf("%d tries after the configuration was applied again, want one", got-before)
		}
	})
}

func TestADeadTokenIsLetGo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := running(t, Options{Transport: &entra{}, Log: quiet}).Source(contoso(), mde)
		mustBearer(t, s)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		s.engine.mu.Lock()
		defer s.engine.mu.Unlock()
		if s.current.Load() != nil || s.last.header != nil || s.last.claims != nil {
			t.Error("a token that nobody uses is kept after its death")
		}
	})
}
