package listen

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

func tcp(address string) *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
}

// header is one of PROXY protocol.
func header(t *testing.T, h proxyproto.Header) string {
	t.Helper()
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestABalancerNamesTheCaller(t *testing.T) {
	address := openFor(t, Settings{Address: "127.0.0.1:0", Balancers: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, HeaderTimeout: 300 * time.Millisecond})
	v4 := proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4, SourceAddr: tcp("203.0.113.9:50000"), DestinationAddr: tcp("192.0.2.1:443")}
	with := func(change func(*proxyproto.Header)) string {
		h := v4
		change(&h)
		return header(t, h)
	}
	balancer := netip.MustParseAddr("127.0.0.2")
	for _, c := range []struct {
		name, from, header string
		want               told // of Addr, Via and Local
		closed             bool // without an answer
	}{
		{name: "a caller of IPv4", header: header(t, v4), want: told{Addr: netip.MustParseAddr("203.0.113.9"), Via: balancer, Local: "192.0.2.1:443"}},
		{name: "a caller of IPv6", header: with(func(h *proxyproto.Header) {
			h.TransportProtocol, h.SourceAddr, h.DestinationAddr = proxyproto.TCPv6, tcp("[2001:db8::9]:50000"), tcp("[2001:db8::1]:443")
		}), want: told{Addr: netip.MustParseAddr("2001:db8::9"), Via: balancer, Local: "[2001:db8::1]:443"}},
		{name: "IPv4 written as IPv6", header: with(func(h *proxyproto.Header) {
			h.TransportProtocol, h.SourceAddr, h.DestinationAddr = proxyproto.TCPv6, tcp("[::ffff:203.0.113.9]:50000"), tcp("[2001:db8::1]:443")
		}), want: told{Addr: netip.MustParseAddr("203.0.113.9"), Via: balancer, Local: "[2001:db8::1]:443"}},
		{name: "more than addresses", header: with(func(h *proxyproto.Header) {
			if err := h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("evil.example")}}); err != nil {
				t.Fatal(err)
			}
		}), want: told{Addr: netip.MustParseAddr("203.0.113.9"), Via: balancer, Local: "192.0.2.1:443"}},
		{name: "the balancer for itself", header: with(func(h *proxyproto.Header) { h.Command, h.TransportProtocol = proxyproto.LOCAL, proxyproto.UNSPEC }),
			want: told{Addr: balancer, Local: address}},
		{name: "addresses of a balancer for itself do not count", header: with(func(h *proxyproto.Header) { h.Command = proxyproto.LOCAL }),
			want: told{Addr: balancer, Local: address}},
		{name: "an address that is none of a host", header: with(func(h *proxyproto.Header) { h.SourceAddr = tcp("0.0.0.0:1") }), want: told{Via: balancer, Local: "192.0.2.1:443"}},
		{name: "loopback by a balancer on loopback", header: with(func(h *proxyproto.Header) { h.SourceAddr = tcp("127.0.0.1:1") }), want: told{Addr: netip.MustParseAddr("127.0.0.1"), Via: balancer, Local: "192.0.2.1:443"}},

		{name: "no header", closed: true},
		{name: "version 1", header: "PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n", closed: true},
		{name: "UDP", header: with(func(h *proxyproto.Header) {
			h.TransportProtocol, h.SourceAddr, h.DestinationAddr = proxyproto.UDPv4, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.9:50000")), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:443"))
		}), closed: true},
		{name: "a Unix socket of the balancer's", header: with(func(h *proxyproto.Header) {
			h.TransportProtocol, h.SourceAddr, h.DestinationAddr = proxyproto.UnixStream, &net.UnixAddr{Net: "unix", Name: "/a"}, &net.UnixAddr{Net: "unix", Name: "/b"}
		}), closed: true},
		{name: "a header that breaks off", header: header(t, v4)[:20], closed: true},
		{name: "a header of a later version", header: header(t, v4)[:12] + "\x31" + header(t, v4)[13:], closed: true},
		{name: "a header without an end", header: header(t, v4)[:14] + "\xff\xff", closed: true},

		{name: "another address is a caller itself", from: "127.0.0.3:0", want: told{Addr: netip.MustParseAddr("127.0.0.3"), Local: address}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.from == "" {
				c.from = "127.0.0.2:0"
			}
			got, err := ask(t, func(ctx context.Context) (net.Conn, error) {
				d := net.Dialer{LocalAddr: tcp(c.from)}
				conn, err := d.DialContext(ctx, "tcp", address)
				if err == nil {
					_, err = conn.Write([]byte(c.header))
				}
				return conn, err
			})
			if c.closed {
				if err == nil {
					t.Errorf("got an answer to %+v, want the connection closed", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Addr != c.want.Addr || got.Via != c.want.Via || got.Local != c.want.Local {
				t.Errorf("got %s via %s at %s, want %s via %s at %s", got.Addr, got.Via, got.Local, c.want.Addr, c.want.Via, c.want.Local)
			}
		})
	}
	t.Run("a header of another address is no request", func(t *testing.T) {
		got, err := ask(t, func(ctx context.Context) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err == nil {
				_, err = conn.Write([]byte(header(t, v4)))
			}
			return conn, err
		})
		if err == nil {
			t.Errorf("got %+v, want a refusal", got)
		}
	})
	t.Run("a balancer that sends nothing is closed in time", func(t *testing.T) {
		conn, err := (&net.Dialer{LocalAddr: tcp("127.0.0.2:0")}).Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("read %d bytes and %v, want the end of the connection", n, err)
		}
	})
}

func TestWhatABalancerNamesIsAHost(t *testing.T) {
	for _, c := range []struct{ name, addr, by, want string }{
		{"an address", "203.0.113.9", "10.0.0.1", "203.0.113.9"},
		{"IPv4 written as IPv6", "::ffff:203.0.113.9", "10.0.0.1", "203.0.113.9"},
		{"a zone is another machine's", "fe80::1%eth0", "10.0.0.1", "fe80::1"},
		{"loopback is another machine's", "127.0.0.1", "10.0.0.1", "invalid IP"},
		{"IPv6 loopback is another machine's", "::1", "2001:db8::1", "invalid IP"},
		{"loopback written as IPv6 is another machine's", "::ffff:127.0.0.1", "10.0.0.1", "invalid IP"},
		{"loopback on this machine", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"all addresses", "0.0.0.0", "10.0.0.1", "invalid IP"},
		{"all addresses of IPv6", "::", "10.0.0.1", "invalid IP"},
		{"many hosts", "224.0.0.1", "10.0.0.1", "invalid IP"},
		{"all hosts", "255.255.255.255", "10.0.0.1", "invalid IP"},
	} {
		if got := Named(netip.MustParseAddr(c.addr), netip.MustParseAddr(c.by)).String(); got != c.want {
			t.Errorf("%s: %s by %s is %s, want %s", c.name, c.addr, c.by, got, c.want)
		}
	}
	if got := Named(netip.Addr{}, netip.MustParseAddr("10.0.0.1")); got.IsValid() {
		t.Errorf("no address is %s", got)
	}
}
