//go:build clients

package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// lines runs a script of curl lines with a shell, and reads the NAME=VALUE lines
// that it prints; names may be there more than once.
func (l *lab) lines(script string, env ...string) map[string][]string {
	l.t.Helper()
	path, err := filepath.Abs(filepath.Join("curl", script))
	if err != nil {
		l.t.Fatal(err)
	}
	// What else the lines would have to say each time: where the names are.
	rc := fmt.Sprintf("silent\nshow-error\nmax-time = 60\ncacert = %q\n", l.caFile)
	for _, name := range microsoftNames {
		rc += fmt.Sprintf("connect-to = \"%s:443:%s\"\n", name, l.host())
	}
	home := l.t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".curlrc"), []byte(rc), 0o600); err != nil {
		l.t.Fatal(err)
	}
	out := l.run(home, append(env, "CURL_HOME="+home, "MACHINE="+l.sim.MachineID(),
		"TENANT_ID="+toolTenant, "CLIENT_ID="+toolID, "CLIENT_SECRET="+toolSecret), "/bin/sh", path)
	said := make(map[string][]string)
	for line := range strings.Lines(out) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			l.t.Errorf("%s printed %q", script, line)
		}
		said[name] = append(said[name], strings.TrimSpace(value))
	}
	return said
}

// says fails unless the lines printed just these values for a name.
func says(t *testing.T, said map[string][]string, name string, want ...string) {
	t.Helper()
	if !slices.Equal(said[name], want) {
		t.Errorf("%s is %q, want %q", name, said[name], want)
	}
}

// The lines of Microsoft's pages, pasted into a shell on a machine where Microsoft's
// names lead to the proxy: logins, alerts, filters, hunting, an upload, a package.
func TestTheCurlLinesOfMicrosoftsPagesWorkAsTheyStand(t *testing.T) {
	t.Parallel()
	s := responding
	s.sim = simulator.Config{Alerts: 25, PageSize: 10}
	l := newLab(t, s)
	want := l.alerts()[:3]
	l.throttle("/api/alerts")
	said := l.lines("microsoft.sh")
	says(t, said, "v2", "HTTP/1.1 200 OK")
	says(t, said, "parts", "3")
	says(t, said, "alerts", strings.Join(want, " "))
	says(t, said, "machines", l.sim.MachineID())
	says(t, said, "encoded", l.sim.MachineID())
	says(t, said, "hunt", `"Schema" "Results" 2`, `"Schema" "Results" 2`, `"schema" "results" 2`)
	says(t, said, "upload", `"description":"test description"`)
	says(t, said, "delete", "HTTP/1.1 204 No Content")
	if len(said["package"]) != 1 {
		t.Errorf("the package in two parts is not the whole one: %q", said)
	}
	l.downloaded(base{api: func(*lab) string { return "https://api.securitycenter.microsoft.com" }}, said["link"]...)
	if n := l.throttled(); n != 1 {
		t.Errorf("%d requests were answered with 429, want 1", n)
	}
	l.noSecretIn(toolSecret, toolID)
	l.onlyOwnLogins()
}

// An analyst types lines with the proxy's URL and nothing else.
func TestCurlNeedsNothingButAURL(t *testing.T) {
	t.Parallel()
	l := newLab(t, setup{sim: simulator.Config{Alerts: 25, PageSize: 10}})
	l.throttle("/api/advancedqueries")
	said := l.lines("plain.sh", "PROXY="+l.plain)
	says(t, said, "alerts", "10")
	says(t, said, "pages", "3")
	says(t, said, "filtered", "1")
	says(t, said, "http2", "200 1.1")
	says(t, said, "head", "HTTP/1.1 200 OK")
	says(t, said, "hunt", "1")
	says(t, said, "refused", "403 NotGranted")
	says(t, said, "credentials", "200")
	says(t, said, "bare", "200")
	if n := l.throttled(); n != 1 {
		t.Errorf("%d requests were answered with 429, want 1", n)
	}
	l.noSecretIn(toolSecret, "someone:password-of-the-tool", "key-of-the-tool")
	l.onlyOwnLogins()
}
