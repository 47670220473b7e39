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
	"sync"
	"sync/atomic"
	"time"
)

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
	vault     *vault
	identity  *identityService
	sessions  *sessions
	presented *presented
	retired   atomic.Int32 // the status that the older hunting APIs answer; 0: they work
	// workload makes the key of the issuer of workload tokens.
	workload func() (signingKey, error)

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

		sessions:  newSessions(),
		presented: newPresented(),
		workload:  sync.OnceValues(newSigningKey),
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
	s.signer.plainGraph = cfg.PlainGraphTokens
	if s.authority, err = newAuthority(cfg.Address); err != nil {
		return nil, fmt.Errorf("simulator: make the certificate authority: %w", err)
	}
	if s.directory, err = newDirectory(cfg); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	if s.vault, err = newVault(s, cfg.VaultTenant); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	s.identity = newIdentityService(cfg)
	if err := s.bind(); err != nil {
		return nil, errors.Join(fmt.Errorf("simulator: %w", err), s.Close())
	}
	return s, nil
}

// bind opens the listeners in their fixed order.
func (s *Simulator) bind() error {
	port := s.cfg.BasePort
	var plain []string
	https := []string{"http/1.1"}
	ofRegions := https
	if s.cfg.HTTP2 {
		ofRegions = []string{"h2", "http/1.1"}
	}
	next := func(name string, protocols []string, h http.Handler) (*gate, error) {
		address := net.JoinHostPort(s.cfg.Address, strconv.Itoa(port))
		if port != 0 {
			port++
		}
		return newGate(name, address, s.authority.config(protocols), h, s.stopped)
	}
	var err error
	if s.control, err = next("control", plain, s.controlHandler()); err != nil {
		return err
	}
	if s.login, err = next("entra", https, s.entraHandler()); err != nil {
		return err
	}
	if s.blob, err = next("blob", https, s.blobHandler()); err != nil {
		return err
	}
	for _, name := range regionNames {
		delay, ok := s.cfg.Delays[name]
		if !ok {
			delay = defaultDelays[name]
		}
		r := &region{name: name, faults: newFaultBox(delay)}
		if r.gate, err = next(name, ofRegions, s.regionHandler(r)); err != nil {
			return err
		}
		s.regions[name] = r
	}
	if s.vault.gate, err = next("vault", https, s.vaultHandler()); err != nil {
		return err
	}
	s.identity.gate, err = next("identity", plain, s.identityHandler())
	return err
}

// gates lists the listeners that are bound.
func (s *Simulator) gates() []*gate {
	all := []*gate{s.control, s.login, s.blob}
	for _, r := range s.regions {
		all = append(all, r.gate)
	}
	all = append(all, s.vault.gate, s.identity.gate)
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
	if s.identity != nil && s.identity.arc != nil {
		s.identity.arc.close()
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

// VaultURL is the base URL of the key vault. The vault also answers under any
// name of *.vault.azure.net, which its certificate covers: Microsoft's clients
// send no token to a vault of another name.
func (s *Simulator) VaultURL() string { return "https://" + s.vault.gate.address }

// IdentityURL is the base URL of the machine's identity endpoints, in plain
// HTTP: Microsoft's clients look for them at http://169.254.169.254.
func (s *Simulator) IdentityURL() string { return "http://" + s.identity.gate.address }

// Regions lists the regions in the order of their ports.
func (s *Simulator) Regions() []string { return slices.Clone(regionNames) }
