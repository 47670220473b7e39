package integration

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

var (
	soakTime = flag.Duration("soak", 12*time.Second, "how long the soak test goes on; make soak gives it minutes")
	soakSeed = flag.Uint64("soak.seed", 0, "the seed of the soak test's misfortunes; 0 draws one")
)

// Entra ID has a bad day, and the callers are not to notice. It refuses
// connections, hangs, answers 503 and pages of HTML, gives tokens of other
// tenants, for other audiences, dead ones and none; it rotates its keys and
// revokes what it gave. Meanwhile 64 callers ask for alerts of three tenants,
// which prove themselves by a secret, by a secret with signatures verified, and
// by a certificate.
//
// Two things are held against each other. What arrives at the regions: not one
// request carries a token that is dead, foreign or forged. And what callers are
// told: a refusal for want of a token is right only when there was no live one.
func TestSoakNoCallerSeesAnErrorThatALiveTokenCouldHavePrevented(t *testing.T) {
	const callers = 64
	// A token is renewed when a fifth of its life is left. Of a long one that
	// leaves seconds in which a failed renewal must not be felt; a short run has
	// no time for it.
	life := 10 * time.Second
	if *soakTime >= 2*time.Minute {
		life = 45 * time.Second
	}
	// A token's life is reckoned from whole seconds of two clocks, and ends by its
	// margin sooner.
	slack := 2500*time.Millisecond + life/20
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("the seed is %d: go test -run Soak ./integration -args -soak=%v -soak.seed=%d", seed, *soakTime, seed)

	plain, verified, certificate := customer(1), customer(2), customer(3)
	tenants := []simulator.Tenant{plain, verified, certificate}
	der, file := certified(t, 365*24*time.Hour)
	certificate.Apps[0].Secrets, certificate.Apps[0].Certificates = nil, [][]byte{der}
	w := simulated(t, setup{sim: simulator.Config{Tenants: tenants, TokenLifetime: life, Delays: quick}, config: func(c object) {
		checked := bySecret()
		checked["verify_signature"] = true
		c["tenants"] = []object{
			entry(plain, bySecret()), entry(verified, checked),
			entry(certificate, object{"certificate": object{"file": "app.pem"}}),
		}
		for _, tenant := range c["tenants"].([]object) {
			tenant["regions"] = object{"allow": []string{"eu"}}
		}
	}})
	w.write("app.pem", file)
	w.process = start(t, "", w.file, secretVariable+"="+simulator.DefaultSecret)
	w.ready()

	ctx, cancel := context.WithTimeout(t.Context(), *soakTime)
	defer cancel()
	known := &held{live: make(map[string][]sighting), owner: make(map[string]string)}
	var all, watch sync.WaitGroup
	stop := make(chan struct{})
	watch.Go(func() { known.watch(w, stop) })
	all.Go(func() { misfortunes(ctx, w, rand.New(rand.NewPCG(seed, 1)), verified, known, life) })
	var asked, refused atomic.Int64
	for i := range callers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)+2))
			for ctx.Err() == nil {
				tenant := tenants[rng.IntN(len(tenants))]
				begun := time.Now()
				a, err := ask(ctx, http.MethodGet, w.url+"/t/"+tenant.Name+"/api/alerts?$top=1", "")
				ended := time.Now()
				if ctx.Err() != nil {
					return
				}
				asked.Add(1)
				code, message := a.refused()
				switch {
				case err != nil:
					t.Errorf("tenant %s: %v", tenant.Name, err)
				case a.status == http.StatusOK && a.err == nil:
				case code == "TokenUnavailable":
					refused.Add(1)
					if until := known.until(tenant.ID, begun); until.Add(-slack).After(ended) {
						t.Errorf("tenant %s was refused at %v with a token in hand that lived until %v: %s", tenant.Name, ended, until, message)
					}
				case a.status == http.StatusUnauthorized && known.revokedSince(begun.Add(-slack)):
					// Revoked, and Entra ID had no other: Microsoft's own answer.
				default:
					t.Errorf("tenant %s: %v", tenant.Name, a)
				}
				time.Sleep(time.Duration(20+rng.IntN(80)) * time.Millisecond)
			}
		})
	}
	all.Wait()
	close(stop)
	watch.Wait()

	for reason, n := range w.sim.RefusedCounts() {
		if !slices.Contains([]simulator.Refusal{simulator.RefusedMissing, simulator.RefusedRevoked}, reason) {
			t.Errorf("%d requests arrived with a token that is %s", n, reason)
		}
	}
	for _, r := range records(t, w.stdout.bytes()) {
		if owner := known.ownerOf(r.TokenUTI); r.TokenUTI != "" && owner != "" && owner != idOf(tenants, r.Tenant) {
			t.Errorf("a request for %s went out with a token of %s", r.Tenant, owner)
		}
	}
	t.Logf("%d requests, %d of them refused for want of a live token; %d tokens seen", asked.Load(), refused.Load(), known.count())
	if asked.Load() < callers || known.count() < len(tenants) {
		t.Error("too little happened for this to show anything")
	}
	// The day ends, and all is well again.
	if err := w.sim.SetEntra(simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range tenants {
		w.eventually("tenant "+tenant.Name+" works again", func() error {
			if a := w.inTenant(tenant.Name); a.status != http.StatusOK {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
	}
}

// quick has no region wait.
var quick = map[string]time.Duration{"us": 0, "eu": 0, "uk": 0, "au": 0, "swa": 0, "ina": 0, "aea": 0}

// misfortunes befall Entra ID one after the other, with good times in between.
func misfortunes(ctx context.Context, w *world, rng *rand.Rand, verified simulator.Tenant, known *held, life time.Duration) {
	lies := []simulator.FaultKind{
		simulator.FaultHTML, simulator.FaultEmpty, simulator.FaultNoToken, simulator.FaultExpiresInZero, simulator.FaultExpiresInNegative,
		simulator.FaultWrongTID, simulator.FaultWrongAudience, simulator.FaultExpired, simulator.FaultNotJWT, simulator.FaultHuge,
	}
	pause := func(most time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.Int64N(int64(most)))):
		}
	}
	set := func(f simulator.Fault) {
		if err := w.sim.SetEntra(f); err != nil {
			w.t.Error(err)
		}
	}
	for ctx.Err() == nil {
		switch rng.IntN(8) {
		case 0:
			set(simulator.Fault{Kind: simulator.FaultRefuse})
		case 1:
			set(simulator.Fault{Kind: simulator.FaultHang})
		case 2:
			set(simulator.Fault{Kind: simulator.FaultStatus, Status: 503})
		case 3: // it flaps
			for range 5 {
				set(simulator.Fault{Kind: simulator.FaultStatus, Status: 500, Count: 2})
				pause(life / 20)
				set(simulator.Fault{Kind: simulator.FaultReset, Count: 1})
				pause(life / 20)
			}
		case 4:
			if err := w.sim.RotateSigningKey(); err != nil {
				w.t.Error(err)
			}
		case 5:
			known.revoke(w.sim)
		case 6: // forged, for the tenant that looks
			set(simulator.Fault{Kind: simulator.FaultWrongKey, Match: "/" + verified.ID})
		default:
			set(simulator.Fault{Kind: lies[rng.IntN(len(lies))]})
		}
		pause(life / 2)
		set(simulator.Fault{})
		pause(life / 6)
	}
}

// held is what is known of the tokens that the proxy has shown to be in its
// hands.
type held struct {
	mu      sync.Mutex
	live    map[string][]sighting // by tenant
	owner   map[string]string     // uti → tenant
	revoked time.Time
}

// sighting is a token in use: since when, and how long it may be.
type sighting struct{ first, expires time.Time }

// watch gathers from what arrives at the regions, often enough that none of it
// is forgotten there.
func (h *held) watch(w *world, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(100 * time.Millisecond):
		}
		for _, r := range w.sim.Requests() {
			if r.Token == nil || r.Status != http.StatusOK {
				continue
			}
			h.mu.Lock()
			if _, ok := h.owner[r.Token.ID]; !ok && r.Time.After(h.revoked) {
				h.live[r.Token.Tenant] = append(h.live[r.Token.Tenant], sighting{first: r.Time, expires: r.Token.Expires})
			}
			h.owner[r.Token.ID] = r.Token.Tenant
			h.mu.Unlock()
		}
	}
}

// revoke ends all tokens that are out.
func (h *held) revoke(sim *simulator.Simulator) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sim.Revoke()
	clear(h.live)
	h.revoked = time.Now()
}

// until is when the last of a tenant's tokens ends that were in use before
// begun; the zero time where there is none.
func (h *held) until(tenant string, begun time.Time) (last time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.live[tenant] {
		if s.first.Before(begun) && s.expires.After(last) {
			last = s.expires
		}
	}
	return last
}

func (h *held) revokedSince(t time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revoked.After(t)
}

func (h *held) ownerOf(uti string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.owner[uti]
}

func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.owner)
}

func idOf(tenants []simulator.Tenant, name string) string {
	for _, t := range tenants {
		if t.Name == name {
			return t.ID
		}
	}
	return ""
}
