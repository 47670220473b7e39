package credential

import (
	"net/url"
	"strings"
	"testing"

	"defender-proxy/internal/token"
)

func TestAKeyVaultURLIsASecretsIdentifier(t *testing.T) {
	for text, want := range map[string]string{
		"https://contoso.vault.azure.net/secrets/app":                                           "",
		"https://contoso.vault.azure.net/secrets/app/":                                          "https://contoso.vault.azure.net/secrets/app",
		"https://CONTOSO.vault.azure.net/secrets/App-1/4387e9f3d6e14c459867679a90fd0f79":        "https://contoso.vault.azure.net/secrets/App-1/4387e9f3d6e14c459867679a90fd0f79",
		"https://contoso.vault.azure.net:443/secrets/app":                                       "https://contoso.vault.azure.net/secrets/app",
		"https://vault.corp.example/secrets/app":                                                "",
		"https://contoso.vault.usgovcloudapi.net/secrets/app/4387e9f3d6e14c459867679a90fd0f79/": "https://contoso.vault.usgovcloudapi.net/secrets/app/4387e9f3d6e14c459867679a90fd0f79",
	} {
		if want == "" {
			want = text
		}
		if r, f := parseSecretURL(text); f != nil || r.String() != want {
			t.Errorf("%s gives %s, %v; want %s", text, r, f, want)
		}
	}
	for _, text := range []string{
		"", "app", "http://contoso.vault.azure.net/secrets/app", "https:///secrets/app", "https://contoso.vault.azure.net", "https://contoso.vault.azure.net/keys/app",
		"https://contoso.vault.azure.net/secrets/", "https://contoso.vault.azure.net/secrets/a/b/c", "https://contoso.vault.azure.net//secrets/app", "https://contoso.vault.azure.net/secrets/%61pp",
		"https://contoso.vault.azure.net/secrets/../keys/app", "https://user:pass-canary@contoso.vault.azure.net/secrets/app", "https://contoso.vault.azure.net/secrets/app?api-version=7.4", "https://contoso.vault.azure.net/secrets/app?",
		"https://contoso.vault.azure.net/secrets/app#", "https://evil.example./secrets/app", "https://vault/secrets/app", "https://contoso.vault.azure.net:x/secrets/app", "my-secret-canary-value", "https://contoso.vault.azure.net:443:443/secrets/app", "https://contoso.vault.azure.net:/secrets/app",
	} {
		_, err := NewVault(VaultOptions{}).Value(text)
		f := mustFault(t, err, token.Misconfigured, "key_vault URL", "https://NAME.vault.azure.net/secrets/NAME")
		mustNotShow(t, []string{"canary"}, f)
	}
}

func TestAKeyVaultURLWithAnotherPortSaysWhichOneVaultsHave(t *testing.T) {
	_, err := NewVault(VaultOptions{}).Value("https://vault.corp.example:8443/secrets/app")
	mustFault(t, err, token.Misconfigured, "names the port 8443", "at 443")
}

// FuzzVaultURL: what is accepted is asked for exactly as it was written.
func FuzzVaultURL(f *testing.F) {
	f.Add(appURL)
	f.Add(appURL + "/4387e9f3d6e14c459867679a90fd0f79/")
	f.Add("https://a.b:443/secrets/a")
	f.Fuzz(func(t *testing.T, text string) {
		r, fault := parseSecretURL(text)
		if fault != nil {
			return
		}
		u, err := url.Parse(r.String())
		if err != nil || u.Scheme != "https" || u.Host != r.host || u.User != nil || u.RawQuery != "" || strings.HasSuffix(u.Hostname(), ".") {
			t.Errorf("%q became %q", text, r)
		}
		if again, f := parseSecretURL(r.String()); f != nil || again != r {
			t.Errorf("%q became %q, which reads as %+v, %v", text, r, again, f)
		}
		if !strings.EqualFold(strings.Replace(strings.TrimSuffix(text, "/"), ":443/secrets/", "/secrets/", 1), r.String()) {
			t.Errorf("%q became %q", text, r)
		}
	})
}
