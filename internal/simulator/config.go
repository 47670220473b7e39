package simulator

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// Config says what to simulate. The zero value is a usable default.
type Config struct {
	// Address is the host to bind, 127.0.0.1 when empty. It must be a loopback
	// address: the simulator's control port has no lock.
	Address string
	// BasePort is the first of twelve consecutive ports: control, Entra, blob
	// storage, then the regions in the order of Regions, then the key vault and
	// the machine identity. 0 takes free ports.
	BasePort int
	// Seed decides the fleet and the misbehaviour: the same seed gives the same
	// fleet and the same answers on the same day.
	Seed uint64
	// Machines, Alerts and Vulnerabilities are the size of each tenant's fleet;
	// 240, 400 and 300 when 0, 100,000 at most.
	Machines, Alerts, Vulnerabilities int
	// PageSize is the number of rows of a page of a collection when the request
	// has no $top, 100 when 0. Microsoft documents 10,000 for most collections;
	// a small page lets a small fleet show paging.
	PageSize int
	// Delays are added to each answer, by region: us 30ms, eu 4ms, uk 8ms,
	// au 60ms, swa 12ms, ina 45ms and aea 50ms where the map has no entry.
	Delays map[string]time.Duration
	// HTTP2 lets the regions offer HTTP/2 beside HTTP/1.1. A reset connection then
	// ends all of its requests, and upgrade is 101 before the usual answer.
	HTTP2 bool
	// Quotas enforces the documented limits in calls.
	Quotas bool
	// Misbehave is the share of API and Entra answers, 0 to 1, that go wrong in
	// a documented way: 503, 429 with Retry-After, 401 for a good token, a
	// connection reset. The choice comes from Seed.
	Misbehave float64
	// TokenLifetime is the life of access tokens, 3599 s when 0.
	TokenLifetime time.Duration
	// ActionTime is how long a machine action is Pending, and then again
	// InProgress; 500ms when 0.
	ActionTime time.Duration
	// Tenants are the directories; DefaultTenant alone when empty.
	Tenants []Tenant
	// Identities are the managed identities of the machine that asks.
	Identities []Identity
	// IdentityTokenLifetime is the life of the tokens of Identities, 86399 s
	// when 0.
	IdentityTokenLifetime time.Duration
	// IdentityHeader is what App Service wants in X-IDENTITY-HEADER, a random
	// one when empty.
	IdentityHeader string
	// ArcKeyDir is where the agent of Azure Arc puts the key files that prove
	// a caller may read them. Microsoft's clients take none from anywhere but
	// /var/opt/azcmagent/tokens (on Linux). Empty: there is no such agent.
	ArcKeyDir string
	// VaultTenant is the ID of the tenant whose tokens the key vault takes, the
	// first of Tenants when empty.
	VaultTenant string
	// DeviceInterval is how often a device may ask whether somebody typed its
	// code, 5s when 0. It is told, not enforced.
	DeviceInterval time.Duration
	// PlainGraphTokens leaves the nonce out of the header of tokens for Graph.
	// Real ones have it, and do not verify as they stand.
	PlainGraphTokens bool
	// Now is the clock, time.Now when nil. It is called concurrently.
	Now func() time.Time
	// Log receives requests at debug level, never a token or a secret.
	Log zerolog.Logger
}

// Tenant is a directory of Entra ID with its applications, and has a fleet of
// its own.
type Tenant struct {
	ID   string // GUID
	Name string // Name.onmicrosoft.com is the directory's first domain
	Apps []App
}

// App is an application that is registered and consented to in a tenant.
type App struct {
	ClientID string // GUID
	Secrets  []string
	// Permissions are the application roles, by service: mde, xdr, graph. Those
	// of vault are roles on the key vault; any lets the application read secrets.
	Permissions map[string][]string
	// Users may sign in through the application.
	Users []User
	// Certificates are the registered ones, in DER.
	Certificates [][]byte
	// Federated are the foreign tokens that stand for the application.
	Federated []Federated
	// RedirectURIs are those of the platform Web, matched to the letter but for
	// the port of http://127.0.0.1. http://localhost with any port and path is
	// always registered, as that of a native application.
	RedirectURIs []string
	// Public marks an application without a credential: one that is sent is
	// refused (AADSTS700025).
	Public bool
	// Unconsented marks an application to which no administrator has consented
	// yet.
	Unconsented bool
}

// Federated is a federated identity credential: a token of Issuer for Subject
// and Audience is taken as the application's assertion. The three are compared
// to the letter.
type Federated struct {
	Issuer   string `json:"issuer"`
	Subject  string `json:"subject"`
	Audience string `json:"audience"`
}

// Identity is a managed identity.
type Identity struct {
	ClientID string // GUID
	ObjectID string // GUID of its service principal; the sub of its tokens
	TenantID string // one of Config.Tenants
	// System marks the machine's own identity; the others are assigned by users
	// and asked for by client id.
	System bool
	// Permissions are the application roles, by service, as those of App.
	Permissions map[string][]string
}

// User is a person of the directory.
type User struct {
	Name     string // user@contoso.onmicrosoft.com
	Password string
	// Scopes are the delegated permissions, by service.
	Scopes map[string][]string
	// MFA: a password alone does not suffice (AADSTS50076).
	MFA bool
	// Disabled: AADSTS50057.
	Disabled bool
}

// String, GoString and MarshalJSON keep the secrets out of output.
func (a App) String() string { return "app " + a.ClientID + " with secrets [redacted]" }

// GoString is String.
func (a App) GoString() string { return a.String() }

// MarshalJSON leaves the secrets and the users' passwords out.
func (a App) MarshalJSON() ([]byte, error) { return marshalPlain(publicApp(a)) }

// String keeps the password out of output.
func (u User) String() string { return "user " + u.Name + " with password [redacted]" }

// GoString is String.
func (u User) GoString() string { return u.String() }

// MarshalJSON leaves the password out.
func (u User) MarshalJSON() ([]byte, error) { return marshalPlain(publicUser(u)) }

// The default tenant's identifiers, for configurations and tests. The secret
// opens nothing but the simulator.
const (
	DefaultTenantID = "11111111-1111-1111-1111-111111111111"
	DefaultClientID = "22222222-2222-2222-2222-222222222222"
	DefaultSecret   = "simulated~secret.of-contoso"
)

// DefaultTenant is contoso with one application that may read everything and
// hunt, but changes nothing, and one user.
func DefaultTenant() Tenant {
	return Tenant{
		ID:   DefaultTenantID,
		Name: "contoso",
		Apps: []App{{
			ClientID: DefaultClientID,
			Secrets:  []string{DefaultSecret},
			Permissions: map[string][]string{
				"mde": {
					"AdvancedQuery.Read.All", "Alert.Read.All", "File.Read.All", "Ip.Read.All", "Machine.Read.All",
					"RemediationTasks.Read.All", "Score.Read.All", "SecurityBaselinesAssessment.Read.All",
					"SecurityRecommendation.Read.All", "Software.Read.All", "Url.Read.All", "User.Read.All",
					"Vulnerability.Read.All",
				},
				"xdr":   {"AdvancedHunting.Read.All", "Incident.Read.All"},
				"graph": {"SecurityAlert.Read.All", "SecurityIncident.Read.All", "ThreatHunting.Read.All"},
			},
			Users: []User{{
				Name:     "analyst@contoso.onmicrosoft.com",
				Password: "simulated-Password-1",
				Scopes: map[string][]string{
					"mde":   {"Alert.Read", "Machine.Read", "AdvancedQuery.Read"},
					"xdr":   {"Incident.Read", "AdvancedHunting.Read"},
					"graph": {"SecurityAlert.Read.All", "SecurityIncident.Read.All", "ThreatHunting.Read.All"},
				},
			}},
		}},
	}
}

// complete fills in defaults and refuses what makes no sense.
func (c Config) complete() (Config, error) {
	if c.Address == "" {
		c.Address = "127.0.0.1"
	}
	if ip := net.ParseIP(c.Address); c.Address != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return c, fmt.Errorf("address %q is not a loopback address: the control port has no lock", c.Address)
	}
	if last := c.BasePort + 4 + len(regionNames); c.BasePort < 0 || c.BasePort > 0 && last > 65535 {
		return c, fmt.Errorf("base port %d: the twelve ports from there must lie between 1 and 65535", c.BasePort)
	}
	if c.Misbehave < 0 || c.Misbehave > 1 {
		return c, fmt.Errorf("misbehave %v is not a share between 0 and 1", c.Misbehave)
	}
	for _, n := range []struct {
		name     string
		value    *int
		fallback int
	}{
		{"machines", &c.Machines, 240}, {"alerts", &c.Alerts, 400},
		{"vulnerabilities", &c.Vulnerabilities, 300}, {"page size", &c.PageSize, 100},
	} {
		if *n.value == 0 {
			*n.value = n.fallback
		}
		if *n.value < 1 || *n.value > 100_000 {
			return c, fmt.Errorf("%s %d: give a number from 1 to 100000", n.name, *n.value)
		}
	}
	for name, d := range c.Delays {
		if !slices.Contains(regionNames, name) {
			return c, fmt.Errorf("delay for region %q: the regions are %s", name, strings.Join(regionNames, " "))
		}
		if d < 0 {
			return c, fmt.Errorf("delay %v for region %s is negative", d, name)
		}
	}
	if c.TokenLifetime == 0 {
		c.TokenLifetime = 3599 * time.Second
	}
	if c.ActionTime == 0 {
		c.ActionTime = 500 * time.Millisecond
	}
	if c.IdentityTokenLifetime == 0 {
		c.IdentityTokenLifetime = 86399 * time.Second
	}
	if c.DeviceInterval == 0 {
		c.DeviceInterval = 5 * time.Second
	}
	if c.TokenLifetime < 0 || c.ActionTime < 0 || c.IdentityTokenLifetime < 0 || c.DeviceInterval < 0 {
		return c, errors.New("token lifetimes, action time and device interval must not be negative")
	}
	if len(c.Tenants) == 0 {
		c.Tenants = []Tenant{DefaultTenant()}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}
