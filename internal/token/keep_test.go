package token

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheTokensOfATenantThatWasTakenOutAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
			a := contoso()
			if form["path"] == "/"+fabrikamID+"/oauth2/v2.0/token" {
				a.Tenant = fabrikamID
			}
			return answer(200, granted(a, mde, time.Hour)), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet})
		kept, removed := e.Source(contoso(), mde), e.Source(account("fabrikam", fabrikamID), mde)
		before := mustBearer(t, kept)
		mustBearer(t, removed)
		e.Keep([]*Source{kept})
		if _, ok := removed.Current(); ok {
			t.Error("the token of the tenant that was taken out is still handed out")
		}
		mustFail(t, removed, Stopped)
		if b := mustBearer(t, kept); b != before {
			t.Error("the other tenant lost its token")
		}
		requests := f.requests.Load()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if f.requests.Load() != requests {
			t.Error("something was fetched for the tenant that was taken out")
		}
		again := e.Source(account("fabrikam", fabrikamID), mde)
		if again == removed {
			t.Error("the tenant that came back has the old source")
		}
		mustBearer(t, again)
		mustFail(t, removed, Stopped)
	})
}

func TestWhoWaitsForATenantThatIsTakenOutLeavesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{delay: 10 * time.Second}
		e := running(t, Options{Transport: f, Log: quiet, Concurrency: 1})
		flying, queued := e.Source(contoso(), mde), e.Source(contoso(), "https://graph.microsoft.com")
		var wg sync.WaitGroup
		begun := time.Now()
		for _, s := range []*Source{flying, queued} {
			wg.Go(func() {
				var failure *Error
				if _, err := s.Bearer(t.Context()); !errors.As(err, &failure) || failure.Kind != Stopped {
					t.Errorf("got %v", err)
				}
				if took := time.Since(begun); took != time.Second {
					t.Errorf("it waited %v", took)
				}
			})
			synctest.Wait()
		}
		time.Sleep(time.Second)
		e.Keep(nil)
		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, ok := flying.Current(); ok || f.requests.Load() != 1 {
			t.Errorf("the fetch that was under way left a token, or the queued one began: %d requests", f.requests.Load())
		}
		// Its place is free again.
		f.delay = 0
		mustBearer(t, e.Source(contoso(), mde))
	})
}

func TestKeepForgetsWarningsAndAuthoritiesOfThoseThatLeft(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		e := running(t, Options{Transport: &entra{}, Log: quiet, Concurrency: 4})
		gov := contoso()
		gov.Name, gov.Authority, gov.Cloud, gov.Credential = "gov", "https://login.gov.example", "gov", ended{}
		stays := e.Source(contoso(), mde)
		mustBearer(t, e.Source(gov, mde))
		synctest.Wait()
		e.mu.Lock()
		if !e.several || len(e.warned) != 1 {
			t.Errorf("several authorities: %v, warned %v", e.several, e.warned)
		}
		e.mu.Unlock()
		e.Keep([]*Source{stays})
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.several || len(e.warned) != 0 || len(e.sources) != 1 {
			t.Errorf("after Keep: several authorities: %v, warned %v, %d sources", e.several, e.warned, len(e.sources))
		}
	})
}

// ended is a secret past its end that Entra ID takes all the same.
type ended struct{ secretFor }

func (ended) Health() Health { return Health{Kind: "client_secret", Expires: time.Unix(1, 0)} }

type secretFor struct{}

func (secretFor) Proofs(context.Context, Ask) ([]Proof, error) {
	return []Proof{secretProof("client secret", canary)}, nil
}

// One global lock stopped every tenant (Grafana's generic token provider).
func TestAnAuthorityThatHangsLeavesPlacesToTheOthers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
			if form["host"] == "login.gov.example" {
				return nil, nil // never
			}
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}}
		e := running(t, Options{Transport: f, Log: quiet, Concurrency: 8})
		gov := contoso()
		gov.Authority, gov.Cloud = "https://login.gov.example", "gov"
		good := e.Source(contoso(), mde)
		var wg sync.WaitGroup
		for i := range 100 {
			a := gov
			a.ClientID = string(rune('a'+i%26)) + string(rune('a'+i/26))
			wg.Go(func() { _, _ = e.Source(a, mde).Bearer(t.Context()) })
		}
		synctest.Wait()
		start := time.Now()
		mustBearer(t, good)
		if took := time.Since(start); took != 0 {
			t.Errorf("the other authority's tenant waited %v", took)
		}
		if most := f.most.Load(); most > 7 {
			t.Errorf("%d at once with one authority hanging", most)
		}
		wg.Wait()
	})
}
