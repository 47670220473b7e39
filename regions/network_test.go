package regions

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"testing"
	"time"
)

// network is a RoundTripper whose hosts answer after a settable time, or fail.
type network struct {
	mu    sync.Mutex
	hosts map[string]*host
}

type host struct {
	delay  time.Duration
	cold   time.Duration // on top, when the connection is new
	status int           // 401 when zero
	err    error
	cut    bool // err comes before there is a connection
	warm   bool
	asked  []time.Time
	last   *http.Request
}

func (n *network) set(region Name, change func(*host)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n.host(string(region) + ".example"))
}

func (n *network) host(name string) *host {
	if n.hosts == nil {
		n.hosts = make(map[string]*host)
	}
	if n.hosts[name] == nil {
		n.hosts[name] = &host{}
	}
	return n.hosts[name]
}

func (n *network) asked(region Name) []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.host(string(region) + ".example").asked)
}

// rounds counts the moments at which a region was asked: what goes out at the
// same moment is one probe.
func (n *network) rounds(region Name) int { return len(slices.Compact(n.asked(region))) }

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	n.mu.Lock()
	h := n.host(req.URL.Host)
	h.asked = append(h.asked, time.Now())
	h.last = req
	delay, status, err, warm, cut := h.delay, h.status, h.err, h.warm, h.cut
	if !warm {
		delay += h.cold
	}
	h.warm = true
	n.mu.Unlock()
	if trace := httptrace.ContextClientTrace(req.Context()); trace != nil && !cut {
		trace.GotConn(httptrace.GotConnInfo{Reused: warm})
	}
	// No timer that is over at once: where several goroutines of a synctest bubble
	// wait for such, the race detector of Go 1.26.8 crashes.
	if delay > 0 {
		select {
		case <-req.Context().Done():
		case <-time.After(delay):
		}
	}
	if ctx := req.Context(); ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if status == 0 {
		status = http.StatusUnauthorized
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Request: req}, nil
}

// lab is a cloud with the regions names at https://NAME.example.
func lab(names ...Name) Cloud {
	urls := make(map[Name]string)
	for _, n := range names {
		urls[n] = "https://" + string(n) + ".example"
	}
	return Cloud{Name: "lab", Endpoints: map[Service]map[Name]string{
		"mde": urls, "graph": {Global: "https://global.example"},
	}}
}

// steady are the default settings without jitter.
func steady() Settings {
	s := DefaultSettings()
	s.Rand = func() float64 { return 0.5 }
	return s
}

// run starts the monitor for the rest of the test.
func run(t *testing.T, m *Monitor) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func mustPool(t testing.TB, m *Monitor, c Cloud, s Service, allow []Name, prefer Name) *Pool {
	t.Helper()
	p, err := m.Pool(c, s, allow, prefer)
	if err != nil {
		t.Fatalf("Pool(%s, %v, %q): %v", s, allow, prefer, err)
	}
	return p
}

func order(p *Pool) string {
	var names []Name
	for _, e := range p.Order() {
		names = append(names, e.Region)
	}
	return join(names)
}

func wantOrder(t *testing.T, p *Pool, want string) {
	t.Helper()
	if got := order(p); got != want {
		_, reason := p.Current()
		t.Errorf("order is %s (%s), want %s", got, reason, want)
	}
}

func find(p *Pool, n Name) Endpoint {
	return p.Order()[slices.IndexFunc(p.Order(), func(e Endpoint) bool { return e.Region == n })]
}

func state(t *testing.T, m *Monitor, n Name) State {
	t.Helper()
	all := m.Snapshot()
	i := slices.IndexFunc(all, func(s State) bool { return s.Region == n })
	if i < 0 {
		t.Fatalf("no region %s in %+v", n, all)
	}
	return all[i]
}

// runFor runs the monitor for d.
func runFor(t *testing.T, m *Monitor, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := m.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}
