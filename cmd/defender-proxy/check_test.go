package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// checkLab writes a configuration for tenants that differ in what Entra ID makes
// of them.
func checkLab(t *testing.T) *lab {
	t.Helper()
	app := func(permissions map[string][]string, change func(*simulator.App)) []simulator.App {
		a := simulator.App{ClientID: labApp, Secrets: []string{labSecret}, Permissions: permissions}
		if change != nil {
			change(&a)
		}
		return []simulator.App{a}
	}
	all := simulator.DefaultTenant().Apps[0].Permissions
	sim := startSimulator(t, simulator.Config{Tenants: []simulator.Tenant{
		{ID: labID(0), Name: "contoso", Apps: app(all, nil)},
		{ID: labID(1), Name: "fabrikam", Apps: app(map[string][]string{}, nil)},
		{ID: labID(2), Name: "tailspin", Apps: app(all, nil)},
	}})
	if err := sim.SetConsented(labID(2), labApp, false); err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, sim: sim, dir: t.TempDir()}
	l.write("ca.pem", string(sim.CA()))
	for _, name := range labTenants {
		l.write(name+".secret", labSecret)
	}
	endpoints := object{"eu": sim.Endpoint("eu")}
	l.config = object{
		"clients": []object{{"name": "soc", "from": []string{"127.0.0.0/8"}, "allow": []string{"alerts.list"}}},
		"tenants": []object{l.tenant("contoso"), l.tenant("fabrikam"), l.tenant("tailspin")},
		"egress":  object{"ca_file": "ca.pem"},
		"clouds": []object{{
			"name": "lab", "authority": sim.Authority(), "endpoints": object{"mde": endpoints, "xdr": endpoints},
			"audiences": object{"mde": "https://api.securitycenter.microsoft.com", "xdr": "https://api.security.microsoft.com"},
		}},
	}
	l.save()
	return l
}

// ran runs a command to its end.
func ran(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c := begin(t, nil, args...)
	code = <-c.code
	c.cancel()
	return code, c.stdout.String(), c.stderr.String()
}

func TestCheckOnlineTellsHowEachTenantIs(t *testing.T) {
	l := checkLab(t)
	code, stdout, stderr := ran(t, "check", "--config", l.path("proxy.yaml"), "--online")
	if code != exitWrong || stderr != "" {
		t.Errorf("it exited with %d: %s", code, stderr)
	}
	l.clean(stdout)
	for _, want := range []string{
		"tenant contoso\n  directory   " + labID(0) + " in lab, application " + labApp + "\n  credential  client_secret\n",
		"    consent  granted\n", "    consent  missing\n", "    MISSING  Alert.Read.All or ", "for alerts.list, granted to soc\n",
		"tenant tailspin\n", "WRONG: ", "  consent at  " + l.sim.Authority() + "/" + labID(2) + "/adminconsent?client_id=" + labApp,
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it does not say %q\n%s", want, stdout)
		}
	}

	code, stdout, _ = ran(t, "check", "--config", l.path("proxy.yaml"), "--online", "--output", "json")
	var report struct {
		OK      bool
		Tenants []struct {
			Name     string
			Problems []string
			Services []struct {
				Service, Consent string
				Granted          bool
				Token            struct {
					Live bool
					Life int `json:"life_seconds"`
				}
				Missing []struct{ Grant string }
			}
		}
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitWrong || report.OK || len(report.Tenants) != 3 {
		t.Fatalf("%d %v %s", code, err, stdout)
	}
	l.clean(stdout)
	for i, want := range []struct {
		name, consent string
		live          bool
		problems      int
	}{{"contoso", "granted", true, 0}, {"fabrikam", "missing", true, 1}, {"tailspin", "missing", false, 1}} {
		got := report.Tenants[i]
		if s := got.Services[0]; got.Name != want.name || s.Consent != want.consent || s.Token.Live != want.live || len(got.Problems) != want.problems {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if slices.ContainsFunc(got.Problems, func(p string) bool { return !strings.HasPrefix(p, "mde: ") }) {
			t.Errorf("problems of a service that nobody is granted: %q", got.Problems)
		}
	}
}

func TestCheckOnlineOfOneTenantAsksForNoOther(t *testing.T) {
	l := checkLab(t)
	code, stdout, _ := ran(t, "check", "--config", l.path("proxy.yaml"), "--online", "--tenant", "contoso")
	if code != exitOK || strings.Contains(stdout, "fabrikam") {
		t.Errorf("%d %s", code, stdout)
	}
	if n := l.issued("fabrikam"); n != 0 {
		t.Errorf("%d tokens of another tenant", n)
	}
}

// What Microsoft does not document is marked where it is used.
func TestCheckMarksAnAudienceThatIsAssumed(t *testing.T) {
	env := map[string]string{"SECRET": "x"}
	file := (&lab{t: t, dir: t.TempDir()})
	file.config = object{"tenants": []object{{
		"name": "office", "id": labID(0), "cloud": "gcc-high", "credential": object{"client_id": labApp, "client_secret": object{"env": "SECRET"}},
	}}}
	file.save()
	c := &cli{env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
	cfg, err := c.load(file.path("proxy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.alone(cfg, "proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	report := checkReport{Tenants: []tenantCheck{{TenantReport: p.view.Report(p.view.Tenants[0], time.Now())}}}
	for _, s := range report.Tenants[0].Services {
		if marked := s.AudienceAssumed != ""; marked != (s.Service != "graph") {
			t.Errorf("%s: %q", s.Service, s.AudienceAssumed)
		}
	}
	if text := report.text(); !strings.Contains(text, "for Microsoft documents none; override it under clouds:") {
		t.Errorf("it is not told: %s", text)
	}
}
