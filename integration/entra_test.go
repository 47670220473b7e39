package integration

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// Entra ID, or what answers in its place, talks nonsense from the start: pages
// of HTML, tokens of others, nothing at all. Callers get a sentence and when to
// come again; the operator gets the reason from readiness and the record; no
// request leaves without a token or with one that is not fit. When Entra comes to its senses, so does the proxy,
// without a restart.
func TestWhenEntraTalksNonsenseTheCallerGetsASentence(t *testing.T) {
	t.Parallel()
	const notAToken, unreachable = "something that is not a token", "Entra ID cannot be reached"
	for _, tc := range []struct {
		name   string
		fault  simulator.Fault
		told   string // to the caller
		reason string // for the operator
	}{
		{"a sign-in page", simulator.Fault{Kind: simulator.FaultHTML}, notAToken, "not a token"},
		{"an empty 200", simulator.Fault{Kind: simulator.FaultEmpty}, notAToken, "not a token"},
		{"a 200 without a token", simulator.Fault{Kind: simulator.FaultNoToken}, notAToken, "token"},
		{"a life of nothing", simulator.Fault{Kind: simulator.FaultExpiresInZero}, notAToken, "expires_in is not above zero"},
		{"a life of less than nothing", simulator.Fault{Kind: simulator.FaultExpiresInNegative}, notAToken, "expires_in is not above zero"},
		{"another tenant's token", simulator.Fault{Kind: simulator.FaultWrongTID}, notAToken, "tenant"},
		{"another resource's token", simulator.Fault{Kind: simulator.FaultWrongAudience}, notAToken, "audience"},
		{"a token that has expired", simulator.Fault{Kind: simulator.FaultExpired}, notAToken, "expired"},
		{"a token that is no JWT", simulator.Fault{Kind: simulator.FaultNotJWT}, notAToken, "not with a token"},
		{"a secret that has expired", simulator.Fault{Kind: simulator.FaultAADSTS, Code: 7000222}, "AADSTS7000222", "AADSTS7000222"},
		{"an access policy", simulator.Fault{Kind: simulator.FaultAADSTS, Code: 53003}, "AADSTS53003", "AADSTS53003"},
		{"a code that nobody knows", simulator.Fault{Kind: simulator.FaultAADSTS, Code: 999999}, "AADSTS999999", "AADSTS999999"},
		{"64 MiB of JSON", simulator.Fault{Kind: simulator.FaultHuge}, notAToken, "more than 256 KiB"},
		{"a redirect elsewhere", simulator.Fault{Kind: simulator.FaultRedirect, Location: "https://login.evil.example/"}, notAToken, "redirect"},
		{"500", simulator.Fault{Kind: simulator.FaultStatus, Status: 500}, "answered 500", "answered 500"},
		{"429 with a Retry-After", simulator.Fault{Kind: simulator.FaultStatus, Status: 429, RetryAfter: "2"}, "answered 429", "answered 429"},
		{"a closed port", simulator.Fault{Kind: simulator.FaultRefuse}, unreachable, "cannot be reached"},
		{"a reset", simulator.Fault{Kind: simulator.FaultReset}, unreachable, "cannot be reached"},
		{"a failing handshake", simulator.Fault{Kind: simulator.FaultTLS}, unreachable, "cannot be reached"},
		{"silence", simulator.Fault{Kind: simulator.FaultHang}, unreachable, "did not answer within 15s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{unready: true, before: func(sim *simulator.Simulator) {
				if err := sim.SetEntra(tc.fault); err != nil {
					t.Fatal(err)
				}
			}})
			a := w.get("/api/alerts")
			code, message := a.refused()
			if a.status != http.StatusServiceUnavailable || code != "TokenUnavailable" || !a.ours() || a.header.Get("Retry-After") == "" {
				t.Errorf("got %v", a)
			}
			if !strings.HasPrefix(message, "There is no token for tenant contoso: ") || !strings.Contains(message, tc.told) {
				t.Errorf("the sentence is %q, and should say %q", message, tc.told)
			}
			if rs := w.recordsOf(a); len(rs) != 1 || !strings.Contains(rs[0].Reason, tc.reason) {
				t.Errorf("the record does not give the reason %q: %+v", tc.reason, rs)
			}
			ready := w.get(w.admin + "/-/ready")
			if ready.status != http.StatusServiceUnavailable || !strings.Contains(string(ready.body), `"ready":false`) || !strings.Contains(string(ready.body), `"reason":"`) {
				t.Errorf("readiness: %v", ready)
			}
			// Where Entra is silent the next question for a token may be under way.
			if tc.fault.Kind != simulator.FaultHang && !strings.Contains(string(ready.body), tc.reason) {
				t.Errorf("readiness does not give the reason: %v", ready)
			}
			if arrived := w.upstream(); len(arrived) != 0 {
				t.Errorf("without a token there arrived %+v", arrived)
			}
			if err := w.sim.SetEntra(simulator.Fault{}); err != nil {
				t.Fatal(err)
			}
			w.ready()
			if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
				t.Errorf("with Entra back: %v", a)
			}
		})
	}
}

// Entra ID goes down in the middle of the day. Whoever has a live token keeps
// working; when it dies the proxy refuses, and never sends a dead one.
func TestALiveTokenServesWhileEntraIsDownAndNotASecondLonger(t *testing.T) {
	t.Parallel()
	const life = 8 * time.Second
	w := newWorld(t, setup{sim: simulator.Config{TokenLifetime: life}})
	if err := w.sim.SetEntra(simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	served := 0
	w.eventually("the last token is dead", func() error {
		a := w.get("/api/alerts?$top=1")
		if code, _ := a.refused(); code == "TokenUnavailable" {
			return nil
		}
		if a.status != http.StatusOK {
			t.Fatalf("neither an answer nor that refusal: %v", a)
		}
		served++
		return fmt.Errorf("it still serves, %d requests since Entra went down", served)
	})
	if took := time.Since(down); served < 10 || took > life+time.Second {
		t.Errorf("%d requests were served, and the refusal came %v after Entra went down; a token lives %v", served, took, life)
	}
	for _, r := range w.upstream() {
		if r.Status != http.StatusOK {
			t.Errorf("a dead token was sent: %+v", r)
		}
	}
	if err := w.sim.SetEntra(simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	w.ready()
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
		t.Errorf("with Entra back: %v", a)
	}
}

// The token is renewed before it dies, so that a caller who asks all the time
// meets no gap and no delay.
func TestTokensAreRenewedAheadOfTheirDeath(t *testing.T) {
	t.Parallel()
	const life = 5 * time.Second
	w := newWorld(t, setup{sim: simulator.Config{TokenLifetime: life}})
	w.eventually("three tokens have been used", func() error {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
			t.Fatalf("a gap: %v", a)
		}
		tokens := make(map[string]bool)
		for _, r := range w.upstream() {
			tokens[r.Header.Get("Authorization")] = true
		}
		if len(tokens) < 3 {
			return fmt.Errorf("there were %d", len(tokens))
		}
		return nil
	})
	for _, r := range w.upstream() {
		if r.Status != http.StatusOK {
			t.Errorf("a dead token was sent: %+v", r)
		}
	}
}

// The operator pasted the secret's id instead of its value. Callers read that;
// the operator corrects the file, and within seconds all is well, without a
// restart.
func TestAWrongSecretInAFileHealsWhenItIsCorrected(t *testing.T) {
	t.Parallel()
	w := simulated(t, setup{config: func(c object) {
		c["tenants"].([]object)[0]["credential"].(object)["client_secret"] = object{"file": "contoso.secret"}
	}})
	const wrong = "the-id-of-a-secret-and-not-its-value"
	file := w.write("contoso.secret", []byte(wrong+"\n"))
	w.process = start(t, "debug", w.file)
	a := w.get("/api/alerts")
	code, message := a.refused()
	if a.status != http.StatusServiceUnavailable || code != "TokenUnavailable" || !strings.Contains(message, "AADSTS7000215") {
		t.Errorf("with a wrong secret: %v", a)
	}
	if err := os.WriteFile(file, []byte(simulator.DefaultSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.ready()
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
		t.Errorf("with the right one: %v", a)
	}
	for _, secret := range []string{wrong, simulator.DefaultSecret} {
		if strings.Contains(w.stderr.String()+w.stdout.String()+string(a.body), secret) {
			t.Errorf("a secret was shown")
		}
	}
}

// An administrator revokes every session. Fifty callers meet 401 at once; one
// new token is fetched, and none of the fifty sees anything.
func TestRevokedTokensAreRenewedOnceForAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	key := simulator.Issued{Tenant: simulator.DefaultTenantID, App: simulator.DefaultClientID, Audience: "https://api.securitycenter.microsoft.com"}
	if got := w.sim.Issued()[key]; got != 1 {
		t.Fatalf("%d tokens were issued for one audience", got)
	}
	w.sim.Revoke()
	var callers sync.WaitGroup
	answers := make([]answer, 50)
	for i := range answers {
		callers.Go(func() { answers[i] = w.get("/api/alerts?$top=1") })
	}
	callers.Wait()
	if i := slices.IndexFunc(answers, func(a answer) bool { return a.status != http.StatusOK }); i >= 0 {
		t.Errorf("caller %d got %v", i, answers[i])
	}
	if got := w.sim.Issued()[key]; got != 2 {
		t.Errorf("%d tokens were issued, want one more", got)
	}
	refused := slices.DeleteFunc(w.upstream(), func(r simulator.Request) bool { return r.Status != http.StatusUnauthorized })
	if len(refused) == 0 {
		t.Errorf("no request met the revoked token: the story has lost its point")
	}
}

// Microsoft refuses a token that Entra has just issued, again and again. The
// caller gets Microsoft's own 401, and Entra is not flooded for it.
func TestATokenThatMicrosoftKeepsRefusingIsNotFetchedForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { inRegions(c, "eu") }})
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultUnauthorized, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		a := w.get("/api/alerts")
		if code, _ := a.refused(); a.status != http.StatusUnauthorized || code != "Unauthorized" || a.ours() || a.header.Get("WWW-Authenticate") != "" {
			t.Fatalf("request %d: %v", i, a)
		}
	}
	total := 0
	for _, n := range w.sim.Issued() {
		total += n
	}
	if total > 8 {
		t.Errorf("%d tokens were fetched for 30 requests", total)
	}
}
