package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// vaultThatHangs is a network in which Entra ID gives tokens at once and the
// vault never answers.
func vaultThatHangs(r *http.Request) (*http.Response, error) {
	if r.URL.Host == "contoso.vault.azure.net" {
		<-r.Context().Done()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	body, err := json.Marshal(map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": makeJWT(map[string]any{
		"aud": testAsk.Audience, "tid": tenantOf(r), "appid": testAsk.ClientID, "iss": "https://sts.windows.net/" + tenantOf(r) + "/",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "ver": "1.0"})})
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}, "Date": {now.UTC().Format(http.TimeFormat)}}, Body: io.NopCloser(bytes.NewReader(body))}, err
}

// tenantOf is the first part of a request's path, which names the tenant.
func tenantOf(r *http.Request) string {
	id, _, _ := strings.Cut(r.URL.Path[1:], "/")
	return id
}

// fetching is a token engine with its own bounds, on the network rt.
func fetching(t *testing.T, rt http.RoundTripper) (source func(tenant.ID, token.Credential) func(context.Context) error) {
	e := token.New(token.Options{Transport: rt})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return func(id tenant.ID, c token.Credential) func(context.Context) error {
		s := e.Source(token.Account{Name: string(id), Cloud: "commercial", Authority: "https://login.example.com", Tenant: id, ClientID: testAsk.ClientID, Credential: c}, testAsk.Audience)
		return func(ctx context.Context) error { _, err := s.Bearer(ctx); return err }
	}
}

func TestAGoodSecretBringsItsTokenWhileTheVaultOfTheOtherOneHangs(t *testing.T) {
	for name, swap := range map[string]bool{"a good first one": false, "a good next one": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := NewVault(VaultOptions{Transport: roundTrip(vaultThatHangs), Env: env(envSecret)})
				good, hangs := Plain(func() (string, error) { return "good", nil }), vaultValue(t, v, appURL)
				c := ClientSecret(good, hangs)
				if swap {
					c = ClientSecret(hangs, good)
				}
				bearer := fetching(t, roundTrip(vaultThatHangs))(tenant.ID(testAsk.TenantID), c)
				start := time.Now()
				if err := bearer(t.Context()); err != nil || time.Since(start) > secretPatience {
					t.Errorf("got %v after %v, want a token after %v", err, time.Since(start), secretPatience)
				}
				time.Sleep(vaultReadTime)
			})
		})
	}
}

func TestTheTenantsOfAVaultThatHangsDoNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := NewVault(VaultOptions{Transport: roundTrip(vaultThatHangs), Env: env(envSecret)})
		source := fetching(t, roundTrip(vaultThatHangs))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 500 {
			bearer := source(tenant.ID(uuid.NewString()), ClientSecret(vaultValue(t, v, appURL), nil))
			wg.Go(func() { _ = bearer(ctx) })
		}
		synctest.Wait()
		start := time.Now()
		bearer := source(tenant.ID(testAsk.TenantID), ClientSecret(Plain(func() (string, error) { return "good", nil }), nil))
		// One read that hangs is waited for; all that come behind it hear of it.
		if err := bearer(ctx); err != nil || time.Since(start) > vaultReadTime {
			t.Errorf("a healthy tenant got %v after %v, want a token after %v at most", err, time.Since(start), vaultReadTime)
		}
		cancel()
		wg.Wait()
		time.Sleep(vaultReadTime)
	})
}

func TestAVaultsFirstChallengeIsNotTakenForGoodForEver(t *testing.T) {
	for name, wrong := range map[string]string{
		"another tenant": `Bearer authorization="https://login.microsoftonline.com/99999999-9999-9999-9999-999999999999", resource="https://vault.azure.net"`,
		"another scope":  `Bearer authorization="https://login.microsoftonline.com/` + vaultTenant + `", resource="https://azure.net"`,
	} {
		a := newAzure(t)
		a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
		good := a.challenge
		a.challenge = wrong
		v := NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)})
		ref, _ := parseSecretURL(appURL)
		if _, f := v.read(t.Context(), ref); f == nil {
			t.Fatalf("the challenge of %s is taken", name)
		}
		a.challenge = good
		if s, f := v.read(t.Context(), ref); f != nil || s.Text != theSecret {
			t.Errorf("after the challenge of %s, the right one gives %v", name, f)
		}
	}
}

func TestAPanicWithinAReadIsAFaultAndTheNextReadIsAnew(t *testing.T) {
	a := newAzure(t)
	a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
	var n atomic.Int32
	tr := a.transport()
	rt := roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "login.microsoftonline.com" && n.Add(1) == 1 {
			panic("canary of a panic")
		}
		return tr.RoundTrip(r)
	})
	v := NewVault(VaultOptions{Transport: rt, Env: env(envSecret)})
	_, err := vaultValue(t, v, appURL)(t.Context())
	f := mustFault(t, err, token.Internal, "failed by a fault in the proxy")
	mustNotShow(t, []string{"canary"}, f)
	ref, _ := parseSecretURL(appURL)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if s, f := v.read(ctx, ref); f != nil || s.Text != theSecret {
		t.Errorf("the next read: %v", f)
	}
}

func TestOneWhoWaitsForTheIdentitysTokenOfAnotherReadLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "login.microsoftonline.com" {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			h := http.Header{"Www-Authenticate": {`Bearer authorization="https://login.microsoftonline.com/` + vaultTenant + `", resource="https://vault.azure.net"`}}
			return &http.Response{StatusCode: http.StatusUnauthorized, Header: h, Body: http.NoBody}, nil
		})
		v := NewVault(VaultOptions{Transport: rt, Env: env(envSecret)})
		var wg sync.WaitGroup
		for i, patience := range []time.Duration{time.Hour, 200 * time.Millisecond, 3 * time.Second} {
			value := vaultValue(t, v, appURL+string(rune('a'+i)))
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				start := time.Now()
				_, err := value(ctx)
				mustFault(t, err, token.Unreachable)
				if took, want := time.Since(start), min(patience, vaultReadTime); took != want {
					t.Errorf("left after %v, want %v", took, want)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
	})
}

func TestSecretsOfOneVaultShareTheIdentitysToken(t *testing.T) {
	a := newAzure(t)
	v := NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)})
	for _, name := range []string{"app", "other", "third"} {
		a.set("/secrets/"+name, secretBundle(theSecret, "v1", nil))
		if _, err := vaultValue(t, v, "https://contoso.vault.azure.net/secrets/"+name)(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.count("POST login."); n != 1 {
		t.Errorf("Entra ID was asked for %d tokens, want one", n)
	}
}

func TestAMachinesIdentityReadsAVaultWhateverTenantTheEnvironmentNames(t *testing.T) {
	noIdentityEnvironment(t)
	a := newAzure(t)
	a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
	a.setIMDS(func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, imdsAnswer(vaultToken, "https://vault.azure.net", 24*time.Hour))
	})
	e := env(map[string]string{"AZURE_TENANT_ID": "11111111-1111-1111-1111-111111111111"})
	if s, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: e}), appURL)(t.Context()); err != nil || s.Text != theSecret {
		t.Error(err)
	}
}

func TestAnIdentityThatIsHalfConfiguredNamesWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		says string
	}{
		"a secret without tenant":       {map[string]string{"AZURE_CLIENT_ID": testAsk.ClientID, "AZURE_CLIENT_SECRET": "x-canary"}, "has AZURE_CLIENT_SECRET for Key Vault, but AZURE_TENANT_ID is not set."},
		"a secret alone":                {map[string]string{"AZURE_CLIENT_SECRET": "x-canary"}, "but AZURE_CLIENT_ID and AZURE_TENANT_ID are not set."},
		"a certificate without client":  {map[string]string{"AZURE_TENANT_ID": vaultTenant, "AZURE_CLIENT_CERTIFICATE_PATH": "/x"}, "has AZURE_CLIENT_CERTIFICATE_PATH for Key Vault, but AZURE_CLIENT_ID is not set."},
		"a token file without a client": {map[string]string{"AZURE_TENANT_ID": vaultTenant, "AZURE_FEDERATED_TOKEN_FILE": "/x"}, "has AZURE_FEDERATED_TOKEN_FILE for Key Vault, but AZURE_CLIENT_ID is not set."},
	} {
		a := newAzure(t)
		a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
		_, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(c.env)}), appURL)(t.Context())
		f := mustFault(t, err, token.Misconfigured, c.says)
		mustNotShow(t, []string{"canary"}, f)
		if n := a.count("GET 169."); n != 0 {
			t.Errorf("%s: the machine's identity was asked %d times", name, n)
		}
	}
}
