package config

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestResolveAndRelayAreReadAsTheyAreMeant(t *testing.T) {
	key := strings.Repeat("k", leastKeyBytes)
	env := environment{"CONTOSO_SECRET": marker, "KEY": key, "OLD": key + "2\n"}
	c := parsed(t, minimal+`
placeholder_token: false
egress:
  resolve:
    servers: [10.0.0.53, "10.0.0.54:5353", "::1", "[2001:db8::53]:53", "::ffff:10.0.0.55"]
    hosts:
      login.microsoftonline.com: [10.0.0.7, "2001:db8::7"]
relay: {downloads: true, keys: [{env: KEY}, {env: OLD}]}
`, env)
	var servers []string
	for _, s := range c.Egress.Resolve.Servers {
		servers = append(servers, s.String())
	}
	if got, want := strings.Join(servers, " "), "10.0.0.53:53 10.0.0.54:5353 [::1]:53 [2001:db8::53]:53 10.0.0.55:53"; got != want {
		t.Errorf("servers are %s, want %s", got, want)
	}
	if got, want := c.Egress.Resolve.Hosts, (map[string][]netip.Addr{
		"login.microsoftonline.com": {netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("2001:db8::7")},
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("hosts are %v, want %v", got, want)
	}
	if c.PlaceholderToken {
		t.Error("placeholder_token: false was read as true")
	}
	keys, err := c.Relay.SealingKeys(env.lookup)
	if want := [][]byte{[]byte(key), []byte(key + "2")}; err != nil || !reflect.DeepEqual(keys, want) {
		t.Errorf("got %d keys and %v, want both without their line ends", len(keys), err)
	}
	env["OLD"] = "short"
	if keys, err = c.Relay.SealingKeys(env.lookup); err == nil || keys != nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a key that became short: got %d keys and %v, want an error that does not show it", len(keys), err)
	}
}

func TestKeysOfARelayThatIsOffAndAutoOutsideOfItsRegionAreWarnedOf(t *testing.T) {
	env := environment{"CONTOSO_SECRET": marker, "KEY": strings.Repeat("k", leastKeyBytes)}
	c := parsed(t, minimal+"\n    hunting: auto\n    regions: {allow: [eu]}\nrelay: {keys: [{env: KEY}]}\n", env)
	var text bytes.Buffer
	for _, w := range c.Warnings {
		text.WriteString(w.String() + "\n")
	}
	for _, want := range []string{"relay.keys: have no effect without downloads: true", "tenants[0].hunting: regions.allow leaves out Microsoft Graph, which is in region global"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the warnings are\n%swithout %q", &text, want)
		}
	}
	const lab = "\nclouds:\n  - {name: lab, authority: 'https://login.lab.example', endpoints: {mde: {eu: 'https://eu.lab.example'}}, audiences: {mde: 'https://api.lab.example'}}\n"
	for _, allowed := range []string{"", "\n    regions: {allow: [eu]}"} {
		c = parsed(t, minimal+"\n    cloud: lab\n    hunting: auto"+allowed+lab, env)
		if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].String(), "tenants[0].hunting: the cloud lab has no Microsoft Graph (service graph)") {
			t.Errorf("auto in a cloud without Graph, regions%q: the warnings are %v", allowed, c.Warnings)
		}
	}
	c = parsed(t, minimal+"\n    hunting: graph\n    regions: {allow: [eu, global]}\n", env)
	if len(c.Warnings) > 0 {
		t.Errorf("graph inside of its region is warned of: %v", c.Warnings)
	}
}

func TestAChangedKeyOfTheRelayBringsAReload(t *testing.T) {
	c := &Config{Relay: Relay{Keys: []Secret{{File: "/run/relay.key"}, {Env: "KEY"}}}}
	if got := c.Files(); len(got) != 1 || got[0] != "/run/relay.key" {
		t.Errorf("watched files are %v, want the key's", got)
	}
}

func TestNamesThatTheCertificateOfAListenerIsNotForAreWarnedOf(t *testing.T) {
	path := exampleFiles(t) // server.pem is for localhost alone
	text := minimal + `
listeners:
  - address: 127.0.0.1:8443
    hosts: [localhost, "localhost:8443", api.security.microsoft.com, "[::1]:8443"]
    tls: {cert_file: server.pem, key_file: server.key}
`
	c, err := Parse(path, []byte(text), contosoEnv.lookup)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, w := range c.Warnings {
		all = append(all, w.String())
	}
	if got := strings.Join(all, "\n"); !strings.Contains(got, `tls.cert_file: the certificate is not for "api.security.microsoft.com", "::1", among hosts`) {
		t.Errorf("the warnings are %s", got)
	}
}
