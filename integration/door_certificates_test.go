package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issuer is an authority for client certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	c := i.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "clients"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	i.cert, i.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return i
}

// issue completes a template; before there is a certificate, it signs itself.
func (i *issuer) issue(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = template, key
	} else {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (i *issuer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
}

// The security team's workloads have certificates of their own authority: the
// responder is known by its SPIFFE ID, a script by the common name. Whoever comes
// without one is a reader of the office; whoever comes with one of another authority
// does not get in at all. The records name the certificate.
//
// Then the proxy's own certificate is renewed, and later the authority: both serve
// from the next connections on, with no restart and nothing lost.
func TestClientCertificatesTellWhoCalls(t *testing.T) {
	t.Parallel()
	theirs, others := newIssuer(t), newIssuer(t)
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		// Nobody reads half of it.
		if err := os.WriteFile(path+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const name = "defender.corp.example"
	cert, key := certificate(t, name)
	files := object{"cert_file": put("server.pem", cert), "key_file": put("server.key", key), "client_ca_file": put("clients.pem", theirs.pem())}
	w := newWorld(t, respond(func(c object) {
		inRegions(c, "eu")
		c["clients"] = []object{
			{"name": "responder", "from": []string{"tls:URI=spiffe://corp.example/soc/responder"}, "allow": []string{"read", "respond"}},
			{"name": "script", "from": []string{"tls:CN=soc-1", "tls:DNS=soc-2.corp.example"}, "allow": []string{"read", "hunt"}},
			{"name": "office", "from": []string{"127.0.0.1"}, "allow": []string{"read"}},
		}
		l := c["listeners"].([]object)[0]
		l["hosts"], l["tls"] = []string{name}, files
	}))

	// ask calls once, over a connection of its own, and gives the server's
	// certificate too.
	ask := func(t *testing.T, method, path, body string, http2 bool, client *tls.Certificate) (answer, *x509.Certificate, error) {
		t.Helper()
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true) // which is what both get
		protocols.SetHTTP2(http2)
		config := &tls.Config{ServerName: name, InsecureSkipVerify: true} // it changes; what it is is looked at
		if client != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }
		}
		transport := &http.Transport{Protocols: protocols, TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, "https://"+w.address()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Type", "application/json")
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return answer{}, nil, err
		}
		defer resp.Body.Close()
		a := answer{status: resp.StatusCode, proto: resp.Proto, header: resp.Header}
		a.body, a.err = io.ReadAll(resp.Body)
		return a, resp.TLS.PeerCertificates[0], nil
	}
	id, err := url.Parse("spiffe://corp.example/soc/responder")
	if err != nil {
		t.Fatal(err)
	}
	responder := theirs.issue(t, &x509.Certificate{URIs: []*url.URL{id}})
	script := theirs.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}})
	stranger := theirs.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-3"}})
	forged := others.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "soc-1"}, URIs: []*url.URL{id}})
	a, _, err := ask(t, http.MethodGet, "/api/machines?$top=2", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	machines := a.page(t).Value // one is isolated once
	for _, c := range []struct {
		name        string
		cert        *tls.Certificate
		status      int
		code        string
		client      string
		certificate string
	}{
		{"the responder", &responder, http.StatusCreated, "", "responder", id.String()},
		{"a script", &script, http.StatusForbidden, "NotGranted", "script", "soc-1"},
		{"a certificate of nobody's", &stranger, http.StatusForbidden, "NotGranted", "office", "soc-3"},
		{"no certificate", nil, http.StatusForbidden, "NotGranted", "office", ""},
		{"a certificate of another authority", &forged, 0, "", "", ""},
	} {
		for i, http2 := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				w := w.in(t)
				a, _, err := ask(t, http.MethodPost, "/api/machines/"+machines[i].ID+"/isolate", `{"Comment":"x","IsolationType":"Full"}`, http2, c.cert)
				if c.status == 0 {
					if err == nil {
						t.Errorf("got %v, want no connection", a)
					}
					return
				}
				expect(t, a, err, c.status, c.code, "")
				if got := w.whoAsked(a); got.Client != c.client || got.Certificate != c.certificate || got.Address != "127.0.0.1" {
					t.Errorf("the record says %v, want client %s and certificate %q", got, c.client, c.certificate)
				}
			})
		}
	}

	_, before, err := ask(t, http.MethodGet, "/-/whoami", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = certificate(t, name)
	put("server.pem", cert)
	put("server.key", key)
	w.eventually("the new certificate serves", func() error {
		switch _, now, err := ask(t, http.MethodGet, "/-/whoami", "", false, nil); {
		case err != nil:
			t.Fatalf("in between a connection failed: %v", err)
		case now.Equal(before):
			return errors.New("it is the old one")
		}
		return nil
	})
	put("clients.pem", others.pem())
	w.eventually("the new authority is asked", func() error {
		if _, _, err := ask(t, http.MethodGet, "/-/whoami", "", false, &script); err == nil {
			return errors.New("a certificate of the old one is taken")
		}
		a, _, err := ask(t, http.MethodGet, "/-/whoami", "", false, &forged)
		if expect(t, a, err, http.StatusOK, "", ""); err == nil && w.whoAsked(a).Client != "responder" {
			t.Fatalf("the record says %v, want client responder", w.whoAsked(a))
		}
		return nil
	})
}
