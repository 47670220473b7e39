package simulator

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// testKeys are made once: RSA keys are slow to make.
var testKeys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var out [2]*rsa.PrivateKey
	for i := range out {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out[i] = key
	}
	return out
})

// selfSigned is a certificate for a key, in DER.
func selfSigned(t *testing.T, key *rsa.PrivateKey, from, until time.Time) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// pemOf is certificate and key in one text.
func pemOf(t *testing.T, key *rsa.PrivateKey, der []byte) []byte {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})...)
}

// assertionForm is a request for an application token with an assertion.
func assertionForm(version int, assertion string) url.Values {
	return secretForm(version, "client_secret", "", "client_assertion", assertion, "client_assertion_type", assertionType)
}

// wantAAD checks the code of an error of Entra ID's.
func wantAAD(t *testing.T, a answer, code int) {
	t.Helper()
	if a.status < 400 || !strings.Contains(string(a.body), fmt.Sprintf(`"AADSTS%d: `, code)) || strings.Contains(string(a.body), "%!") {
		t.Errorf("got %d %s, want AADSTS%d", a.status, a.body, code)
	}
}

func TestACertificateProvesAnApplication(t *testing.T) {
	now := time.Now()
	key, stranger := testKeys()[0], testKeys()[1]
	good := selfSigned(t, key, now.Add(-time.Hour), now.Add(time.Hour))
	old := selfSigned(t, key, now.Add(-2*time.Hour), now.Add(-time.Hour))
	cfg := quick()
	cfg.Tenants[0].Apps[0].Certificates = [][]byte{good, old}
	p := start(t, cfg)
	endpoint := map[int]string{1: p.Authority() + tenantPath + "/oauth2/token", 2: p.Authority() + tenantPath + "/oauth2/v2.0/token"}
	type edit func(header, claims map[string]any)
	make := func(version int, method jwt.SigningMethod, by *rsa.PrivateKey, change edit) string {
		token := jwt.NewWithClaims(method, jwt.MapClaims{
			"aud": endpoint[version], "iss": DefaultClientID, "sub": DefaultClientID, "jti": "1",
			"nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(10 * time.Minute).Unix(),
		})
		token.Header["x5t#S256"] = thumbprint(crypto.SHA256, good)
		if change != nil {
			change(token.Header, token.Claims.(jwt.MapClaims))
		}
		var signer any = by
		if method == jwt.SigningMethodHS256 {
			signer = []byte("x")
		}
		out, err := token.SignedString(signer)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	claim := func(name string, value any) edit {
		return func(_, c map[string]any) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
	}
	header := func(change map[string]any) edit {
		return func(h, _ map[string]any) {
			delete(h, "x5t#S256")
			maps.Copy(h, change)
		}
	}
	for _, c := range []struct {
		name    string
		version int
		method  jwt.SigningMethod
		by      *rsa.PrivateKey
		change  edit
		code    int // 0 for a token
	}{
		{"PS256 at the newer endpoint", 2, jwt.SigningMethodPS256, key, nil, 0},
		{"PS256 at the older endpoint", 1, jwt.SigningMethodPS256, key, nil, 0},
		{"RS256 with the older thumbprint", 2, jwt.SigningMethodRS256, key, header(map[string]any{"x5t": thumbprint(crypto.SHA1, good)}), 0},
		{"for the issuer", 2, jwt.SigningMethodPS256, key, claim("aud", p.Authority()+tenantPath+"/v2.0"), 0},
		{"a clock four minutes ahead", 2, jwt.SigningMethodPS256, key, claim("nbf", now.Add(4*time.Minute).Unix()), 0},
		{"a year of life", 2, jwt.SigningMethodPS256, key, claim("exp", now.AddDate(1, 0, 0).Unix()), 0},
		{"another key's signature", 2, jwt.SigningMethodPS256, stranger, nil, 700027},
		{"an algorithm of passwords", 2, jwt.SigningMethodHS256, nil, nil, 700027},
		{"an unknown certificate", 2, jwt.SigningMethodPS256, key, header(map[string]any{"x5t#S256": "AAAA"}), 700027},
		{"an expired certificate", 2, jwt.SigningMethodPS256, key, header(map[string]any{"x5t#S256": thumbprint(crypto.SHA256, old)}), 700027},
		{"no thumbprint", 2, jwt.SigningMethodPS256, key, header(nil), 50027},
		{"expired", 2, jwt.SigningMethodPS256, key, claim("exp", now.Add(-6*time.Minute).Unix()), 700024},
		{"without exp", 2, jwt.SigningMethodPS256, key, claim("exp", nil), 700024},
		{"a clock six minutes ahead", 2, jwt.SigningMethodPS256, key, claim("nbf", now.Add(6*time.Minute).Unix()), 700024},
		{"another issuer", 2, jwt.SigningMethodPS256, key, claim("iss", "33333333-3333-3333-3333-333333333333"), 700021},
		{"another subject", 2, jwt.SigningMethodPS256, key, claim("sub", "33333333-3333-3333-3333-333333333333"), 700021},
		{"another audience", 2, jwt.SigningMethodPS256, key, claim("aud", "https://login.example/token"), 700023},
		{"the other version's endpoint", 2, jwt.SigningMethodPS256, key, claim("aud", endpoint[1]), 700023},
		{"without jti", 2, jwt.SigningMethodPS256, key, claim("jti", nil), 50027},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := p.form(strings.TrimPrefix(endpoint[c.version], p.Authority()), assertionForm(c.version, make(c.version, c.method, c.by, c.change)))
			if c.code != 0 {
				wantAAD(t, a, c.code)
				return
			}
			if a.status != 200 {
				t.Fatalf("got %d %s, want a token", a.status, a.body)
			}
			if got := p.claimsOf(a.object(t)["access_token"].(string)); got["appidacr"] != "2" {
				t.Errorf("appidacr is %v, want 2", got["appidacr"])
			}
		})
	}
	ok := make(2, jwt.SigningMethodPS256, key, nil)
	wantAAD(t, p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2, "client_assertion", ok, "client_assertion_type", assertionType)), 9002313)
	wantAAD(t, p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2, "client_secret", "", "client_assertion", ok)), 900144)
	wantAAD(t, p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2, "client_secret", "", "client_assertion", ok, "client_assertion_type", "x")), 9002313)
	wantAAD(t, p.form(tenantPath+"/oauth2/v2.0/token", assertionForm(2, "nonsense")), 50027)
	if err := p.SetCertificates(DefaultTenantID, DefaultClientID); err != nil {
		t.Fatal(err)
	}
	wantAAD(t, p.form(tenantPath+"/oauth2/v2.0/token", assertionForm(2, ok)), 700027)
	for _, r := range p.Requests() {
		if r.Proof != "" && r.Proof != string(proofCertificate) && r.Proof != string(proofNone) {
			t.Errorf("request %d was proved by %s", r.Number, r.Proof)
		}
	}
	if err := p.SetCertificates(DefaultTenantID, DefaultClientID, []byte("no certificate")); err == nil {
		t.Error("nonsense was registered as a certificate")
	}
}

func TestAForeignTokenProvesAnApplicationThatTrustsIt(t *testing.T) {
	cfg := quick()
	cfg.Identities = []Identity{{ClientID: "44444444-4444-4444-4444-444444444444", ObjectID: "55555555-5555-5555-5555-555555555555", TenantID: DefaultTenantID, System: true}}
	p := start(t, cfg)
	const subject = "system:serviceaccount:soc:proxy"
	ask := func(assertion string) answer {
		return p.form(tenantPath+"/oauth2/v2.0/token", assertionForm(2, assertion))
	}
	good := p.WorkloadToken(subject, time.Hour)
	wantAAD(t, ask(good), 70025)
	entra := p.Authority() + tenantPath + "/v2.0"
	if err := p.SetFederated(DefaultTenantID, DefaultClientID,
		Federated{p.WorkloadIssuer(), subject, exchangeAudience}, Federated{p.WorkloadIssuer(), subject, "other"},
		Federated{entra, cfg.Identities[0].ObjectID, exchangeAudience}, Federated{"https://issuer.example", "x", exchangeAudience},
	); err != nil {
		t.Fatal(err)
	}
	if a := ask(good); a.status != 200 || p.claimsOf(a.object(t)["access_token"].(string))["appidacr"] != "2" {
		t.Errorf("the good one: got %d", a.status)
	}
	if last := p.Requests(); last[len(last)-2].Proof != string(proofFederated) { // the last one read the keys
		t.Errorf("the record says %q, want federated", last[len(last)-2].Proof)
	}
	forged, err := signingKey{testKeys()[0], "x"}.token(jwt.MapClaims{"iss": p.WorkloadIssuer(), "sub": subject, "aud": exchangeAudience, "exp": time.Now().Add(time.Hour).Unix()}, false)
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(issuer string) string {
		token, err := signingKey{testKeys()[0], "x"}.token(jwt.MapClaims{"iss": issuer, "sub": "x", "aud": exchangeAudience, "exp": time.Now().Add(time.Hour).Unix()}, false)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for _, c := range []struct {
		name, assertion string
		code            int
	}{
		{"another issuer", foreign("https://elsewhere.example"), 700211},
		{"an issuer without keys", foreign("https://issuer.example"), 90061},
		{"another subject", p.WorkloadTokenFor("system:serviceaccount:soc:other", exchangeAudience, time.Hour), 700213},
		{"a subject in other letters", p.WorkloadTokenFor(strings.ToUpper(subject), exchangeAudience, time.Hour), 7002138},
		{"another audience", p.WorkloadTokenFor(subject, "api://other", time.Hour), 700212},
		{"expired", p.WorkloadTokenFor(subject, exchangeAudience, -6*time.Minute), 700024},
		{"another key", forged, 700027},
	} {
		t.Run(c.name, func(t *testing.T) { wantAAD(t, ask(c.assertion), c.code) })
	}

	t.Run("the token of a managed identity", func(t *testing.T) {
		a := p.imds("?api-version=2018-02-01&resource="+url.QueryEscape(exchangeAudience), nil)
		if a.status != 200 {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		if a := ask(a.object(t)["access_token"].(string)); a.status != 200 {
			t.Errorf("got %d %s, want a token", a.status, a.body)
		}
	})

	t.Run("the issuer shows its keys", func(t *testing.T) {
		doc := p.do("GET", p.WorkloadIssuer()+"/.well-known/openid-configuration", "", "").object(t)
		if doc["issuer"] != p.WorkloadIssuer() {
			t.Errorf("issuer %v", doc["issuer"])
		}
		if a := p.do("GET", doc["jwks_uri"].(string), "", ""); a.status != 200 || len(a.object(t)["keys"].([]any)) != 1 {
			t.Errorf("keys: %d %s", a.status, a.body)
		}
	})
}
