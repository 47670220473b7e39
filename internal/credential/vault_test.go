package credential

import (
	"context"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"defender-proxy/internal/token"
)

const appURL = "https://contoso.vault.azure.net/secrets/app"

func vaultValue(t testing.TB, v *Vault, u string) Value {
	t.Helper()
	value, err := v.Value(u)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestASecretComesFromKeyVaultByItsChallenge(t *testing.T) {
	a := newAzure(t)
	end := time.Now().Add(30 * 24 * time.Hour).Truncate(time.Second)
	a.set("/secrets/app", secretBundle(theSecret, "4387e9f3d6e14c459867679a90fd0f79", map[string]any{"exp": end.Unix()}))
	v := NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)})
	c := ClientSecret(vaultValue(t, v, appURL), nil)
	if n := a.count(""); n != 0 {
		t.Errorf("%d requests before the first read", n)
	}
	for range 3 {
		if got := texts(proofsOf(t, c, testAsk)); len(got) != 1 || got[0] != theSecret {
			t.Errorf("got %q", got)
		}
	}
	if n := a.count("GET contoso.vault.azure.net/secrets/app"); n != 2 {
		t.Errorf("the vault was asked %d times, want twice: for its challenge and for the secret", n)
	}
	// No discovery of authorities: all that Entra ID is asked is its own tenant's.
	if all, token := a.count("GET login."), a.count("POST login.microsoftonline.com/"+vaultTenant+"/oauth2/v2.0/token"); all != 1 || token != 1 {
		t.Errorf("Entra ID was asked %q", a.calls)
	}
	if h := c.Health(); h.Kind != "key_vault" || !h.Expires.Equal(end) || h.Notice != "" {
		t.Errorf("health is %+v, want the end %v", h, end)
	}
	s, err := vaultValue(t, v, appURL)(t.Context())
	if err != nil || s.Version != "4387e9f3d6e14c459867679a90fd0f79" {
		t.Errorf("the version is %q, %v", s.Version, err)
	}
}

func TestTheVaultsIdentityIsWhatTheEnvironmentConfigures(t *testing.T) {
	leaf := makeCert(t, oneKey(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	with := func(more map[string]string) map[string]string {
		m := map[string]string{"AZURE_TENANT_ID": vaultTenant, "AZURE_CLIENT_ID": testAsk.ClientID}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	for name, c := range map[string]struct {
		env  map[string]string
		asks string
	}{
		"workload identity before a secret": {with(map[string]string{"AZURE_FEDERATED_TOKEN_FILE": put(t, "token", []byte(makeJWT(map[string]any{"sub": "s"}))), "AZURE_CLIENT_SECRET": "not used"}), "POST login."},
		"a certificate":                     {with(map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": put(t, "app.pem", join(certPEM(leaf), keyPEM(t, oneKey())))}), "POST login."},
		"a client secret":                   {envSecret, "POST login."},
		"the machine's own":                 {nil, "GET 169.254.169.254/metadata"},
		"one of the machine's":              {map[string]string{"AZURE_CLIENT_ID": "44444444-4444-4444-4444-444444444444"}, "GET 169.254.169.254/metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAzure(t)
			a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
			a.setIMDS(func(w http.ResponseWriter, r *http.Request) {
				if got := r.URL.Query().Get("client_id"); got != c.env["AZURE_CLIENT_ID"] {
					t.Errorf("the client id is %q, want %q", got, c.env["AZURE_CLIENT_ID"])
				}
				if got := r.URL.Query().Get("resource"); got != "https://vault.azure.net" {
					t.Errorf("the resource is %q", got)
				}
				answerJSON(w, 200, imdsAnswer(vaultToken, "https://vault.azure.net", 24*time.Hour))
			})
			s, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(c.env)}), appURL+"/0123456789abcdef/")(t.Context())
			if err == nil {
				t.Errorf("a version that is not there gives %v", s)
			}
			s, err = vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(c.env)}), appURL)(t.Context())
			if err != nil || s.Text != theSecret {
				t.Fatalf("got %v", err)
			}
			if a.count(c.asks) == 0 {
				t.Errorf("the requests were %q, want one to %s", a.calls, c.asks)
			}
		})
	}
}

func TestAPrivateAuthorityIsAskedWithoutDiscoveryOfAuthorities(t *testing.T) {
	leaf := makeCert(t, oneKey(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	for name, value := range map[string]string{
		"AZURE_CLIENT_SECRET":           "env-secret-canary",
		"AZURE_FEDERATED_TOKEN_FILE":    put(t, "token", []byte(makeJWT(map[string]any{"sub": "s"}))),
		"AZURE_CLIENT_CERTIFICATE_PATH": put(t, "app.pem", join(certPEM(leaf), keyPEM(t, oneKey()))),
	} {
		a := newAzure(t)
		a.hosts["login.example.net"] = a.entra
		a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
		who := map[string]string{"AZURE_TENANT_ID": vaultTenant, "AZURE_CLIENT_ID": testAsk.ClientID, "AZURE_AUTHORITY_HOST": "https://login.example.net", name: value}
		if s, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(who)}), appURL)(t.Context()); err != nil || s.Text != theSecret {
			t.Fatalf("with %s: %v", name, err)
		}
		if n := a.count("GET login.microsoft") + a.count("POST login.microsoft"); n != 0 {
			t.Errorf("with %s the public authority was asked: %q", name, a.calls)
		}
	}
}

func TestTheIdentitysTenantMayBeNamedByItsDomain(t *testing.T) {
	a := newAzure(t)
	a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
	domain := map[string]string{"AZURE_TENANT_ID": "contoso.onmicrosoft.com", "AZURE_CLIENT_ID": testAsk.ClientID, "AZURE_CLIENT_SECRET": "env-secret-canary"}
	if s, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(domain)}), appURL)(t.Context()); err != nil || s.Text != theSecret {
		t.Fatal(err)
	}
	if a.count("POST login.microsoftonline.com/contoso.onmicrosoft.com/") != 1 {
		t.Errorf("Entra ID was asked %q", a.calls)
	}
}

func TestAVaultThatSaysNoIsAFaultWithARemedy(t *testing.T) {
	t.Setenv("AZURE_AUTHORITY_HOST", "")
	for name, c := range map[string]struct {
		answer    any
		env       map[string]string
		challenge string
		kind      token.Kind
		says      []string
	}{
		"no permission by role":      {answer: vaultFailure{403, vaultError("Forbidden", "ForbiddenByRbac"), ""}, kind: token.Rejected, says: []string{"may not read the secret " + appURL + " (ForbiddenByRbac)", "Key Vault Secrets User"}},
		"no permission by policy":    {answer: vaultFailure{403, vaultError("Forbidden", "AccessDenied"), ""}, kind: token.Rejected, says: []string{"may not read", "permission Get"}},
		"behind a firewall":          {answer: vaultFailure{403, vaultError("Forbidden", "ForbiddenByFirewall"), ""}, kind: token.Unreachable, says: []string{"does not let this network in", "firewall"}},
		"disabled, as Azure says it": {answer: vaultFailure{403, vaultError("Forbidden", "SecretDisabled"), ""}, kind: token.Misconfigured, says: []string{"is disabled", "Enable it"}},
		"disabled by attribute":      {answer: secretBundle(theSecret, "v", map[string]any{"enabled": false}), kind: token.Misconfigured, says: []string{"is disabled"}},
		"past its end":               {answer: secretBundle(theSecret, "v", map[string]any{"exp": 1600000000}), kind: token.Misconfigured, says: []string{"ended by its own date, 2020-09-13T12:26:40Z", "new version"}},
		"no such secret":             {answer: vaultFailure{404, vaultError("SecretNotFound", ""), ""}, kind: token.Misconfigured, says: []string{"There is no secret " + appURL + " (SecretNotFound)"}},
		"an empty one":               {answer: secretBundle("", "v", nil), kind: token.Misconfigured, says: []string{"is empty"}},
		"too many requests":          {answer: vaultFailure{429, vaultError("Throttled", ""), "17"}, kind: token.Unavailable, says: []string{"too many requests"}},
		"a passing fault":            {answer: vaultFailure{503, vaultError("InternalError", ""), "11"}, kind: token.Unavailable, says: []string{"passing fault (503)"}},
		"an answer without JSON":     {answer: "canary page", kind: token.Unavailable, says: []string{"not with a secret"}},
		"a challenge of another domain": {challenge: `Bearer authorization="https://login.microsoftonline.com/` + vaultTenant + `", resource="https://management.azure.com"`,
			kind: token.Misconfigured, says: []string{"does not ask for a token in the way of a vault of its domain"}},
		"a challenge that is cut short": {challenge: `Bearer authorization="x", resource="https://vault.azure.net"`, kind: token.Misconfigured, says: []string{"does not ask for a token"}},
		"a challenge of another tenant": {challenge: `Bearer authorization="https://login.microsoftonline.com/99999999-9999-9999-9999-999999999999", resource="https://vault.azure.net"`,
			kind: token.Misconfigured, says: []string{"belongs to tenant 99999999-9999-9999-9999-999999999999", vaultTenant + " (AZURE_TENANT_ID)"}},
		"a wrong secret in the environment": {env: map[string]string{"AZURE_TENANT_ID": vaultTenant, "AZURE_CLIENT_ID": testAsk.ClientID, "AZURE_CLIENT_SECRET": "wrong-canary"},
			kind: token.Rejected, says: []string{"cannot be read. Entra ID gives the application " + testAsk.ClientID, "AADSTS7000215", "AZURE_CLIENT_SECRET"}},
		"a federated token file that is gone": {env: map[string]string{"AZURE_TENANT_ID": vaultTenant, "AZURE_CLIENT_ID": testAsk.ClientID, "AZURE_FEDERATED_TOKEN_FILE": "/nowhere/token"},
			kind: token.Misconfigured, says: []string{"federated token file /nowhere/token cannot be read"}},
		"a machine without identity":      {env: map[string]string{}, kind: token.Rejected, says: []string{"no system-assigned identity", "or set AZURE_CLIENT_ID."}},
		"an AZURE_CLIENT_ID that is none": {env: map[string]string{"AZURE_CLIENT_ID": "canary"}, kind: token.Misconfigured, says: []string{"AZURE_CLIENT_ID is not a GUID"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAzure(t)
			a.set("/secrets/app", c.answer)
			a.setIMDS(func(w http.ResponseWriter, _ *http.Request) {
				answerJSON(w, 400, map[string]any{"error": "invalid_request", "error_description": "Identity not found body-canary"})
			})
			if c.challenge != "" {
				a.challenge = c.challenge
			}
			if c.env == nil {
				c.env = envSecret
			}
			v := NewVault(VaultOptions{Transport: a.transport(), Env: env(c.env)})
			cred := ClientSecret(vaultValue(t, v, appURL), nil)
			_, err := cred.Proofs(t.Context(), testAsk)
			f := mustFault(t, err, c.kind, c.says...)
			if s, ok := c.answer.(vaultFailure); ok && s.header != "" && f.RetryAfter == 0 {
				t.Errorf("the fault does not carry the Retry-After %s", s.header)
			}
			mustNotShow(t, []string{"canary", theSecret}, f, err, cred.Health())
		})
	}
}

func TestAVaultThatDoesNotTakeTheIdentitysTokenIsAFault(t *testing.T) {
	a := newAzure(t)
	a.hosts["contoso.vault.azure.net"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", a.challenge)
		answerJSON(w, 401, vaultError("Unauthorized", ""))
	}
	_, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)}), appURL)(t.Context())
	mustFault(t, err, token.Rejected, "does not accept the token of the proxy's identity (Unauthorized)", "AZURE_TENANT_ID")
}

// The SDK keeps the identity's token for its whole life and has no way to hear
// that the vault refused it.
func TestAnIdentitysTokenThatTheVaultRefusesIsReplacedOnce(t *testing.T) {
	a := newAzure(t)
	a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
	var revoked atomic.Bool
	shown := 0 // tokens since then; the vault answers one after the other
	a.hosts["contoso.vault.azure.net"] = func(w http.ResponseWriter, r *http.Request) {
		if revoked.Load() && r.Header.Get("Authorization") != "" && a.count("POST login.microsoftonline.com/"+vaultTenant+"/oauth2/v2.0/token") == 1 {
			shown++
			w.Header().Set("WWW-Authenticate", a.challenge)
			answerJSON(w, 401, vaultError("Unauthorized", ""))
			return
		}
		a.vault(w, r)
	}
	c := NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)})
	ref, _ := parseSecretURL(appURL)
	if s, f := c.read(t.Context(), ref); f != nil || s.Text != theSecret {
		t.Fatalf("before: %v", f)
	}
	revoked.Store(true)
	if s, f := c.read(t.Context(), ref); f != nil || s.Text != theSecret {
		t.Errorf("after the token was revoked: %v", f)
	}
	if shown == 0 {
		t.Error("the old token was not shown: the test shows nothing")
	}
}

func TestTheVaultsIdentityIsMadeAnewAfterAFailure(t *testing.T) {
	a := newAzure(t)
	a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
	now := map[string]string{"AZURE_TENANT_ID": vaultTenant, "AZURE_CLIENT_ID": testAsk.ClientID, "AZURE_CLIENT_SECRET": "the old one"}
	v := NewVault(VaultOptions{Transport: a.transport(), Env: env(now)})
	ref, _ := parseSecretURL(appURL)
	if _, f := v.read(t.Context(), ref); f == nil {
		t.Fatal("a wrong secret reads the vault")
	}
	now["AZURE_CLIENT_SECRET"] = envSecret["AZURE_CLIENT_SECRET"]
	if s, f := v.read(t.Context(), ref); f != nil || s.Text != theSecret {
		t.Errorf("after the rotation: %v", f)
	}
}

func TestAVaultThatCannotBeReachedIsUnreachable(t *testing.T) {
	a := newAzure(t)
	tr := a.transport()
	tr.TLSClientConfig.RootCAs = nil // an unknown authority
	_, err := vaultValue(t, NewVault(VaultOptions{Transport: tr, Env: env(envSecret)}), appURL)(t.Context())
	mustFault(t, err, token.Unreachable, "The vault contoso.vault.azure.net cannot be reached", "certificate", "egress.ca_file")

	gone := a.transport()
	a.tls.Close()
	_, err = vaultValue(t, NewVault(VaultOptions{Transport: gone, Env: env(envSecret)}), appURL)(t.Context())
	mustFault(t, err, token.Unreachable, "cannot be reached", "refused")

	hanging := newAzure(t)
	release := make(chan struct{})
	defer close(release)
	hanging.hosts["contoso.vault.azure.net"] = func(http.ResponseWriter, *http.Request) { <-release }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = vaultValue(t, NewVault(VaultOptions{Transport: hanging.transport(), Env: env(envSecret)}), appURL)(ctx)
	mustFault(t, err, token.Unreachable, "did not answer in time")
}

func TestAVaultsRedirectIsNotFollowed(t *testing.T) {
	a := newAzure(t)
	a.hosts["contoso.vault.azure.net"] = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://evil.example.net/secrets/app", http.StatusTemporaryRedirect)
	}
	_, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)}), appURL)(t.Context())
	mustFault(t, err, token.Rejected, "307")
	if n := a.count("GET evil.example.net"); n != 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
}

func TestThePrivateVaultOfAnotherDomainIsAskedWithItsOwnAudienceOnly(t *testing.T) {
	a := newAzure(t)
	a.hosts["contoso.example.net"] = a.vault // it asks for a token for vault.azure.net
	_, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)}), "https://contoso.example.net/secrets/app")(t.Context())
	mustFault(t, err, token.Misconfigured, "does not ask for a token in the way of a vault of its domain")
	if n := a.count("POST login."); n != 0 {
		t.Errorf("Entra ID was asked for a token %d times", n)
	}
}

func TestManyTenantsShareOneReadOfAVaultsSecret(t *testing.T) {
	a := newAzure(t)
	a.set("/secrets/app", secretBundle(theSecret, "v1", nil))
	v := NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)})
	var wg sync.WaitGroup
	for range 64 {
		value := vaultValue(t, v, appURL)
		wg.Go(func() {
			if s, err := value(context.Background()); err != nil || s.Text != theSecret {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if n := a.count("GET contoso.vault.azure.net"); n != 2 {
		t.Errorf("the vault was asked %d times, want twice", n)
	}
}

func TestTheDevelopersToolsAreNeverAsked(t *testing.T) {
	// A PATH of tools that leave a mark when they run.
	dir := t.TempDir()
	for _, tool := range []string{"az", "azd", "pwsh", "powershell"} {
		if err := os.WriteFile(dir+"/"+tool, []byte("#!/bin/sh\ntouch "+dir+"/mark\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	a := newAzure(t)
	a.setIMDS(func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 400, map[string]any{"error": "invalid_request"})
	})
	if _, err := vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(nil)}), appURL)(t.Context()); err == nil {
		t.Error("a machine without identity reads a secret")
	}
	if _, err := os.Stat(dir + "/mark"); err == nil {
		t.Error("a tool was started")
	}
}
