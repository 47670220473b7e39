package config

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/clients"
)

func TestTheDoorIsTakenAsItIsWritten(t *testing.T) {
	const key = "2d2c5f1b7a9e4c60b1f3a4d5e6f70819"
	c := parsed(t, minimal+`
listeners:
  - address: unix:run/proxy.sock
    socket: {mode: 0600, owner: defender-proxy, group: 50}
  - {address: systemd:defender-proxy, clients: [soc]}
  - address: 10.1.2.3:8443
    clients: [soc, soc-leads]
    trusted_proxies: [10.1.1.0/24, "::ffff:10.1.3.4"]
    balancers: [10.1.2.10]
admin: {address: "unix:/run/admin.sock", clients: [soc-leads]}
clients:
  - name: soc
    from: [10.1.0.0/16, "unix:uid=1000", "unix:gid=50", "unix:*", "tls:CN=soc-1", "tls:DNS=Soc.corp.example", "tls:URI=spiffe://corp.example/soc"]
    headers: {x-api-key: "${KEY}", X-Other: "sha256:`+fmt.Sprintf("%x", sha256.Sum256([]byte("other")))+`"}
    allow:
      - read
      - {operations: [machines.isolate, respond.*], tenants: [contoso], until: 2030-12-31T18:00:00+01:00, when: request.body.IsolationType == "Selective"}
    deny:
      - {operations: [machines.offboard], until: "2030-12-31T18:00:00Z"}
    grants: report
  - {name: soc-leads, from: ["unix:uid=0"]}
approval: {operations: [respond.*, machines.isolate], by: [soc-leads], within: 1h}
audit: {file: audit.jsonl, max_bytes: 10MiB, keep: 3, chain: true, syslog: "tls://Log.corp.example", otlp: "https://collector.corp.example:4318/", annotate: true}
`, environment{"CONTOSO_SECRET": "s3cret", "KEY": key})

	here, err := filepath.Abs(filepath.Join("run", "proxy.sock"))
	if err != nil {
		t.Fatal(err)
	}
	socket, passed, wide := c.Listeners[0], c.Listeners[1], c.Listeners[2]
	if want := (Listener{Address: "unix:" + here, Socket: Socket{Mode: 0o600, Owner: "defender-proxy", Group: "50"}}); !reflect.DeepEqual(socket, want) || !socket.Loopback() || !socket.Unix() {
		t.Errorf("got %+v, want %+v", socket, want)
	}
	if passed.Address != "systemd:defender-proxy" || passed.Loopback() || passed.Unix() {
		t.Errorf("got %+v, want one that may be anywhere", passed)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("10.1.1.0/24"), netip.MustParsePrefix("10.1.3.4/32")}; !slices.Equal(wide.TrustedProxies, want) {
		t.Errorf("trusted proxies = %v, want %v", wide.TrustedProxies, want)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("10.1.2.10/32")}; !slices.Equal(wide.Balancers, want) {
		t.Errorf("balancers = %v, want %v", wide.Balancers, want)
	}
	if c.Admin.Address != "unix:/run/admin.sock" || !c.Admin.Loopback() {
		t.Errorf("admin = %+v", c.Admin)
	}

	soc := c.Clients[0]
	if want := from(t, "10.1.0.0/16", "unix:uid=1000", "unix:gid=50", "unix:*", "tls:CN=soc-1", "tls:DNS=soc.corp.example", "tls:URI=spiffe://corp.example/soc"); !slices.Equal(soc.From, want) {
		t.Errorf("from = %v, want %v", soc.From, want)
	}
	if want := []clients.Key{{Header: "X-Api-Key", Sum: sha256.Sum256([]byte(key))}, {Header: "X-Other", Sum: sha256.Sum256([]byte("other"))}}; !slices.Equal(soc.Keys(), want) {
		t.Errorf("keys = %v, want those of X-Api-Key and X-Other", soc.Keys())
	}
	if want := []Grant{
		{Operations: []string{"read"}},
		{
			Operations: []string{"machines.isolate", "respond.*"}, Tenants: []string{"contoso"},
			Until: time.Date(2030, 12, 31, 17, 0, 0, 0, time.UTC), When: `request.body.IsolationType == "Selective"`,
		},
	}; !reflect.DeepEqual(soc.Allow, want) {
		t.Errorf("allow = %+v, want %+v", soc.Allow, want)
	}
	if want := []Grant{{Operations: []string{"machines.offboard"}, Until: time.Date(2030, 12, 31, 18, 0, 0, 0, time.UTC)}}; !reflect.DeepEqual(soc.Deny, want) {
		t.Errorf("deny = %+v, want %+v", soc.Deny, want)
	}
	if soc.Grants != GrantsReport || c.Clients[1].Grants != GrantsEnforce {
		t.Errorf("grants = %s and %s, want report and enforce", soc.Grants, c.Clients[1].Grants)
	}
	if want := (Approval{Operations: []string{"respond.*", "machines.isolate"}, By: []string{"soc-leads"}, Within: time.Hour}); !reflect.DeepEqual(c.Approval, want) {
		t.Errorf("approval = %+v, want %+v", c.Approval, want)
	}
	if want := (Audit{
		File: "audit.jsonl", MaxBytes: 10 << 20, Keep: 3, Chain: true, Syslog: "tls://log.corp.example:6514",
		OTLP: "https://collector.corp.example:4318/v1/logs", Writes: WritesRequired, Annotate: true,
	}); c.Audit != want {
		t.Errorf("audit = %+v, want %+v", c.Audit, want)
	}
	if shown := fmt.Sprintf("%v %+v %#v", soc.Headers, soc, soc); strings.Contains(shown, key) || strings.Contains(shown, fmt.Sprintf("%x", soc.Headers["X-Api-Key"].Sum)) {
		t.Errorf("a key or its sum is shown: %s", shown)
	}
}

func TestAFileWithASocketAndNoGroupsAdmitsWhoeverCanOpenIt(t *testing.T) {
	c := parsed(t, minimal+"listeners: [{address: unix:/run/proxy.sock}]\n", contosoEnv)
	if want := from(t, "127.0.0.0/8", "::1/128", "unix:*"); len(c.Clients) != 1 || !slices.Equal(c.Clients[0].From, want) {
		t.Errorf("clients = %+v, want local from %v", c.Clients, want)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func TestWhereRecordsGoIsToldWithItsPort(t *testing.T) {
	for text, want := range map[string]string{
		"udp://log.corp.example": "udp://log.corp.example:514", "tcp://10.1.2.3/": "tcp://10.1.2.3:514",
		"tls://[2001:DB8::1]": "tls://[2001:db8::1]:6514", "tls://log:601": "tls://log:601", "unix:/dev/log": "unix:/dev/log",
	} {
		if got, reason := parseSyslog(text); got != want || reason != "" {
			t.Errorf("syslog %s is %q, %s; want %q", text, got, reason, want)
		}
	}
	for text, want := range map[string]string{
		"https://c": "https://c/v1/logs", "http://127.0.0.1:4318/": "http://127.0.0.1:4318/v1/logs", "https://c/otel/logs/": "https://c/otel/logs",
	} {
		if got, reason := parseCollector(text); got != want || reason != "" {
			t.Errorf("otlp %s is %q, %s; want %q", text, got, reason, want)
		}
	}
}

func TestADoorThatIsUnwiseIsWarnedOf(t *testing.T) {
	c := parsed(t, strings.TrimPrefix(minimal, "\n")+`
  - {name: fabrikam, id: 33333333-3333-3333-3333-333333333333, credential: {client_id: 22222222-2222-2222-2222-222222222222, client_secret: {env: CONTOSO_SECRET}}}
listeners:
  - {address: unix:/run/a.sock, clients: [a], socket: {mode: 0666}}
  - {address: 127.0.0.1:0, clients: [b, c]}
clients:
  - {name: a, from: ["unix:uid=1", "tls:CN=a"], grants: report}
  - {name: b, from: ["unix:uid=1", 127.0.0.1], tenants: [fabrikam], allow: [{operations: [read], tenants: [contoso]}]}
  - {name: c, from: ["::/0"]}
audit: {syslog: "udp://log.corp.example", otlp: "http://collector.corp.example"}
`, contosoEnv)
	want := `config.yaml:8:56: listeners[0].socket.mode: mode 0666: every user of this machine can connect; groups tell them apart by unix:uid=N and unix:gid=N
config.yaml:11:36: clients[0].from[1]: admits nobody: no listener of the group has tls.client_ca_file
config.yaml:11:49: clients[0].grants: lets pass whatever deny does not name and the token permits, changes too; set it to enforce once the records tell what the group needs
config.yaml:12:22: clients[1].from[0]: admits nobody: no listener of the group is a Unix socket
config.yaml:12:108: clients[1].allow[0].tenants[0]: "contoso" is none of the group's tenants, so that the entry has no effect on it
config.yaml:13:22: clients[2].from[0]: admits every address
config.yaml:14:9: audit.syslog: records cross the network without TLS, so that they can be read and changed there; take tls://
config.yaml:14:43: audit.otlp: records cross the network without TLS, so that they can be read and changed there; take https://`
	if got := c.Warnings.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestATenantThatIsLeftOutTakesNoEntryToTheOthers(t *testing.T) {
	dir := folder(t, map[string]string{
		"config.yaml": "tenants_dir: d\nclients:\n  - name: soc\n    from: [127.0.0.1]\n    allow:\n" +
			"      - read\n      - {operations: [respond], tenants: [bad]}\n      - {operations: [triage], tenants: [bad, good]}\n" +
			"    deny:\n      - {operations: [hunt], tenants: [bad]}\n",
		"d/good.yaml": tenantFile("01"), "d/bad.yaml": "id: oops\n",
	})
	c, err := partly(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	// An entry whose tenants are all gone would hold for every tenant, were its list
	// only emptied.
	want := []Grant{{Operations: []string{"read"}}, {Operations: []string{"triage"}, Tenants: []string{"good"}}}
	if got := c.Clients[0]; !reflect.DeepEqual(got.Allow, want) || len(got.Deny) > 0 {
		t.Errorf("allow %+v, deny %+v; want %+v and nothing", got.Allow, got.Deny, want)
	}
}

// Whoever stands on this machine cannot be told from its other programs by address.
func TestBelievingLoopbackIsWarnedOf(t *testing.T) {
	const warns = ": is on loopback, so that every program of this machine can say that it is any caller it likes"
	for text, want := range map[string]string{
		"trusted_proxies: [127.0.0.1]":                  "listeners[0].trusted_proxies[0]" + warns,
		"balancers: [10.1.2.10, 127.0.0.2]":             "listeners[0].balancers[1]" + warns,
		"balancers: [\"::1\"]":                          "listeners[0].balancers[0]" + warns,
		"trusted_proxies: [126.0.0.0/7]":                "listeners[0].trusted_proxies[0]" + warns,
		"trusted_proxies: [\"::ffff:127.0.0.1\"]":       "listeners[0].trusted_proxies[0]" + warns,
		"trusted_proxies: [10.1.1.0/24, 2001:db8::/32]": "",
	} {
		c := parsed(t, minimal+"listeners: [{address: \"127.0.0.1:0\", "+text+"}]\n", contosoEnv)
		got := c.Warnings.Error()
		if want == "" && len(c.Warnings) > 0 || !strings.Contains(got, want) {
			t.Errorf("%s: warnings %q, want %q", text, got, want)
		}
	}
}
