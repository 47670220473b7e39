package simulator

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// imds asks the machine's metadata service with the headers it wants, changed
// by change.
func (p *peer) imds(query string, change func(http.Header)) answer {
	p.t.Helper()
	r, err := http.NewRequest("GET", p.IdentityURL()+"/metadata/identity/oauth2/token"+query, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Metadata", "true")
	if change != nil {
		change(r.Header)
	}
	a, err := p.send(r)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// dialing is a client that trusts the simulator and finds its listeners under
// Microsoft's names.
func (p *peer) dialing(to map[string]string) *http.Client {
	t := trusting(p.Simulator).Transport.(*http.Transport)
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		for suffix, target := range to {
			if strings.HasSuffix(address, suffix) {
				u, err := url.Parse(target)
				if err != nil {
					return nil, err
				}
				address = u.Host
			}
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	p.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 10 * time.Second}
}

const (
	systemIdentity = "44444444-4444-4444-4444-444444444444"
	userIdentity   = "66666666-6666-6666-6666-666666666666"
)

func withIdentities() Config {
	cfg := quick()
	cfg.Identities = []Identity{
		{ClientID: systemIdentity, ObjectID: "55555555-5555-5555-5555-555555555555", TenantID: DefaultTenantID, System: true,
			Permissions: map[string][]string{"mde": {"Machine.Read.All"}, "vault": {"Key Vault Secrets User"}}},
		{ClientID: userIdentity, ObjectID: "77777777-7777-7777-7777-777777777777", TenantID: DefaultTenantID},
	}
	return cfg
}

func TestAMachineGetsTheTokenOfItsIdentity(t *testing.T) {
	cfg := withIdentities()
	cfg.Now = newTestClock().now
	p := start(t, cfg)
	query := "?api-version=2018-02-01&resource=" + url.QueryEscape(resources["mde"])
	first := p.imds(query, nil).object(t)
	for key, want := range map[string]any{"token_type": "Bearer", "resource": resources["mde"], "client_id": systemIdentity, "expires_in": "86399"} {
		if got := first[key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	for _, key := range []string{"expires_on", "not_before"} {
		if s, ok := first[key].(string); !ok || len(s) < 10 {
			t.Errorf("%s is %v, want seconds as text", key, first[key])
		}
	}
	token := first["access_token"].(string)
	if c := p.claimsOf(token); c["oid"] != "55555555-5555-5555-5555-555555555555" || c["appid"] != systemIdentity || c["tid"] != DefaultTenantID {
		t.Errorf("claims %v", c)
	}
	if a := p.do("GET", p.Endpoint("eu")+"/api/machines?$top=1", token, ""); a.status != 200 {
		t.Errorf("the token reads machines: got %d %s", a.status, a.body)
	}
	if again := p.imds(query, nil).object(t); again["access_token"] != token {
		t.Error("the second request got another token, want the cached one")
	}
	p.ForgetIdentityTokens()
	if again := p.imds(query, nil).object(t); again["access_token"] == token {
		t.Error("a forgotten token came again")
	}
	if a := p.imds(query+"&client_id="+userIdentity, nil); a.object(t)["client_id"] != userIdentity {
		t.Errorf("the user-assigned one: %d", a.status)
	}
	for _, c := range []struct {
		name, query string
		change      func(http.Header)
		status      int
		code        string
	}{
		{"without the header Metadata", query, func(h http.Header) { h.Del("Metadata") }, 400, "bad_request_102"},
		{"with Metadata in other letters", query, func(h http.Header) { h.Set("Metadata", "True") }, 400, "bad_request_102"},
		{"through a proxy", query, func(h http.Header) { h.Set("X-Forwarded-For", "10.0.0.1") }, 400, "invalid_request"},
		{"of an identity that is not there", query + "&client_id=" + DefaultClientID, nil, 400, "invalid_request"},
		{"for no resource", "?api-version=2018-02-01", nil, 400, "invalid_request"},
		{"for an unknown resource", "?api-version=2018-02-01&resource=https://example.com", nil, 400, "invalid_resource"},
		{"without a version", "?resource=" + url.QueryEscape(resources["mde"]), nil, 400, "invalid_request"},
		{"of an agent that is not there", "?api-version=2020-06-01&resource=" + url.QueryEscape(resources["mde"]), nil, 404, "not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := p.imds(c.query, c.change); a.status != c.status || a.object(t)["error"] != c.code {
				t.Errorf("got %d %s, want %d %s", a.status, a.body, c.status, c.code)
			}
		})
	}
	for _, status := range []int{404, 410, 429, 500} {
		if err := p.SetIdentity(Fault{Kind: FaultStatus, Status: status, Count: 1}); err != nil {
			t.Fatal(err)
		}
		if a := p.imds(query, nil); a.status != status {
			t.Errorf("a fault of %d: got %d", status, a.status)
		}
	}
	if a := p.imds(query, nil); a.status != 200 {
		t.Errorf("after the faults: got %d", a.status)
	}
}

func TestIdentityTokensAreHandedOutUntilTheyAreNearTheirEnd(t *testing.T) {
	cfg := withIdentities()
	clock := newTestClock()
	cfg.Now = clock.now
	p := start(t, cfg)
	p.SetIdentityTokenLifetime(10 * time.Minute)
	query := "?api-version=2018-02-01&resource=" + url.QueryEscape(resources["mde"])
	first := p.imds(query, nil).object(t)
	clock.add(8 * time.Minute)
	if a := p.imds(query, nil).object(t); a["access_token"] != first["access_token"] || a["expires_in"] != "120" {
		t.Errorf("after 8 of 10 minutes: expires_in %v, want the same token with 120 left", a["expires_in"])
	}
	clock.add(70 * time.Second)
	if a := p.imds(query, nil).object(t); a["access_token"] == first["access_token"] {
		t.Error("a token with 50 seconds left was handed out")
	}
}

func TestAppServiceWantsItsHeader(t *testing.T) {
	cfg := withIdentities()
	cfg.IdentityHeader = "853b9a84"
	p := start(t, cfg)
	ask := func(header string) answer {
		r, err := http.NewRequest("GET", p.IdentityURL()+"/msi/token?api-version=2019-08-01&resource="+url.QueryEscape(resources["mde"]), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-IDENTITY-HEADER", header)
		a, err := p.send(r)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask("wrong"); a.status != 401 {
		t.Errorf("a wrong header: got %d %s", a.status, a.body)
	}
	a := ask(p.IdentityHeader()).object(t)
	if a["client_id"] != systemIdentity || a["expires_in"] != nil || a["access_token"] == nil {
		t.Errorf("got client_id %v, expires_in %v", a["client_id"], a["expires_in"])
	}
	for _, r := range p.Requests() {
		if strings.Contains(r.Header.Get("X-Identity-Header"), "853b9a84") {
			t.Error("the record holds the header's value")
		}
	}
}

func TestArcGivesATokenToWhoReadsItsKeyFile(t *testing.T) {
	cfg := withIdentities()
	cfg.ArcKeyDir = filepath.Join(t.TempDir(), "tokens")
	p := start(t, cfg)
	query := "?api-version=2020-06-01&resource=" + url.QueryEscape(resources["mde"]) + "&client_id=" + userIdentity
	a := p.imds(query, nil)
	file, ok := strings.CutPrefix(a.header.Get("WWW-Authenticate"), "Basic realm=")
	if a.status != 401 || !ok || filepath.Dir(file) != cfg.ArcKeyDir || filepath.Ext(file) != ".key" {
		t.Fatalf("got %d, WWW-Authenticate %q", a.status, a.header.Get("WWW-Authenticate"))
	}
	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	show := func(h http.Header) { h.Set("Authorization", "Basic "+string(key)) }
	if a := p.imds(query, show); a.status != 200 || a.object(t)["client_id"] != userIdentity {
		t.Errorf("with the key: got %d", a.status)
	}
	if a := p.imds(query, show); a.status != 401 {
		t.Errorf("with the same key again: got %d, want 401", a.status)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the key's file is still there: %v", err)
	}
	for range maxArcKeys + 5 {
		p.imds(query, nil)
	}
	if files, err := os.ReadDir(cfg.ArcKeyDir); err != nil || len(files) > maxArcKeys {
		t.Errorf("%d key files are left, %v; want %d at most", len(files), err, maxArcKeys)
	}
}

// uncached goes past the cache that Microsoft's library keeps for the whole
// process, and with it for every simulator that there ever was: it is not used
// when there are claims.
type uncached struct{ azcore.TokenCredential }

func (u uncached) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	o.Claims = "{}"
	return u.TokenCredential.GetToken(ctx, o)
}

func TestMicrosoftsClientGetsATokenFromTheMachine(t *testing.T) {
	p := start(t, withIdentities())
	for name, id := range map[string]azidentity.ManagedIDKind{"the machine's own": nil, "a user-assigned one": azidentity.ClientID(userIdentity)} {
		c, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
			ID:            id,
			ClientOptions: azcore.ClientOptions{Transport: p.dialing(map[string]string{"169.254.169.254:80": p.IdentityURL()}), Retry: policy.RetryOptions{MaxRetries: -1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		token, err := uncached{c}.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{resources["mde"] + "/.default"}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := systemIdentity
		if id != nil {
			want = userIdentity
		}
		if got := p.claimsOf(token.Token)["appid"]; got != want || time.Until(token.ExpiresOn) < 23*time.Hour {
			t.Errorf("%s: got the token of %v until %v, want that of %s for a day", name, got, token.ExpiresOn, want)
		}
	}
}
