package simulator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestTokensOutliveTheRotationOfKeysUntilTheOldOnesAreForgotten(t *testing.T) {
	p := start(t, quick())
	kids := func() int {
		return len(p.do("GET", p.Authority()+"/common/discovery/v2.0/keys", "", "").object(t)["keys"].([]any))
	}
	old := p.token("mde")
	if a := p.do("POST", p.ControlURL()+"/rotate-keys", "", ""); a.status != 204 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	fresh := p.token("mde")
	header := func(token string) any {
		parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Header["kid"]
	}
	if header(old) == header(fresh) || kids() != 2 {
		t.Errorf("same key %v, %d keys in the set; want another key, and both", header(old) == header(fresh), kids())
	}
	p.claimsOf(old) // verifies
	p.claimsOf(fresh)
	status := func(token string) int {
		return p.do("GET", p.Endpoint("eu")+"/api/alerts?$top=1", token, "").status
	}
	if a, b := status(old), status(fresh); a != 200 || b != 200 {
		t.Errorf("after the rotation: %d and %d, want 200 for both", a, b)
	}
	p.ForgetOldKeys()
	if a, b := status(old), status(fresh); a != 401 || b != 200 || kids() != 1 {
		t.Errorf("after the old ones were forgotten: %d and %d with %d keys, want 401 and 200 with 1", a, b, kids())
	}
	if n := p.RefusedCounts()[RefusedUnknownKey]; n != 1 {
		t.Errorf("%d refused for their key, want 1", n)
	}
}

func TestAStrayKeyIsRefused(t *testing.T) {
	p := start(t, quick())
	if err := p.SetEntra(Fault{Kind: FaultWrongKey, Count: 1}); err != nil {
		t.Fatal(err)
	}
	stray := p.token("mde")
	if a := p.do("GET", p.Endpoint("eu")+"/api/alerts", stray, ""); a.status != 401 {
		t.Errorf("got %d", a.status)
	}
	if last := p.Refused(); len(last) != 1 || last[0].Reason != RefusedUnknownKey || last[0].Path != "/api/alerts" || last[0].Token.Audience != resources["mde"] {
		t.Errorf("refused %+v", last)
	}
}

func TestTokensForGraphVerifyOnlyWithTheirNonceHashed(t *testing.T) {
	p := start(t, quick())
	token := p.token("graph")
	verify := func(token string) error {
		_, err := jwt.Parse(token, func(parsed *jwt.Token) (any, error) { return p.signer.published(parsed.Header["kid"]), nil })
		return err
	}
	if err := verify(token); err == nil {
		t.Error("the token verifies as it stands")
	}
	head, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	var header map[string]string
	if err != nil || json.Unmarshal(raw, &header) != nil || header["nonce"] == "" {
		t.Errorf("header %s", raw)
	}
	if err := verify(hashNonce(token)); err != nil {
		t.Errorf("with its nonce hashed: %v", err)
	}
	if a := p.do("POST", p.Endpoint("eu")+"/v1.0/security/runHuntingQuery", token, `{"Query":"DeviceInfo | take 1"}`); a.status != 200 {
		t.Errorf("Graph takes it: got %d %s", a.status, a.body)
	}
	cfg := quick()
	cfg.PlainGraphTokens = true
	plain := start(t, cfg)
	plain.claimsOf(plain.token("graph"))
}

func TestAClaimsChallengeIsAnsweredByANewTokenWithThoseClaims(t *testing.T) {
	p := start(t, quick())
	get := func(token string) answer { return p.do("GET", p.Endpoint("eu")+"/api/alerts?$top=1", token, "") }
	ask := func(claims string) string {
		return p.field(p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2, "claims", claims)), "access_token")
	}
	const early = `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`
	before := ask(early)
	if err := p.SetRegion("eu", Fault{Kind: FaultClaimsChallenge, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	a := get(before)
	m := regexp.MustCompile(`^Bearer realm="", authorization_uri="https://[^"]+/common/oauth2/authorize", error="insufficient_claims", claims="([A-Za-z0-9+/=]+)"$`).FindStringSubmatch(a.header.Get("WWW-Authenticate"))
	if a.status != 401 || m == nil {
		t.Fatalf("got %d, WWW-Authenticate %q", a.status, a.header.Get("WWW-Authenticate"))
	}
	claims, err := base64.StdEncoding.DecodeString(m[1])
	if err != nil || !regexp.MustCompile(`^\{"access_token":\{"nbf":\{"essential":true,"value":"\d{10}"\}\}\}$`).Match(claims) {
		t.Fatalf("claims %s, %v", claims, err)
	}
	if a := get(p.token("mde")); a.status != 401 {
		t.Errorf("a new token without the claims: got %d", a.status)
	}
	if a := get(ask(string(claims))); a.status != 200 {
		t.Errorf("a new token with them: got %d %s", a.status, a.body)
	}
	found := false
	for _, r := range p.Requests() {
		found = found || r.Claims == string(claims) && r.Grant == "client_credentials"
	}
	if !found {
		t.Error("the claims are in no record")
	}
	if n := p.RefusedCounts()[RefusedOutdated]; n != 2 {
		t.Errorf("%d tokens were refused as outdated, want 2", n)
	}
	if c := p.claimsOf(ask(`{"access_token":{"xms_cc":{"values":["cp1"]}}}`)); fmt.Sprint(c["xms_cc"]) != "[cp1]" {
		t.Errorf("xms_cc is %v", c["xms_cc"])
	}
	for _, bad := range []string{"{", "[]", "cp1", `{"access_token":1}`} {
		wantAAD(t, p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2, "claims", bad)), 90023)
	}
}

func TestWhatARefusedTokenSaidOfItselfIsKept(t *testing.T) {
	cfg, clock := withClock()
	p := start(t, cfg)
	token := p.token("mde")
	var c claims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &c); err != nil {
		t.Fatal(err)
	}
	get := func(token string) { p.do("GET", p.Endpoint("eu")+"/api/alerts?$top=1", token, "") }
	get(token)
	get("")
	get("nonsense")
	get(p.token("xdr"))
	p.Revoke()
	get(token)
	clock.add(2 * time.Hour)
	// Neither a fault nor a delay hides a dead token.
	if err := p.SetRegion("eu", Fault{Kind: FaultStatus, Status: 503}); err != nil {
		t.Fatal(err)
	}
	get(token)
	reasons := ""
	for _, r := range p.Refused() {
		reasons += string(r.Reason) + " "
	}
	if reasons != "malformed wrong_audience revoked expired " {
		t.Errorf("refused: %s", reasons)
	}
	if n := p.RefusedCounts(); n[RefusedMissing] != 1 || n[RefusedExpired] != 1 {
		t.Errorf("counts: %v", n)
	}
	last := p.Refused()[3]
	want := PresentedToken{ID: c.TokenID, Tenant: DefaultTenantID, App: DefaultClientID, Audience: resources["mde"], Expires: time.Unix(c.Expires, 0).UTC()}
	if last.Token != want {
		t.Errorf("got %+v, want %+v", last.Token, want)
	}
	for _, r := range p.Requests() {
		if r.Number == last.Number && (r.Refused != RefusedExpired || *r.Token != want) {
			t.Errorf("the request's record has %q, %+v", r.Refused, r.Token)
		}
		if r.Listener == "api" && r.Refused == "" && (r.Token == nil || r.Token.ID != c.TokenID) {
			t.Errorf("request %d with a good token has %+v", r.Number, r.Token)
		}
	}
	shown := string(p.do("GET", p.ControlURL()+"/refused", "", "").body) + string(p.do("GET", p.ControlURL()+"/requests", "", "").body)
	if strings.Contains(shown, token) || !strings.Contains(shown, `"reason":"expired"`) {
		t.Error("the control port shows a token, or not why it was refused")
	}
	if err := p.Reset(); err != nil {
		t.Fatal(err)
	}
	if len(p.Refused()) != 0 || len(p.RefusedCounts()) != 0 {
		t.Error("a reset left something")
	}
}

func TestTheControlPortReachesCredentials(t *testing.T) {
	cfg := quick()
	cfg.Tenants[0].Apps[0].Unconsented = true
	p := start(t, cfg)
	do := func(method, path, body string) {
		t.Helper()
		if a := p.do(method, p.ControlURL()+path, "", body); a.status != 204 {
			t.Errorf("%s %s: got %d %s", method, path, a.status, a.body)
		}
	}
	app := "/apps/contoso.onmicrosoft.com/" + DefaultClientID
	der := base64.StdEncoding.EncodeToString(selfSigned(t, testKeys()[0], time.Now(), time.Now().Add(time.Hour)))
	do("PUT", app, `{"consented":true,"permissions":{"vault":["Key Vault Secrets User"]},"certificates":["`+der+`"],"federated":[{"issuer":"i","subject":"s","audience":"a"}]}`)
	do("PUT", "/vault/secrets/api", `{"value":"from the control port","expires":"2030-01-02T03:04:05Z"}`)
	if a := p.do("GET", p.VaultURL()+"/secrets/api?api-version=7.5", p.vaultToken(), ""); p.field(a, "value") != "from the control port" {
		t.Errorf("got %s", a.body)
	}
	do("PUT", "/vault/secrets/api", `{"enabled":false}`)
	do("DELETE", "/vault/secrets/api", "")
	do("PUT", "/vault/fault", `{"kind":"throttle"}`)
	do("DELETE", "/vault/fault", "")
	do("PUT", "/identity/fault", `{"kind":"status","status":410}`)
	do("DELETE", "/identity/fault", "")
	do("POST", "/identity/forget", "")
	do("PUT", "/signed-in", `{"user":"`+analyst+`"}`)
	do("POST", "/refresh-tokens/revoke", `{"user":"`+analyst+`"}`)
	do("POST", "/refresh-tokens/expire", `{"user":"`+analyst+`"}`)
	do("PUT", "/refresh-tokens/single-use", `{"on":true}`)
	do("POST", "/forget-old-keys", "")
	code := p.field(p.form(tenantPath+"/oauth2/v2.0/devicecode", formOf("client_id", DefaultClientID, "scope", mdeScope)), "user_code")
	do("PUT", "/devices/"+code, `{"user":"`+analyst+`"}`)
	code = p.field(p.form(tenantPath+"/oauth2/v2.0/devicecode", formOf("client_id", DefaultClientID, "scope", mdeScope)), "user_code")
	do("DELETE", "/devices/"+code, "")
	token := p.do("POST", p.ControlURL()+"/workload-token", "", `{"subject":"pod","life":"5m"}`)
	if parsed, _, err := jwt.NewParser().ParseUnverified(string(token.body), jwt.MapClaims{}); err != nil || parsed.Claims.(jwt.MapClaims)["sub"] != "pod" {
		t.Errorf("a workload's token: %d, %v", token.status, err)
	}
	state := string(p.do("GET", p.ControlURL()+"/state", "", "").body)
	for _, part := range []string{`"certificates":1`, `"consented":true`, `"vault":"` + p.VaultURL(), `"identity":"` + p.IdentityURL()} {
		if !strings.Contains(state, part) {
			t.Errorf("the state lacks %s", part)
		}
	}
	if strings.Contains(state, "from the control port") {
		t.Error("the state shows a secret")
	}
	for path, body := range map[string]string{
		"/devices/NONE": `{"user":"x"}`, "/vault/secrets/a_b": `{"value":"x"}`, "/vault/fault": `{"kind":"garbage"}`,
		"/identity/fault": `{"kind":"tls"}`, "/workload-token": `{"life":"soon"}`, app: `{"certificates":["AAAA"]}`,
	} {
		if a := p.do("PUT", p.ControlURL()+path, "", body); a.status != 400 {
			t.Errorf("%s %s: got %d, want 400", path, body, a.status)
		}
	}
}

func TestAThousandTenantsCostTheirSettingsAlone(t *testing.T) {
	cfg := quick()
	cfg.Tenants = nil
	for i := range 1000 {
		cfg.Tenants = append(cfg.Tenants, Tenant{
			ID: fmt.Sprintf("00000000-0000-0000-0000-%012d", i+1), Name: fmt.Sprintf("tenant%d", i),
			Apps: []App{{ClientID: DefaultClientID, Secrets: []string{fmt.Sprint("secret ", i)}, Permissions: map[string][]string{"mde": {"Machine.Read.All"}}}},
		})
	}
	begun := time.Now()
	p := start(t, cfg)
	t.Logf("a thousand tenants were there after %v", time.Since(begun))
	for _, i := range []int{0, 999} {
		token := p.field(p.form(fmt.Sprintf("/tenant%d.onmicrosoft.com/oauth2/v2.0/token", i), secretForm(2, "client_secret", fmt.Sprint("secret ", i))), "access_token")
		if a := p.do("GET", p.Endpoint("eu")+"/api/machines?$top=1", token, ""); a.status != 200 {
			t.Errorf("tenant %d: got %d", i, a.status)
		}
	}
}

func TestRefusalsQuoteNothingThatWasSecret(t *testing.T) {
	p := start(t, quick())
	const canary = "canary-5ecret-value"
	for name, form := range map[string]url.Values{
		"a secret":        secretForm(2, "client_secret", canary),
		"an assertion":    assertionForm(2, canary),
		"a refresh token": formOf("grant_type", "refresh_token", "client_id", DefaultClientID, "refresh_token", canary),
		"a code":          formOf("grant_type", "authorization_code", "client_id", DefaultClientID, "code", canary, "redirect_uri", "http://localhost", "code_verifier", canary),
		"a device code":   formOf("grant_type", "device_code", "client_id", DefaultClientID, "device_code", canary),
		"a password":      formOf("grant_type", "password", "client_id", DefaultClientID, "username", analyst, "password", canary, "scope", mdeScope),
	} {
		if a := p.form(tenantPath+"/oauth2/v2.0/token", form); a.status < 400 || strings.Contains(string(a.body), canary) {
			t.Errorf("%s: got %d %s", name, a.status, a.body)
		}
	}
	if records, err := json.Marshal(p.Requests()); err != nil || strings.Contains(string(records), canary) {
		t.Errorf("the records hold it, or %v", err)
	}
}
