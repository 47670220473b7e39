package regions

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// counted is a TLS server that counts the connections opened to it and those
// that are open.
type counted struct {
	*httptest.Server
	opened, open atomic.Int64
}

func newCounted(t *testing.T, status int) *counted {
	t.Helper()
	c := &counted{}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	c.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			c.opened.Add(1)
			c.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			c.open.Add(-1)
		}
	}
	c.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that the end of a test cuts off
	c.StartTLS()
	t.Cleanup(c.Close)
	return c
}

func newTransport(t *testing.T, s *counted) *http.Transport {
	t.Helper()
	pool := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs // httptest's own certificate
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func TestConnectionsToTheNearestTwoAreKeptWarm(t *testing.T) {
	near, second, ill := newCounted(t, 401), newCounted(t, 401), newCounted(t, 503)
	cloud := Cloud{Name: "lab", Endpoints: map[Service]map[Name]string{"mde": {US: near.URL, EU: second.URL, UK: ill.URL}}}
	s := DefaultSettings()
	s.ProbeInterval = 20 * time.Millisecond
	m := NewMonitor(s, newTransport(t, near))
	p := mustPool(t, m, cloud, "mde", nil, "")
	run(t, m)
	until(t, "each was probed often", func() bool {
		p.Begin()
		return state(t, m, US).Samples > 20 && state(t, m, EU).Samples > 20 && state(t, m, UK).Failures > 20
	})
	// A request may find a connection that another has finished with, while the one
	// that was opened for it is still on its way: then there is one more.
	enough := func(n int64) bool { return n >= warmConnections && n <= 2*warmConnections }
	if a, b, c := near.open.Load(), second.open.Load(), ill.open.Load(); !enough(a) || !enough(b) || c != 1 {
		t.Errorf("%d and %d connections to the nearest two and %d to the third, want about 4, 4 and just 1", a, b, c)
	}

	// A transport that takes over has as many before it does.
	next := newTransport(t, near)
	for _, c := range []*counted{near, second, ill} {
		c.opened.Store(0)
	}
	m.Warm(t.Context(), next)
	until(t, "the new transport has four of each", func() bool {
		return near.opened.Load() >= warmConnections && second.opened.Load() >= warmConnections
	})
	if a, b, c := near.opened.Load(), second.opened.Load(), ill.opened.Load(); !enough(a) || !enough(b) || c > 1 {
		t.Errorf("%d and %d connections opened to the nearest two and %d to the third, want about 4, 4 and 1 at most", a, b, c)
	}
}

func TestOnlyWhatIsMeasuredNearAndInUseIsAskedFourTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		for i, name := range []Name{US, EU, UK, AU} {
			n.set(name, func(h *host) { h.delay = time.Duration(i+1) * 20 * time.Millisecond })
		}
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU, UK, AU), "mde", nil, "")
		run(t, m)
		time.Sleep(time.Second)
		interval := m.settings.ProbeInterval
		widths := func() (got []int) {
			for _, name := range []Name{US, EU, UK, AU} {
				asked := n.asked(name)
				last, count := asked[len(asked)-1], 0
				for _, at := range asked {
					if at.Equal(last) {
						count++
					}
				}
				got = append(got, count)
			}
			return got
		}
		want := func(when string, want ...int) {
			t.Helper()
			for i, got := range widths() {
				if got != want[i] {
					t.Errorf("%s, at once to us, eu, uk and au: got %v requests, want %v", when, widths(), want)
					return
				}
			}
		}
		p.Begin()
		time.Sleep(interval)
		want("with us and eu nearest", 4, 4, 1, 1)
		samples := state(t, m, US).Samples
		time.Sleep(interval)
		if got := state(t, m, US).Samples - samples; got != 1 {
			t.Errorf("a probe of four requests counted as %d samples, want one", got)
		}

		// uk comes up behind us when eu is out; what is out is asked once.
		n.set(EU, func(h *host) { h.status = 503 })
		for range 6 {
			p.Begin()
			time.Sleep(interval)
		}
		wantOrder(t, p, "us, uk, au, eu")
		want("with eu out", 4, 1, 4, 1)

		// A pool of its own makes au one of the first two.
		own := mustPool(t, m, lab(US, EU, UK, AU), "mde", []Name{AU}, "")
		for range 3 {
			p.Begin()
			own.Begin()
			time.Sleep(interval)
		}
		want("with a pool of au alone", 4, 1, 4, 4)
		for range 3 * restAfter {
			p.Begin()
			time.Sleep(interval)
		}
		want("with the pool of au alone not in use any more", 4, 1, 4, 1)
	})
}

func TestWarmLeavesOutWhatIsNotInUseOrNotWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n, next network
		for i, name := range []Name{US, EU, UK, AU} {
			n.set(name, func(h *host) { h.delay = time.Duration(i+1) * 20 * time.Millisecond })
		}
		n.set(AU, func(h *host) { h.err, h.cut = errRefused, true })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU, UK, AU), "mde", nil, "")
		mustPool(t, m, lab(US, EU, UK, AU), "graph", nil, "")
		run(t, m)
		for range 2 * restAfter {
			p.Begin()
			time.Sleep(m.settings.ProbeInterval)
		}
		before := m.Snapshot()
		next.set(EU, func(h *host) { h.err, h.cut = errRefused, true })
		next.set(UK, func(h *host) { h.delay = time.Hour })
		start := time.Now()
		m.Warm(t.Context(), &next)
		if took := time.Since(start); took != m.settings.ProbeTimeout {
			t.Errorf("took %v, want %v, since one did not answer", took, m.settings.ProbeTimeout)
		}
		for name, want := range map[Name]int{US: 4, EU: 4, UK: 1, AU: 0, Global: 0} {
			if got := len(next.asked(name)); got != want {
				t.Errorf("%s was asked %d times, want %d", name, got, want)
			}
		}
		for i, st := range m.Snapshot() {
			if st.Failures != before[i].Failures && st.Region != AU || st.Suspect && st.Region != AU {
				t.Errorf("what came of it counts: %+v, before %+v", st, before[i])
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		m.Warm(ctx, &next)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v, want the second that its context gave", took)
		}
	})
}

// A probe whose connections hang is no reason to wait at the end.
func TestTheEndOfRunEndsEveryRequestOfAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		mustPool(t, m, lab(US, EU), "mde", nil, "")
		runFor(t, m, time.Second)
		n.set(US, func(h *host) { h.delay = time.Hour })
		n.set(EU, func(h *host) { h.delay = time.Hour })
		time.Sleep(time.Minute)
		before, start := len(n.asked(US)), time.Now()
		runFor(t, m, 100*time.Millisecond)
		if took := time.Since(start); took != 100*time.Millisecond || len(n.asked(US)) != before+warmConnections {
			t.Errorf("Run took %v and asked %d times, want 100ms and four", took, len(n.asked(US))-before)
		}
		if st := state(t, m, US); st.Failures != 0 || st.Suspect {
			t.Errorf("the end counts as a failure: %+v", st)
		}
	})
}
