package config

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestProxiesOfAllKindsAreRead(t *testing.T) {
	env := environment{
		"CONTOSO_SECRET": "s3cret", "PLAIN": "hunter2", "ODD": "h%41u:nt/e?r#2@ +", "LOGIN": "me:hun:ter2", "HOST": "proxy.corp:3128", "WHOLE": "socks5h://me:h%40@proxy.corp",
	}
	for _, c := range []struct {
		name, text          string
		url, user, password string
		shown               string
		warns               bool
	}{
		{name: "HTTP", text: "http://Proxy.Corp:3128/", url: "http://proxy.corp:3128", shown: "http://proxy.corp:3128"},
		{name: "HTTPS", text: "https://proxy.corp", url: "https://proxy.corp", shown: "https://proxy.corp"},
		{name: "SOCKS5", text: "socks5://[2001:DB8::1]:1080", url: "socks5://[2001:db8::1]:1080", shown: "socks5://[2001:db8::1]:1080"},
		{name: "SOCKS5 with a user", text: "socks5h://me:${PLAIN}@10.0.0.1", url: "socks5h://10.0.0.1", user: "me", password: "hunter2", shown: "socks5h://[redacted]@10.0.0.1"},
		{name: "a password in the file", text: "http://me:hunter2@proxy.corp:3128", url: "http://proxy.corp:3128", user: "me", password: "hunter2", shown: "http://[redacted]@proxy.corp:3128", warns: true},
		{name: "one with escapes", text: "http://corp%5Cme:h%40unter%252@proxy.corp:3128", url: "http://proxy.corp:3128", user: "corp\\me", password: "h@unter%2", shown: "http://[redacted]@proxy.corp:3128", warns: true},
		{name: "one beside a host of the environment", text: "http://me:hunter2@${HOST}", url: "http://proxy.corp:3128", user: "me", password: "hunter2", shown: "http://[redacted]@proxy.corp:3128", warns: true},
		{name: "a variable is taken as it is", text: "http://me:${ODD}@proxy.corp:3128", url: "http://proxy.corp:3128", user: "me", password: env["ODD"], shown: "http://[redacted]@proxy.corp:3128"},
		{name: "within other characters too", text: "http://me:%41${ODD}@${HOST}", url: "http://proxy.corp:3128", user: "me", password: "A" + env["ODD"], shown: "http://[redacted]@proxy.corp:3128"},
		{name: "a variable with user and password", text: "http://${LOGIN}@proxy.corp:3128", url: "http://proxy.corp:3128", user: "me", password: "hun:ter2", shown: "http://[redacted]@proxy.corp:3128"},
		{name: "a variable with all of it", text: "${WHOLE}", url: "socks5h://proxy.corp", user: "me", password: "h@", shown: "socks5h://[redacted]@proxy.corp"},
		{name: "a user without a password", text: "http://me@proxy.corp:3128", url: "http://proxy.corp:3128", user: "me", shown: "http://[redacted]@proxy.corp:3128"},
		{name: "an empty user", text: "http://@proxy.corp:3128", url: "http://proxy.corp:3128", shown: "http://proxy.corp:3128"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := parsed(t, minimal+"egress: {proxy: \""+strings.ReplaceAll(c.text, `\`, `\\`)+"\"}\n", env)
			u := cfg.Egress.Proxy.URL()
			password, _ := u.User.Password()
			bare := *u
			bare.User = nil
			if bare.String() != c.url || u.User.Username() != c.user || password != c.password {
				t.Errorf("got %s as %q with %q, want %s as %q with %q", &bare, u.User.Username(), password, c.url, c.user, c.password)
			}
			told, err := json.Marshal(cfg.Egress)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", cfg.Egress, cfg, cfg.Egress, cfg.Egress.Proxy), string(told), cfg.Warnings.Error()} {
				if c.password != "" && (strings.Contains(text, c.password) || strings.Contains(text, url.QueryEscape(c.password))) {
					t.Errorf("the password is shown: %s", text)
				}
			}
			if got := cfg.Egress.Proxy.String(); got != c.shown {
				t.Errorf("shown as %s, want %s", got, c.shown)
			}
			if warned := strings.Contains(cfg.Warnings.Error(), "egress.proxy: the password stands in the file"); warned != c.warns {
				t.Errorf("warnings %v, want one: %t", cfg.Warnings, c.warns)
			}
		})
	}
	if u := ProxyURL("").URL(); u != nil {
		t.Errorf("no proxy is %v", u)
	}
}

// Whatever a variable holds becomes the password, or the configuration is refused
// without showing it.
func FuzzProxyPassword(f *testing.F) {
	f.Add("hunter2")
	f.Add("a/b@c:d%e?f#g h")
	f.Add("${X}")
	f.Fuzz(func(t *testing.T, secret string) {
		env := environment{"CONTOSO_SECRET": "s3cret", "PW": secret}
		c, err := Parse("config.yaml", []byte(minimal+"egress: {proxy: \"http://me:${PW}@proxy.corp:3128\"}\n"), env.lookup)
		if err != nil {
			if len(secret) > 8 && strings.Contains(err.Error(), secret) {
				t.Errorf("the fault shows the password: %v", err)
			}
			return
		}
		u := c.Egress.Proxy.URL()
		if u == nil {
			t.Fatalf("%q makes a URL that cannot be parsed", secret)
		}
		if got, _ := u.User.Password(); got != secret || u.User.Username() != "me" || u.Host != "proxy.corp:3128" {
			t.Errorf("%q became %q, the user %q, the host %q", secret, got, u.User.Username(), u.Host)
		}
	})
}
