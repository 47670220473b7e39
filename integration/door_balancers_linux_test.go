package integration

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"
)

// fromAddress dials from an address of loopback, and puts something in front of what
// is written first.
func (w *world) fromAddress(address, first string) approach {
	return func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		c, err := d.DialContext(ctx, "tcp", w.address())
		if err != nil {
			return nil, err
		}
		return &begun{Conn: c, first: first}, nil
	}
}

// begun writes first in front of what is written to it, at once: a refusal that
// comes before there was a request would be none to net/http's client.
type begun struct {
	net.Conn
	first string
}

func (b *begun) Write(p []byte) (int, error) {
	if b.first == "" {
		return b.Conn.Write(p)
	}
	n, err := b.Conn.Write(append([]byte(b.first), p...))
	n = max(0, n-len(b.first))
	b.first = ""
	return n, err
}

// proxied is a header of PROXY protocol version 2, written by hand: a signature, the
// version with the command, the family, a length, and two addresses with their ports
// (haproxy.org/download/3.4/doc/proxy-protocol.txt, section 2.2).
func proxied(command byte, from, to string) string {
	var b bytes.Buffer
	b.WriteString("\r\n\r\n\x00\r\nQUIT\n")
	b.WriteByte(0x20 | command)
	if from == "" {
		b.WriteString("\x00\x00\x00")
		return b.String()
	}
	b.WriteString("\x11\x00\x0c") // TCP over IPv4, 12 bytes
	for _, a := range []string{from, to} {
		four := netip.MustParseAddr(a).As4()
		b.Write(four[:])
	}
	b.WriteString("\x9c\x40\x01\xbb") // 40000 and 443
	return b.String()
}

// A load balancer stands in front of the proxy, which it passes connections to as
// they are, with a header that names the caller. The groups are those of the
// callers, and the records name both. The balancer's own health checks are the
// balancer's. Another machine that sends such a header is not believed, and a
// balancer that sends none, or an old one, is not served: nobody would know for whom.
func TestABalancerIsBelievedAndNobodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) {
		inRegions(c, "eu")
		c["clients"] = []object{
			{"name": "office", "from": []string{"203.0.113.0/24"}, "allow": []string{"read", "hunt"}},
			{"name": "checks", "from": []string{"127.0.0.2"}, "allow": []string{}},
			{"name": "local", "from": []string{"127.0.0.1"}, "allow": []string{"read"}},
		}
		c["listeners"].([]object)[0]["balancers"] = []string{"127.0.0.2", "127.0.0.4/32"}
	}})
	for _, c := range []struct {
		name, from, first string
		status            int // 0: the connection ends without an answer
		code              string
		want              who
	}{
		{"a caller of the office", "127.0.0.2", proxied(1, "203.0.113.9", "192.0.2.1"), 200, "", who{Client: "office", Address: "203.0.113.9", Via: "127.0.0.2"}},
		{"a caller of the office through the other balancer", "127.0.0.4", proxied(1, "203.0.113.9", "192.0.2.1"), 200, "", who{Client: "office", Address: "203.0.113.9", Via: "127.0.0.4"}},
		{"a caller from elsewhere", "127.0.0.2", proxied(1, "198.51.100.1", "192.0.2.1"), 403, "ClientNotAdmitted", who{Address: "198.51.100.1", Via: "127.0.0.2"}},
		{"a caller without an address", "127.0.0.2", proxied(1, "0.0.0.0", "192.0.2.1"), 403, "ClientNotAdmitted", who{Via: "127.0.0.2"}},
		{"the balancer itself", "127.0.0.2", proxied(0, "", ""), 403, "NotGranted", who{Client: "checks", Address: "127.0.0.2"}},
		{"the balancer itself, with addresses", "127.0.0.2", proxied(0, "203.0.113.9", "192.0.2.1"), 403, "NotGranted", who{Client: "checks", Address: "127.0.0.2"}},
		{"a balancer without a header", "127.0.0.2", "", 0, "", who{}},
		{"a balancer with an old header", "127.0.0.2", "PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\r\n", 0, "", who{}},
		{"a caller of this machine", "127.0.0.1", "", 200, "", who{Client: "local", Address: "127.0.0.1"}},
		{"a caller that says it is a balancer", "127.0.0.1", proxied(1, "203.0.113.9", "192.0.2.1"), 400, "InvalidRequest", who{Client: "local", Address: "127.0.0.1"}},
		{"a caller that says it is an old balancer", "127.0.0.1", "PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\r\n", 400, "InvalidRequest", who{Client: "local", Address: "127.0.0.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			host := "localhost"
			if c.want.Via != "" {
				host = "192.0.2.1" // what the caller came to
			}
			a, err := w.through(w.fromAddress(c.from, c.first), http.MethodGet, "/api/alerts?$top=1", "", "Host", host)
			if c.status == 0 {
				if err == nil {
					t.Errorf("got %v, want no answer", a)
				}
				return
			}
			expect(t, a, err, c.status, c.code, "")
			if err == nil {
				if got := w.whoAsked(a); got != c.want {
					t.Errorf("the record says %v, want %v", got, c.want)
				}
			}
		})
	}
}
