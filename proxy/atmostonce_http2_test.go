package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mathrand "math/rand/v2"

	"defender-proxy/regions"
)

// TestNoWriteIsSentTwiceOverHTTP2 is the same over TLS and HTTP/2, where many
// requests share a connection and a server can refuse one of them alone.
func TestNoWriteIsSentTwiceOverHTTP2(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	count := 250
	if withRaceDetector() {
		count = 60
	}
	if *scheduleCount != 0 {
		count = *scheduleCount / 20
	}
	base := 1 + mathrand.Uint64()>>1
	if *scheduleSeed != 0 {
		base, count = *scheduleSeed, 1
	}
	for i, failed := 0, 0; i < count && failed < 3; i++ {
		d := dice(base + uint64(i))
		if !t.Run(fmt.Sprintf("seed=%d", uint64(d)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSchedule(d)
				s.http2 = true
				if wrong := s.run(t); len(wrong) > 0 {
					t.Error(s.report(wrong))
				}
			})
		}) {
			failed++
		}
	}
}

// A caller that takes its time over a body learns soon that it has its answer.
func TestAnAnswerBeforeTheEndOfTheBodyReachesItsCallerOverHTTP2(t *testing.T) {
	for kind, status := range map[string]int{failing: 503, hasty: 200} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &schedule{dice: 1, http2: true, regions: []regions.Name{"us"}, latency: map[regions.Name]time.Duration{"us": caseLatency}}
				s.weather = map[regions.Name][]spell{"us": {{kind: kind}}}
				c := &call{id: idPrefix + "0000", kind: upload, size: maxKept + 1, pause: 4 * time.Second}
				s.calls = []*call{c}
				wrong := s.run(t)
				if took := c.ended.Sub(c.began); c.status != status || took > drainTime+time.Second {
					wrong = append(wrong, fmt.Sprintf("the caller was told %d after %v, want %d", c.status, took, status))
				}
				if len(wrong) > 0 {
					t.Error(s.report(wrong))
				}
			})
		})
	}
}

// hasty is a region that answers before the body has come.
const hasty = "hasty"

// fakeCertificate is that of every region.
var fakeCertificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IPAddresses: []net.IP{net.IPv4(127, 0, 1, 1), net.IPv4(127, 0, 1, 2), net.IPv4(127, 0, 1, 3), net.IPv4(127, 0, 1, 4)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
})

// serveHTTP2 makes a region's way with connections, which is net/http's, and what
// ends it. Some connections bear few requests at once, and some none at all.
func (s *schedule) serveHTTP2() (serve func(*upstreamConn), stop func()) {
	cert, _ := fakeCertificate()
	l := &handedOver{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{
		Handler:     http.HandlerFunc(s.answerHTTP2),
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: 1 + s.roll("streams").IntN(4)},
		Protocols:   new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:    nobody,
	}
	server.Protocols.SetHTTP2(true)
	var running sync.WaitGroup
	running.Go(func() {
		_ = server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, CurvePreferences: []tls.CurveID{tls.X25519}}))
	})
	serve = func(u *upstreamConn) {
		u.mu.Lock()
		u.current = &sighting{} // what arrives is for the handler to tell
		u.mu.Unlock()
		if d := s.roll("connection", u.region.name, u.number); d.IntN(2) == 0 {
			s.idle(u, d, 0)
		}
		if s.now(u.region) == deaf {
			u.left()
			return
		}
		c := &handedConn{upstreamConn: u, over: make(chan struct{})}
		l.conns <- c
		<-c.over
	}
	return serve, func() {
		_ = l.Close()
		_ = server.Close()
		running.Wait()
	}
}

type connKey struct{}

// handedOver is a listener for connections that another one has accepted.
type handedOver struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *handedOver) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *handedOver) Addr() net.Addr { return mustAddr("127.0.1.1:443") }

// handedConn tells when the server has done with it.
type handedConn struct {
	*upstreamConn
	once sync.Once
	over chan struct{}
}

func (c *handedConn) Close() error {
	defer c.once.Do(func() { close(c.over) })
	return c.upstreamConn.Close()
}

// answerHTTP2 does one of the things that can become of a request.
func (s *schedule) answerHTTP2(rw http.ResponseWriter, r *http.Request) {
	u := r.Context().Value(connKey{}).(*tls.Conn).NetConn().(*handedConn).upstreamConn
	w := s.world.witness
	seen := &sighting{at: time.Now(), region: u.region.name, id: idIn([]byte(r.RequestURI)), words: r.Method + " " + r.RequestURI, kept: true}
	before := 0
	if seen.id != "" {
		before = w.note(seen)
	}
	d := s.roll("request", u.region.name, seen.id, before)
	w.logf("%s #%d: %s %s arrives (%d before)", u.region.name, u.number, r.Method, seen.id, before)
	answer := func(status int, header ...string) {
		w.logf("%s #%d: answers %s with %d %v", u.region.name, u.number, seen.id, status, header)
		w.mu.Lock()
		seen.status, seen.told, seen.begun = status, time.Now(), true
		for i := 0; i < len(header); i += 2 {
			rw.Header().Set(header[i], header[i+1])
			if header[i] == "Retry-After" {
				seen.again = header[i+1]
			}
		}
		w.mu.Unlock()
		rw.Header().Set(sightHeader, strconv.Itoa(seen.number))
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		_, _ = fmt.Fprintf(rw, `{"id":%q}`, seen.id)
	}
	ends := func(how string) {
		w.logf("%s #%d: ends (%s)", u.region.name, u.number, how)
		u.finish(how)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	switch s.now(u.region) {
	case hanging:
		<-r.Context().Done()
		return
	case resetting:
		ends(byReset)
	case failing:
		answer(503)
		return
	case hasty:
		answer(200)
		return
	}
	if seen.id == "" {
		answer(401)
		return
	}
	if d.Float64() >= s.trouble {
		_ = s.whole(seen, r)
		time.Sleep(s.time(d, 300*time.Millisecond))
		answer([]int{200, 201, 204, 403, 500}[d.IntN(5)])
		return
	}
	act := pick(d, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2)
	if act > 1 && !s.whole(seen, r) {
		return
	}
	switch act {
	case 0: // before the body is read
		_, _ = io.CopyN(io.Discard, r.Body, int64(d.IntN(200<<10)))
		answer([]int{200, 413, 503}[d.IntN(3)])
	case 1:
		_, _ = io.CopyN(io.Discard, r.Body, int64(d.IntN(200<<10)))
		panic(http.ErrAbortHandler) // a reset of the stream alone
	case 2:
		answer(401)
	case 3:
		answer([]int{429, 503}[d.IntN(2)], "Retry-After", []string{"0", "1", "20"}[d.IntN(3)])
	case 4:
		ends([]string{byReset, byClosing, byVanishing}[d.IntN(3)])
	case 5:
		<-r.Context().Done()
	case 6:
		answer(200, "Content-Length", "1000")
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	case 7:
		answer(200, "Connection", "close") // goes away when it has answered
	case 8:
		time.Sleep(s.time(d, 36*time.Second))
		answer([]int{200, 502, 504}[d.IntN(3)])
	case 9:
		answer(200)
		_ = http.NewResponseController(rw).Flush()
		ends([]string{byReset, byClosing}[d.IntN(2)])
	}
}
