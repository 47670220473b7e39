package simulator

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

// maxSessions bounds each kind of what sign-ins leave behind; the oldest goes.
const maxSessions = 10_000

// bounded is a map that drops its oldest entries. Its owner guards it.
type bounded[V any] struct {
	max   int
	rows  map[string]V
	order []string // oldest first, with keys that are gone
}

func newBounded[V any](limit int) bounded[V] { return bounded[V]{max: limit, rows: map[string]V{}} }

func (b *bounded[V]) add(key string, v V) {
	for len(b.rows) >= b.max && len(b.order) > 0 {
		delete(b.rows, b.order[0])
		b.order = b.order[1:]
	}
	if len(b.order) > 2*b.max {
		kept := b.order[:0:0]
		for _, k := range b.order {
			if _, ok := b.rows[k]; ok {
				kept = append(kept, k)
			}
		}
		b.order = kept
	}
	b.rows[key] = v
	b.order = append(b.order, key)
}

// sessions is what Entra ID remembers of people who signed in.
type sessions struct {
	mu      sync.Mutex
	refresh bounded[*refreshToken]
	codes   bounded[*authorizationCode]
	devices bounded[*device]
	// singleUse lets the second use of a refresh token revoke its family.
	singleUse bool
	// signedIn is who sits at the browser when a request names nobody.
	signedIn string
	families uint64
}

// wanted is what a sign-in was for: the form of the token request, less what
// proves anything.
type wanted struct {
	tenantID, clientID, user string
	version                  int
	scope, resource          string
}

// form gives back what a later request may leave out.
func (w wanted) form() url.Values {
	return url.Values{"scope": {w.scope}, "resource": {w.resource}}
}

// refreshToken is one that was issued.
type refreshToken struct {
	wanted
	issued  time.Time
	family  uint64 // all that come from one sign-in
	used    bool
	revoked time.Time // zero while it is good
	expired bool      // by order; time is compared as well
}

// authorizationCode is one that was sent to a redirect URI.
type authorizationCode struct {
	wanted
	issued          time.Time
	redirect        string
	challenge, kind string // PKCE
	redeemed        bool
}

// device waits for somebody to type its code.
type device struct {
	wanted
	userCode string
	expires  time.Time
	state    deviceState
}

type deviceState uint8

const (
	devicePending deviceState = iota
	deviceApproved
	deviceDeclined
)

func newSessions() *sessions {
	s := &sessions{}
	s.reset()
	return s
}

func (b *sessions) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refresh = newBounded[*refreshToken](maxSessions)
	b.codes = newBounded[*authorizationCode](maxSessions)
	b.devices = newBounded[*device](maxSessions)
	b.singleUse, b.signedIn = false, ""
}

// opaque is a random text in Entra ID's manner: a version before a long rest.
func opaque(prefix string, size int) string {
	b := make([]byte, size)
	rand.Read(b) // never fails: it ends the process instead
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// refreshLife is the life of refresh tokens that are not a web page's
// (learn.microsoft.com/entra/identity-platform/refresh-tokens).
const refreshLife = 90 * 24 * time.Hour

// newRefresh issues a refresh token; family 0 begins a new one.
func (b *sessions) newRefresh(w wanted, family uint64, now time.Time) string {
	token := opaque("1.", 96)
	b.mu.Lock()
	defer b.mu.Unlock()
	if family == 0 {
		b.families++
		family = b.families
	}
	b.refresh.add(token, &refreshToken{wanted: w, issued: now, family: family})
	return token
}

// useRefresh judges a refresh token. Using one does not revoke it ("The
// Microsoft identity platform doesn't revoke old refresh tokens when used to
// fetch new access tokens", refresh-tokens), unless SetSingleUseRefreshTokens
// says so.
func (b *sessions) useRefresh(token, clientID string, now time.Time) (wanted, uint64, *aadError) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.refresh.rows[token]
	const form = "2006-01-02T15:04:05.0000000Z"
	switch {
	case r == nil, !strings.EqualFold(r.clientID, clientID):
		return wanted{}, 0, refuse(70000)
	case !r.revoked.IsZero():
		return wanted{}, 0, refuse(50173, r.issued.UTC().Format(form), r.revoked.UTC().Format(form))
	case r.expired || now.Sub(r.issued) > refreshLife:
		return wanted{}, 0, refuse(700082, r.issued.UTC().Format(form), "90.00:00:00")
	case r.used && b.singleUse:
		for _, other := range b.refresh.rows {
			if other.family == r.family && other.revoked.IsZero() {
				other.revoked = now
			}
		}
		return wanted{}, 0, refuse(70000)
	}
	r.used = true
	return r.wanted, r.family, nil
}

// SetSingleUseRefreshTokens lets the second use of a refresh token be refused
// and revoke all that come from the same sign-in. Entra ID does not do so;
// other providers do, and whoever keeps the newest token stands both.
func (s *Simulator) SetSingleUseRefreshTokens(on bool) {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	s.sessions.singleUse = on
}

// eachRefresh changes the refresh tokens of a user, in all tenants.
func (s *Simulator) eachRefresh(user string, do func(*refreshToken)) {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	for _, r := range s.sessions.refresh.rows {
		if strings.EqualFold(r.user, user) {
			do(r)
		}
	}
}

// RevokeRefreshTokens revokes the refresh tokens that a user has, as an
// administrator does: Entra ID answers AADSTS50173.
func (s *Simulator) RevokeRefreshTokens(user string) {
	now := s.now()
	s.eachRefresh(user, func(r *refreshToken) { r.revoked = now })
}

// ExpireRefreshTokens lets the refresh tokens that a user has be past their
// ninety days: Entra ID answers AADSTS700082.
func (s *Simulator) ExpireRefreshTokens(user string) {
	s.eachRefresh(user, func(r *refreshToken) { r.expired = true })
}

// SetSignedInUser says who sits at the browser when a request to the
// authorization endpoint names nobody; empty for nobody.
func (s *Simulator) SetSignedInUser(user string) {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	s.sessions.signedIn = user
}

// findDevice finds a device that waits, by its user code without regard to case
// and dashes. The caller holds mu.
func (b *sessions) findDevice(userCode string) *device {
	plain := func(c string) string { return strings.ToUpper(strings.ReplaceAll(c, "-", "")) }
	for _, d := range b.devices.rows {
		if plain(d.userCode) == plain(userCode) {
			return d
		}
	}
	return nil
}

// settleDevice is what somebody does at the page where codes are typed.
func (s *Simulator) settleDevice(userCode, user string, state deviceState) error {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	d := s.sessions.findDevice(userCode)
	switch {
	case d == nil:
		return fmt.Errorf("simulator: no device waits with code %q", userCode)
	case d.state != devicePending:
		return fmt.Errorf("simulator: the code %q was already approved or declined", userCode)
	case s.now().After(d.expires):
		return fmt.Errorf("simulator: the code %q has expired", userCode)
	}
	d.user, d.state = user, state
	return nil
}

// ApproveDevice types a device's code and signs user in. The error says that
// no such code waits, or that the application has no such user.
func (s *Simulator) ApproveDevice(userCode, user string) error {
	s.sessions.mu.Lock()
	d := s.sessions.findDevice(userCode)
	var w wanted
	if d != nil {
		w = d.wanted
	}
	s.sessions.mu.Unlock()
	if d != nil {
		if refusal := s.mayJoin(w, user); refusal != nil {
			return fmt.Errorf("simulator: user %q cannot sign in: AADSTS%d: %s", user, refusal.code, refusal.sentence())
		}
	}
	return s.settleDevice(userCode, user, deviceApproved)
}

// DeclineDevice types a device's code and says no.
func (s *Simulator) DeclineDevice(userCode string) error {
	return s.settleDevice(userCode, "", deviceDeclined)
}
