package egress

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is the password of every proxy here.
const secret = "canary/pa:ss@word"

// upstream is a TLS server whose certificate is for 127.0.0.1 and example.com.
func upstream(t *testing.T, h http.HandlerFunc, change func(*httptest.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = quiet
	if change != nil {
		change(s)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// trust writes a file of certificates.
func trust(t *testing.T, certificates ...[]byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	var all []byte
	for _, der := range certificates {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// selfSigned is a certificate for 127.0.0.1 that nobody else has.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "the network's proxy"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// transport is what New makes, and closed when the test ends.
func transport(t *testing.T, s Settings) *Transport {
	t.Helper()
	if s.ConnectTimeout == 0 {
		s.ConnectTimeout = 10 * time.Second
	}
	tr, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// get reads a URL to its end.
func get(t *testing.T, rt http.RoundTripper, target string) (*http.Response, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", target, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// network is a proxy of the network: it leads wherever it is asked to one server,
// and tells what it was asked.
type network struct {
	address string
	target  string
	// status is what it answers to CONNECT; 0 lets through. challenge comes with it.
	status    int
	challenge []string
	// user and password are what it wants; none when empty.
	user, password string

	mu    sync.Mutex
	asked []string
	wg    sync.WaitGroup
}

// start has it serve until the test ends, over TLS if there is a certificate.
func (n *network) start(t *testing.T, serve func(*network, net.Conn), cert *tls.Certificate) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = l.Addr().String()
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"h2", "http/1.1"}})
	}
	var mu sync.Mutex
	var open []net.Conn
	n.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			n.wg.Go(func() {
				defer c.Close()
				serve(n, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		n.wg.Wait()
	})
	return n
}

func (n *network) note(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, what)
}

func (n *network) notes() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.asked, " ")
}

// url is the proxy's, with what it wants.
func (n *network) url(scheme string) *url.URL {
	u := &url.URL{Scheme: scheme, Host: n.address}
	if n.user != "" {
		u.User = url.UserPassword(n.user, n.password)
	}
	return u
}

// splice joins a connection with the target.
func (n *network) splice(c net.Conn, r io.Reader) {
	far, err := net.Dial("tcp", n.target)
	if err != nil {
		return
	}
	defer far.Close()
	n.wg.Go(func() {
		io.Copy(far, r)
		far.Close()
	})
	io.Copy(c, far)
}

// serveCONNECT is an HTTP proxy.
func serveCONNECT(n *network, c net.Conn) {
	in := bufio.NewReader(c)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	n.note(r.Method + " " + r.Host)
	status, challenge := n.status, n.challenge
	if n.user != "" {
		user, password, ok := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		if !ok || user != n.user || password != n.password {
			status, challenge = 407, []string{`Basic realm="the proxy"`}
		}
	}
	if status != 0 {
		resp := &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Proxy-Authenticate": challenge}, Body: http.NoBody}
		resp.Write(c)
		return
	}
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	n.splice(c, in)
}

// serveSOCKS is a SOCKS5 proxy.
func serveSOCKS(n *network, c net.Conn) {
	b := make([]byte, 600)
	next := func(length int) []byte {
		io.ReadFull(c, b[:length])
		return b[:length]
	}
	methods := string(next(int(next(2)[1])))
	switch {
	case n.user == "":
		c.Write([]byte{5, 0})
	case !strings.Contains(methods, "\x02"):
		c.Write([]byte{5, 0xff})
		return
	default:
		c.Write([]byte{5, 2})
		user := string(next(int(next(2)[1])))
		password := string(next(int(next(1)[0])))
		if user != n.user || password != n.password {
			c.Write([]byte{1, 1})
			return
		}
		c.Write([]byte{1, 0})
	}
	var host string
	switch next(4)[3] {
	case 1:
		host = net.IP(next(4)).String()
	case 3:
		host = string(next(int(next(1)[0])))
	case 4:
		host = net.IP(next(16)).String()
	}
	port := next(2)
	n.note(net.JoinHostPort(host, big.NewInt(int64(port[0])<<8|int64(port[1])).String()))
	if n.status != 0 {
		c.Write([]byte{5, byte(n.status), 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	c.Write(append([]byte{5, 0, 0, 3, 9}, "somewhere\x00\x50"...))
	n.splice(c, c)
}
