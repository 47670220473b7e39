// Package listen opens the addresses that callers and the operator connect to,
// and tells whether a request may have come to one: by the name that its Host
// calls us, and by the page that its browser says it comes from.
//
// cmd opens listeners; proxy's guard and package admin check requests.
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// MaxConnections is how many connections a listener holds open at once. One more
// is closed as soon as it is accepted, so that those there are stay served. An
// idle one costs about 30 kB.
const MaxConnections = 10_000

// Settings say what to open.
type Settings struct {
	// Address is host:port; port 0 takes a free one.
	Address string
	// CertFile and KeyFile are PEM files; both empty means plain HTTP.
	CertFile, KeyFile string
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

// Open binds the address. Its errors name it; one of them is *InUseError.
func Open(ctx context.Context, s Settings) (net.Listener, error) {
	var config *tls.Config
	if s.CertFile != "" || s.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: load tls.cert_file %s and tls.key_file %s: %w", s.Address, s.CertFile, s.KeyFile, err)
		}
		config = &tls.Config{
			Certificates: []tls.Certificate{cert},
			MinVersion:   tls.VersionTLS12,
			NextProtos:   []string{"h2", "http/1.1"},
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.Address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &InUseError{s.Address, err}
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", s.Address, err)
	}
	l = &bounded{Listener: l}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, nil
}

// bounded closes what comes beyond MaxConnections.
type bounded struct {
	net.Listener
	open atomic.Int64
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.open.Add(1) <= MaxConnections {
			return &counted{Conn: c, gone: sync.OnceFunc(func() { b.open.Add(-1) })}, nil
		}
		b.open.Add(-1)
		_ = c.Close()
	}
}

type counted struct {
	net.Conn
	gone func()
}

func (c *counted) Close() error {
	c.gone()
	return c.Conn.Close()
}
