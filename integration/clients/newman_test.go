//go:build clients

package clients

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// A team has a collection for Postman, which logs in, reads, hunts and changes
// things. Its command line runs it with assertions of its own, over plain HTTP and
// over TLS.
func TestNewmanRunsACollectionWithoutAFailedAssertion(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		base func(*lab) string
		args func(*lab) []string
	}{
		{"over plain HTTP", func(l *lab) string { return l.plain }, func(*lab) []string { return nil }},
		{"over TLS", func(l *lab) string { return l.secure }, func(l *lab) []string { return []string{"--ssl-extra-ca-certs", l.caFile} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			const alerts = 25
			l := newLab(t, setup{
				sim:         simulator.Config{Alerts: alerts, PageSize: 10},
				permissions: map[string][]string{"mde": {"Ti.ReadWrite.All", "Alert.ReadWrite.All", "Machine.CollectForensics"}},
				allow:       []string{"read", "hunt", "triage", "indicators.*", "machines.collectInvestigationPackage", "machines.runAntiVirusScan"},
			})
			l.throttle("/api/alerts")
			report := filepath.Join(l.dir, "report.json")
			args := []string{filepath.Join("node_modules", "newman", "bin", "newman.js"), "run", "collection.json", "--reporters", "cli,json", "--reporter-json-export", report, "--color", "off"}
			for name, value := range map[string]string{
				"base": tc.base(l), "tenant": toolTenant, "client_id": toolID, "client_secret": toolSecret,
				"basic": base64.StdEncoding.EncodeToString([]byte(toolID + ":" + toolSecret)), "alerts": strconv.Itoa(alerts), "machine": l.sim.MachineID(),
			} {
				args = append(args, "--env-var", name+"="+value)
			}
			l.run("newman", nil, "node", append(args, tc.args(l)...)...)
			done := newmanRequests(t, report)
			if pages := done["next pages"]; pages != 2 {
				t.Errorf("newman asked for %d next pages, want 2", pages)
			}
			for _, want := range []string{"by JSON", "a filter with pluses", "delete", "preflight of a page", "a path that leads astray"} {
				if done[want] != 1 {
					t.Errorf("%q was asked %d times, want once: %v", want, done[want], done)
				}
			}
			for _, query := range []string{"none;such", "id+eq+%27", "id%20eq%20%27"} {
				if !slices.ContainsFunc(l.upstream(), func(r simulator.Request) bool {
					return strings.Contains(r.Target, query) || strings.Contains(r.Target, strings.ReplaceAll(query, "%27", "'"))
				}) {
					t.Errorf("no request with %q in its query arrived", query)
				}
			}
			if n := l.throttled(); n != 1 {
				t.Errorf("%d requests were answered with 429, want 1", n)
			}
			l.noSecretIn(toolSecret, toolID)
			l.onlyOwnLogins()
		})
	}
}

// newmanRequests counts the requests of a run by name.
func newmanRequests(t *testing.T, file string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Run struct {
			Executions []struct{ Item struct{ Name string } }
		}
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	done := make(map[string]int)
	for _, e := range report.Run.Executions {
		done[e.Item.Name]++
	}
	return done
}
