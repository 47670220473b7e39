package proxy

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// fakeNet is a network in memory, for synctest's bubbles: every wait in it is on
// something of the bubble, so fake time goes on. It behaves as TCP does where
// that tells what a peer has seen: what is written is accepted at once, as far as
// the window goes, and arrives after the way's latency, in order; what arrives at
// a closed end is dropped and answered with a reset; closing with unread data
// resets, and a reset takes unread data with it.
type fakeNet struct {
	ports atomic.Int32

	mu    sync.Mutex // guards hosts
	hosts map[string]*fakeListener
}

func newFakeNet() *fakeNet { return &fakeNet{hosts: make(map[string]*fakeListener)} }

const (
	// window is how many bytes may be on the way or unread in one direction.
	window = 64 << 10
	// unbounded is more than anybody sends. net/http's HTTP/2 writes with a mutex
	// held, and where one goroutine waits for a window and another for a mutex,
	// fake time stands still.
	unbounded = 64 << 20
)

// fate is what becomes of an attempt to connect.
type fate struct {
	latency time.Duration // one way
	refused bool          // answered with a reset
	silent  bool          // nothing comes back
	window  int           // window when 0
}

// fakeListener accepts the connections to one address.
type fakeListener struct {
	net   *fakeNet
	addr  net.Addr
	fate  func() fate // nil: at once
	taken chan *fakeConn
	done  chan struct{}
	once  sync.Once
}

// listen makes a listener at host:port; the host is an IP address.
func (n *fakeNet) listen(addr string) *fakeListener {
	l := &fakeListener{net: n, addr: mustAddr(addr), taken: make(chan *fakeConn, 256), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr] = l
	return l
}

func mustAddr(s string) *net.TCPAddr {
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		panic(err)
	}
	return a
}

func (l *fakeListener) Accept() (net.Conn, error) {
	c, err := l.accept()
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (l *fakeListener) accept() (*fakeConn, error) {
	select {
	case c := <-l.taken:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *fakeListener) Addr() net.Addr { return l.addr }

// dial is a DialContext. As a kernel does, it gives up by itself in the end.
func (n *fakeNet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.hosts[addr]
	n.mu.Unlock()
	f := fate{refused: true}
	if l != nil {
		f = fate{}
		if l.fate != nil {
			f = l.fate()
		}
	}
	wait := 2 * f.latency
	if f.silent {
		wait = 127 * time.Second
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return nil, failedTo("dial", ctx.Err())
		case <-t.C:
		}
	}
	switch {
	case f.silent:
		return nil, failedTo("dial", syscall.ETIMEDOUT)
	case f.refused:
		return nil, failedTo("dial", syscall.ECONNREFUSED)
	}
	near, far := newFakePair(mustAddr(fmt.Sprintf("127.0.0.1:%d", 20000+n.ports.Add(1)%40000)), l.addr, f)
	select {
	case <-l.done:
		return nil, failedTo("dial", syscall.ECONNREFUSED)
	case l.taken <- far:
		return near, nil
	}
}

func failedTo(op string, err error) error { return &net.OpError{Op: op, Net: "tcp", Err: err} }

// fakePair is a connection with both of its ends.
type fakePair struct {
	latency time.Duration
	window  int

	mu   sync.Mutex // guards what follows, and both ends
	cond *sync.Cond
	dead bool // the way is gone: nothing arrives any more
}

// segment is what is on the way to one end.
type segment struct {
	at       time.Time
	data     []byte
	fin, rst bool
}

// fakeConn is one end of a connection.
type fakeConn struct {
	pair          *fakePair
	peer          *fakeConn
	local, remote net.Addr

	coming     []segment
	flying     int    // bytes in coming
	in         []byte // arrived and not read
	inSince    time.Time
	ended      bool  // the peer's end of data has arrived
	broken     error // a reset has arrived
	finished   bool  // our end of data is sent
	closed     bool
	readUntil  fakeDeadline
	writeUntil fakeDeadline
}

func newFakePair(near, far net.Addr, f fate) (*fakeConn, *fakeConn) {
	p := &fakePair{latency: f.latency, window: cmp.Or(f.window, window)}
	p.cond = sync.NewCond(&p.mu)
	a := &fakeConn{pair: p, local: near, remote: far}
	b := &fakeConn{pair: p, local: far, remote: near, peer: a}
	a.peer = b
	return a, b
}

// send puts a segment on the way to c's peer. The pair's mutex is held.
func (c *fakeConn) send(s segment) {
	to, p := c.peer, c.pair
	if p.dead {
		to.flying += len(s.data) // and never arrives
		return
	}
	s.at = time.Now().Add(p.latency)
	to.coming = append(to.coming, s)
	to.flying += len(s.data)
	if p.latency == 0 {
		to.arrive()
		return
	}
	time.AfterFunc(p.latency, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		to.arrive()
	})
}

// arrive takes what is due. The pair's mutex is held.
func (c *fakeConn) arrive() {
	now := time.Now()
	for len(c.coming) > 0 && !c.coming[0].at.After(now) {
		s := c.coming[0]
		c.coming = c.coming[1:]
		c.flying -= len(s.data)
		switch {
		case c.pair.dead:
		case s.rst:
			if c.broken == nil {
				c.broken, c.in = syscall.ECONNRESET, nil
			}
		case c.closed && len(s.data) > 0:
			c.send(segment{rst: true}) // nobody is there to read it
		case s.fin:
			c.ended = true
		default:
			if len(c.in) == 0 {
				c.inSince = now
			}
			c.in = append(c.in, s.data...)
		}
	}
	c.pair.cond.Broadcast()
}

func (c *fakeConn) Read(b []byte) (int, error) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, failedTo("read", net.ErrClosed)
		case c.readUntil.passed():
			return 0, os.ErrDeadlineExceeded
		case c.broken != nil:
			return 0, failedTo("read", c.broken)
		case len(b) == 0:
			return 0, nil
		case len(c.in) > 0:
			n := copy(b, c.in)
			if c.in = c.in[n:]; len(c.in) == 0 {
				c.in = nil
			}
			c.pair.cond.Broadcast() // the window has opened
			return n, nil
		case c.ended:
			return 0, io.EOF
		}
		c.pair.cond.Wait()
	}
}

func (c *fakeConn) Write(b []byte) (n int, err error) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	for {
		room := c.pair.window - len(c.peer.in) - c.peer.flying
		switch {
		case c.closed, c.finished:
			return n, failedTo("write", net.ErrClosed)
		case c.writeUntil.passed():
			return n, os.ErrDeadlineExceeded
		case c.broken != nil:
			return n, failedTo("write", syscall.EPIPE)
		case len(b) == 0:
			return n, nil
		case room > 0:
			k := min(room, len(b))
			c.send(segment{data: append([]byte(nil), b[:k]...)})
			n, b = n+k, b[k:]
			continue
		}
		c.pair.cond.Wait()
	}
}

func (c *fakeConn) Close() error {
	c.cut(false)
	return nil
}

// close ends c without a word to the peer. The pair's mutex is held.
func (c *fakeConn) close() {
	c.closed, c.finished, c.in = true, true, nil
	c.readUntil.set(time.Time{}, c.pair.cond)
	c.writeUntil.set(time.Time{}, c.pair.cond)
	c.pair.cond.Broadcast()
}

// CloseWrite ends our data and reads on, as net.TCPConn's does.
func (c *fakeConn) CloseWrite() error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.closed || c.finished {
		return failedTo("close", net.ErrClosed)
	}
	c.finished = true
	if c.broken == nil {
		c.send(segment{fin: true})
	}
	return nil
}

// cut closes c at once, with a reset or as Close does, and gives what had arrived
// and was not read.
func (c *fakeConn) cut(reset bool) (unread []byte) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	unread = c.in
	if c.closed {
		return nil
	}
	if c.broken == nil && (reset || len(c.in) > 0) {
		c.send(segment{rst: true})
	} else if c.broken == nil && !c.finished {
		c.send(segment{fin: true})
	}
	c.close()
	return unread
}

// vanish lets the way between the ends go without a word to either. This end is
// closed, the peer has to find out.
func (c *fakeConn) vanish() (unread []byte) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	unread = c.in
	c.pair.dead = true
	c.close()
	return unread
}

// left waits until the peer has gone or c is closed.
func (c *fakeConn) left() {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	for !c.closed && !c.ended && c.broken == nil {
		c.pair.cond.Wait()
	}
}

func (c *fakeConn) LocalAddr() net.Addr  { return c.local }
func (c *fakeConn) RemoteAddr() net.Addr { return c.remote }

func (c *fakeConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *fakeConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readUntil, t) }

func (c *fakeConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeUntil, t) }

func (c *fakeConn) setDeadline(d *fakeDeadline, t time.Time) error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.closed {
		return failedTo("set", net.ErrClosed)
	}
	d.set(t, c.pair.cond)
	return nil
}

// fakeDeadline wakes those who wait once it has passed.
type fakeDeadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *fakeDeadline) set(t time.Time, cond *sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, func() {
			cond.L.Lock()
			defer cond.L.Unlock()
			cond.Broadcast()
		})
		return
	}
	cond.Broadcast()
}

func (d *fakeDeadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }
