// Package listen opens the addresses that callers and the operator connect to,
// and tells who is at the other end of a connection, and whether a request may have
// come to an address: by the name that its Host calls us, and by the page that its
// browser says it comes from.
//
// cmd opens listeners; proxy's guard and package admin check requests. Which client
// group a caller belongs to is package clients' business.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// MaxConnections is how many connections a listener holds open at once. One more
// is closed as soon as it is accepted, so that those there are stay served. One
// address, or one /64 of IPv6, holds at most half of them, also behind a balancer that
// names it, and so does one user of a Unix socket; loopback, which stands for many
// callers, as many as there are.
const MaxConnections = 16_384

// Settings say what to open.
type Settings struct {
	// Address is host:port, where port 0 takes a free one; unix:PATH, a Unix socket
	// that is made, with an absolute path; or systemd:NAME, a socket that systemd
	// opened and passes under this FileDescriptorName.
	Address string
	// CertFile and KeyFile are PEM files; both empty means plain HTTP. They are read
	// again when they have changed.
	CertFile, KeyFile string
	// ClientCAFile is a PEM file with the authorities of client certificates, read
	// again too; empty: none is asked for. Callers may come without a certificate, but
	// not with one that is not valid.
	ClientCAFile string
	// Renewed, if there is one, is called from a connection's goroutine when the files
	// of TLS have changed: with nil when what is in them now serves, else with the
	// reason why what was there before serves on.
	Renewed func(error)
	// Refused, if there is one, is called from a connection's goroutine when a
	// connection was closed before it had a request: because its header of PROXY
	// protocol is missing or not fit, or its client certificate is not valid. It is
	// called once a second at most; more is how many were closed for such a reason since
	// the last call.
	Refused func(err error, more int)
	// Socket is for an Address unix:PATH.
	Socket Socket
	// Balancers are the addresses whose connections begin with a header of PROXY
	// protocol version 2. Without one, or with another, they are closed. Not for Unix
	// sockets.
	Balancers []netip.Prefix
	// HeaderBytes bounds a request's line and headers; 0 means 32 KiB.
	HeaderBytes int
	// HeaderTimeout bounds the time for a TLS handshake, for a balancer's header and
	// for a request's; 0 means 10 s.
	HeaderTimeout time.Duration
}

// Socket says what file a Unix socket is. The zero value is the mode 0660, and
// owner and group of the process.
type Socket struct {
	Mode         fs.FileMode // 0 means 0660
	Owner, Group string      // names or numbers
}

// InUseError means that another program has the address.
type InUseError struct {
	Address string
	Err     error
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("listen on %s: another program has this address", e.Address)
}

func (e *InUseError) Unwrap() error { return e.Err }

// Open binds the address. Its errors name it; one of them is *InUseError. The
// http.Server that takes the connections needs ConnContext and ConnState.
func Open(ctx context.Context, s Settings) (net.Listener, error) {
	certs, err := newCertificates(s)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", s.Address, err)
	}
	l, err := bind(ctx, s)
	var used *InUseError
	switch {
	case errors.As(err, &used):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", s.Address, err)
	}
	return newFront(newGate(l, s), certs.config(), s.HeaderBytes, s.HeaderTimeout), nil
}

// The beginnings of addresses that are not host:port.
const (
	unixScheme    = "unix:"
	systemdScheme = "systemd:"
)

func bind(ctx context.Context, s Settings) (net.Listener, error) {
	if path, ok := strings.CutPrefix(s.Address, unixScheme); ok {
		return openUnix(ctx, path, s.Socket)
	}
	if name, ok := strings.CutPrefix(s.Address, systemdScheme); ok {
		return inherited(name)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &InUseError{s.Address, err}
	}
	return l, err
}
