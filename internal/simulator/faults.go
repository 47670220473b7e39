package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// FaultKind names a way to go wrong.
type FaultKind string

// Faults of the regions and of Entra ID. Where they differ the comment says
// so; a kind that does not fit is refused when it is set.
const (
	FaultNone     FaultKind = ""
	FaultRefuse   FaultKind = "refuse"   // the port is closed: connection refused
	FaultReset    FaultKind = "reset"    // RST: at once, or after the request when Match or Count is set
	FaultTLS      FaultKind = "tls"      // the handshake fails
	FaultHang     FaultKind = "hang"     // the request is read and never answered
	FaultDelay    FaultKind = "delay"    // the answer comes Delay later
	FaultStatus   FaultKind = "status"   // Status, with RetryAfter if set
	FaultRedirect FaultKind = "redirect" // 302 to Location

	// Regions only.
	FaultTruncate     FaultKind = "truncate"     // the connection ends in the middle of the body
	FaultSlowBody     FaultKind = "slow_body"    // the body comes in sixteen pieces, Delay apart
	FaultGarbage      FaultKind = "garbage"      // 200 with a page of HTML
	FaultBadJSON      FaultKind = "bad_json"     // 200 with JSON that breaks off
	FaultUpgrade      FaultKind = "upgrade"      // 101 that nobody asked for
	FaultFlood1xx     FaultKind = "flood_1xx"    // a thousand 103 before the answer
	FaultHugeHeaders  FaultKind = "huge_headers" // two megabytes of header
	FaultEndless      FaultKind = "endless"      // a body without an end
	FaultCookies      FaultKind = "cookies"      // Set-Cookie, Alt-Svc, CORS and the like
	FaultOddLinks     FaultKind = "odd_links"    // next links with odd hosts, ports, schemes, escapes
	FaultUnauthorized FaultKind = "unauthorized" // 401 for a good token
	FaultThrottle     FaultKind = "throttle"     // 429 with RetryAfter, one second if not set; the key vault has it too
	// 401 with a claims challenge for every token that is older than the fault
	// or was asked for without the claims of a challenge.
	FaultClaimsChallenge FaultKind = "claims_challenge"

	// Entra ID only.
	FaultHTML              FaultKind = "html"                // 200 with a page of HTML
	FaultEmpty             FaultKind = "empty"               // 200 without a body
	FaultNoToken           FaultKind = "no_token"            // 200 without access_token
	FaultExpiresInZero     FaultKind = "expires_in_zero"     // expires_in 0
	FaultExpiresInNegative FaultKind = "expires_in_negative" // expires_in below 0
	FaultWrongTID          FaultKind = "wrong_tid"           // a token of another tenant
	FaultWrongAudience     FaultKind = "wrong_aud"           // a token for another resource
	FaultExpired           FaultKind = "expired"             // a token that is past its exp
	FaultNotJWT            FaultKind = "not_jwt"             // a token that is no JWT
	FaultAADSTS            FaultKind = "aadsts"              // the error with Code
	FaultHuge              FaultKind = "huge"                // 200 with 16 MiB of JSON
	FaultWrongKey          FaultKind = "wrong_key"           // a token signed with a key that is in no key set
)

var (
	connectionFaults = []FaultKind{FaultRefuse, FaultReset, FaultTLS}
	commonFaults     = []FaultKind{FaultHang, FaultDelay, FaultStatus, FaultRedirect}
	regionFaults     = slices.Concat(connectionFaults, commonFaults, []FaultKind{
		FaultTruncate, FaultSlowBody, FaultGarbage, FaultBadJSON, FaultUpgrade, FaultFlood1xx, FaultHugeHeaders,
		FaultEndless, FaultCookies, FaultOddLinks, FaultUnauthorized, FaultThrottle,
		FaultClaimsChallenge,
	})
	entraFaults = slices.Concat(connectionFaults, commonFaults, []FaultKind{
		FaultHTML, FaultEmpty, FaultNoToken, FaultExpiresInZero, FaultExpiresInNegative, FaultWrongTID,
		FaultWrongAudience, FaultExpired, FaultNotJWT, FaultAADSTS, FaultHuge, FaultWrongKey,
	})
	vaultFaults    = slices.Concat(connectionFaults, commonFaults, []FaultKind{FaultThrottle})
	identityFaults = slices.Concat([]FaultKind{FaultRefuse, FaultReset}, commonFaults)
)

// Fault is a way to go wrong, and for which requests. The zero value is none.
type Fault struct {
	Kind FaultKind
	// Delay is for delay and slow_body.
	Delay time.Duration
	// Status is for status.
	Status int
	// RetryAfter is the header's value as it stands, for status and throttle.
	RetryAfter string
	// Location is for redirect.
	Location string
	// Code is the number after AADSTS, for aadsts.
	Code int
	// Count is how many requests are struck, 0 for all. For tls it counts
	// connections; refuse has no requests to count.
	Count int
	// Match strikes only paths that begin with it, without regard to case.
	Match string

	// mark and since are the newest token and the time when the fault was set.
	mark  uint64
	since time.Time
}

// faultWire is the JSON form.
type faultWire struct {
	Kind       FaultKind `json:"kind"`
	Delay      string    `json:"delay,omitempty"`
	Status     int       `json:"status,omitempty"`
	RetryAfter string    `json:"retry_after,omitempty"`
	Location   string    `json:"location,omitempty"`
	Code       int       `json:"code,omitempty"`
	Count      int       `json:"count,omitempty"`
	Match      string    `json:"match,omitempty"`
}

// MarshalJSON writes delay as a duration with a unit.
func (f Fault) MarshalJSON() ([]byte, error) {
	w := faultWire{Kind: f.Kind, Status: f.Status, RetryAfter: f.RetryAfter, Location: f.Location, Code: f.Code, Count: f.Count, Match: f.Match}
	if f.Delay != 0 {
		w.Delay = f.Delay.String()
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads delay as a duration with a unit, such as "250ms".
// Unknown keys are errors.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var w faultWire
	if err := decodeStrict(data, &w); err != nil {
		return err
	}
	*f = Fault{Kind: w.Kind, Status: w.Status, RetryAfter: w.RetryAfter, Location: w.Location, Code: w.Code, Count: w.Count, Match: w.Match}
	if w.Delay != "" {
		d, err := time.ParseDuration(w.Delay)
		if err != nil {
			return fmt.Errorf("delay %q: write a number with a unit, such as 250ms", w.Delay)
		}
		f.Delay = d
	}
	return nil
}

// check refuses a fault that could not do what it says.
func (f Fault) check(kinds []FaultKind) error {
	if f == (Fault{}) {
		return nil
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	switch {
	case !slices.Contains(kinds, f.Kind):
		return fmt.Errorf("fault kind %q: choose one of %s", f.Kind, strings.Join(names, " "))
	case f.Delay < 0 || f.Count < 0:
		return fmt.Errorf("fault %s: delay and count must not be negative", f.Kind)
	case f.Kind == FaultStatus && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("fault status: give a status from 200 to 599, not %d", f.Status)
	case f.Kind == FaultRedirect && f.Location == "":
		return fmt.Errorf("fault redirect: give a location")
	case f.Kind == FaultDelay && f.Delay == 0:
		return fmt.Errorf("fault delay: give a delay, such as 250ms")
	case f.Kind == FaultAADSTS && f.Code == 0:
		return fmt.Errorf("fault aadsts: give a code, such as 53003")
	case f.Kind == FaultRefuse && (f.Count != 0 || f.Match != ""):
		return fmt.Errorf("fault refuse: no request arrives, so there is nothing to count or match")
	case f.Kind == FaultTLS && f.Match != "":
		return fmt.Errorf("fault tls: no path arrives, so there is nothing to match")
	}
	return nil
}

// faultBox holds the delay and the fault of one listener.
type faultBox struct {
	first time.Duration // the delay at the start

	mu    sync.Mutex
	delay time.Duration
	fault Fault
	left  int // requests still to strike, below 0 for all
}

func newFaultBox(delay time.Duration) *faultBox { return &faultBox{first: delay, delay: delay} }

func (b *faultBox) set(f Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault, b.left = f, f.Count
	if f.Count == 0 {
		b.left = -1
	}
}

// state is the delay and what is left of the fault. Failed handshakes are
// counted by the gate.
func (b *faultBox) state(g *gate) (time.Duration, Fault) {
	spoils, budget := g.spoils()
	b.mu.Lock()
	defer b.mu.Unlock()
	f, left := b.fault, b.left
	if f.Kind == FaultTLS {
		if left = budget; !spoils {
			left = 0
		}
	}
	f.Count = max(left, 0)
	if left == 0 {
		f = Fault{}
	}
	return b.delay, f
}

func (b *faultBox) pause() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.delay
}

// take tells whether the fault strikes this request, and counts it.
func (b *faultBox) take(path string) (Fault, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fault.Kind == FaultNone || b.left == 0 || b.fault.Kind == FaultTLS || b.fault.Kind == FaultRefuse {
		return Fault{}, false
	}
	if len(path) < len(b.fault.Match) || !strings.EqualFold(path[:len(b.fault.Match)], b.fault.Match) {
		return Fault{}, false
	}
	if b.left > 0 {
		b.left--
	}
	return b.fault, true
}

// SetRegion replaces the fault of a region; the zero Fault mends it.
func (s *Simulator) SetRegion(name string, f Fault) error {
	r, ok := s.regions[name]
	if !ok {
		return fmt.Errorf("simulator: region %q: the regions are %s", name, strings.Join(regionNames, " "))
	}
	if err := f.check(regionFaults); err != nil {
		return fmt.Errorf("simulator: region %s: %w", name, err)
	}
	f.mark, f.since = s.signer.last.Load(), s.now()
	return apply(r.gate, r.faults, f)
}

// SetVault replaces the fault of the key vault; the zero Fault mends it.
func (s *Simulator) SetVault(f Fault) error {
	if err := f.check(vaultFaults); err != nil {
		return fmt.Errorf("simulator: vault: %w", err)
	}
	return apply(s.vault.gate, s.vault.faults, f)
}

// SetIdentity replaces the fault of the machine's identity endpoints; the zero
// Fault mends it. Microsoft documents the statuses 404, 410, 429 and 500.
func (s *Simulator) SetIdentity(f Fault) error {
	if err := f.check(identityFaults); err != nil {
		return fmt.Errorf("simulator: identity: %w", err)
	}
	return apply(s.identity.gate, s.identity.faults, f)
}

// SetEntra replaces the fault of Entra ID; the zero Fault mends it.
func (s *Simulator) SetEntra(f Fault) error {
	if err := f.check(entraFaults); err != nil {
		return fmt.Errorf("simulator: entra: %w", err)
	}
	return apply(s.login, s.entra, f)
}

// SetDelay sets the time that a region adds to each answer.
func (s *Simulator) SetDelay(name string, d time.Duration) error {
	r, ok := s.regions[name]
	if !ok {
		return fmt.Errorf("simulator: region %q: the regions are %s", name, strings.Join(regionNames, " "))
	}
	if d < 0 {
		return fmt.Errorf("simulator: region %s: delay %v is negative", name, d)
	}
	r.faults.mu.Lock()
	defer r.faults.mu.Unlock()
	r.faults.delay = d
	return nil
}

// SetRetired lets the older hunting APIs answer 404 or 410 to everybody, as if
// Microsoft had switched them off; 0 lets them work again.
func (s *Simulator) SetRetired(status int) error {
	if status != 0 && status != http.StatusNotFound && status != http.StatusGone {
		return fmt.Errorf("simulator: retired: %d is none of 0, 404 and 410", status)
	}
	s.retired.Store(int32(status))
	return nil
}

// apply divides a fault between the port and the requests.
func apply(g *gate, b *faultBox, f Fault) error {
	mode, budget := modeServe, 0
	switch {
	case f.Kind == FaultRefuse:
		mode = modeRefuse
	case f.Kind == FaultTLS:
		mode, budget = modeSpoilTLS, f.Count
	case f.Kind == FaultReset && f.Count == 0 && f.Match == "":
		mode = modeReset
	}
	// The requests first: a connection of the old mode must not slip between.
	b.set(f)
	return g.set(mode, budget)
}

// pause waits, and tells false when the caller left or the simulator ended.
func (s *Simulator) pause(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-s.stopped:
	}
	return false
}

// Reset returns to the start: fleets, permissions, delays, faults, budgets and
// revocations as configured; no requests, sign-ins or secrets of the key vault
// remembered. Addresses, keys and the certificate authority stay.
func (s *Simulator) Reset() error {
	s.retired.Store(0)
	for _, r := range s.regions {
		if err := apply(r.gate, r.faults, Fault{}); err != nil {
			return err
		}
		r.faults.mu.Lock()
		r.faults.delay = r.faults.first
		r.faults.mu.Unlock()
	}
	if err := apply(s.login, s.entra, Fault{}); err != nil {
		return err
	}
	if err := apply(s.vault.gate, s.vault.faults, Fault{}); err != nil {
		return err
	}
	if err := apply(s.identity.gate, s.identity.faults, Fault{}); err != nil {
		return err
	}
	s.sessions.reset()
	s.vault.reset()
	s.identity.reset()
	s.presented.reset()
	if err := s.directory.reset(); err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	s.signer.reset()
	s.quotas.reset()
	s.mischief.reset()
	s.ring.clear()
	return nil
}
