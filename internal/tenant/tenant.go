// Package tenant knows the Entra tenants whose data the proxy serves: what a
// tenant is called, which directory it is, and where its requests may go.
//
// It holds nouns only. The credentials are internal/token's business, the
// endpoints regions', and proxy brings the three together.
package tenant

import (
	"fmt"

	"defender-proxy/regions"
)

// ID is the GUID of an Entra directory, in lower case with hyphens, such as
// 11111111-1111-1111-1111-111111111111. The zero value is no tenant.
type ID string

// ParseID reads a GUID in either letter case and gives it in lower case.
func ParseID(s string) (ID, error) {
	b := []byte(s)
	if len(b) != 36 {
		return "", fmt.Errorf("tenant id %q is not a GUID: it has %d characters, a GUID 36", s, len(b))
	}
	for i, c := range b {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return "", fmt.Errorf("tenant id %q is not a GUID: character %d should be a hyphen", s, i+1)
			}
		case '0' <= c && c <= '9' || 'a' <= c && c <= 'f':
		case 'A' <= c && c <= 'F':
			b[i] = c + ('a' - 'A')
		default:
			return "", fmt.Errorf("tenant id %q is not a GUID: character %d is not a hexadecimal digit", s, i+1)
		}
	}
	return ID(b), nil
}

// Tenant is one directory under the name that the operator gave it.
type Tenant struct {
	// Name is what paths (/t/{name}), logs and the configuration call it.
	Name string
	ID   ID
	// Cloud names one of the clouds of package regions, or the operator's own.
	Cloud string
	// Regions are those that requests may go to, all of the cloud when empty.
	// No failover leaves them.
	Regions []regions.Name
	// Prefer is the region to use while it is healthy; empty means the nearest.
	Prefer regions.Name
}
