package main

import (
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
	"slices"
	"strings"
	"testing"
	"time"
)

// selfSigned makes a certificate that vouches for itself, for loopback and a name,
// and gives it with its key as PEM too.
func selfSigned(t *testing.T, name string) (pair tls.Certificate, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	if pair, err = tls.X509KeyPair([]byte(cert), []byte(key)); err != nil {
		t.Fatal(err)
	}
	return pair, cert, key
}

// Callers are told apart by their certificates, and a new certificate of the
// listener is served without a restart.
func TestCertificatesTellCallersApartAndAreReadAnew(t *testing.T) {
	_, serverCert, serverKey := selfSigned(t, "server")
	_, nextCert, nextKey := selfSigned(t, "server, renewed")
	export, exportCert, _ := selfSigned(t, "export")
	stranger, _, _ := selfSigned(t, "export") // of another authority
	l := newLab(t, func(l *lab) {
		l.write("server.pem", serverCert)
		l.write("server.key", serverKey)
		l.write("clients.pem", exportCert)
		l.config["listeners"] = []object{{"address": "127.0.0.1:0", "tls": object{"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "clients.pem"}}}
		l.config["clients"] = []object{
			{"name": "export", "from": []string{"tls:CN=export"}, "allow": []string{"read"}},
			{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{"alerts.*"}},
		}
	})
	url := strings.Replace(l.url, "http:", "https:", 1) + "/api/machines"
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(serverCert + nextCert))
	shown := func(certificates ...tls.Certificate) (status int, server string, err error) {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates}}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.TLS.PeerCertificates[0].Subject.CommonName, nil
	}
	if status, _, err := shown(export); status != http.StatusOK {
		t.Errorf("with a certificate: %d %v", status, err)
	}
	if status, _, err := shown(); status != http.StatusForbidden {
		t.Errorf("without one: %d %v", status, err)
	}
	// A client that is asked for certificates of certain authorities shows no other
	// by itself, so that this one insists.
	insists := tls.Certificate{Certificate: slices.Concat(stranger.Certificate), PrivateKey: stranger.PrivateKey}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &insists, nil }}}
	t.Cleanup(transport.CloseIdleConnections)
	if resp, err := (&http.Client{Transport: transport}).Get(url); err == nil {
		resp.Body.Close()
		t.Errorf("with a certificate of another authority: %d", resp.StatusCode)
	}

	l.write("server.key", nextKey)
	l.write("server.pem", nextCert)
	l.eventually("the new certificate is served", func() bool {
		_, server, err := shown()
		return err == nil && server == "server, renewed"
	})
	if done := l.reload(); len(done.NeedsRestart) > 0 {
		t.Errorf("needs a restart: %q", done.NeedsRestart)
	}
}
