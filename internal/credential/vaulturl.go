package credential

import (
	"net/url"
	"regexp"
	"strings"

	"defender-proxy/internal/token"
)

// secretRef is a secret in a vault, as its URL names it.
type secretRef struct {
	vault string // the vault's base URL, such as https://contoso.vault.azure.net
	host  string
	name  string
	// version is empty for the newest.
	version string
}

// String gives the secret's URL.
func (r secretRef) String() string {
	s := r.vault + "/secrets/" + r.name
	if r.version != "" {
		s += "/" + r.version
	}
	return s
}

// secretPath is what Key Vault allows for names and writes for versions
// (learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates).
// The portal's link to the newest version ends with a slash.
var (
	secretPath = regexp.MustCompile(`^/secrets/([0-9A-Za-z-]{1,127})(?:/([0-9A-Za-z]{1,64}))?/?$`)
	vaultHost  = regexp.MustCompile(`^[0-9a-z-]+(\.[0-9a-z-]+)+$`)
)

// parseSecretURL reads the URL of a secret. The host may be any, for there are
// private vaults; that the vault's challenge asks for a token of its own domain
// is for the client to see. A host that ends with a dot is refused, because the
// client's comparison of domains lets it pass for any. The port is 443, and left out.
func parseSecretURL(text string) (secretRef, *token.Fault) {
	bad := func(why string) (secretRef, *token.Fault) {
		// The text is not quoted: somebody may have put the secret itself there.
		return secretRef{}, misconfigured("The key_vault URL "+why+".", "Set the secret's identifier, https://NAME.vault.azure.net/secrets/NAME or with /VERSION behind it.")
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Host == "" {
		return bad("is not a URL")
	}
	if u.Scheme != "https" {
		return bad("does not begin with https://")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#") {
		return bad("holds more than a host and a path")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Host), ":443")
	// A vault's challenge names its domain without a port, and the client compares.
	if port := u.Port(); port != "" && port != "443" {
		return bad("names the port " + port + "; a vault, private or not, is reached at 443")
	}
	if !vaultHost.MatchString(host) {
		return bad("does not name the host of a vault")
	}
	m := secretPath.FindStringSubmatch(u.Path)
	if m == nil || u.RawPath != "" || u.EscapedPath() != u.Path {
		return bad("does not have the path /secrets/NAME or /secrets/NAME/VERSION")
	}
	return secretRef{vault: "https://" + host, host: host, name: m[1], version: m[2]}, nil
}
