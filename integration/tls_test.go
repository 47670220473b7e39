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
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate makes a certificate for loopback and for one name, and its key,
// both as PEM.
func certificate(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// The operator gives the listener a certificate and a name. New clients offer HTTP/2
// first and get HTTP/1.1 as old ones do; links lead back to the name they used, over
// TLS. Who speaks plain HTTP to it by mistake is told so.
func TestATLSListenerServesNewClientsAndOldOnes(t *testing.T) {
	t.Parallel()
	const name = "defender.corp.example"
	cert, key := certificate(t, name)
	dir := t.TempDir()
	for file, data := range map[string][]byte{"server.pem": cert, "server.key": key} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, setup{config: func(c object) {
		l := c["listeners"].([]object)[0]
		l["hosts"] = []string{name}
		l["tls"] = object{"cert_file": filepath.Join(dir, "server.pem"), "key_file": filepath.Join(dir, "server.key")}
	}})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	for _, tc := range []struct {
		name  string
		http2 bool // is offered
	}{{"a client of today", true}, {"a client of yesterday", false}} {
		t.Run(tc.name, func(t *testing.T) {
			protocols := new(http.Protocols)
			protocols.SetHTTP1(true)
			protocols.SetHTTP2(tc.http2)
			transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}
			defer transport.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			ask := func(method, path, host string) *http.Response {
				r, err := http.NewRequestWithContext(ctx, method, "https://"+w.address()+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				if host != "" {
					r.Host = host
				}
				resp, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				return resp
			}
			resp := ask(http.MethodGet, "/api/alerts?$top=1", name)
			body := read(t, resp)
			if resp.StatusCode != http.StatusOK || resp.Proto != "HTTP/1.1" || !strings.Contains(body, `"@odata.context":"https://`+name+`/api/`) {
				t.Errorf("%s %d %.300s", resp.Proto, resp.StatusCode, body)
			}
			resp = ask(http.MethodPost, "/api/machines/1/isolate", "")
			if body := read(t, resp); resp.StatusCode != http.StatusForbidden || !strings.Contains(body, `"code":"NotGranted"`) || resp.Header.Get("X-Request-Id") == "" {
				t.Errorf("a refusal: %d %s", resp.StatusCode, body)
			}
			resp = ask(http.MethodGet, "/api/alerts", "rebound.example")
			if body := read(t, resp); resp.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("another name: %d %s", resp.StatusCode, body)
			}
			resp = ask(http.MethodGet, "/api/alerts/%2e%2e/machines", "")
			if body := read(t, resp); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "InvalidPath") {
				t.Errorf("an ambiguous path: %d %s", resp.StatusCode, body)
			}
		})
	}
	if got := raw(t, w.address(), "GET /api/alerts HTTP/1.1\r\nHost: "+w.address()+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, `"code":"InvalidRequest"`) || !strings.Contains(got, "https://") {
		t.Errorf("plain HTTP to the TLS port: %q", got)
	}
}

// curl --http2 sends an Upgrade with its first request and goes on without one.
// The proxy does not switch, and Microsoft's side sees nothing of it.
func TestAnOfferToUpgradeIsDeclinedAndNotPassedOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.sim.ResetRequests()
	for _, offer := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
	} {
		// The second request on the connection is judged like the first.
		got := raw(t, w.address(), "GET /api/alerts?$top=1 HTTP/1.1\r\nHost: "+w.address()+"\r\n"+offer+"\r\n"+
			"DELETE /api/indicators/1 HTTP/1.1\r\nHost: "+w.address()+"\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "NotGranted") || strings.Contains(got, "101 ") {
			t.Errorf("got %.600s", got)
		}
	}
	arrived := w.upstream()
	if len(arrived) != 2 {
		t.Errorf("%d requests arrived", len(arrived))
	}
	for _, r := range arrived {
		for _, name := range []string{"Upgrade", "Connection", "Http2-Settings", "Sec-Websocket-Key"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("the header %s arrived: %s", name, v)
			}
		}
	}
}
