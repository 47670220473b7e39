package config

import (
	"defender-proxy/internal/tenant"
	"defender-proxy/regions"
)

// Tenant is one Entra directory and the application that the proxy is in it.
type Tenant struct {
	// What paths (/t/NAME), groups and the audit record call the tenant: a-z,
	// 0-9 and hyphens.
	Name string `yaml:"name"`

	// The directory's id, a GUID.
	ID tenant.ID `yaml:"id" required:"the GUID of the directory"`

	// The cloud that the directory lives in: commercial, gcc, gcc-high, dod,
	// commercial-legacy (commercial under its old regional names, for firewalls
	// that know no others), or one from clouds. Default commercial.
	Cloud string `yaml:"cloud" default:"commercial"`

	// How the proxy proves to Entra ID who it is.
	Credential Credential `yaml:"credential"`

	// Where the tenant's requests may go.
	Regions TenantRegions `yaml:"regions"`

	// Which API answers the two older hunting calls, which Microsoft retires. Default
	// legacy: the one that they name; graph: Microsoft Graph, in the shape of the old
	// answers; auto: the one that they name until it is gone, then Microsoft Graph.
	Hunting string `yaml:"hunting" default:"legacy" oneof:"legacy graph auto"`
}

// TenantRegions is where a tenant's requests may go.
type TenantRegions struct {
	// The regions that requests may go to; no failover leaves them. Default all
	// of the cloud.
	Allow []regions.Name `yaml:"allow"`

	// The region to use while it is healthy, or auto. Default auto: the nearest.
	Prefer regions.Name `yaml:"prefer" default:"auto"`
}

// Auto is the value of TenantRegions.Prefer that means the nearest region.
const Auto regions.Name = "auto"

// TenantDefaults is what tenants have in common. Load has put it into each
// Tenant already.
type TenantDefaults struct {
	// The cloud of tenants that name none.
	Cloud string `yaml:"cloud"`

	// What tenants leave out of their credential, such as the client_id of an
	// application that many directories know.
	Credential Credential `yaml:"credential"`

	// What tenants leave out of their regions.
	Regions TenantRegions `yaml:"regions"`

	// The hunting of tenants that do not say.
	Hunting string `yaml:"hunting" oneof:"legacy graph auto"`
}

// Impairment is a fault that keeps one tenant from getting tokens and nobody
// else from anything.
type Impairment struct {
	Tenant string // the tenant's name
	// Fault stands where the key is given: in the tenant, or in tenant_defaults.
	Fault Fault
	// LeftOut says that the tenant's own file is faulty, so that it is not among
	// Config.Tenants; its name is then the file's where none could be read.
	LeftOut bool
}
