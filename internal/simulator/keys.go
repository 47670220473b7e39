package simulator

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // x5t
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// signingKey is a key with the name under which it is published.
type signingKey struct {
	key *rsa.PrivateKey
	kid string
}

func newSigningKey() (signingKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return signingKey{}, fmt.Errorf("simulator: make a key that signs tokens: %w", err)
	}
	return signingKey{key, keyID(key)}, nil
}

func keyID(key *rsa.PrivateKey) string {
	sum := sha256.Sum256(key.N.Bytes())
	return base64.RawURLEncoding.EncodeToString(sum[:20])
}

// jwk is the key as a key set shows it.
func (k signingKey) jwk() map[string]any {
	enc := base64.RawURLEncoding.EncodeToString
	return map[string]any{
		"kty": "RSA", "use": "sig", "kid": k.kid, "x5t": k.kid,
		"n": enc(k.key.N.Bytes()), "e": enc(big.NewInt(int64(k.key.E)).Bytes()),
	}
}

// token signs claims with RS256. With a nonce, the header shows one and the
// signature is over its hash.
//
// So do the tokens of Microsoft Graph: whoever verifies one as it stands finds
// the signature wrong. Microsoft documents no more than that a client is not to
// validate tokens that are for somebody else
// (learn.microsoft.com/entra/identity-platform/access-tokens); that the hash is
// SHA-256 was found out by people who tried.
func (k signingKey) token(c jwt.Claims, nonce bool) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
	t.Header["kid"], t.Header["x5t"] = k.kid, k.kid
	plain := ""
	if nonce {
		plain = strings.ReplaceAll(uuid.NewString(), "-", "")
		t.Header["nonce"] = nonceHash(plain)
	}
	signed, err := t.SignedString(k.key)
	if err != nil || !nonce {
		return signed, err
	}
	t.Header["nonce"] = plain
	header, err := json.Marshal(t.Header)
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(signed, ".")
	return base64.RawURLEncoding.EncodeToString(header) + "." + rest, nil
}

func nonceHash(plain string) string {
	sum := sha256.Sum256([]byte(plain))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// hashNonce gives the form of a token over which its signature was made, and
// any other text as it is.
func hashNonce(token string) string {
	head, rest, ok := strings.Cut(token, ".")
	if !ok {
		return token
	}
	raw, err := base64.RawURLEncoding.DecodeString(head)
	var header map[string]any
	if err != nil || json.Unmarshal(raw, &header) != nil {
		return token
	}
	plain, ok := header["nonce"].(string)
	if !ok {
		return token
	}
	header["nonce"] = nonceHash(plain)
	// The keys come out sorted, as they went in.
	if raw, err = json.Marshal(header); err != nil {
		return token
	}
	return base64.RawURLEncoding.EncodeToString(raw) + "." + rest
}

// jwks is the key set document: the current key, then the older ones.
func (g *signer) jwks(issuer string) any {
	g.mu.RLock()
	defer g.mu.RUnlock()
	keys := []any{}
	for _, k := range append([]signingKey{{g.key, g.kid}}, g.old...) {
		row := k.jwk()
		row["issuer"] = issuer
		keys = append(keys, row)
	}
	return map[string]any{"keys": keys}
}

// published finds the public half of a key in the key set, nil if it is not
// there.
func (g *signer) published(kid any) *rsa.PublicKey {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if kid == g.kid {
		return &g.key.PublicKey
	}
	for _, k := range g.old {
		if kid == k.kid {
			return &k.key.PublicKey
		}
	}
	return nil
}

// maxOldKeys bounds the key set.
const maxOldKeys = 8

// RotateSigningKey lets Entra ID sign new tokens with a new key. The older
// keys stay in the key set, the last eight of them, and their tokens stay good.
func (s *Simulator) RotateSigningKey() error {
	k, err := newSigningKey()
	if err != nil {
		return err
	}
	g := s.signer
	g.mu.Lock()
	defer g.mu.Unlock()
	g.old = append([]signingKey{{g.key, g.kid}}, g.old...)
	g.old = g.old[:min(len(g.old), maxOldKeys)]
	g.key, g.kid = k.key, k.kid
	return nil
}

// ForgetOldKeys leaves only the current key in the key set: tokens of the
// others are refused from now on.
func (s *Simulator) ForgetOldKeys() {
	s.signer.mu.Lock()
	defer s.signer.mu.Unlock()
	s.signer.old = nil
}

// thumbprint is the base64url form of a hash of a certificate.
func thumbprint(h crypto.Hash, der []byte) string {
	sum := h.New()
	sum.Write(der)
	return base64.RawURLEncoding.EncodeToString(sum.Sum(nil))
}
