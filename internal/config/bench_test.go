package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tenantText is a tenant of many, and the id of its directory.
func tenantText(i int) string {
	return fmt.Sprintf("id: 00000000-0000-0000-0000-%012d\ncredential: {client_secret: {env: CONTOSO_SECRET}}\nregions: {allow: [eu, uk]}\n", i)
}

const manyDefaults = "tenant_defaults: {credential: {client_id: " + appID + ", token_version: v1}, regions: {prefer: eu}}\n"

// manyInOne is a configuration with n tenants, each referred to by a client
// group and by a listener.
func manyInOne(n int) []byte {
	var tenants, names, listeners strings.Builder
	for i := range n {
		fmt.Fprintf(&tenants, "  - name: t%d\n    %s\n", i, strings.ReplaceAll(strings.TrimSpace(tenantText(i)), "\n", "\n    "))
		fmt.Fprintf(&names, "t%d, ", i)
	}
	for i := range n / 100 {
		fmt.Fprintf(&listeners, "  - {address: 127.0.0.1:0, tenant: t%d}\n", i)
	}
	return []byte(manyDefaults + "tenants:\n" + tenants.String() + "listeners:\n" + listeners.String() +
		"clients: [{name: all, from: [127.0.0.1], tenants: [" + names.String() + "]}]\n")
}

// manyInFolder is the same with a file a tenant, and gives the configuration's path.
func manyInFolder(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
		return path
	}
	for i := range n {
		put(fmt.Sprintf("t%d.yml", i), tenantText(i))
	}
	return put("config", manyDefaults+"tenants_dir: .\n")
}

func TestTheWorkOfLoadingGrowsWithTheNumberOfTenantsAndNoQuicker(t *testing.T) {
	work := func(n int) float64 {
		data := manyInOne(n)
		return testing.AllocsPerRun(1, func() {
			c, err := Parse("config.yaml", data, contosoEnv.lookup)
			if err != nil || len(c.Tenants) != n {
				t.Fatalf("%d tenants, %v", len(c.Tenants), err)
			}
		})
	}
	one, four := work(200), work(800)
	if four > 5*one {
		t.Errorf("200 tenants took %.0f allocations, 800 took %.0f: more than five times as many", one, four)
	}
}

// BenchmarkLoad reads whole configurations; the time for a tenant should be the
// same with a thousand and with ten thousand.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		run := func(name string, load func() (*Config, error)) {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				for b.Loop() {
					c, err := load()
					if err != nil || len(c.Tenants) != n {
						b.Fatalf("%v", err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/tenant")
			})
		}
		data := manyInOne(n)
		run("in one file", func() (*Config, error) { return Parse("config.yaml", data, contosoEnv.lookup) })
		path := manyInFolder(b, n)
		run("in a folder", func() (*Config, error) { return Load(path, contosoEnv.lookup) })
	}
}
