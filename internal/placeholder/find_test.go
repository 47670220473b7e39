package placeholder

import (
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name, path string
		kind       Kind
		prefix     string
	}{
		{"the token endpoint of version 1 at the root", "/oauth2/token", Token, ""},
		{"the token endpoint of version 2 at the root", "/oauth2/v2.0/token", Token, ""},
		{"behind a tenant", "/contoso.example/oauth2/v2.0/token", Token, "/contoso.example"},
		{"behind the base of the API, as a tool with one URL joins it", "/api/oauth2/token", Token, "/api"},
		{"behind several segments", "/a/b/c/oauth2/token", Token, "/a/b/c"},
		{"in capitals", "/OAUTH2/Token", Token, ""},
		{"a federation server's", "/adfs/oauth2/token", Token, "/adfs"},
		{"a device code of version 1", "/common/oauth2/devicecode", DeviceCode, "/common"},
		{"a device code of version 2", "/organizations/oauth2/v2.0/DeviceCode", DeviceCode, "/organizations"},
		{"discovery of version 2", "/contoso/v2.0/.well-known/openid-configuration", DiscoveryV2, "/contoso"},
		{"discovery of version 1", "/contoso/.well-known/openid-configuration", DiscoveryV1, "/contoso"},
		{"discovery at the root", "/.well-known/openid-configuration", DiscoveryV1, ""},
		{"discovery of version 2 at the root", "/v2.0/.well-known/openid-configuration", DiscoveryV2, ""},
		{"instance discovery", "/common/discovery/instance", Instance, ""},
		{"instance discovery behind a prefix", "/x/common/discovery/instance", Instance, "/x"},
		{"instance discovery of another tenant", "/contoso/discovery/instance", Instance, "/contoso"},
		{"keys of version 1", "/common/discovery/keys", Keys, "/common"},
		{"keys of version 2", "/contoso/discovery/v2.0/keys", Keys, "/contoso"},
		{"a user's realm as MSAL for Go asks for it", "/common/UserRealm/user@contoso.example", UserRealm, "/common"},
		{"a user's realm at the root", "/userrealm/u", UserRealm, ""},

		{"the root", "/", 0, ""},
		{"nothing", "", 0, ""},
		{"an API", "/api/alerts", 0, ""},
		{"Graph", "/v1.0/security/runHuntingQuery", 0, ""},
		{"a token that is no login", "/api/token", 0, ""},
		{"the end alone without its slash", "oauth2/token", 0, ""},
		{"a segment that only ends so", "/xoauth2/token", 0, ""},
		{"something behind it", "/oauth2/token/x", 0, ""},
		{"a name that begins so", "/oauth2/tokens", 0, ""},
		{"another version", "/oauth2/v3.0/token", 0, ""},
		{"an interactive login, for which nobody is there", "/common/oauth2/v2.0/authorize", 0, ""},
		{"a realm of nobody", "/common/userrealm", 0, ""},
		{"a realm of two users", "/common/userrealm/a/b", 0, ""},
		{"a Kelvin sign in an ASCII letter's place", "/oauth2/to\u212aen", 0, ""},
		{"a long s in an ASCII letter's place", "/discovery/key\u017f", 0, ""},
		{"an encoded letter, which canon would have decoded", "/oauth2/%74oken", 0, ""},
		{"a page of ours", "/-/whoami", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind, prefix, ok := Find(c.path)
			if kind != c.kind || prefix != c.prefix || ok != (c.kind != 0) {
				t.Errorf("Find(%q): got %v, %q, %v, want %v, %q", c.path, kind, prefix, ok, c.kind, c.prefix)
			}
		})
	}
}

// asciiLower folds letters slowly and by other means than Find.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ", c) >= 0 {
			b[i] = c + 32
		}
	}
	return string(b)
}

// FuzzFind: what is found begins with the prefix and ends as its kind does, and
// what ends so is found.
func FuzzFind(f *testing.F) {
	for i := range ends {
		f.Add(ends[i].end)
		f.Add("/x" + strings.ToUpper(ends[i].end))
		f.Add(ends[i].end[1:])
	}
	for _, s := range []string{"", "/", "//", "/userrealm/", "/a/userrealm/b", "/userrealm/userrealm/x", "/oauth2/to\u212aen", "\xff/oauth2/token"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		kind, prefix, ok := Find(path)
		rest := asciiLower(strings.TrimPrefix(path, prefix))
		if !strings.HasPrefix(path, prefix) {
			t.Fatalf("Find(%q): the prefix %q is none of it", path, prefix)
		}
		known := false
		for i := range ends {
			known = known || ends[i].end == rest && ends[i].kind == kind
			if strings.HasSuffix(asciiLower(path), ends[i].end) && !ok {
				t.Fatalf("Find(%q) finds nothing, although it ends with %s", path, ends[i].end)
			}
		}
		user, isRealm := strings.CutPrefix(rest, realm+"/")
		known = known || kind == UserRealm && isRealm && user != "" && !strings.Contains(user, "/")
		if ok && !known {
			t.Fatalf("Find(%q): %v behind %q, but %q is no end of that kind", path, kind, prefix, rest)
		}
		if !ok && (kind != 0 || prefix != "") {
			t.Fatalf("Find(%q): found nothing, but gives %v, %q", path, kind, prefix)
		}
	})
}

func TestFindAllocatesNothing(t *testing.T) {
	for _, path := range []string{"/api/alerts", "/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/isolate", "/t/oauth2/TOKEN"} {
		if n := testing.AllocsPerRun(100, func() { Find(path) }); n != 0 {
			t.Errorf("Find(%q) allocates %v times, want none", path, n)
		}
	}
}

func BenchmarkFindNothing(b *testing.B) {
	for b.Loop() {
		Find("/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/logonusers")
	}
}

func TestTenantOf(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, c := range []struct{ name, query, want string }{
		{"a tenant's id", "api-version=1.1&authorization_endpoint=https%3A%2F%2Flogin.microsoftonline.com%2F11111111-1111-1111-1111-111111111111%2Foauth2%2Fv2.0%2Fauthorize", "11111111-1111-1111-1111-111111111111"},
		{"a tenant's name", "authorization_endpoint=https://h/contoso.onmicrosoft.com/oauth2/authorize", "contoso.onmicrosoft.com"},
		{"organizations", "authorization_endpoint=https://h/organizations/oauth2/v2.0/authorize", "organizations"},
		{"the tenant alone", "authorization_endpoint=https://h/contoso", "contoso"},
		{"a name of 64 letters", "authorization_endpoint=https://h/" + long, long},
		{"no query", "", common},
		{"another parameter", "tenant=contoso", common},
		{"no path", "authorization_endpoint=https://h", common},
		{"an empty tenant", "authorization_endpoint=https://h//x", common},
		{"no URL", "authorization_endpoint=contoso", common},
		{"a broken escape", "authorization_endpoint=https://h/%zz", common},
		{"a name of 65 letters", "authorization_endpoint=https://h/a" + long, common},
		{"a dot segment", "authorization_endpoint=https://h/../x", common},
		{"a dot at the end", "authorization_endpoint=https://h/contoso./x", common},
		{"a quotation mark", "authorization_endpoint=https://h/a%22b/x", common},
		{"an encoded slash, decoded once", "authorization_endpoint=https://h/a%2Fb", "a"},
		{"a letter that is not ASCII", "authorization_endpoint=https://h/contos%C3%B6/x", common},
		{"the first of two counts", "authorization_endpoint=https://h/a&authorization_endpoint=https://h/b", "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := TenantOf(c.query); got != c.want {
				t.Errorf("TenantOf(%q): got %q, want %q", c.query, got, c.want)
			}
		})
	}
}

// FuzzTenantOf: what comes out can stand in a path.
func FuzzTenantOf(f *testing.F) {
	f.Add("authorization_endpoint=https://h/contoso/x")
	f.Add("a=b&authorization_endpoint=%")
	f.Fuzz(func(t *testing.T, query string) {
		got := TenantOf(query)
		if got == "" || len(got) > 64 || strings.Trim(got, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != "" || got == "." || got == ".." {
			t.Fatalf("TenantOf(%q): got %q", query, got)
		}
	})
}
