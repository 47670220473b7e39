package egress

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// knock is a listener that counts who comes.
func knock(t *testing.T, address string) (at netip.AddrPort, came *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	came = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return netip.MustParseAddrPort(l.Addr().String()), came
}

func TestOwnAddressesAreNotCalled(t *testing.T) {
	noProxies(t)
	for _, c := range []struct{ name, listener, host string }{
		{"an address", "127.0.0.1:0", "127.0.0.1"},
		{"the machine's name for it", "127.0.0.1:0", "localhost"},
		{"a pinned name", "127.0.0.1:0", "login.example"},
		{"loopback, where every address is listened at", "0.0.0.0:0", "127.0.0.1"},
		{"another address of loopback, likewise", "0.0.0.0:0", "127.0.0.9"},
		{"the unspecified address", "127.0.0.1:0", "0.0.0.0"},
		{"every address of both families", ":0", "127.0.0.1"},
		{"an address of IPv4 in IPv6", "127.0.0.1:0", "[::ffff:127.0.0.1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, came := knock(t, c.listener)
			var told []*LoopError
			tr := transport(t, Settings{
				Own:    func() []netip.AddrPort { return []netip.AddrPort{at} },
				OnLoop: func(e *LoopError) { told = append(told, e) },
				Hosts:  map[string][]netip.Addr{"login.example": {netip.MustParseAddr("127.0.0.1")}},
			})
			for _, rt := range []http.RoundTripper{tr, tr.Direct()} {
				for _, scheme := range []string{"https", "http"} {
					_, _, err := get(t, rt, fmt.Sprintf("%s://%s:%d/", scheme, c.host, at.Port()))
					loop, ok := errors.AsType[*LoopError](err)
					if !ok || loop.Host != strings.Trim(c.host, "[]") || loop.Address.Port() != at.Port() {
						t.Errorf("%s: got %v (%T)", scheme, err, err)
					}
					for _, want := range []string{loop.Host, loop.Address.String(), "egress.resolve"} {
						if !strings.Contains(loop.Error(), want) {
							t.Errorf("%q does not say %s", loop, want)
						}
					}
				}
			}
			if came.Load() != 0 {
				t.Errorf("%d connections were made", came.Load())
			}
			if len(told) != 1 {
				t.Errorf("it was told of %d times", len(told))
			}
		})
	}
}

func TestAddressesOfThisMachineAreOwnWhereAllAreListenedAt(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		ip, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		ip = ip.Unmap()
		for own, want := range map[string]bool{"::": true, "0.0.0.0": ip.Is4(), "192.0.2.1": false, ip.String(): true} {
			if got := reaches(ip, netip.MustParseAddr(own)); got != want {
				t.Errorf("%v ends at a listener on %s: %v", ip, own, got)
			}
		}
	}
	for _, own := range []string{"::", "0.0.0.0", "127.0.0.1"} {
		if reaches(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr(own)) {
			t.Errorf("an address that this machine does not have ends at a listener on %s", own)
		}
	}
}

func TestWhatIsNotOwnIsCalled(t *testing.T) {
	noProxies(t)
	server := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }, nil)
	at, came := knock(t, "127.0.0.1:0")
	there := netip.MustParseAddrPort(server.Listener.Addr().String())
	own := []netip.AddrPort{at}
	s := Settings{
		CAFile: trust(t, server.Certificate().Raw), Own: func() []netip.AddrPort { return own },
		Hosts: map[string][]netip.Addr{"example.com": {netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}},
	}
	if _, got, err := get(t, transport(t, s), server.URL); err != nil || got != "hello" {
		t.Errorf("another port: %q, %v", got, err)
	}
	// Of a name's addresses one is ours; the others are tried.
	own = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), there.Port())}
	if _, got, err := get(t, transport(t, s), fmt.Sprintf("https://example.com:%d/", there.Port())); err != nil || got != "hello" {
		t.Errorf("a name that is ours in part: %q, %v", got, err)
	}
	// All of them are, and that is what is told rather than what else went wrong.
	own = []netip.AddrPort{at}
	_, _, err := get(t, transport(t, s), fmt.Sprintf("https://example.com:%d/", at.Port()))
	if _, ok := errors.AsType[*LoopError](err); !ok || came.Load() != 0 {
		t.Errorf("got %v, and %d connections", err, came.Load())
	}
}

func TestTheNetworksProxyIsNotThisOne(t *testing.T) {
	noProxies(t)
	at, came := knock(t, "127.0.0.1:0")
	n := &network{address: at.String()}
	tr := transport(t, Settings{Proxy: n.url("http"), Own: func() []netip.AddrPort { return []netip.AddrPort{at} }})
	_, _, err := get(t, tr, "https://example.com/")
	_, proxy := errors.AsType[*ProxyError](err)
	if loop, ok := errors.AsType[*LoopError](err); !ok || !proxy || loop.Address != at || came.Load() != 0 {
		t.Errorf("got %v, and %d connections", err, came.Load())
	}
}

// An answer that a defender-proxy gave is not taken for Microsoft's, and whoever gives
// it is not asked again for a while.
func TestAnswersOfAProxyLikeThisAreNotTaken(t *testing.T) {
	noProxies(t)
	var mu sync.Mutex
	status := `defender-proxy; error=http_request_denied; details="UnknownOperation"`
	came := 0
	server := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		came++
		if status != "" {
			w.Header().Add("Proxy-Status", status)
		}
		io.WriteString(w, r.Proto)
	}, func(s *httptest.Server) { s.EnableHTTP2 = true })
	for _, c := range []struct {
		name   string
		direct bool
		http2  bool
		body   bool
	}{{"over HTTP/1.1", false, false, false}, {"over HTTP/2", false, true, false}, {"past the proxy of the network", true, false, false}, {"with a body", false, false, true}} {
		t.Run(c.name, func(t *testing.T) {
			came = 0
			told := 0
			tr := transport(t, Settings{HTTP2: c.http2, CAFile: trust(t, server.Certificate().Raw), OnLoop: func(*LoopError) { told++ }})
			rt := http.RoundTripper(tr)
			if c.direct {
				rt = tr.Direct()
			}
			for range 20 {
				var body io.Reader
				closed := &closing{Reader: strings.NewReader("secret")}
				if c.body {
					body = closed
				}
				r, _ := http.NewRequestWithContext(t.Context(), "POST", server.URL, body)
				_, err := rt.RoundTrip(r)
				loop, ok := errors.AsType[*LoopError](err)
				if !ok || loop.Address.IsValid() || !strings.Contains(server.URL, loop.Host) || !strings.Contains(loop.Error(), "egress.resolve") {
					t.Fatalf("got %v (%T)", err, err)
				}
				if c.body && !closed.done.Load() {
					t.Error("the body was not closed")
				}
			}
			if came != 1 || told != 1 {
				t.Errorf("%d requests were sent, and it was told of %d times", came, told)
			}
		})
	}
}

type closing struct {
	io.Reader
	done atomic.Bool
}

func (c *closing) Close() error {
	c.done.Store(true)
	return nil
}

func TestAHostThatLedBackIsTriedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		l := &loops{told: func(*LoopError) { told++ }}
		ours, theirs := http.Header{"Proxy-Status": {"defender-proxy; next-hop=eu"}}, http.Header{}
		const host = "api.example"
		if l.enter(host) != nil || l.answered(host, theirs) != nil {
			t.Fatal("it is refused before it led back")
		}
		if _, ok := errors.AsType[*LoopError](l.answered(host, ours)); !ok {
			t.Fatal("the answer is taken")
		}
		sent := 0
		for range 40 { // 2 minutes, in which several requests come at once
			time.Sleep(3 * time.Second)
			for range 10 {
				if l.enter(host) == nil {
					sent++
				}
			}
			if l.enter("other.example") != nil {
				t.Error("another host is refused")
			}
		}
		if sent != 20 { // the others find that it is being tried
			t.Errorf("%d requests were sent", sent)
		}
		for range 12 {
			l.answered(host, ours)
			time.Sleep(10 * time.Second)
		}
		if told != 3 {
			t.Errorf("it was told of %d times in four minutes", told)
		}
		if l.enter(host) != nil || l.answered(host, theirs) != nil {
			t.Error("it is not tried")
		}
		for range 2 {
			if l.enter(host) != nil || l.known.Load() != 0 {
				t.Error("it is refused although it does not lead back any more")
			}
		}
	})
}

func TestHostsThatLedBackAreForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &loops{told: func(*LoopError) {}}
		for i := range 3 * maxLoops {
			l.answered(fmt.Sprintf("%d.example", i), http.Header{"Proxy-Status": {"defender-proxy"}})
		}
		if len(l.next) != maxLoops || len(l.since) != maxLoops {
			t.Errorf("%d and %d hosts are remembered", len(l.next), len(l.since))
		}
		time.Sleep(2 * loopTold)
		l.answered("new.example", http.Header{"Proxy-Status": {"defender-proxy"}})
		if len(l.next) != 1 || len(l.since) != 1 {
			t.Errorf("%d and %d hosts are remembered", len(l.next), len(l.since))
		}
	})
}

func TestWhoseAnswersAreOurs(t *testing.T) {
	for value, want := range map[string]bool{
		"defender-proxy": true,
		`defender-proxy; error=http_request_denied; details="NotGranted"`: true,
		"defender-proxy; next-hop=eu":                                     true,
		"  defender-proxy ;next-hop=eu":                                   true,
		`"defender-proxy"; next-hop=eu`:                                   true,
		`cdn; details="a, b", defender-proxy; next-hop=eu, other`:         true,
		"":                                     false,
		"other":                                false,
		"defender-proxy-2":                     false,
		"other; details=defender-proxy":        false,
		`other; details="x, defender-proxy"`:   false,
		`other; details="\", defender-proxy;"`: false,
		"Defender-Proxy":                       false,
	} {
		if got := ours(http.Header{"Proxy-Status": {value}}); got != want {
			t.Errorf("%s: %v", value, got)
		}
		if got := ours(http.Header{"Proxy-Status": {"first", value}}); got != want {
			t.Errorf("%s in the second line: %v", value, got)
		}
	}
}

func FuzzMembers(f *testing.F) {
	f.Add(`cdn; details="a, b", defender-proxy; next-hop=eu`)
	f.Add(`"\`)
	// The members and the commas between them are the line.
	f.Fuzz(func(t *testing.T, line string) {
		var all []string
		for m := range members(line) {
			all = append(all, m)
		}
		if strings.Join(all, ",") != line {
			t.Errorf("%q becomes %q", line, all)
		}
	})
}
