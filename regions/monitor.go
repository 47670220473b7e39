package regions

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
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
	// twice as long each time, at most lastRetry.
	firstRetry = time.Second
	lastRetry  = 60 * time.Second
	// calm is the time without a failure after which that begins anew.
	calm = 2 * lastRetry
	// spread is the jitter of every wait, to both sides.
	spread = 0.10
	// maxProbes bounds the probes in flight.
	maxProbes = 16
)

// Settings are the knobs of a Monitor.
type Settings struct {
	// ProbeInterval is the time between two probes of a healthy endpoint;
	// 30 s when zero or less.
	ProbeInterval time.Duration
	// ProbeTimeout bounds one request of a probe; 5 s when zero or less.
	ProbeTimeout time.Duration
	// A region takes over from the current one when its latency is lower by
	// SwitchMargin, a share of the current one's (0.20 is 20 %), and by
	// SwitchMarginMin as well. They are taken as given: with two zeros the
	// lowest latency always wins.
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

// Event is the kind of a Change.
type Event string

// The events.
const (
	WentOut  Event = "went out"  // a region failed too often in a row
	CameBack Event = "came back" // a region that was out answered
	Chosen   Event = "chosen"    // a pool goes to another region first
)

// Change is something an operator wants to know.
type Change struct {
	Event   Event
	Service Service
	Region  Name
	// From is the region that a Chosen one follows.
	From Name
	// Reason is one line of words.
	Reason string
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

// State is what a Monitor knows of one endpoint.
type State struct {
	Service Service
	Region  Name
	Host    string // with the port, where one is given
	Healthy bool
	// Since is when the endpoint was first known, went out or came back,
	// whichever was last.
	Since time.Time
	// Latency is the smoothed time of a probe on a warm connection, Last the
	// newest sample; zero while Samples is.
	Latency, Last time.Duration
	Samples       int
	// Failures counts those since the last success; LastFailure and
	// LastFailureAt are kept after it.
	Failures      int
	LastFailure   string
	LastFailureAt time.Time
	// Chosen lists the pools that go to this endpoint first.
	Chosen []Choice
}

// Choice tells of a Pool that goes to an endpoint first, and why.
type Choice struct {
	Allowed []Name
	Prefer  Name
	Reason  string
}

// Monitor keeps the health of endpoints and the order of pools. Its methods may
// be called concurrently.
type Monitor struct {
	settings Settings
	rt       http.RoundTripper
	running  atomic.Bool
	added    chan struct{} // capacity 1: endpoints await their prober

	mu        sync.Mutex
	endpoints map[endpointKey]Endpoint
	pools     map[string]*Pool
}

type endpointKey struct {
	service Service
	region  Name
	url     string
}

// health is what is known of one endpoint. The Monitor's mutex guards
// all but failures, wake and gone.
type health struct {
	failures  atomic.Int32  // in a row; written under the mutex
	wake      chan struct{} // capacity 1: due has changed
	gone      chan struct{} // closed when Keep forgot the endpoint
	watched   bool          // has a prober
	out       bool
	since     time.Time
	latency   time.Duration
	last      time.Duration
	samples   int
	answered  time.Time // the last success of a probe, or after a failure
	failure   string
	failureAt time.Time
	due       time.Time     // of the next probe
	retry     time.Duration // the newest wait after a failure; zero when there is none to count from
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
		added:     make(chan struct{}, 1),
		endpoints: make(map[endpointKey]Endpoint),
		pools:     make(map[string]*Pool),
	}
}

// Run probes the endpoints of every pool until ctx ends, those of pools that
// are added meanwhile too: at once, then every ProbeInterval, and those that
// fail with backoff. When it returns, none of its goroutines is left. It
// returns nil, or an error when the Monitor is running already.
func (m *Monitor) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return errors.New("regions: the monitor is running already")
	}
	var probers sync.WaitGroup
	defer func() {
		probers.Wait()
		m.mu.Lock()
		for _, e := range m.endpoints {
			e.health.watched = false
		}
		m.mu.Unlock()
		m.running.Store(false)
	}()
	slots := make(chan struct{}, maxProbes)
	for {
		for _, e := range m.unwatched() {
			probers.Go(func() { m.watch(ctx, e, slots) })
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

// Report tells how a request to e, an Endpoint of this Monitor's pools, fared.
// Three failures in a row put a region out, one success puts it in; the orders
// of all pools follow before Report returns. A success of a healthy endpoint,
// the usual case, costs no lock.
func (m *Monitor) Report(e Endpoint, o Outcome) {
	if e.health == nil || !o.told || o.failure == "" && e.health.failures.Load() == 0 {
		return
	}
	m.note(e, o, false, 0)
}

// note books an outcome and arranges the next probe and the pools. Only a
// probe that succeeded has a latency.
func (m *Monitor) note(e Endpoint, o Outcome, probed bool, latency time.Duration) {
	now := time.Now()
	var changes []Change

	m.mu.Lock()
	h := e.health
	if o.failure == "" {
		changes = h.succeed(e, now)
		if probed {
			h.sample(latency)
		}
		m.schedule(h, now, m.settings.ProbeInterval, probed)
	} else {
		changes = h.fail(e, now, o.failure)
		// Many requests may fail at once: they make the wait longer only
		// when they put the region out. That counts even when probes do
		// well, so that a region which fails real requests alone is not
		// taken back every second.
		if probed || h.retry == 0 || len(changes) > 0 {
			h.retry = min(max(2*h.retry, firstRetry), lastRetry)
			m.schedule(h, now, h.retry, probed)
		}
	}
	// In an outage each request ends here: what moves no region is cheap.
	if probed || len(changes) > 0 {
		for _, p := range m.pools {
			if p.holds(e) {
				changes = append(changes, p.arrange(m.settings)...)
			}
		}
	}
	m.mu.Unlock()

	if m.settings.OnChange != nil {
		for _, c := range changes {
			m.settings.OnChange(c)
		}
	}
}

// schedule sets the next probe to about wait from now, or leaves it when it is
// to come sooner anyway and the last one isn't just over.
func (m *Monitor) schedule(h *health, now time.Time, wait time.Duration, probed bool) {
	jitter := 1 + spread*(2*m.settings.Rand()-1)
	due := now.Add(time.Duration(float64(wait) * jitter))
	if !probed && !due.Before(h.due) {
		return
	}
	h.due = due
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *health) succeed(e Endpoint, now time.Time) []Change {
	h.failures.Store(0)
	h.answered = now
	if !h.out {
		return nil
	}
	reason := "answered again after " + now.Sub(h.since).Round(time.Second).String()
	h.out, h.since = false, now
	return []Change{{Event: CameBack, Service: e.Service, Region: e.Region, Reason: reason}}
}

func (h *health) fail(e Endpoint, now time.Time, failure string) []Change {
	if now.Sub(h.failureAt) > calm {
		h.retry = 0
	}
	h.failure, h.failureAt = failure, now
	if h.failures.Add(1) < outAfter || h.out {
		return nil
	}
	h.out, h.since = true, now
	return []Change{{Event: WentOut, Service: e.Service, Region: e.Region, Reason: failure}}
}

// sample takes a latency into the smoothed one; the first stands as it is.
func (h *health) sample(latency time.Duration) {
	h.last = latency
	if h.samples == 0 {
		h.latency = latency
	} else {
		h.latency += time.Duration(smoothing * float64(latency-h.latency))
	}
	h.samples++
}

// Snapshot tells the state of every endpoint, ordered by service and region.
// The value is the caller's.
func (m *Monitor) Snapshot() []State {
	m.mu.Lock()
	defer m.mu.Unlock()
	states := make([]State, 0, len(m.endpoints))
	for _, e := range m.endpoints {
		h := e.health
		s := State{
			Service: e.Service, Region: e.Region, Host: e.URL.Host,
			Healthy: !h.out, Since: h.since,
			Latency: h.latency, Last: h.last, Samples: h.samples,
			Failures: int(h.failures.Load()), LastFailure: h.failure, LastFailureAt: h.failureAt,
		}
		for _, p := range m.pools {
			if first, reason := p.Current(); first == e {
				s.Chosen = append(s.Chosen, Choice{Allowed: p.allowed(), Prefer: p.prefer, Reason: reason})
			}
		}
		slices.SortFunc(s.Chosen, func(a, b Choice) int {
			if c := slices.Compare(a.Allowed, b.Allowed); c != 0 {
				return c
			}
			return strings.Compare(string(a.Prefer), string(b.Prefer))
		})
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int {
		if c := strings.Compare(string(a.Service), string(b.Service)); c != 0 {
			return c
		}
		if c := compareNames(a.Region, b.Region); c != 0 {
			return c
		}
		return strings.Compare(a.Host, b.Host)
	})
	return states
}
