package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
)

// Peer is who is at the other end of a connection. The zero value is nobody.
type Peer struct {
	// Addr is the address that the connection comes from: the socket's, or what a
	// named balancer says by PROXY protocol. Invalid on a Unix socket, and where a
	// balancer names no host.
	Addr netip.Addr
	// Via is the balancer's address, where one named Addr.
	Via netip.Addr
	// Unix is the process behind a Unix socket; nil for others.
	Unix *Process
	// TLS is the state of the connection; nil without TLS.
	TLS *tls.ConnectionState

	named string
}

// Process is the peer of a Unix socket, as the kernel saw it when it connected
// (SO_PEERCRED and SO_PEERGROUPS, socket(7)). Whoever is unknown to the proxy's user
// namespace, as another container's users can be, has the numbers 65534; a process
// unknown to its PID namespace has PID 0 (user_namespaces(7), pid_namespaces(7)).
type Process struct {
	UID, GID uint32
	Groups   []uint32 // GID first, then the supplementary ones
	PID      int32
}

// Certificate gives the client certificate of the connection, verified up to one of
// the authorities; nil where there is none.
func (p *Peer) Certificate() *x509.Certificate {
	if p.TLS == nil || len(p.TLS.VerifiedChains) == 0 || len(p.TLS.PeerCertificates) == 0 {
		return nil
	}
	return p.TLS.PeerCertificates[0]
}

// CertificateName is how the client certificate is called: by its first URI, else
// its first DNS name, else its common name, else its serial number. Empty where there
// is none.
func (p *Peer) CertificateName() string {
	c := p.Certificate()
	switch {
	case p.named != "" || c == nil:
		return p.named
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	}
	return "serial " + c.SerialNumber.Text(16)
}

type peerKey struct{}

// ConnContext is for http.Server: it lets PeerOf and Violated find the connection.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, c)
}

// PeerOf tells who sent a request. For a connection that is not of Open's it goes
// by RemoteAddr and TLS. It is cheap but for a connection's first request.
func PeerOf(r *http.Request) Peer {
	c, _ := r.Context().Value(peerKey{}).(net.Conn)
	s := socketOf(c)
	if s == nil {
		p := Peer{TLS: r.TLS}
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			p.Addr = from.Addr().Unmap().WithZone("")
		}
		return p
	}
	if known := s.peer.Load(); known != nil {
		return *known
	}
	p := Peer{Unix: s.process, TLS: r.TLS}
	if s.process == nil {
		p.Addr, p.Via = s.address()
	}
	p.named = p.CertificateName()
	s.peer.Store(&p)
	return p
}

// socketOf finds what was accepted beneath a connection as net/http sees it; nil
// where there is none of a gate.
func socketOf(c net.Conn) *socket {
	for c != nil {
		if s, ok := c.(*socket); ok {
			return s
		}
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = over.NetConn()
	}
	return nil
}
