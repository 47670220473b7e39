package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/tenant"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// environment is a set of variables.
type environment map[string]string

func (e environment) lookup(name string) (string, bool) {
	v, ok := e[name]
	return v, ok
}

// minimal is the shortest configuration there is.
const minimal = `
tenants:
  - name: contoso
    id: 11111111-1111-1111-1111-111111111111
    credential: {client_id: 22222222-2222-2222-2222-222222222222, client_secret: {env: CONTOSO_SECRET}}
`

var contosoEnv = environment{"CONTOSO_SECRET": "s3cret"}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificate makes a certificate of its own authority, and its key.
func certificate(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func parsed(t *testing.T, text string, env environment) *Config {
	t.Helper()
	c, err := Parse("config.yaml", []byte(text), env.lookup)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func from(t *testing.T, list ...string) (out []clients.Source) {
	t.Helper()
	for _, s := range list {
		source, err := clients.ParseSource(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, source)
	}
	return out
}

func TestWhatIsLeftOutHasTheDefaultsOfTheDesign(t *testing.T) {
	got := parsed(t, minimal, contosoEnv)
	want := &Config{
		Listeners: []Listener{{Address: "127.0.0.1:8080", Socket: Socket{Mode: 0o660}}},
		Admin:     Admin{Address: "127.0.0.1:8081", Socket: Socket{Mode: 0o660}},
		Clients: []ClientGroup{{
			Name: "local", From: from(t, "127.0.0.0/8", "::1/128"), Allow: Granting("read", "hunt"), Grants: GrantsEnforce,
		}},
		Tenants: []Tenant{{
			Name:  "contoso",
			ID:    "11111111-1111-1111-1111-111111111111",
			Cloud: "commercial",
			Credential: Credential{
				ClientID:     "22222222-2222-2222-2222-222222222222",
				ClientSecret: Secret{Env: "CONTOSO_SECRET"},
				TokenVersion: TokenV2,
			},
			Hunting: "legacy",
		}},
		PlaceholderToken: true,

		Policy:   Policy{UnknownOperations: UnknownDeny, Claims: ClaimsEnforce},
		Approval: Approval{Within: 15 * time.Minute},
		Regions: Regions{
			ProbeInterval: 30 * time.Second, SwitchMargin: 0.2, SwitchMarginMin: 10 * time.Millisecond,
			ConnectTimeout: 5 * time.Second, FirstByteTimeout: 240 * time.Second,
		},
		Quota: Quota{MaxWait: 4 * time.Second, Share: "fair"},
		Cache: Cache{MaxBytes: 64 << 20},
		Audit: Audit{File: Stdout, Keep: 10, Writes: WritesRequired},
		Limits: Limits{
			MaxInFlight: 512, TokenConcurrency: 16, MaxRequestBytes: 32 << 20, HeaderBytes: 32 << 10, ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout: 120 * time.Second, ShutdownTimeout: 30 * time.Second,
		},
		Store:   "memory",
		sources: []string{"config.yaml"},
	}
	got.TenantDefaults = TenantDefaults{} // Tenants hold what it says
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestWhatIsWrittenDownIsTaken(t *testing.T) {
	c := parsed(t, `
listeners:
  - address: 10.1.2.3:8443
    tenant: fabrikam
    hosts: [Defender.Corp.Example, "[2001:DB8::1]:8443", us.api.security.microsoft.com]
    clients: [soc]
    public_url: https://defender.corp.example:8443/
clients:
  - name: soc
    from: [10.1.2.3, "::ffff:10.2.0.0/112", "2001:db8::/32"]
    tenants: [fabrikam]
    allow: [respond, "machines.*", "GET /api/machines/{id}"]
    deny: [libraryfiles.*]
  - {name: nobody, from: [192.0.2.1], allow: []}
tenants:
  - name: fabrikam
    id: ABCDEF01-2345-6789-abcd-ef0123456789
    cloud: lab
    credential:
      client_id: ABCDEF01-2345-6789-ABCD-EF0123456789
      client_secret: {env: CONTOSO_SECRET}
      token_version: v1
    regions: {allow: [us, eu], prefer: eu}
forward_headers: [x-ms-correlation-id]
policy:
  unknown_operations: read
  claims: report
  operations: [{id: machines.isolate, application: [Machine.Isolate, Lab.All]}]
regions: {switch_margin: 12.5%, switch_margin_min: 1ms500us}
egress: {proxy: "http://proxy.corp:3128/"}
audit: {file: /var/log/audit.jsonl, writes: best_effort}
limits: {max_in_flight: 7, max_request_bytes: 1MiB}
quota: {enforce: false, max_wait: 1s}
relay: {downloads: false}
clouds:
  - name: lab
    authority: http://127.0.0.1:9000
    endpoints: {mde: {us: "https://us.lab.example:8443/", eu: "http://[::1]:9001"}}
    audiences: {mde: https://api.securitycenter.microsoft.com}
    blob_hosts: ["*.Blob.Core.Windows.Net", "http://127.0.0.1:10000", "https://blob.lab.example"]
`, contosoEnv)

	l := c.Listeners[0]
	if want := []string{"defender.corp.example", "[2001:db8::1]:8443", "us.api.security.microsoft.com"}; !slices.Equal(l.Hosts, want) {
		t.Errorf("hosts = %q, want %q", l.Hosts, want)
	}
	if l.PublicURL != "https://defender.corp.example:8443" || l.Loopback() {
		t.Errorf("listener = %+v, loopback %t", l, l.Loopback())
	}
	if want := from(t, "10.1.2.3/32", "10.2.0.0/16", "2001:db8::/32"); !slices.Equal(c.Clients[0].From, want) {
		t.Errorf("from = %v, want %v", c.Clients[0].From, want)
	}
	if c.Clients[1].Allow == nil || len(c.Clients[1].Allow) != 0 {
		t.Errorf("an empty allow became %q, want nothing granted", c.Clients[1].Allow)
	}
	f := c.Tenants[0]
	if want := tenant.ID("abcdef01-2345-6789-abcd-ef0123456789"); f.ID != want || f.Credential.ClientID != string(want) {
		t.Errorf("ids = %s, %s, want both in lower case", f.ID, f.Credential.ClientID)
	}
	if want := (TenantRegions{Allow: []regions.Name{"us", "eu"}, Prefer: "eu"}); !reflect.DeepEqual(f.Regions, want) {
		t.Errorf("regions = %+v, want %+v", f.Regions, want)
	}
	if f.Credential.TokenVersion != TokenV1 || c.Policy.UnknownOperations != UnknownRead || c.Policy.Claims != ClaimsReport || c.Audit.Writes != WritesBestEffort {
		t.Errorf("choices = %v, %+v, %v", f.Credential.TokenVersion, c.Policy, c.Audit.Writes)
	}
	if want := []string{"X-Ms-Correlation-Id"}; !slices.Equal(c.ForwardHeaders, want) {
		t.Errorf("forward_headers = %q, want %q", c.ForwardHeaders, want)
	}
	if want := []policy.Operation{{ID: "machines.isolate", Application: []policy.Permission{"Machine.Isolate", "Lab.All"}}}; !reflect.DeepEqual(c.Policy.Operations, want) {
		t.Errorf("operations = %+v, want %+v", c.Policy.Operations, want)
	}
	if c.Regions.SwitchMargin != 0.125 || c.Regions.SwitchMarginMin != 1500*time.Microsecond || c.Regions.ProbeInterval != 30*time.Second {
		t.Errorf("regions = %+v", c.Regions)
	}
	if c.Egress.Proxy != "http://proxy.corp:3128" || c.Audit.File != filepath.Clean("/var/log/audit.jsonl") || c.Limits.MaxInFlight != 7 || c.Limits.MaxRequestBytes != 1<<20 {
		t.Errorf("egress %+v, audit %+v, limits %+v", c.Egress, c.Audit, c.Limits)
	}
	lab, ok := c.Cloud("lab")
	want := regions.Cloud{
		Name: "lab", Authority: "http://127.0.0.1:9000",
		Endpoints: map[regions.Service]map[regions.Name]string{"mde": {"us": "https://us.lab.example:8443", "eu": "http://[::1]:9001"}},
		Audiences: map[regions.Service]string{"mde": "https://api.securitycenter.microsoft.com"},
		BlobHosts: []string{"*.blob.core.windows.net", "http://127.0.0.1:10000", "blob.lab.example"},
	}
	if !ok || !reflect.DeepEqual(lab, want) {
		t.Errorf("lab = %+v, want %+v", lab, want)
	}
	if dod, ok := c.Cloud("dod"); !ok || dod.Authority != "https://login.microsoftonline.us" {
		t.Errorf("dod = %+v, %t", dod, ok)
	}
	if _, ok := c.Cloud("no-such"); ok {
		t.Error("a cloud that nobody configured was found")
	}
}

func TestAnIPv6AddressInBracketsNeedsNoQuotes(t *testing.T) {
	cfg := parsed(t, minimal+"clients: [{name: local, from: [127.0.0.0/8, ::1/128]}]\n", contosoEnv)
	if list := cfg.Clients[0].From; len(list) != 2 || list[1].String() != "::1/128" {
		t.Errorf("from is %v, want the two prefixes", list)
	}
}

func TestVariablesAreTextAndAreReadOnce(t *testing.T) {
	env := environment{
		"CONTOSO_SECRET": "s3cret", "N": "7", "D": "9s", "S": "2MiB", "P": "30%", "FALSE": "false", "HOST": "a.example",
		"ONION": "${N}", "YAML": "memory}\nlimits: {max_in_flight: 9", "DIR": "/var/log",
	}
	c := parsed(t, minimal+`
listeners: [{address: "127.0.0.1:0", hosts: ["${HOST}", "b.${HOST}:8080"]}]
limits: {max_in_flight: "${N}", idle_timeout: "${D}", max_request_bytes: "${S}"}
regions:
  switch_margin: ${P}
relay: {downloads: "${FALSE}"}
audit: {file: "${DIR}/$$/$/${N}$"}
policy:
  operations: [{id: machines.isolate, notes: "${ONION}"}]
`, env)
	if c.Limits.MaxInFlight != 7 || c.Limits.IdleTimeout != 9*time.Second || c.Limits.MaxRequestBytes != 2<<20 || c.Regions.SwitchMargin != 0.3 {
		t.Errorf("limits = %+v, regions = %+v", c.Limits, c.Regions)
	}
	if want := []string{"a.example", "b.a.example:8080"}; !slices.Equal(c.Listeners[0].Hosts, want) {
		t.Errorf("hosts = %q, want %q", c.Listeners[0].Hosts, want)
	}
	if want := filepath.Clean("/var/log/$$/$/7$"); c.Audit.File != want {
		t.Errorf("audit.file = %q, want %q", c.Audit.File, want)
	}
	if got := c.Policy.Operations[0].Notes; got != "${N}" {
		t.Errorf("a value was searched for variables again: %q", got)
	}
	_, err := Parse("config.yaml", []byte(minimal+"store: ${YAML}\n"), env.lookup)
	if faults, _ := errors.AsType[Faults](err); len(faults) != 1 || faults[0].Key != "store" {
		t.Errorf("a value was read as YAML: %v", err)
	}
}

func TestAValueThatAsksForNothingUnbuiltPasses(t *testing.T) {
	for _, text := range []string{
		"quota: {enforce: false}", "quota: {max_wait: 9s, share: fair, enforce: false}", "relay: {downloads: false}",
		"quota: {max_wait: 9s}", "quota: {max_wait: 0s}", "relay: {}", "cache: {}", "cache: {ttl: {}, max_bytes: 1MiB}", "store: memory", "tenant_defaults: {}", "tenant_defaults: {hunting: legacy}",
		"clients: [{name: a, from: [127.0.0.1]}]", "quota: {}",
	} {
		t.Run(text, func(t *testing.T) { parsed(t, minimal+text+"\n", contosoEnv) })
	}
}

func TestFilesAreLookedForBesideTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "contoso.secret"), []byte("s3cret\n"))
	write(t, filepath.Join(dir, "config.yaml"), []byte(strings.Replace(minimal, "env: CONTOSO_SECRET", "file: contoso.secret", 1)))
	c, err := Load(filepath.Join(dir, "config.yaml"), environment{}.lookup)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Tenants[0].Credential.ClientSecret.Resolve(environment{}.lookup)
	if err != nil || got != "s3cret" {
		t.Errorf("Resolve = %q, %v", got, err)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func TestWhatIsAllowedButUnwiseIsWarnedOf(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "contoso.secret")
	write(t, secret, []byte("s3cret"))
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(minimal, "env: CONTOSO_SECRET", "file: contoso.secret", 1) + `
clients: [{name: all, from: [0.0.0.0/0]}]
clouds: [{name: dod, authority: "https://a.example", endpoints: {mde: {us: "https://b.example"}}, audiences: {mde: "https://b.example"}}]
`
	c, err := Parse(filepath.Join(dir, "config.yaml"), []byte(text), environment{}.lookup)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(c.Warnings.Error(), dir+string(filepath.Separator), "")
	want := `config.yaml:5:83: tenants[0].credential.client_secret.file: mode 0644: others can read it; chmod 600
config.yaml:7:30: clients[0].from[0]: admits every address
config.yaml:8:11: clouds[0].name: replaces the built-in cloud of that name`
	if runtime.GOOS == "windows" { // where modes say nothing
		_, want, _ = strings.Cut(want, "\n")
	}
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEachDefaultLiesWithinItsBounds(t *testing.T) {
	fields := 0
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Type.Kind() == reflect.Struct && !isScalar(f.Type) {
				walk(f.Type)
			}
			r := rulesOf(f)
			if r.min == "" {
				continue
			}
			fields++
			low, def, high := bound(r.min, f.Type, r.kind), bound(r.def, f.Type, r.kind), bound(r.max, f.Type, r.kind)
			if less(def, low) || less(high, def) {
				t.Errorf("%s.%s: default %s is not from %s to %s", typ.Name(), f.Name, r.def, r.min, r.max)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	if fields < 10 {
		t.Errorf("found %d bounded fields only", fields)
	}
}

func TestASecretResolvesToItsValueAlone(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) Secret {
		path := filepath.Join(dir, name)
		write(t, path, []byte(content))
		return Secret{File: path}
	}
	env := environment{"PLAIN": marker, "LINE": marker + "\n", "EMPTY": ""}
	for _, tc := range []struct {
		name   string
		secret Secret
		want   string
		fails  string
	}{
		{name: "a variable", secret: Secret{Env: "PLAIN"}, want: marker},
		{name: "a variable with a line end", secret: Secret{Env: "LINE"}, want: marker},
		{name: "a file without a line end", secret: file("plain", marker), want: marker},
		{name: "a file with a line end", secret: file("unix", marker+"\n"), want: marker},
		{name: "a file with a line end of Windows", secret: file("windows", marker+"\r\n"), want: marker},
		{name: "a file with two line ends keeps one", secret: file("two", marker+"\n\n"), want: marker + "\n"},
		{name: "nothing", fails: "neither env nor file"},
		{name: "a secret in Key Vault", secret: Secret{KeyVault: "https://v.vault.azure.net/secrets/s"}, fails: "the Key Vault secret https://v.vault.azure.net/secrets/s is not read from here"},
		{name: "both", secret: Secret{Env: "PLAIN", File: "x"}, fails: "exactly one"},
		{name: "a variable that is not set", secret: Secret{Env: "NOT_SET"}, fails: "the environment variable NOT_SET is not set"},
		{name: "a variable that is empty", secret: Secret{Env: "EMPTY"}, fails: "the environment variable EMPTY is empty"},
		{name: "a file that is empty", secret: file("empty", "\n"), fails: "empty is empty"},
		{name: "a file that does not exist", secret: Secret{File: filepath.Join(dir, "no-such")}, fails: "file does not exist"},
		{name: "a directory", secret: Secret{File: dir}, fails: "not a regular file"},
		{name: "a file that is too long", secret: file("long", strings.Repeat(marker, 1<<16)), fails: "more than 65536 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.secret.Resolve(env.lookup)
			if tc.fails == "" {
				if got != tc.want || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, tc.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.fails) || got != "" {
				t.Errorf("got %q, %v, want an error with %q", got, err, tc.fails)
			}
			if err != nil && strings.Contains(err.Error(), marker) {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}
