package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names has a dialer look names up at a server of the test's own.
func names(t *testing.T, d *dialer, known map[string][]string) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			for _, text := range known[q.Name.String()] {
				h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
				switch ip := net.ParseIP(text); {
				case q.Type == dnsmessage.TypeA && ip.To4() != nil:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: [4]byte(ip.To4())}})
				case q.Type == dnsmessage.TypeAAAA && ip.To4() == nil:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: [16]byte(ip)}})
				}
			}
			packed, err := m.Pack()
			if err != nil {
				continue
			}
			server.WriteTo(packed, from)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	d.tcp.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

func TestTheOtherFamilyOfAddressesIsTried(t *testing.T) {
	noProxies(t)
	for _, c := range []struct {
		name  string
		there func(t *testing.T, address string)
	}{
		{"when the first refuses", func(*testing.T, string) {}},
		{"when the first is silent", mute},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }, nil)
			_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
			c.there(t, net.JoinHostPort("::1", port))
			// One after the other, the second address would be tried after ten seconds.
			tr := transport(t, Settings{CAFile: trust(t, server.Certificate().Raw), ConnectTimeout: 20 * time.Second})
			names(t, tr.dialer, map[string][]string{"example.com.": {"::1", "127.0.0.1"}})
			begun := time.Now()
			_, got, err := get(t, tr, "https://example.com:"+port+"/")
			if err != nil || got != "hello" {
				t.Fatalf("%q, %v", got, err)
			}
			if took := time.Since(begun); took > 8*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A server that takes the connection and says nothing must not take longer than
// one that is not there.
func TestConnectTimeoutHoldsForTLSToo(t *testing.T) {
	noProxies(t)
	n := new(network).start(t, silent, nil)
	tr := transport(t, Settings{ConnectTimeout: 100 * time.Millisecond})
	_, _, err := get(t, tr, "https://"+n.address+"/")
	var network net.Error
	if !errors.As(err, &network) || !network.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v (%T), want a time-out of the network's that is not the request's own", err, err)
	}
	if _, proxy := errors.AsType[*ProxyError](err); proxy || !strings.Contains(err.Error(), "tls handshake") {
		t.Errorf("got %v", err)
	}
}

func TestARequestThatIsGivenUpEndsWithItsContext(t *testing.T) {
	noProxies(t)
	n := new(network).start(t, silent, nil)
	tr := transport(t, Settings{Proxy: n.url("socks5"), ConnectTimeout: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", "https://example.com/", nil)
	if _, err := tr.RoundTrip(r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNamesOfServersAreChecked(t *testing.T) {
	noProxies(t)
	server := upstream(t, func(http.ResponseWriter, *http.Request) {}, func(s *httptest.Server) {})
	tr := transport(t, Settings{CAFile: trust(t, server.Certificate().Raw)})
	names(t, tr.dialer, map[string][]string{"other.test.": {"127.0.0.1"}, "example.com.": {"127.0.0.1"}})
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for host, ok := range map[string]bool{"example.com": true, "127.0.0.1": true, "other.test": false} {
		if _, _, err := get(t, tr, "https://"+host+":"+port+"/"); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
}
