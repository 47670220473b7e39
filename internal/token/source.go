package token

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// firstPause follows the first failure; each further one doubles it, up to
	// longestPause.
	firstPause   = time.Second
	longestPause = time.Minute

	// idleAfter is how long the background goes on trying, when no token comes,
	// for a source that nobody asks. After that the next request fetches.
	idleAfter = time.Hour

	// maxDrops is how many tokens a minute Invalidate drops. An API that refuses
	// every token would else make a fetch of each request.
	maxDrops   = 5
	dropWindow = time.Minute

	// recheck is how long a source may go without a fetch. A credential that
	// stopped working meanwhile is then told of before somebody needs it.
	recheck = 12 * time.Hour
)

// Source gives the tokens of one account for one audience. Engine.Source makes
// it; of the zero value only Current may be called, and has no token. Methods
// may be called concurrently.
type Source struct {
	engine   *Engine
	audience string
	current  atomic.Pointer[Bearer] // written under engine.mu
	gone     chan struct{}          // closed when Engine.Keep forgot the source

	// What follows is guarded by engine.mu.

	account Account
	// flight is the fetch queued or under way, nil when there is none.
	flight *flight
	// last is the newest token that came, also when it is dead or dropped.
	last *Bearer
	// asked is when Bearer last found no token, while waiting says that none has
	// come since.
	asked   instant
	waiting bool

	// failure is what the last fetch failed with, nil after a success. None
	// begins before pause has passed since failedAt.
	failure  *Error
	failedAt instant
	pause    time.Duration
	heldBack bool // pause is Entra's own Retry-After
	failures int  // in a row

	fetches, failed uint64
	fetched         instant // when the last of them ended
	skew            time.Duration
	skewed          bool

	firstDrop instant
	drops     int // since firstDrop, within dropWindow

	// claims are those that the next token is asked for with, empty for none.
	claims string
}

// flight is one fetch that any number of callers wait for.
type flight struct {
	source *Source
	done   chan struct{} // closed when it has landed

	// begun and waited are guarded by Engine.mu: it has left the queue; it stands
	// among those that somebody waits for.
	begun, waited bool

	// failure is set before done is closed, nil where a token came.
	failure *Error
}

// Current gives a live token, or false when there is none right now. It takes
// no lock and allocates nothing.
func (s *Source) Current() (*Bearer, bool) {
	b := s.current.Load()
	if b == nil || !b.live(s.engine.now()) {
		return nil, false
	}
	if !b.used.Load() && b.used.CompareAndSwap(false, true) {
		// Its renewal may have been passed over, because nobody used it.
		s.engine.nudge()
	}
	return b, true
}

// Bearer gives a live token, and waits for the shared fetch when there is
// none, also before Run has begun.
//
// Its error is ctx's, wrapped, when ctx ends first: the fetch goes on for the
// others and for the next request. Otherwise it is an *Error. After a failed
// fetch the same error is returned at once until the pause has passed (1 s, 2 s,
// 4 s … 60 s, or what Entra asked for, up to five minutes), so that callers
// cause one fetch in each pause however many they are; RetryAfter is what is
// left of it.
func (s *Source) Bearer(ctx context.Context) (*Bearer, error) {
	for {
		if b, ok := s.Current(); ok {
			return b, nil
		}
		f, err := s.join()
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue
		}
		select {
		case <-f.done:
			if f.failure != nil {
				return nil, f.failure
			}
			// Round again: the token may have died or been dropped while this
			// waiter slept.
		case <-s.engine.stopped:
			return nil, s.stopped()
		case <-s.gone:
			return nil, s.forgotten()
		case <-ctx.Done():
			return nil, fmt.Errorf("token: tenant %s, audience %s: stopped waiting for a token: %w", s.name(), s.audience, ctx.Err())
		}
	}
}

// join gives the flight to wait for, and begins one where none is in the air.
// It gives nil where a token has come meanwhile.
func (s *Source) join() (*flight, error) {
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.isGone() {
		return nil, s.forgottenLocked()
	}
	now := e.now()
	if b := s.current.Load(); b != nil && b.live(now) {
		return nil, nil
	}
	s.asked, s.waiting = now, true
	if s.flight == nil {
		if left := s.held(now); left > 0 {
			failure := *s.failure
			failure.RetryAfter = left
			return nil, &failure
		}
		s.flight = &flight{source: s, done: make(chan struct{})}
	}
	if f := s.flight; !f.begun && !f.waited {
		f.waited = true
		e.waited = append(e.waited, f)
		e.nudge()
	}
	return s.flight, nil
}

// Invalidate drops b because Microsoft answered 401 to it; the next Bearer
// fetches anew. It does nothing when b is not the current token any more, so
// of many callers who saw the same 401 one drops it and none drops its
// successor.
//
// It drops no more than five tokens a minute. Past that the token stays: a
// caller who gets the same Bearer again has Microsoft's last word on it.
func (s *Source) Invalidate(b *Bearer) { s.Challenge(b, "") }

// Challenge is Invalidate for a 401 that names claims, as ClaimsChallenge reads
// them: the next token is asked for with those (continuous access evaluation,
// learn.microsoft.com/entra/identity-platform/claims-challenge). They are
// forgotten once such a token has come or Entra ID has refused it.
func (s *Source) Challenge(b *Bearer, claims string) {
	if b == nil {
		return
	}
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.current.Load() != b {
		return
	}
	now := e.now()
	if s.drops == 0 || now.since(s.firstDrop) >= dropWindow {
		s.firstDrop, s.drops = now, 0
	}
	if s.drops < maxDrops {
		s.drops++
		s.current.Store(nil)
		if claims != "" {
			s.claims = claims
		}
	}
}

// lapse lets go of a dead token: a tenant that nobody asks for then takes a few
// hundred bytes. engine.mu is held.
func (s *Source) lapse(now instant) {
	b := s.current.Load()
	if b == nil || b.live(now) {
		return
	}
	s.current.Store(nil)
	if s.last == b {
		s.last = &Bearer{acquired: b.acquired, life: b.life, used: b.used}
	}
}

// record takes over what a fetch brought and returns how long until the next.
// engine.mu is held.
func (s *Source) record(job errand, out outcome, now instant) time.Duration {
	s.fetches++
	s.fetched = now
	if job.claims == s.claims && (out.failure == nil || out.failure.Kind == Rejected) {
		s.claims = ""
	}
	if out.skewed {
		s.skew, s.skewed = out.skew, true
	}
	if out.failure == nil {
		s.last, s.waiting = out.bearer, false
		s.current.Store(out.bearer)
		s.failure, s.failures = nil, 0
		return s.due(now)
	}
	s.failed++
	s.failures++
	pause := min(firstPause<<min(s.failures-1, 10), longestPause)
	// Downwards only, so that the bound holds.
	pause -= time.Duration(float64(pause) * 0.2 * s.engine.rand())
	s.heldBack = out.failure.RetryAfter > pause
	s.pause = max(pause, out.failure.RetryAfter)
	s.failedAt = now
	failure := *out.failure
	failure.RetryAfter = s.pause
	s.failure = &failure
	return s.pause
}

// held is what is left of the pause after a failure. engine.mu is held.
func (s *Source) held(now instant) time.Duration {
	if s.failure == nil {
		return 0
	}
	return max(s.pause-now.since(s.failedAt), 0)
}

// due is how long until the background should fetch: at once where there is no
// token, else when a fifth of its life is left, and after the pause in any
// case. engine.mu is held.
func (s *Source) due(now instant) time.Duration {
	due := s.held(now)
	if b := s.current.Load(); b != nil {
		due = max(due, b.renewAt-now.since(b.acquired))
	}
	return due
}

// wanted reports whether the background should fetch: the last token was used
// in its life, or somebody asked and got none, and that for no longer than
// idleAfter. engine.mu is held.
func (s *Source) wanted(now instant) bool {
	if s.last != nil && s.last.used.Load() && now.since(s.last.acquired) < s.last.life+idleAfter {
		return true
	}
	if s.fetches > 0 && now.since(s.fetched) >= recheck {
		return true
	}
	return s.waiting && now.since(s.asked) < idleAfter
}

// String names the tenant and the audience.
func (s *Source) String() string { return s.name() + " " + s.audience }

// GoString gives what String gives: a Source holds a Bearer and an Account.
func (s *Source) GoString() string { return s.String() }

func (s *Source) name() string {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	return s.account.Name
}

func (s *Source) isGone() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

func (s *Source) forgotten() *Error {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	return s.forgottenLocked()
}

func (s *Source) forgottenLocked() *Error {
	return &Error{
		Kind: Stopped, Tenant: s.account.Name, Audience: s.audience,
		Sentence: "The tenant, or this credential of it, was taken out of the configuration.", Remedy: "Ask again for a tenant that is configured.",
	}
}

func (s *Source) stopped() *Error {
	return &Error{
		Kind: Stopped, Tenant: s.name(), Audience: s.audience,
		Sentence: "The proxy is stopping and fetches no more tokens.", Remedy: "Ask again when it has started.",
	}
}
