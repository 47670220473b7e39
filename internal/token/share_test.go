package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"defender-proxy/internal/tenant"
)

func TestFiftyWaitersShareOneFetch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{delay: 3 * time.Second}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		start := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { mustBearer(t, s) })
		}
		wg.Wait()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("fifty waiters took %v, want one fetch's time: they waited in a row", took)
		}
		if got := f.requests.Load(); got != 1 {
			t.Errorf("fifty waiters made %d fetches, want 1", got)
		}
	})
}

// A waiter's cancelled context cancelled everyone's refresh (golang/oauth2#388).
func TestAWaiterWhoLeavesEndsOnlyHisOwnWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{delay: 10 * time.Second}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { // the one who began the fetch
			if _, err := s.Bearer(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*Error)) {
				t.Errorf("the waiter who left got %v, want his own deadline", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { mustBearer(t, s) })
		wg.Wait()
		if got := f.requests.Load(); got != 1 {
			t.Errorf("%d fetches, want 1", got)
		}
		if st := s.State(); st.Failures != 0 {
			t.Errorf("the waiter's leaving counts as a failure: %v", st.Error)
		}
	})
}

// Fifty clients saw 401 and each threw away the fresh token.
func TestATokenIsDroppedOnlyByThoseWhoHoldTheCurrentOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{delay: time.Second}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		refused := mustBearer(t, s)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond) // before, during and after the new fetch
				s.Invalidate(refused)
				if b := mustBearer(t, s); b == refused {
					t.Error("Bearer gave the token that was dropped")
				}
			})
		}
		wg.Wait()
		if got := f.requests.Load(); got != 2 {
			t.Errorf("fifty clients with one refused token made %d fetches, want 2", got)
		}
	})
}

func TestAnAPIThatRefusesEveryTokenCausesFiveFetchesAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		for range 600 { // a minute of ten requests a second
			s.Invalidate(mustBearer(t, s))
			time.Sleep(100 * time.Millisecond)
		}
		if got := f.requests.Load(); got != 1+maxDrops && got != maxDrops {
			t.Errorf("%d fetches in a minute, want about %d", got, maxDrops)
		}
		before := mustBearer(t, s)
		time.Sleep(dropWindow)
		s.Invalidate(before)
		if b := mustBearer(t, s); b == before {
			t.Error("a minute later the token is still not dropped")
		}
	})
}

func TestInvalidateIgnoresWhatIsNoTokenOfTheSource(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		e := running(t, Options{Transport: &entra{}})
		s := e.Source(contoso(), mde)
		s.Invalidate(nil)
		b := mustBearer(t, s)
		s.Invalidate(nil)
		s.Invalidate(&Bearer{})
		if got, ok := s.Current(); !ok || got != b {
			t.Error("a stranger's token dropped the current one")
		}
	})
}

// Tokens of two tenants were mixed in one cache.
func TestTokensOfTwoTenantsOrAudiencesOrApplicationsAreNeverMixed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		byPath := map[string]Account{}
		f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
			for id, a := range byPath {
				if form["path"] == "/"+id+"/oauth2/v2.0/token" {
					a.ClientID = form["client_id"]
					return answer(200, granted(a, form["scope"][:len(form["scope"])-len("/.default")], time.Hour)), nil
				}
			}
			return nil, errors.New("no such tenant")
		}}
		e := running(t, Options{Transport: f})
		seen := map[string]string{}
		sources := map[*Source]string{}
		for _, id := range []tenant.ID{contosoID, fabrikamID} {
			for _, app := range []string{clientID, "44444444-4444-4444-4444-444444444444"} {
				for _, audience := range []string{mde, "https://api.security.microsoft.com"} {
					a := account("t", id)
					a.ClientID = app
					byPath[string(id)] = a
					what := fmt.Sprint(id, app, audience)
					s := e.Source(a, audience)
					if other, ok := sources[s]; ok {
						t.Fatalf("%s and %s share a Source", what, other)
					}
					sources[s] = what
					b := mustBearer(t, s)
					if c := b.Claims(); c.Tenant != id || c.AppID != app || c.Audience[0] != audience {
						t.Errorf("%s got a token for %+v", what, c)
					}
					if other, ok := seen[b.Authorization()]; ok {
						t.Errorf("%s and %s got one token", what, other)
					}
					seen[b.Authorization()] = what
				}
			}
		}
		other := contoso()
		other.Cloud = "gcc-high"
		if s := e.Source(other, mde); s == e.Source(contoso(), mde) {
			t.Error("two clouds share a Source")
		}
	})
}

// One global lock stopped every tenant.
func TestATenantWhoseEntraHangsStopsNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
			if form["path"] == "/"+fabrikamID+"/oauth2/v2.0/token" {
				return nil, nil // hangs
			}
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		hanging := e.Source(account("fabrikam", fabrikamID), mde)
		var wg sync.WaitGroup
		wg.Go(func() {
			err := mustFail(t, hanging, Unreachable)
			if got, want := err.Sentence, "https://login.example.com did not answer within 15s."; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
		synctest.Wait()
		start := time.Now()
		mustBearer(t, e.Source(contoso(), mde))
		if took := time.Since(start); took != 0 {
			t.Errorf("the other tenant waited %v", took)
		}
		wg.Wait()
	})
}

// Stampedes on refresh.
func TestNoMoreFetchesRunAtOnceThanAllowedAndThoseWaitedForGoFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		f := &entra{delay: 10 * time.Second, respond: func(_ int, form map[string]string) (*http.Response, error) {
			mu.Lock()
			order = append(order, form["host"])
			mu.Unlock()
			return answer(200, granted(contoso(), form["scope"][:len(form["scope"])-len("/.default")], time.Hour)), nil
		}}
		e := running(t, Options{Transport: f, Concurrency: 4})
		var wg sync.WaitGroup
		warm := func(i int) *Source { return e.Source(contoso(), fmt.Sprintf("https://%d.example.com", i)) }
		for i := range 40 {
			wg.Go(func() { mustBearer(t, warm(i)) })
		}
		wg.Wait()
		if got := f.most.Load(); got != 4 {
			t.Errorf("%d fetches at once, want 4", got)
		}
		// All forty are due at about the same time: a hundred seconds of work for
		// four. A request for a new source comes into the middle of it.
		time.Sleep(48*time.Minute - 90*time.Second)
		synctest.Wait()
		start := time.Now()
		late := contoso()
		late.Cloud, late.Authority = "lab", "https://lab.example.com"
		mustBearer(t, e.Source(late, mde))
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("a request waited %v behind renewals", took)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if got := f.most.Load(); got != 4 {
			t.Errorf("%d fetches at once, want 4", got)
		}
		if got := f.requests.Load(); got != 81 {
			t.Errorf("%d fetches, want 81: one of each at the start, one renewal of each, and the late one", got)
		}
	})
}

func TestManyWaitersForAQueuedFetchDoNotGrowTheQueue(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		e := New(Options{Transport: &entra{}})
		s := e.Source(contoso(), mde)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { mustBearer(t, s) })
		}
		synctest.Wait()
		if got := len(e.waited); got != 1 {
			t.Errorf("the queue holds %d flights of one source", got)
		}
		start(t, e)
		wg.Wait()
	})
}

func TestBearerBeforeRunWaitsForIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		e := New(Options{Transport: &entra{}})
		s := e.Source(contoso(), mde)
		var got atomic.Pointer[Bearer]
		var wg sync.WaitGroup
		wg.Go(func() { got.Store(mustBearer(t, s)) })
		time.Sleep(time.Hour)
		if got.Load() != nil {
			t.Fatal("a token came without Run")
		}
		start(t, e)
		wg.Wait()
		if got.Load() == nil {
			t.Error("no token after Run began")
		}
	})
}

func TestWhenRunEndsEveryFetchAndWaiterHasEnded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			time.Sleep(time.Minute) // a transport that is slow to see its context end
			return nil, errors.New("cut off")
		}}
		e := New(Options{Transport: f, Log: quiet, FetchTimeout: time.Hour})
		stop := start(t, e)
		s := e.Source(contoso(), mde)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { mustFail(t, s, Stopped) })
		}
		synctest.Wait()
		stop()
		if got := f.inFlight.Load(); got != 0 {
			t.Errorf("%d fetches after Run returned", got)
		}
		wg.Wait()
		mustFail(t, s, Stopped)
		if st := s.State(); st.Failures != 0 {
			t.Errorf("the end counts as a failure: %v", st.Error)
		}
		if err := e.Run(t.Context()); err == nil {
			t.Error("a second Run was accepted")
		}
	})
}

func TestALiveTokenServesOnWhileTheProxyDrains(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		e := New(Options{Transport: &entra{}})
		stop := start(t, e)
		s := e.Source(contoso(), mde)
		b := mustBearer(t, s)
		stop()
		if got := mustBearer(t, s); got != b {
			t.Error("another token after Run ended")
		}
	})
}

func TestAPanicInAFetchIsAFailureLikeOthers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		calls := 0
		a := contoso()
		a.Credential = secret(func() (string, error) {
			if calls++; calls == 1 {
				panic("at the disco, with " + canary)
			}
			return canary, nil
		})
		e := running(t, Options{Transport: &entra{}, Log: quiet})
		s := e.Source(a, mde)
		mustFail(t, s, Internal)
		time.Sleep(time.Second)
		mustBearer(t, s)
	})
}

func TestAnEngineWithoutATransportIsRefused(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("New made an Engine without a transport")
		}
	}()
	New(Options{})
}
