package clients

import (
	"net/http"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// The lab itself, once: both listeners lead to the same alerts, under the names of
// Microsoft's too, a restart keeps the addresses, a throttled request is waited for.
func TestTheLabLeadsToTheAlertsOnEveryWay(t *testing.T) {
	t.Parallel()
	l := newLab(t, setup{sim: simulator.Config{Alerts: 30, PageSize: 10}})
	want := l.alerts()
	if len(want) != 30 {
		t.Fatalf("%d alerts, want 30", len(want))
	}
	plain := l.plain
	l.restart()
	if l.plain != plain {
		t.Errorf("after a restart the proxy is at %s, not %s", l.plain, plain)
	}
	l.throttle("/api/alerts")
	for _, base := range []string{l.plain, l.secure, "https://api.securitycenter.microsoft.com", "https://api.security.microsoft.com"} {
		status, _, body, err := l.ask(http.MethodGet, base+"/api/alerts", "", "Authorization", "Bearer of-the-tool")
		if err != nil || status != http.StatusOK || !strings.Contains(string(body), want[0]) {
			t.Errorf("%s: %d %v %.200s", base, status, err, body)
		}
		if link := base + "/api/alerts?"; !strings.Contains(string(body), `"@odata.nextLink":"`+link) {
			t.Errorf("the link to the next page does not lead to %s: %.300s", link, body)
		}
	}
	if n := l.throttled(); n != 1 {
		t.Errorf("%d answers were 429, want 1", n)
	}
	l.noSecretIn("of-the-tool")
	l.onlyOwnLogins()
}
