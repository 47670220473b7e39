package simulator

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// What verifies says exactly what was signed, whatever was done to its text.
func FuzzOnlyWhatWasSignedVerifies(f *testing.F) {
	s := newSigner(testKeys()[0], time.Hour)
	now := time.Now()
	for _, audience := range []string{resources["mde"], resources["graph"]} {
		token, err := s.sign(claims{Audience: audience, TenantID: DefaultTenantID, AppID: DefaultClientID}, now, time.Hour)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	f.Add("a.b.c")
	f.Add("")
	f.Add("eyJub25jZSI6MX0.e30.x")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := s.verify(token, func() time.Time { return now })
		if err == nil && (c.TenantID != DefaultTenantID || c.AppID != DefaultClientID || c.Expires != now.Add(time.Hour).Unix()) {
			t.Errorf("verified with claims %+v", c)
		}
		if reasonOf(err) == refusedNot && err != nil {
			t.Errorf("the error %v has no reason", err)
		}
	})
}

// No text proves an application that has no certificate, and none lets the
// simulator fail.
func FuzzNoAssertionProvesAnApplicationWithoutACertificate(f *testing.F) {
	s, err := New(Config{Tenants: []Tenant{{ID: DefaultTenantID, Name: "x", Apps: []App{{ClientID: DefaultClientID,
		Federated: []Federated{{"https://issuer.example", "s", "a"}}}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	tenant := s.directory.tenant(DefaultTenantID)
	a, _ := s.directory.app(tenant, DefaultClientID)
	for _, issuer := range []string{DefaultClientID, s.WorkloadIssuer(), "https://issuer.example", s.Authority() + tenantPath + "/v2.0"} {
		token, err := signingKey{testKeys()[0], "x"}.token(jwt.MapClaims{
			"iss": issuer, "sub": DefaultClientID, "aud": s.Authority() + tenantPath + "/oauth2/token", "jti": "1", "exp": time.Now().Add(time.Hour).Unix(),
		}, false)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, assertion string) {
		if _, refusal := s.proveAssertion(tenant, a, assertion, endpoint{DefaultTenantID, 1}); refusal == nil {
			t.Errorf("accepted %q", assertion)
		}
	})
}

// The parameter claims is read or refused.
func FuzzClaimsAreReadOrRefused(f *testing.F) {
	for _, seed := range []string{"", "{}", "null", `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`, `{"access_token":{"nbf":null,"xms_cc":{"values":["cp1"]}}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if w, refusal := readClaims(text); refusal != nil && (w.notBefore || w.capabilities != nil) {
			t.Errorf("%q was refused and read", text)
		}
	})
}
