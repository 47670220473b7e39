package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial struct {
	sync.Mutex
	n int64
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign completes a template; the authority that has no certificate yet signs itself.
func (a *authority) sign(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial.Lock()
	serial.n++
	template.SerialNumber = big.NewInt(serial.n)
	serial.Unlock()
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) client(t *testing.T, template *x509.Certificate) *tls.Certificate {
	t.Helper()
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, key := a.sign(t, template)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// server gives a server's certificate and key for localhost as PEM.
func (a *authority) server(t *testing.T) (certPEM, keyPEM []byte) {
	t.Helper()
	cert, key := a.sign(t, &x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// put writes a file as programs do that let nobody see half of it.
func put(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// withTLS gives settings whose files are in a folder.
func withTLS(t *testing.T, server, clients *authority) Settings {
	t.Helper()
	folder := t.TempDir()
	s := Settings{Address: "127.0.0.1:0", CertFile: filepath.Join(folder, "server.pem"), KeyFile: filepath.Join(folder, "server.key")}
	cert, key := server.server(t)
	put(t, s.CertFile, cert)
	put(t, s.KeyFile, key)
	if clients != nil {
		s.ClientCAFile = filepath.Join(folder, "clients.pem")
		put(t, s.ClientCAFile, clients.pem())
	}
	return s
}

// askTLS asks once, over a connection of its own.
func askTLS(t *testing.T, address string, http2 bool, c *tls.Config) (told, error) {
	t.Helper()
	c.ServerName = "localhost"
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: http2}
	defer tr.CloseIdleConnections()
	return askThrough(t, tr, "https://"+address+"/")
}

func TestTheClientCertificateIsKnown(t *testing.T) {
	ours, theirs, evil := newAuthority(t, "ours"), newAuthority(t, "clients"), newAuthority(t, "clients")
	address := openFor(t, withTLS(t, ours, theirs))
	id, err := url.Parse("spiffe://corp.example/soc/export")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		cert     *tls.Certificate
		want     string
		rejected bool
	}{
		{name: "a common name", cert: theirs.client(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}}), want: "soc-1"},
		{name: "a DNS name goes first", cert: theirs.client(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}, DNSNames: []string{"soc.corp.example"}}), want: "soc.corp.example"},
		{name: "a URI goes before it", cert: theirs.client(t, &x509.Certificate{DNSNames: []string{"soc.corp.example"}, URIs: []*url.URL{id}}), want: id.String()},
		{name: "no certificate", want: ""},
		{name: "one of another authority with the same name", cert: evil.client(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}}), rejected: true},
		{name: "one that has expired", cert: theirs.client(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}), rejected: true},
	} {
		for _, http2 := range []bool{false, true} {
			name := c.name + " by HTTP/1.1"
			if http2 {
				name = c.name + " to a client that would rather speak HTTP/2"
			}
			t.Run(name, func(t *testing.T) {
				config := &tls.Config{RootCAs: ours.pool()}
				if c.cert != nil {
					// Sent whether or not the server asks for its authority.
					config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
				}
				got, err := askTLS(t, address, http2, config)
				if (err != nil) != c.rejected {
					t.Fatalf("got %+v and %v, want rejected %t", got, err, c.rejected)
				}
				if err == nil && (got.Certificate != c.want || !got.Addr.IsLoopback() || got.Proto != "HTTP/1.1") {
					t.Errorf("got %+v, want the certificate %q and HTTP/1.1", got, c.want)
				}
			})
		}
	}
	t.Run("one that is for servers", func(t *testing.T) {
		cert, key := theirs.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		got, err := askTLS(t, address, false, &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}})
		if err == nil {
			t.Errorf("got %+v, want it rejected", got)
		}
	})
	t.Run("old TLS", func(t *testing.T) {
		if got, err := askTLS(t, address, false, &tls.Config{RootCAs: ours.pool(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
			t.Errorf("got %+v, want it rejected", got)
		}
	})
}

func TestWithoutAuthoritiesACertificateIsNotAskedFor(t *testing.T) {
	ours := newAuthority(t, "ours")
	address := openFor(t, withTLS(t, ours, nil))
	cert := ours.client(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}})
	got, err := askTLS(t, address, false, &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{*cert}})
	if err != nil || got.Certificate != "" {
		t.Errorf("got %+v and %v, want no certificate", got, err)
	}
}

// clock is the time of certificates in a test.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// kept are certificates that are looked at when the test says so, and what they
// told.
func kept(t *testing.T, s Settings) (*certificates, *clock, *[]error) {
	t.Helper()
	var news []error
	s.Renewed = func(err error) { news = append(news, err) }
	c, err := newCertificates(s)
	if err != nil {
		t.Fatal(err)
	}
	k := &clock{t: c.looked}
	c.now = k.now
	return c, k, &news
}

func leaf(t *testing.T, c *tls.Config) string {
	t.Helper()
	cert, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert.SerialNumber.String()
}

func TestCertificatesAreReadAgain(t *testing.T) {
	ours := newAuthority(t, "ours")
	s := withTLS(t, ours, ours)
	c, time, news := kept(t, s)
	first := leaf(t, c.get())
	step := func(what string, changed bool, told int) {
		t.Helper()
		time.pass(lookEvery)
		if got := leaf(t, c.get()); (got != first) != changed {
			t.Fatalf("%s: changed is %t, want %t", what, got != first, changed)
		}
		if len(*news) != told {
			t.Fatalf("%s: told %v, want %d", what, *news, told)
		}
	}
	step("nothing has changed", false, 0)

	cert, key := ours.server(t)
	put(t, s.CertFile, cert)
	if got := leaf(t, c.get()); got != first {
		t.Fatal("the files were looked at again at once")
	}
	step("the certificate came before its key", false, 1)
	step("that is told once", false, 1)
	if err := (*news)[0]; err == nil || !strings.Contains(err.Error(), s.CertFile) {
		t.Fatalf("told %v, want an error with the file", err)
	}
	put(t, s.KeyFile, key)
	step("the key has come", true, 2)
	if (*news)[1] != nil {
		t.Fatalf("told %v, want success", (*news)[1])
	}
	step("nothing has changed since", true, 2)

	if err := os.Remove(s.ClientCAFile); err != nil {
		t.Fatal(err)
	}
	step("a file is missing", true, 3)
	put(t, s.ClientCAFile, []byte("no certificate"))
	step("a file is not what it should be", true, 4)
	put(t, s.ClientCAFile, ours.pem())
	step("the file is back", true, 5)
}

// A Kubernetes secret is a folder behind a link that is swapped.
func TestCertificatesBehindALinkAreReadAgain(t *testing.T) {
	ours := newAuthority(t, "ours")
	folder := t.TempDir()
	version := func(name string) {
		t.Helper()
		cert, key := ours.server(t)
		if err := os.Mkdir(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(folder, name, "tls.crt"), cert)
		put(t, filepath.Join(folder, name, "tls.key"), key)
		if err := os.Symlink(name, filepath.Join(folder, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(folder, "..data_tmp"), filepath.Join(folder, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..one")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	c, time, news := kept(t, Settings{CertFile: filepath.Join(folder, "tls.crt"), KeyFile: filepath.Join(folder, "tls.key")})
	first := leaf(t, c.get())
	version("..two")
	time.pass(lookEvery)
	if got := leaf(t, c.get()); got == first || len(*news) != 1 || (*news)[0] != nil {
		t.Errorf("got the certificate %s after %s and told %v, want another one and success", got, first, *news)
	}
}

func TestAnAuthorityThatWasTakenAwayEndsItsSessions(t *testing.T) {
	ours, before, after := newAuthority(t, "ours"), newAuthority(t, "before"), newAuthority(t, "after")
	s := withTLS(t, ours, before)
	address := openFor(t, s)
	cert := before.client(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		put(t, s.ClientCAFile, before.pem())
		config := &tls.Config{
			RootCAs: ours.pool(), MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil },
		}
		// The look at the files is at most a second away.
		until := time.Now().Add(20 * time.Second)
		for resumed := false; !resumed; {
			got, err := askTLS(t, address, false, config)
			if resumed = err == nil && got.Resumed && got.Certificate == "soc-1"; !resumed && time.Now().After(until) {
				t.Fatalf("TLS %x: got %+v and %v, want a session that goes on", version, got, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		put(t, s.ClientCAFile, after.pem())
		until = time.Now().Add(20 * time.Second)
		for {
			got, err := askTLS(t, address, false, config)
			if err != nil {
				break
			}
			if time.Now().After(until) {
				t.Fatalf("TLS %x: got %+v, want the certificate rejected", version, got)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func TestCertificatesThatCannotBeReadStopTheStart(t *testing.T) {
	ours := newAuthority(t, "ours")
	good := withTLS(t, ours, nil)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	put(t, empty, nil)
	for _, c := range []struct {
		name   string
		change func(*Settings)
		want   string
	}{
		{"no key", func(s *Settings) { s.KeyFile = "" }, "tls.key_file"},
		{"no authorities in the file", func(s *Settings) { s.ClientCAFile = empty }, "no certificate"},
		{"no file of authorities", func(s *Settings) { s.ClientCAFile = "missing.pem" }, "missing.pem"},
		{"authorities without TLS", func(s *Settings) { s.CertFile, s.KeyFile, s.ClientCAFile = "", "", empty }, "tls.client_ca_file needs"},
		{"the certificate in the place of the key", func(s *Settings) { s.KeyFile = s.CertFile }, "tls.key_file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good
			c.change(&s)
			l, err := Open(t.Context(), s)
			if err == nil {
				_ = l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "listen on 127.0.0.1:0: ") {
				t.Errorf("got %v, want an error with the address and %q", err, c.want)
			}
		})
	}
}
