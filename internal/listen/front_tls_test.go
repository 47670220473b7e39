package listen

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// selfSigned makes a certificate for the name h, and the configurations of both
// sides.
func selfSigned(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "h"}, DNSNames: []string{"h"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"http/1.1"}},
		&tls.Config{RootCAs: roots, ServerName: "h"}
}

// secured is net/http behind a front with TLS. What a request says of TLS stands
// at the end of its line; what net/http complains of is in the log.
func secured(t *testing.T, timeout time.Duration) (s *served, client *tls.Config, complaints func() string) {
	t.Helper()
	server, client := selfSigned(t)
	var mu sync.Mutex
	var text bytes.Buffer
	s = serve(t, newFront(loopback(t), server, 0, timeout), func(s *served) {
		s.ErrorLog = log.New(writer(func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			text.Write(b)
		}), "", 0)
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			told := "no TLS"
			if r.TLS != nil {
				told = fmt.Sprintf("%s for %s, complete: %v", r.TLS.NegotiatedProtocol, r.TLS.ServerName, r.TLS.HandshakeComplete)
			}
			if v := Violated(r); v != nil {
				w.WriteHeader(v.Status)
			}
			fmt.Fprintf(w, "%s %s, %s", r.Proto, line(r), told)
		})
	})
	return s, client, func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func dialTLS(t *testing.T, s *served, config *tls.Config) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", s.address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestHTTP1OverTLSIsReadAsStrictly(t *testing.T) {
	s, client, _ := secured(t, 0)
	for _, protocols := range [][]string{{"http/1.1"}, nil} {
		config := client.Clone()
		config.NextProtos = protocols
		c := dialTLS(t, s, config)
		in := bufio.NewReader(c)
		agreed := strings.Join(protocols, "")
		for range 2 {
			if got, want := get(t, c, in, "/a"), `HTTP/1.1 GET /a "h" "", `+agreed+" for h, complete: true"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			time.Sleep(2 * parkAfter) // it waits outside and comes back
		}
		_, _ = io.WriteString(c, "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\nX-A: b\r\n\r\n")
		if got, want := answerOf(t, in), `HTTP/1.2 refused 400 "GET" "/a": The request has more than one Host., `+agreed+" for h, complete: true"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if n, err := in.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after a refusal: %d bytes, %v, want the end", n, err)
		}
	}
}

func TestFramesOfHTTP2AreRefusedWhateverWasAgreedOn(t *testing.T) {
	s, client, _ := secured(t, 0)
	for _, protocols := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}} {
		config := client.Clone()
		config.NextProtos = protocols
		c := dialTLS(t, s, config)
		if agreed := c.ConnectionState().NegotiatedProtocol; agreed == "h2" {
			t.Errorf("offered %q: %s was agreed on", protocols, agreed)
		}
		_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		if got, want := readAll(t, c), `refused 505 "PRI" "*": The proxy speaks HTTP/1.1 and not HTTP/2.`; !strings.HasPrefix(got, "HTTP/1.1 505 ") || !strings.Contains(got, want) {
			t.Errorf("offered %q: got %q, want 505 and %s", protocols, got, want)
		}
	}
	client.NextProtos = []string{"h2"}
	if _, err := tls.Dial("tcp", s.address, client); err == nil {
		t.Error("a client that speaks HTTP/2 alone is let in")
	}
}

func TestPlainHTTPWhereTLSIsSpokenIsToldSo(t *testing.T) {
	s, _, _ := secured(t, 0)
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "DELETE /api/indicators/1 HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("a", 300_000),
	} {
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(converse(t, s.address, request))), nil)
		if err != nil {
			t.Fatal(err)
		}
		body := readAll(t, resp.Body)
		if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Proxy-Status") == "" || !strings.Contains(body, `"code":"InvalidRequest"`) ||
			!strings.Contains(body, "https://") || !strings.HasSuffix(body, "\n") || int64(len(body)) != resp.ContentLength {
			t.Errorf("%.30q: got %s %q", request, resp.Status, body)
		}
	}
	if seen := s.lines(); len(seen) != 0 {
		t.Errorf("net/http saw %q", seen)
	}
}

func TestWhatFailsAtTLSIsToldByNetHTTP(t *testing.T) {
	s, _, complaints := secured(t, 0)
	if got := converse(t, s.address, "\x00\x00\x00\x00\x00\x00"); got != "" {
		t.Errorf("no HTTP: got %q", got)
	}
	eventually(t, "net/http complains", func() bool { return strings.Contains(complaints(), "TLS handshake error") })
	// A client that does not know our authority.
	if _, err := tls.Dial("tcp", s.address, &tls.Config{ServerName: "h"}); err == nil {
		t.Error("a certificate that nobody knows is taken")
	}
	eventually(t, "net/http complains of the other", func() bool { return strings.Contains(complaints(), "bad certificate") })
}

func TestAHandshakeThatDoesNotComeToItsEndIsCutOff(t *testing.T) {
	s, client, complaints := secured(t, 150*time.Millisecond)
	for _, begin := range []string{"", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"} {
		c := dial(t, s.address)
		_, _ = io.WriteString(c, begin)
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after %q: %d bytes, %v, want the end", begin, n, err)
		}
	}
	eventually(t, "net/http complains", func() bool { return strings.Count(complaints(), "timeout") == 2 })
	// The time for a head begins when the handshake is done.
	c := dialTLS(t, s, client)
	_, _ = io.WriteString(c, "GET / HT")
	if got := readAll(t, c); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("got %q, want 408", got)
	}
}
