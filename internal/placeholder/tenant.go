package placeholder

import (
	"net/url"
	"strings"
)

// common is the tenant of those who name none.
const common = "common"

// TenantOf gives the tenant that a raw query asks an instance for, or common: the
// first segment of the path of its authorization_endpoint, as
// https://login.microsoftonline.com/TENANT/oauth2/v2.0/authorize. Only a name or an
// id is believed to be one: letters, digits, dots and hyphens, 64 at most. Nothing
// else of the query is looked at.
func TenantOf(query string) string {
	for parameter := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		if name != "authorization_endpoint" {
			continue
		}
		endpoint, err := url.QueryUnescape(value)
		if err != nil {
			return common
		}
		_, rest, _ := strings.Cut(endpoint, "://")
		_, path, _ := strings.Cut(rest, "/")
		tenant, _, _ := strings.Cut(path, "/")
		if !named(tenant) {
			return common
		}
		return tenant
	}
	return common
}

func named(s string) bool {
	const most = 64
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		case c == '.' && i > 0 && i < len(s)-1: // or the link would lead to a dot segment
		default:
			return false
		}
	}
	return true
}
