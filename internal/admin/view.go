package admin

import (
	"slices"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// View is what the pages show of one configuration. It is not changed once it
// is made.
type View struct {
	Tenants []Tenant
	// Clients are the groups that may use the admin listener; nil admits whoever
	// reaches the address, which config allows on loopback only.
	Clients *clients.Groups
	// Catalog and Groups say what is granted; nil and empty, nothing.
	Catalog *policy.Catalog
	Groups  []Group
	// Approval says who decides about calls that wait for a second person; nil: no
	// call waits.
	Approval *Approval
	// WritesNeedAudit refuses a decision whose record cannot be stored.
	WritesNeedAudit bool
}

// Group is a client group and what it is granted.
type Group struct {
	Name   string
	Grants *policy.Grants
	// Allow are the entries that Grants was compiled of, for the report of what is
	// used; nil: grants that are not used are not told.
	Allow []policy.Entry
	// Tenants are the names of those it may ask for; all when nil.
	Tenants []string
}

// Tenant is a tenant as the pages see it.
type Tenant struct {
	Name string
	// ID is the directory's GUID, ClientID that of the application, empty for the
	// identity of a machine.
	ID, ClientID string
	Cloud        string
	// ConsentURL is where an administrator consents to the application; empty where
	// there is none.
	ConsentURL string
	// Impaired is what was wrong with the tenant's credential when the
	// configuration was read, or with its file, and then it has nothing but its name.
	Impaired []string
	// Access is by service. The tenant is ready when one of them is.
	Access []Access
	// Sends tells what is sent for operations that Microsoft retires; nil: what is
	// asked for. It is called concurrently.
	Sends policy.Sends
	// LeftOut says of the other services why the tenant cannot reach them.
	LeftOut map[policy.Service]string
}

// Access is what a tenant's requests to one service go through.
type Access struct {
	Service  policy.Service
	Audience string
	// Assumed says what the audience is taken from where Microsoft documents none.
	Assumed string
	Token   *token.Source
	Regions *regions.Pool
}

// Grantees are the client groups that may ask for a tenant.
func (v *View) Grantees(tenant string) []policy.Grantee {
	var all []policy.Grantee
	for _, g := range v.Groups {
		if g.Tenants == nil || slices.Contains(g.Tenants, tenant) {
			all = append(all, policy.Grantee{Name: g.Name, Grants: g.Grants})
		}
	}
	return all
}
