package clients

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"defender-proxy/internal/simulator"
)

// What a tool has in its settings, from before there was a proxy. None of it works
// anywhere.
const (
	toolTenant   = "99999999-aaaa-4bbb-8ccc-dddddddddddd"
	toolID       = "77777777-aaaa-4bbb-8ccc-eeeeeeeeeeee"
	toolSecret   = "Xy8Q~the-tools-own-secret-000000000000"
	toolUser     = "soc@contoso.example"
	toolPassword = "the tool's own pa$$word"

	login    = "https://login.microsoftonline.com"
	alerts   = "https://api.securitycenter.microsoft.com/api/alerts"
	resource = "https://api.securitycenter.microsoft.com"
	scope    = resource + "/.default"
)

// desk is where the tools of one test log in.
type desk struct {
	*lab
	client *http.Client
	first  string // the id of the first alert
}

// newDesk starts a lab, whose names are all that a tool reaches.
func newDesk(t *testing.T) *desk {
	t.Helper()
	l := newLab(t, setup{sim: simulator.Config{Alerts: 5}})
	d := &desk{lab: l, first: l.alerts()[0]}
	d.client = &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: l.roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			name, _, _ := net.SplitHostPort(address)
			switch {
			case slices.Contains(microsoftNames, name):
				address = l.host()
			case name != "localhost" && name != "127.0.0.1":
				t.Errorf("a tool calls %s, which is not the proxy", address)
				return nil, fmt.Errorf("%s is out of bounds", address)
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	t.Cleanup(func() {
		d.client.CloseIdleConnections()
		l.noSecretIn(toolSecret, toolPassword)
		l.onlyOwnLogins()
		logins := 0
		for _, r := range l.records() {
			if strings.Contains(r.Path, "/oauth2/") {
				logins++
				if r.Operation != "" || r.Query != "" || r.Decision != "allowed" || r.Status != http.StatusOK {
					t.Errorf("the record of a login says %+v", r)
				}
			}
		}
		if logins == 0 {
			t.Error("no login is in the audit: nothing was tried")
		}
	})
	return d
}

// use asks for the alerts as a tool does that has a token. Such tools read from the
// token how long it is good for.
func (d *desk) use(t *testing.T, token string) {
	t.Helper()
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		t.Fatalf("the token is no JWT: %v", err)
	}
	if exp, err := claims.GetExpirationTime(); err != nil || time.Until(exp.Time) < 30*time.Minute {
		t.Errorf("the token is good until %v (%v)", exp, err)
	}
	r, err := http.NewRequest(http.MethodGet, alerts, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := d.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var page struct{ Value []struct{ ID string } }
	if err := json.Unmarshal(body, &page); err != nil || resp.StatusCode != http.StatusOK || len(page.Value) == 0 || page.Value[0].ID != d.first {
		t.Errorf("GET %s with the token: %d %v %.300s", alerts, resp.StatusCode, err, body)
	}
}
