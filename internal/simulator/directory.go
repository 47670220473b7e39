package simulator

import (
	"crypto/rsa"
	"crypto/x509"
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

	mu         sync.Mutex
	tenants    map[string]*tenant // by ID in lower case
	names      map[string]*tenant // by name in lower case
	identities []Identity
	issued     map[Issued]int
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
	unconsented bool
	public      bool
	permissions map[string][]string
	users       []User

	certificates []*x509.Certificate
	federated    []Federated
	redirectURIs []string
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
	names := map[string]*tenant{}
	for _, t := range d.cfg.Tenants {
		id, err := uuid.Parse(t.ID)
		if err != nil {
			return fmt.Errorf("tenant %q: its id %q is not a GUID", t.Name, t.ID)
		}
		name := strings.ToLower(t.Name)
		if name == "" || names[name] != nil || tenants[id.String()] != nil {
			return fmt.Errorf("tenant %q with id %s: name and id must be there and differ from other tenants'", t.Name, t.ID)
		}
		n := &tenant{id: id.String(), name: name, apps: map[string]*app{}}
		n.fleet = sync.OnceValue(func() *fleet { return newFleet(d.cfg, n.id, n.name) })
		for _, a := range t.Apps {
			key := strings.ToLower(a.ClientID)
			if key == "" || n.apps[key] != nil {
				return fmt.Errorf("tenant %q: application id %q is empty or there twice", t.Name, a.ClientID)
			}
			certificates, err := parseCertificates(a.Certificates)
			if err != nil {
				return fmt.Errorf("tenant %q: application %s: %w", t.Name, a.ClientID, err)
			}
			n.apps[key] = &app{
				clientID:     a.ClientID,
				objectID:     uuid.NewSHA1(uuid.NameSpaceOID, []byte(n.id+key)).String(),
				secrets:      slices.Clone(a.Secrets),
				unconsented:  a.Unconsented,
				public:       a.Public,
				permissions:  clonePermissions(a.Permissions),
				users:        slices.Clone(a.Users),
				certificates: certificates,
				federated:    slices.Clone(a.Federated),
				redirectURIs: slices.Clone(a.RedirectURIs),
			}
		}
		tenants[n.id], names[name] = n, n
	}
	for _, i := range d.cfg.Identities {
		id, err := uuid.Parse(i.TenantID)
		if err != nil || tenants[id.String()] == nil || i.ClientID == "" || i.ObjectID == "" {
			return fmt.Errorf("identity %q: give client id, object id and a tenant id of Tenants", i.ClientID)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tenants, d.names, d.issued = tenants, names, map[Issued]int{}
	d.identities = slices.Clone(d.cfg.Identities)
	return nil
}

// parseCertificates reads the public halves that an application has registered.
func parseCertificates(ders [][]byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read a certificate (DER is wanted, not PEM): %w", err)
		}
		if _, ok := c.PublicKey.(*rsa.PublicKey); !ok {
			return nil, fmt.Errorf("certificate %s has a key that is not RSA", c.Subject)
		}
		out = append(out, c)
	}
	return out, nil
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
	return d.names[domain]
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
	c.certificates, c.federated = slices.Clone(a.certificates), slices.Clone(a.federated)
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
// The service vault stands for the roles on the key vault, which count at once:
// any role lets the application read secrets.
func (s *Simulator) SetPermissions(tenantID, clientID, service string, roles ...string) error {
	if !slices.Contains([]string{"mde", "xdr", "graph", "vault"}, service) {
		return fmt.Errorf("simulator: service %q: choose mde, xdr, graph or vault", service)
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

// SetCertificates replaces the certificates of an application, each in DER.
func (s *Simulator) SetCertificates(tenantID, clientID string, ders ...[]byte) error {
	certificates, err := parseCertificates(ders)
	if err != nil {
		return fmt.Errorf("simulator: application %s: %w", clientID, err)
	}
	return s.directory.change(tenantID, clientID, func(a *app) { a.certificates = certificates })
}

// SetFederated replaces the federated identity credentials of an application.
func (s *Simulator) SetFederated(tenantID, clientID string, records ...Federated) error {
	return s.directory.change(tenantID, clientID, func(a *app) { a.federated = slices.Clone(records) })
}

// SetConsented gives an administrator's consent to an application, or takes it
// back. Without it Entra ID answers AADSTS700016 to the application and
// AADSTS65001 for its users.
func (s *Simulator) SetConsented(tenantID, clientID string, consented bool) error {
	return s.directory.change(tenantID, clientID, func(a *app) { a.unconsented = !consented })
}

// SetUser replaces a user of an application, found by name, or adds one.
func (s *Simulator) SetUser(tenantID, clientID string, u User) error {
	return s.directory.change(tenantID, clientID, func(a *app) {
		a.users = slices.DeleteFunc(a.users, func(o User) bool { return strings.EqualFold(o.Name, u.Name) })
		a.users = append(a.users, u)
	})
}

// Issued counts the tokens that were issued since the start or the last reset.
func (s *Simulator) Issued() map[Issued]int {
	s.directory.mu.Lock()
	defer s.directory.mu.Unlock()
	return maps.Clone(s.directory.issued)
}

// publicApp and publicUser are what may be printed of a configuration.
func publicApp(a App) any {
	return map[string]any{"client_id": a.ClientID, "secrets": redactedAll(a.Secrets), "permissions": a.Permissions, "users": a.Users,
		"certificates": len(a.Certificates), "federated": a.Federated, "redirect_uris": a.RedirectURIs, "public": a.Public, "unconsented": a.Unconsented}
}

func publicUser(u User) any {
	return map[string]any{"name": u.Name, "password": "[redacted]", "scopes": u.Scopes, "mfa": u.MFA, "disabled": u.Disabled}
}

func redactedAll(secrets []string) []string {
	out := make([]string, len(secrets))
	for i := range out {
		out[i] = "[redacted]"
	}
	return out
}
