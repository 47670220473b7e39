package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
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
func TestARefusedTokenIsReplacedOnceHoweverManySawTheRefusal(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{delay: time.Second}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		refused := mustBearer(t, s)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond) // before, during and after the new fetch
				if b := mustReplace(t, s, refused); b == refused {
					t.Error("the token that was refused came again")
				}
			})
		}
		wg.Wait()
		if got := f.requests.Load(); got != 2 {
			t.Errorf("fifty clients with one refused token made %d fetches, want 2", got)
		}
	})
}

// One operation that refuses a token is no reason to leave everybody else
// without one while Entra ID is away.
func TestARefusedTokenServesTheOthersUntilItsSuccessorHasCome(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var down atomic.Bool
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			if down.Load() {
				return answer(503, "down"), nil
			}
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}}
		s := running(t, Options{Transport: f, Log: quiet}).Source(contoso(), mde)
		refused := mustBearer(t, s)
		down.Store(true)
		var failure *Error
		if b, err := s.Replace(t.Context(), refused, ""); !errors.As(err, &failure) || failure.Kind != Unavailable {
			t.Errorf("Replace gave %v, %v", b, err)
		}
		if b := mustBearer(t, s); b != refused {
			t.Error("the others lost their token")
		}
		down.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if b := mustBearer(t, s); b != refused {
			t.Log("the background has replaced it meanwhile")
		}
		if b := mustReplace(t, s, refused); b == refused {
			t.Error("there is still no successor")
		}
	})
}

func TestAnAPIThatRefusesEveryTokenCausesFewFetches(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{}
		e := running(t, Options{Transport: f})
		s := e.Source(contoso(), mde)
		b := mustBearer(t, s)
		for range 36000 { // an hour of ten requests a second
			b = mustReplace(t, s, b)
			time.Sleep(100 * time.Millisecond)
		}
		if got := f.requests.Load(); got < 1+maxReplaced+28 || got > 1+maxReplaced+32 {
			t.Errorf("%d fetches in an hour, want five at once and one more each two minutes", got)
		}
		time.Sleep(time.Hour)
		for range maxReplaced {
			next := mustReplace(t, s, b)
			if next == b {
				t.Error("after an hour of rest the token is still not replaced")
			}
			b = next
		}
	})
}

func TestReplaceGivesTheCurrentTokenForOneThatIsNotTheSources(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{}
		s := running(t, Options{Transport: f}).Source(contoso(), mde)
		b := mustBearer(t, s)
		for _, foreign := range []*Bearer{nil, {}} {
			if got := mustReplace(t, s, foreign); got != b || f.requests.Load() != 1 {
				t.Errorf("a stranger's token replaced the current one: %d fetches", f.requests.Load())
			}
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
		late.Cloud = "lab" // of the same authority
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

// A hundred tenants whose credential hangs, one dead Key Vault is enough, and
// whose callers ask without end.
func TestRenewalsAreNotStarvedByTenantsThatHang(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		e := running(t, Options{Transport: &entra{}, Log: quiet})
		good := e.Source(contoso(), mde)
		mustBearer(t, good)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 120 {
			a := contoso()
			a.ClientID, a.Credential = fmt.Sprint(i), hanging{}
			s := e.Source(a, mde)
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _ = s.Bearer(ctx)
					time.Sleep(time.Second)
				}
			})
		}
		for ctx.Err() == nil {
			asked, stop := context.WithTimeout(ctx, time.Second)
			if _, err := good.Bearer(asked); err != nil && ctx.Err() == nil {
				t.Fatalf("a caller of the good tenant: %v", err)
			}
			stop()
			time.Sleep(10 * time.Second)
		}
		if st := good.State(); st.Fetches < 3 || st.Failures > 0 {
			t.Errorf("in two hours there were %d fetches for the good tenant, %d failed", st.Fetches, st.Failures)
		}
		fresh := contoso()
		fresh.Cloud = "lab"
		begun := time.Now()
		mustBearer(t, e.Source(fresh, mde))
		if took := time.Since(begun); took > time.Second {
			t.Errorf("a new tenant waited %v", took)
		}
		wg.Wait()
	})
}

func TestARenewalThatIsNeededGoesBeforeAThousandThatAreNot(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{delay: 5 * time.Second, respond: func(_ int, form map[string]string) (*http.Response, error) {
			return answer(200, granted(contoso(), strings.TrimSuffix(form["scope"], "/.default"), time.Hour)), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet, Concurrency: 2})
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() { _, _ = e.Source(contoso(), fmt.Sprintf("https://%d.example.com", i)).Bearer(t.Context()) })
		}
		wg.Wait()
		used := e.Source(contoso(), mde)
		mustBearer(t, used)
		for range 26 * 60 { // over two rounds of looks at idle tenants, of forty minutes each
			time.Sleep(time.Minute)
			if _, ok := used.Current(); !ok {
				t.Fatal("the token in use died while idle ones were looked at")
			}
		}
	})
}

func TestATenantThatFailedInAnOutageIsFoundWellWithoutAnybodysAsking(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var down atomic.Bool
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			if down.Load() {
				return answer(503, "down"), nil
			}
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}}
		s := running(t, Options{Transport: f, Log: quiet}).Source(contoso(), mde)
		mustBearer(t, s)
		time.Sleep(11 * time.Hour)
		down.Store(true) // over the look that is due after twelve
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if st := s.State(); st.Error == nil {
			t.Fatal("the outage was not met: the test shows nothing")
		}
		down.Store(false)
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if st := s.State(); st.Error != nil {
			t.Errorf("a quarter of an hour after the outage the tenant is still held to be failing: %v", st.Error)
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
		if got := len(e.queue); got != 1 {
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
