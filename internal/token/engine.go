package token

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
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
	// FetchTimeout bounds one exchange with Entra ID. Default 15 s.
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

	// wake holds one value while the scheduler has something to look at.
	wake chan struct{}
	// stopped is closed when Run begins to return; nothing is fetched after that.
	stopped chan struct{}

	// mu is held for a few instructions, or for a look at every source; never
	// while anything waits, so no tenant stops another.
	mu      sync.Mutex
	ran     bool
	running int // fetches under way
	sources map[sourceKey]*Source
	// Flights that have not begun. Those that somebody waits for go first; a
	// flight may stand in both.
	waited, renewals []*flight
}

// sourceKey is what two tokens must share to be the same token.
type sourceKey struct {
	cloud    string
	tenant   tenant.ID
	clientID string
	audience string
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
	}
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
// one for the same cloud, tenant, client id and audience, so that a live token
// outlasts a reload. Call it when configuration is applied, not for each
// request.
//
// What else the account says (name, authority, secret, version) replaces what
// an earlier call said, from the next fetch on; and a pause after a failure
// shrinks to its first second, since what was wrong may be mended.
func (e *Engine) Source(a Account, audience string) *Source {
	key := sourceKey{a.Cloud, a.Tenant, a.ClientID, audience}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sources[key]
	if s == nil {
		s = &Source{engine: e, audience: audience}
		e.sources[key] = s
	}
	s.account = a
	if s.failure != nil && !s.heldBack {
		s.pause = min(s.pause, firstPause)
		e.nudge()
	}
	return s
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
		if s.flight != nil || !s.wanted(now) {
			continue
		}
		due := s.due(now)
		if due > 0 {
			wait = min(wait, due)
			continue
		}
		s.flight = &flight{source: s, done: make(chan struct{})}
		e.renewals = append(e.renewals, s.flight)
	}
	for e.running < e.concurrency {
		f := e.next()
		if f == nil {
			break
		}
		e.running++
		acc, audience := f.source.account, f.source.audience
		fetches.Go(func() {
			out := e.fetch(ctx, acc, audience)
			e.land(ctx, f, out)
		})
	}
	return wait
}

// next takes the next flight to begin, nil when there is none. e.mu is held.
func (e *Engine) next() *flight {
	for _, queue := range []*[]*flight{&e.waited, &e.renewals} {
		for len(*queue) > 0 {
			f := (*queue)[0]
			(*queue)[0] = nil
			*queue = (*queue)[1:]
			if !f.begun {
				f.begun = true
				return f
			}
		}
	}
	return nil
}

// land records what a flight brought and lets its waiters go.
func (e *Engine) land(ctx context.Context, f *flight, out outcome) {
	e.mu.Lock()
	e.running--
	if out.failure != nil && ctx.Err() != nil {
		// Cut off by the end of Run, which is no fault of Entra's; the waiters
		// leave by e.stopped.
		e.mu.Unlock()
		return
	}
	again := f.source.record(out, e.now())
	f.failure = f.source.failure
	f.source.flight = nil
	close(f.done)
	e.mu.Unlock()
	e.nudge()
	e.tell(f.source, out, again)
}

// tell logs the outcome of a fetch.
func (e *Engine) tell(s *Source, out outcome, again time.Duration) {
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
	event.Str("tenant_id", string(b.claims.Tenant)).Str("audience", s.audience).Str("uti", b.claims.UTI).
		Dur("life", b.life).Dur("renew_in", again).Msg("got a token")
}

// nudge makes the scheduler look.
func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
