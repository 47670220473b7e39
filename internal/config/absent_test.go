package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// tenantFile is a good one, with the last digits of its id.
func tenantFile(id string) string {
	return "id: 00000000-0000-0000-0000-0000000000" + id + "\ncredential: {client_id: " + appID + ", client_secret: {env: CONTOSO_SECRET}}\n"
}

func partly(t *testing.T, dir string) (*Config, error) {
	t.Helper()
	return LoadPartly(filepath.Join(dir, "config.yaml"), contosoEnv.lookup)
}

// One bad tenant stopped the whole process (cloud-sql-proxy#2451).
func TestAFaultyFileLeavesItsTenantOutAndStartsTheOthers(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		tenant     string // as it is told
		want       string // in its faults
	}{
		{"an id that is none", "id: oops\ncredential: {client_id: " + appID + ", client_secret: {env: A}}\n", "bad", `bad.yaml:1:1: id: "oops" is not a GUID`},
		{"a key that is unknown", tenantFile("09") + "stor: x\n", "bad", "bad.yaml:3:1: stor: unknown key"},
		{"no YAML at all", "id: [\n", "bad", "bad.yaml:2: not valid YAML"},
		{"an empty file", "", "bad", "bad.yaml: the file is empty"},
		{"no credential", "id: " + fabrikamID + "\n", "bad", "bad.yaml:1:1: credential: is missing"},
		{"a region that is none", tenantFile("09") + "regions: {allow: [mars]}\n", "bad", "bad.yaml:3:19: regions.allow[0]: "},
		{"a name of its own", "name: spare\nid: oops\n", "spare", "bad.yaml:2:1: id: "},
		{"a name that is none", "name: A B\n" + tenantFile("09"), "bad", "bad.yaml:1:1: name: "},
		{"another tenant's id, and worse", tenantFile("01") + "stor: x\n", "bad", "stor: unknown key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := folder(t, map[string]string{
				"config.yaml": "tenants_dir: d\nlisteners: [{address: 127.0.0.1:0, tenant: " + tc.tenant + "}, {address: 127.0.0.2:0, tenant: good}]\nclients:\n" +
					"  - {name: both, from: [10.0.0.1], tenants: [good, " + tc.tenant + "]}\n" +
					"  - {name: one, from: [10.0.0.2], tenants: [" + tc.tenant + "]}\n" +
					"  - {name: all, from: [10.0.0.3]}\n",
				"d/good.yaml": tenantFile("01"), "d/bad.yaml": tc.text,
			})
			c, err := partly(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := names(c); !slices.Equal(got, []string{"good"}) {
				t.Errorf("tenants = %q, want good", got)
			}
			if len(c.Impaired) == 0 {
				t.Fatal("nothing is told")
			}
			for _, i := range c.Impaired {
				if i.Tenant != tc.tenant || !i.LeftOut {
					t.Errorf("told of %+v", i)
				}
			}
			if !slices.ContainsFunc(c.Impaired, func(i Impairment) bool { return strings.Contains(i.Fault.String(), tc.want) }) {
				t.Errorf("got %v, want %s", c.Impaired, tc.want)
			}
			// An empty list of tenants is none of them; nil would be all.
			var lists [][]string
			for _, g := range c.Clients {
				lists = append(lists, g.Tenants)
			}
			if want := [][]string{{"good"}, {}, nil}; !reflect.DeepEqual(lists, want) {
				t.Errorf("the groups' tenants are %#v, want %#v", lists, want)
			}
			if l := c.Listeners[0]; l.Tenant != "" || l.Clients == nil || len(l.Clients) > 0 {
				t.Errorf("a listener of nobody else: %+v", l)
			}
			if l := c.Listeners[1]; l.Tenant != "good" || l.Clients != nil {
				t.Errorf("a listener that has nothing to do with it: %+v", l)
			}
			if !slices.Contains(c.Files(), filepath.Join(dir, "d", "bad.yaml")) {
				t.Errorf("its mending is not noticed: %q", c.Files())
			}
			if _, err := Load(filepath.Join(dir, "config.yaml"), contosoEnv.lookup); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("a whole reading: %v", err)
			}
		})
	}
}

func TestWhatConcernsSeveralFilesIsAFault(t *testing.T) {
	user := "credential: {client_id: " + appID + ", user: {flow: device_code, token_store: s}}\n"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"two tenants of one name", map[string]string{"d/a.yaml": tenantFile("01"), "d/b.yaml": "name: a\n" + tenantFile("02")}, "name: \"a\" is taken by"},
		{"two tenants of one id", map[string]string{"d/a.yaml": tenantFile("01"), "d/b.yaml": tenantFile("01")}, "is the directory and application of"},
		{"two tenants with one token store", map[string]string{"d/a.yaml": "id: " + fabrikamID + "\n" + user, "d/b.yaml": "id: " + contosoID + "\n" + user}, "token_store: is that of"},
		{"the configuration itself", map[string]string{"config.yaml": "tenants_dir: d\nstor: x\n", "d/a.yaml": tenantFile("01"), "d/b.yaml": "id: oops\n"}, "stor: unknown key"},
		{"a name that nobody has", map[string]string{"config.yaml": "tenants_dir: d\nlisteners: [{address: 127.0.0.1:0, tenant: c}]\n", "d/a.yaml": tenantFile("01"), "d/b.yaml": "name: b\nid: oops\n"}, "unknown tenant \"c\""},
		{"what all share", map[string]string{"config.yaml": "tenants_dir: d\ntenant_defaults: {cloud: nowhere}\n", "d/a.yaml": tenantFile("01")}, "tenant_defaults.cloud: unknown cloud"},
		{"no tenant left", map[string]string{"d/a.yaml": "id: oops\n", "d/b.yaml": "{"}, "a.yaml:1:1: id: \"oops\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.files["config.yaml"] == "" {
				tc.files["config.yaml"] = "tenants_dir: d\n"
			}
			if _, err := partly(t, folder(t, tc.files)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// More faulty files than faults are told.
func TestManyFaultyFilesLeaveTheGoodOnes(t *testing.T) {
	files := map[string]string{"config.yaml": "tenants_dir: d\n", "d/zz.yaml": tenantFile("01")}
	for i := range 3 * maxFaults {
		files["d/t"+strings.Repeat("x", i%30)+string(rune('a'+i/30))+".yaml"] = "id: oops\n"
	}
	c, err := partly(t, folder(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(c); !slices.Equal(got, []string{"zz"}) || len(c.Impaired) < 3*maxFaults {
		t.Errorf("tenants = %q; %d faults of %d files are told", got, len(c.Impaired), 3*maxFaults)
	}
}

// A whole configuration is read alike in both ways.
func TestAWholeConfigurationHasNobodyLeftOut(t *testing.T) {
	dir := folder(t, map[string]string{"config.yaml": "tenants_dir: d\n", "d/a.yaml": tenantFile("01"), "d/b.yaml": strings.Replace(tenantFile("02"), "CONTOSO_SECRET", "NO_SUCH", 1)})
	c, err := partly(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := loaded(t, dir); !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
}

func TestASecretForAnotherApplicationOrAuthorityIsWarnedOf(t *testing.T) {
	lab := "clouds: [{name: lab, authority: https://login.lab.example, endpoints: {mde: {eu: \"https://eu.lab.example\"}}, audiences: {mde: \"https://lab.example\"}}]\n"
	secret, other := "client_id: "+appID+", client_secret: {env: CONTOSO_SECRET}", "client_id: "+fabrikamID
	for _, tc := range []struct{ name, defaults, tenant, want string }{
		{"the same of all", "{credential: {" + secret + "}}", "", ""},
		{"another application", "{credential: {" + secret + "}}", "credential: {" + other + "}", "config.yaml:3:74: tenants[0].credential.client_id: is another application than that of tenant_defaults, whose client_secret the tenant takes; give the tenant its own"},
		{"the same application again", "{credential: {" + secret + "}}", "credential: {client_id: " + appID + "}", ""},
		{"another application with its own secret", "{credential: {" + secret + "}}", "credential: {" + other + ", client_secret: {env: CONTOSO_SECRET}}", ""},
		{"applications that share nothing but a secret", "{credential: {client_secret: {env: CONTOSO_SECRET}}}", "credential: {" + other + "}", ""},
		{"another authority", "{credential: {" + secret + "}}", "cloud: lab", "config.yaml:3:61: tenants[0].cloud: has another authority than the cloud of tenant_defaults, whose client_secret the tenant takes and sends there; give the tenant its own, or name the cloud there"},
		{"the cloud of all", "{cloud: lab, credential: {" + secret + "}}", "", ""},
		{"another cloud of the same authority", "{cloud: commercial, credential: {" + secret + "}}", "cloud: gcc", ""},
		{"a certificate", "{credential: {client_id: " + appID + ", certificate: {file: no.pem}}}", "credential: {" + other + "}", "config.yaml:3:74: tenants[0].credential.client_id: is another application than that of tenant_defaults, whose certificate the tenant takes; give the tenant its own"},
		{"a password", "{credential: {client_id: " + appID + ", user: {flow: password, username: a, password: {env: CONTOSO_SECRET}}}}", "cloud: lab", "config.yaml:3:61: tenants[0].cloud: has another authority than the cloud of tenant_defaults, whose user.password the tenant takes and sends there; give the tenant its own, or name the cloud there"},
		{"an identity, which is no secret", "{credential: {client_id: " + appID + ", managed_identity: {as_assertion: true}}}", "credential: {" + other + "}", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			entry := "{name: one, id: 00000000-0000-0000-0000-000000000001"
			if tc.tenant != "" {
				entry += ", " + tc.tenant
			}
			c := parsed(t, "tenant_defaults: "+tc.defaults+"\ntenants:\n    - "+entry+"}\n"+lab, contosoEnv)
			if got := c.Warnings.Error(); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// Whatever somebody writes in the place of a reference to a secret may be the
// secret itself.
func TestNoFaultShowsWhatStandsInThePlaceOfASecret(t *testing.T) {
	for _, text := range []string{
		"client_secret: S3cret", "client_secret: *S3cret", "client_secret: !S3cret x", "client_secret: !S3cret!x x", "client_secret: !<S3cret> x", "client_secret: &S3cret x", "client_secret: [S3cret]",
		"client_secret: {S3cret: 1}", "client_secret: {S3cret: 1, S3cret: 2}", "client_secret: {S3cret}", "client_secret: {*S3cret : 1}", "client_secret: {env: *S3cret}", "client_secret: {env: !S3cret x}",
		"client_secret: {env: &S3cret x}", "client_secret: {env: S3cret~}", "client_secret: {env: {S3cret: 1}}", "client_secret: {env: {S3cret: 1, S3cret: 2}}", "client_secret: {env: [S3cret]}", "client_secret: {key_vault: S3cret}", "client_secret: {key_vault: *S3cret}",
		"client_secret: \"S3cret", "client_secret: 'S3cret", "client_secret: @S3cret", "client_secret: %S3cret", "client_secret: `S3cret", "client_secret: a: S3cret", "client_secret: |S3cret", "client_secret: >S3cret",
		"client_secret: \"\\S3cret\"", "client_secret: {env: \"S3cret", "client_secret: ${S3cret~}",
		"client_secret: {? S3cret : x, ? S3cret : y}", "client_secret: &S3cret", "client_secret: {&S3cret env: x}", "client_secret: {<<: *S3cret}",
		"user: S3cret", "user: *S3cret", "user: {flow: password, username: x, password: S3cret}", "certificate: {file: a, password: *S3cret}", "certificate: {file: a, password: {env: !S3cret x}}",
	} {
		_, err := Parse("x.yaml", []byte("tenants:\n  - name: a\n    id: "+contosoID+"\n    credential:\n      client_id: "+appID+"\n      "+text+"\n"), environment{}.lookup)
		if err == nil || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%s\ngot %v", text, err)
		}
	}
}
