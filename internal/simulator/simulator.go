package simulator

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Config says what to simulate. The zero value is a usable default.
type Config struct {
	// Address is the host to bind, 127.0.0.1 when empty. It must be a loopback
	// address: the simulator's control port has no lock.
	Address string
	// BasePort is the first of ten consecutive ports: control, Entra, blob
	// storage, then the regions in the order of Regions. 0 takes free ports.
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
	// Permissions are the application roles, by service: mde, xdr, graph.
	Permissions map[string][]string
	// Users may sign in through the application with a password.
	Users []User
}

// User is a person of the directory.
type User struct {
	Name     string // user@contoso.onmicrosoft.com
	Password string
	// Scopes are the delegated permissions, by service.
	Scopes map[string][]string
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

// regionNames is the order of Regions and of the ports.
var regionNames = []string{"us", "eu", "uk", "au", "swa", "ina", "aea"}

var defaultDelays = map[string]time.Duration{
	"us": 30 * time.Millisecond, "eu": 4 * time.Millisecond, "uk": 8 * time.Millisecond,
	"au": 60 * time.Millisecond, "swa": 12 * time.Millisecond, "ina": 45 * time.Millisecond,
	"aea": 50 * time.Millisecond,
}

// Simulator is a running or ready set of services. Its methods may be called
// concurrently, before, during and after Run.
type Simulator struct {
	cfg       Config
	now       func() time.Time
	started   time.Time
	router    *router
	authority *authority
	signer    *signer
	directory *directory
	ring      *ring
	quotas    *quotas
	mischief  *mischief
	entra     *faultBox
	control   *gate
	login     *gate
	blob      *gate
	regions   map[string]*region

	// stopped is closed when the simulator ends, so that handlers that hang on
	// purpose let go.
	stopped  chan struct{}
	stopOnce sync.Once
	runOnce  sync.Once
}

// region is one of the seven listeners of the API.
type region struct {
	name   string
	gate   *gate
	faults *faultBox
}

// New binds every listener, makes the certificate authority and the keys, and
// prepares the tenants. Connections wait until Run serves them. An error of a
// taken port names the address and wraps the error of net.Listen, so
// errors.Is(err, syscall.EADDRINUSE) holds. The caller runs Run or Close.
func New(cfg Config) (*Simulator, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	s := &Simulator{
		cfg:     cfg,
		now:     cfg.Now,
		started: cfg.Now(),
		ring:    newRing(),
		quotas:  newQuotas(cfg.Quotas),
		entra:   newFaultBox(0),
		regions: map[string]*region{},
		stopped: make(chan struct{}),
	}
	s.mischief = newMischief(cfg.Misbehave, cfg.Seed)
	if s.router, err = newRouter(); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("simulator: make the key that signs tokens: %w", err)
	}
	s.signer = newSigner(key, cfg.TokenLifetime)
	if s.authority, err = newAuthority(cfg.Address); err != nil {
		return nil, fmt.Errorf("simulator: make the certificate authority: %w", err)
	}
	if s.directory, err = newDirectory(cfg); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	if err := s.bind(); err != nil {
		return nil, errors.Join(fmt.Errorf("simulator: %w", err), s.Close())
	}
	return s, nil
}

// complete fills in defaults and refuses what makes no sense.
func (c Config) complete() (Config, error) {
	if c.Address == "" {
		c.Address = "127.0.0.1"
	}
	if ip := net.ParseIP(c.Address); c.Address != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return c, fmt.Errorf("address %q is not a loopback address: the control port has no lock", c.Address)
	}
	if last := c.BasePort + 2 + len(regionNames); c.BasePort < 0 || c.BasePort > 0 && last > 65535 {
		return c, fmt.Errorf("base port %d: the ten ports from there must lie between 1 and 65535", c.BasePort)
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
	if c.TokenLifetime < 0 || c.ActionTime < 0 {
		return c, errors.New("token lifetime and action time must not be negative")
	}
	if len(c.Tenants) == 0 {
		c.Tenants = []Tenant{DefaultTenant()}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// bind opens the listeners in their fixed order.
func (s *Simulator) bind() error {
	port := s.cfg.BasePort
	next := func(name string, tls bool, h http.Handler) (*gate, error) {
		address := net.JoinHostPort(s.cfg.Address, strconv.Itoa(port))
		if port != 0 {
			port++
		}
		return newGate(name, address, s.authority.config(tls), h, s.stopped)
	}
	var err error
	if s.control, err = next("control", false, s.controlHandler()); err != nil {
		return err
	}
	if s.login, err = next("entra", true, s.entraHandler()); err != nil {
		return err
	}
	if s.blob, err = next("blob", true, s.blobHandler()); err != nil {
		return err
	}
	for _, name := range regionNames {
		delay, ok := s.cfg.Delays[name]
		if !ok {
			delay = defaultDelays[name]
		}
		r := &region{name: name, faults: newFaultBox(delay)}
		if r.gate, err = next(name, true, s.regionHandler(r)); err != nil {
			return err
		}
		s.regions[name] = r
	}
	return nil
}

// gates lists the listeners that are bound.
func (s *Simulator) gates() []*gate {
	all := []*gate{s.control, s.login, s.blob}
	for _, r := range s.regions {
		all = append(all, r.gate)
	}
	return slices.DeleteFunc(all, func(g *gate) bool { return g == nil })
}

// Run serves until ctx ends, then cuts every connection. Its goroutines have
// ended when it returns. It returns nil after an ordinary end, and may be
// called once.
func (s *Simulator) Run(ctx context.Context) error {
	first := false
	s.runOnce.Do(func() { first = true })
	if !first {
		return errors.New("simulator: Run was called twice")
	}
	var wg sync.WaitGroup
	failed := make(chan error, len(s.gates()))
	for _, g := range s.gates() {
		wg.Go(func() {
			if err := g.serve(); err != nil {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case <-s.stopped:
	case err = <-failed:
	}
	closed := s.Close()
	wg.Wait()
	return errors.Join(err, closed)
}

// Close ends Run, or gives up the listeners of a Simulator that never ran. It
// may be called more than once.
func (s *Simulator) Close() error {
	s.stopOnce.Do(func() { close(s.stopped) })
	var errs []error
	for _, g := range s.gates() {
		errs = append(errs, g.close())
	}
	return errors.Join(errs...)
}

// CA is the certificate authority of every listener, in PEM.
func (s *Simulator) CA() []byte { return s.authority.pem }

// Authority is the base URL of Entra ID, without a trailing slash.
func (s *Simulator) Authority() string { return "https://" + s.login.address }

// ControlURL is the base URL of the control port.
func (s *Simulator) ControlURL() string { return "http://" + s.control.address }

// BlobURL is the base URL of the blob storage.
func (s *Simulator) BlobURL() string { return "https://" + s.blob.address }

// Endpoint is the base URL of a region, for all services; empty for a region
// that Regions does not list.
func (s *Simulator) Endpoint(region string) string {
	r, ok := s.regions[region]
	if !ok {
		return ""
	}
	return "https://" + r.gate.address
}

// Regions lists the regions in the order of their ports.
func (s *Simulator) Regions() []string { return slices.Clone(regionNames) }
