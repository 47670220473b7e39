package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestTenantsComeChangeAndGoWithoutTouchingTheOthers(t *testing.T) {
	l := newLab(t, nil)
	l.wants("/api/alerts", 200)
	l.wants("/t/fabrikam/api/alerts", 404)
	first := l.issued("contoso")

	l.tenants(l.tenant("contoso"), l.tenant("fabrikam"))
	l.save()
	if done := l.reload(); done.Tenants != 2 || !slices.Equal(done.Added, []string{"fabrikam"}) || len(done.Changed)+len(done.Removed)+len(done.NeedsRestart) != 0 {
		t.Errorf("one was added: %+v", done)
	}
	l.wants("/t/fabrikam/api/alerts", 200)
	l.wants("/t/contoso/api/alerts", 200)
	if n := l.issued("contoso"); n != first {
		t.Errorf("contoso's live token did not outlast the reload: %d tokens, before %d", n, first)
	}
	l.eventually("the new tenant is warm", func() bool { return strings.Contains(l.metrics(), `defender_proxy_tenant_ready{tenant="fabrikam"} 1`) })

	// fabrikam is another application now: the token of the old one is not used.
	changed := l.tenant("fabrikam")
	changed["credential"] = object{"client_id": labOtherApp, "client_secret": object{"file": "fabrikam.secret"}}
	l.tenants(l.tenant("contoso"), changed)
	l.save()
	if done := l.reload(); !slices.Equal(done.Changed, []string{"fabrikam"}) || len(done.Added)+len(done.Removed) != 0 {
		t.Errorf("one was changed: %+v", done)
	}
	l.wants("/t/fabrikam/api/alerts", 200)
	if _, body := l.get(l.admin + "/-/tenants?tenant=fabrikam"); !strings.Contains(body, labOtherApp) || strings.Contains(body, labApp) {
		t.Errorf("the tenant's page: %s", body)
	}

	l.tenants(l.tenant("fabrikam"))
	l.save()
	if done := l.reload(); !slices.Equal(done.Removed, []string{"contoso"}) || !slices.Equal(done.Changed, []string{"fabrikam"}) {
		t.Errorf("one was removed, one changed: %+v", done)
	}
	l.wants("/t/contoso/api/alerts", 404)
	l.wants("/t/fabrikam/api/alerts", 200)
	if m := l.metrics(); strings.Contains(m, `"contoso"`) {
		t.Error("the removed tenant still has series")
	}

	// When it comes back its token is fetched anew.
	l.tenants(l.tenant("fabrikam"), l.tenant("contoso"))
	l.save()
	before := l.issued("contoso")
	l.reload()
	l.wants("/t/contoso/api/alerts", 200)
	if l.issued("contoso") == before {
		t.Error("the token of a tenant that was taken out was not forgotten")
	}
	_, body := l.get(l.admin + "/-/tenants")
	l.clean(body)
}

func TestAReloadWithoutAChangeChangesNothing(t *testing.T) {
	l := newLab(t, nil)
	l.wants("/api/alerts", 200)
	n := l.issued("contoso")
	for range 5 {
		if done := l.reload(); done.Tenants != 1 || len(done.Added)+len(done.Changed)+len(done.Removed)+len(done.NeedsRestart) != 0 {
			t.Errorf("got %+v", done)
		}
	}
	l.wants("/api/alerts", 200)
	if l.issued("contoso") != n {
		t.Error("tokens were fetched")
	}
}

func TestAFaultyConfigurationLeavesTheOneInForce(t *testing.T) {
	l := newLab(t, nil)
	l.wants("/api/alerts", 200)
	good := maps.Clone(l.config)
	l.config["tenants"] = []object{{"name": "contoso", "id": "contoso"}}
	l.config["stor"] = "memory"
	l.save()
	status, body := fetch(t, http.MethodPost, l.admin+"/-/reload", "")
	var answer struct {
		Error struct {
			Code, Message string
			Faults        []string
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusUnprocessableEntity || answer.Error.Code != "InvalidConfiguration" || len(answer.Error.Faults) < 2 {
		t.Fatalf("got %d %s", status, body)
	}
	for _, part := range []string{"stor: unknown key", "tenants[0].id: "} {
		if !slices.ContainsFunc(answer.Error.Faults, func(f string) bool {
			return strings.Contains(f, part) && strings.HasPrefix(f, l.path("proxy.yaml")+":")
		}) {
			t.Errorf("no fault tells of %s with its place: %q", part, answer.Error.Faults)
		}
		if !strings.Contains(l.stderr.String(), part) {
			t.Errorf("the log does not tell of %s\n%s", part, l.command)
		}
	}
	l.wants("/api/alerts", 200)
	if m := l.metrics(); !strings.Contains(m, "defender_proxy_config_last_reload_successful 0") {
		t.Error("the metrics do not tell of the failure")
	}
	l.config = good
	l.save()
	l.reload()
	if m := l.metrics(); !strings.Contains(m, "defender_proxy_config_last_reload_successful 1") {
		t.Error("the metrics do not tell of the success")
	}
	if err := os.Remove(l.path("proxy.yaml")); err != nil {
		t.Fatal(err)
	}
	if status, body := fetch(t, http.MethodPost, l.admin+"/-/reload", ""); status != http.StatusUnprocessableEntity || !strings.Contains(body, "cannot be read") {
		t.Errorf("a file that is gone: %d %s", status, body)
	}
	l.wants("/api/alerts", 200)
}

func TestWhatCannotChangeIsNamedAndTheRestApplies(t *testing.T) {
	l := newLab(t, nil)
	l.wants("/api/machines", 200)
	l.config["listeners"] = []object{{"address": "127.0.0.1:0", "hosts": []string{"defender.corp.example"}}, {"address": "127.0.0.2:0"}}
	l.config["admin"] = object{"address": "127.0.0.3:0"}
	l.config["limits"] = object{"token_concurrency": 3, "idle_timeout": "7s", "max_in_flight": 9}
	l.config["regions"] = object{"probe_interval": "1h", "first_byte_timeout": "1s"}
	l.config["audit"] = object{"file": "stderr"}
	l.config["egress"] = object{"ca_file": "ca.pem", "proxy": "http://proxy.example:3128", "http2": true}
	l.config["clients"] = []object{{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{"alerts.*"}}}
	l.save()
	want := []string{
		"listeners[1].address", "admin.address", "regions.probe_interval", "regions.first_byte_timeout", "egress.proxy", "egress.http2", "audit.file",
		"limits.token_concurrency", "limits.idle_timeout",
	}
	for range 2 { // until the restart, each time
		if done := l.reload(); !slices.Equal(done.NeedsRestart, want) {
			t.Errorf("got %q, want %q", done.NeedsRestart, want)
		}
	}
	l.wants("/api/alerts", 200)
	l.wants("/api/machines", 403)
	r, _ := http.NewRequest(http.MethodGet, l.url+"/api/alerts", nil)
	r.Host = "defender.corp.example"
	if resp, err := client.Do(r); err != nil || resp.StatusCode != 200 {
		t.Errorf("the listener's new name: %v %v", resp, err)
	} else {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if !strings.Contains(l.stderr.String(), `"needs_restart":["listeners[1].address"`) {
		t.Errorf("the log does not say it\n%s", l.command)
	}
}

// The certificates that outbound calls trust are read once, and that is said when
// their file is written anew.
func TestAFileThatIsReadOnceNeedsARestart(t *testing.T) {
	l := newLab(t, nil)
	l.write("ca.pem", string(l.sim.CA())+"\n# another\n")
	if done := l.reload(); !slices.Equal(done.NeedsRestart, []string{"egress.ca_file"}) {
		t.Errorf("got %+v", done)
	}
	l.write("ca.pem", string(l.sim.CA()))
	if done := l.reload(); len(done.NeedsRestart) != 0 {
		t.Errorf("got %+v", done)
	}
}

// A listener that is taken out goes on until the restart, and never for another
// tenant than its own or a group that is gone.
func TestAListenerThatIsTakenOutServesNothingElse(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.tenants(l.tenant("contoso"), l.tenant("fabrikam"))
		l.config["listeners"] = []object{{"address": "127.0.0.1:0", "tenant": "contoso"}, {"address": "127.0.0.2:0"}}
	})
	l.wants("/api/alerts", 200)
	l.config["listeners"] = []object{{"address": "127.0.0.2:0"}}
	l.save()
	if done := l.reload(); !slices.Equal(done.NeedsRestart, []string{"listeners"}) {
		t.Errorf("got %+v", done)
	}
	l.wants("/api/alerts", 200)
	l.tenants(l.tenant("fabrikam"))
	l.save()
	l.reload()
	l.wants("/api/alerts", 403)
}
