package regions

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// The errors of Monitor.Pool that a caller may branch on.
var (
	// ErrNoService: the cloud has no endpoint for the service.
	ErrNoService = errors.New("the cloud does not have the service")
	// ErrUnknownRegion: an allowed or preferred region is in no service of
	// the cloud, most likely a slip of the pen.
	ErrUnknownRegion = errors.New("the cloud does not have the region")
	// ErrNotAllowed: the service has endpoints, but in none of the allowed
	// regions, or the preferred region is not an allowed one.
	ErrNotAllowed = errors.New("the region is not allowed")
)

// Pool is what may be used of one service: its endpoints in the allowed
// regions. Its methods may be called concurrently.
type Pool struct {
	monitor   *Monitor
	endpoints []Endpoint // in the order of the cloud; never empty
	prefer    Name
	choice    atomic.Pointer[choice]
}

// choice is an order and why it begins as it does.
type choice struct {
	order  []Endpoint
	cause  cause
	reason string
	// settled says that every region which is not out had been measured. Until
	// then the margins hold nothing: the first to answer is not the nearest.
	settled bool
}

type cause int

const (
	byChance     cause = iota // nothing is measured yet
	byNecessity               // there is no other
	byLatency                 // the nearest, or near enough to it
	byPreference              // the operator's
	byDespair                 // all are out
)

// Pool returns the Pool for service s of cloud c in the regions of allow, all
// that the service has when allow is empty. prefer is the region to begin with
// while it is healthy; empty means the nearest. Pools that are asked for alike
// are one and the same, and pools with an endpoint in common share what is
// known of it. Before anything is measured the order is that of Cloud.Regions.
//
// A region that other services of the cloud have and this one has not is passed
// over. Global counts as a region like any other: a tenant that may use only eu
// has no Microsoft Graph. Errors wrap ErrNoService, ErrUnknownRegion or
// ErrNotAllowed, or tell of an endpoint URL that is not fit for a token.
func (m *Monitor) Pool(c Cloud, s Service, allow []Name, prefer Name) (*Pool, error) {
	names, err := permitted(c, s, allow, prefer)
	if err != nil {
		return nil, fmt.Errorf("regions: cloud %s, service %s: %w", c.Name, s, err)
	}
	bases := make([]*url.URL, len(names))
	for i, n := range names {
		if bases[i], err = parseBase(c.Endpoints[s][n]); err != nil {
			return nil, fmt.Errorf("regions: cloud %s, service %s, region %s: %w", c.Name, s, n, err)
		}
	}
	if !slices.Contains(names, prefer) {
		prefer = ""
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	key := string(s) + " " + string(prefer)
	for i, n := range names {
		key += " " + string(n) + " " + bases[i].String()
	}
	if p, ok := m.pools[key]; ok {
		return p, nil
	}
	p := &Pool{monitor: m, prefer: prefer}
	for i, n := range names {
		p.endpoints = append(p.endpoints, m.endpoint(s, n, bases[i]))
	}
	p.arrange(m.settings)
	m.pools[key] = p
	select {
	case m.added <- struct{}{}:
	default:
	}
	return p, nil
}

// permitted returns the regions of a Pool in the order of the cloud.
func permitted(c Cloud, s Service, allow []Name, prefer Name) ([]Name, error) {
	names := c.Regions(s)
	if len(names) == 0 {
		return nil, ErrNoService
	}
	for _, n := range allow {
		if !c.has(n) {
			return nil, fmt.Errorf("allowed region %q: %w; this service has %s", n, ErrUnknownRegion, join(names))
		}
	}
	if prefer != "" && !c.has(prefer) {
		return nil, fmt.Errorf("preferred region %q: %w; this service has %s", prefer, ErrUnknownRegion, join(names))
	}
	if len(allow) == 0 {
		return names, nil
	}
	if prefer != "" && !slices.Contains(allow, prefer) {
		return nil, fmt.Errorf("preferred region %q: %w; allowed are %s", prefer, ErrNotAllowed, join(allow))
	}
	all := join(names)
	names = slices.DeleteFunc(names, func(n Name) bool { return !slices.Contains(allow, n) })
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: the service has %s, allowed are %s; allow one that it has to use it", ErrNotAllowed, all, join(allow))
	}
	return names, nil
}

func join(names []Name) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = string(n)
	}
	return strings.Join(words, ", ")
}

// parseBase reads the base URL of an endpoint. It refuses one to which a token
// must not go: in clear text, unless it stays on this machine.
func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("the endpoint is not a URL")
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	switch {
	case u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("endpoint %q should be a scheme and a host, such as https://api.example", u.Redacted())
	case u.Scheme == "https" || u.Scheme == "http" && loopback:
		return u, nil
	}
	return nil, fmt.Errorf("endpoint %q should begin with https://; http:// is for loopback addresses only", s)
}

// endpoint returns the Endpoint with what is known of it. m.mu is held.
func (m *Monitor) endpoint(s Service, n Name, base *url.URL) Endpoint {
	key := endpointKey{service: s, region: n, url: base.String()}
	e, ok := m.endpoints[key]
	if !ok {
		e = Endpoint{
			Service: s, Region: n, URL: base,
			health: &health{since: time.Now(), wake: make(chan struct{}, 1), gone: make(chan struct{})},
		}
		m.endpoints[key] = e
	}
	return e
}

// Order returns the endpoints in the order to try them: every one that is
// allowed, once. The healthy and measured come first, by latency; then those
// not yet measured; then those that are out, because the least bad is tried
// rather than none. The first keeps its place as Current says. The slice is
// shared and must not be changed.
func (p *Pool) Order() []Endpoint { return p.choice.Load().order }

// Current returns the endpoint to try first, and one line of words about why it
// was chosen.
func (p *Pool) Current() (Endpoint, string) {
	c := p.choice.Load()
	return c.order[0], c.reason
}

// Answering reports whether a request has an endpoint to go to: one that has
// answered a probe and is not out.
func (p *Pool) Answering() bool {
	p.monitor.mu.Lock()
	defer p.monitor.mu.Unlock()
	return slices.ContainsFunc(p.endpoints, func(e Endpoint) bool { return e.health.rank() == 0 })
}

func (p *Pool) holds(e Endpoint) bool { return slices.Contains(p.endpoints, e) }

func (p *Pool) allowed() []Name {
	names := make([]Name, len(p.endpoints))
	for i, e := range p.endpoints {
		names[i] = e.Region
	}
	return names
}

// arrange brings the order up to date and tells whether another region came to
// its head. The Monitor's mutex is held.
func (p *Pool) arrange(s Settings) []Change {
	order := slices.Clone(p.endpoints)
	slices.SortStableFunc(order, func(a, b Endpoint) int { return compareHealth(a.health, b.health) })

	old := p.choice.Load()
	next := p.choose(old, order[0], s)
	i := slices.Index(order, next.order[0])
	copy(order[1:i+1], order[:i])
	order[0] = next.order[0]
	next.order = slices.Clip(order)
	next.settled = !slices.ContainsFunc(order, func(e Endpoint) bool { return e.health.rank() == 1 })

	if old != nil && next.cause == old.cause && next.reason == old.reason && next.settled == old.settled && slices.Equal(next.order, old.order) {
		return nil
	}
	p.choice.Store(&next)
	if old == nil || old.order[0] == next.order[0] {
		return nil
	}
	return []Change{{
		Event: Chosen, Service: order[0].Service,
		Region: order[0].Region, From: old.order[0].Region, Reason: next.reason,
	}}
}

// choose returns the endpoint to begin with, as an order of one, given the best
// by health and latency.
func (p *Pool) choose(old *choice, best Endpoint, s Settings) choice {
	if len(p.endpoints) == 1 {
		return choice{order: p.endpoints, cause: byNecessity, reason: "the only region allowed"}
	}
	if i := slices.IndexFunc(p.endpoints, func(e Endpoint) bool { return e.Region == p.prefer }); i >= 0 && !p.endpoints[i].health.out {
		return choice{order: p.endpoints[i : i+1], cause: byPreference, reason: "preferred by the configuration"}
	}
	from := ""
	if old != nil {
		current := old.order[0]
		switch h := current.health; {
		case current == best || !old.settled && h.rank() == 0:
		case h.rank() == 0 && !s.better(best.health.latency, h.latency):
			return choice{order: old.order[:1], cause: byLatency, reason: fmt.Sprintf("near enough: %v; %s at %v is not better by both margins",
				brief(h.latency), best.Region, brief(best.health.latency))}
		case h.out:
			from = fmt.Sprintf("; %s is out: %s", current.Region, h.failure)
		case h.rank() == 0:
			from = fmt.Sprintf(" against %v of %s", brief(h.latency), current.Region)
		}
	}
	first := []Endpoint{best}
	switch best.health.rank() {
	case 0:
		return choice{order: first, cause: byLatency, reason: fmt.Sprintf("nearest: %v%s", brief(best.health.latency), from)}
	case 1:
		return choice{order: first, cause: byChance, reason: "not measured yet" + from}
	}
	return choice{order: first, cause: byDespair, reason: "every allowed region is out: this one answered last" + from}
}

// better reports whether latency a is below b by both margins.
func (s Settings) better(a, b time.Duration) bool {
	gain := b - a
	return gain > 0 && gain >= s.SwitchMarginMin && float64(gain) >= s.SwitchMargin*float64(b)
}

// rank is 0 for healthy and measured, 1 for healthy, 2 for out.
func (h *health) rank() int {
	switch {
	case h.out:
		return 2
	case h.samples == 0:
		return 1
	}
	return 0
}

// compareHealth orders by rank, then the measured by latency and those that are
// out by who answered last.
func compareHealth(a, b *health) int {
	if c := cmp.Compare(a.rank(), b.rank()); c != 0 {
		return c
	}
	if a.out {
		return b.answered.Compare(a.answered)
	}
	return cmp.Compare(a.latency, b.latency)
}

// brief rounds a latency for reading.
func brief(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
