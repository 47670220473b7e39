package simulator

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signer makes access tokens and knows which of them are revoked.
type signer struct {
	mu  sync.RWMutex
	key *rsa.PrivateKey // signs what is issued now
	kid string
	old []signingKey // still published, newest first

	// stray is a key that is published nowhere.
	stray func() (signingKey, error)
	// plainGraph leaves the nonce out of the header of tokens for Graph.
	plainGraph bool

	start    time.Duration // the configured lifetime
	lifetime atomic.Int64  // nanoseconds
	last     atomic.Uint64 // number of the newest token
	revoked  atomic.Uint64 // tokens up to this number are refused
}

func newSigner(key *rsa.PrivateKey, lifetime time.Duration) *signer {
	g := &signer{key: key, kid: keyID(key), start: lifetime, stray: sync.OnceValues(newSigningKey)}
	g.lifetime.Store(int64(lifetime))
	return g
}

// reset returns to the configured lifetime and forgets revocations.
func (g *signer) reset() {
	g.lifetime.Store(int64(g.start))
	g.revoked.Store(0)
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
	// Capabilities are what the client said it understands (xms_cc).
	Capabilities []string `json:"xms_cc,omitempty"`

	// issuer is iss, when the resource takes tokens of the second format.
	issuer string
	// answersChallenge marks a token that was asked for with the claims of a
	// challenge.
	answersChallenge bool
}

// clockAllowance is how far Entra ID dates a token back, for peers whose
// clocks are behind.
const clockAllowance = 5 * time.Minute

// signWith completes c and signs it with a key.
func (g *signer) signWith(k signingKey, c claims, now time.Time, life time.Duration) (string, error) {
	// The number in the token's id is what revocation compares: the second of
	// iat is too coarse to tell tokens before and after it apart.
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], g.last.Add(1))
	if _, err := rand.Read(id[8:]); err != nil {
		return "", err
	}
	id[15] &^= challengeBit
	if c.answersChallenge {
		id[15] |= challengeBit
	}
	c.TokenID = base64.RawURLEncoding.EncodeToString(id[:])
	// Entra ID signs tokens of both endpoints in the format that the API asks
	// for, and the three security APIs take the first.
	c.Version, c.Issuer = "1.0", "https://sts.windows.net/"+c.TenantID+"/"
	if c.issuer != "" {
		c.Version, c.Issuer = "2.0", c.issuer
	}
	c.IssuedAt = now.Add(-clockAllowance).Unix()
	c.NotBefore = c.IssuedAt
	c.Expires = now.Add(life).Unix()
	return k.token(c, !g.plainGraph && serviceOf(c.Audience) == "graph")
}

// challengeBit is a bit of a token's id: the simulator then needs no memory of
// which tokens answer a challenge.
const challengeBit = 1

// sign completes and signs c with the current key. life may be negative, for a
// token that is dead on arrival.
func (g *signer) sign(c claims, now time.Time, life time.Duration) (string, error) {
	g.mu.RLock()
	k := signingKey{g.key, g.kid}
	g.mu.RUnlock()
	return g.signWith(k, c, now, life)
}

// number is the place of a token among all that were issued, and whether it
// answers a challenge.
func (c claims) number() (n uint64, answers bool) {
	id, err := base64.RawURLEncoding.DecodeString(c.TokenID)
	if err != nil || len(id) != 16 {
		return 0, false
	}
	return binary.BigEndian.Uint64(id), id[15]&challengeBit != 0
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

// Why a token is refused, beside the errors of golang-jwt.
var (
	errUnknownKey  = errors.New("signed with a key that is not published")
	errWrongIssuer = errors.New("issuer is not that of its tenant")
	errRevoked     = errors.New("revoked")
)

// verify reads a token that this simulator signed and that is alive. The claims
// are there beside an error too, as far as they could be read: they are then
// what somebody claims.
func (g *signer) verify(token string, now func() time.Time) (claims, error) {
	var c claims
	_, err := jwt.ParseWithClaims(hashNonce(token), &c, func(t *jwt.Token) (any, error) {
		if key := g.published(t.Header["kid"]); key != nil {
			return key, nil
		}
		return nil, errUnknownKey
	}, jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(now))
	if err != nil {
		return c, err
	}
	if c.Version != "2.0" && c.Issuer != "https://sts.windows.net/"+c.TenantID+"/" {
		return c, errWrongIssuer
	}
	if n, _ := c.number(); n <= g.revoked.Load() {
		return c, errRevoked
	}
	return c, nil
}

// SetTokenLifetime sets the life of tokens that are issued from now on.
func (s *Simulator) SetTokenLifetime(d time.Duration) { s.signer.lifetime.Store(int64(d)) }

// Revoke lets the API answer 401 to every token issued so far.
func (s *Simulator) Revoke() { s.signer.revoked.Store(s.signer.last.Load()) }
