package simulator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// directory is what Entra ID knows: tenants, applications, users, and which
// tokens were issued.
type directory struct {
	cfg Config

	mu      sync.Mutex
	tenants map[string]*tenant // by ID in lower case
	issued  map[Issued]int
}

// tenant is a directory with its fleet. The fleet is made when first asked
// for: a simulator of a thousand tenants starts as fast as one of one.
type tenant struct {
	id, name string
	apps     map[string]*app // by client ID in lower case; guarded by directory.mu
	fleet    func() *fleet
}

// app is an application's mutable state, guarded by directory.mu.
type app struct {
	clientID    string
	objectID    string
	secrets     []string
	expired     []string // secrets past their end date
	disabled    bool
	permissions map[string][]string
	users       []User
}

// Issued says for whom tokens were issued.
type Issued struct {
	Tenant, App, Audience string
}

func newDirectory(cfg Config) (*directory, error) {
	d := &directory{cfg: cfg}
	return d, d.reset()
}

// reset returns to what the configuration says.
func (d *directory) reset() error {
	tenants := map[string]*tenant{}
	names := map[string]bool{}
	for _, t := range d.cfg.Tenants {
		id, err := uuid.Parse(t.ID)
		if err != nil {
			return fmt.Errorf("tenant %q: its id %q is not a GUID", t.Name, t.ID)
		}
		name := strings.ToLower(t.Name)
		if name == "" || names[name] || tenants[id.String()] != nil {
			return fmt.Errorf("tenant %q with id %s: name and id must be there and differ from other tenants'", t.Name, t.ID)
		}
		names[name] = true
		n := &tenant{id: id.String(), name: name, apps: map[string]*app{}}
		n.fleet = sync.OnceValue(func() *fleet { return newFleet(d.cfg, n.id, n.name) })
		for _, a := range t.Apps {
			key := strings.ToLower(a.ClientID)
			if key == "" || n.apps[key] != nil {
				return fmt.Errorf("tenant %q: application id %q is empty or there twice", t.Name, a.ClientID)
			}
			n.apps[key] = &app{
				clientID:    a.ClientID,
				objectID:    uuid.NewSHA1(uuid.NameSpaceOID, []byte(n.id+key)).String(),
				secrets:     slices.Clone(a.Secrets),
				permissions: clonePermissions(a.Permissions),
				users:       slices.Clone(a.Users),
			}
		}
		tenants[n.id] = n
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tenants, d.issued = tenants, map[Issued]int{}
	return nil
}

func clonePermissions(p map[string][]string) map[string][]string {
	out := make(map[string][]string, len(p))
	for service, roles := range p {
		out[service] = slices.Clone(roles)
	}
	return out
}

// tenant finds a directory by GUID or by its onmicrosoft.com domain, nil if
// there is none.
func (d *directory) tenant(name string) *tenant {
	name = strings.ToLower(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tenants[name]; t != nil {
		return t
	}
	domain, ok := strings.CutSuffix(name, ".onmicrosoft.com")
	if !ok {
		return nil
	}
	for _, t := range d.tenants {
		if t.name == domain {
			return t
		}
	}
	return nil
}

// app copies the state of an application.
func (d *directory) app(t *tenant, clientID string) (app, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := t.apps[strings.ToLower(clientID)]
	if a == nil {
		return app{}, false
	}
	c := *a
	c.secrets, c.expired, c.users = slices.Clone(a.secrets), slices.Clone(a.expired), slices.Clone(a.users)
	c.permissions = clonePermissions(a.permissions)
	return c, true
}

// change alters an application in place.
func (d *directory) change(tenantID, clientID string, do func(*app)) error {
	t := d.tenant(tenantID)
	if t == nil {
		return fmt.Errorf("simulator: no tenant %q", tenantID)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a := t.apps[strings.ToLower(clientID)]
	if a == nil {
		return fmt.Errorf("simulator: tenant %s has no application %q", t.name, clientID)
	}
	do(a)
	return nil
}

// maxIssued bounds the table of issued tokens: users may ask for any of the
// known audiences under a few spellings.
const maxIssued = 10_000

func (d *directory) countIssued(k Issued) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.issued[k]; ok || len(d.issued) < maxIssued {
		d.issued[k]++
	}
}

// SetPermissions replaces the application roles of an application for one
// service (mde, xdr or graph). Tokens that are out keep theirs, as real ones do.
func (s *Simulator) SetPermissions(tenantID, clientID, service string, roles ...string) error {
	if !slices.Contains([]string{"mde", "xdr", "graph"}, service) {
		return fmt.Errorf("simulator: service %q: choose mde, xdr or graph", service)
	}
	return s.directory.change(tenantID, clientID, func(a *app) { a.permissions[service] = slices.Clone(roles) })
}

// SetSecrets replaces the secrets of an application.
func (s *Simulator) SetSecrets(tenantID, clientID string, secrets ...string) error {
	return s.directory.change(tenantID, clientID, func(a *app) { a.secrets = slices.Clone(secrets) })
}

// ExpireSecret lets one secret of an application be past its end date:
// Entra ID then answers AADSTS7000222.
func (s *Simulator) ExpireSecret(tenantID, clientID, secret string) error {
	return s.directory.change(tenantID, clientID, func(a *app) { a.expired = append(a.expired, secret) })
}

// SetDisabled switches an application off or on: Entra ID answers AADSTS7000112.
func (s *Simulator) SetDisabled(tenantID, clientID string, disabled bool) error {
	return s.directory.change(tenantID, clientID, func(a *app) { a.disabled = disabled })
}

// Issued counts the tokens that were issued since the start or the last reset.
func (s *Simulator) Issued() map[Issued]int {
	s.directory.mu.Lock()
	defer s.directory.mu.Unlock()
	return maps.Clone(s.directory.issued)
}

// publicApp and publicUser are what may be printed of a configuration.
func publicApp(a App) any {
	return map[string]any{"client_id": a.ClientID, "secrets": redactedAll(a.Secrets), "permissions": a.Permissions, "users": a.Users}
}

func publicUser(u User) any {
	return map[string]any{"name": u.Name, "password": "[redacted]", "scopes": u.Scopes}
}

func redactedAll(secrets []string) []string {
	out := make([]string, len(secrets))
	for i := range out {
		out[i] = "[redacted]"
	}
	return out
}
