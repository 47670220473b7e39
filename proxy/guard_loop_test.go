package proxy

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/egress"
	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
)

// What a proxy like this one sent goes no further, wherever it leads: nothing is
// sent, no write is announced, nobody is logged in, and there is one record.
func TestWhatAProxySentGoesNoFurther(t *testing.T) {
	for _, c := range []struct{ name, method, target, header, value string }{
		{"a read", "GET", "/api/alerts", "CDN-Loop", "defender-proxy"},
		{"a read of a tenant", "GET", "/t/contoso/api/alerts", "CDN-Loop", "defender-proxy"},
		{"a write", "POST", "/api/machines/m1/isolate", "CDN-Loop", "defender-proxy"},
		{"one that came through others", "GET", "/api/alerts", "cdn-loop", `cdn.example; a="b, c", defender-proxy`},
		{"a login", "POST", "/contoso/oauth2/v2.0/token", "CDN-Loop", "defender-proxy"},
		{"a page", "GET", "/-/whoami", "CDN-Loop", "defender-proxy"},
		{"a probe", "HEAD", "/", "CDN-Loop", "defender-proxy"},
		{"a download", "GET", "/blob/AAAA", "CDN-Loop", "defender-proxy"},
		{"a path that is none", "GET", "/api//x", "CDN-Loop", "defender-proxy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, loggingIn(options{}))
			got := w.do(c.method, c.target, "", c.header, c.value)
			if got.status != http.StatusLoopDetected || !strings.Contains(got.header.Get("Proxy-Status"), "defender-proxy; error=http_request_error") {
				t.Errorf("got %d %v %s", got.status, got.header, got.body)
			}
			if c.method != "HEAD" {
				if got.code() != "InvalidRequest" || !strings.Contains(got.message(), "sent by a defender-proxy") || !strings.Contains(got.message(), "egress.resolve") {
					t.Errorf("got %s", got.body)
				}
			}
			for _, r := range w.regions {
				if n := len(r.requests()); n != 0 {
					t.Errorf("%d requests arrived at a region", n)
				}
			}
			if rec := w.lines(1)[0]; rec["code"] != "InvalidRequest" || rec["decision"] != "refused" || rec["client"] != "local" || rec["status"] != 508.0 {
				t.Errorf("recorded %v", rec)
			}
		})
	}
}

func TestOtherLoopsAreNoneOfOurs(t *testing.T) {
	w := newWorld(t, options{})
	if got := w.do("GET", "/api/alerts", "", "CDN-Loop", "cdn.example, defender-proxy-2"); got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if a := w.regions[0].requests(); len(a) != 1 || a[0].header["Cdn-Loop"] != nil {
		t.Errorf("arrived %+v: the caller's CDN-Loop is its own", a)
	}
	// Who may not use the proxy learns no more than that.
	w = newWorld(t, options{deps: func(d *Deps) {
		d.Clients[0].From = []clients.Source{clients.Addresses(netip.MustParsePrefix("10.0.0.0/8"))}
	}})
	if got := w.do("GET", "/api/alerts", "", "CDN-Loop", "defender-proxy"); got.code() != string(ClientNotAdmitted) {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// Where the login's name leads back, the caller is told what an operator does about
// it, and not where it leads.
func TestACallerIsToldThatTheLoginLeadsBack(t *testing.T) {
	x := &Exchange{Tenant: &Tenant{Tenant: tenant.Tenant{Name: "contoso"}}}
	for _, loop := range []*egress.LoopError{
		{Host: "login.microsoftonline.com", Address: netip.MustParseAddrPort("10.1.2.3:443")},
		{Host: "login.microsoftonline.com"},
	} {
		err := tokenUnavailable(x, &token.Error{Kind: token.Unreachable, Sentence: "https://login.microsoftonline.com cannot be reached: " + loop.Error() + "."})
		got, _ := errors.AsType[*Refusal](err)
		if got == nil || got.Code != TokenUnavailable || !strings.Contains(got.Message, "leads back to the proxy") || !strings.Contains(got.Message, "egress.resolve") || strings.Contains(got.Message, "10.1.2.3") {
			t.Errorf("the caller is told %v", err)
		}
	}
	err := tokenUnavailable(x, &token.Error{Kind: token.Unreachable, Sentence: "https://login.microsoftonline.com cannot be reached: no such host."})
	if strings.Contains(err.Error(), "egress.resolve") {
		t.Errorf("the caller is told %v", err)
	}
}
