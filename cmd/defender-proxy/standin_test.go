package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/config"
	"defender-proxy/regions"
)

// The listener that stand-in prints is one that the proxy takes as it is, and the
// lines for the hosts file are lines of one.
func TestWhatStandInPrintsCanBePasted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's a folder")
	for _, cloud := range []string{"commercial", "gcc", "gcc-high", "dod", "commercial-legacy"} {
		status, out, stderr := ran(t, "stand-in", "--cloud", cloud, "--dir", filepath.Join(dir, cloud), "--address", "127.0.0.2")
		if status != 0 || stderr != "" {
			t.Fatalf("%s: %d %s", cloud, status, stderr)
		}
		names := map[string]bool{}
		for line := range strings.Lines(out) {
			if address, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok && address == "127.0.0.2" {
				names[name] = true
			}
		}
		for _, h := range regions.MicrosoftHosts(cloud) {
			if !names[h.Name] {
				t.Errorf("%s: there is no line for %s", cloud, h.Name)
			}
		}
		_, block, _ := strings.Cut(out, "\nlisteners:\n")
		l := &lab{t: t, dir: t.TempDir()}
		l.write("secret", "a secret")
		l.write("proxy.yaml", "listeners:\n"+block+"tenants:\n"+tenantText("contoso", 0, "client_id: "+labApp+", client_secret: {file: secret}")+
			"clients: [{name: local, from: [127.0.0.0/8]}]\n")
		cfg, err := config.Load(l.path("proxy.yaml"), nothing)
		if err != nil {
			t.Fatalf("%s: %v\n%s", cloud, err, block)
		}
		got := cfg.Listeners[0]
		if got.Address != "127.0.0.2:443" || len(got.Hosts) != len(names) || got.TLS == nil || !slices.Equal(got.Clients, []string{"local"}) || len(cfg.Warnings) > 0 {
			t.Errorf("%s: %+v, warnings %v", cloud, got, cfg.Warnings)
		}
		if _, err := os.Stat(got.TLS.CertFile); err != nil {
			t.Error(err)
		}
	}
}

func TestAddressesOfListenersAreKnownBeforeTheyAreBound(t *testing.T) {
	cfg := &config.Config{
		Listeners: []config.Listener{{Address: "127.0.0.1:8080"}, {Address: ":443"}, {Address: "127.0.0.1:0"}, {Address: "unix:/run/x"}, {Address: "systemd:x"}, {Address: "[::1]:444"}},
		Admin:     config.Admin{Address: "127.0.0.1:8081"},
	}
	var got []string
	for _, a := range ownOf(cfg).list() {
		got = append(got, a.String())
	}
	if want := "127.0.0.1:8080 [::]:443 [::1]:444 127.0.0.1:8081"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
