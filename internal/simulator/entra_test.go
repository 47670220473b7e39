package simulator

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const tenantPath = "/" + DefaultTenantID

// secretForm is a token request of either version.
func secretForm(version int, change ...string) url.Values {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {DefaultClientID}, "client_secret": {DefaultSecret}}
	if version == 1 {
		form.Set("resource", resources["mde"])
	} else {
		form.Set("scope", resources["mde"]+"/.default")
	}
	for i := 0; i+1 < len(change); i += 2 {
		if change[i+1] == "" {
			form.Del(change[i])
		} else {
			form.Set(change[i], change[i+1])
		}
	}
	return form
}

func TestEntraRefusesInItsOwnWords(t *testing.T) {
	p := start(t, quick())
	if err := p.ExpireSecret(DefaultTenantID, DefaultClientID, "old-secret"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		path   string
		form   url.Values
		code   int
		status int
		oauth  string
	}{
		{"a wrong secret", "/oauth2/v2.0/token", secretForm(2, "client_secret", "wrong"), 7000215, 401, "invalid_client"},
		{"an expired secret", "/oauth2/v2.0/token", secretForm(2, "client_secret", "old-secret"), 7000222, 401, "invalid_client"},
		{"no secret", "/oauth2/v2.0/token", secretForm(2, "client_secret", ""), 7000218, 401, "invalid_client"},
		{"an unknown application", "/oauth2/token", secretForm(1, "client_id", "33333333-3333-3333-3333-333333333333"), 700016, 400, "unauthorized_client"},
		{"no application", "/oauth2/token", secretForm(1, "client_id", ""), 900144, 400, "invalid_request"},
		{"no grant type", "/oauth2/token", secretForm(1, "grant_type", ""), 900144, 400, "invalid_request"},
		{"no resource", "/oauth2/token", secretForm(1, "resource", ""), 900144, 400, "invalid_request"},
		{"an unknown grant", "/oauth2/token", secretForm(1, "grant_type", "magic"), 70003, 400, "unsupported_grant_type"},
		{"an unknown resource", "/oauth2/token", secretForm(1, "resource", "https://example.com"), 500011, 400, "invalid_resource"},
		{"a regional host as the audience", "/oauth2/v2.0/token", secretForm(2, "scope", "https://eu.api.security.microsoft.com/.default"), 500011, 400, "invalid_resource"},
		{"a scope without /.default", "/oauth2/v2.0/token", secretForm(2, "scope", resources["mde"]+"/Alert.Read"), 1002012, 400, "invalid_scope"},
		{"two scopes", "/oauth2/v2.0/token", secretForm(2, "scope", resources["mde"]+"/.default "+resources["xdr"]+"/.default"), 70011, 400, "invalid_scope"},
		{"a wrong password", "/oauth2/token", userForm("wrong"), 50126, 400, "invalid_grant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := p.form(tenantPath+c.path, c.form)
			var e struct {
				Error         string `json:"error"`
				Description   string `json:"error_description"`
				Codes         []int  `json:"error_codes"`
				TraceID       string `json:"trace_id"`
				CorrelationID string `json:"correlation_id"`
				Timestamp     string `json:"timestamp"`
			}
			if err := json.Unmarshal(a.body, &e); err != nil {
				t.Fatal(err)
			}
			if a.status != c.status || e.Error != c.oauth || len(e.Codes) != 1 || e.Codes[0] != c.code {
				t.Errorf("got %d %s %v, want %d %s [%d]", a.status, e.Error, e.Codes, c.status, c.oauth, c.code)
			}
			for _, part := range []string{fmt.Sprintf("AADSTS%d: ", c.code), "Trace ID: " + e.TraceID, "Correlation ID: " + e.CorrelationID, "Timestamp: " + e.Timestamp} {
				if !strings.Contains(e.Description, part) {
					t.Errorf("description %q lacks %q", e.Description, part)
				}
			}
			if strings.Contains(string(a.body), DefaultSecret) || strings.Contains(e.Description, "%!") {
				t.Errorf("bad description: %s", e.Description)
			}
		})
	}
	if a := p.form("/99999999-9999-9999-9999-999999999999/oauth2/token", secretForm(1)); a.status != 400 || !strings.Contains(string(a.body), "AADSTS90002") {
		t.Errorf("an unknown tenant: got %d %s", a.status, a.body)
	}
	if a := p.do("GET", p.Authority()+tenantPath+"/oauth2/token", "", ""); a.status != 400 || !strings.Contains(string(a.body), "AADSTS900561") {
		t.Errorf("GET: got %d %s", a.status, a.body)
	}
	if err := p.SetDisabled(DefaultTenantID, DefaultClientID, true); err != nil {
		t.Fatal(err)
	}
	if a := p.form(tenantPath+"/oauth2/token", secretForm(1)); !strings.Contains(string(a.body), "AADSTS7000112") {
		t.Errorf("a disabled application: got %d %s", a.status, a.body)
	}
}

func userForm(password string) url.Values {
	return url.Values{"grant_type": {"password"}, "client_id": {DefaultClientID}, "username": {"analyst@contoso.onmicrosoft.com"}, "password": {password}, "resource": {resources["mde"]}}
}

// claimsOf verifies a token against the published keys and reads its claims.
func (p *peer) claimsOf(token string) jwt.MapClaims {
	p.t.Helper()
	var set struct {
		Keys []struct{ Kid, N, E string }
	}
	if err := json.Unmarshal(p.do("GET", p.Authority()+"/common/discovery/keys", "", "").body, &set); err != nil {
		p.t.Fatal(err)
	}
	c := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, c, func(tok *jwt.Token) (any, error) {
		for _, k := range set.Keys {
			if k.Kid == tok.Header["kid"] {
				n, err1 := jwt.NewParser().DecodeSegment(k.N)
				e, err2 := jwt.NewParser().DecodeSegment(k.E)
				if err1 != nil || err2 != nil {
					return nil, fmt.Errorf("%v %v", err1, err2)
				}
				return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
			}
		}
		return nil, fmt.Errorf("no key %v", tok.Header["kid"])
	}, jwt.WithValidMethods([]string{"RS256"}))
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func TestTokensOfBothVersionsHaveTheDocumentedForm(t *testing.T) {
	p := start(t, quick())
	v1 := p.form("/contoso.onmicrosoft.com/oauth2/token", secretForm(1)).object(t)
	if v1["expires_in"] != "3599" || v1["resource"] != resources["mde"] || v1["token_type"] != "Bearer" {
		t.Errorf("v1 answer: expires_in %v, resource %v", v1["expires_in"], v1["resource"])
	}
	if on, ok := v1["expires_on"].(string); !ok || len(on) < 10 {
		t.Errorf("v1 answer: expires_on %v is no string of seconds", v1["expires_on"])
	}
	v2 := p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2)).object(t)
	if v2["expires_in"] != 3599.0 || v2["ext_expires_in"] != 3599.0 || v2["resource"] != nil {
		t.Errorf("v2 answer: expires_in %v, resource %v", v2["expires_in"], v2["resource"])
	}
	for name, token := range map[string]string{"v1": v1["access_token"].(string), "v2": v2["access_token"].(string)} {
		c := p.claimsOf(token)
		for claim, want := range map[string]any{
			"aud": resources["mde"], "iss": "https://sts.windows.net/" + DefaultTenantID + "/", "tid": DefaultTenantID, "appid": DefaultClientID, "ver": "1.0", "idtyp": "app",
		} {
			if c[claim] != want {
				t.Errorf("%s: claim %s is %v, want %v", name, claim, c[claim], want)
			}
		}
		if c["uti"] == "" || c["oid"] != c["sub"] || len(c["roles"].([]any)) == 0 || c["scp"] != nil {
			t.Errorf("%s: claims %v", name, c)
		}
	}
	if err := p.SetPermissions(DefaultTenantID, DefaultClientID, "mde"); err != nil {
		t.Fatal(err)
	}
	bare := p.form(tenantPath+"/oauth2/token", secretForm(1)).object(t)
	if c := p.claimsOf(bare["access_token"].(string)); c["roles"] != nil {
		t.Errorf("without permissions the token has roles %v", c["roles"])
	}
	user := p.form(tenantPath+"/oauth2/token", userForm("simulated-Password-1")).object(t)
	if c := p.claimsOf(user["access_token"].(string)); c["scp"] != "Alert.Read Machine.Read AdvancedQuery.Read" || c["roles"] != nil {
		t.Errorf("a user's token has scp %v, roles %v", c["scp"], c["roles"])
	}
	if a := p.do("GET", p.Endpoint("us")+"/api/alerts?$top=1", user["access_token"].(string), ""); a.status != 200 {
		t.Errorf("a user's token reads alerts: got %d %s", a.status, a.body)
	}
	if a := p.do("GET", p.Endpoint("us")+"/api/indicators", user["access_token"].(string), ""); a.status != 403 || !strings.Contains(string(a.body), "Ti.ReadWrite") {
		t.Errorf("a user's token reads indicators: got %d %s", a.status, a.body)
	}
}

func TestSecretsInABasicHeaderAreDecoded(t *testing.T) {
	cfg := quick()
	cfg.Tenants[0].Apps[0].Secrets = []string{"a+b/c~d e%"}
	p := start(t, cfg)
	r, err := http.NewRequest("POST", p.Authority()+tenantPath+"/oauth2/v2.0/token", strings.NewReader(secretForm(2, "client_secret", "", "client_id", "").Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(DefaultClientID), url.QueryEscape("a+b/c~d e%"))
	a, err := p.send(r)
	if err != nil || a.status != 200 {
		t.Errorf("got %d %s, %v", a.status, a.body, err)
	}
}

func TestDiscoveryNamesItsOwnEndpoints(t *testing.T) {
	p := start(t, quick())
	for path, want := range map[string]map[string]string{
		"/v2.0/.well-known/openid-configuration": {
			"issuer": p.Authority() + tenantPath + "/v2.0", "token_endpoint": p.Authority() + tenantPath + "/oauth2/v2.0/token", "jwks_uri": p.Authority() + tenantPath + "/discovery/v2.0/keys"},
		"/.well-known/openid-configuration": {
			"issuer": "https://sts.windows.net" + tenantPath + "/", "token_endpoint": p.Authority() + tenantPath + "/oauth2/token", "jwks_uri": p.Authority() + "/common/discovery/keys"},
	} {
		doc := p.do("GET", p.Authority()+tenantPath+path, "", "").object(t)
		for key, value := range want {
			if doc[key] != value {
				t.Errorf("%s: %s is %v, want %s", path, key, doc[key], value)
			}
		}
		if a := p.do("GET", doc["jwks_uri"].(string), "", ""); a.status != 200 || len(a.object(t)["keys"].([]any)) != 1 {
			t.Errorf("%s: keys %d %s", path, a.status, a.body)
		}
	}
}

func TestTheAPIRefusesTokensThatAreNotGood(t *testing.T) {
	p := start(t, quick())
	s := p.signer
	now := time.Now()
	good := claims{Audience: resources["mde"], TenantID: DefaultTenantID, AppID: DefaultClientID, IDType: "app", Roles: []string{"Alert.Read.All"}}
	sign := func(c claims, life time.Duration) string {
		token, err := s.sign(c, now, life)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	with := func(change func(*claims)) claims { c := good; change(&c); return c }
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	forger := newSigner(other, time.Hour)
	forger.kid = s.kid
	forged, err := forger.sign(good, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"aud": resources["mde"], "tid": DefaultTenantID, "exp": now.Add(time.Hour).Unix()}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	if a := p.do("GET", p.Endpoint("eu")+"/api/alerts?$top=1", sign(good, time.Hour), ""); a.status != 200 {
		t.Fatalf("the good token: %d %s", a.status, a.body)
	}
	for name, token := range map[string]string{
		"expired":                  sign(good, -time.Second),
		"of another key":           forged,
		"unsigned":                 unsigned,
		"for another service":      sign(with(func(c *claims) { c.Audience = resources["xdr"] }), time.Hour),
		"for a regional host":      sign(with(func(c *claims) { c.Audience = "https://eu.api.security.microsoft.com" }), time.Hour),
		"of an unknown tenant":     sign(with(func(c *claims) { c.TenantID = "99999999-9999-9999-9999-999999999999" }), time.Hour),
		"no token":                 "nonsense",
		"with a changed signature": sign(good, time.Hour) + "A",
	} {
		a := p.do("GET", p.Endpoint("eu")+"/api/alerts", token, "")
		if a.status != 401 || a.code() != "Unauthorized" || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), `Bearer error="invalid_token"`) {
			t.Errorf("%s: got %d %s %v", name, a.status, a.body, a.header)
		}
	}
	before := p.token("mde")
	p.Revoke()
	if a := p.do("GET", p.Endpoint("eu")+"/api/alerts", before, ""); a.status != 401 {
		t.Errorf("a revoked token: got %d", a.status)
	}
	if a := p.get("mde", "/api/alerts?$top=1"); a.status != 200 {
		t.Errorf("a token after revocation: got %d %s", a.status, a.body)
	}
	for _, alias := range []string{"https://securitycenter.onmicrosoft.com/windowsatpservice", "https://api.securitycenter.windows.com/"} {
		token := p.form(tenantPath+"/oauth2/token", secretForm(1, "resource", alias)).object(t)["access_token"].(string)
		if a := p.do("GET", p.Endpoint("eu")+"/api/alerts?$top=1", token, ""); a.status != 200 {
			t.Errorf("audience %s: got %d %s", alias, a.status, a.body)
		}
	}
	for _, probe := range []string{"/", "/api/"} {
		if a := p.do("HEAD", p.Endpoint("eu")+probe, "", ""); a.status != 401 {
			t.Errorf("probe HEAD %s: got %d, want 401", probe, a.status)
		}
	}
}

func TestTokensAreShortWhenToldSo(t *testing.T) {
	p := start(t, quick())
	p.SetTokenLifetime(time.Second)
	if got := p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2)).object(t)["expires_in"]; got != 1.0 {
		t.Errorf("expires_in is %v, want 1", got)
	}
	if n := p.Issued()[Issued{DefaultTenantID, DefaultClientID, resources["mde"]}]; n != 1 {
		t.Errorf("%d tokens were counted, want 1", n)
	}
}
