package simulator

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signer makes access tokens and knows which of them are revoked.
type signer struct {
	key      *rsa.PrivateKey
	kid      string
	start    time.Duration // the configured lifetime
	lifetime atomic.Int64  // nanoseconds
	last     atomic.Uint64 // number of the newest token
	revoked  atomic.Uint64 // tokens up to this number are refused
}

func newSigner(key *rsa.PrivateKey, lifetime time.Duration) *signer {
	sum := sha256.Sum256(key.N.Bytes())
	g := &signer{key: key, kid: base64.RawURLEncoding.EncodeToString(sum[:20]), start: lifetime}
	g.lifetime.Store(int64(lifetime))
	return g
}

// reset returns to the configured lifetime and forgets revocations.
func (g *signer) reset() {
	g.lifetime.Store(int64(g.start))
	g.revoked.Store(0)
}

// jwks is the key set document.
func (g *signer) jwks(issuer string) any {
	enc := base64.RawURLEncoding.EncodeToString
	return map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "kid": g.kid, "x5t": g.kid,
		"n": enc(g.key.N.Bytes()), "e": enc(big.NewInt(int64(g.key.E)).Bytes()),
		"issuer": issuer,
	}}}
}

// claims are those of a token, in the names that Entra ID gives them.
type claims struct {
	Audience   string   `json:"aud"`
	Issuer     string   `json:"iss"`
	IssuedAt   int64    `json:"iat"`
	NotBefore  int64    `json:"nbf"`
	Expires    int64    `json:"exp"`
	AppID      string   `json:"appid"`
	AppIDACR   string   `json:"appidacr"`
	Provider   string   `json:"idp,omitempty"`
	IDType     string   `json:"idtyp"`
	ObjectID   string   `json:"oid"`
	Roles      []string `json:"roles,omitempty"`
	Scopes     string   `json:"scp,omitempty"`
	Subject    string   `json:"sub"`
	TenantID   string   `json:"tid"`
	UniqueName string   `json:"unique_name,omitempty"`
	UPN        string   `json:"upn,omitempty"`
	TokenID    string   `json:"uti"`
	Version    string   `json:"ver"`
}

// clockAllowance is how far Entra ID dates a token back, for peers whose
// clocks are behind.
const clockAllowance = 5 * time.Minute

// sign completes and signs c. life may be negative, for a token that is dead
// on arrival.
func (g *signer) sign(c claims, now time.Time, life time.Duration) (string, error) {
	// The number in the token's id is what revocation compares: the second of
	// iat is too coarse to tell tokens before and after it apart.
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], g.last.Add(1))
	if _, err := rand.Read(id[8:]); err != nil {
		return "", err
	}
	c.TokenID = base64.RawURLEncoding.EncodeToString(id[:])
	// Entra ID signs tokens of both endpoints in the format that the API asks
	// for, and these three APIs take the first.
	c.Version = "1.0"
	c.Issuer = "https://sts.windows.net/" + c.TenantID + "/"
	c.IssuedAt = now.Add(-clockAllowance).Unix()
	c.NotBefore = c.IssuedAt
	c.Expires = now.Add(life).Unix()
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
	t.Header["kid"], t.Header["x5t"] = g.kid, g.kid
	return t.SignedString(g.key)
}

// Claims for the parser of golang-jwt, which checks exp and nbf through them.

// GetExpirationTime gives exp.
func (c claims) GetExpirationTime() (*jwt.NumericDate, error) { return numericDate(c.Expires), nil }

// GetIssuedAt gives iat.
func (c claims) GetIssuedAt() (*jwt.NumericDate, error) { return numericDate(c.IssuedAt), nil }

// GetNotBefore gives nbf.
func (c claims) GetNotBefore() (*jwt.NumericDate, error) { return numericDate(c.NotBefore), nil }

// GetIssuer gives iss.
func (c claims) GetIssuer() (string, error) { return c.Issuer, nil }

// GetSubject gives sub.
func (c claims) GetSubject() (string, error) { return c.Subject, nil }

// GetAudience gives aud.
func (c claims) GetAudience() (jwt.ClaimStrings, error) { return jwt.ClaimStrings{c.Audience}, nil }

func numericDate(sec int64) *jwt.NumericDate {
	if sec == 0 {
		return nil
	}
	return jwt.NewNumericDate(time.Unix(sec, 0))
}

// verify reads a token that this simulator signed and that is alive.
func (g *signer) verify(token string, now func() time.Time) (claims, error) {
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if t.Header["kid"] != g.kid {
			return nil, fmt.Errorf("unknown key %v", t.Header["kid"])
		}
		return &g.key.PublicKey, nil
	}, jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(now))
	if err != nil {
		return claims{}, err
	}
	if c.Issuer != "https://sts.windows.net/"+c.TenantID+"/" {
		return claims{}, fmt.Errorf("issuer %s is not that of tenant %s", c.Issuer, c.TenantID)
	}
	id, err := base64.RawURLEncoding.DecodeString(c.TokenID)
	if err != nil || len(id) != 16 || binary.BigEndian.Uint64(id) <= g.revoked.Load() {
		return claims{}, fmt.Errorf("token was revoked")
	}
	return c, nil
}

// SetTokenLifetime sets the life of tokens that are issued from now on.
func (s *Simulator) SetTokenLifetime(d time.Duration) { s.signer.lifetime.Store(int64(d)) }

// Revoke lets the API answer 401 to every token issued so far.
func (s *Simulator) Revoke() { s.signer.revoked.Store(s.signer.last.Load()) }
