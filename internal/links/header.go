package links

import "strings"

// Header turns home the URL in a Location, Content-Location or
// Operation-Location header. It reports false when value does not lead to one
// of the proxy's paths; what to do with such a header is the caller's decision,
// and for a redirect there is only one: not to pass it on.
//
// A URL with scheme and authority gets those of t; one that begins with a slash
// stays relative and gets the path prefix of t. Other relative forms, among them
// those that begin with two slashes and name a host, do not lead home.
func Header(value string, t Target) (string, bool) {
	if len(t.base) == 0 || strings.ContainsFunc(value, notURL) {
		return "", false
	}
	// The scanner reads JSON strings. A URL without quotes and backslashes is
	// one, once it is closed.
	data := append([]byte(value), '"')
	if value != "" && value[0] == '/' {
		if ours(&scanner{data: data}, false) != rewrite {
			return "", false
		}
		return t.prefix + value, true
	}
	end, v := origin(data, false)
	if v != rewrite {
		return "", false
	}
	return string(t.base) + value[end:], true
}

func notURL(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '\\' }
