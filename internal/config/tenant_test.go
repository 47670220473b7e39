package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"defender-proxy/regions"
)

const (
	contosoID  = "11111111-1111-1111-1111-111111111111"
	appID      = "22222222-2222-2222-2222-222222222222"
	fabrikamID = "33333333-3333-3333-3333-333333333333"
)

// folder writes files into a new folder. Names may have folders before them.
func folder(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, []byte(content))
	}
	return dir
}

func loaded(t *testing.T, dir string) *Config {
	t.Helper()
	c, err := Load(filepath.Join(dir, "config.yaml"), contosoEnv.lookup)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func names(c *Config) (names []string) {
	for _, t := range c.Tenants {
		names = append(names, t.Name)
	}
	return names
}

func TestEachKindOfCredentialIsReadAsWritten(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name, yaml string
		want       Credential
	}{
		{"a secret in Key Vault", `{client_id: X, client_secret: {key_vault: "https://Contoso.vault.azure.net/secrets/Proxy"}}`,
			Credential{ClientID: appID, ClientSecret: Secret{KeyVault: "https://contoso.vault.azure.net/secrets/Proxy"}}},
		{"a version of a secret in a vault of one's own", `{client_id: X, client_secret: {key_vault: "https://vault.lab.example/secrets/s/0123456789abcdef0123456789abcdef/"}}`,
			Credential{ClientID: appID, ClientSecret: Secret{KeyVault: "https://vault.lab.example/secrets/s/0123456789abcdef0123456789abcdef"}}},
		{"two secrets with overlap", `{client_id: X, client_secret: {env: A}, next_client_secret: {file: b}}`,
			Credential{ClientID: appID, ClientSecret: Secret{Env: "A"}, NextClientSecret: Secret{File: filepath.Join(dir, "b")}}},
		{"a certificate with everything", `{client_id: X, certificate: {file: a.pem, key_file: /b.key, password: {env: P}}, verify_signature: true, token_version: v1}`,
			Credential{ClientID: appID, Certificate: &Certificate{File: filepath.Join(dir, "a.pem"), KeyFile: "/b.key", Password: Secret{Env: "P"}}, VerifySignature: true, TokenVersion: TokenV1}},
		{"a federated token", `{client_id: X, federated_token: {file: ../token}}`,
			Credential{ClientID: appID, FederatedToken: &FederatedToken{File: filepath.Join(filepath.Dir(dir), "token")}}},
		{"the machine's own identity", `{managed_identity: {}}`,
			Credential{ManagedIdentity: &ManagedIdentity{}}},
		{"an identity that the user assigned", `{managed_identity: {client_id: X}}`,
			Credential{ManagedIdentity: &ManagedIdentity{ClientID: appID}}},
		{"an identity as the proof of an application", `{client_id: X, managed_identity: {client_id: X, as_assertion: true}}`,
			Credential{ClientID: appID, ManagedIdentity: &ManagedIdentity{ClientID: appID, AsAssertion: true}}},
		{"a user of a public client", `{client_id: X, user: {flow: device_code, username: a@contoso.com, token_store: a.tokens, key_file: a.key}}`,
			Credential{ClientID: appID, User: &User{Flow: FlowDeviceCode, Username: "a@contoso.com", TokenStore: filepath.Join(dir, "a.tokens"), KeyFile: filepath.Join(dir, "a.key")}}},
		{"a user of a client with a secret", `{client_id: X, client_secret: {env: A}, next_client_secret: {env: B}, user: {flow: authorization_code, token_store: a}}`,
			Credential{ClientID: appID, ClientSecret: Secret{Env: "A"}, NextClientSecret: Secret{Env: "B"}, User: &User{Flow: FlowAuthorizationCode, TokenStore: filepath.Join(dir, "a")}}},
		{"a user of a client with a certificate", `{client_id: X, certificate: {file: a.pem}, user: {flow: device_code, token_store: a}}`,
			Credential{ClientID: appID, Certificate: &Certificate{File: filepath.Join(dir, "a.pem")}, User: &User{Flow: FlowDeviceCode, TokenStore: filepath.Join(dir, "a")}}},
		{"a user with a password at the old endpoint", `{client_id: X, token_version: v1, user: {flow: password, username: a@contoso.com, password: {env: P}}}`,
			Credential{ClientID: appID, TokenVersion: TokenV1, User: &User{Flow: FlowPassword, Username: "a@contoso.com", Password: Secret{Env: "P"}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.want.TokenVersion == "" {
				tc.want.TokenVersion = TokenV2
			}
			text := "tenants: [{name: contoso, id: " + contosoID + ", credential: " + strings.ReplaceAll(tc.yaml, "X", appID) + "}]\n"
			c, err := Parse(filepath.Join(dir, "config.yaml"), []byte(text), environment{}.lookup)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Tenants[0].Credential; !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, tc.want)
			}
		})
	}
}

func TestATenantTakesFromTheDefaultsWhatItLeavesOut(t *testing.T) {
	c := parsed(t, `
tenants:
  - {name: nothing, id: 00000000-0000-0000-0000-000000000001}
  - name: everything
    id: 00000000-0000-0000-0000-000000000002
    cloud: commercial
    credential: {client_id: 00000000-0000-0000-0000-00000000000a, token_version: v2, verify_signature: false, certificate: {file: a.pem}}
    regions: {allow: [uk], prefer: auto}
    hunting: legacy
  - {name: application, id: 00000000-0000-0000-0000-000000000003, credential: {client_id: 00000000-0000-0000-0000-00000000000b}}
  - {name: next, id: 00000000-0000-0000-0000-000000000004, credential: {next_client_secret: {env: OTHER}}}
  - {name: proof, id: 00000000-0000-0000-0000-000000000005, credential: {client_secret: {env: OTHER}}}
  - {name: identity, id: 00000000-0000-0000-0000-000000000006, credential: {managed_identity: {}}}
  - {name: assertion, id: 00000000-0000-0000-0000-000000000007, credential: {managed_identity: {as_assertion: true}}}
  - {name: list, id: 00000000-0000-0000-0000-000000000008, regions: {allow: [us, eu]}}
tenant_defaults:
  cloud: lab
  credential:
    client_id: `+appID+`
    client_secret: {env: CONTOSO_SECRET}
    next_client_secret: {env: NEXT}
    token_version: v1
    verify_signature: true
  regions: {allow: [eu, uk], prefer: eu}
clouds:
  - name: lab
    authority: https://login.lab.example
    endpoints: {mde: {eu: "https://eu.lab.example", uk: "https://uk.lab.example", us: "https://us.lab.example"}}
    audiences: {mde: "https://lab.example"}
`, contosoEnv)
	first, next, other := Secret{Env: "CONTOSO_SECRET"}, Secret{Env: "NEXT"}, Secret{Env: "OTHER"}
	shared := Credential{ClientID: appID, ClientSecret: first, NextClientSecret: next, TokenVersion: TokenV1, VerifySignature: true}
	with := func(change func(*Credential)) Credential {
		c := shared
		change(&c)
		return c
	}
	euUK := TenantRegions{Allow: []regions.Name{"eu", "uk"}, Prefer: "eu"}
	for i, want := range []Tenant{
		{Name: "nothing", Cloud: "lab", Credential: shared, Regions: euUK},
		{Name: "everything", Cloud: "commercial", Credential: Credential{ClientID: "00000000-0000-0000-0000-00000000000a", Certificate: &Certificate{File: "a.pem"}, TokenVersion: TokenV2}, Regions: TenantRegions{Allow: []regions.Name{"uk"}}},
		{Name: "application", Cloud: "lab", Credential: with(func(c *Credential) { c.ClientID = "00000000-0000-0000-0000-00000000000b" }), Regions: euUK},
		{Name: "next", Cloud: "lab", Credential: with(func(c *Credential) { c.NextClientSecret = other }), Regions: euUK},
		{Name: "proof", Cloud: "lab", Credential: with(func(c *Credential) { c.ClientSecret, c.NextClientSecret = other, Secret{} }), Regions: euUK},
		{Name: "identity", Cloud: "lab", Credential: Credential{ManagedIdentity: &ManagedIdentity{}, TokenVersion: TokenV2, VerifySignature: true}, Regions: euUK},
		{Name: "assertion", Cloud: "lab", Credential: with(func(c *Credential) {
			c.ClientSecret, c.NextClientSecret, c.ManagedIdentity = Secret{}, Secret{}, &ManagedIdentity{AsAssertion: true}
		}), Regions: euUK},
		{Name: "list", Cloud: "lab", Credential: shared, Regions: TenantRegions{Allow: []regions.Name{"us", "eu"}, Prefer: "eu"}},
	} {
		t.Run(want.Name, func(t *testing.T) {
			want.ID, want.Hunting = c.Tenants[i].ID, "legacy"
			if got := c.Tenants[i]; !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, want)
			}
		})
	}
}

func TestAnApplicationItselfAndAUserOfItAreTwoTenants(t *testing.T) {
	c := parsed(t, minimal+`
  - name: contoso-analyst
    id: 11111111-1111-1111-1111-111111111111
    credential: {client_id: 22222222-2222-2222-2222-222222222222, user: {flow: device_code, token_store: a}}
  - name: contoso-machine
    id: 11111111-1111-1111-1111-111111111111
    credential: {managed_identity: {}}
  - name: contoso-other-machine
    id: 11111111-1111-1111-1111-111111111111
    credential: {managed_identity: {client_id: 22222222-2222-2222-2222-222222222222}}
`, contosoEnv)
	if len(c.Tenants) != 4 {
		t.Errorf("got %q, want all four", names(c))
	}
}

func TestATenantThatIsImpairedStopsNobodyElse(t *testing.T) {
	c := parsed(t, minimal+`
  - name: fabrikam
    id: 33333333-3333-3333-3333-333333333333
    credential: {client_id: 22222222-2222-2222-2222-222222222222, client_secret: {env: NOT_SET}}
`, contosoEnv)
	if got := names(c); len(got) != 2 {
		t.Errorf("tenants = %q, want both", got)
	}
	want := []Impairment{{Tenant: "fabrikam", Fault: Fault{"config.yaml", 9, 83, "tenants[1].credential.client_secret.env", "the environment variable NOT_SET is not set"}}}
	if !reflect.DeepEqual(c.Impaired, want) {
		t.Errorf("impaired = %+v, want %+v", c.Impaired, want)
	}
}

func TestTenantsMayHaveFilesOfTheirOwn(t *testing.T) {
	dir := folder(t, map[string]string{
		"config.yaml": minimal + "tenants_dir: tenants.d\ntenant_defaults: {credential: {client_id: " + appID + "}}\n" +
			"clients: [{name: soc, from: [127.0.0.1], tenants: [contoso, b, named]}]\nlisteners: [{address: 127.0.0.1:0, tenant: b}]\n",
		"tenants.d/b.yaml":         "id: " + fabrikamID + "\ncredential: {client_secret: {file: b.secret}}\nregions: {allow: [eu]}\n",
		"tenants.d/a.yml":          "name: named\nid: 00000000-0000-0000-0000-000000000001\ncredential: {client_secret: {env: CONTOSO_SECRET}}\n",
		"tenants.d/b.secret":       "s3cret",
		"tenants.d/.hidden.yaml":   "not a tenant",
		"tenants.d/..data/c.yaml":  "not a tenant",
		"tenants.d/notes.txt":      "not a tenant",
		"tenants.d/a.yaml.bak":     "not a tenant",
		"tenants.d/b.secret.d/yml": "not a tenant",
	})
	c := loaded(t, dir)
	if got, want := names(c), []string{"contoso", "named", "b"}; !slices.Equal(got, want) {
		t.Fatalf("tenants = %q, want %q: those of files behind the others, by the files' names", got, want)
	}
	want := Tenant{
		Name: "b", ID: fabrikamID, Cloud: "commercial", Hunting: "legacy", Regions: TenantRegions{Allow: []regions.Name{"eu"}},
		Credential: Credential{ClientID: appID, ClientSecret: Secret{File: filepath.Join(dir, "tenants.d", "b.secret")}, TokenVersion: TokenV2},
	}
	if got := c.Tenants[2]; !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if len(c.Impaired) > 0 || len(c.Warnings) > 0 {
		t.Errorf("impaired: %v, warnings: %v", c.Impaired, c.Warnings)
	}
}

// Kubernetes mounts a folder whose files are links into ..data, which is a link
// to the folder of the present version.
func TestAFolderThatKubernetesMountsIsReadThroughItsLinks(t *testing.T) {
	dir := folder(t, map[string]string{
		"config.yaml": "tenants_dir: mount\n",
		"mount/..2026_01/fabrikam.yaml": "id: " + fabrikamID +
			"\ncredential: {client_id: " + appID + ", client_secret: {env: CONTOSO_SECRET}}\n",
	})
	mount := filepath.Join(dir, "mount")
	for link, target := range map[string]string{"..data": "..2026_01", "fabrikam.yaml": filepath.Join("..data", "fabrikam.yaml")} {
		if err := os.Symlink(target, filepath.Join(mount, link)); err != nil {
			if runtime.GOOS == "windows" {
				return // where making links is a privilege
			}
			t.Fatal(err)
		}
	}
	if got := names(loaded(t, dir)); !slices.Equal(got, []string{"fabrikam"}) {
		t.Errorf("tenants = %q, want fabrikam", got)
	}
	// Half way through a swap the link leads nowhere: a fault, and the
	// configuration before goes on.
	if err := os.Remove(filepath.Join(mount, "..data")); err != nil {
		t.Fatal(err)
	}
	_, err := Load(filepath.Join(dir, "config.yaml"), contosoEnv.lookup)
	if err == nil || !strings.HasSuffix(err.Error(), "cannot be read: file does not exist") {
		t.Errorf("got %v, want a fault of the file", err)
	}
}

func TestAFolderOfTenantsHasItsBounds(t *testing.T) {
	tenant := "id: " + fabrikamID + "\ncredential: {client_id: " + appID + ", client_secret: {env: CONTOSO_SECRET}}\n"
	many := map[string]string{"config.yaml": "tenants_dir: d\n"}
	for i := range maxTenantFiles + 1 {
		many[fmt.Sprintf("d/t%d.yaml", i)] = ""
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"a file over 64KiB", map[string]string{"d/a.yaml": tenant + strings.Repeat("# comment\n", 1<<13)}, "a.yaml has more than 65536 bytes"},
		{"a folder called as a file is", map[string]string{"d/a.yaml/b.yaml": tenant}, "a.yaml is not a regular file"},
		{"more than ten thousand files", many, "tenants_dir: the folder has 10001 files of tenants; at most 10000 are read"},
		{"a name with a line end in it", map[string]string{"d/a\nb.yaml": "id: me\n"}, "a b.yaml:1:1: id: \"me\" is not a GUID such as 11111111-1111-1111-1111-111111111111"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(tc.want, "a b.yaml") {
				return // which has no such names
			}
			tc.files["config.yaml"] = "tenants_dir: d\n"
			_, err := Load(filepath.Join(folder(t, tc.files), "config.yaml"), contosoEnv.lookup)
			faults, _ := errors.AsType[Faults](err)
			if len(faults) == 0 || !slices.ContainsFunc(faults, func(f Fault) bool { return strings.HasSuffix(f.String(), tc.want) }) {
				t.Errorf("got %v, want …%s", err, tc.want)
			}
			if strings.Count(fmt.Sprint(err), "\n") != max(0, len(faults)-1) {
				t.Errorf("a fault has more than one line: %q", err)
			}
		})
	}
}

func TestPrivateFilesThatOthersCanReadAreWarnedOf(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // where modes say nothing
	}
	dir := folder(t, map[string]string{
		"config.yaml": `
tenant_defaults: {credential: {client_id: ` + appID + `, client_secret: {file: shared}}}
tenants:
  - {name: one, id: 00000000-0000-0000-0000-000000000001}
  - {name: two, id: 00000000-0000-0000-0000-000000000002}
  - {name: pem, id: 00000000-0000-0000-0000-000000000003, credential: {certificate: {file: both.pem}}}
  - {name: pair, id: 00000000-0000-0000-0000-000000000004, credential: {certificate: {file: public.pem, key_file: private.key}}}
  - {name: user, id: 00000000-0000-0000-0000-000000000005, credential: {user: {flow: device_code, token_store: tokens, key_file: key}}}
  - {name: federated, id: 00000000-0000-0000-0000-000000000006, credential: {federated_token: {file: federated}}}
`,
		"shared": "x", "both.pem": "x", "public.pem": "x", "private.key": "x", "tokens": "x", "key": "x", "federated": "x",
	})
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Chmod(filepath.Join(dir, e.Name()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := loaded(t, dir)
	got := strings.ReplaceAll(c.Warnings.Error(), dir+string(filepath.Separator), "")
	want := `config.yaml:2:97: tenant_defaults.credential.client_secret.file: mode 0644: others can read it; chmod 600
config.yaml:6:86: tenants[2].credential.certificate.file: mode 0644: others can read it; chmod 600
config.yaml:7:105: tenants[3].credential.certificate.key_file: mode 0644: others can read it; chmod 600
config.yaml:8:99: tenants[4].credential.user.token_store: mode 0644: others can read it; chmod 600
config.yaml:8:120: tenants[4].credential.user.key_file: mode 0644: others can read it; chmod 600`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFilesAreThoseWhoseContentDecides(t *testing.T) {
	cert, key := certificate(t)
	dir := folder(t, map[string]string{
		"config.yaml": `
tenants_dir: d
egress: {ca_file: ca.pem}
listeners: [{address: 127.0.0.1:0, tls: {cert_file: tls.pem, key_file: tls.key}}]
tenant_defaults: {credential: {client_id: ` + appID + `, client_secret: {file: secret}, next_client_secret: {file: next}}}
tenants:
  - {name: one, id: 00000000-0000-0000-0000-000000000001}
  - {name: two, id: 00000000-0000-0000-0000-000000000002}
  - {name: pair, id: 00000000-0000-0000-0000-000000000004, credential: {certificate: {file: a.pem, key_file: a.key, password: {file: a.password}}}}
  - {name: user, id: 00000000-0000-0000-0000-000000000005, credential: {user: {flow: device_code, token_store: tokens, key_file: key}}}
  - {name: password, id: 00000000-0000-0000-0000-000000000006, credential: {user: {flow: password, username: a, password: {file: password}}}}
  - {name: federated, id: 00000000-0000-0000-0000-000000000007, credential: {federated_token: {file: federated}}}
  - {name: variable, id: 00000000-0000-0000-0000-000000000008, credential: {client_secret: {env: CONTOSO_SECRET}}}
`,
		"ca.pem": string(cert), "tls.pem": string(cert), "tls.key": string(key), "d/three.yaml": "id: 00000000-0000-0000-0000-000000000003\n",
	})
	want := []string{"config.yaml", "d", "d/three.yaml", "a.key", "a.password", "a.pem", "ca.pem", "key", "next", "password", "secret", "tls.key", "tls.pem"}
	for i := range want {
		want[i] = filepath.Join(dir, filepath.FromSlash(want[i]))
	}
	c := loaded(t, dir)
	if got := c.Files(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// What changes by itself brings no reload, and is a credential's file all the same.
	for name, want := range map[string][]string{"federated": {"federated"}, "user": {"key", "tokens"}, "variable": nil} {
		i := slices.Index(names(c), name)
		var got []string
		for _, f := range c.Tenants[i].Credential.Files() {
			got = append(got, filepath.Base(f))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is read from %q, want %q", name, got, want)
		}
	}
}
