package token

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"defender-proxy/internal/tenant"
)

const (
	// keysFresh is how long an authority's keys are used without a look. Microsoft
	// says to look every 24 hours, and at once for a key that is not known
	// (learn.microsoft.com/entra/identity-platform/signing-key-rollover).
	keysFresh = 24 * time.Hour
	// keysStale is how long they are used while no look succeeds.
	keysStale = 7 * 24 * time.Hour
	// keysPause is the shortest time between two looks, so that tokens with
	// invented keys do not make one each.
	keysPause = 10 * time.Second
	// maxKeys bounds what is kept of one authority.
	maxKeys = 100
)

// signatureKeys are the published keys of the authorities, fetched only where a
// tenant asks for verify_signature.
type signatureKeys struct {
	transport http.RoundTripper
	now       func() instant

	mu          sync.Mutex
	authorities map[string]*authorityKeys
}

// authorityKeys are the keys of one authority.
type authorityKeys struct {
	// looking holds one value while somebody fetches; who waits for it may leave.
	looking chan struct{}

	// Guarded by looking. ever says that looked means something.
	keys   map[string]signatureKey // by kid, as of found
	found  instant
	looked instant
	ever   bool
	failed error // what the last look failed with
}

// signatureKey is a published key. issuer is whose tokens it signs, with
// {tenantid} in place of any tenant; empty where that is not published.
type signatureKey struct {
	*rsa.PublicKey
	issuer string
}

// signs reports whether the key signs tokens of the tenant. The set that all
// tenants share also holds the keys of Microsoft's consumer accounts
// (learn.microsoft.com/entra/identity-platform/access-tokens, "Validate the
// signing key issuer").
func (k signatureKey) signs(id tenant.ID) bool {
	return k.issuer == "" || strings.Contains(k.issuer, "{tenantid}") || issuedFor(k.issuer, id)
}

func newSignatureKeys(rt http.RoundTripper, now func() instant) *signatureKeys {
	return &signatureKeys{transport: rt, now: now, authorities: make(map[string]*authorityKeys)}
}

// badSignature is why a token is not believed, and what to do about it.
type badSignature struct{ text, remedy string }

func (e *badSignature) Error() string { return e.text }

// verify holds the signature of a token of the tenant against the authority's
// keys. Its errors quote nothing of the token but the key's id.
func (s *signatureKeys) verify(ctx context.Context, authority string, id tenant.ID, raw string) error {
	const foreign = "Something on the way may have put in a token of its own: check the egress proxy and the trusted certificates."
	found := false
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256", "PS256"}), jwt.WithoutClaimsValidation()).Parse(raw, func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["nonce"]; ok {
			return nil, &badSignature{
				"its signature is made so that only the API can verify it",
				"Set verify_signature: false for the tenant; Microsoft signs the tokens of Graph and some other APIs this way.",
			}
		}
		kid, _ := t.Header["kid"].(string)
		key, err := s.key(ctx, authority, kid)
		if err != nil {
			return nil, err
		}
		if !key.signs(id) {
			return nil, &badSignature{"it is signed with a key for the tokens of others", foreign}
		}
		if iss, err := t.Claims.GetIssuer(); err != nil || !issuedFor(iss, id) {
			return nil, &badSignature{"its issuer is not that of its tenant", foreign}
		}
		found = true
		return key.PublicKey, nil
	})
	if known, ok := errors.AsType[*badSignature](err); ok {
		return known
	}
	if err != nil || !found {
		return &badSignature{"its signature does not verify against the authority's published keys", foreign}
	}
	return nil
}

// key finds the key with the id, and looks at the authority where it is not
// known or what is known is old.
func (s *signatureKeys) key(ctx context.Context, authority, kid string) (signatureKey, error) {
	var none signatureKey
	s.mu.Lock()
	a := s.authorities[authority]
	if a == nil {
		a = &authorityKeys{looking: make(chan struct{}, 1)}
		s.authorities[authority] = a // one for each authority of the configuration
	}
	s.mu.Unlock()
	select {
	case a.looking <- struct{}{}:
		defer func() { <-a.looking }()
	case <-ctx.Done():
		return none, &badSignature{"the authority's keys did not come in time", "The proxy tries again by itself."}
	}
	now := s.now()
	key, known := a.keys[kid]
	if since := now.since(a.looked); !a.ever || since >= keysPause && (!known || now.since(a.found) >= keysFresh) {
		keys, err := s.fetch(ctx, authority)
		switch {
		case err == nil:
			a.keys, a.found, a.looked, a.ever, a.failed = keys, now, now, true, nil
			key, known = keys[kid]
		case ctx.Err() == nil:
			// Where this fetch's own time was over that says nothing of the authority.
			a.looked, a.ever, a.failed = now, true, err
		default:
			a.failed = err
		}
	}
	// Known keys serve on for a while when new ones cannot be had: the authority
	// may be down, and they are not wrong for that.
	switch {
	case known && now.since(a.found) < keysStale:
		return key, nil
	case a.failed != nil:
		return none, &badSignature{"the authority's keys cannot be had: " + a.failed.Error(), "Check that " + keysURL(authority) + " can be reached, or set verify_signature: false."}
	}
	return none, &badSignature{fmt.Sprintf("it is signed with the key %s, which the authority does not publish", quote(kid, nil)), "Something on the way may have put in a token of its own: check the egress proxy and the trusted certificates."}
}

// keysURL is the set of keys for all tenants of an authority.
func keysURL(authority string) string {
	return strings.TrimRight(authority, "/") + "/common/discovery/v2.0/keys"
}

func (s *signatureKeys) fetch(ctx context.Context, authority string) (map[string]signatureKey, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, keysURL(authority), nil)
	if err != nil {
		return nil, errors.New("the authority is not a URL")
	}
	x := &exchange{transport: s.transport}
	resp, err := x.client().Do(r)
	if err != nil {
		return nil, errors.New(quote(innermost(err).Error(), nil))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body) // x bounds it
	switch {
	case err != nil:
		return nil, errors.New("the answer was too long or did not end")
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the answer was %d", resp.StatusCode)
	}
	return readKeys(body)
}

// readKeys reads the RSA keys of a JSON Web Key Set (RFC 7517), at most maxKeys.
// Keys of other types and uses, and keys under 2048 bits, are passed over.
func readKeys(body []byte) (map[string]signatureKey, error) {
	var set struct {
		Keys []struct {
			Type     string `json:"kty"`
			Use      string `json:"use"`
			ID       string `json:"kid"`
			Modulus  string `json:"n"`
			Exponent string `json:"e"`
			Issuer   string `json:"issuer"` // of Microsoft's own
		} `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the answer is not a set of keys")
	}
	keys := make(map[string]signatureKey)
	for _, k := range set.Keys {
		n, err1 := base64.RawURLEncoding.DecodeString(k.Modulus)
		e, err2 := base64.RawURLEncoding.DecodeString(k.Exponent)
		if k.Type != "RSA" || k.Use != "" && k.Use != "sig" || k.ID == "" || err1 != nil || err2 != nil || len(e) == 0 || len(e) > 4 || len(n) > 1024 {
			continue
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		if key.N.BitLen() >= 2048 && key.E > 1 && key.E%2 == 1 && len(keys) < maxKeys {
			keys[k.ID] = signatureKey{key, k.Issuer}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the answer holds no key that can be used")
	}
	return keys, nil
}
