package defenderproxy

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// arrows lists what each package may import of this module. Top-level packages
// and those under internal know each other's nouns at most; proxy gets built
// parts, and only cmd knows the configuration.
var arrows = map[string][]string{
	"policy":               nil,
	"regions":              {"internal/redact"},
	"internal/canon":       nil,
	"internal/approval":    nil,
	"internal/clients":     nil,
	"internal/condition":   nil,
	"internal/egress":      nil,
	"internal/hunting":     nil,
	"internal/links":       nil,
	"internal/listen":      nil,
	"internal/placeholder": nil,
	"internal/audit":       {"internal/redact"},
	"internal/redact":      nil,
	"internal/standin":     {"regions"},
	"internal/usage":       {"internal/audit"},
	"internal/tenant":      {"regions"},
	"internal/token":       {"internal/tenant"},
	"internal/credential":  {"internal/tenant", "internal/token"},
	"internal/config":      {"internal/clients", "internal/condition", "internal/placeholder", "internal/redact", "internal/tenant", "policy", "regions"},
	"internal/admin":       {"internal/approval", "internal/audit", "internal/clients", "internal/egress", "internal/listen", "internal/redact", "internal/token", "internal/usage", "policy", "regions"},
	"proxy":                {"internal/approval", "internal/audit", "internal/canon", "internal/clients", "internal/condition", "internal/egress", "internal/hunting", "internal/links", "internal/listen", "internal/placeholder", "internal/redact", "internal/tenant", "internal/token", "policy", "regions"},
	"internal/simulator":   {"policy"},
	"cmd/defender-proxy":   {"internal/admin", "internal/approval", "internal/audit", "internal/clients", "internal/condition", "internal/config", "internal/credential", "internal/egress", "internal/listen", "internal/redact", "internal/simulator", "internal/standin", "internal/tenant", "internal/token", "internal/usage", "policy", "proxy", "regions"},
}

// homes lists the one package that may import a library.
var homes = map[string][]string{
	"github.com/gorilla/mux":                                            {"proxy", "internal/admin", "internal/simulator"},
	"github.com/golang-jwt/jwt/v5":                                      {"internal/token", "internal/credential", "internal/simulator"},
	"golang.org/x/oauth2":                                               {"internal/token", "internal/credential"},
	"golang.org/x/oauth2/clientcredentials":                             {"internal/token"},
	"go.yaml.in/yaml/v4":                                                {"internal/config", "cmd/defender-proxy"},
	"cel.dev/cel-go/cel":                                                {"internal/condition"},
	"cel.dev/cel-go/common/ast":                                         {"internal/condition"},
	"cel.dev/cel-go/common/types":                                       {"internal/condition"},
	"cel.dev/cel-go/common/types/ref":                                   {"internal/condition"},
	"cel.dev/cel-go/ext":                                                {"internal/condition"},
	"github.com/coreos/go-systemd/v22/activation":                       {"internal/listen"},
	"github.com/miekg/dns":                                              {"internal/egress"},
	"github.com/pires/go-proxyproto":                                    {"internal/listen"},
	"golang.org/x/sys/unix":                                             {"internal/listen", "internal/egress"},
	"github.com/spf13/cobra":                                            {"cmd/defender-proxy"},
	"github.com/prometheus/client_golang/prometheus":                    {"internal/admin"},
	"github.com/prometheus/client_golang/prometheus/collectors":         {"internal/admin"},
	"github.com/prometheus/client_golang/prometheus/promhttp":           {"internal/admin"},
	"github.com/google/uuid":                                            {"proxy", "internal/credential", "internal/simulator"},
	"github.com/Azure/azure-sdk-for-go/sdk/azcore":                      {"internal/credential"},
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud":                {"internal/credential"},
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy":               {"internal/credential"},
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity":                  {"internal/credential"},
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets": {"internal/credential"},
	"github.com/youmark/pkcs8":                                          {"internal/credential"},
	"github.com/zalando/go-keyring":                                     {"internal/credential"},
	"software.sslmate.com/src/go-pkcs12":                                {"internal/credential"},
	"golang.org/x/net/http/httpproxy":                                   {"internal/egress"},
	"golang.org/x/net/proxy":                                            {"internal/egress"},
	"github.com/rs/zerolog":                                             {"cmd/defender-proxy", "proxy", "internal/audit", "internal/token", "internal/simulator"},
}

func TestPackagesImportOnlyAlongTheArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "defender-proxy/"
	seen := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if p.ImportPath+"/" == module || strings.HasPrefix(name, "integration") {
			continue
		}
		allowed, known := arrows[name]
		if !known {
			t.Errorf("package %s has no row in arrows: say what it may import", name)
		}
		seen[name] = true
		for _, i := range p.Imports {
			if own, ok := strings.CutPrefix(i, module); ok {
				if !slices.Contains(allowed, own) {
					t.Errorf("%s imports %s, against the arrows", name, own)
				}
				continue
			}
			if first, _, _ := strings.Cut(i, "/"); !strings.Contains(first, ".") {
				continue // the standard library
			}
			if !slices.Contains(homes[i], name) {
				t.Errorf("%s imports %s, whose home is %v", name, i, homes[i])
			}
		}
	}
	for name := range arrows {
		if !seen[name] {
			t.Errorf("arrows has a row for %s, which is not there", name)
		}
	}
}
