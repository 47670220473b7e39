package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The schemes that a URL may have.
var (
	webSchemes = []string{"https", "http"}
	secure     = []string{"https"} // and http on a loopback address
)

// parseURL reads a base URL: scheme and host, and nothing that could carry a
// secret or change where a path leads. It gives the URL without a slash at its
// end.
func parseURL(text string, schemes []string) (value, reason string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return "", "is not a URL such as https://host"
	}
	host, ok := parseHost(u.Host)
	switch {
	case !ok:
		return "", "has a host that is neither a name nor an address, or a port that is none"
	case u.User != nil:
		return "", "carries a user or password; leave them out"
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", "has a query or fragment; leave it out"
	case u.Path != "" && u.Path != "/":
		return "", "has a path; leave it out"
	case u.Scheme == "http" && !slices.Contains(schemes, "http") && !loopbackHost(u.Hostname()):
		return "", "is plain http; https is wanted (http is accepted on a loopback address such as 127.0.0.1 only)"
	case !slices.Contains(webSchemes, u.Scheme):
		return "", "begins with neither https:// nor http://"
	}
	return u.Scheme + "://" + host, ""
}

// parseAudience reads a resource URI, which is an identifier and may have a
// path. It is kept as written.
func parseAudience(text string) (value, reason string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "api":
		return "", "is not a resource URI such as https://graph.microsoft.com or api://…"
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", "has a user, query or fragment; a resource URI has none"
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", "holds a space or a character outside ASCII"
	}
	return strings.TrimSuffix(text, "/.default"), ""
}

// The names of secrets and their versions in Azure Key Vault
// (learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates).
var vaultPath = regexp.MustCompile(`^/secrets/[0-9A-Za-z-]{1,127}(/[0-9A-Za-z]{1,64})?$`)

// parseVaultURL reads the URL of a secret in Azure Key Vault.
func parseVaultURL(text string) (value, reason string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return "", "is not the URL of a secret such as https://NAME.vault.azure.net/secrets/NAME"
	}
	host, ok := parseHost(strings.TrimSuffix(u.Host, ":443"))
	switch path := strings.TrimSuffix(u.EscapedPath(), "/"); {
	case u.Scheme != "https":
		return "", "does not begin with https://; a vault is asked over TLS only"
	case !ok:
		return "", "has a host that is neither a name nor an address, or a port that is none"
	case u.Port() != "" && u.Port() != "443":
		return "", "has a port; a vault is asked at 443, leave it out"
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", "has a user, query or fragment; leave it out"
	case !vaultPath.MatchString(path):
		return "", "does not name a secret; the path is /secrets/NAME or /secrets/NAME/VERSION"
	default:
		return "https://" + host + path, ""
	}
}

// parseHost reads a name or address, with or without a port, and gives it in
// lower case, an IPv6 address in brackets.
func parseHost(text string) (host string, ok bool) {
	name, port := text, ""
	if i := strings.LastIndexByte(text, ':'); i >= 0 && (strings.HasSuffix(text[:i], "]") || strings.Count(text, ":") == 1) {
		name, port = text[:i], text[i:]
		if n, err := strconv.ParseUint(port[1:], 10, 16); err != nil || n == 0 || port[1] == '0' {
			return "", false
		}
	}
	bare := name
	if inner, found := strings.CutPrefix(name, "["); found {
		bare, found = strings.CutSuffix(inner, "]")
		if !found || !strings.Contains(bare, ":") {
			return "", false
		}
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		if addr.Zone() != "" {
			return "", false
		}
		if addr.Is6() {
			return "[" + addr.String() + "]" + port, true
		}
		return addr.String() + port, true
	}
	if !hostName(name) {
		return "", false
	}
	return strings.ToLower(name) + port, true
}

// hostName reports whether s is a DNS name that is no address in disguise: its
// last label is not a number (RFC 1123, section 2.1).
func hostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != ""
}

// loopbackHost reports whether host is a loopback address. A name is not: what
// it means is decided elsewhere.
func loopbackHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// loopback reports whether a listener's address is reached from this machine
// only. What systemd passes may be any.
func loopback(address string) bool {
	a, reason := parseListen(address)
	return reason == "" && (a.path != "" || a.addr.IsLoopback())
}

// The beginnings of addresses that are none of TCP.
const (
	unixScheme    = "unix:"
	systemdScheme = "systemd:"
)

// bindAddress is what a listener takes: an address and port, a Unix socket, or
// one that systemd passes.
type bindAddress struct {
	addr netip.Addr
	port uint16
	path string // of a Unix socket
	name string // of a socket of systemd's
}

// clashes reports whether one machine cannot listen on both: the unspecified
// address takes every other with it, and IPv4 with IPv6.
func (a bindAddress) clashes(b bindAddress) bool {
	if !a.addr.IsValid() || !b.addr.IsValid() {
		return a == b
	}
	return a.port == b.port && a.port != 0 &&
		(a.addr == b.addr || a.addr.IsUnspecified() || b.addr.IsUnspecified())
}

// maxSocketPath is the longest path that a Unix socket can have everywhere:
// sun_path has 104 bytes on the BSDs, with a zero at the end.
const maxSocketPath = 103

// systemdName is a name that systemd takes as FileDescriptorName (systemd.socket(5)),
// without what would need quotes.
var systemdName = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,255}$`)

// parseListen reads an address to listen on. No host means every address, as it
// does to net.Listen.
func parseListen(text string) (a bindAddress, reason string) {
	const wanted = "is not an address and port such as 127.0.0.1:8080 or [::1]:8080, nor unix:PATH, nor systemd:NAME"
	if path, is := strings.CutPrefix(text, unixScheme); is {
		switch {
		case path == "":
			return a, "has no path; write unix:/run/defender-proxy.sock"
		case strings.HasPrefix(path, "@") || strings.ContainsRune(path, 0):
			return a, "is an abstract socket, which every process of the machine can open; give it a path"
		case len(path) > maxSocketPath:
			return a, fmt.Sprintf("has a path of %d bytes; a Unix socket's has at most %d", len(path), maxSocketPath)
		}
		return bindAddress{path: path}, ""
	}
	if name, is := strings.CutPrefix(text, systemdScheme); is {
		if !systemdName.MatchString(name) {
			return a, "does not name a socket of systemd's; write systemd:NAME with its FileDescriptorName: letters, digits, _ . @ -"
		}
		return bindAddress{name: name}, ""
	}
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		return a, wanted
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return a, "has a port that is not a number from 0 to 65535"
	}
	if host == "" {
		return bindAddress{addr: netip.IPv6Unspecified(), port: uint16(n)}, ""
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return a, "names a host; listen on an address, such as 127.0.0.1, because what a name means is decided elsewhere"
	}
	return bindAddress{addr: addr.Unmap(), port: uint16(n)}, ""
}
