package regions

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
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

	used   atomic.Int64 // when a request began last, as Monitor.now; not to the nanosecond
	rests  atomic.Bool  // one of the endpoints may rest, so the next request wakes it
	known  atomic.Bool  // word is closed
	word   chan struct{}
	budget budget
}

// Pool returns the Pool for service s of cloud c in the regions of allow, all
// that the service has when allow is empty. prefer is the region to begin with
// while it is healthy; empty means the nearest. Pools that are asked for alike
// are one and the same, and pools with an endpoint in common share what is
// known of it. Before anything is measured the order is that of Cloud.Regions. A
// new Pool counts as one that has just been used.
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
	p := &Pool{monitor: m, prefer: prefer, word: make(chan struct{})}
	for i, n := range names {
		p.endpoints = append(p.endpoints, m.endpoint(s, n, bases[i]))
	}
	p.used.Store(int64(m.now()))
	p.rouse()
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
		e = Endpoint{Service: s, Region: n, URL: base, health: newHealth()}
		m.endpoints[key] = e
	}
	return e
}

// Answering reports whether a request has an endpoint to go to: one that has
// answered a probe and is not out.
func (p *Pool) Answering() bool {
	p.monitor.mu.Lock()
	defer p.monitor.mu.Unlock()
	return slices.ContainsFunc(p.endpoints, func(e Endpoint) bool { return e.health.samples > 0 && !e.health.out })
}

func (p *Pool) holds(e Endpoint) bool { return slices.Contains(p.endpoints, e) }

func (p *Pool) allowed() []Name {
	names := make([]Name, len(p.endpoints))
	for i, e := range p.endpoints {
		names[i] = e.Region
	}
	return names
}
