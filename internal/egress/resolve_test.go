package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// looked is the outcome of a lookup: addresses, sorted.
func looked(t *testing.T, s Settings, host string) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all []string
	var err error
	for f := range newResolver(s).look(ctx, host) {
		for _, a := range f.addresses {
			all = append(all, a.String())
		}
		err = errors.Join(err, f.err)
	}
	slices.Sort(all)
	return all, err
}

func TestServersAreAskedForNames(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := netip.MustParseAddrPort(closed.LocalAddr().String())
	closed.Close()
	right := says(theirs)
	after := func(before func(w dns.ResponseWriter, q *dns.Msg)) func(dns.ResponseWriter, *dns.Msg) {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			before(w, q)
			right(w, q)
		}
	}
	hundred := make([]string, 100)
	for i := range hundred {
		hundred[i] = fmt.Sprintf("api.example. 1 IN A 192.0.2.%d", i)
	}
	const sixteen = "192.0.2.0 192.0.2.1 192.0.2.10 192.0.2.11 192.0.2.12 192.0.2.13 192.0.2.14 192.0.2.15 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8 192.0.2.9"
	for _, c := range []struct {
		name    string
		servers []func(dns.ResponseWriter, *dns.Msg) // nil: nobody is there
		want    string
		asked   []string // of each server, for IPv4; nil: not looked at
	}{
		{"an address of each family", []func(dns.ResponseWriter, *dns.Msg){says(theirs, theirv6)}, "192.0.2.1 2001:db8::1", []string{"udp api.example. A"}},
		{"addresses of IPv6 alone", []func(dns.ResponseWriter, *dns.Msg){says(theirv6)}, "2001:db8::1", nil},
		{"an address behind aliases, in any order", []func(dns.ResponseWriter, *dns.Msg){says("b.example. 1 IN A 192.0.2.7", "a.example. 1 IN CNAME b.example.", "api.example. 1 IN CNAME A.Example.")}, "192.0.2.7", nil},
		{"letters of another case", []func(dns.ResponseWriter, *dns.Msg){says("API.Example. 1 IN A 192.0.2.1")}, "192.0.2.1", nil},
		{"addresses of other names are none of its", []func(dns.ResponseWriter, *dns.Msg){says(theirs, "other.example. 1 IN A 203.0.113.9")}, "192.0.2.1", nil},
		{"aliases that lead to themselves", []func(dns.ResponseWriter, *dns.Msg){says("api.example. 1 IN CNAME a.example.", "a.example. 1 IN CNAME api.example.")}, "", nil},
		{"an answer that does not fit is asked for over TCP", []func(dns.ResponseWriter, *dns.Msg){func(w dns.ResponseWriter, q *dns.Msg) {
			m := answer(q, theirs)
			if w.RemoteAddr().Network() == "udp" {
				m.Truncated, m.Answer = true, nil
			}
			w.WriteMsg(m)
		}}, "192.0.2.1", []string{"udp api.example. A, tcp api.example. A"}},
		{"an answer that is cut within a record, too", []func(dns.ResponseWriter, *dns.Msg){func(w dns.ResponseWriter, q *dns.Msg) {
			m := answer(q, theirs)
			if w.RemoteAddr().Network() == "tcp" || len(m.Answer) == 0 {
				w.WriteMsg(m)
				return
			}
			m.Truncated = true
			b, _ := m.Pack()
			w.Write(b[:len(b)-3])
		}}, "192.0.2.1", nil},
		{"the next one when the first fails", []func(dns.ResponseWriter, *dns.Msg){fails(dns.RcodeServerFailure), right}, "192.0.2.1", []string{"udp api.example. A", "udp api.example. A"}},
		{"the next one when the first refuses", []func(dns.ResponseWriter, *dns.Msg){fails(dns.RcodeRefused), right}, "192.0.2.1", nil},
		{"the next one when the first is silent", []func(dns.ResponseWriter, *dns.Msg){mutely, right}, "192.0.2.1", nil},
		{"the next one when nobody is at the first", []func(dns.ResponseWriter, *dns.Msg){nil, right}, "192.0.2.1", nil},
		{"the next one when the first does not ask others", []func(dns.ResponseWriter, *dns.Msg){func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(new(dns.Msg).SetReply(q)) }, right}, "192.0.2.1", nil},
		{"the next one when the first has no whole answer", []func(dns.ResponseWriter, *dns.Msg){func(w dns.ResponseWriter, q *dns.Msg) {
			m := answer(q)
			m.Truncated = true
			w.WriteMsg(m)
		}, right}, "192.0.2.1", nil},
		{"the next one when the first hangs up on TCP", []func(dns.ResponseWriter, *dns.Msg){func(w dns.ResponseWriter, q *dns.Msg) {
			if w.RemoteAddr().Network() == "tcp" {
				w.Close()
				return
			}
			m := answer(q)
			m.Truncated = true
			w.WriteMsg(m)
		}, right}, "192.0.2.1", nil},
		{"a packet that is lost is sent again", []func(dns.ResponseWriter, *dns.Msg){forgetful()}, "192.0.2.1", []string{"udp api.example. A, udp api.example. A"}},
		{"no other when the name does not exist", []func(dns.ResponseWriter, *dns.Msg){fails(dns.RcodeNameError), right}, "", []string{"udp api.example. A", ""}},
		{"no other when the name has no address", []func(dns.ResponseWriter, *dns.Msg){says(), right}, "", []string{"udp api.example. A", ""}},
		{"garbage is passed over", []func(dns.ResponseWriter, *dns.Msg){after(func(w dns.ResponseWriter, q *dns.Msg) {
			w.Write([]byte("no DNS"))
			w.Write(make([]byte, 40))
		})}, "192.0.2.1", []string{"udp api.example. A"}},
		{"an answer by another id is passed over", []func(dns.ResponseWriter, *dns.Msg){after(func(w dns.ResponseWriter, q *dns.Msg) {
			m := answer(q, "api.example. 1 IN A 203.0.113.9")
			m.Id++
			w.WriteMsg(m)
		})}, "192.0.2.1", []string{"udp api.example. A"}},
		{"an answer to another question is passed over", []func(dns.ResponseWriter, *dns.Msg){after(func(w dns.ResponseWriter, q *dns.Msg) {
			m := answer(q, "api.example. 1 IN A 203.0.113.9")
			m.Question[0].Name = "evil.example."
			w.WriteMsg(m)
		})}, "192.0.2.1", []string{"udp api.example. A"}},
		{"a question in place of an answer is passed over", []func(dns.ResponseWriter, *dns.Msg){after(func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(q) })}, "192.0.2.1", []string{"udp api.example. A"}},
		{"a packet that is larger than was asked for", []func(dns.ResponseWriter, *dns.Msg){says(hundred[:50]...)}, sixteen, nil},
		{"sixteen of a hundred addresses", []func(dns.ResponseWriter, *dns.Msg){func(w dns.ResponseWriter, q *dns.Msg) {
			m := answer(q, hundred...)
			if w.RemoteAddr().Network() == "udp" {
				m.Truncate(udpSize)
			}
			w.WriteMsg(m)
		}}, sixteen, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var s Settings
			var all []*server
			for _, handle := range c.servers {
				if handle == nil {
					s.Servers = append(s.Servers, nobody)
					continue
				}
				all = append(all, serveDNS(t, handle))
				s.Servers = append(s.Servers, all[len(all)-1].at)
			}
			got, err := looked(t, s, "API.example")
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, %v; want %s", got, err, c.want)
			}
			for i, want := range c.asked {
				if asked := strings.Join(all[i].questions(), ", "); asked != want {
					t.Errorf("server %d was asked %q, want %q", i, asked, want)
				}
			}
		})
	}
}

func TestWhyANameHasNoAddressIsTold(t *testing.T) {
	noProxies(t)
	for _, c := range []struct {
		name, host string
		handle     func(dns.ResponseWriter, *dns.Msg)
		want       string
		notFound   bool
	}{
		{"it does not exist", "api.example", fails(dns.RcodeNameError), "no such host", true},
		{"it has none", "api.example", says(), "no such host", true},
		{"its server fails", "api.example", fails(dns.RcodeServerFailure), "SERVFAIL", false},
		{"its server has a code of its own", "api.example", fails(4001 & 0xf), "the server answered", false},
		{"it is no name", strings.Repeat("a", 64) + ".example", says(), "no such host", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := transport(t, Settings{Servers: []netip.AddrPort{serveDNS(t, c.handle).at}})
			_, _, err := get(t, tr, "https://"+c.host+"/")
			lookup, ok := errors.AsType[*net.DNSError](err)
			if !ok || lookup.IsNotFound != c.notFound || !strings.Contains(err.Error(), c.want) || lookup.Name != c.host {
				t.Errorf("got %v (%T)", err, err)
			}
		})
	}
}

// inHostsFile is a name that this machine's hosts file has, if it has any beside
// localhost.
func inHostsFile() string {
	data, _ := os.ReadFile("/etc/hosts")
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		for i, name := range strings.Fields(line) {
			if i > 0 && !ofLocalhost(lower(name)) {
				return strings.TrimSuffix(lower(name), ".")
			}
		}
	}
	return "machine.example"
}

// A server that is asked for a name of the hosts file shows that the file is not: its
// answer is one that no hosts file gives.
func TestTheHostsFileIsPassedOver(t *testing.T) {
	noProxies(t)
	web := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }, nil)
	_, port, _ := net.SplitHostPort(web.Listener.Addr().String())
	name := inHostsFile()
	asked := serveDNS(t, says(name+". 1 IN A 192.0.2.77", "example.com. 1 IN A 127.0.0.1"))
	s := Settings{Servers: []netip.AddrPort{asked.at}, CAFile: trust(t, web.Certificate().Raw)}
	if got, err := looked(t, s, name); err != nil || strings.Join(got, " ") != "192.0.2.77" {
		t.Errorf("%s is at %v, %v", name, got, err)
	}
	tr := transport(t, s)
	for _, rt := range []http.RoundTripper{tr, tr.Direct()} {
		if _, got, err := get(t, rt, "https://example.com:"+port+"/"); err != nil || got != "example.com:"+port {
			t.Errorf("got %q, %v", got, err)
		}
	}
	// An address is not looked up.
	if _, _, err := get(t, tr, web.URL); err != nil {
		t.Error(err)
	}
	if q := strings.Join(asked.questions(), ", "); q != "udp "+name+". A, udp example.com. A, udp example.com. A" {
		t.Errorf("it was asked %s", q)
	}
}

func TestPinnedNamesAreNotLookedUp(t *testing.T) {
	noProxies(t)
	web := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }, nil)
	_, port, _ := net.SplitHostPort(web.Listener.Addr().String())
	asked := serveDNS(t, fails(dns.RcodeNameError))
	s := Settings{
		Hosts:   map[string][]netip.Addr{"Example.com": {netip.MustParseAddr("127.0.0.1")}},
		Servers: []netip.AddrPort{asked.at}, CAFile: trust(t, web.Certificate().Raw),
	}
	if _, got, err := get(t, transport(t, s), "https://EXAMPLE.com:"+port+"/"); err != nil || !strings.EqualFold(got, "example.com:"+port) {
		t.Errorf("got %q, %v", got, err)
	}
	if len(asked.questions()) > 0 {
		t.Errorf("the server was asked %v", asked.questions())
	}
	// Without servers the others are the machine's business, such as localhost.
	s.Servers = nil
	if newResolver(s).look(t.Context(), "localhost") != nil {
		t.Error("a name that is not pinned is looked up without a server")
	}
}

// The proxy of the network is found the same way, and the names behind it are its own
// to look up.
func TestTheNameOfTheNetworksProxyIsLookedUpTheSameWay(t *testing.T) {
	noProxies(t)
	web := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "behind") }, nil)
	asked := serveDNS(t, says("proxy.corp. 1 IN A 127.0.0.1"))
	for scheme, serve := range map[string]func(*network, net.Conn){"http": serveCONNECT, "socks5h": serveSOCKS} {
		n := (&network{target: web.Listener.Addr().String()}).start(t, serve, nil)
		u := n.url(scheme)
		_, port, _ := net.SplitHostPort(n.address)
		u.Host = "proxy.corp:" + port
		tr := transport(t, Settings{Proxy: u, Servers: []netip.AddrPort{asked.at}, CAFile: trust(t, web.Certificate().Raw)})
		if _, got, err := get(t, tr, "https://example.com/"); err != nil || got != "behind" {
			t.Errorf("%s: %q, %v", scheme, got, err)
		}
	}
	if q := strings.Join(asked.questions(), ", "); q != "udp proxy.corp. A, udp proxy.corp. A" {
		t.Errorf("it was asked %s", q)
	}
}

func TestALookupEndsWithItsContext(t *testing.T) {
	noProxies(t)
	asked := make(chan struct{}, 8)
	s := serveDNS(t, func(dns.ResponseWriter, *dns.Msg) { asked <- struct{}{} })
	tr := transport(t, Settings{Servers: []netip.AddrPort{s.at}, ConnectTimeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		r, _ := http.NewRequestWithContext(ctx, "GET", "https://example.com/", nil)
		_, err := tr.RoundTrip(r)
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	// connect_timeout holds for it, as a time-out of the network's.
	tr = transport(t, Settings{Servers: []netip.AddrPort{s.at}, ConnectTimeout: 100 * time.Millisecond})
	_, _, err := get(t, tr, "https://example.com/")
	var timeout net.Error
	if _, lookup := errors.AsType[*net.DNSError](err); !lookup || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v (%T)", err, err)
	}
}

func FuzzAddresses(f *testing.F) {
	q := new(dns.Msg).SetQuestion("api.example.", dns.TypeA)
	for _, records := range [][]string{
		{theirs}, {"api.example. 1 IN CNAME b.example.", "b.example. 1 IN A 192.0.2.7"}, {"api.example. 1 IN CNAME api.example."}, {"other.example. 1 IN A 192.0.2.9"},
	} {
		b, err := answer(q, records...).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	// Whatever a server sends: addresses of the right kind, few of them, each from a
	// record of a name that the chain of aliases leads to.
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			got := addressesIn(m, "api.example.", kind)
			if len(got) > maxAddresses {
				t.Errorf("%d addresses", len(got))
			}
			for _, a := range got {
				if !slices.ContainsFunc(m.Answer, func(r dns.RR) bool {
					aliased := lower(r.Header().Name) == "api.example." || slices.ContainsFunc(m.Answer, func(c dns.RR) bool {
						alias, ok := c.(*dns.CNAME)
						return ok && lower(alias.Target) == lower(r.Header().Name)
					})
					switch r := r.(type) {
					case *dns.A:
						return aliased && kind == dns.TypeA && r.A.String() == a.String()
					case *dns.AAAA:
						return aliased && kind == dns.TypeAAAA && r.AAAA.Equal(net.IP(a.AsSlice()))
					}
					return false
				}) {
					t.Errorf("%v comes from nowhere in %v", a, m)
				}
			}
		}
	})
}
