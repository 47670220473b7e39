package regions

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// outAfter is how many failures in a row put a region out.
	outAfter = 3
	// smoothing is the weight of a new sample in the smoothed latency.
	smoothing = 0.3
	// A region that failed is probed again after firstRetry, then after
	// twice as long each time, at most lastRetry and what longestRetry says.
	firstRetry = time.Second
	lastRetry  = 60 * time.Second
	// A region that becomes suspect is probed after firstRetry, and after
	// suspectAgain when it last became so within suspectCalm. In that time it comes
	// to the head of an order and leaves it, once: less than a change a second.
	suspectAgain = 2500 * time.Millisecond
	suspectCalm  = 10 * time.Second
	// calm is the time without a failure after which that begins anew.
	calm = 2 * lastRetry
	// spread is the jitter of every wait, to both sides.
	spread = 0.10
	// restAfter is how many probe intervals after the last request through any of
	// its pools an endpoint is probed no more.
	restAfter = 20
	// maxProbes bounds the endpoints that are probed at once.
	maxProbes = 16
)

// Settings are the knobs of a Monitor.
type Settings struct {
	// ProbeInterval is the time between two probes of a healthy endpoint;
	// 30 s when zero or less.
	ProbeInterval time.Duration
	// ProbeTimeout bounds one request of a probe; 5 s when zero or less.
	ProbeTimeout time.Duration
	// A region takes over from the current one when it is quicker by
	// SwitchMargin, a share of the current one's time (0.20 is 20 %), and by
	// SwitchMarginMin as well; one that lost its place to an outage needs no
	// margins to come back. They are taken as given: with two zeros the quickest
	// always wins.
	SwitchMargin    float64
	SwitchMarginMin time.Duration
	// OnChange, when set, is called after each Change, from the goroutine
	// that brought it about, one call at a time or several at once. It may
	// call the Monitor.
	OnChange func(Change)
	// Rand gives the jitter, uniform in [0, 1); math/rand/v2.Float64 when
	// nil. Calls do not overlap, and it must not call the Monitor.
	Rand func() float64
}

// DefaultSettings returns the defaults of the configuration.
func DefaultSettings() Settings {
	return Settings{
		ProbeInterval:   30 * time.Second,
		ProbeTimeout:    5 * time.Second,
		SwitchMargin:    0.20,
		SwitchMarginMin: 10 * time.Millisecond,
	}
}

// better reports whether a region that takes a is better by both margins than one
// that takes b.
func (s Settings) better(a, b time.Duration) bool {
	gain := b - a
	return gain > 0 && gain >= s.SwitchMarginMin && float64(gain) >= s.SwitchMargin*float64(b)
}

// longestRetry is the longest wait for the next probe of an endpoint that fails,
// but for jitter. One that answers again is to be first again within two
// intervals, also when it did so a moment after a probe went out that now waits
// for all of its time, and with the time of the probe that finds it.
func (s Settings) longestRetry() time.Duration {
	left := time.Duration(float64(2*s.ProbeInterval-2*s.ProbeTimeout) / (1 + spread))
	return min(max(left, s.ProbeInterval/2), 3*s.ProbeInterval/2, lastRetry)
}

// Endpoint is where a service is to be found in one region. Endpoints come from
// a Pool; they are comparable.
type Endpoint struct {
	Service Service
	Region  Name
	// URL is the base: scheme and host, no path. It is shared: don't change it.
	URL *url.URL

	health *health
}

// Monitor keeps the health of endpoints and the order of pools. Its methods may
// be called concurrently.
type Monitor struct {
	settings Settings
	rt       http.RoundTripper
	epoch    time.Time                     // what Pool.used counts from
	running  atomic.Pointer[chan struct{}] // closed when Run ends; nil while it does not run
	begun    sync.Once
	started  chan struct{} // closed with begun
	added    chan struct{} // capacity 1: endpoints await their prober
	usual    usualTimes

	mu        sync.Mutex
	endpoints map[endpointKey]Endpoint
	pools     map[string]*Pool
}

type endpointKey struct {
	service Service
	region  Name
	url     string
}

// NewMonitor returns a Monitor that probes through rt, the transport that
// requests use, so that what it measures is what they meet. Nothing is probed
// before Run.
func NewMonitor(s Settings, rt http.RoundTripper) *Monitor {
	defaults := DefaultSettings()
	if s.ProbeInterval <= 0 {
		s.ProbeInterval = defaults.ProbeInterval
	}
	if s.ProbeTimeout <= 0 {
		s.ProbeTimeout = defaults.ProbeTimeout
	}
	if s.Rand == nil {
		s.Rand = rand.Float64
	}
	return &Monitor{
		settings:  s,
		rt:        rt,
		epoch:     time.Now(),
		started:   make(chan struct{}),
		added:     make(chan struct{}, 1),
		endpoints: make(map[endpointKey]Endpoint),
		pools:     make(map[string]*Pool),
	}
}

// now is the time since the Monitor was made. It is monotonic and cheaper than
// time.Now.
func (m *Monitor) now() time.Duration { return time.Since(m.epoch) }

// Started returns a channel that is closed once Run has begun for the first time:
// from then on requests may wait in Pool.Measured.
func (m *Monitor) Started() <-chan struct{} { return m.started }

// Run probes the endpoints of every pool until ctx ends, those of pools that
// are added meanwhile too: at once, then every ProbeInterval, and those that
// fail with backoff. A healthy endpoint of which no pool has seen a request for
// 20 intervals is left alone until one does. When Run returns, none of its
// goroutines is left. It returns nil, or an error when the Monitor is running
// already.
func (m *Monitor) Run(ctx context.Context) error {
	ended := make(chan struct{})
	if !m.running.CompareAndSwap(nil, &ended) {
		return errors.New("regions: the monitor is running already")
	}
	m.begun.Do(func() { close(m.started) })
	var probers sync.WaitGroup
	defer func() {
		close(ended)
		probers.Wait()
		m.mu.Lock()
		for _, e := range m.endpoints {
			e.health.watched = false
		}
		m.mu.Unlock()
		m.running.Store(nil)
	}()
	slots := make(chan struct{}, maxProbes)
	for {
		for _, e := range m.unwatched() {
			probers.Go(func() { m.keepProbing(ctx, e, slots) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.added:
		}
	}
}

// unwatched returns the endpoints that no prober looks after and takes it that
// they will have one.
func (m *Monitor) unwatched() []Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	var fresh []Endpoint
	for _, e := range m.endpoints {
		if !e.health.watched {
			e.health.watched = true
			fresh = append(fresh, e)
		}
	}
	return fresh
}

// Keep forgets every Pool but those given, and the endpoints that none of these
// has: a probe under way ends, no further one begins, and Snapshot tells of them
// no more. Requests that still go through a forgotten Pool find the order that it
// had last.
func (m *Monitor) Keep(pools []*Pool) {
	keep := make(map[*Pool]bool, len(pools))
	for _, p := range pools {
		keep[p] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	used := make(map[*health]bool)
	for key, p := range m.pools {
		if !keep[p] {
			delete(m.pools, key)
			p.know() // there is nothing to wait for any more
			continue
		}
		for _, e := range p.endpoints {
			used[e.health] = true
		}
	}
	for key, e := range m.endpoints {
		if !used[e.health] {
			delete(m.endpoints, key)
			close(e.health.gone)
		}
	}
}

// holding yields the pools that hold e. m.mu is held.
func (m *Monitor) holding(e Endpoint) func(yield func(*Pool) bool) {
	return func(yield func(*Pool) bool) {
		for _, p := range m.pools {
			if p.holds(e) && !yield(p) {
				return
			}
		}
	}
}

// arrange brings the order of the pools that hold e up to date. m.mu is held.
func (m *Monitor) arrange(e Endpoint) []Change {
	var changes []Change
	for p := range m.holding(e) {
		changes = append(changes, p.arrange(m.settings)...)
	}
	return changes
}

// rearrange is arrange for those who do not hold m.mu.
func (m *Monitor) rearrange(e Endpoint) {
	m.mu.Lock()
	changes := m.arrange(e)
	m.mu.Unlock()
	m.tell(changes)
}

// tell passes changes on. m.mu is not held.
func (m *Monitor) tell(changes []Change) {
	if m.settings.OnChange == nil {
		return
	}
	for _, c := range changes {
		m.settings.OnChange(c)
	}
}
