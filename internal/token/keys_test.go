package token

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// publisher is an authority that signs tokens and publishes keys.
type publisher struct {
	keys      map[string]*rsa.PrivateKey
	published []string // ids
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

func (p *publisher) RoundTrip(r *http.Request) (*http.Response, error) {
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
			"kty": "RSA", "use": "sig", "kid": kid,
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
		next := func() error {
			if b, ok := s.Current(); ok {
				s.Invalidate(b)
			}
			time.Sleep(2 * time.Minute)
			_, err := s.Bearer(t.Context())
			return err
		}
		expect := func(what string, err error, looks int) {
			t.Helper()
			if err != nil || p.looks != looks {
				t.Errorf("%s: %v, %d looks, want %d", what, err, p.looks, looks)
			}
		}
		expect("the first", next(), 1)
		expect("the second", next(), 1)
		p.published = []string{"one", "two"}
		p.signWith("two", nil)
		expect("after a rotation", next(), 2)
		p.down = true
		expect("known keys in an outage", next(), 2)
		time.Sleep(keysFresh)
		if err := next(); err != nil {
			t.Errorf("known keys a day old, in an outage: %v", err)
		}
		p.signWith("foreign", nil)
		if err := next(); err == nil || !strings.Contains(err.Error(), "cannot be had") {
			t.Errorf("an unknown key in an outage: %v", err)
		}
	})
}

func TestTokensWithInventedKeysCauseFewLooks(t *testing.T) {
	p := newPublisher(t)
	inBubble(t, func(t *testing.T) {
		keys := newSignatureKeys(p, readClocks)
		for i := range 100 {
			p.signWith("foreign", map[string]any{"kid": strings.Repeat("x", i+1)})
			if keys.verify(t.Context(), "https://login.example.com", p.sign(claimsFor(contoso(), mde, time.Hour))) == nil {
				t.Fatal("it verified")
			}
		}
		if p.looks != 1 {
			t.Errorf("%d looks, want 1", p.looks)
		}
	})
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
