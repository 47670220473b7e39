package egress

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Transport is the way out. It is safe for concurrent use.
//
// net/http bounds how long a connection may be idle, not how old it may become,
// and under steady traffic none is idle for long. So the connections are those of
// a generation: while Run runs, a new one takes over now and then, and the one
// before ends with its last request.
type Transport struct {
	dialer *dialer
	http2  bool
	maxAge time.Duration

	current atomic.Pointer[watched]

	mu      sync.Mutex
	retired []retired
}

// retired is a generation that gets no new requests.
type retired struct {
	*watched
	since time.Time
}

// maxRequest is longer than any request takes.
const maxRequest = time.Hour

// RoundTrip sends one request. Its error is, or wraps, a *ProxyError where the
// network's proxy is what failed, and a *LoopError where the request led back here.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	g := t.current.Load()
	resp, err := g.RoundTrip(r)
	if t.current.Load() != g {
		// It was renewed meanwhile, and a request that comes after
		// CloseIdleConnections has net/http keep connections again.
		g.CloseIdleConnections()
	}
	return resp, err
}

// CloseIdleConnections closes the connections that no request uses.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.retired {
		g.CloseIdleConnections()
	}
	t.current.Load().CloseIdleConnections()
}

// Run renews the connections until ctx ends, and returns nil then. The transport
// can be used before, without and after Run, but its connections get old.
//
// warm opens connections through the transport that it is given, so that the
// requests that follow find them, and returns in bounded time; nil opens none.
// Requests go the old way meanwhile.
func (t *Transport) Run(ctx context.Context, warm func(context.Context, http.RoundTripper)) error {
	timer := time.NewTimer(t.age())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		next := t.generation()
		if warm != nil {
			warm(ctx, next)
		}
		if ctx.Err() != nil {
			next.CloseIdleConnections()
			return nil
		}
		t.renew(next)
		timer.Reset(t.age())
	}
}

// age is how long a generation serves: not the same everywhere, so that replicas
// do not open their connections all at once.
func (t *Transport) age() time.Duration { return t.maxAge*9/10 + rand.N(t.maxAge/5+1) }

// renew lets next take over. What the requests before it still use they close
// themselves; streams of HTTP/2 leave that to idleTimeout.
func (t *Transport) renew(next *watched) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.retired[:0]
	for _, g := range t.retired {
		g.CloseIdleConnections()
		if time.Since(g.since) < maxRequest {
			kept = append(kept, g)
		}
	}
	clear(t.retired[len(kept):])
	old := t.current.Swap(next)
	old.CloseIdleConnections()
	t.retired = append(kept, retired{old, time.Now()})
}

// Direct gives a transport that calls all hosts straight and keeps no connection:
// for what belongs to this machine, where a proxy of the network would ask its
// own machine's.
func (t *Transport) Direct() http.RoundTripper {
	d := *t.dialer                            // whose loops are the same
	d.way, d.alpn = nil, []string{"http/1.1"} // HTTP/2 is for connections that are kept
	g := (&Transport{dialer: &d}).generation()
	g.DisableKeepAlives = true
	return g
}
