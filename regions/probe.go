package regions

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// maxProbeBody bounds what is read of the body of a probe's answer, in bytes. A
// longer one costs the connection, and with it the warmth of the next probe.
const maxProbeBody = 64 << 10

// watch probes e whenever that is due, until ctx ends or e is forgotten.
func (m *Monitor) watch(ctx context.Context, e Endpoint, slots chan struct{}) {
	for ctx.Err() == nil {
		m.mu.Lock()
		wait := time.Until(e.health.due)
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-e.health.gone:
			return
		case <-e.health.wake:
			continue
		case <-time.After(wait):
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

// probe measures e once. A request that had to open a connection is made again
// at once, for what matters is the time on a warm one; where connections are
// never kept, the second counts as it is, since requests fare no better.
func (m *Monitor) probe(ctx context.Context, e Endpoint) {
	took, cold, outcome := m.ask(ctx, e)
	if cold && outcome.failure == "" {
		took, _, outcome = m.ask(ctx, e)
	}
	if ctx.Err() == nil {
		m.note(e, outcome, true, took)
	}
}

// ask sends one request without a token and reports how long the head of the
// answer took, and whether a connection was opened for it.
func (m *Monitor) ask(ctx context.Context, e Endpoint) (took time.Duration, cold bool, o Outcome) {
	ctx, cancel := context.WithTimeout(ctx, m.settings.ProbeTimeout)
	defer cancel()
	var connected, opened atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connected.Store(true)
			opened.Store(!info.Reused)
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, e.URL.String()+probePath(e.Service), nil)
	if err != nil {
		return 0, false, ConnectFailed(err)
	}
	req.Header.Set("User-Agent", "defender-proxy")

	start := time.Now()
	// RoundTrip, not a Client: a redirect is an answer like any other.
	resp, err := m.rt.RoundTrip(req)
	took = time.Since(start)
	switch {
	case err == nil:
		io.CopyN(io.Discard, resp.Body, maxProbeBody)
		resp.Body.Close()
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
