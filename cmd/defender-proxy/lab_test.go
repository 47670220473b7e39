package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/simulator"
)

// object is a piece of configuration. JSON is YAML, so it is written as that.
type object = map[string]any

// lab is a proxy that runs in the test's process before a simulator with several
// tenants. Each tenant's secret is in a file of its own, NAME.secret.
type lab struct {
	*command
	t          *testing.T
	sim        *simulator.Simulator
	dir        string
	url, admin string
	config     object // as it was written last
}

const labSecret = "canary-lab-secret-7Q~x"

func labID(i int) string { return fmt.Sprintf("11111111-1111-1111-1111-%012d", i+1) }

// labTenants are what the simulator knows: each with two applications.
var labTenants = []string{"contoso", "fabrikam", "tailspin"}

const (
	labApp      = "22222222-2222-2222-2222-222222222222"
	labOtherApp = "33333333-3333-3333-3333-333333333333"
)

// newLab starts the proxy for the first of the tenants; change may change the
// configuration and the folder before.
func newLab(t *testing.T, change func(*lab)) *lab {
	t.Helper()
	before := goleak.IgnoreCurrent()
	var tenants []simulator.Tenant
	for i, name := range labTenants {
		permissions := simulator.DefaultTenant().Apps[0].Permissions
		tenants = append(tenants, simulator.Tenant{ID: labID(i), Name: name, Apps: []simulator.App{
			{ClientID: labApp, Secrets: []string{labSecret}, Permissions: permissions},
			{ClientID: labOtherApp, Secrets: []string{labSecret}, Permissions: permissions},
		}})
	}
	l := &lab{t: t, dir: t.TempDir()}
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	l.sim = startSimulator(t, simulator.Config{Tenants: tenants})
	l.write("ca.pem", string(l.sim.CA()))
	for _, name := range labTenants {
		l.write(name+".secret", labSecret)
	}
	l.config = object{
		"listeners": []object{{"address": "127.0.0.1:0"}},
		"admin":     object{"address": "127.0.0.1:0"},
		"clients":   []object{{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{"read"}}},
		"tenants":   []object{l.tenant("contoso")},
		"egress":    object{"ca_file": "ca.pem"},
		"clouds": []object{{
			"name": "lab", "authority": l.sim.Authority(),
			"endpoints": object{"mde": object{"eu": l.sim.Endpoint("eu")}, "xdr": object{"eu": l.sim.Endpoint("eu")}},
			"audiences": object{"mde": "https://api.securitycenter.microsoft.com", "xdr": "https://api.security.microsoft.com"},
		}},
	}
	if change != nil {
		change(l)
	}
	l.save()
	l.command = begin(t, nil, "serve", "--config", l.path("proxy.yaml"))
	t.Cleanup(func() {
		client.CloseIdleConnections()
		l.end(t, exitOK)
		for _, canary := range []string{labSecret, "eyJ"} {
			if strings.Contains(l.stderr.String()+l.stdout.String(), canary) {
				t.Errorf("%s is in the output", canary)
			}
		}
	})
	l.eventually("it listens", func() bool {
		select {
		case code := <-l.code:
			l.code <- code
			t.Fatalf("it ended with %d\n%s", code, l.command)
		default:
		}
		for line := range strings.Lines(l.stderr.String()) {
			var entry struct{ Message, Address, For string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "listening" {
				if entry.For == "operator" {
					l.admin = "http://" + entry.Address
				} else if l.url == "" {
					l.url = "http://" + entry.Address
				}
			}
		}
		return l.url != "" && l.admin != ""
	})
	return l
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) write(name, text string) {
	l.t.Helper()
	if err := os.MkdirAll(filepath.Dir(l.path(name)), 0o700); err != nil {
		l.t.Fatal(err)
	}
	// As whoever edits a file in use should: replaced as a whole.
	if err := os.WriteFile(l.path(name)+"~", []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Rename(l.path(name)+"~", l.path(name)); err != nil {
		l.t.Fatal(err)
	}
}

// save writes the configuration.
func (l *lab) save() {
	l.t.Helper()
	text, err := json.MarshalIndent(l.config, "", "  ")
	if err != nil {
		l.t.Fatal(err)
	}
	l.write("proxy.yaml", string(text))
}

// tenant is one of labTenants as the configuration has it.
func (l *lab) tenant(name string) object {
	return object{
		"name": name, "id": labID(slices.Index(labTenants, name)), "cloud": "lab",
		"credential": object{"client_id": labApp, "client_secret": object{"file": name + ".secret"}},
	}
}

func (l *lab) tenants(tenants ...object) { l.config["tenants"] = tenants }

// eventually waits until something is so.
func (l *lab) eventually(what string, so func() bool) {
	l.t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("waited in vain until %s\n%s", what, l.command)
		}
	}
}

// get asks the callers' listener, or another address when it is a whole URL.
func (l *lab) get(url string) (int, string) {
	l.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = l.url + url
	}
	return fetch(l.t, http.MethodGet, url, "")
}

func (l *lab) wants(url string, status int) {
	l.t.Helper()
	if got, body := l.get(url); got != status {
		l.t.Errorf("%s: got %d %.300s, want %d", url, got, body, status)
	}
}

// reload reloads and wants it to go well.
func (l *lab) reload() admin.Reloaded {
	l.t.Helper()
	status, body := fetch(l.t, http.MethodPost, l.admin+"/-/reload", "")
	var done admin.Reloaded
	if err := json.Unmarshal([]byte(body), &done); err != nil || status != http.StatusOK {
		l.t.Fatalf("reload: %d %s", status, body)
	}
	l.clean(body)
	return done
}

// clean wants no secret and no token in an answer.
func (l *lab) clean(body string) {
	l.t.Helper()
	if strings.Contains(body, labSecret) || strings.Contains(body, "eyJ") {
		l.t.Errorf("a secret or a token is in %s", body)
	}
}

func (l *lab) metrics() string {
	_, body := l.get(l.admin + "/metrics")
	return body
}

// issued counts the tokens that the simulator gave for a tenant.
func (l *lab) issued(tenant string) (n int) {
	for who, count := range l.sim.Issued() {
		if who.Tenant == labID(slices.Index(labTenants, tenant)) {
			n += count
		}
	}
	return n
}
