package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
)

// What is closed before it had a request has no record; the log tells of it.
func TestABalancersHeaderThatIsNotFitIsTold(t *testing.T) {
	v4 := proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4, SourceAddr: tcp("203.0.113.9:50000"), DestinationAddr: tcp("192.0.2.1:443")}
	udp := proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.UDPv4, SourceAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.9:50000")), DestinationAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:443"))}
	for _, secure := range []bool{false, true} {
		for _, c := range []struct{ name, sent, want string }{
			{"no header", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "closed a connection from 127.0.0.2: no header of PROXY protocol came first, as it has to from balancers (send-proxy-v2 in HAProxy)"},
			{"version 1", "PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n", "closed a connection from 127.0.0.2: PROXY protocol version 1, want 2 (send-proxy-v2 in HAProxy)"},
			{"UDP", header(t, udp), "closed a connection from 127.0.0.2: its header of PROXY protocol names no TCP connection"},
			{"a header of a later version", header(t, v4)[:12] + "\x31" + header(t, v4)[13:], "closed a connection from 127.0.0.2: its header of PROXY protocol cannot be read: "},
			{"a look whether we are there", "", ""},
			{"a header and nothing behind it", header(t, v4), ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				told := make(chan error, 1)
				s := Settings{Address: "127.0.0.1:0"}
				if secure {
					s = withTLS(t, newAuthority(t, "server"), nil)
				}
				s.Balancers = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
				s.Refused = func(err error, more int) {
					if more != 0 {
						err = errors.Join(err, errors.New("and more"))
					}
					told <- err
				}
				conn, err := (&net.Dialer{LocalAddr: tcp("127.0.0.2:0")}).Dial("tcp", openFor(t, s))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := conn.Write([]byte(c.sent)); err != nil {
					t.Fatal(err)
				}
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
				for err == nil { // until it is closed
					_, err = conn.Read(make([]byte, 512))
				}
				got := ""
				if c.want != "" {
					got = (<-told).Error()
				} else if len(told) > 0 {
					got = (<-told).Error()
				}
				if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
					t.Errorf("\ngot  %s\nwant %s", got, c.want)
				}
			})
		}
	}
}

func TestAClientCertificateThatIsNotValidIsTold(t *testing.T) {
	server, ours, theirs := newAuthority(t, "server"), newAuthority(t, "ours"), newAuthority(t, "theirs")
	told := make(chan error, 1)
	s := withTLS(t, server, ours)
	s.Refused = func(err error, _ int) { told <- err }
	address := openFor(t, s)
	config := &tls.Config{RootCAs: server.pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return theirs.client(t, &x509.Certificate{}), nil
	}}
	if got, err := askTLS(t, address, false, config); err == nil {
		t.Fatalf("got %+v", got)
	}
	if got, want := (<-told).Error(), "closed a connection from 127.0.0.1: its client certificate is not valid: x509: "; !strings.HasPrefix(got, want) {
		t.Errorf("\ngot  %s\nwant %s", got, want)
	}
}

func TestRefusalsAreToldOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []int
		r := refusals{refused: func(_ error, more int) { told = append(told, more) }}
		for range 25 {
			r.add(context.Canceled)
			time.Sleep(100 * time.Millisecond)
		}
		if len(told) != 3 || told[0] != 0 || told[1] != 9 || told[2] != 9 {
			t.Errorf("told with %v more, want 0, 9 and 9", told)
		}
		new(refusals).add(context.Canceled) // nobody wants to know
	})
}
