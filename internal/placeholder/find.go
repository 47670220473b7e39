package placeholder

import "strings"

// Kind is what a tool looks for. The zero value is nothing.
type Kind int

const (
	// Token is the token endpoint, of version 1 or 2: a login, a refresh, or the
	// poll of a device code.
	Token Kind = iota + 1
	// DeviceCode begins a login on another device.
	DeviceCode
	// DiscoveryV1 and DiscoveryV2 are the documents of OpenID Connect Discovery for
	// the two versions of the endpoint.
	DiscoveryV1
	DiscoveryV2
	// Instance asks which names an authority has.
	Instance
	// Keys asks for the keys that tokens are signed with.
	Keys
	// UserRealm asks whether a user logs in here or elsewhere.
	UserRealm
)

// ends are how paths of a kind end, in lower case; a longer one stands before its
// own end.
var ends = [...]struct {
	end  string
	kind Kind
}{
	{"/oauth2/v2.0/token", Token},
	{"/oauth2/token", Token},
	{"/oauth2/v2.0/devicecode", DeviceCode},
	{"/oauth2/devicecode", DeviceCode},
	{"/v2.0/.well-known/openid-configuration", DiscoveryV2},
	{"/.well-known/openid-configuration", DiscoveryV1},
	{"/common/discovery/instance", Instance},
	{"/discovery/instance", Instance},
	{"/discovery/v2.0/keys", Keys},
	{"/discovery/keys", Keys},
}

const realm = "/userrealm"

// Find tells what a tool looks for at a canonical path, by its end: prefix is
// what stands before that, empty or beginning with a slash, whatever it is.
// Letters are compared without regard to ASCII case. ok is false for a path of
// any other kind, which nearly all are: Find is cheap and allocates nothing.
func Find(path string) (kind Kind, prefix string, ok bool) {
	for i := range ends {
		e := &ends[i]
		if prefix, ok := cutEnd(path, e.end); ok {
			return e.kind, prefix, true
		}
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 && i+1 < len(path) {
		if prefix, ok := cutEnd(path[:i], realm); ok {
			return UserRealm, prefix, true
		}
	}
	return 0, "", false
}

// cutEnd cuts end, which is in lower case, off path. The last letters decide
// nearly always, so it goes backwards.
func cutEnd(path, end string) (before string, ok bool) {
	n := len(path) - len(end)
	if n < 0 {
		return "", false
	}
	for i := len(end) - 1; i >= 0; i-- {
		c := path[n+i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != end[i] {
			return "", false
		}
	}
	return path[:n], true
}
