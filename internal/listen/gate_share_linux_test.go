package listen

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

func TestOneCallerBehindABalancerHasAShareOfItsOwn(t *testing.T) {
	l := loopback(t)
	g := newGate(l, Settings{Balancers: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	s := serve(t, newFront(g, nil, 0, 0), nil)
	of := func(address string) source { return sourceOf(netip.MustParseAddr(address)) }
	count := func(from source) int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.by[from]
	}
	from := func(address string) net.Conn {
		c := dial(t, s.address)
		h := proxyproto.HeaderProxyFromAddrs(2, tcp(netip.AddrPortFrom(netip.MustParseAddr(address), 5000).String()), tcp("192.0.2.1:443"))
		if strings.Contains(address, ":") {
			h = proxyproto.HeaderProxyFromAddrs(2, tcp(netip.AddrPortFrom(netip.MustParseAddr(address), 5000).String()), tcp("[2001:db8::1]:443"))
		}
		_, _ = io.WriteString(c, header(t, *h))
		return c
	}
	// It counts before it has said anything.
	one := from("203.0.113.9")
	eventually(t, "the caller that the balancer names is counted", func() bool { return count(of("203.0.113.9")) == 1 })
	first, second := from("2001:db8:9::1"), from("2001:db8:9::2")
	eventually(t, "those of a network are counted together", func() bool { return count(of("2001:db8:9::3")) == 2 })
	_, _ = first.Close(), second.Close()
	_ = one.Close()
	eventually(t, "they are counted no more", func() bool { return count(of("203.0.113.9")) == 0 && count(of("2001:db8:9::3")) == 0 })

	g.mu.Lock()
	g.by[of("203.0.113.9")] = MaxConnections / 2
	g.mu.Unlock()
	if n, err := from("203.0.113.9").Read(make([]byte, 1)); n != 0 || err == nil || isTimeout(err) {
		t.Errorf("beyond its share it reads %d bytes, %v, want the end of the connection", n, err)
	}
	for _, address := range []string{"203.0.113.10", "127.0.0.1"} {
		c := from(address)
		get(t, c, bufio.NewReader(c), "/")
		_ = c.Close()
	}
	g.mu.Lock()
	delete(g.by, of("203.0.113.9"))
	g.mu.Unlock()
	eventually(t, "every place is free", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.open == 0 && len(g.by) == 0
	})
}
