package listen

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// newFront puts itself between l and net/http: it reads the head of each request
// first and lets through what can be read in one way alone. What cannot is
// replaced by a request that stands in for it, of which Violated tells.
//
// With a config, which must not offer HTTP/2, it ends TLS itself: l gives plain
// connections. What failed at TLS comes out as a *tls.Conn, for net/http to tell
// of, but for plain HTTP, which is answered here; all else as a connection with
// NetConn (the one of l, or the *tls.Conn over it) and, with TLS, ConnectionState.
//
// headerBytes bounds a request's line and headers, 0 means 32 KiB; headerTimeout
// the time for a TLS handshake and for a head, from the beginning of a connection
// or from the first byte of a later head on, 0 means 10 s.
//
// A connection waits here, where it costs little, and not in net/http: a new one
// until its first head is complete, one that has been used until it has another,
// if its http.Server has ConnState. To net/http each wait is the end of one
// connection and what follows another. Close ends all that wait.
func newFront(l net.Listener, config *tls.Config, headerBytes int, headerTimeout time.Duration) net.Listener {
	return &front{
		Listener: l, config: config, headerBytes: cmp.Or(headerBytes, 32<<10), headerTimeout: cmp.Or(headerTimeout, 10*time.Second),
		heads: &heads{most: unfinishedBytes},
		ready: make(chan net.Conn), failed: make(chan error), done: make(chan struct{}), waiting: make(map[net.Conn]struct{}),
	}
}

type front struct {
	net.Listener
	config        *tls.Config // nil without TLS
	headerBytes   int
	headerTimeout time.Duration
	heads         *heads

	start  sync.Once
	ready  chan net.Conn
	failed chan error // of Accept, for good
	done   chan struct{}

	mu      sync.Mutex
	closed  bool
	quiet   bool                  // takes no more connections
	fresh   int                   // of waiting, those that have not had a request
	idle    chan struct{}         // closed when there is none of these and none will come
	waiting map[net.Conn]struct{} // of the listener, that net/http does not have
}

// Quiesce takes no more connections from l, which Open gave, and waits until those
// that were just made have sent their first request, for at most patience: who
// has connected already is still answered. http.Server's Shutdown comes after it.
func Quiesce(l net.Listener, patience time.Duration) {
	if f, ok := l.(*front); ok {
		f.quiesce(patience)
	}
}

func (f *front) quiesce(patience time.Duration) {
	f.mu.Lock()
	if f.closed || f.quiet {
		f.mu.Unlock()
		return
	}
	f.quiet, f.idle = true, make(chan struct{})
	if f.fresh == 0 {
		close(f.idle)
	}
	_ = f.Listener.Close()
	f.mu.Unlock()
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case <-f.idle:
	case <-enough.C:
	case <-f.done:
	}
}

// ConnState is for http.Server: it lets a connection wait outside net/http as soon
// as it idles, and bounds the time for the next request's head.
func ConnState(c net.Conn, state http.ConnState) {
	if e, ok := c.(interface{ self() *exchange }); ok {
		e.self().idle.Store(state == http.StateIdle)
	}
}

// Accept gives a connection whose first request has come.
func (f *front) Accept() (net.Conn, error) {
	f.start.Do(func() { go f.accept() })
	select {
	case c := <-f.ready:
		return c, nil
	case err := <-f.failed:
		return nil, err
	case <-f.done:
		return nil, net.ErrClosed
	}
}

func (f *front) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	close(f.done)
	for c := range f.waiting {
		_ = c.Close()
	}
	return f.Listener.Close()
}

func (f *front) isClosed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

func (f *front) accept() {
	const least, most = 5 * time.Millisecond, time.Second
	pause := least
	for {
		c, err := f.Listener.Accept()
		if err == nil {
			pause = least
			f.count(1)
			go f.first(c)
			continue
		}
		// Too few descriptors, or one that left before it was accepted.
		if e, ok := err.(interface{ Temporary() bool }); ok && e.Temporary() && !errors.Is(err, net.ErrClosed) {
			select {
			case <-time.After(pause):
				pause = min(2*pause, most)
				continue
			case <-f.done:
				return
			}
		}
		f.mu.Lock()
		wanted := f.quiet
		f.mu.Unlock()
		if wanted {
			return // Accept goes on with those that are there
		}
		select {
		case f.failed <- err:
		case <-f.done:
		}
		return
	}
}

// first takes a new connection as far as its first request.
func (f *front) first(c net.Conn) {
	defer f.count(-1)
	if !f.hold(c) {
		return
	}
	if s, ok := c.(*socket); ok && !s.share() {
		_ = c.Close()
		f.release(c)
		return
	}
	w := &wire{Conn: c, below: c, limit: f.headerBytes, heads: f.heads}
	if f.config != nil {
		over := tls.Server(c, f.config)
		_ = over.SetDeadline(time.Now().Add(f.headerTimeout))
		err := over.Handshake()
		_ = over.SetDeadline(time.Time{})
		f.refused(c, err)
		var record tls.RecordHeaderError
		switch {
		case err == nil:
		case errors.As(err, &record) && record.Conn != nil && isToken(record.RecordHeader[:1]):
			f.tell(w, plainHTTP) // as a method begins, and no record of TLS
			_ = f.linger(w)
			return
		default:
			f.pass(c, over)
			return
		}
		w.Conn = over
	}
	f.next(w, time.Time{})
}

// refused tells of a client certificate that is not valid.
func (f *front) refused(c net.Conn, err error) {
	var invalid *tls.CertificateVerificationError
	if g, ok := f.Listener.(*gate); ok && errors.As(err, &invalid) {
		g.refusals.add(fmt.Errorf("closed a connection from %s: its client certificate is not valid: %w", addressOf(c.RemoteAddr()), invalid.Err))
	}
}

// count notes that a new connection begins to wait for its first request, or ends
// to.
func (f *front) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fresh += n; f.fresh == 0 && f.quiet {
		select {
		case <-f.idle:
		default:
			close(f.idle)
		}
	}
}

// next waits for the head of a request, and passes the connection on then. A later
// head than the first has to begin before until, if that is not zero.
func (f *front) next(w *wire, until time.Time) {
	running := w.begun() || !w.used // the time for the head
	if running {
		until = time.Now().Add(f.headerTimeout)
	}
	_ = w.SetReadDeadline(until)
	w.waits = true
	if w.heads.finish(w); len(w.room) > smallBuffer && !w.heads.grow(w, len(w.room)) {
		w.refuse(w.tooMuch())
	}
	for !w.fit() {
		if err := w.fill(smallBuffer); err != nil {
			f.giveUp(w, err)
			return
		}
		if !running {
			running = true
			_ = w.SetReadDeadline(time.Now().Add(f.headerTimeout))
		}
	}
	w.waits = false
	_ = w.SetReadDeadline(time.Time{})
	w.used = true
	e := &exchange{wire: w, front: f}
	if _, ok := w.Conn.(*tls.Conn); ok {
		f.pass(w.below, encrypted{e})
	} else {
		f.pass(w.below, e)
	}
}

// The answers to what is no request yet, so that the audit does not learn of it: a
// head that does not come to its end, and plain HTTP where TLS is spoken.
const (
	tooSlow = "HTTP/1.1 408 Request Timeout\r\nProxy-Status: defender-proxy; error=http_request_error; details=\"RequestTimeout\"\r\n" +
		"Content-Type: application/json; charset=utf-8\r\nConnection: close\r\nContent-Length: 97\r\n\r\n" +
		`{"error":{"code":"RequestTimeout","message":"The request's headers did not come to their end."}}` + "\n"
	plainHTTP = "HTTP/1.1 400 Bad Request\r\nProxy-Status: defender-proxy; error=http_request_error; details=\"InvalidRequest\"\r\n" +
		"Content-Type: application/json; charset=utf-8\r\nConnection: close\r\nContent-Length: 148\r\n\r\n" +
		`{"error":{"code":"InvalidRequest","message":"This listener speaks TLS, and the request is plain HTTP. Call it with https:// in place of http://."}}` + "\n"
)

// tell writes one of these.
func (f *front) tell(w *wire, answer string) {
	_ = w.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = w.Write([]byte(answer))
}

func (f *front) giveUp(w *wire, err error) {
	if e, ok := err.(net.Error); ok && e.Timeout() && w.begun() {
		f.tell(w, tooSlow)
	}
	w.heads.finish(w)
	_ = w.Close()
	f.release(w.below)
}

// hold notes a connection that net/http does not have. It closes it, and reports
// false, when the front is closed.
func (f *front) hold(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = c.Close()
		return false
	}
	f.waiting[c] = struct{}{}
	return true
}

func (f *front) release(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, c)
}

// pass lets net/http have a connection, which leads to one of the listener.
func (f *front) pass(below, c net.Conn) {
	f.release(below)
	select {
	case f.ready <- c:
	case <-f.done:
		_ = below.Close()
	}
}

// again takes a connection back that net/http is done with.
func (f *front) again(w *wire, until time.Time) error {
	if f.hold(w.below) {
		w.rest()
		go f.next(w, until)
	}
	return nil
}

// linger closes a connection whose caller may still be sending: to close it with
// bytes unread would reset it, and the caller would not see the answer (RFC 9112,
// section 9.6).
func (f *front) linger(w *wire) error {
	if !f.hold(w.below) {
		return nil
	}
	go func() {
		defer f.release(w.below)
		defer w.Close()
		const (
			most = 1 << 20
			wait = 2 * time.Second
		)
		if c, ok := w.Conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
		_ = w.SetReadDeadline(time.Now().Add(wait))
		for read := 0; read < most; {
			n, err := w.skip()
			if read += n; err != nil {
				return
			}
		}
	}()
	return nil
}
