package listen

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
)

// gate takes connections in: no more than MaxConnections, and half of that from one
// source, each with what is known of its other end.
type gate struct {
	net.Listener
	balancers     []netip.Prefix
	headerTimeout time.Duration
	refusals      refusals

	mu   sync.Mutex // guards what follows
	open int
	by   map[source]int // of those that have a share; at most open
}

func newGate(l net.Listener, s Settings) *gate {
	return &gate{Listener: l, balancers: s.Balancers, headerTimeout: cmp.Or(s.HeaderTimeout, 10*time.Second), refusals: refusals{refused: s.Refused}, by: make(map[source]int)}
}

// source is what connections are counted by: an address, the first of a /64 of IPv6;
// or a user of a Unix socket. The zero value stands for many callers and has no share:
// loopback, where one address is everybody, and balancers, until they name a caller.
type source struct {
	addr netip.Addr
	unix bool
	uid  uint32
}

// Accept closes what comes beyond MaxConnections or a source's share of them, and a
// Unix socket's peer that the kernel does not tell.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s := &socket{Conn: c, gate: g}
		switch c := c.(type) {
		case *net.UnixConn:
			if s.process, err = processOf(c); err == nil {
				s.source = source{unix: true, uid: s.process.UID}
			}
		case *net.TCPConn:
			g.look(s, c)
		}
		if err == nil && g.enter(s.source) {
			return s, nil
		}
		_ = c.Close()
	}
}

// look finds out who is at the other end of a TCP connection.
func (g *gate) look(s *socket, c *net.TCPConn) {
	switch from := addressOf(c.RemoteAddr()); {
	case contains(g.balancers, from):
		s.balancer = from
		s.Conn = proxyproto.NewConn(&begun{TCPConn: c}, proxyproto.WithPolicy(proxyproto.REQUIRE),
			proxyproto.ValidateHeader(checkBalancer), proxyproto.SetReadHeaderTimeout(g.headerTimeout))
	default:
		s.source = sourceOf(from)
	}
}

// sourceOf gives the source that an address belongs to.
func sourceOf(from netip.Addr) source {
	switch {
	case !from.IsValid(), from.IsLoopback():
		return source{}
	case from.Is6(): // whoever has one IPv6 address has a network of them
		if network, err := from.Prefix(64); err == nil {
			return source{addr: network.Addr()}
		}
	}
	return source{addr: from}
}

// enter takes a place for a connection, where there is one.
func (g *gate) enter(from source) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.open >= MaxConnections:
		return false
	case from == source{}:
	case g.by[from] >= MaxConnections/2:
		return false
	default:
		g.by[from]++
	}
	g.open++
	return true
}

// share counts a connection from a balancer for the caller that it names, once that
// is known, and waits for it; it reports false when that caller has its share
// already, or the connection was closed meanwhile.
func (s *socket) share() bool {
	if !s.balancer.IsValid() {
		return true
	}
	addr, via := s.address()
	if !via.IsValid() {
		return true // the balancer for itself
	}
	to, g := sourceOf(addr), s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case s.closed.Load():
		return false
	case to == source{}:
		return true
	case g.by[to] >= MaxConnections/2:
		return false
	}
	g.by[to]++
	s.source = to
	return true
}

// leave gives the place of a connection that was closed free.
func (g *gate) leave(s *socket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	from := s.source
	if n, ok := g.by[from]; ok && n > 1 {
		g.by[from] = n - 1
	} else {
		delete(g.by, from)
	}
}

// checkBalancer judges what a balancer says of a connection. LOCAL means that the
// balancer itself is the caller, as for its health checks; then its own address
// counts (haproxy.org/download/3.4/doc/proxy-protocol.txt, section 2.2).
func checkBalancer(h *proxyproto.Header) error {
	if h.Version != 2 {
		return unfitError(fmt.Sprintf("PROXY protocol version %d, want 2 (send-proxy-v2 in HAProxy)", h.Version))
	}
	if h.Command.IsLocal() {
		return nil
	}
	if _, _, ok := h.TCPAddrs(); !ok {
		return unfitError("its header of PROXY protocol names no TCP connection")
	}
	return nil
}

// socket is a connection with what is known of its other end.
type socket struct {
	net.Conn // what was accepted or, from a balancer, a *proxyproto.Conn over it
	gate     *gate
	source   source // guarded by the gate once it is in
	closed   atomic.Bool

	balancer netip.Addr  // invalid where there is none
	told     atomic.Bool // that the balancer's header is not fit
	process  *Process    // nil but on Unix sockets
	peer     atomic.Pointer[Peer]
}

// Read tells once of a balancer's connection that began with something else than a
// fit header. One without a byte is how balancers look whether we are there.
func (s *socket) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	behind, ok := s.Conn.(*proxyproto.Conn)
	if !ok || err == nil || behind.ProxyHeader() != nil {
		return n, err
	}
	if c, ok := behind.Raw().(*begun); ok && c.came.Load() && !errors.Is(err, net.ErrClosed) && s.told.CompareAndSwap(false, true) {
		s.gate.refusals.add(fmt.Errorf("closed a connection from %s: %w", s.balancer, unfit(err)))
	}
	return n, err
}

// begun is a connection that knows whether a byte has come.
type begun struct {
	*net.TCPConn
	came atomic.Bool
}

func (c *begun) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if n > 0 && !c.came.Load() {
		c.came.Store(true)
	}
	return n, err
}

// unfitError is checkBalancer's, in words for the operator.
type unfitError string

func (e unfitError) Error() string { return string(e) }

// unfit says what is wrong with a balancer's header.
func unfit(err error) error {
	var ours unfitError
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, proxyproto.ErrNoProxyProtocol):
		return errors.New("no header of PROXY protocol came first, as it has to from balancers (send-proxy-v2 in HAProxy)")
	}
	return fmt.Errorf("its header of PROXY protocol cannot be read: %w", err)
}

// Close gives the connection's place free, once.
func (s *socket) Close() error {
	if s.closed.CompareAndSwap(false, true) {
		s.gate.leave(s)
	}
	return s.Conn.Close()
}

// CloseWrite ends our side alone.
func (s *socket) CloseWrite() error {
	c := s.Conn
	if behind, ok := c.(*proxyproto.Conn); ok {
		c = behind.Raw()
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// address gives the caller's address, and the balancer's that named it. It waits
// for a balancer's header.
func (s *socket) address() (addr, via netip.Addr) {
	addr = addressOf(s.RemoteAddr())
	behind, ok := s.Conn.(*proxyproto.Conn)
	if !ok {
		return addr, via
	}
	switch h := behind.ProxyHeader(); {
	case h == nil: // it failed, and no request will come
		return netip.Addr{}, s.balancer
	case h.Command.IsLocal():
		return addr, via
	}
	return Named(addr, s.balancer), s.balancer
}

// Named gives the address that a balancer or proxy says a caller has, or an invalid
// one where it says nothing of use: an address that is none of a host; or loopback,
// which is another machine's unless the one who says it is on loopback too.
func Named(addr, by netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() && !by.IsLoopback() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}
	}
	return addr
}

func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// contains reports whether an address is in one of the prefixes.
func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
