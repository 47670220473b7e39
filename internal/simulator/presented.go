package simulator

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Refusal is why a region or the key vault refused a token.
type Refusal string

const (
	RefusedMissing     Refusal = "missing"        // no Authorization header, or more than one
	RefusedMalformed   Refusal = "malformed"      // not a bearer token, or no JWT
	RefusedUnknownKey  Refusal = "unknown_key"    // signed with a key that is not published
	RefusedSignature   Refusal = "bad_signature"  // the signature is wrong
	RefusedExpired     Refusal = "expired"        // past its exp when it arrived
	RefusedNotYetValid Refusal = "not_yet_valid"  // before its nbf
	RefusedIssuer      Refusal = "wrong_issuer"   // iss is not that of its tid
	RefusedRevoked     Refusal = "revoked"        // by Revoke
	RefusedTenant      Refusal = "unknown_tenant" // its tenant is not there
	RefusedAudience    Refusal = "wrong_audience" // for another service
	RefusedOutdated    Refusal = "outdated"       // older than a claims challenge

	refusedNot Refusal = ""
)

const (
	maxRefused = 1000 // presentations that are remembered
	maxClaim   = 256  // bytes kept of a claim that nobody has verified
)

// PresentedToken is what a presented token says of itself, whether or not it
// is to be believed. The token itself is not kept.
type PresentedToken struct {
	ID       string    `json:"uti,omitempty"`
	Tenant   string    `json:"tid,omitempty"`
	App      string    `json:"appid,omitempty"`
	Audience string    `json:"aud,omitempty"`
	Expires  time.Time `json:"exp,omitzero"`
}

// RefusedToken is one presentation of a token that was refused.
type RefusedToken struct {
	Number uint64         `json:"number"` // of the Request
	Time   time.Time      `json:"time"`
	Path   string         `json:"path"`
	Reason Refusal        `json:"reason"`
	Token  PresentedToken `json:"token"`
}

// presented remembers the tokens that were refused.
type presented struct {
	mu     sync.Mutex
	counts map[Refusal]int
	last   []RefusedToken // oldest first, at most maxRefused
}

func newPresented() *presented { return &presented{counts: map[Refusal]int{}} }

func (p *presented) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts, p.last = map[Refusal]int{}, nil
}

func (p *presented) note(t RefusedToken) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[t.Reason]++
	if t.Reason == RefusedMissing {
		return // probes of a region carry none
	}
	if len(p.last) == maxRefused {
		p.last = slices.Delete(p.last, 0, 1)
	}
	p.last = append(p.last, t)
}

// Refused returns the last 1,000 presentations of a token that a region or the
// key vault refused, oldest first. Requests without a token are only counted:
// probes of a region carry none. A token that a fault or misbehaviour refuses
// although it is good is not among them.
func (s *Simulator) Refused() []RefusedToken {
	s.presented.mu.Lock()
	defer s.presented.mu.Unlock()
	return slices.Clone(s.presented.last)
}

// RefusedCounts counts all presentations that were refused since the start or
// the last reset, by reason.
func (s *Simulator) RefusedCounts() map[Refusal]int {
	s.presented.mu.Lock()
	defer s.presented.mu.Unlock()
	return maps.Clone(s.presented.counts)
}

// refused records why a token was refused, in the request and among the
// refused.
func (s *Simulator) refused(rec *Request, reason Refusal, token PresentedToken) {
	row := RefusedToken{Reason: reason, Token: token}
	s.ring.update(rec, func(q *Request) {
		q.Refused = reason
		row.Number, row.Time = q.Number, q.Time
		row.Path, _, _ = strings.Cut(q.Target, "?")
	})
	s.presented.note(row)
}

// bearer takes the token out of a request.
func bearer(r *http.Request) (string, Refusal) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", RefusedMissing
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", RefusedMalformed
	}
	return token, refusedNot
}

// present judges the token of a request as it arrives, and records what it
// says of itself.
func (s *Simulator) present(r *http.Request, rec *Request) (claims, Refusal) {
	token, reason := bearer(r)
	if reason != refusedNot {
		s.refused(rec, reason, PresentedToken{})
		return claims{}, reason
	}
	c, err := s.signer.verify(token, s.now)
	shown := PresentedToken{ID: keep(c.TokenID), Tenant: keep(c.TenantID), App: keep(c.AppID), Audience: keep(c.Audience)}
	if c.Expires != 0 {
		shown.Expires = time.Unix(c.Expires, 0).UTC()
	}
	s.ring.update(rec, func(q *Request) { q.Token = &shown })
	if err == nil && s.directory.tenant(c.TenantID) == nil {
		reason = RefusedTenant
	} else {
		reason = reasonOf(err)
	}
	if reason != refusedNot {
		s.refused(rec, reason, shown)
	}
	return c, reason
}

// keep bounds a claim.
func keep(s string) string { return s[:min(len(s), maxClaim)] }

// reasonOf is the reason behind an error of signer.verify.
func reasonOf(err error) Refusal {
	for _, row := range []struct {
		is     error
		reason Refusal
	}{
		{nil, refusedNot},
		{errUnknownKey, RefusedUnknownKey},
		{jwt.ErrTokenMalformed, RefusedMalformed},
		{jwt.ErrTokenSignatureInvalid, RefusedSignature},
		{jwt.ErrTokenUnverifiable, RefusedSignature},
		{jwt.ErrTokenExpired, RefusedExpired},
		{jwt.ErrTokenNotValidYet, RefusedNotYetValid},
		{errWrongIssuer, RefusedIssuer},
		{errRevoked, RefusedRevoked},
	} {
		if errors.Is(err, row.is) {
			return row.reason
		}
	}
	return RefusedMalformed
}
