package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A machine without IPv6, or whose IPv6 leads nowhere, finds the address of the other
// family, whichever way the name is looked up.
func TestTheOtherFamilyOfAddressesIsTriedByOwnNamesToo(t *testing.T) {
	noProxies(t)
	for _, c := range []struct {
		name  string
		there func(t *testing.T, address string)
	}{
		{"when the first refuses", func(*testing.T, string) {}},
		{"when the first is silent", mute},
	} {
		t.Run(c.name, func(t *testing.T) {
			web := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }, nil)
			_, port, _ := net.SplitHostPort(web.Listener.Addr().String())
			c.there(t, net.JoinHostPort("::1", port))
			ca := trust(t, web.Certificate().Raw)
			asked := serveDNS(t, says("example.com. 1 IN AAAA ::1", "example.com. 1 IN A 127.0.0.1"))
			for way, s := range map[string]Settings{
				"by a server": {Servers: []netip.AddrPort{asked.at}},
				"pinned":      {Hosts: map[string][]netip.Addr{"example.com": {netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}}},
			} {
				s.CAFile, s.ConnectTimeout = ca, 20*time.Second
				begun := time.Now()
				_, got, err := get(t, transport(t, s), "https://example.com:"+port+"/")
				if err != nil || got != "hello" {
					t.Fatalf("%s: %q, %v", way, got, err)
				}
				if took := time.Since(begun); took > 8*time.Second {
					t.Errorf("%s: took %v", way, took)
				}
			}
		})
	}
}

func TestAQuestionWithoutAnAnswerHoldsNothingUp(t *testing.T) {
	d, _, port := racing(t)
	names := make(chan found, 1)
	names <- found{addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}} // and never one of IPv6
	c, err := d.race(t.Context(), "example.com", port, names)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// racing is a dialer that counts its connections, and an address where nobody is.
func racing(t *testing.T) (d *dialer, begun *atomic.Int32, port string) {
	t.Helper()
	begun = new(atomic.Int32)
	d = transport(t, Settings{Own: func() []netip.AddrPort {
		begun.Add(1)
		return nil
	}}).dialer
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return d, begun, port
}

// dead are addresses of this machine where nobody listens.
func dead(n int) (all []netip.Addr) {
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{127, 9, 9, byte(i)}))
	}
	return all
}

func TestAddressesThatComeLateAreTried(t *testing.T) {
	d, begun, port := racing(t)
	names := make(chan found)
	go func() {
		names <- found{addresses: dead(1)}
		for begun.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		names <- found{addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
		close(names)
	}()
	c, err := d.race(t.Context(), "example.com", port, names)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestTheAddressesThatAreTriedAreBounded(t *testing.T) {
	d, begun, port := racing(t)
	names := make(chan found, 1)
	names <- found{addresses: dead(100)}
	close(names)
	c, err := d.race(t.Context(), "example.com", port, names)
	if c != nil || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	if n := begun.Load(); n != maxAddresses {
		t.Errorf("%d addresses were tried", n)
	}
}

func TestARaceThatIsGivenUpEndsWithItsContext(t *testing.T) {
	d, _, port := racing(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	names := make(chan found)
	defer close(names)
	if _, err := d.race(ctx, "example.com", port, names); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFamiliesTakeTurns(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	r := racers{waiting: []netip.Addr{four, four, four, six, six}}
	var got []netip.Addr
	for r.more() {
		got = append(got, r.next())
	}
	want := []netip.Addr{six, four, six, four, four}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}
