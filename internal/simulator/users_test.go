package simulator

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	analyst  = "analyst@contoso.onmicrosoft.com"
	password = "simulated-Password-1"
)

// withClock is quick with a clock that the test moves.
func withClock() (Config, *testClock) {
	cfg, clock := quick(), newTestClock()
	cfg.Now = clock.now
	return cfg, clock
}

// formOf is url.Values from pairs.
func formOf(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// v2 posts to the newer token endpoint, v1 to the older.
func (p *peer) v2(pairs ...string) answer {
	p.t.Helper()
	return p.form(tenantPath+"/oauth2/v2.0/token", formOf(pairs...))
}

func (p *peer) v1(pairs ...string) answer {
	p.t.Helper()
	return p.form(tenantPath+"/oauth2/token", formOf(pairs...))
}

// field is a text of a JSON answer that must be there.
func (p *peer) field(a answer, name string) string {
	p.t.Helper()
	v, _ := a.object(p.t)[name].(string)
	if a.status != 200 || v == "" {
		p.t.Fatalf("got %d with %q for %s", a.status, v, name)
	}
	return v
}

var mdeScope = resources["mde"] + "/.default"

func (p *peer) signIn() string {
	p.t.Helper()
	return p.field(p.v2("grant_type", "password", "client_id", DefaultClientID, "username", analyst, "password", password, "scope", mdeScope+" offline_access"), "refresh_token")
}

func (p *peer) refresh(token string, more ...string) answer {
	p.t.Helper()
	return p.v2(append([]string{"grant_type", "refresh_token", "client_id", DefaultClientID, "refresh_token", token}, more...)...)
}

func TestRefreshTokensAreGivenAsEachVersionDoes(t *testing.T) {
	p := start(t, quick())
	form := []string{"grant_type", "password", "client_id", DefaultClientID, "username", analyst, "password", password}
	if a := p.v1(append(form, "resource", resources["mde"])...).object(t); a["refresh_token"] == nil || a["id_token"] == nil {
		t.Errorf("the older endpoint: refresh token there %v, ID token there %v; want both", a["refresh_token"] != nil, a["id_token"] != nil)
	}
	if a := p.v2(append(form, "scope", mdeScope)...).object(t); a["refresh_token"] != nil || a["id_token"] != nil {
		t.Error("the newer endpoint gave more than it was asked for")
	}
	a := p.v2(append(form, "scope", mdeScope+" offline_access openid profile")...).object(t)
	if a["refresh_token"] == nil {
		t.Error("offline_access gave no refresh token")
	}
	if c := p.claimsOf(a["id_token"].(string)); c["preferred_username"] != analyst || c["aud"] != DefaultClientID || c["tid"] != DefaultTenantID {
		t.Errorf("ID token %v", c)
	}
}

func TestARefreshTokenServesEveryAudienceAndReplacesItself(t *testing.T) {
	cfg, clock := withClock()
	p := start(t, cfg)
	first := p.signIn()
	a := p.refresh(first, "scope", resources["xdr"]+"/.default")
	second := p.field(a, "refresh_token")
	if second == first {
		t.Error("the refresh token did not change")
	}
	if c := p.claimsOf(p.field(a, "access_token")); c["aud"] != resources["xdr"] || c["scp"] != "Incident.Read AdvancedHunting.Read" || c["upn"] != analyst {
		t.Errorf("claims %v", c)
	}
	// The old one stays good, as Microsoft documents.
	if a := p.refresh(first, "scope", mdeScope); a.status != 200 {
		t.Errorf("the older refresh token: got %d %s", a.status, a.body)
	}
	if a := p.refresh(second); a.status != 200 || p.claimsOf(p.field(a, "access_token"))["aud"] != resources["xdr"] {
		t.Errorf("without a scope: got %d, want a token for what the last one was for", a.status)
	}
	if a := p.v1("grant_type", "refresh_token", "client_id", DefaultClientID, "refresh_token", second, "resource", resources["graph"]); a.status != 200 {
		t.Errorf("at the older endpoint: got %d %s", a.status, a.body)
	}
	wantAAD(t, p.refresh("nonsense"), 70000)
	wantAAD(t, p.refresh(second, "scope", resources["mde"]+"/Machine.Isolate"), 65001)
	wantAAD(t, p.v2("grant_type", "refresh_token", "client_id", DefaultClientID), 900144)

	clock.add(91 * 24 * time.Hour)
	wantAAD(t, p.refresh(second), 700082)
}

func TestRefreshTokensEndWhenSomebodyEndsThem(t *testing.T) {
	p := start(t, quick())
	revoked := p.signIn()
	p.RevokeRefreshTokens(strings.ToUpper(analyst))
	wantAAD(t, p.refresh(revoked), 50173)
	expired := p.signIn()
	p.ExpireRefreshTokens(analyst)
	wantAAD(t, p.refresh(expired), 700082)

	p.SetSingleUseRefreshTokens(true)
	first := p.signIn()
	second := p.field(p.refresh(first), "refresh_token")
	wantAAD(t, p.refresh(first), 70000)
	wantAAD(t, p.refresh(second), 50173)
	p.SetSingleUseRefreshTokens(false)

	good := p.signIn()
	if err := p.SetUser(DefaultTenantID, DefaultClientID, User{Name: analyst, Password: password, Disabled: true}); err != nil {
		t.Fatal(err)
	}
	wantAAD(t, p.refresh(good), 50057)
}

func TestAPasswordAloneDoesNotPassASecondFactor(t *testing.T) {
	p := start(t, quick())
	u := DefaultTenant().Apps[0].Users[0]
	u.MFA = true
	if err := p.SetUser(DefaultTenantID, DefaultClientID, u); err != nil {
		t.Fatal(err)
	}
	wantAAD(t, p.v2("grant_type", "password", "client_id", DefaultClientID, "username", analyst, "password", password, "scope", mdeScope), 50076)
	wantAAD(t, p.v2("grant_type", "password", "client_id", DefaultClientID, "username", analyst, "password", "wrong", "scope", mdeScope), 50126)
}

func TestAPublicClientShowsNoCredential(t *testing.T) {
	cfg := quick()
	cfg.Tenants[0].Apps[0].Public = true
	p := start(t, cfg)
	wantAAD(t, p.v2("grant_type", "password", "client_id", DefaultClientID, "client_secret", DefaultSecret, "username", analyst, "password", password, "scope", mdeScope), 700025)
	wantAAD(t, p.v2("grant_type", "client_credentials", "client_id", DefaultClientID, "scope", mdeScope), 7000218)
	if p.signIn() == "" {
		t.Error("without a credential there was no token")
	}
}

func TestADeviceGetsATokenOnceSomebodyTypesItsCode(t *testing.T) {
	cfg, clock := withClock()
	cfg.DeviceInterval = time.Second
	p := start(t, cfg)
	begin := func() (device, user string) {
		t.Helper()
		a := p.form(tenantPath+"/oauth2/v2.0/devicecode", formOf("client_id", DefaultClientID, "scope", mdeScope+" offline_access openid profile")).object(t)
		user, _ = a["user_code"].(string)
		device, _ = a["device_code"].(string)
		if user == "" || device == "" || a["expires_in"] != 900.0 || a["interval"] != 1.0 || !strings.Contains(a["message"].(string), user) || !strings.Contains(a["message"].(string), a["verification_uri"].(string)) {
			t.Fatalf("answer %v", a)
		}
		return device, user
	}
	poll := func(code string) answer {
		t.Helper()
		return p.v2("grant_type", "urn:ietf:params:oauth:grant-type:device_code", "client_id", DefaultClientID, "device_code", code)
	}
	wantError := func(a answer, code int, oauth string) {
		t.Helper()
		wantAAD(t, a, code)
		if got := a.object(t)["error"]; got != oauth {
			t.Errorf("error is %v, want %s", got, oauth)
		}
	}
	device, user := begin()
	wantError(poll(device), 70016, "authorization_pending")
	if err := p.ApproveDevice("NOSUCHONE", analyst); err == nil {
		t.Error("an unknown code was approved")
	}
	if err := p.ApproveDevice(user, "nobody@contoso.onmicrosoft.com"); err == nil || !strings.Contains(err.Error(), "AADSTS50034") {
		t.Errorf("an unknown user: got %v", err)
	}
	if err := p.ApproveDevice(strings.ToLower(user), analyst); err != nil {
		t.Fatal(err)
	}
	if err := p.DeclineDevice(user); err == nil {
		t.Error("an approved code was declined")
	}
	a := poll(device)
	if c := p.claimsOf(p.field(a, "access_token")); c["upn"] != analyst || c["aud"] != resources["mde"] {
		t.Errorf("claims %v", c)
	}
	if a := p.refresh(p.field(a, "refresh_token")); a.status != 200 {
		t.Errorf("its refresh token: got %d %s", a.status, a.body)
	}
	wantError(poll(device), 70018, "bad_verification_code")

	device, user = begin()
	if err := p.DeclineDevice(user); err != nil {
		t.Fatal(err)
	}
	wantError(poll(device), 65004, "authorization_declined")

	device, user = begin()
	clock.add(16 * time.Minute)
	wantError(poll(device), 70019, "expired_token")
	if err := p.ApproveDevice(user, analyst); err == nil {
		t.Error("an expired code was approved")
	}
	wantAAD(t, p.form(tenantPath+"/oauth2/v2.0/devicecode", formOf("scope", mdeScope)), 900144)
	if a := p.do("GET", p.Authority()+"/common/oauth2/deviceauth", "", ""); a.status != 200 {
		t.Errorf("the page for codes: got %d", a.status)
	}
}

// authorize opens the authorization endpoint as a browser would, and reads
// where it was sent.
func (p *peer) authorize(change ...string) (answer, url.Values) {
	p.t.Helper()
	q := formOf(append([]string{
		"client_id", DefaultClientID, "response_type", "code", "redirect_uri", "http://localhost:5005", "scope", mdeScope + " offline_access openid",
		"state", "s+1 &", "response_mode", "query", "login_hint", analyst, "code_challenge", challengeOf("v"), "code_challenge_method", "S256",
	}, change...)...)
	a := p.do("GET", p.Authority()+tenantPath+"/oauth2/v2.0/authorize?"+q.Encode(), "", "")
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		p.t.Fatal(err)
	}
	return a, u.Query()
}

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (p *peer) redeem(code string, change ...string) answer {
	p.t.Helper()
	return p.v2(append([]string{"grant_type", "authorization_code", "client_id", DefaultClientID, "code", code, "redirect_uri", "http://localhost:5005", "code_verifier", "v"}, change...)...)
}

func TestAnAuthorizationCodeIsRedeemedOnce(t *testing.T) {
	cfg, clock := withClock()
	p := start(t, cfg)
	a, back := p.authorize()
	if a.status != 302 || back.Get("state") != "s+1 &" || back.Get("code") == "" || !strings.HasPrefix(a.header.Get("Location"), "http://localhost:5005?") {
		t.Fatalf("got %d, Location of %d bytes, state %q", a.status, len(a.header.Get("Location")), back.Get("state"))
	}
	wantAAD(t, p.redeem(back.Get("code"), "code_verifier", "other"), 501481)
	wantAAD(t, p.redeem(back.Get("code"), "code_verifier", ""), 50148)
	wantAAD(t, p.redeem(back.Get("code"), "redirect_uri", "http://localhost:5006"), 500112)
	wantAAD(t, p.redeem("nonsense"), 70000)
	got := p.redeem(back.Get("code"))
	if c := p.claimsOf(p.field(got, "access_token")); c["upn"] != analyst || c["aud"] != resources["mde"] || p.field(got, "refresh_token") == "" || p.field(got, "id_token") == "" {
		t.Errorf("claims %v", c)
	}
	wantAAD(t, p.redeem(back.Get("code")), 54005)

	_, back = p.authorize()
	clock.add(11 * time.Minute)
	wantAAD(t, p.redeem(back.Get("code")), 70008)
}

func TestTheAuthorizationEndpointRefusesWhereItShould(t *testing.T) {
	cfg := quick()
	cfg.Tenants[0].Apps[0].RedirectURIs = []string{"https://app.example/back", "http://127.0.0.1/here"}
	p := start(t, cfg)
	for _, c := range []struct {
		name   string
		change []string
		code   string // in the page: nothing may be sent to the address
	}{
		{"an address that is not registered", []string{"redirect_uri", "https://evil.example/"}, "AADSTS50011"},
		{"a registered address with more to it", []string{"redirect_uri", "https://app.example/back/more"}, "AADSTS50011"},
		{"a loopback address that is not registered", []string{"redirect_uri", "http://127.0.0.1:5005"}, "AADSTS50011"},
		{"an address that only looks like loopback", []string{"redirect_uri", "http://localhost@evil.example/"}, "AADSTS50011"},
		{"no address", []string{"redirect_uri", ""}, "AADSTS900971"},
		{"an unknown application", []string{"client_id", "33333333-3333-3333-3333-333333333333"}, "AADSTS700016"},
	} {
		if a, _ := p.authorize(c.change...); a.status != 400 || !strings.Contains(string(a.body), c.code) || a.header.Get("Location") != "" {
			t.Errorf("%s: got %d %s, Location %q", c.name, a.status, a.body, a.header.Get("Location"))
		}
	}
	for _, c := range []struct {
		name   string
		change []string
		oauth  string
	}{
		{"another response type", []string{"response_type", "token"}, "unsupported_response_type"},
		{"a challenge that is too short", []string{"code_challenge", "abc"}, "invalid_request"},
		{"nobody signed in, and no page wanted", []string{"login_hint", "", "prompt", "none"}, "login_required"},
		{"an unknown user", []string{"login_hint", "nobody@contoso.onmicrosoft.com"}, "access_denied"},
		{"no scope", []string{"scope", ""}, "invalid_request"},
	} {
		if a, back := p.authorize(c.change...); a.status != 302 || back.Get("error") != c.oauth || !strings.HasPrefix(back.Get("error_description"), "AADSTS") || back.Get("state") == "" || back.Get("code") != "" {
			t.Errorf("%s: got %d, %s %s, want %s", c.name, a.status, back.Get("error"), back.Get("error_description"), c.oauth)
		}
	}
	if a, _ := p.authorize("login_hint", ""); a.status != 200 {
		t.Errorf("nobody signed in: got %d, want the page to sign in", a.status)
	}
	if _, back := p.authorize("redirect_uri", "http://127.0.0.1:5005/here"); back.Get("code") == "" {
		t.Error("a registered loopback address with a port got no code")
	}
	p.SetSignedInUser(analyst)
	if _, back := p.authorize("login_hint", ""); back.Get("code") == "" {
		t.Error("the user who is signed in got no code")
	}
	if err := p.SetEntra(Fault{Kind: FaultAADSTS, Code: 65004, Match: tenantPath + "/oauth2/v2.0/authorize", Count: 1}); err != nil {
		t.Fatal(err)
	}
	if _, back := p.authorize(); back.Get("error") != "access_denied" || back.Get("code") != "" {
		t.Errorf("a user who says no: got %v", back.Get("error"))
	}
	// The platform Web has a secret to show.
	_, back := p.authorize("redirect_uri", "https://app.example/back")
	wantAAD(t, p.redeem(back.Get("code"), "redirect_uri", "https://app.example/back"), 7000218)
	if a := p.redeem(back.Get("code"), "redirect_uri", "https://app.example/back", "client_secret", DefaultSecret); a.status != 200 {
		t.Errorf("with its secret: got %d %s", a.status, a.body)
	}
}

func TestConsentIsAskedForAndGiven(t *testing.T) {
	cfg := quick()
	cfg.Tenants[0].Apps[0].Unconsented = true
	p := start(t, cfg)
	wantAAD(t, p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2)), 700016)
	wantAAD(t, p.v2("grant_type", "password", "client_id", DefaultClientID, "username", analyst, "password", password, "scope", mdeScope), 65001)
	if _, back := p.authorize(); back.Get("error") != "consent_required" {
		t.Errorf("authorize: got %q", back.Get("error"))
	}
	if a := p.do("GET", p.Authority()+"/common/adminconsent?client_id=33333333-3333-3333-3333-333333333333", "", ""); a.status != 400 {
		t.Errorf("an unknown application: got %d", a.status)
	}
	a := p.do("GET", p.Authority()+tenantPath+"/v2.0/adminconsent?client_id="+DefaultClientID+"&state=1&redirect_uri="+url.QueryEscape("http://localhost/done"), "", "")
	if to := a.header.Get("Location"); a.status != 302 || !strings.Contains(to, "admin_consent=True") || !strings.Contains(to, "tenant="+DefaultTenantID) || !strings.Contains(to, "state=1") {
		t.Errorf("got %d to %q", a.status, to)
	}
	if a := p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2)); a.status != 200 {
		t.Errorf("after the consent: got %d %s", a.status, a.body)
	}
	if err := p.SetConsented(DefaultTenantID, DefaultClientID, false); err != nil {
		t.Fatal(err)
	}
	if a := p.do("GET", p.Authority()+"/common/adminconsent?client_id="+DefaultClientID, "", ""); a.status != 200 {
		t.Errorf("the older page: got %d %s", a.status, a.body)
	}
	p.signIn()
}

func TestSessionsAreBounded(t *testing.T) {
	kept, taken := newBounded[int](3), newBounded[int](3)
	for i := range 100 {
		key := fmt.Sprint(i)
		kept.add(key, i)
		taken.add(key, i)
		delete(taken.rows, key)
	}
	if len(kept.rows) != 3 || kept.rows["99"] != 99 || kept.rows["97"] != 97 || len(kept.order) > 7 {
		t.Errorf("got %v, %d in order; want the newest three", kept.rows, len(kept.order))
	}
	if len(taken.rows) != 0 || len(taken.order) > 7 {
		t.Errorf("of what was taken, %d rows and %d in order are left", len(taken.rows), len(taken.order))
	}
}
