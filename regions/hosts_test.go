package regions

import (
	"net/url"
	"slices"
	"testing"
)

func TestMicrosoftHost(t *testing.T) {
	for _, c := range []struct {
		name, host string
		want       HostKind
		ok         bool
	}{
		{"the sign-in authority", "login.microsoftonline.com", LoginHost, true},
		{"its old alias of samples", "login.windows.net", LoginHost, true},
		{"the issuer of older tokens", "sts.windows.net", LoginHost, true},
		{"the government's authority", "login.microsoftonline.us", LoginHost, true},
		{"an API", "api.securitycenter.microsoft.com", APIHost, true},
		{"an API by a regional name", "us.api.security.microsoft.com", APIHost, true},
		{"an API by an older regional name", "api-eu.securitycenter.windows.com", APIHost, true},
		{"the government's API", "api-gov.security.microsoft.us", APIHost, true},
		{"Graph", "graph.microsoft.com", APIHost, true},
		{"a name with a port", "graph.microsoft.com:8443", APIHost, true},
		{"a name in capitals", "API.SecurityCenter.Microsoft.com", APIHost, true},
		{"a name in capitals with a port", "Login.Windows.NET:443", LoginHost, true},
		{"no name", "", "", false},
		{"a port alone", ":443", "", false},
		{"a loopback address", "[::1]:8080", "", false},
		{"a name that ends like one", "evil-login.microsoftonline.com", "", false},
		{"a name that begins like one", "login.microsoftonline.com.evil.example", "", false},
		{"a name below one", "a.graph.microsoft.com", "", false},
		{"the domain alone", "microsoft.com", "", false},
		{"a Kelvin sign in an ASCII letter's place", "login.microsoftonline.com\u212a", "", false},
		{"a long s in an ASCII letter's place", "\u017fts.windows.net", "", false},
		{"a storage host, which is no API", "x.blob.core.windows.net", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind, ok := MicrosoftHost(c.host)
			if kind != c.want || ok != c.ok {
				t.Errorf("MicrosoftHost(%q): got %q, %v, want %q, %v", c.host, kind, ok, c.want, c.ok)
			}
		})
	}
}

func TestMicrosoftHostsHaveWhatTheCloudsName(t *testing.T) {
	for _, cloud := range Clouds() {
		hosts := MicrosoftHosts(cloud.Name)
		has := func(kind HostKind, base string) {
			u, err := url.Parse(base)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(hosts, Host{u.Host, kind}) {
				t.Errorf("cloud %s: its hosts lack %s %s", cloud.Name, kind, u.Host)
			}
		}
		has(LoginHost, cloud.Authority)
		for _, endpoints := range cloud.Endpoints {
			for _, base := range endpoints {
				has(APIHost, base)
			}
		}
		for i, h := range hosts {
			if kind, ok := MicrosoftHost(h.Name); !ok || kind != h.Kind {
				t.Errorf("cloud %s: MicrosoftHost(%q): got %q, %v, want %q", cloud.Name, h.Name, kind, ok, h.Kind)
			}
			if slices.Contains(hosts[:i], h) {
				t.Errorf("cloud %s names %s twice", cloud.Name, h.Name)
			}
		}
	}
}

func TestMicrosoftHostsAreTheCallersOwn(t *testing.T) {
	MicrosoftHosts("gcc")[0].Name = "changed.example"
	if got := MicrosoftHosts("gcc")[0].Name; got != "login.microsoftonline.com" {
		t.Errorf("got %q after a caller changed its slice", got)
	}
	if got := MicrosoftHosts("lab"); got != nil {
		t.Errorf("a cloud that is not built in has %v, want none", got)
	}
}

func TestMicrosoftHostAllocatesNothingForAPlainName(t *testing.T) {
	for _, host := range []string{"us.api.security.microsoft.com", "127.0.0.1:8080", "defender.corp.example"} {
		if n := testing.AllocsPerRun(100, func() { MicrosoftHost(host) }); n != 0 {
			t.Errorf("MicrosoftHost(%q) allocates %v times, want none", host, n)
		}
	}
}
