package egress

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

func TestACertificateOfOnesOwnIsTrusted(t *testing.T) {
	server := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(302)
	}, nil)
	for _, c := range []struct {
		name, file string
		ok         bool
	}{{"with ca_file", trust(t, server.Certificate().Raw), true}, {"without", "", false}} {
		resp, _, err := get(t, transport(t, Settings{CAFile: c.file}), server.URL)
		if (err == nil) != c.ok {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err == nil && resp.StatusCode != 302 {
			t.Errorf("%s: status %d, want the redirect itself", c.name, resp.StatusCode)
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

func TestHTTP2IsSpokenWhereItIsWantedAndOffered(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }
	offers := upstream(t, h, func(s *httptest.Server) { s.EnableHTTP2 = true })
	not := upstream(t, h, nil)
	ca := trust(t, offers.Certificate().Raw)
	through := (&network{target: offers.Listener.Addr().String()}).start(t, serveCONNECT, nil)
	for _, c := range []struct {
		name, target string
		s            Settings
		want         string
	}{
		{"both want it", offers.URL, Settings{HTTP2: true}, "HTTP/2.0"},
		{"we do not", offers.URL, Settings{}, "HTTP/1.1"},
		{"the server does not", not.URL, Settings{HTTP2: true}, "HTTP/1.1"},
		{"both want it, through a proxy", "https://example.com/", Settings{HTTP2: true, Proxy: through.url("http")}, "HTTP/2.0"},
		{"we do not, through a proxy", "https://example.com/", Settings{Proxy: through.url("http")}, "HTTP/1.1"},
	} {
		c.s.CAFile = ca
		_, got, err := get(t, transport(t, c.s), c.target)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %s", c.name, got, err, c.want)
		}
	}
}

func TestTLSSessionsAreResumed(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server := upstream(t, func(w http.ResponseWriter, r *http.Request) {
			if r.TLS.DidResume {
				io.WriteString(w, "resumed")
			}
		}, func(s *httptest.Server) { s.TLS = &tls.Config{MaxVersion: version} })
		tr := transport(t, Settings{CAFile: trust(t, server.Certificate().Raw)})
		for i, c := range []struct {
			name, want string
			before     func()
		}{
			{"the first connection", "", func() {}},
			{"the second", "resumed", tr.CloseIdleConnections},
			{"one of the next generation", "resumed", func() { tr.renew(tr.generation()) }},
		} {
			c.before()
			if _, got, err := get(t, tr, server.URL); err != nil || got != c.want {
				t.Errorf("%s, %s (%d): %q, %v; want %q", tls.VersionName(version), c.name, i, got, err, c.want)
			}
		}
	}
}

func TestOldVersionsOfTLSAreRefused(t *testing.T) {
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		server := upstream(t, func(http.ResponseWriter, *http.Request) {}, func(s *httptest.Server) {
			s.TLS = &tls.Config{MinVersion: version, MaxVersion: version}
		})
		_, _, err := get(t, transport(t, Settings{CAFile: trust(t, server.Certificate().Raw)}), server.URL)
		if (err == nil) != ok {
			t.Errorf("a server that speaks %s alone gives %v", tls.VersionName(version), err)
		}
	}
}

// A caller that does not read holds as much as the stream's buffer and what the
// sockets take, not the whole answer.
func TestASlowReaderHoldsLittleOverHTTP2(t *testing.T) {
	var sent atomic.Int64
	stuck := make(chan struct{})
	server := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 64<<10)
		for range 256 { // 16 MiB
			if _, err := w.Write(block); err != nil {
				break
			}
			http.NewResponseController(w).Flush()
			sent.Add(int64(len(block)))
		}
		close(stuck)
	}, func(s *httptest.Server) { s.EnableHTTP2 = true })
	tr := transport(t, Settings{HTTP2: true, CAFile: trust(t, server.Certificate().Raw)})
	r, _ := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	for last := int64(-1); last != sent.Load(); time.Sleep(500 * time.Millisecond) {
		last = sent.Load()
	}
	if got := sent.Load(); got > 2*streamBuffer {
		t.Errorf("the server could send %d bytes that nobody read, want about %d", got, streamBuffer)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 16<<20 {
		t.Errorf("the rest came as %d bytes, %v", n, err)
	}
	resp.Body.Close()
	<-stuck
}
