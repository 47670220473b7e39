//go:build clients

package clients

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// Filebeat comes with settings that Elastic's integrations made for Microsoft: a
// login with a secret, then alerts, page after page, and a cursor that outlives the
// process. It is given this proxy's URL in place of Microsoft's two, and a secret
// that somebody made up.

const (
	filebeatID     = "00000000-1111-4222-8333-made0up00000"
	filebeatSecret = "made-up~Of.the/shipper+1="
)

// A login of the v1 kind, for a resource; alerts with their evidence, by the next
// links. Every alert comes once, though Microsoft's side asks for patience between
// two pages. A second process begins where the first one ended.
func TestFilebeatReadsTheAlertsOfDefenderForEndpoint(t *testing.T) {
	t.Parallel()
	const alerts, pageSize, evidence = 130, 10, 5
	l := filebeatLab(t, simulator.Config{Alerts: alerts, PageSize: pageSize})
	want := slices.Sorted(slices.Values(l.alerts()))
	l.sim.ResetRequests()
	// Slow pages leave time to have one throttled when some have been read.
	if err := l.sim.SetDelay(region, 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	env := []string{"REQUEST_URL=" + l.secure, "LOGIN_URL=" + l.secure}
	run := startFilebeat(l, env, "-c", "defender-endpoint.yml")
	eventually(t, "some pages have been read", func() error {
		if n := len(l.upstream()); n < 3 {
			return fmt.Errorf("%d requests arrived", n)
		}
		return nil
	})
	l.throttle("/api/alerts")
	got := run.wait(alerts * evidence)
	run.stop(cursorOf("lastUpdateTime", got[len(got)-1]))
	if err := l.sim.SetDelay(region, 0); err != nil {
		t.Fatal(err)
	}
	if ids := times(got, evidence); !slices.Equal(ids, want) {
		t.Errorf("%d alerts came with all their evidence, want %d", len(ids), len(want))
	}
	arrived := l.upstream()
	if n := l.throttled(); n != 1 || len(arrived) != alerts/pageSize+1 {
		t.Errorf("%d requests arrived, of which %d were throttled: want one more than the %d pages", len(arrived), n, alerts/pageSize)
	}
	for i, r := range arrived {
		if strings.Contains(r.Target, "$skiptoken=") == (i == 0) || !strings.Contains(r.Target, "expand=evidence") {
			t.Errorf("request %d was for %s", i, r.Target)
		}
	}

	newer := l.change(want[:3]...)
	l.sim.ResetRequests()
	l.throttle("/api/alerts")
	run = startFilebeat(l, env, "-c", "defender-endpoint.yml", "--path.data", run.data)
	got = run.wait(len(newer) * evidence)
	run.stop(cursorOf("lastUpdateTime", got[len(got)-1]))
	if ids := times(got, evidence); !slices.Equal(ids, newer) {
		t.Errorf("the second run read %v, want what is new: %v", ids, newer)
	}
	if arrived = l.upstream(); len(arrived) != 2 || l.throttled() != 1 {
		t.Errorf("%d requests arrived for what is new, want one that was throttled and one that was not", len(arrived))
	}
	l.unfelt(2)
	l.shipped(2, "/"+simulator.DefaultTenantID+"/oauth2/token")
}

// unfelt expects that the proxy has waited out n throttles, one for each request:
// Filebeat repeats what is throttled, so that it proves nothing by itself.
func (l *lab) unfelt(n int) {
	l.t.Helper()
	waited := 0
	for _, r := range l.records() {
		if r.Status == http.StatusTooManyRequests {
			l.t.Errorf("%s was answered with 429", r.Path)
		}
		if r.Attempts == 2 && r.Status == http.StatusOK {
			waited++
		}
	}
	if waited != n {
		l.t.Errorf("%d throttles were waited out, want %d", waited, n)
	}
}

// A login of the v2 kind, for a scope that is named after this proxy; alerts of
// Graph, by $top and $skip. All of it stands behind the prefix of a tenant.
func TestFilebeatReadsTheAlertsOfGraph(t *testing.T) {
	t.Parallel()
	const alerts, batch, changed = 130, 50, 3 // a batch is that of the settings
	l := filebeatLab(t, simulator.Config{Alerts: alerts})
	base := l.secure + "/t/contoso"
	env := []string{"REQUEST_URL=" + base, "LOGIN_URL=" + base}
	l.throttle("/v1.0/security/alerts_v2")
	run := startFilebeat(l, env, "-c", "m365-defender.yml")
	got := run.wait(alerts)
	run.stop(cursorOf("lastUpdateDateTime", got[len(got)-2]))
	if ids := times(got, 1); len(ids) != alerts {
		t.Errorf("%d alerts came once, want %d", len(ids), alerts)
	}
	if n := len(l.upstream()); n != alerts/batch+2 || l.throttled() != 1 {
		t.Errorf("%d requests arrived, want those for %d pages and one that was throttled", n, alerts/batch+1)
	}

	l.change(l.alerts()[2 : 2+changed]...)
	l.sim.ResetRequests()
	run = startFilebeat(l, env, "-c", "m365-defender.yml", "--path.data", run.data)
	// Filebeat stores with an event the cursor of the event before it, and its filter
	// includes that moment: it asks for the two that it read last as well.
	newer := l.filtered("/v1.0/security/alerts_v2")
	if len(newer) != changed+2 {
		t.Errorf("what the second run asks for are %d alerts, want the %d that are new and two", len(newer), changed)
	}
	got = run.wait(len(newer))
	run.stop(cursorOf("lastUpdateDateTime", got[len(got)-2]))
	if ids := times(got, 1); !slices.Equal(ids, times(newer, 1)) {
		t.Errorf("the second run read %v, want %v", ids, times(newer, 1))
	}
	l.unfelt(1)
	l.shipped(2, "/"+simulator.DefaultTenantID+"/oauth2/v2.0/token")
}

// The module that Filebeat ships has Microsoft's name in it, and no setting for
// another. Where that name leads to this proxy, with a certificate that the machine
// trusts, the module works as it is.
func TestFilebeatsOwnModuleNeedsNothingButTheNames(t *testing.T) {
	t.Parallel()
	l := filebeatLab(t, simulator.Config{Alerts: 60})
	for id := range 2 {
		l.write200(http.MethodPatch, fmt.Sprint("/api/incidents/", id+1), `{"status":"Active","comment":"seen"}`)
	}
	settings := l.write("module.json", fmt.Appendf(nil, `{
		"filebeat.modules": [{"module": "microsoft", "defender_atp.enabled": false, "dhcp.enabled": false, "m365_defender": {
			"enabled": true, "var.proxy_url": "http://%s",
			"var.oauth2": {"client.id": %q, "client.secret": %q, "token_url": "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token",
				"scopes": ["https://api.security.microsoft.com/.default"]}}}],
		"output.file.path": "${OUTPUT}"}`, l.network(), filebeatID, filebeatSecret))
	find := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/elastic/beats/v7")
	find.Dir = "filebeat"
	beats, err := find.Output()
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(strings.TrimSpace(string(beats)), "x-pack", "filebeat")
	l.sim.ResetRequests()
	run := startFilebeat(l, []string{"SSL_CERT_FILE=" + l.caFile}, "-c", settings, "--path.home", home)
	want, total := make(map[any]int), 0
	for _, incident := range l.filtered("/api/incidents") {
		for _, alert := range incident["alerts"].([]any) {
			entities := len(alert.(map[string]any)["entities"].([]any))
			want[incident["incidentId"]] += entities
			total += entities
		}
	}
	got := make(map[any]int)
	for _, event := range run.wait(total) {
		got[event["incidentId"]]++
	}
	run.stop("")
	if !maps.Equal(got, want) || total == 0 {
		t.Errorf("events by incident are %v, want %v", got, want)
	}
	for _, r := range l.upstream() {
		if !strings.HasPrefix(r.Target, "/api/incidents?") {
			t.Errorf("%s arrived", r.Target)
		}
	}
	l.shipped(1, "/contoso.onmicrosoft.com/oauth2/v2.0/token")
}

// filebeatLab is a lab whose alerts may be changed, and whose alerts were all updated
// just now: the settings read five minutes back when they know of nothing.
func filebeatLab(t *testing.T, sim simulator.Config) *lab {
	t.Helper()
	if _, err := filebeatBinary(); err != nil { // which may take longer than that
		t.Fatal(err)
	}
	l := newLab(t, setup{
		sim: sim, allow: []string{"read", "alerts.update", "alerts.batchUpdate", "incidents.update"},
		permissions: map[string][]string{"mde": {"Alert.ReadWrite.All"}, "xdr": {"Incident.ReadWrite.All"}},
	})
	ids := l.alerts()
	for batch := range slices.Chunk(ids, 100) {
		list, _ := json.Marshal(batch)
		l.write200(http.MethodPost, "/api/alerts/batchUpdate", `{"status":"New","alertIds":`+string(list)+`}`)
	}
	l.change(ids[:2]...) // so that the two newest have a moment of their own
	l.sim.ResetRequests()
	return l
}

// shipped looks at what Filebeat's logins left behind: a record each, and nothing that
// it posted.
func (l *lab) shipped(logins int, path string) {
	l.t.Helper()
	n := 0
	for _, r := range l.records() {
		if r.Method == http.MethodPost && r.Path == path && r.Status == http.StatusOK {
			n++
		}
	}
	if n != logins {
		l.t.Errorf("Filebeat logged in %d times at %s, want %d", n, path, logins)
	}
	l.noSecretIn(filebeatSecret, filebeatID)
	l.onlyOwnLogins()
}

// change updates alerts, and gives their ids in order.
func (l *lab) change(ids ...string) []string {
	l.t.Helper()
	for _, id := range ids {
		l.write200(http.MethodPatch, "/api/alerts/"+id, `{"status":"InProgress","comment":"seen"}`)
	}
	return slices.Sorted(slices.Values(ids))
}

func (l *lab) write200(method, path, body string) {
	l.t.Helper()
	status, _, answer, err := l.ask(method, l.plain+path, body, "Content-Type", "application/json")
	if err != nil || status != http.StatusOK {
		l.t.Fatalf("%s %s: %d %v %s", method, path, status, err, answer)
	}
}

// filtered gives what a filter is for that Filebeat asked with: the objects at path.
func (l *lab) filtered(path string) []map[string]any {
	l.t.Helper()
	filter := ""
	eventually(l.t, "Filebeat asks", func() error {
		for _, r := range l.upstream() {
			if u, err := url.Parse(r.Target); err == nil && u.Query().Has("$filter") {
				filter = u.Query().Get("$filter")
				return nil
			}
		}
		return errors.New("nothing arrived")
	})
	status, _, body, err := l.ask(http.MethodGet, l.plain+path+"?$filter="+url.QueryEscape(filter), "")
	var page struct{ Value []map[string]any }
	if err == nil {
		err = json.Unmarshal(body, &page)
	}
	if err != nil || status != http.StatusOK {
		l.t.Fatalf("%s with %s: %d %v %.300s", path, filter, status, err, body)
	}
	return page.Value
}

// times gives, in order, the ids of what came n times.
func times(events []map[string]any, n int) []string {
	count := make(map[string]int)
	for _, e := range events {
		id, _ := e["id"].(string)
		count[id]++
	}
	maps.DeleteFunc(count, func(_ string, c int) bool { return c != n })
	return slices.Sorted(maps.Keys(count))
}
