package main

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/config"
	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/proxy"
	"defender-proxy/regions"
)

// parts are what one configuration says, built: a snapshot, not changed once it
// serves.
type parts struct {
	*core
	config   *config.Config
	catalog  *policy.Catalog
	clients  []proxy.Client
	allow    [][]policy.Entry         // that the grants of clients were compiled of
	approval *proxy.Approval          // nil: nothing waits for a second person
	tenants  []proxy.Tenant           // in the configuration's order
	accounts map[string]token.Account // of tenants, by name
	proxy    *proxy.Proxy
	handlers []http.Handler // of the listeners, in the configuration's order
	view     *admin.View

	// sources and pools are all that the tenants use.
	sources []*token.Source
	pools   []*regions.Pool
	// proofs are the contents of what credentials are read from, as proofsOf gives
	// them; nil for a command that serves nobody.
	proofs map[string]content

	// sealed stands for the keys of download links, as sealingOf gives them.
	sealed content

	// retired is closed when other parts take the place of these.
	retired chan struct{}
	// serving counts the requests that began with these parts and have not ended.
	serving atomic.Int64
}

// assemble builds a configuration. before is the snapshot that serves now, nil
// where none does: a tenant whose credential is the same keeps what it knows, and
// if its files, by proofs, are the same too, whatever pause it is in.
//
// What can fail comes first and leaves the running snapshot as it is, but for
// pools that it does not use; only then the tokens' sources are told.
func (c *core) assemble(cfg *config.Config, proofs map[string]content, before *parts) (*parts, error) {
	p := &parts{core: c, config: cfg, proofs: proofs, accounts: make(map[string]token.Account, len(cfg.Tenants)), retired: make(chan struct{})}
	var err error
	if p.catalog, err = policy.NewCatalog(cfg.Policy.Operations); err != nil {
		return nil, err
	}
	for _, g := range cfg.Clients {
		grants, allow, err := p.grants(g)
		if err != nil {
			return nil, fmt.Errorf("client group %s: %w", g.Name, err)
		}
		p.allow = append(p.allow, allow)
		p.clients = append(p.clients, proxy.Client{Name: g.Name, From: g.From, Keys: g.Keys(), Tenants: g.Tenants, Grants: grants})
	}
	clouds := make(map[string]regions.Cloud)
	for _, t := range cfg.Tenants {
		if _, known := clouds[t.Cloud]; known {
			continue
		}
		cloud, ok := cfg.Cloud(t.Cloud)
		if !ok {
			return nil, fmt.Errorf("tenant %s: no cloud is called %s", t.Name, t.Cloud)
		}
		clouds[t.Cloud] = cloud
	}
	same := before.sameCredentials(cfg)
	for _, t := range cfg.Tenants {
		built, err := p.tenant(t, clouds[t.Cloud])
		if err != nil {
			return nil, fmt.Errorf("tenant %s: %w", t.Name, err)
		}
		p.tenants = append(p.tenants, built)
		account := accountOf(t, clouds[t.Cloud].Authority)
		same[t.Name] = same[t.Name] && before.accounts[t.Name].Authority == account.Authority
		if same[t.Name] {
			account.Credential = before.accounts[t.Name].Credential
		} else {
			account.Credential = c.credential(t)
		}
		p.accounts[t.Name] = account
	}
	if err := p.twoPeople(); err != nil {
		return nil, err
	}
	if err := p.listen(); err != nil {
		return nil, err
	}
	p.connect(before, same)
	p.view = p.admin(clouds)
	return p, nil
}

// sameCredentials tells which tenants of a new configuration have the credential
// that they had.
func (p *parts) sameCredentials(cfg *config.Config) map[string]bool {
	same := make(map[string]bool, len(cfg.Tenants))
	if p == nil {
		return same
	}
	old := make(map[string]config.Tenant, len(p.config.Tenants))
	for _, t := range p.config.Tenants {
		old[t.Name] = t
	}
	for _, t := range cfg.Tenants {
		o, ok := old[t.Name]
		same[t.Name] = ok && o.ID == t.ID && o.Cloud == t.Cloud && reflect.DeepEqual(o.Credential, t.Credential)
	}
	return same
}

// tenant builds a tenant, but for its tokens.
func (p *parts) tenant(t config.Tenant, cloud regions.Cloud) (proxy.Tenant, error) {
	prefer := t.Regions.Prefer
	if prefer == config.Auto {
		prefer = ""
	}
	built := proxy.Tenant{
		Tenant:      tenant.Tenant{Name: t.Name, ID: t.ID, Cloud: t.Cloud, Regions: t.Regions.Allow, Prefer: prefer},
		ClientID:    t.Credential.ClientID,
		Hunting:     proxy.Hunting(t.Hunting),
		BlobHosts:   cloud.BlobHosts,
		Upstreams:   make(map[policy.Service]*proxy.Upstream),
		Unreachable: make(map[policy.Service]error),
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
		built.Upstreams[s] = &proxy.Upstream{Audience: cloud.Audiences[regions.Service(s)], Regions: pool}
		p.pools = append(p.pools, pool)
	}
	if len(built.Upstreams) == 0 {
		return proxy.Tenant{}, fmt.Errorf("none of the services of cloud %s has an endpoint in the regions %v", t.Cloud, t.Regions.Allow)
	}
	return built, nil
}

// bodyIdle is how long a caller may pause while it sends or reads a body.
const bodyIdle = time.Minute

// listen makes the proxy and its handler for each listener. Requests under way
// are counted against limits.max_in_flight by the snapshot that they began with.
func (p *parts) listen() error {
	cfg := p.config
	downloads, err := p.downloads()
	if err != nil {
		return err
	}
	p.proxy, err = proxy.New(proxy.Deps{
		Policy: &policy.Policy{
			Catalog:      p.catalog,
			AllowUnknown: cfg.Policy.UnknownOperations == config.UnknownRead,
			ReportOnly:   cfg.Policy.Claims == config.ClaimsReport,
		},
		Clients:         p.clients,
		Tenants:         p.tenants,
		Transport:       p.transport,
		Monitor:         p.monitor,
		Audit:           p.core.audit,
		WritesNeedAudit: cfg.Audit.Writes == config.WritesRequired,
		Metrics:         p.core,
		Approval:        p.approval,
		Annotate:        cfg.Audit.Annotate,
		Retired:         p.retired,
		Log:             p.log,
		Limits: proxy.Limits{
			InFlight:         cfg.Limits.MaxInFlight,
			RequestBytes:     cfg.Limits.MaxRequestBytes,
			ConnectTimeout:   cfg.Regions.ConnectTimeout,
			FirstByteTimeout: cfg.Regions.FirstByteTimeout,
			BodyIdle:         bodyIdle,
			MaxWait:          cfg.Quota.MaxWait,
		},
		RepeatHunting:  cfg.Regions.RepeatHunting,
		Pages:          p.pages,
		Bridges:        p.bridges,
		ForwardHeaders: cfg.ForwardHeaders,
		Downloads:      downloads,

		PlaceholderToken: cfg.PlaceholderToken,
		Version:          buildVersion(),
	})
	if err != nil {
		return err
	}
	for _, l := range cfg.Listeners {
		h, err := p.proxy.Handler(proxy.Listener{
			Address: l.Address, Hosts: l.Hosts, Tenant: l.Tenant, Clients: l.Clients, Proxies: l.TrustedProxies, PublicURL: l.PublicURL, TLS: l.TLS != nil,
		})
		if err != nil {
			return err
		}
		p.handlers = append(p.handlers, h)
	}
	return nil
}

// connect gives every tenant the sources of its tokens. A live source serves the
// running snapshot too, and learns here what is new about its account. One whose
// account is the same as before is not told, for that would end the pause after a
// failure: a reload that has nothing to do with it mends nothing.
func (p *parts) connect(before *parts, same map[string]bool) {
	known := make(map[string]proxy.Tenant)
	if before != nil {
		for _, t := range before.tenants {
			known[t.Name] = t
		}
	}
	for _, t := range p.tenants {
		kept := same[t.Name] && p.proofs[t.Name] == before.proofs[t.Name]
		for _, s := range services(t) {
			u := t.Upstreams[s]
			if was := known[t.Name].Upstreams[s]; kept && was != nil && was.Audience == u.Audience {
				u.Token = was.Token
			} else {
				u.Token = p.tokens.Source(p.accounts[t.Name], u.Audience)
			}
			p.sources = append(p.sources, u.Token)
		}
	}
}

// proofsOf takes note of what the credentials of tenants are read from, by the
// tenants' names.
func proofsOf(cfg *config.Config) map[string]content {
	folders, seen := make(map[string]string), make(map[string]content)
	proofs := make(map[string]content, len(cfg.Tenants))
	for _, t := range cfg.Tenants {
		h := sha256.New()
		for _, f := range t.Credential.Files() {
			c, known := seen[f]
			if !known {
				c = glance(f, folders).read()
				seen[f] = c
			}
			_, _ = h.Write(c[:])
		}
		proofs[t.Name] = content(h.Sum(nil))
	}
	return proofs
}

// keep forgets whatever no tenant of these parts uses.
func (p *parts) keep() {
	p.tokens.Keep(p.sources)
	p.monitor.Keep(p.pools)
}

// admin is what the operator's pages show.
func (p *parts) admin(clouds map[string]regions.Cloud) *admin.View {
	v := &admin.View{Catalog: p.catalog, WritesNeedAudit: p.config.Audit.Writes == config.WritesRequired}
	var all []clients.Group
	for i, c := range p.clients {
		v.Groups = append(v.Groups, admin.Group{Name: c.Name, Grants: c.Grants, Allow: p.allow[i], Tenants: c.Tenants})
		all = append(all, clients.Group{Name: c.Name, From: c.From, Keys: c.Keys})
	}
	if p.approval != nil {
		v.Approval = &admin.Approval{By: p.approval.By, Callers: clients.New(all)}
		for _, g := range all {
			v.Approval.Names = append(v.Approval.Names, g.Name)
		}
	}
	impaired, leftOut := make(map[string][]string), make(map[string][]string)
	var lost []string
	for _, i := range p.config.Impaired {
		of := impaired
		if i.LeftOut {
			if of = leftOut; !slices.Contains(lost, i.Tenant) {
				lost = append(lost, i.Tenant)
			}
		}
		of[i.Tenant] = append(of[i.Tenant], i.Fault.String())
	}
	for _, t := range p.tenants {
		account := p.accounts[t.Name]
		row := admin.Tenant{
			Name: t.Name, ID: string(t.ID), ClientID: t.ClientID, Cloud: t.Cloud,
			Impaired: impaired[t.Name], LeftOut: make(map[policy.Service]string), Sends: p.proxy.Sends(t.Name),
		}
		if account.ClientID != "" {
			row.ConsentURL = account.ConsentURL()
		}
		for _, s := range services(t) {
			u := t.Upstreams[s]
			row.Access = append(row.Access, admin.Access{
				Service: s, Audience: u.Audience, Assumed: clouds[t.Cloud].Assumed[regions.Service(s)], Token: u.Token, Regions: u.Regions,
			})
		}
		for s, err := range t.Unreachable {
			row.LeftOut[s] = strings.TrimPrefix(err.Error(), "regions: ")
		}
		v.Tenants = append(v.Tenants, row)
	}
	for _, name := range lost {
		v.Tenants = append(v.Tenants, admin.Tenant{Name: name, Impaired: leftOut[name]})
	}
	if names := p.config.Admin.Clients; names != nil {
		v.Clients = clients.New(slices.DeleteFunc(all, func(g clients.Group) bool { return !slices.Contains(names, g.Name) }))
	}
	return v
}

// tenantNamed finds a tenant of the configuration; with an empty name the only
// one there is. Its error is for whoever typed the name.
func tenantNamed(cfg *config.Config, name string) (config.Tenant, error) {
	for _, i := range cfg.Impaired {
		if i.LeftOut && i.Tenant == name {
			return config.Tenant{}, fmt.Errorf("tenant %s is left out, because its file is faulty: %v", name, i.Fault)
		}
	}
	var all []string
	for _, t := range cfg.Tenants {
		if t.Name == name || name == "" && len(cfg.Tenants) == 1 {
			return t, nil
		}
		all = append(all, t.Name)
	}
	const most = 20
	known := strings.Join(all[:min(len(all), most)], ", ")
	if len(all) > most {
		known += fmt.Sprintf(" and %d more", len(all)-most)
	}
	if name == "" {
		return config.Tenant{}, &usageError{fmt.Errorf("there are several tenants; say --tenant NAME, one of %s", known)}
	}
	return config.Tenant{}, &usageError{fmt.Errorf("no tenant is called %s; there are %s", name, cmp.Or(known, "none"))}
}
