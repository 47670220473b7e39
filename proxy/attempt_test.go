package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"defender-proxy/regions"
)

// streams is a server that speaks frames of HTTP/2 and answers no request.
type streams struct {
	listener net.Listener
	arrived  atomic.Int32 // requests whose end has come

	settings []http2.Setting
	// refuse is sent for each of them.
	refuse func(f *http2.Framer, stream uint32)
}

func newStreams(t *testing.T, cert tls.Certificate, s *streams) *streams {
	t.Helper()
	var err error
	s.listener, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	running.Go(func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			running.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		s.listener.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return s
}

func (s *streams) serve(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(c, c)
	_ = f.WriteSettings(s.settings...)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		ends := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			ends = frame.StreamEnded()
		case *http2.DataFrame:
			ends = frame.StreamEnded()
		}
		if ends {
			s.arrived.Add(1)
			s.refuse(f, frame.Header().StreamID)
		}
	}
}

// overStreams is a world whose first region is s. dials is how many connections to
// it come about.
func overStreams(t *testing.T, s *streams, dials int32, limits func(*Limits)) *world {
	t.Helper()
	var first, instead atomic.Pointer[string]
	var dialled atomic.Int32
	transport := &http.Transport{ForceAttemptHTTP2: true}
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == *first.Load() {
			if dialled.Add(1) > dials {
				return nil, errors.New("refused")
			}
			address = *instead.Load()
		}
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}}
		return d.DialContext(ctx, network, address)
	}
	t.Cleanup(transport.CloseIdleConnections)
	w := newWorld(t, options{deps: func(d *Deps) { d.Transport = transport }, limits: limits})
	newStreams(t, w.regions[0].server.TLS.Certificates[0], s)
	from, to := w.regions[0].server.Listener.Addr().String(), s.listener.Addr().String()
	first.Store(&from)
	instead.Store(&to)
	return w
}

// net/http sends again by itself what a server refused as a stream, without asking
// whether it was carried out, and without a bound.
func TestAWriteGoesOutAsOneStreamAtMost(t *testing.T) {
	protocolError := func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeProtocol) }
	for _, c := range []struct {
		name   string
		dials  int32
		refuse func(*http2.Framer, uint32)
	}{
		{"when the stream ends with a protocol error", 99, protocolError},
		{"when it does and there is no connection then", 1, protocolError},
		{"when the server goes away", 99, func(f *http2.Framer, _ uint32) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		{"when the stream is refused", 99, func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &streams{refuse: c.refuse}
			w := overStreams(t, s, c.dials, nil)
			got := w.do("POST", "/api/machines/m1/isolate", `{"Comment":"x"}`)
			if n, elsewhere := s.arrived.Load(), len(w.regions[1].requests()); n != 1 || elsewhere != 0 {
				t.Errorf("it arrived %d times, and %d times elsewhere", n, elsewhere)
			}
			if got.status != 502 || !strings.Contains(got.message(), "may have been carried out") || got.header.Get("Retry-After") != "" {
				t.Errorf("the caller is told %d %s", got.status, got.body)
			}
		})
	}
}

// A request that the other side's settings do not allow is the caller's affair: no
// region is ill for it, and nothing was sent.
func TestARequestThatCannotBeSentSpeaksAgainstNoRegion(t *testing.T) {
	s := &streams{settings: []http2.Setting{{ID: http2.SettingMaxHeaderListSize, Val: 8000}}, refuse: func(f *http2.Framer, stream uint32) {
		_ = f.WriteRSTStream(stream, http2.ErrCodeInternal)
	}}
	w := overStreams(t, s, 99, nil)
	w.do("GET", "/api/alerts", "") // then the settings are known
	for range 4 {
		got := w.do("POST", "/api/machines/m1/isolate", `{"Comment":"x"}`, "Accept-X", strings.Repeat("x", 9000))
		if strings.Contains(got.message(), "may have been carried out") {
			t.Errorf("of what was not sent the caller is told %s", got.body)
		}
	}
	if s.arrived.Load() != 1 {
		t.Errorf("%d arrived, want the first alone", s.arrived.Load())
	}
	if e := w.proxy.Tenants[0].Upstreams["mde"].Regions.Order()[0]; !e.Up() || e.Region != "us" {
		t.Errorf("the first region is %s, up %v", e.Region, e.Up())
	}
}

// A GET is repeated by net/http on each kept connection that dies under it.
func TestAReadIsWrittenToAFewConnectionsAtMost(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.InFlight = 256 }})
	w.proxy.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	const kept = 20
	gate := make(chan struct{})
	us := w.regions[0]
	us.answer(func(http.ResponseWriter, *http.Request) { <-gate })
	var callers sync.WaitGroup
	for range kept {
		callers.Go(func() { w.do("GET", "/api/alerts", "") })
	}
	for deadline := time.Now().Add(20 * time.Second); len(us.requests()) < kept; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("they do not arrive")
			break
		}
	}
	close(gate)
	callers.Wait()
	us.answer(reset)
	if got := w.do("GET", "/api/alerts", ""); got.status != 200 {
		t.Errorf("the read: %d %s", got.status, got.body)
	}
	if n := len(us.requests()) - kept; n > maxConns {
		t.Errorf("one read arrived %d times in one region, want %d at most", n, maxConns)
	}
}

func TestMicrosofts401StandsHoweverLongTheSearchForATokenTook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	if got := w.do("GET", "/api/alerts", ""); got.status != 200 {
		t.Fatalf("the first: %d %s", got.status, got.body)
	}
	for _, r := range w.regions {
		r.answer(status(401))
	}
	hang := make(chan struct{})
	w.entra.set(func(e *entra) { e.same, e.hangs = true, hang })
	time.AfterFunc(doubtAfter+time.Second, func() { close(hang) })
	if got := w.do("GET", "/api/alerts", ""); got.status != 401 {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestAnAnswerThatNobodyWantsHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{limits: func(l *Limits) { l.FirstByteTimeout = time.Minute }})
	gone := make(chan struct{})
	w.regions[0].answer(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(503)
		_ = http.NewResponseController(w).Flush() // and no end
		<-r.Context().Done()
		close(gone)
	})
	begun := time.Now()
	if got := w.do("GET", "/api/alerts", ""); got.status != 200 || time.Since(begun) > 30*time.Second {
		t.Errorf("got %d %s after %v", got.status, got.body, time.Since(begun))
	}
	<-gone
}

func TestTheCallerOfAWriteIsToldWhenItsAnswerIsLost(t *testing.T) {
	cut := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, `{"id":`)
		_ = http.NewResponseController(w).Flush()
		reset(w, r)
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"breaks off", cut},
		{"redirects", status(302, "Location", "https://evil.example/")},
		{"is not what it says", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(201)
			_, _ = io.WriteString(w, "plain")
		}},
	} {
		t.Run("the answer "+c.name, func(t *testing.T) {
			w := newWorld(t, options{})
			w.regions[0].answer(c.answer)
			got := w.do("POST", "/api/machines/m1/isolate", `{"Comment":"x"}`)
			if got.code() != "InvalidAnswer" || !strings.Contains(got.message(), "may have been carried out") || strings.Contains(got.message(), "Try again") || got.header.Get("Retry-After") != "" {
				t.Errorf("of a write: %d %v %s", got.status, got.header, got.body)
			}
			if got := w.do("GET", "/api/alerts", ""); got.code() != "InvalidAnswer" || strings.Contains(got.message(), "carried out") {
				t.Errorf("of a read: %d %s", got.status, got.body)
			}
		})
	}
}

func TestNoAttemptBeginsWhenTheTimeIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{regions: []regions.Name{"us", "eu", "uk"}, limits: func(l *Limits) {
		l.ConnectTimeout, l.FirstByteTimeout = 500*time.Millisecond, 2*time.Second
	}})
	arrived := 0
	for _, r := range w.regions {
		r.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	}
	got := w.do("GET", "/api/alerts", "")
	for _, r := range w.regions {
		arrived += len(r.requests())
	}
	if got.status != 504 || arrived != 2 {
		t.Errorf("got %d %s after %d attempts; the third would have begun after 4 s of 2.5", got.status, got.body, arrived)
	}
}

func TestWhatCannotBeRepeatedIsNotGivenUpWithItsRegion(t *testing.T) {
	for _, c := range []struct {
		name, method, path, body string
	}{
		{"a write", "POST", "/api/machines/m1/isolate", `{"Comment":"x"}`},
		{"a long hunting query", "POST", "/api/advancedqueries/run", `{"Query":"` + strings.Repeat("x", maxKept) + `"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{deps: func(d *Deps) { d.RepeatHunting = true }, limits: func(l *Limits) { l.FirstByteTimeout = 30 * time.Second }})
			w.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(doubtAfter + 2*time.Second)
				fmt.Fprint(w, "well")
			})
			e := w.proxy.Tenants[0].Upstreams["mde"].Regions.Order()[0]
			time.AfterFunc(doubtAfter+time.Second, func() { w.proxy.Monitor.Report(e, regions.ConnectFailed(errors.New("x"))) })
			if got := w.do(c.method, c.path, c.body); got.status != 200 || len(w.regions[1].requests()) != 0 {
				t.Errorf("got %d %s; %d arrived elsewhere", got.status, got.body, len(w.regions[1].requests()))
			}
		})
	}
}

func TestAReadLeavesARegionThatCannotBeReachedAnyMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{limits: func(l *Limits) { l.FirstByteTimeout = time.Minute }})
	w.regions[0].answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	e := w.proxy.Tenants[0].Upstreams["mde"].Regions.Order()[0]
	time.AfterFunc(doubtAfter+500*time.Millisecond, func() { w.proxy.Monitor.Report(e, regions.ConnectFailed(errors.New("x"))) })
	begun := time.Now()
	got := w.do("GET", "/api/alerts", "")
	if took := time.Since(begun); got.status != 200 || took < doubtAfter || took > 40*time.Second {
		t.Errorf("got %d %s after %v", got.status, got.body, took)
	}
}

// The pause of first_byte_timeout is Microsoft's, not the caller's.
func TestACallerMayPauseLongerThanMicrosoft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{limits: func(l *Limits) { l.FirstByteTimeout, l.BodyIdle = 500*time.Millisecond, 20*time.Second }})
	const size = 64 << 20
	w.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", fmt.Sprint(size))
		block := make([]byte, 64<<10)
		for range size / len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	r, err := http.NewRequest("GET", w.server.URL+"/api/alerts", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.Sleep(1500 * time.Millisecond)
	if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
		t.Errorf("got %d bytes of %d: %v", n, size, err)
	}
}
