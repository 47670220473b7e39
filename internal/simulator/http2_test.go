package simulator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// multiplexing is start with a client that wants HTTP/2, and regions that may offer
// it.
func multiplexing(t *testing.T, offered bool) *peer {
	t.Helper()
	cfg := quick()
	cfg.HTTP2, cfg.PageSize = offered, 5
	p := start(t, cfg)
	p.client.CloseIdleConnections()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.CA())
	p.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableCompression: true}
	return p
}

func TestTheRegionsAloneOfferHTTP2(t *testing.T) {
	for _, offered := range []bool{true, false} {
		p := multiplexing(t, offered)
		token := p.token("mde")
		regions := "HTTP/1.1"
		if offered {
			regions = "HTTP/2.0"
		}
		for target, want := range map[string]string{
			p.Endpoint("eu") + "/api/alerts": regions, p.Endpoint("uk") + "/api/machines": regions,
			p.Authority() + tenantPath + "/v2.0/.well-known/openid-configuration": "HTTP/1.1", p.VaultURL() + "/secrets/x": "HTTP/1.1",
		} {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", target, nil)
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := p.client.Do(r)
			if err != nil {
				t.Errorf("%s: %v", target, err)
				continue
			}
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.Proto != want || err != nil {
				t.Errorf("%s speaks %s, %v; want %s", target, resp.Proto, err, want)
			}
		}
	}
}

// Every fault of a region has an effect over HTTP/2 too, strikes its region alone
// and can be mended.
func TestRegionFaultsOverHTTP2(t *testing.T) {
	p := multiplexing(t, true)
	token := p.token("mde")
	// A write, which net/http does not repeat by itself.
	read := func(region string) (answer, error) {
		return p.try("POST", p.Endpoint(region)+"/api/advancedqueries/run", token, `{"Query":"DeviceInfo | take 5"}`)
	}
	failed := func(a answer, err error) bool { return err != nil }
	answers := func(status int) func(answer, error) bool {
		return func(a answer, err error) bool { return err == nil && a.status == status }
	}
	timed := func(a answer, err error) bool { return errors.Is(err, context.DeadlineExceeded) }
	expected := map[FaultKind]func(answer, error) bool{
		FaultRefuse: func(_ answer, err error) bool { return errors.Is(err, syscall.ECONNREFUSED) },
		FaultReset:  failed,
		FaultTLS: func(_ answer, err error) bool {
			return err != nil && strings.Contains(err.Error(), "handshake failure")
		},
		FaultHang:     timed,
		FaultDelay:    answers(200),
		FaultStatus:   answers(504),
		FaultRedirect: answers(302),
		FaultTruncate: func(a answer, err error) bool { return err != nil && a.status == 200 },
		FaultSlowBody: answers(200),
		FaultGarbage:  answers(200),
		FaultBadJSON:  answers(200),
		FaultUpgrade:  answers(200), FaultFlood1xx: func(answer, error) bool { return true }, // x/net's client takes a few only
		FaultHugeHeaders: func(answer, error) bool { return true }, // up to the client's bound
		FaultEndless:     timed,
		FaultCookies:     answers(200), FaultOddLinks: answers(200),
		FaultUnauthorized: answers(401), FaultThrottle: answers(429), FaultClaimsChallenge: answers(401),
	}
	done := map[FaultKind]bool{}
	for _, kind := range regionFaults {
		done[kind] = expected[kind] != nil
		for _, match := range []string{"", "/api/advanced"} {
			if match != "" && (kind == FaultRefuse || kind == FaultTLS) {
				continue
			}
			t.Run(string(kind)+match, func(t *testing.T) {
				p.client.Timeout = 10 * time.Second
				if kind == FaultHang || kind == FaultEndless {
					p.client.Timeout = 200 * time.Millisecond
				}
				f := Fault{Kind: kind, Match: match}
				switch kind {
				case FaultDelay, FaultSlowBody:
					f.Delay = time.Millisecond
				case FaultStatus:
					f.Status = 504
				case FaultRedirect:
					f.Location = "/elsewhere"
				}
				if err := p.SetRegion("eu", f); err != nil {
					t.Fatal(err)
				}
				if kind == FaultTLS { // the handshake is what is looked at
					p.client.CloseIdleConnections()
				}
				if a, err := read("eu"); !expected[kind](a, err) {
					t.Errorf("got %d %.100s, %v", a.status, a.body, err)
				}
				p.client.Timeout = 10 * time.Second
				if a, err := read("uk"); err != nil || a.status != 200 {
					t.Errorf("another region: %d, %v", a.status, err)
				}
				if err := p.SetRegion("eu", Fault{}); err != nil {
					t.Fatal(err)
				}
				// A connection that was reset may be found out by the next request.
				a, err := read("eu")
				for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); a, err = read("eu") {
					time.Sleep(5 * time.Millisecond)
				}
				if err != nil || a.status != 200 {
					t.Errorf("after mending: %d, %v", a.status, err)
				}
			})
		}
	}
	tried(t, regionFaults, done)
}

func TestTheCertificateHasMicrosoftsNames(t *testing.T) {
	p := start(t, quick())
	leaf, err := x509.ParseCertificate(p.authority.leaf.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "us.api.security.microsoft.com": true, "ina.api.security.microsoft.com": true, "api.security.microsoft.com": true,
		"graph.microsoft.com": true, "login.microsoftonline.com": true, "contoso.vault.azure.net": true,
		"security.microsoft.com": false, "a.b.api.security.microsoft.com": false, "microsoft.com": false,
	} {
		if err := leaf.VerifyHostname(name); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
