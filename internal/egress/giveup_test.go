package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// stuck gives the answers, one to each thing that it is told, then takes note of
// having come so far and of the end of the connection.
func stuck(answers ...string) func(*network, net.Conn) {
	return func(n *network, c net.Conn) {
		for _, answer := range answers {
			c.Read(make([]byte, 4096))
			io.WriteString(c, answer)
		}
		n.note("waits")
		silent(n, c)
		n.note("closed")
	}
}

// await looks for what a network is to have noted.
func await(t *testing.T, n *network, what string) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !strings.Contains(n.notes(), what); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("noted %q, want %q", n.notes(), what)
		}
	}
}

func TestTheEndOfAContextEndsWhatHangs(t *testing.T) {
	noProxies(t)
	own := selfSigned(t)
	ca := trust(t, own.Certificate[0])
	const open, reply = "HTTP/1.1 200 OK\r\n\r\n", "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		name, scheme string
		cert         *tls.Certificate
		answers      []string
		proxy        bool // whether the proxy is to blame
	}{
		{"HTTP before its answer", "http", nil, nil, true},
		{"HTTP within its answer", "http", nil, []string{"HTTP/1.1 200 OK\r\nVia:"}, true},
		{"HTTP, the server's TLS", "http", nil, []string{open, ""}, false},
		{"HTTPS, its own TLS", "https", nil, nil, true},
		{"HTTPS before its answer", "https", &own, []string{""}, true},
		{"HTTPS, the server's TLS", "https", &own, []string{open, ""}, false},
		{"SOCKS5 before its method", "socks5", nil, nil, true},
		{"SOCKS5 within its method", "socks5", nil, []string{"\x05"}, true},
		{"SOCKS5 before the login's answer", "socks5", nil, []string{"\x05\x02"}, true},
		{"SOCKS5 before its reply", "socks5", nil, []string{"\x05\x02", "\x01\x00"}, true},
		{"SOCKS5 within its reply", "socks5", nil, []string{"\x05\x02", "\x01\x00", reply[:9]}, true},
		{"SOCKS5 within a name of its reply", "socks5", nil, []string{"\x05\x00", "\x05\x00\x00\x03\x09some"}, true},
		{"SOCKS5, the server's TLS", "socks5", nil, []string{"\x05\x00", reply, ""}, false},
	} {
		for _, bounded := range []bool{true, false} {
			n := (&network{user: "me", password: secret}).start(t, stuck(c.answers...), c.cert)
			s := Settings{Proxy: n.url(c.scheme), CAFile: ca, ConnectTimeout: time.Hour}
			d := transport(t, s).dialer
			if !bounded {
				d.timeout = 0
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := d.secure(ctx, "tcp", "example.com:443")
				ended <- err
			}()
			await(t, n, "waits")
			cancel()
			select {
			case err := <-ended:
				if _, blamed := errors.AsType[*ProxyError](err); !errors.Is(err, context.Canceled) || blamed != c.proxy {
					t.Errorf("%s: %v (%T)", c.name, err, err)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: it still hangs", c.name)
			}
			await(t, n, "closed")
		}
	}
}

// Whenever a context ends, there is either a connection, which it ends no more, or
// an error, and then no connection.
func TestAContextMayEndAtAnyMoment(t *testing.T) {
	noProxies(t)
	echo := new(network).start(t, func(_ *network, c net.Conn) { io.Copy(c, c) }, nil)
	own := selfSigned(t)
	ca := trust(t, own.Certificate[0])
	for _, c := range []struct {
		scheme string
		serve  func(*network, net.Conn)
		cert   *tls.Certificate
	}{{"http", serveCONNECT, nil}, {"https", serveCONNECT, &own}, {"socks5", serveSOCKS, nil}} {
		var open atomic.Int64
		n := (&network{target: echo.address, user: "me", password: secret}).start(t, func(n *network, conn net.Conn) {
			open.Add(1)
			defer open.Add(-1)
			c.serve(n, conn)
		}, c.cert)
		d := transport(t, Settings{Proxy: n.url(c.scheme), CAFile: ca}).dialer
		made, given := 0, 0
		took := time.Hour // the first is not disturbed
		for range 60 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
			timer := time.AfterFunc(rand.N(took+took/4)+took/4, cancel)
			begun := time.Now()
			conn, err := d.plain(ctx, "tcp", "example.com:80")
			if err == nil {
				took = min(took, time.Since(begun))
			}
			timer.Stop()
			cancel()
			if err != nil {
				given++
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", c.scheme, err)
				}
				continue
			}
			made++
			got := make([]byte, 4)
			io.WriteString(conn, "ping")
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
				t.Errorf("%s: a connection that was made gives %q, %v", c.scheme, got, err)
			}
			conn.Close()
		}
		t.Logf("%s: %d connections, %d given up", c.scheme, made, given)
		for limit := time.Now().Add(20 * time.Second); open.Load() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s: %d connections are still open", c.scheme, open.Load())
			}
		}
	}
}

func TestNoDeadlineStaysOnAConnectionThroughSOCKS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		go func() {
			for _, answer := range []string{"\x05\x00", "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", "late"} {
				far.Read(make([]byte, 100))
				io.WriteString(far, answer)
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := socks(ctx, near, nil, "example.com:443"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		got := make([]byte, 4)
		io.WriteString(near, "go on")
		if _, err := io.ReadFull(near, got); err != nil || string(got) != "late" {
			t.Errorf("%q, %v", got, err)
		}
	})
}
