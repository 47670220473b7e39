package placeholder

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// answered decodes an answer into plain maps.
func answered(t *testing.T, q Question) map[string]any {
	t.Helper()
	q.Now = now
	b := Answer(q)
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("not JSON: %v: %s", err, b)
	}
	return m
}

// claimsOf decodes the second part of a JWT, and checks the first.
func claimsOf(t *testing.T, token string) (claims map[string]any, third string) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts, want 3: %s", len(parts), token)
	}
	for i, into := range []any{new(struct{ Typ, Alg string }), &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatalf("part %d: %v: %s", i, err, b)
		}
		if h, ok := into.(*struct{ Typ, Alg string }); ok && (h.Typ != "JWT" || h.Alg != "none") {
			t.Errorf("the header says %+v, want a JWT that is not signed", *h)
		}
	}
	return claims, parts[2]
}

func TestTokenIsWorthNothingAndSaysSo(t *testing.T) {
	m := answered(t, Question{Kind: Token, Base: "https://h", Prefix: "/contoso"})
	want := map[string]any{
		"token_type": "Bearer", "expires_in": 3599.0, "ext_expires_in": 3599.0, "refresh_token": "placeholder",
		"expires_on": "1795266000", "not_before": "1795262100",
	}
	for k, v := range want {
		if m[k] != v {
			t.Errorf("%s: got %#v, want %#v", k, m[k], v)
		}
	}
	for _, never := range []string{"scope", "resource", "error"} {
		if v, ok := m[never]; ok {
			t.Errorf("%s: got %v, want none", never, v)
		}
	}
	access, third := claimsOf(t, m["access_token"].(string))
	if third == "" {
		t.Error("the third part of the access token is empty")
	}
	if _, err := base64.RawURLEncoding.DecodeString(third); err != nil {
		t.Errorf("the third part is not base64: %v", err)
	}
	if access["exp"] != float64(now.Add(time.Hour).Unix()) || access["nbf"] != float64(now.Add(-5*time.Minute).Unix()) {
		t.Errorf("the access token is good from %v until %v", access["nbf"], access["exp"])
	}
	if roles, ok := access["roles"].([]any); !ok || len(roles) != 0 {
		t.Errorf("roles: got %v, want an empty list", access["roles"])
	}
	if !strings.Contains(access["placeholder"].(string), "opens nothing") {
		t.Errorf("the claims do not say what it is: %v", access)
	}

	id, third := claimsOf(t, m["id_token"].(string))
	if third != "" {
		t.Errorf("the ID token says it is not signed, and has the signature %q", third)
	}
	for _, claim := range []string{"sub", "aud", "iss", "exp", "iat", "oid", "preferred_username"} {
		if id[claim] == nil {
			t.Errorf("the ID token lacks %s: %v", claim, id)
		}
	}
	if id["tid"] != nil {
		t.Errorf("the ID token names the tenant %v", id["tid"])
	}
	var client struct{ UID, UTID string }
	b, err := base64.RawURLEncoding.DecodeString(m["client_info"].(string))
	if err == nil {
		err = json.Unmarshal(b, &client)
	}
	if err != nil || client.UID == "" || client.UTID == "" {
		t.Errorf("client_info: got %s, %v, want uid and utid", b, err)
	}
}

func TestTokenLeavesTheIDTokenOutForThoseWhoRefuseIt(t *testing.T) {
	m := answered(t, Question{Kind: Token, NoIDToken: true})
	if _, ok := m["id_token"]; ok || m["client_info"] == nil || m["access_token"] == nil {
		t.Errorf("got %v, want all but an ID token", m)
	}
	for sku, want := range map[string]bool{"MSAL.Python": true, "msal.python": true, "MSAL.Go": false, "msal.js.node": false, "": false} {
		if got := Strict(sku); got != want {
			t.Errorf("Strict(%q): got %v, want %v", sku, got, want)
		}
	}
}

func TestTokenDependsOnTimeAlone(t *testing.T) {
	a := Answer(Question{Kind: Token, Base: "https://h", Prefix: "/a", Tenant: "a", Now: now})
	b := Answer(Question{Kind: Token, Base: "http://other", Prefix: "", Now: now})
	if string(a) != string(b) {
		t.Errorf("two names have two tokens:\n%s\n%s", a, b)
	}
}

func TestAnswers(t *testing.T) {
	const base = "https://login.microsoftonline.com"
	for _, c := range []struct {
		name string
		q    Question
		want map[string]any // of the members that matter
	}{
		{"discovery of version 2", Question{Kind: DiscoveryV2, Base: base, Prefix: "/contoso"}, map[string]any{
			"issuer":                        base + "/contoso/v2.0",
			"authorization_endpoint":        base + "/contoso/oauth2/v2.0/authorize",
			"token_endpoint":                base + "/contoso/oauth2/v2.0/token",
			"device_authorization_endpoint": base + "/contoso/oauth2/v2.0/devicecode",
			"jwks_uri":                      base + "/contoso/discovery/v2.0/keys",
		}},
		{"discovery of version 1", Question{Kind: DiscoveryV1, Base: base, Prefix: "/contoso"}, map[string]any{
			"issuer":                        base + "/contoso",
			"authorization_endpoint":        base + "/contoso/oauth2/authorize",
			"token_endpoint":                base + "/contoso/oauth2/token",
			"device_authorization_endpoint": base + "/contoso/oauth2/devicecode",
			"jwks_uri":                      base + "/contoso/discovery/keys",
		}},
		{"discovery behind a tenant of the proxy's", Question{Kind: DiscoveryV2, Base: "http://h:8080/t/fabrikam", Prefix: "/x/y"}, map[string]any{
			"issuer":         "http://h:8080/t/fabrikam/x/y/v2.0",
			"token_endpoint": "http://h:8080/t/fabrikam/x/y/oauth2/v2.0/token",
		}},
		{"discovery behind an odd prefix", Question{Kind: DiscoveryV1, Base: base, Prefix: `/a'(b)%22&<c>`}, map[string]any{
			"token_endpoint": base + `/a'(b)%22&<c>/oauth2/token`,
		}},
		{"an instance", Question{Kind: Instance, Base: base, Tenant: "contoso"}, map[string]any{
			"tenant_discovery_endpoint": base + "/contoso/v2.0/.well-known/openid-configuration",
			"api-version":               "1.1",
			"metadata": []any{map[string]any{
				"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.microsoftonline.com", "aliases": []any{"login.microsoftonline.com"},
			}},
		}},
		{"an instance with a port, behind a tenant of the proxy's and a prefix", Question{Kind: Instance, Base: "https://h:8443/t/fabrikam", Prefix: "/x", Tenant: "common"}, map[string]any{
			"tenant_discovery_endpoint": "https://h:8443/t/fabrikam/x/common/v2.0/.well-known/openid-configuration",
			"metadata":                  []any{map[string]any{"preferred_network": "h:8443", "preferred_cache": "h:8443", "aliases": []any{"h:8443"}}},
		}},
		{"keys, of which there are none", Question{Kind: Keys, Base: base}, map[string]any{"keys": []any{}}},
		{"a user's realm, which is this one", Question{Kind: UserRealm, Base: base}, map[string]any{
			"account_type": "Managed", "domain_name": "placeholder.invalid", "cloud_instance_name": "microsoftonline.com", "cloud_audience_urn": "urn:federation:MicrosoftOnline",
		}},
		{"a device code", Question{Kind: DeviceCode, Base: base + "/t/x"}, map[string]any{
			"device_code": "placeholder", "user_code": "NOT-NEEDED", "verification_uri": base + "/t/x/", "verification_url": base + "/t/x/", "expires_in": 900.0, "interval": 1.0,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := answered(t, c.q)
			for k, want := range c.want {
				if !reflect.DeepEqual(m[k], want) {
					t.Errorf("%s: got %#v, want %#v", k, m[k], want)
				}
			}
		})
	}
}

// What OpenID Connect Discovery 1.0 requires (section 3), and what MSAL for Node
// refuses a document without.
func TestDiscoveryHasWhatIsRequired(t *testing.T) {
	for _, kind := range []Kind{DiscoveryV1, DiscoveryV2} {
		m := answered(t, Question{Kind: kind, Base: "https://h", Prefix: "/contoso"})
		for _, name := range []string{
			"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri",
			"response_types_supported", "subject_types_supported", "id_token_signing_alg_values_supported",
		} {
			if m[name] == nil {
				t.Errorf("%v: %s is missing", kind, name)
			}
		}
		if algorithms := m["id_token_signing_alg_values_supported"]; !reflect.DeepEqual(algorithms, []any{"RS256"}) {
			t.Errorf("it offers ID tokens signed with %v: nobody shall believe one that is not signed", algorithms)
		}
	}
}
