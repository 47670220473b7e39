package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/config"
	"defender-proxy/internal/credential"
	"defender-proxy/internal/egress"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/proxy"
	"defender-proxy/regions"
)

// parts are what a configuration says, built and not yet running.
type parts struct {
	config    *config.Config
	log       zerolog.Logger
	catalog   *policy.Catalog
	clients   []proxy.Client
	tenants   []proxy.Tenant
	transport *http.Transport
	tokens    *token.Engine
	monitor   *regions.Monitor
}

// assemble builds the parts. Nothing is bound, read or fetched but ca_file.
func assemble(cfg *config.Config, env func(string) (string, bool), log zerolog.Logger) (*parts, error) {
	p := &parts{config: cfg, log: log}
	var err error
	if p.catalog, err = policy.NewCatalog(cfg.Policy.Operations); err != nil {
		return nil, err
	}
	for _, g := range cfg.Clients {
		grants, err := p.catalog.Grants(g.Allow, g.Deny)
		if err != nil {
			return nil, fmt.Errorf("client group %s: %w", g.Name, err)
		}
		p.clients = append(p.clients, proxy.Client{Name: g.Name, From: g.From, Tenants: g.Tenants, Grants: grants})
	}
	out := egress.Settings{CAFile: cfg.Egress.CAFile, ConnectTimeout: cfg.Regions.ConnectTimeout}
	if cfg.Egress.Proxy != "" {
		if out.Proxy, err = url.Parse(cfg.Egress.Proxy); err != nil {
			return nil, fmt.Errorf("egress.proxy: %w", errors.Unwrap(err)) // the URL may hold a password
		}
	}
	if p.transport, err = egress.New(out); err != nil {
		return nil, err
	}
	p.tokens = token.New(token.Options{Transport: p.transport, Log: log})
	p.monitor = regions.NewMonitor(regions.Settings{
		ProbeInterval:   cfg.Regions.ProbeInterval,
		ProbeTimeout:    cfg.Regions.ConnectTimeout,
		SwitchMargin:    cfg.Regions.SwitchMargin,
		SwitchMarginMin: cfg.Regions.SwitchMarginMin,
		OnChange: func(c regions.Change) {
			log.Info().Str("event", string(c.Event)).Str("service", string(c.Service)).Str("region", string(c.Region)).
				Str("from", string(c.From)).Str("reason", c.Reason).Msg("region")
		},
	}, p.transport)
	for _, t := range cfg.Tenants {
		built, err := p.tenant(t, env)
		if err != nil {
			return nil, fmt.Errorf("tenant %s: %w", t.Name, err)
		}
		p.tenants = append(p.tenants, built)
	}
	return p, nil
}

func (p *parts) tenant(t config.Tenant, env func(string) (string, bool)) (proxy.Tenant, error) {
	cloud, ok := p.config.Cloud(t.Cloud)
	if !ok {
		return proxy.Tenant{}, fmt.Errorf("no cloud is called %s", t.Cloud)
	}
	prefer := t.Regions.Prefer
	if prefer == config.Auto {
		prefer = ""
	}
	built := proxy.Tenant{
		Tenant:      tenant.Tenant{Name: t.Name, ID: t.ID, Cloud: t.Cloud, Regions: t.Regions.Allow, Prefer: prefer},
		ClientID:    t.Credential.ClientID,
		Upstreams:   make(map[policy.Service]*proxy.Upstream),
		Unreachable: make(map[policy.Service]error),
	}
	account := token.Account{
		Name:      t.Name,
		Cloud:     t.Cloud,
		Authority: cloud.Authority,
		Tenant:    t.ID,
		ClientID:  t.Credential.ClientID,
		Credential: credential.ClientSecret(credential.Plain(func() (string, error) {
			return t.Credential.ClientSecret.Resolve(env)
		}), nil),
		Version: token.Version(t.Credential.TokenVersion),
	}
	for _, s := range policy.Services() {
		wanted := prefer
		if len(cloud.Endpoints[regions.Service(s)]) == 1 {
			wanted = "" // one endpoint leaves nothing to prefer
		}
		pool, err := p.monitor.Pool(cloud, regions.Service(s), t.Regions.Allow, wanted)
		switch {
		case errors.Is(err, regions.ErrNoService), errors.Is(err, regions.ErrNotAllowed):
			built.Unreachable[s] = err
			continue
		case err != nil:
			return proxy.Tenant{}, err
		}
		audience := cloud.Audiences[regions.Service(s)]
		built.Upstreams[s] = &proxy.Upstream{Audience: audience, Token: p.tokens.Source(account, audience), Regions: pool}
	}
	if len(built.Upstreams) == 0 {
		return proxy.Tenant{}, fmt.Errorf("none of the services of cloud %s has an endpoint in the regions %v", t.Cloud, t.Regions.Allow)
	}
	return built, nil
}

// start runs what works in the background, the tokens and the probes, until ctx
// ends. The function it returns waits for their end.
func (p *parts) start(ctx context.Context) (wait func()) {
	var wg sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{"tokens": p.tokens.Run, "regions": p.monitor.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				p.log.Error().Err(err).Str("part", name).Msg("stopped")
			}
		})
	}
	return func() {
		wg.Wait()
		p.transport.CloseIdleConnections()
	}
}

// bodyIdle is how long a caller may pause while it sends or reads a body.
const bodyIdle = time.Minute

// proxy is the handler of the callers' listeners.
func (p *parts) proxy(record *audit.Log, metrics *admin.Metrics) (*proxy.Proxy, error) {
	cfg := p.config
	return proxy.New(proxy.Deps{
		Policy: &policy.Policy{
			Catalog:      p.catalog,
			AllowUnknown: cfg.Policy.UnknownOperations == config.UnknownRead,
			ReportOnly:   cfg.Policy.Claims == config.ClaimsReport,
		},
		Clients:         p.clients,
		Tenants:         p.tenants,
		Transport:       p.transport,
		Monitor:         p.monitor,
		Audit:           record,
		WritesNeedAudit: cfg.Audit.Writes == config.WritesRequired,
		Metrics:         metrics,
		Log:             p.log,
		Limits: proxy.Limits{
			InFlight:         cfg.Limits.MaxInFlight,
			RequestBytes:     cfg.Limits.MaxRequestBytes,
			ConnectTimeout:   cfg.Regions.ConnectTimeout,
			FirstByteTimeout: cfg.Regions.FirstByteTimeout,
			BodyIdle:         bodyIdle,
		},
		ForwardHeaders: cfg.ForwardHeaders,
		Version:        buildVersion(),
	})
}

// admin is the handler of the operator's listener.
func (p *parts) admin(metrics *admin.Metrics) (http.Handler, error) {
	s := admin.Sources{Monitor: p.monitor, Metrics: metrics, Names: listen.NewNames(nil, false, "")}
	for _, t := range p.tenants {
		row := admin.Tenant{Name: t.Name}
		for _, service := range policy.Services() {
			if u := t.Upstreams[service]; u != nil {
				row.Access = append(row.Access, admin.Access{Service: service, Token: u.Token, Regions: u.Regions})
			}
		}
		s.Tenants = append(s.Tenants, row)
	}
	if names := p.config.Admin.Clients; names != nil {
		var groups []clients.Group
		for _, c := range p.clients {
			for _, name := range names {
				if c.Name == name {
					groups = append(groups, clients.Group{Name: c.Name, From: c.From})
				}
			}
		}
		s.Clients = clients.New(groups)
	}
	return admin.New(s)
}

// openAudit opens where records go.
func (c *cli) openAudit(cfg *config.Config, stdout io.Writer) (*audit.Log, error) {
	return audit.Open(cfg.Audit.File, stdout, c.stderr)
}
