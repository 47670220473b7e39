package regions

import (
	"slices"
	"strings"
	"time"
)

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

// State is what a Monitor knows of one endpoint.
type State struct {
	Service Service
	Region  Name
	Host    string // with the port, where one is given
	Healthy bool   // not out
	// Suspect: the last that was heard is that it could not be reached. It is
	// tried after the healthy ones, and out when that goes on.
	Suspect bool
	// Resting: no request wants it, so it is not probed.
	Resting bool
	// Since is when the endpoint was first known, went out or came back,
	// whichever was last.
	Since time.Time
	// Latency is the smoothed time of a probe on a warm connection, Last the
	// newest sample; zero while Samples is.
	Latency, Last time.Duration
	Samples       int
	// Surplus is what real requests take beyond the usual, as far as more than one
	// operation bears it out; Real were heard. Regions are compared by Latency and Surplus together.
	Surplus time.Duration
	Real    int
	// Failures counts those since the last success, of a probe or a request;
	// LastFailure and LastFailureAt are kept after it.
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
			Healthy: !h.out, Suspect: h.suspect, Resting: h.resting, Since: h.since,
			Latency: h.latency, Last: h.last, Samples: h.samples,
			Failures: int(h.failures.Load()), LastFailure: h.failure, LastFailureAt: h.failureAt,
		}
		s.Surplus, s.Real = h.real.told()
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
