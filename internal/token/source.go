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

	// guardedPause follows a failure that, repeated, would lock a user's account.
	guardedPause = 15 * time.Minute

	// maxReplaced is how many tokens Replace replaces at once, and replaceEvery how
	// long it takes to be allowed one more. An API that refuses every token would
	// else make a fetch of each request.
	maxReplaced  = 5
	replaceEvery = 2 * time.Minute

	// maxClaimTries bounds the fetches that carry the claims of a challenge while
	// Entra ID cannot be reached.
	maxClaimTries = 3

	// recheck is how long a source may go without a fetch, and recheckFailed that
	// after a failure. A credential that stopped working is then told of before
	// somebody needs it, and one that was mended is found without anybody's asking.
	recheck       = 12 * time.Hour
	recheckFailed = 10 * time.Minute
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
	// last is the newest token that came, also when it is dead.
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
	asks     time.Duration // of pause, what was asked for: no reload shortens it
	failures int           // in a row

	fetches, failed uint64
	fetched         instant       // when the last of them ended
	recheck         time.Duration // how long after that one is due although nobody asks
	skew            time.Duration
	skewed          bool

	// replaced counts down by one each replaceEvery since replacedAt.
	replaced   int
	replacedAt instant

	// claims are those that the next token is asked for with, empty for none, and
	// claimTries the fetches that carried them and met nobody.
	claims     string
	claimTries int
}

// flight is one fetch that any number of callers wait for.
type flight struct {
	source *Source
	done   chan struct{} // closed when it has landed

	// begun and waiters are guarded by Engine.mu: it has left the queue; how many
	// wait for it now.
	begun   bool
	waiters int
	// replaces says that it is to bring the successor of a token that was refused.
	replaces bool

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
		if err := s.wait(ctx, f); err != nil {
			return nil, err
		}
		// Round again: the token may have died while this waiter slept.
	}
}

// wait waits for a flight that join gave.
func (s *Source) wait(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		if f.failure != nil {
			return f.failure
		}
		return nil
	case <-s.engine.stopped:
		return s.stopped()
	case <-s.gone:
		return s.forgotten()
	case <-ctx.Done():
		s.engine.mu.Lock()
		f.waiters--
		s.engine.mu.Unlock()
		return fmt.Errorf("token: tenant %s, audience %s: stopped waiting for a token: %w", s.name(), s.audience, ctx.Err())
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
	return s.board(now)
}

// board gives the flight in the air, or a new one unless a failure holds it
// back. engine.mu is held.
func (s *Source) board(now instant) (*flight, error) {
	if s.flight == nil {
		if left := s.held(now); left > 0 {
			failure := *s.failure
			failure.RetryAfter = left
			return nil, &failure
		}
		s.engine.launch(s)
	}
	s.flight.waiters++
	return s.flight, nil
}

// Replace gives another token because Microsoft's API answered 401 to refused.
// claims are those that the answer named, as ClaimsChallenge reads them, or
// empty: the next token is asked for with them (continuous access evaluation,
// learn.microsoft.com/entra/identity-platform/claims-challenge).
//
// Where refused is no longer the current token, its successor is given at once:
// of many callers who saw the same 401 one fetch serves all. Until the successor
// has come refused stays current for the others, for a refusal by one operation
// is no proof that the token is dead, and their own 401 would bring them here.
//
// Five tokens are replaced at once, and one more each two minutes; past that
// refused itself is given: the caller then has Microsoft's last word on it. Errors
// are those of Bearer: there is no other token.
func (s *Source) Replace(ctx context.Context, refused *Bearer, claims string) (*Bearer, error) {
	// The first flight may have begun before the claims were known.
	for range 2 {
		f, b, err := s.replacing(refused, claims)
		if f == nil {
			return b, err
		}
		if err := s.wait(ctx, f); err != nil {
			return nil, err
		}
	}
	if b, ok := s.Current(); ok {
		return b, nil
	}
	return refused, nil
}

// replacing gives the flight that is to bring a successor of refused, or the
// token to go on with.
func (s *Source) replacing(refused *Bearer, claims string) (*flight, *Bearer, error) {
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.isGone() {
		return nil, nil, s.forgottenLocked()
	}
	now := e.now()
	pending := claims != "" && s.claims == claims // a fetch with them is due
	if b := s.current.Load(); b != nil && b != refused && b.live(now) && !pending {
		return nil, b, nil
	}
	if n := int(now.since(s.replacedAt) / replaceEvery); n > 0 {
		s.replaced, s.replacedAt = max(s.replaced-n, 0), now
	}
	if s.replaced >= maxReplaced {
		return nil, refused, nil
	}
	if claims != "" && !pending {
		s.claims, s.claimTries = claims, 0
	}
	f, err := s.board(now)
	if f != nil {
		f.replaces = true
	}
	return f, nil, err
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
	if job.claims == s.claims && s.claims != "" {
		// One answer, whatever it is, ends them: they must not spoil every fetch to
		// come. Only where nobody answered are they sent again.
		s.claimTries++
		if out.failure == nil || out.failure.Kind != Unreachable && out.failure.Kind != Unavailable || s.claimTries >= maxClaimTries {
			s.claims = ""
		}
	}
	s.recheck = jitter(recheck, 0.1, s.engine.rand())
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
	s.recheck = jitter(recheckFailed, 0.1, s.engine.rand())
	pause := min(firstPause<<min(s.failures-1, 10), longestPause)
	// Downwards only, so that the bound holds.
	pause -= time.Duration(float64(pause) * 0.2 * s.engine.rand())
	s.asks = out.failure.RetryAfter
	if out.failure.guarded {
		pause = max(pause, guardedPause)
	}
	s.pause = max(pause, s.asks)
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
	if s.fetches > 0 && now.since(s.fetched) >= s.recheck {
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
