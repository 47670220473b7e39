package regions

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// warmConnections is how many connections to the nearest two regions of a pool are
// kept open by probes, so that requests which come together find some.
const warmConnections = 4

var errSwitched = errors.New("the answer was 101 Switching Protocols, which nobody asked for")

// keepProbing probes e whenever that is due, until ctx ends or e is forgotten.
func (m *Monitor) keepProbing(ctx context.Context, e Endpoint, slots chan struct{}) {
	for ctx.Err() == nil {
		if wait, rests := m.next(e); wait > 0 || rests {
			var due <-chan time.Time // nil while e rests
			if !rests {
				due = time.After(wait)
			}
			select {
			case <-ctx.Done():
			case <-e.health.gone:
				return
			case <-e.health.wake:
			case <-due:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-e.health.gone:
			return
		case slots <- struct{}{}:
		}
		m.probe(ctx, e)
		<-slots
	}
}

// next returns the time until e is to be probed, or that it rests instead.
func (m *Monitor) next(e Endpoint) (wait time.Duration, rests bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wait = time.Until(e.health.due)
	if wait <= 0 && m.restful(e) {
		e.health.resting = true
	}
	return wait, e.health.resting
}

// probe measures e once. A request that had to open a connection is made again
// at once, for what matters is the time on a warm one; where connections are
// never kept, the second counts as it is, since requests fare no better. So is one
// that ended an outage: it may have waited for a lost packet to be sent again.
//
// To one of the nearest two regions other requests go at the same time. They keep
// connections warm and count as nothing else.
func (m *Monitor) probe(ctx context.Context, e Endpoint) {
	var others sync.WaitGroup
	defer others.Wait()
	send := func(n int) {
		for range n {
			others.Go(func() { m.ask(ctx, m.rt, e) })
		}
	}
	m.mu.Lock()
	e.health.doubted, e.health.asked = false, time.Now()
	width, shaken := m.width(e), e.health.rank() >= rankSuspect
	usual, measured := e.health.latency, e.health.samples > 0
	m.mu.Unlock()

	send(width - 1)
	took, cold, outcome := m.ask(ctx, m.rt, e)
	if (cold || shaken) && outcome.failure == "" {
		took, _, outcome = m.ask(ctx, m.rt, e)
	}
	if measured && outcome.failure == "" && m.settings.better(usual, took) {
		// Slower by both margins: one lost packet would move requests elsewhere for
		// minutes. What is slow is slow twice.
		if again, _, o := m.ask(ctx, m.rt, e); o.failure == "" {
			took = min(took, again)
		}
	}
	if ctx.Err() != nil {
		return
	}
	m.note(e, outcome, true, took)

	m.mu.Lock()
	now := m.width(e)
	m.mu.Unlock()
	if now > width {
		send(now) // it has just become one of the nearest
	}
}

// width is how many connections to e are kept. m.mu is held.
func (m *Monitor) width(e Endpoint) int {
	if e.health.rank() != rankMeasured {
		return 1
	}
	for p := range m.holding(e) {
		if order := p.Order(); p.inUse() && slices.Contains(order[:min(2, len(order))], e) {
			return warmConnections
		}
	}
	return 1
}

// Warm opens connections through rt to the endpoints of pools that are in use, as
// many as probes keep, and leaves out those that are suspect or out. It is for a
// transport that is about to take over from the one before. It counts nothing as
// health or latency, and returns when all is done, when ctx ends, or after
// Settings.ProbeTimeout.
func (m *Monitor) Warm(ctx context.Context, rt http.RoundTripper) {
	var all sync.WaitGroup
	defer all.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.endpoints {
		if e.health.rank() >= rankSuspect || !m.wanted(e) {
			continue
		}
		for range m.width(e) {
			all.Go(func() { m.ask(ctx, rt, e) })
		}
	}
}

// ask sends one request without a token through rt and reports how long the head
// of the answer took, and whether a connection was opened for it.
func (m *Monitor) ask(ctx context.Context, rt http.RoundTripper, e Endpoint) (took time.Duration, cold bool, o Outcome) {
	ctx, cancel := context.WithTimeout(ctx, m.settings.ProbeTimeout)
	defer cancel()
	var connected, opened atomic.Bool
	var late atomic.Int64 // how long it took until there was a connection
	start := time.Now()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connected.Store(true)
			late.Store(int64(time.Since(start)))
			// Over HTTP/2 it may be one that another request was opening.
			opened.Store(!info.Reused || late.Load() > int64(time.Millisecond))
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, e.URL.String()+probePath(e.Service), nil)
	if err != nil {
		return 0, false, ConnectFailed(err)
	}
	req.Header.Set("User-Agent", "defender-proxy")

	// RoundTrip, not a Client: a redirect is an answer like any other.
	resp, err := rt.RoundTrip(req)
	took = time.Since(start) - time.Duration(late.Load())
	switch {
	case err == nil:
		resp.Body.Close() // an answer to HEAD has none; that of a 101 would never end
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return took, false, Broken(errSwitched)
		}
		return took, opened.Load(), Answered(resp.StatusCode)
	case ctx.Err() != nil:
		return took, false, TimedOut(err)
	case connected.Load():
		return took, false, Broken(err)
	}
	return took, false, ConnectFailed(err)
}

// probePath is a path that each service answers, with 401 or 404, at no cost to
// anyone's quota.
func probePath(s Service) string {
	if s == "graph" {
		return "/v1.0/"
	}
	return "/api/"
}
