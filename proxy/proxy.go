package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"github.com/rs/zerolog"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// Client is a client group and what it may do.
type Client struct {
	Name string
	From []clients.Source
	// Keys are the local keys that its callers have to send.
	Keys []clients.Key
	// Tenants are the names of those it may ask for; all when nil.
	Tenants []string
	Grants  *policy.Grants
}

// Tenant is a tenant with what its requests go through.
type Tenant struct {
	tenant.Tenant
	// ClientID is the application whose token is used, for messages.
	ClientID string
	// Upstreams are by service; a service that is missing cannot be reached, and
	// Unreachable may say why: an error of regions.Monitor.Pool.
	Upstreams   map[policy.Service]*Upstream
	Unreachable map[policy.Service]error
	// Hunting says which API answers the older hunting calls; empty: the one that
	// they name.
	Hunting Hunting
	// BlobHosts are the hosts that download links may name, as regions.Cloud has
	// them.
	BlobHosts []string

	blobs blobHosts
}

// Upstream is a service as one tenant sees it.
type Upstream struct {
	Audience string
	Token    *token.Source
	Regions  *regions.Pool

	seen atomic.Pointer[seen]
}

// seen is the bearer that was seen last, and what it permits.
type seen struct {
	bearer  *token.Bearer
	permits *policy.Permits
}

// Listener is an address that callers connect to, as requests see it.
type Listener struct {
	// Address is host:port as configured, for records and messages.
	Address string
	// Hosts are the names and addresses that a request's Host may be, with or
	// without a port, beside the address that it came to. Connections that came
	// to a loopback address may call it localhost too.
	Hosts []string
	// Tenant is the name of the tenant of requests that name none; empty: none.
	Tenant string
	// Clients are the names of the groups that may use it; all when nil.
	Clients []string
	// Proxies are the addresses whose X-Forwarded-For is believed.
	Proxies []netip.Prefix
	// PublicURL is the base of links in answers; empty: the scheme and the Host
	// of the request.
	PublicURL string
	TLS       bool
}

// Limits bound what callers can use up.
type Limits struct {
	// InFlight is the number of requests served at once; one more is refused.
	InFlight int
	// RequestBytes is the size of a request's body.
	RequestBytes int64
	// ConnectTimeout is how long an attempt may take to connect, TLS included.
	ConnectTimeout time.Duration
	// FirstByteTimeout is how long an attempt may take to begin its answer, and
	// how long an answer that has begun may pause.
	FirstByteTimeout time.Duration
	// BodyIdle is how long a caller may pause while it sends a body or reads an
	// answer.
	BodyIdle time.Duration
	// MaxWait is how long a read or a hunting query may wait in all because
	// Microsoft asks for patience with a Retry-After; 0: not at all.
	MaxWait time.Duration
}

// Patience is the longest that a request whose body has come may wait for its
// answer to begin: for a region to be measured; for an attempt that ends late and
// one more that hangs to its end; for another token and one attempt more with it; for
// a region, a token, an attempt and another token and attempt of an operation's
// successor; and as long as Microsoft asks for.
func (l Limits) Patience() time.Duration {
	return 2*l.ConnectTimeout + 5*(l.ConnectTimeout+l.FirstByteTimeout) + 4*longestWait + l.MaxWait
}

// Approval says which operations wait for a second person.
type Approval struct {
	// Operations are those that wait: what these grants allow.
	Operations *policy.Grants
	// By are the names of the client groups that may approve.
	By []string
	// Within is how long a call can wait for its approval, and then for being
	// repeated.
	Within time.Duration
	// Store is shared by the snapshots of a process.
	Store *approval.Store
}

// Metrics counts what happened. Observe is called once a request, concurrently,
// and must not keep the record.
type Metrics interface{ Observe(*audit.Record) }

// Deps are the parts that a Proxy is made of. All are needed but ForwardHeaders
// and Pages.
type Deps struct {
	Policy    *policy.Policy
	Clients   []Client // in the order in which they are searched
	Tenants   []Tenant
	Transport http.RoundTripper
	Monitor   *regions.Monitor
	Audit     *audit.Log
	// WritesNeedAudit refuses a write whose record cannot be stored.
	WritesNeedAudit bool
	Metrics         Metrics
	Log             zerolog.Logger
	Limits          Limits
	// Approval is what a second person has to approve; nil: nothing.
	Approval *Approval
	// Retired is closed when the configuration is replaced by another one: calls that
	// are held for a decision then end their wait; nil: never.
	Retired <-chan struct{}
	// Annotate appends the caller's group and the request id to the comments of
	// actions.
	Annotate bool
	// RepeatHunting lets a hunting query that was sent and not answered be sent
	// to another region. It changes nothing there, but costs quota.
	RepeatHunting bool
	// Pages remembers where the pages of a query come from. It is shared by the
	// snapshots of a process; nil: a new one.
	Pages *regions.Pages
	// ForwardHeaders are request headers to let through beyond the fixed list.
	ForwardHeaders []string
	// PlaceholderToken lets tools that insist on logging in have a token that is
	// worth nothing. The zero value refuses.
	PlaceholderToken bool
	// Downloads relays download links; nil: they are left alone.
	Downloads *Downloads
	// Bridges remembers which older APIs are gone. It is shared by the snapshots of a
	// process; nil: a new one.
	Bridges *Bridges
	// Version stands in the User-Agent of requests that have none.
	Version string
}

// Proxy serves the requests of all listeners. It is safe for concurrent use.
type Proxy struct {
	Deps
	tenants map[string]*Tenant
	// everybody are all client groups, whichever a listener has.
	everybody *clients.Groups
	headers   headerList
	pages     *mux.Router
	load      load
	waiting   atomic.Int64 // requests that are patient

	longestWait time.Duration // for a token; the constant, but in tests
}

// New makes a Proxy of its parts.
func New(d Deps) (*Proxy, error) {
	switch {
	case d.Policy == nil || d.Policy.Catalog == nil:
		return nil, errors.New("proxy: no policy")
	case d.Transport == nil || d.Monitor == nil || d.Audit == nil || d.Metrics == nil:
		return nil, errors.New("proxy: transport, monitor, audit and metrics are all needed")
	case d.Limits.InFlight <= 0 || d.Limits.RequestBytes <= 0 || d.Limits.ConnectTimeout <= 0 || d.Limits.FirstByteTimeout <= 0 || d.Limits.BodyIdle <= 0 || d.Limits.MaxWait < 0:
		return nil, errors.New("proxy: every limit must be above 0")
	}
	p := &Proxy{Deps: d, tenants: make(map[string]*Tenant, len(d.Tenants)), headers: newHeaderList(d.ForwardHeaders), longestWait: longestWait}
	if p.Pages == nil {
		p.Pages = regions.NewPages()
	}
	if p.Bridges == nil {
		p.Bridges = new(Bridges)
	}
	for i := range d.Tenants {
		t := &d.Tenants[i]
		if _, ok := p.tenants[t.Name]; ok {
			return nil, fmt.Errorf("proxy: two tenants are called %s", t.Name)
		}
		t.blobs = newBlobHosts(t.BlobHosts)
		p.tenants[t.Name] = t
	}
	all := make([]clients.Group, len(d.Clients))
	for i, c := range d.Clients {
		all[i] = clients.Group{Name: c.Name, From: c.From, Keys: c.Keys}
	}
	p.everybody = clients.New(all)
	p.pages = p.router()
	return p, nil
}

// listener is a Listener with its client groups at hand.
type listener struct {
	Listener
	publicURL string
	names     *listen.Names
	groups    *clients.Groups
	clients   []*Client // in the order of groups
	target    atomic.Pointer[namedTarget]
}

// Handler serves the requests that come to one listener.
func (p *Proxy) Handler(l Listener) (http.Handler, error) {
	in := &listener{Listener: l, publicURL: strings.TrimSuffix(l.PublicURL, "/"), names: listen.NewNames(l.Hosts, l.TLS, l.PublicURL)}
	for _, name := range l.Clients {
		if !slices.ContainsFunc(p.Clients, func(c Client) bool { return c.Name == name }) {
			return nil, fmt.Errorf("proxy: listener %s: no client group is called %s", l.Address, name)
		}
	}
	if l.Tenant != "" && p.tenants[l.Tenant] == nil {
		return nil, fmt.Errorf("proxy: listener %s: no tenant is called %s", l.Address, l.Tenant)
	}
	var groups []clients.Group
	for i := range p.Clients {
		if c := &p.Clients[i]; l.Clients == nil || slices.Contains(l.Clients, c.Name) {
			groups = append(groups, clients.Group{Name: c.Name, From: c.From, Keys: c.Keys})
			in.clients = append(in.clients, c)
		}
	}
	in.groups = clients.New(groups)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.handle(w, r, in) }), nil
}

// asciiLower is strings.ToLower for ASCII alone: names of hosts have no other
// letters, and other letters have no business to become ones.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
