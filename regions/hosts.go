package regions

import (
	"slices"
	"strings"
)

// HostKind says what a host of Microsoft's is for.
type HostKind string

// The kinds of hosts. The zero value is none.
const (
	// LoginHost is a sign-in authority of Entra ID.
	LoginHost HostKind = "login"
	// APIHost answers the calls of Defender or Graph.
	APIHost HostKind = "api"
)

// Host is a name of Microsoft's that programs have built in.
type Host struct {
	Name string // in lower case, without a port
	Kind HostKind
}

// MicrosoftHosts returns the names that programs for one of the clouds that are
// built in call: first those of Entra ID, then those of the APIs, regional and
// older ones too. It is nil for any other cloud. The slice is the caller's.
//
// The hosts of the APIs are those of Clouds, and the older ones that samples and
// links name beside them: api.securitycenter.windows.com, and the regions' names
// with a hyphen. The aliases of the sign-in authorities are those that Entra's
// instance discovery answers
// (login.microsoftonline.com/common/discovery/instance?api-version=1.1) and that
// MSAL has built in.
func MicrosoftHosts(cloud string) []Host { return slices.Clone(microsoftHosts[cloud]) }

// MicrosoftHost tells of which kind a name of Microsoft's is, in whichever cloud;
// ok is false for any other name. The name may have a port behind it, as in the
// header Host, and ASCII letters of either case.
func MicrosoftHost(name string) (kind HostKind, ok bool) {
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		name = name[:i]
	}
	if len(name) > longestHost {
		return "", false
	}
	if kind, ok = kindOfHost[name]; ok {
		return kind, true
	}
	kind, ok = kindOfHost[lower(name)]
	return kind, ok
}

// microsoftHosts are by cloud.
var microsoftHosts = func() map[string][]Host {
	public := kinds(LoginHost, "login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net")
	us := kinds(LoginHost, "login.microsoftonline.us", "login.usgovcloudapi.net")

	commercial := slices.Concat(public, kinds(APIHost,
		"api.security.microsoft.com", "us.api.security.microsoft.com", "eu.api.security.microsoft.com", "uk.api.security.microsoft.com",
		"au.api.security.microsoft.com", "swa.api.security.microsoft.com", "ina.api.security.microsoft.com", "aea.api.security.microsoft.com",
		"api-us.security.microsoft.com", "api-eu.security.microsoft.com", "api-uk.security.microsoft.com",
		"api.securitycenter.microsoft.com",
		"api-us.securitycenter.microsoft.com", "api-eu.securitycenter.microsoft.com", "api-uk.securitycenter.microsoft.com", "api-au.securitycenter.microsoft.com",
		"api.securitycenter.windows.com",
		"api-us.securitycenter.windows.com", "api-eu.securitycenter.windows.com", "api-uk.securitycenter.windows.com",
		"graph.microsoft.com"))
	gov := kinds(APIHost, "api-gov.security.microsoft.us", "api-gov.securitycenter.microsoft.us")
	return map[string][]Host{
		"commercial":        commercial,
		"commercial-legacy": commercial,
		"gcc":               slices.Concat(public, kinds(APIHost, "api-gcc.security.microsoft.us", "api-gcc.securitycenter.microsoft.us", "graph.microsoft.com")),
		"gcc-high":          slices.Concat(us, gov, kinds(APIHost, "graph.microsoft.us")),
		"dod":               slices.Concat(us, gov, kinds(APIHost, "dod-graph.microsoft.us")),
	}
}()

func kinds(kind HostKind, names ...string) []Host {
	hosts := make([]Host, len(names))
	for i, name := range names {
		hosts[i] = Host{name, kind}
	}
	return hosts
}

// kindOfHost has every host of every cloud, and longestHost is the length of the
// longest.
var kindOfHost, longestHost = func() (map[string]HostKind, int) {
	kinds, longest := make(map[string]HostKind), 0
	for _, hosts := range microsoftHosts {
		for _, h := range hosts {
			kinds[h.Name] = h.Kind
			longest = max(longest, len(h.Name))
		}
	}
	return kinds, longest
}()

// lower is strings.ToLower for ASCII alone: names of hosts have no other letters,
// and other letters have no business to become ones.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
