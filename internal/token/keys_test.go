package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// publisher is an authority that signs tokens and publishes keys.
type publisher struct {
	mu        sync.Mutex // guards what follows, against renewals in the background
	keys      map[string]*rsa.PrivateKey
	published []string // ids
	issuer    string   // of the published keys
	down      bool
	looks     int
	sign      func(jwt.MapClaims) string
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{keys: map[string]*rsa.PrivateKey{}, published: []string{"one"}}
	for _, kid := range []string{"one", "two", "foreign"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		p.keys[kid] = key
	}
	p.signWith("one", nil)
	return p
}

func (p *publisher) signWith(kid string, header map[string]any) {
	p.sign = func(c jwt.MapClaims) string {
		token := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
		token.Header["kid"] = kid
		for k, v := range header {
			token.Header[k] = v
		}
		s, err := token.SignedString(p.keys[kid])
		if err != nil {
			panic(err)
		}
		return s
	}
}

func (p *publisher) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *publisher) looked() (n int) {
	p.change(func() { n = p.looks })
	return n
}

func (p *publisher) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodPost {
		return answer(200, map[string]any{
			"token_type": "Bearer", "expires_in": 3600, "access_token": p.sign(claimsFor(contoso(), mde, time.Hour)),
		}), nil
	}
	p.looks++
	if r.URL.String() != "https://login.example.com/common/discovery/v2.0/keys" {
		return answer(404, "no such page"), nil
	}
	if p.down {
		return answer(503, "down"), nil
	}
	var set []any
	for _, kid := range p.published {
		key := p.keys[kid]
		set = append(set, map[string]any{
			"kty": "RSA", "use": "sig", "kid": kid, "issuer": p.issuer,
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		})
	}
	return answer(200, map[string]any{"keys": set}), nil
}

func TestWithVerifySignatureATokenIsHeldAgainstTheAuthoritysKeys(t *testing.T) {
	p := newPublisher(t)
	publicAsSecret := func(c jwt.MapClaims) string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, c)
		token.Header["kid"] = "one"
		s, _ := token.SignedString(p.keys["one"].N.Bytes())
		return s
	}
	for _, c := range []struct {
		name    string
		prepare func()
		want    string // in the error; empty for a token
	}{
		{"signed with a published key", func() { p.signWith("one", nil) }, ""},
		{"signed with a key that is not published", func() { p.signWith("foreign", nil) }, `the key \"foreign\", which the authority does not publish`},
		{"signed with another key under a published id", func() { p.signWith("foreign", map[string]any{"kid": "one"}) }, "does not verify"},
		{"without a key's id", func() { p.signWith("one", map[string]any{"kid": ""}) }, "does not publish"},
		{"without a signature", func() {
			p.sign = func(c jwt.MapClaims) string {
				s, _ := jwt.NewWithClaims(jwt.SigningMethodNone, c).SignedString(jwt.UnsafeAllowNoneSignatureType)
				return s
			}
		}, "does not verify"},
		{"the published key taken for a shared secret", func() { p.sign = publicAsSecret }, "does not verify"},
		{"claims changed after signing", func() {
			p.signWith("one", nil)
			sign := p.sign
			p.sign = func(c jwt.MapClaims) string {
				parts := strings.Split(sign(c), ".")
				c["roles"] = []string{"Machine.Isolate"}
				b, _ := json.Marshal(c)
				return parts[0] + "." + base64.RawURLEncoding.EncodeToString(b) + "." + parts[2]
			}
		}, "does not verify"},
		{"a token that only the API can verify", func() { p.signWith("one", map[string]any{"nonce": "x"}) }, "Set verify_signature: false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				c.prepare()
				a := contoso()
				a.VerifySignature = true
				s := running(t, Options{Transport: p, Log: quiet}).Source(a, mde)
				if c.want == "" {
					mustBearer(t, s)
				} else if err := mustFail(t, s, BadAnswer); !strings.Contains(strings.ReplaceAll(err.Error(), `"`, `\"`), c.want) {
					t.Errorf("got %q, want %q in it", err, c.want)
				}
			})
		})
	}
	t.Run("a signature with PSS", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			p.sign = func(c jwt.MapClaims) string {
				token := jwt.NewWithClaims(jwt.SigningMethodPS256, c)
				token.Header["kid"] = "one"
				s, _ := token.SignedString(p.keys["one"])
				return s
			}
			a := contoso()
			a.VerifySignature = true
			mustBearer(t, running(t, Options{Transport: p, Log: quiet}).Source(a, mde))
		})
	})
	t.Run("without verify_signature nobody looks at the keys", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			p.signWith("foreign", nil)
			p.looks = 0
			mustBearer(t, running(t, Options{Transport: p, Log: quiet}).Source(contoso(), mde))
			if p.looks != 0 {
				t.Errorf("%d looks", p.looks)
			}
		})
	})
}

func TestKeysThatRotateAreFoundAndAnOutageOfThemIsSurvived(t *testing.T) {
	p := newPublisher(t)
	inBubble(t, func(t *testing.T) {
		a := contoso()
		a.VerifySignature = true
		s := running(t, Options{Transport: p, Log: quiet}).Source(a, mde)
		var last *Bearer
		next := func() error {
			time.Sleep(10 * time.Minute)
			b, err := s.Replace(t.Context(), last, "")
			if err == nil {
				last = b
			}
			return err
		}
		expect := func(what string, err error, looks int) {
			t.Helper()
			if err != nil || p.looked() != looks {
				t.Errorf("%s: %v, %d looks, want %d", what, err, p.looked(), looks)
			}
		}
		expect("the first", next(), 1)
		expect("the second", next(), 1)
		p.change(func() { p.published = []string{"one", "two"}; p.signWith("two", nil) })
		expect("after a rotation", next(), 2)
		time.Sleep(keysFresh)
		expect("a day later", next(), 3)
		p.change(func() { p.published = []string{"one"} })
		expect("a key that was withdrawn, before the next look", next(), 3)
		time.Sleep(keysFresh)
		if err := next(); err == nil || !strings.Contains(err.Error(), "does not publish") {
			t.Errorf("a key that was withdrawn: %v", err)
		}
		p.change(func() { p.published = []string{"one", "two"} })
		if err := next(); err != nil {
			t.Fatal(err)
		}
		p.change(func() { p.down = true })
		for range 6 {
			time.Sleep(keysFresh)
			if err := next(); err != nil {
				t.Errorf("known keys, in an outage: %v", err)
			}
		}
		looks := p.looked()
		time.Sleep(keysFresh)
		if err := next(); err == nil || p.looked() == looks {
			t.Errorf("known keys after a week of outage: %v, %d looks", err, p.looked()-looks)
		}
		p.change(func() { p.down = false })
		if err := next(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		p.change(func() { p.down = true })
		p.change(func() { p.signWith("foreign", nil) })
		if err := next(); err == nil || !strings.Contains(err.Error(), "cannot be had") {
			t.Errorf("an unknown key in an outage: %v", err)
		}
	})
}

func TestAKeyOfAnotherIssuerOrATokenOfOneIsRefused(t *testing.T) {
	const consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"
	for _, c := range []struct {
		name, issuer, iss string
		ok                bool
	}{
		{"a key for all tenants", "https://login.example.com/{tenantid}/v2.0", "", true},
		{"a key of this tenant", "https://login.example.com/" + contosoID + "/v2.0", "", true},
		{"a key whose issuer is not published", "", "", true},
		{"a key for consumer accounts", "https://login.example.com/" + consumers + "/v2.0", "", false},
		{"the issuer of version 2.0", "", "https://login.example.com/" + contosoID + "/v2.0", true},
		{"another tenant's issuer", "", "https://sts.windows.net/" + fabrikamID + "/", false},
		{"an issuer that only looks like it", "", "https://evil.example/?" + contosoID, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPublisher(t)
			p.issuer = c.issuer
			inBubble(t, func(t *testing.T) {
				sign := p.sign
				p.sign = func(claims jwt.MapClaims) string {
					if c.iss != "" {
						claims["iss"] = c.iss
					}
					return sign(claims)
				}
				a := contoso()
				a.VerifySignature = true
				if _, err := running(t, Options{Transport: p, Log: quiet}).Source(a, mde).Bearer(t.Context()); (err == nil) != c.ok {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestAFetchWhoseTimeIsOverDoesNotKeepOthersFromLooking(t *testing.T) {
	p := newPublisher(t)
	inBubble(t, func(t *testing.T) {
		keys := newSignatureKeys(hangingOnce{p, new(bool)}, readClocks)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		token := p.sign(claimsFor(contoso(), mde, time.Hour))
		if err := keys.verify(ctx, "https://login.example.com", contosoID, token); err == nil {
			t.Error("it verified without an answer")
		}
		if err := keys.verify(t.Context(), "https://login.example.com", contosoID, token); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}

// hangingOnce answers the first request never.
type hangingOnce struct {
	*publisher
	hung *bool
}

func (h hangingOnce) RoundTrip(r *http.Request) (*http.Response, error) {
	if !*h.hung {
		*h.hung = true
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return h.publisher.RoundTrip(r)
}

func TestTokensWithInventedKeysCauseFewLooks(t *testing.T) {
	p := newPublisher(t)
	inBubble(t, func(t *testing.T) {
		keys := newSignatureKeys(p, readClocks)
		for i := range 100 {
			p.signWith("foreign", map[string]any{"kid": strings.Repeat("x", i+1)})
			if keys.verify(t.Context(), "https://login.example.com", contosoID, p.sign(claimsFor(contoso(), mde, time.Hour))) == nil {
				t.Fatal("it verified")
			}
		}
		if p.looks != 1 {
			t.Errorf("%d looks, want 1", p.looks)
		}
	})
}

func TestKeysThatAreNotForSignaturesOrTooShortArePassedOver(t *testing.T) {
	short := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 128))
	long := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 256))
	for name, key := range map[string]string{
		"for encryption":    `{"kty":"RSA","use":"enc","kid":"a","n":"` + long + `","e":"AQAB"}`,
		"of another type":   `{"kty":"EC","use":"sig","kid":"a","n":"` + long + `","e":"AQAB"}`,
		"too short":         `{"kty":"RSA","use":"sig","kid":"a","n":"` + short + `","e":"AQAB"}`,
		"without an id":     `{"kty":"RSA","use":"sig","n":"` + long + `","e":"AQAB"}`,
		"an even exponent":  `{"kty":"RSA","use":"sig","kid":"a","n":"` + long + `","e":"Ag"}`,
		"an exponent of 1":  `{"kty":"RSA","use":"sig","kid":"a","n":"` + long + `","e":"AQ"}`,
		"without a modulus": `{"kty":"RSA","use":"sig","kid":"a","e":"AQAB"}`,
	} {
		if keys, err := readKeys([]byte(`{"keys":[` + key + `]}`)); err == nil {
			t.Errorf("a key %s was taken: %v", name, keys)
		}
	}
	if keys, err := readKeys([]byte(`{"keys":[{"kty":"RSA","use":"sig","kid":"a","n":"` + long + `","e":"AQAB"}]}`)); err != nil || len(keys) != 1 {
		t.Errorf("a good key: %v, %v", keys, err)
	}
}

func TestAnErrorPageIsNoSetOfKeys(t *testing.T) {
	p := newPublisher(t)
	inBubble(t, func(t *testing.T) {
		keys := newSignatureKeys(wrongStatus{p}, readClocks)
		if err := keys.verify(t.Context(), "https://login.example.com", contosoID, p.sign(claimsFor(contoso(), mde, time.Hour))); err == nil {
			t.Error("a 500 with keys in it was taken")
		}
	})
}

type wrongStatus struct{ *publisher }

func (w wrongStatus) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.publisher.RoundTrip(r)
	resp.StatusCode = 500
	return resp, err
}

// Every key that comes out is an RSA key of sound size, whatever goes in.
func FuzzReadKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"RSA","use":"sig","kid":"a","n":"AQAB","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := readKeys(body)
		if (err == nil) != (len(keys) > 0) || len(keys) > maxKeys {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for kid, k := range keys {
			if kid == "" || k.N.BitLen() < 2048 || k.E < 3 || k.E%2 == 0 {
				t.Fatalf("key %q: %d bits, e=%d", kid, k.N.BitLen(), k.E)
			}
		}
	})
}
