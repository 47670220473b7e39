package proxy

import (
	"strings"
	"testing"
)

// A tenant's name that cannot stand in a link is nobody's: that is what is wrong then,
// and not the Host.
func TestATenantThatCannotStandInALinkIsUnknown(t *testing.T) {
	w := newWorld(t, loggingIn(options{}))
	for _, target := range []string{
		"/t/Contoso%20Ltd/api/alerts", "/t/a%22b/.well-known/openid-configuration", "/t/a%22b/oauth2/token", "/t/a%22b/-/whoami", "/t/a%22b",
		"/t/" + strings.Repeat("a", 2100) + "/api/alerts",
	} {
		got := w.do("GET", target, "")
		if got.status != 404 || got.code() != "UnknownTenant" || !strings.Contains(got.message(), "there are: contoso") || strings.Contains(got.message(), "Host") || len(got.message()) > 1000 {
			t.Errorf("%.60s: got %d %s", target, got.status, got.body)
		}
	}
	// Where it is the Host, that is told.
	w = newWorld(t, options{listener: Listener{Hosts: []string{"defender.example"}}})
	for _, target := range []string{"/api/alerts", "/t/contoso/api/alerts", "/t/a%22b/api/alerts"} {
		if got := w.do("GET", target, "", "Host", "defender.example:99999999"); got.status != 421 || got.code() != "HostNotAllowed" {
			t.Errorf("%s: got %d %s", target, got.status, got.body)
		}
	}
}
