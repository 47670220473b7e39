package egress

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestACertificateOfOnesOwnIsTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(302)
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, file string
		ok         bool
	}{{"with ca_file", ca, true}, {"without", "", false}} {
		transport, err := New(Settings{CAFile: c.file, ConnectTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer transport.CloseIdleConnections()
		r, _ := http.NewRequest("GET", server.URL, nil)
		resp, err := transport.RoundTrip(r)
		if (err == nil) != c.ok {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != 302 {
				t.Errorf("%s: status %d, want the redirect itself", c.name, resp.StatusCode)
			}
		}
	}
}

func TestCAFileFaultsNameTheFile(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, filepath.Join(t.TempDir(), "missing.pem")} {
		if _, err := New(Settings{CAFile: file}); err == nil || !strings.Contains(err.Error(), filepath.Base(file)) {
			t.Errorf("%s gives %v", file, err)
		}
	}
}

func TestTheProxyIsForEverythingBeyondThisMachine(t *testing.T) {
	proxy := &url.URL{Scheme: "http", Host: "proxy.corp.example:3128"}
	transport, err := New(Settings{Proxy: proxy})
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]*url.URL{
		"https://api.security.microsoft.com/api": proxy, "https://login.microsoftonline.com/x": proxy, "https://10.0.0.1/": proxy,
		"https://127.0.0.1:8443/": nil, "https://[::1]/": nil, "http://localhost:1/": nil, "https://[::ffff:127.0.0.1]/": nil,
		"http://169.254.169.254/metadata/identity/oauth2/token": nil, "http://[fe80::1]/": nil, "http://169.255.0.1/": proxy,
	} {
		r, _ := http.NewRequest("GET", target, nil)
		if got, err := transport.Proxy(r); err != nil || got != want {
			t.Errorf("%s goes through %v, %v; want %v", target, got, err, want)
		}
	}
}

func TestAProxyGetsCONNECT(t *testing.T) {
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		w.WriteHeader(403)
	}))
	defer server.Close()
	u, _ := url.Parse(server.URL)
	transport, err := New(Settings{Proxy: u, ConnectTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest("GET", "https://api.security.microsoft.com/api/alerts", nil)
	if resp, err := transport.RoundTrip(r); err == nil {
		resp.Body.Close()
		t.Error("a proxy that refuses gives an answer")
	}
	if got := <-asked; got != "CONNECT api.security.microsoft.com:443" {
		t.Errorf("the proxy was asked %q", got)
	}
}
