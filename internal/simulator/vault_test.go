package simulator

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

const vaultResource = "https://vault.azure.net"

// vaultToken is the default application's token for the vault.
func (p *peer) vaultToken() string {
	p.t.Helper()
	return p.field(p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2, "scope", vaultResource+"/.default")), "access_token")
}

// wantVault checks an error of the vault's.
func wantVault(t *testing.T, name string, a answer, status int, code, inner string) {
	t.Helper()
	e, _ := a.object(t)["error"].(map[string]any)
	in, _ := e["innererror"].(map[string]any)
	got, _ := in["code"].(string)
	if a.status != status || e["code"] != code || got != inner || e["message"] == "" {
		t.Errorf("%s: got %d %s, want %d %s %s", name, a.status, a.body, status, code, inner)
	}
}

func TestTheVaultGivesASecretToWhoMayReadIt(t *testing.T) {
	cfg, clock := withClock()
	cfg.Tenants = append(cfg.Tenants, Tenant{ID: "99999999-9999-9999-9999-999999999999", Name: "fabrikam", Apps: []App{{ClientID: DefaultClientID, Secrets: []string{"s"}}}})
	p := start(t, cfg)
	get := func(path, token string) answer { return p.do("GET", p.VaultURL()+path, token, "") }
	until := clock.now().Add(24 * time.Hour)
	first, err := p.SetVaultSecret("api-secret", "first value", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.SetVaultSecret("API-secret", "second value", until)
	if err != nil {
		t.Fatal(err)
	}
	const at = "/secrets/api-secret?api-version=7.5"
	a := get(at, "")
	wantVault(t, "without a token", a, 401, "Unauthorized", "")
	if got, want := a.header.Get("WWW-Authenticate"), `Bearer authorization="`+p.Authority()+tenantPath+`", resource="https://vault.azure.net"`; got != want {
		t.Errorf("challenge %q, want %q", got, want)
	}
	token := p.vaultToken()
	wantVault(t, "without a role", get(at, token), 403, "Forbidden", "ForbiddenByRbac")
	if err := p.SetPermissions(DefaultTenantID, DefaultClientID, "vault", "Key Vault Secrets User"); err != nil {
		t.Fatal(err)
	}
	if c := p.claimsOf(token); c["aud"] != vaultResource || c["roles"] != nil {
		t.Errorf("claims %v", c)
	}
	got := get(at, token).object(t)
	attributes, _ := got["attributes"].(map[string]any)
	if got["value"] != "second value" || got["id"] != p.VaultURL()+"/secrets/api-secret/"+second || attributes["enabled"] != true || attributes["exp"] != float64(until.Unix()) {
		t.Errorf("got %v", got)
	}
	got = get("/secrets/api-secret/"+first+"?api-version=7.5", token).object(t)
	if attributes, _ := got["attributes"].(map[string]any); got["value"] != "first value" || attributes["exp"] != nil {
		t.Errorf("the older version: got %v", got)
	}
	foreign := p.field(p.form("/fabrikam.onmicrosoft.com/oauth2/v2.0/token", secretForm(2, "client_secret", "s", "scope", vaultResource+"/.default")), "access_token")
	wantVault(t, "another tenant's token", get(at, foreign), 401, "Unauthorized", "")
	wantVault(t, "a token for something else", get(at, p.token("mde")), 401, "Unauthorized", "")
	wantVault(t, "no version of the API", get("/secrets/api-secret", token), 400, "BadParameter", "")
	wantVault(t, "no such secret", get("/secrets/other?api-version=7.5", token), 404, "SecretNotFound", "")
	wantVault(t, "no such version", get("/secrets/api-secret/"+strings.Repeat("0", 32)+"?api-version=7.5", token), 404, "SecretNotFound", "")
	wantVault(t, "a bad name", get("/secrets/api_secret?api-version=7.5", token), 400, "BadParameter", "")
	wantVault(t, "a write", p.do("PUT", p.VaultURL()+at, token, "{}"), 405, "HttpMethodNotAllowed", "")
	if err := p.SetVaultSecretEnabled("api-secret", false); err != nil {
		t.Fatal(err)
	}
	wantVault(t, "disabled", get(at, token), 403, "Forbidden", "SecretDisabled")
	if err := p.SetVaultSecretEnabled("api-secret", true); err != nil {
		t.Fatal(err)
	}
	if err := p.SetVault(Fault{Kind: FaultThrottle, RetryAfter: "3", Count: 1}); err != nil {
		t.Fatal(err)
	}
	a = get(at, token)
	if wantVault(t, "throttled", a, 429, "Throttled", ""); a.header.Get("Retry-After") != "3" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	clock.add(2 * time.Hour)
	wantVault(t, "with a dead token", get(at, token), 401, "Unauthorized", "")
	if n := p.RefusedCounts(); n[RefusedExpired] != 1 || n[RefusedAudience] != 1 || n[RefusedMissing] != 1 {
		t.Errorf("refused: %v", n)
	}
	p.DeleteVaultSecret("api-secret")
	wantVault(t, "deleted", get(at, p.vaultToken()), 404, "SecretNotFound", "")
}

func TestMicrosoftsClientReadsTheVault(t *testing.T) {
	p := start(t, withIdentities())
	client := p.dialing(map[string]string{
		"169.254.169.254:80": p.IdentityURL(), ".vault.azure.net:443": p.VaultURL(), "login.microsoftonline.com:443": p.Authority(),
	})
	options := azcore.ClientOptions{Transport: client, Retry: policy.RetryOptions{MaxRetries: 1, RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond}}
	version, err := p.SetVaultSecret("api-secret", "the value", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	machine, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options, ID: azidentity.ClientID(userIdentity)})
	if err != nil {
		t.Fatal(err)
	}
	vault := func(who azcore.TokenCredential) *azsecrets.Client {
		c, err := azsecrets.NewClient("https://contoso.vault.azure.net", uncached{who}, &azsecrets.ClientOptions{ClientOptions: options})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	got, err := vault(machine).GetSecret(t.Context(), "api-secret", "", nil)
	if err != nil || got.Value == nil || *got.Value != "the value" || got.ID.Version() != version || !*got.Attributes.Enabled {
		t.Fatalf("got version %v, error %v", got.ID, err)
	}
	if got.ID.Name() != "api-secret" || !strings.HasPrefix(string(*got.ID), "https://contoso.vault.azure.net/secrets/") {
		t.Errorf("id %s", *got.ID)
	}
	want := func(name string, err error, status int, code string) {
		t.Helper()
		var e *azcore.ResponseError
		if !errors.As(err, &e) || e.StatusCode != status || e.ErrorCode != code {
			t.Errorf("%s: got %v, want %d %s", name, err, status, code)
		}
	}
	_, err = vault(stranger).GetSecret(t.Context(), "api-secret", "", nil)
	want("an identity without a role", err, http.StatusForbidden, "Forbidden")
	_, err = vault(machine).GetSecret(t.Context(), "other", "", nil)
	want("no such secret", err, http.StatusNotFound, "SecretNotFound")
	if err := p.SetVault(Fault{Kind: FaultThrottle, RetryAfter: "0", Count: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := vault(machine).GetSecret(t.Context(), "api-secret", version, nil); err != nil {
		t.Errorf("after one 429: %v", err)
	}
}

func TestMicrosoftsClientTradesAWorkloadTokenAndACertificate(t *testing.T) {
	key := testKeys()[0]
	der := selfSigned(t, key, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	cfg := quick()
	cfg.Tenants[0].Apps[0].Certificates = [][]byte{der}
	p := start(t, cfg)
	if err := p.SetFederated(DefaultTenantID, DefaultClientID, Federated{p.WorkloadIssuer(), "pod", exchangeAudience}); err != nil {
		t.Fatal(err)
	}
	options := azcore.ClientOptions{Transport: p.client, Retry: policy.RetryOptions{MaxRetries: -1}}
	options.Cloud.ActiveDirectoryAuthorityHost = p.Authority()
	scope := policy.TokenRequestOptions{Scopes: []string{mdeScope}}
	got := func(name string, c azcore.TokenCredential, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		token, err := c.GetToken(t.Context(), scope)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if claims := p.claimsOf(token.Token); claims["appid"] != DefaultClientID || claims["appidacr"] != "2" {
			t.Errorf("%s: claims %v", name, claims)
		}
	}
	certificates, _, err := azidentity.ParseCertificates(pemOf(t, key, der), nil)
	if err != nil {
		t.Fatal(err)
	}
	byCertificate, err := azidentity.NewClientCertificateCredential(DefaultTenantID, DefaultClientID, certificates, key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	got("a certificate", byCertificate, err)
	byAssertion, err := azidentity.NewClientAssertionCredential(DefaultTenantID, DefaultClientID,
		func(context.Context) (string, error) { return p.WorkloadToken("pod", time.Hour), nil },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	got("a workload's token", byAssertion, err)
}
