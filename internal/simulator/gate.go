package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"
)

// gate is one listener with its HTTP server. Between the two it can refuse,
// reset or spoil connections, and it can close its port and open it again.
type gate struct {
	name    string
	address string // host:port, the same over the whole life
	server  *http.Server
	conns   chan net.Conn // accepted, on the way to the server
	stopped <-chan struct{}

	mu     sync.Mutex
	inner  net.Listener // nil while the port is closed
	kept   func()       // gives back the port that is closed, nil while it is open
	mode   gateMode
	budget int // connections that mode still applies to; below 0 all
	closed bool
	open   map[*gateConn]struct{}
	count  uint64
	wg     sync.WaitGroup // accept loops and connections
}

// gateMode is what happens to a new connection.
type gateMode uint8

const (
	modeServe gateMode = iota
	modeRefuse
	modeReset
	modeSpoilTLS
)

func newGate(name, address string, secure *tls.Config, h http.Handler, stopped <-chan struct{}) (*gate, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s (choose other ports, or none for free ones): %w", name, address, err)
	}
	g := &gate{
		name: name, address: l.Addr().String(), inner: l, stopped: stopped,
		conns: make(chan net.Conn),
		open:  map[*gateConn]struct{}{},
	}
	g.server = &http.Server{
		Handler:           h,
		TLSConfig:         secure,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    1 << 20,
		// Handshakes that fail on purpose and aborted answers are its daily work.
		ErrorLog:    stdlog.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		// The server says so at the very end of a connection's goroutine, which
		// is what serve has to wait for.
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				g.wg.Done()
			}
		},
	}
	return g, nil
}

// connKey finds the connection of a request in its context.
type connKey struct{}

// serve accepts and answers until close. It returns when nothing of the gate
// runs any more.
func (g *gate) serve() error {
	g.mu.Lock()
	if inner := g.inner; inner != nil {
		g.wg.Go(func() { g.accept(inner) })
	}
	g.mu.Unlock()

	var l net.Listener = (*gateListener)(g)
	if g.server.TLSConfig != nil {
		l = tls.NewListener(l, g.server.TLSConfig)
	}
	err := g.server.Serve(l)
	g.wg.Wait()
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("simulator: serve %s: %w", g.name, err)
}

// accept takes connections of one opening of the port.
func (g *gate) accept(inner net.Listener) {
	for {
		c, err := inner.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors or a peer that went away: neither ends the listener.
			select {
			case <-g.stopped:
				return
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		g.admit(c)
	}
}

// admit gives one connection to the server, unless the mode says otherwise.
func (g *gate) admit(c net.Conn) {
	g.mu.Lock()
	mode := g.mode
	if mode != modeServe && g.budget > 0 {
		if g.budget--; g.budget == 0 {
			g.mode = modeServe
		}
	}
	g.count++
	gc := &gateConn{Conn: c, gate: g, id: g.count}
	if mode == modeServe {
		if g.closed {
			mode = modeReset
		} else {
			g.open[gc] = struct{}{}
			g.wg.Add(1)
		}
	}
	g.mu.Unlock()

	switch mode {
	case modeServe:
		select {
		case g.conns <- gc:
		case <-g.stopped:
			gc.Close()
			g.wg.Done()
		}
	case modeSpoilTLS:
		g.wg.Go(func() { spoil(c) })
	default:
		reset(c)
	}
}

// spoil answers a client's hello with a fatal alert (handshake_failure). The
// hello is read first: closing with unread bytes would reset.
func spoil(c net.Conn) {
	c.SetDeadline(time.Now().Add(time.Second))
	c.Read(make([]byte, 4096))
	c.Write([]byte{21, 3, 3, 0, 2, 2, 40})
	c.Close()
}

// set changes the mode. modeRefuse closes the port and all connections; any
// other mode opens it again, at the same address.
func (g *gate) set(mode gateMode, budget int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.stopped:
		return errors.New("simulator: has ended")
	default:
	}
	if mode == modeRefuse {
		g.mode = mode
		if g.inner != nil {
			g.inner.Close()
			g.inner = nil
			g.kept = reserve(g.address)
		}
		g.cut()
		return nil
	}
	if g.inner == nil {
		g.giveBack()
		l, err := listenAgain(g.address)
		if err != nil {
			return fmt.Errorf("simulator: open %s at %s again: %w", g.name, g.address, err)
		}
		g.inner = l
		g.wg.Go(func() { g.accept(l) })
	}
	if mode == modeSpoilTLS {
		g.cut() // or kept-alive connections would hide it
	}
	if budget <= 0 {
		budget = -1
	}
	g.mode, g.budget = mode, budget
	return nil
}

// spoils tells whether handshakes fail, and how many still will; below 0 all.
func (g *gate) spoils() (bool, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mode == modeSpoilTLS, g.budget
}

// giveBack ends the reservation of a closed port. The caller holds mu.
func (g *gate) giveBack() {
	if g.kept != nil {
		g.kept()
		g.kept = nil
	}
}

// listenAgain takes a port back. Somebody's outgoing connection may hold it
// for a moment.
func listenAgain(address string) (l net.Listener, err error) {
	for range 40 {
		if l, err = net.Listen("tcp", address); err == nil {
			return l, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return nil, err
}

// cut ends all connections. The caller holds mu.
func (g *gate) cut() {
	for c := range g.open {
		// Directly: gateConn.Close wants mu.
		c.Conn.Close()
	}
}

// close ends the gate for good.
func (g *gate) close() error {
	g.mu.Lock()
	g.closed = true
	g.giveBack()
	if g.inner != nil {
		g.inner.Close()
		g.inner = nil
	}
	g.cut()
	g.mu.Unlock()
	if err := g.server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("simulator: close %s: %w", g.name, err)
	}
	return nil
}

// gateListener is the gate as its HTTP server sees it.
type gateListener gate

func (l *gateListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.stopped:
		return nil, net.ErrClosed
	}
}

func (l *gateListener) Close() error { return nil }

func (l *gateListener) Addr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", l.address)
	if err != nil {
		return &net.TCPAddr{}
	}
	return a
}

// gateConn is an accepted connection with its number.
type gateConn struct {
	net.Conn
	gate *gate
	id   uint64
}

func (c *gateConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.open, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// hijack takes the connection of a request away from the server. The caller
// writes what it likes and then calls release, which closes it: with RST when
// hard is set.
func hijack(w http.ResponseWriter, r *http.Request) (c net.Conn, release func(hard bool), err error) {
	gc := connOf(r)
	if gc == nil {
		return nil, nil, errors.New("simulator: request without a connection of a gate")
	}
	// The handler goes on after the server has let go, so it counts by itself.
	gc.gate.wg.Add(1)
	c, _, err = http.NewResponseController(w).Hijack()
	if err != nil {
		gc.gate.wg.Done()
		return nil, nil, err
	}
	return c, func(hard bool) {
		if hard {
			reset(gc.Conn)
		}
		c.Close()
		gc.Close()
		gc.gate.wg.Done()
	}, nil
}

// resetCaller ends the connection of a request with RST. Over HTTP/2 that ends the
// other requests of the connection too.
func resetCaller(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		if gc := connOf(r); gc != nil {
			reset(gc.Conn)
		}
		panic(http.ErrAbortHandler)
	}
	if _, release, err := hijack(w, r); err == nil {
		release(true)
	}
}

// connOf finds the accepted connection below a request, nil without one.
func connOf(r *http.Request) *gateConn {
	switch c := r.Context().Value(connKey{}).(type) {
	case *gateConn:
		return c
	case *tls.Conn:
		gc, _ := c.NetConn().(*gateConn)
		return gc
	}
	return nil
}

// reset ends a connection with RST, so that the peer sees an error and not an
// end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
