package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"defender-proxy/internal/clients"
)

func TestWhoMayUseTheAdminListener(t *testing.T) {
	const text = "0123456789abcdef-key"
	key, err := clients.NewKey("X-Api-Key", text)
	if err != nil {
		t.Fatal(err)
	}
	from := func(entry string) []clients.Source {
		s, err := clients.ParseSource(entry)
		if err != nil {
			t.Fatal(err)
		}
		return []clients.Source{s}
	}
	s := newSide(t, func(s *side, _ *Sources) {
		s.view.Clients = clients.New([]clients.Group{
			{Name: "keyed", From: from("127.0.0.0/8"), Keys: []clients.Key{key}},
			{Name: "office", From: from("10.1.2.0/24")},
		})
	})
	for _, c := range []struct {
		name   string
		header []string
		status int
	}{
		{"the key", []string{"X-Api-Key", text}, 200},
		{"no key", nil, 403},
		{"another key", []string{"X-Api-Key", text + "x"}, 403},
		{"an address that the caller made up", []string{"X-Forwarded-For", "10.1.2.3"}, 403},
	} {
		if w := s.get("/-/healthy", c.header...); w.Code != c.status {
			t.Errorf("%s: got %d %s, want %d", c.name, w.Code, w.Body, c.status)
		}
	}
}

func TestACertificateCountsOnceItWasVerified(t *testing.T) {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "ops", Names: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "ops"}}}}
	ops, err := clients.ParseSource("tls:CN=ops")
	if err != nil {
		t.Fatal(err)
	}
	groups := clients.New([]clients.Group{{Name: "ops", From: []clients.Source{ops}}})
	for _, c := range []struct {
		name  string
		state *tls.ConnectionState
		want  bool
	}{
		{"one that was verified", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}, true},
		{"one that was not", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, false},
		{"none", &tls.ConnectionState{}, false},
		{"no TLS", nil, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.TLS = c.state
		if _, ok := groups.Find(callerOf(r)); ok != c.want {
			t.Errorf("%s: admitted is %t, want %t", c.name, ok, c.want)
		}
	}
}

// A proxy whose probes or calls lead to the operator's listener is told so, and nothing
// is done for it.
func TestWhatAProxySentIsNoOperators(t *testing.T) {
	reloads := 0
	s := newSide(t, func(_ *side, f *Sources) {
		f.Reload = func(context.Context) (*Reloaded, error) {
			reloads++
			return &Reloaded{}, nil
		}
	})
	for _, target := range []string{"/", "/-/healthy", "/-/reload", "/api/alerts"} {
		for _, w := range []*httptest.ResponseRecorder{s.get(target, "CDN-Loop", "cdn.example, defender-proxy"), s.post(target, "", "CDN-Loop", "defender-proxy")} {
			if w.Code != http.StatusLoopDetected || !strings.Contains(w.Body.String(), "sent by a defender-proxy") {
				t.Errorf("%s: got %d %s", target, w.Code, w.Body)
			}
		}
	}
	if reloads > 0 {
		t.Error("the configuration was read again")
	}
	if w := s.get("/-/healthy", "CDN-Loop", "cdn.example"); w.Code != http.StatusOK {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
