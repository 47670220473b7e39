package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"syscall"
	"time"
)

// deadPath is how long a path may be dead until its connections are given up:
// the other end answers neither keep-alives nor what was sent.
const deadPath = 15 * time.Second

// dialer makes the connections.
type dialer struct {
	// tcp looks names up and dials. It tries the addresses of both families (RFC
	// 8305) and reaches the second one in 300 ms when the first is silent.
	tcp net.Dialer
	// names has the names that are looked up otherwise; nil: none are.
	names   *resolver
	loops   *loops
	timeout time.Duration
	// way gives the proxy between here and an address; nil: there is none.
	way func(scheme, address string) *url.URL
	// tls is what holds for all handshakes. Its cache of sessions outlasts
	// generations.
	tls  *tls.Config
	alpn []string
}

func newDialer(s Settings, way func(string, string) *url.URL, c *tls.Config) *dialer {
	d := &dialer{timeout: s.ConnectTimeout, way: way, tls: c, names: newResolver(s), loops: &loops{own: s.Own, told: s.OnLoop}}
	d.tcp = net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadPath / 3, Interval: deadPath / 3, Count: 2},
		Control: func(_, address string, c syscall.RawConn) error {
			if err := d.loops.check(address); err != nil {
				return err
			}
			return c.Control(func(fd uintptr) { giveUpAfter(fd, deadPath) })
		},
	}
	return d
}

// plain connects for http://.
func (d *dialer) plain(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	return d.reach(ctx, "http", address)
}

// secure connects for https://, and is ready for requests when it returns.
func (d *dialer) secure(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	c, err := d.reach(ctx, "https", address)
	if err != nil {
		return nil, err
	}
	return d.handshake(ctx, c, address, d.alpn)
}

func (d *dialer) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d.timeout)
}

// reach connects to an address, through a proxy where there is one on the way.
func (d *dialer) reach(ctx context.Context, scheme, address string) (net.Conn, error) {
	if d.way != nil {
		if proxy := d.way(scheme, address); proxy != nil {
			return d.tunnel(ctx, proxy, address)
		}
	}
	return d.dial(ctx, address)
}

// dial connects to an address itself, unless it is one of our own.
func (d *dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a question that came too late is not waited for
	var c net.Conn
	if names := d.names.look(ctx, host); names != nil {
		c, err = d.race(ctx, host, port, names)
	} else {
		c, err = d.tcp.DialContext(ctx, "tcp", address)
	}
	if loop, ok := errors.AsType[*LoopError](err); ok {
		return nil, d.loops.tell(&LoopError{Host: host, Address: loop.Address})
	}
	return c, err
}

// handshake makes a connection secure, or closes it.
func (d *dialer) handshake(ctx context.Context, c net.Conn, address string, alpn []string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		c.Close()
		return nil, err
	}
	own := d.tls.Clone()
	own.ServerName, own.NextProtos = host, alpn
	secured := tls.Client(c, own)
	if err := secured.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, outOfTime("tls handshake", c, err)
	}
	return secured, nil
}

// outOfTime words the end of a context as what it is for a connection, a time-out
// of the network's, so that it is not taken for the end of a request.
func outOfTime(what string, c net.Conn, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &net.OpError{Op: what, Net: "tcp", Addr: c.RemoteAddr(), Err: os.ErrDeadlineExceeded}
	}
	return err
}
