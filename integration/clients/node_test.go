//go:build clients

package clients

import (
	"encoding/json"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// Programs for Node with Microsoft's own libraries: they log in with whatever they
// have, at Microsoft's names or at the proxy's own, and read all alerts. The library
// does not notice whom it talks to, and what it posts goes nowhere.
func TestLibrariesForNodeLogInAndReadAllAlerts(t *testing.T) {
	t.Parallel()
	for _, script := range []struct {
		name string
		ways []string
	}{
		{"identity.mjs", []string{"ClientSecretCredential", "ClientCertificateCredential", "DeviceCodeCredential", "UsernamePasswordCredential"}},
		{"msal.mjs", []string{
			"application with a secret", "application with a certificate", "application with an assertion",
			"user with a code on a device", "user with a password", "user who was here before",
		}},
	} {
		for _, tc := range []struct {
			name string
			env  func(*lab) []string
		}{
			{"at Microsoft's names", func(l *lab) []string {
				return append(l.led(), "NODE_OPTIONS=--require ./hosts.cjs", "AUTHORITY_HOST=https://login.microsoftonline.com", "API=https://api.securitycenter.microsoft.com")
			}},
			{"at an older name of Microsoft's", func(l *lab) []string {
				return append(l.led(), "NODE_OPTIONS=--require ./hosts.cjs", "AUTHORITY_HOST=https://login.windows.net", "API=https://api.security.microsoft.com")
			}},
			{"at the proxy's own name", func(l *lab) []string {
				return []string{"AUTHORITY_HOST=" + l.secure, "API=" + l.secure, "OWN_AUTHORITY=yes"}
			}},
		} {
			t.Run(script.name+" "+tc.name, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, setup{sim: simulator.Config{Alerts: 25, PageSize: 10}})
				want := l.alerts()
				l.throttle("/api/alerts")
				out := l.run("node", append(tc.env(l),
					"NODE_EXTRA_CA_CERTS="+l.caFile, "CERTIFICATE="+l.applicationCertificate(),
					"TENANT="+toolTenant, "CLIENT_ID="+toolID, "CLIENT_SECRET="+toolSecret,
					"USERNAME_="+toolUser, "PASSWORD="+toolPassword,
				), "node", script.name)
				var ways []string
				for line := range strings.Lines(out) {
					var run struct {
						Way          string
						Left         float64 // seconds of the token's life
						Parts, Pages int
						IDs          []string
					}
					if err := json.Unmarshal([]byte(line), &run); err != nil {
						t.Fatalf("%v: %s", err, line)
					}
					ways = append(ways, run.Way)
					same(t, run.Way, run.IDs, want)
					if run.Left < 60 || run.Parts != 3 || run.Pages != 3 {
						t.Errorf("%s: %v s are left of a token with %d parts, %d pages were read; want minutes, 3 and 3", run.Way, run.Left, run.Parts, run.Pages)
					}
				}
				same(t, "the ways to log in", ways, script.ways)
				if n := l.throttled(); n != 1 {
					t.Errorf("%d requests were answered with 429, want 1", n)
				}
				l.noSecretIn(toolSecret, toolPassword, toolID)
				l.onlyOwnLogins()
			})
		}
	}
}
