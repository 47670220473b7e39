package canon

import "strings"

// credentialParameters are what old scripts put into a query although it does
// not belong there, and the override of the method that some servers honour.
var credentialParameters = []string{
	"access_token", "client_id", "client_secret", "client_assertion", "password", "_method",
}

// Query returns a raw query without the parameters that carry a credential or
// another method. All else stays byte for byte, in its order: an OData filter
// may hold ; ' + and bad escapes, and one that is lost returns the whole fleet.
// Without such a parameter the query is returned as it is, without allocation.
//
// Names are compared decoded and without regard to ASCII case, as ASP.NET
// compares them.
func Query(raw string) string {
	// Only & separates: ASP.NET does not split at a semicolon, and OData uses
	// it inside $expand.
	for start := 0; start <= len(raw); {
		end := strings.IndexByte(raw[start:], '&')
		if end < 0 {
			end = len(raw)
		} else {
			end += start
		}
		if carriesCredential(raw[start:end]) {
			return cut(raw)
		}
		start = end + 1
	}
	return raw
}

func cut(raw string) string {
	kept := make([]string, 0, 8)
	for p := range strings.SplitSeq(raw, "&") {
		if !carriesCredential(p) {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "&")
}

func carriesCredential(parameter string) bool {
	name, _, _ := strings.Cut(parameter, "=")
	if strings.HasPrefix(name, "$") {
		return false
	}
	for _, c := range credentialParameters {
		if named(name, c) {
			return true
		}
	}
	return false
}

// named reports whether raw, percent-decoded and without white space and
// control characters, is want, which is in lower case.
func named(raw, want string) bool {
	n := 0
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' && i+2 < len(raw) && unhex(raw[i+1]) >= 0 && unhex(raw[i+2]) >= 0 {
			c = byte(unhex(raw[i+1])<<4 | unhex(raw[i+2]))
			i += 2
		}
		if c == '+' || c <= ' ' {
			continue
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if n >= len(want) || c != want[n] {
			return false
		}
		n++
	}
	return n == len(want)
}
