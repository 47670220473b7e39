package token

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"defender-proxy/internal/tenant"
)

// Options are what an Engine is made of.
type Options struct {
	// Transport carries every request to Entra ID: the proxy's one outbound
	// transport, with egress proxy and trusted roots. Required.
	Transport http.RoundTripper
	Log       zerolog.Logger
	// FetchTimeout bounds one fetch: all exchanges with Entra ID that it takes, and
	// what the credential needs before them. Default 15 s.
	FetchTimeout time.Duration
	// Concurrency is how many fetches run at once over all sources. Default 16.
	Concurrency int
	// Rand gives the jitter, from [0, 1), to any goroutine. Default
	// math/rand/v2.Float64.
	Rand func() float64
}

// tick bounds the sleep of the scheduler. Timers stand still with the
// monotonic clock while the machine sleeps, so it looks up that often to see
// what has aged meanwhile.
const tick = 30 * time.Second

// Engine keeps the tokens of all tenants. Make it with New; its methods may be
// called concurrently.
type Engine struct {
	transport   http.RoundTripper
	log         zerolog.Logger
	timeout     time.Duration
	concurrency int
	rand        func() float64
	now         func() instant
	keys        *signatureKeys

	// wake holds one value while the scheduler has something to look at.
	wake chan struct{}
	// stopped is closed when Run begins to return; nothing is fetched after that.
	stopped chan struct{}

	// mu is held for a few instructions, or for a look at every source; never
	// while anything waits, so no tenant stops another.
	mu      sync.Mutex
	ran     bool
	running int            // fetches under way
	busy    map[string]int // of them, by authority
	sources map[sourceKey]*Source
	// several says that sources ask more than one authority, the first being that.
	several   bool
	authority string
	// warned is what a tenant's credential was last warned of, by its name.
	warned map[string]warning
	// queue holds the flights that have not begun, oldest first, each once.
	queue []*flight
	// failing counts the flights under way for sources whose last fetch failed.
	failing int
}

// sourceKey is what two tokens must share to be the same token. A cloud may get
// another authority under its old name, and a tenant another opinion of what has
// to be verified; no token outlasts either.
type sourceKey struct {
	cloud, authority string
	tenant           tenant.ID
	clientID         string
	subject          string
	audience         string
	verified         bool
}

// New makes an Engine. It panics without a Transport: to fall back to a default
// one would go past the egress proxy.
func New(o Options) *Engine {
	if o.Transport == nil {
		panic("token: New needs Options.Transport")
	}
	e := &Engine{
		transport:   o.Transport,
		log:         o.Log,
		timeout:     o.FetchTimeout,
		concurrency: o.Concurrency,
		rand:        o.Rand,
		now:         readClocks,
		wake:        make(chan struct{}, 1),
		stopped:     make(chan struct{}),
		sources:     make(map[sourceKey]*Source),
		busy:        make(map[string]int),
		warned:      make(map[string]warning),
	}
	e.keys = newSignatureKeys(o.Transport, func() instant { return e.now() })
	if e.timeout <= 0 {
		e.timeout = 15 * time.Second
	}
	if e.concurrency <= 0 {
		e.concurrency = 16
	}
	if e.rand == nil {
		e.rand = rand.Float64
	}
	return e
}

// Source gives the source of the account's tokens for the audience: the same
// one for the same cloud with its authority, tenant, client id, subject,
// VerifySignature and audience, so that a live token outlasts a reload. Call it
// when configuration is applied, not for each request.
//
// What else the account says (name, credential, version) replaces what an earlier
// call said, from the next fetch on; and a pause after a failure
// shrinks to its first second, since what was wrong may be mended.
func (e *Engine) Source(a Account, audience string) *Source {
	key := sourceKey{a.Cloud, a.Authority, a.Tenant, a.ClientID, a.Subject, audience, a.VerifySignature}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sources[key]
	if s == nil {
		s = &Source{engine: e, audience: audience, gone: make(chan struct{})}
		e.sources[key] = s
	}
	s.account = a
	e.count(a.Authority)
	if s.failure != nil {
		s.pause = max(min(s.pause, firstPause), s.asks)
		e.nudge()
	}
	return s
}

// count takes note of an authority. e.mu is held.
func (e *Engine) count(authority string) {
	if e.authority == "" {
		e.authority = authority
	}
	e.several = e.several || authority != e.authority
}

// Keep forgets every source but those given: their tokens are dropped, fetches
// for them end without one, and whoever holds such a Source gets an Error of
// kind Stopped from it for ever. Call it when a configuration has been applied
// whole, with the sources of that configuration.
func (e *Engine) Keep(sources []*Source) {
	e.mu.Lock()
	defer e.mu.Unlock()
	keep := make(map[*Source]bool, len(sources))
	names := make(map[string]bool, len(sources))
	for _, s := range sources {
		keep[s] = true
		names[s.account.Name] = true
	}
	e.authority, e.several = "", false
	for key, s := range e.sources {
		if keep[s] {
			e.count(s.account.Authority)
			continue
		}
		delete(e.sources, key)
		close(s.gone)
		s.current.Store(nil)
		s.last = nil
	}
	for name := range e.warned {
		if !names[name] {
			delete(e.warned, name)
		}
	}
}

// Run fetches and renews until ctx ends, and then returns nil when every
// goroutine it started has ended. Fetches under way are cut off, and everybody
// who waits gets an Error of kind Stopped. A second Run is an error.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	ran := e.ran
	e.ran = true
	e.mu.Unlock()
	if ran {
		return errors.New("token: Run was called twice on one Engine")
	}

	var fetches sync.WaitGroup
	defer fetches.Wait()
	defer close(e.stopped)

	timer := time.NewTimer(tick)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(e.schedule(ctx, &fetches))
		select {
		case <-ctx.Done():
		case <-e.wake:
		case <-timer.C:
		}
	}
	return nil
}

// schedule queues the renewals that are due and starts what there is room for.
// It returns how long nothing will be due, unless nudged.
func (e *Engine) schedule(ctx context.Context, fetches *sync.WaitGroup) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	wait := tick
	for _, s := range e.sources {
		s.lapse(now)
		if s.flight != nil {
			continue
		}
		if !s.wanted(now) {
			if s.fetches > 0 {
				wait = min(wait, max(s.recheck-now.since(s.fetched), time.Second))
			}
			continue
		}
		due := s.due(now)
		if due > 0 {
			wait = min(wait, due)
			continue
		}
		e.launch(s)
	}
	for e.running < e.concurrency {
		f := e.next()
		if f == nil {
			break
		}
		s := f.source
		job := errand{account: s.account, audience: s.audience, claims: s.claims, skew: s.skew}
		failing := s.failure != nil
		e.running++
		e.busy[job.account.Authority]++
		if failing {
			e.failing++
		}
		fetches.Go(func() {
			out := e.fetch(ctx, job)
			e.mu.Lock()
			e.leave(job, failing)
			e.mu.Unlock()
			e.land(ctx, f, job, out)
		})
	}
	return wait
}

// launch queues a flight for a source that has none. e.mu is held.
func (e *Engine) launch(s *Source) {
	s.flight = &flight{source: s, done: make(chan struct{})}
	e.queue = append(e.queue, s.flight)
	e.nudge()
}

// next takes the next flight to begin, nil when there is none for which there
// is room. e.mu is held.
//
// A quarter of the places, one at least, is kept from sources whose last fetch
// failed, and from a single authority where there are several: what hangs or
// fails again and again stops nobody else.
func (e *Engine) next() *flight {
	e.queue = slices.DeleteFunc(e.queue, func(f *flight) bool { return f.source.isGone() })
	open := e.concurrency
	if open > 1 {
		open -= max(1, open/4)
	}
	best, rank := -1, 0
	for i, f := range e.queue {
		s := f.source
		if s.failure != nil && e.failing >= open || e.several && e.busy[s.account.Authority] >= open {
			continue
		}
		if r := f.rank(); best < 0 || r < rank {
			best, rank = i, r
		}
		if rank == 0 {
			break
		}
	}
	if best < 0 {
		return nil
	}
	f := e.queue[best]
	e.queue = slices.Delete(e.queue, best, best+1)
	f.begun = true
	return f
}

// rank orders the flights that wait to begin: callers whose source did not fail
// last, renewals of tokens that are in use, other callers, and last what nobody
// waits for. Engine.mu is held.
func (f *flight) rank() int {
	s := f.source
	switch {
	case f.waiters > 0 && s.failure == nil:
		return 0
	case s.current.Load() != nil && s.current.Load().used.Load():
		return 1
	case f.waiters > 0:
		return 2
	}
	return 3
}

// leave gives back the place of a fetch. e.mu is held.
func (e *Engine) leave(job errand, failing bool) {
	e.running--
	if failing {
		e.failing--
	}
	if e.busy[job.account.Authority]--; e.busy[job.account.Authority] == 0 {
		delete(e.busy, job.account.Authority)
	}
}

// land records what a flight brought and lets its waiters go.
func (e *Engine) land(ctx context.Context, f *flight, job errand, out outcome) {
	e.mu.Lock()
	if f.source.isGone() || out.failure != nil && ctx.Err() != nil {
		// Forgotten meanwhile, or cut off by the end of Run, which is no fault of
		// Entra's; the waiters leave by gone or by e.stopped.
		e.mu.Unlock()
		e.nudge()
		return
	}
	if f.replaces && out.failure == nil {
		f.source.replaced++
	}
	again := f.source.record(job, out, e.now())
	f.failure = f.source.failure
	f.source.flight = nil
	close(f.done)
	e.mu.Unlock()
	e.nudge()
	e.after(job, out, again)
}

// after does what callers need not wait for: it hands the credential what else
// the answer held, and tells the log. What panics there ends nothing.
func (e *Engine) after(job errand, out outcome, again time.Duration) {
	defer func() {
		if p := recover(); p != nil {
			e.panicked(job, p)
		}
	}()
	if out.granted != nil {
		out.granted()
	}
	e.tell(job, out, again)
}

// tell logs the outcome of a fetch.
func (e *Engine) tell(job errand, out outcome, again time.Duration) {
	e.warn(job.account)
	if f := out.failure; f != nil {
		e.log.Warn().Str("tenant", f.Tenant).Str("audience", f.Audience).Stringer("kind", f.Kind).Int("aadsts", f.AADSTS).Int("status", f.Status).
			Dur("retry_in", again).Str("remedy", f.Remedy).Msg(f.Sentence)
		return
	}
	b := out.bearer
	event := e.log.Debug()
	if out.skewed && notable(out.skew) {
		event = e.log.Warn().Str("clock", skewSentence(out.skew))
	}
	event.Str("tenant", job.account.Name).Str("tenant_id", string(b.claims.Tenant)).Str("audience", job.audience).Str("uti", b.claims.UTI).
		Dur("life", b.life).Dur("renew_in", again).Msg("got a token")
}

const (
	// warnAhead is how long before a credential's end the log begins to say so,
	// once in warnEvery for each tenant.
	warnAhead = 30 * 24 * time.Hour
	warnEvery = 24 * time.Hour
)

// warning is what was told of a credential, and when.
type warning struct {
	at     instant
	notice string
}

// warn tells what an operator has to see to although tokens still come.
func (e *Engine) warn(a Account) {
	if a.Credential == nil {
		return
	}
	h := a.Credential.Health()
	now := e.now()
	left := h.Expires.Sub(now.time())
	ending := !h.Expires.IsZero() && left <= warnAhead
	if !ending && h.Notice == "" {
		return
	}
	e.mu.Lock()
	last, told := e.warned[a.Name]
	if told = told && now.since(last.at) < warnEvery && (h.Notice == "" || h.Notice == last.notice); !told {
		e.warned[a.Name] = warning{now, h.Notice}
	}
	e.mu.Unlock()
	if told {
		return
	}
	if h.Notice != "" {
		e.log.Warn().Str("tenant", a.Name).Str("credential", h.Kind).Msg(h.Notice)
	}
	if ending {
		when := "ends soon"
		if left <= 0 {
			when = "has ended"
		}
		e.log.Warn().Str("tenant", a.Name).Str("credential", h.Kind).Time("expires", h.Expires).Int("days_left", DaysLeft(h.Expires, now.time())).
			Msg("the tenant's credential " + when + ": make a new one and put it where the configuration reads it")
	}
}

// DaysLeft is how many whole days are left until expires, below 0 once it has
// passed.
func DaysLeft(expires, now time.Time) int { return int(math.Floor(expires.Sub(now).Hours() / 24)) }

// nudge makes the scheduler look.
func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
