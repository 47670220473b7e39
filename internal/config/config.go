package config

import (
	"net/netip"
	"time"

	"defender-proxy/policy"
)

// Config is a whole configuration, validated. It is not changed once Load or
// Parse has returned it and may be read concurrently. The zero value is no
// configuration: it has no tenant and no listener.
//
// The tags are the specification of the file. yaml is the key, or json where a
// type is read from JSON elsewhere; default, min and max are in the words of
// the file; oneof lists the allowed values; kind says how text is to be read
// where the Go type does not tell; required says what to write when the key is
// missing.
type Config struct {
	// Where callers connect. Default: one listener on 127.0.0.1:8080.
	Listeners []Listener `yaml:"listeners"`

	// The second listener, for the operator: health, metrics, regions. Never
	// reachable through the listeners above.
	Admin Admin `yaml:"admin"`

	// Who is calling: the first group that the caller belongs to, so that groups with
	// keys or certificates, and approvers, come first. Default: when no group is
	// written down and every listener is on loopback or a Unix socket, one group
	// called local, from 127.0.0.0/8 and ::1/128, and from unix:* where there is such
	// a socket, with read and hunt.
	Clients []ClientGroup `yaml:"clients"`

	// Whose data may be asked for. At least one, here or in tenants_dir.
	Tenants []Tenant `yaml:"tenants"`

	// What tenants have in common: a tenant that leaves a key out takes it from
	// here, for each key on its own. Lists are replaced, not joined. A tenant that
	// names a kind of proof takes none of the kinds given here.
	TenantDefaults TenantDefaults `yaml:"tenant_defaults"`

	// A folder with one file a tenant, NAME.yaml or NAME.yml, each the mapping that
	// an entry of tenants is; a name left out is the file's. At most 10,000 files
	// of up to 64KiB. Names that begin with a dot are passed over. Relative paths
	// in such a file start at the file's own folder. Default none.
	TenantsDir string `yaml:"tenants_dir" kind:"path"`

	// Request headers to let through to Microsoft beyond the fixed list. Default
	// none. Headers that carry credentials, framing, routing or another method
	// are refused.
	ForwardHeaders []string `yaml:"forward_headers"`

	// Whether tools that insist on logging in get a token, which is worth nothing.
	// Default true; false: their login is refused like any unknown path.
	PlaceholderToken bool `yaml:"placeholder_token" default:"true"`

	// What holds for all client groups.
	Policy Policy `yaml:"policy"`

	// Operations that wait for a second person. Default none.
	Approval Approval `yaml:"approval"`

	// How the nearest region is found. For each attempt.
	Regions Regions `yaml:"regions"`

	// How every outbound call leaves this machine.
	Egress Egress `yaml:"egress"`

	// Budgets for the documented limits of Microsoft's APIs.
	Quota Quota `yaml:"quota"`

	// Download links.
	Relay Relay `yaml:"relay"`

	// Answers kept for a while.
	Cache Cache `yaml:"cache"`

	// The record of every request.
	Audit Audit `yaml:"audit"`

	// What callers may use up.
	Limits Limits `yaml:"limits"`

	// Where budgets, cache and sealed links are kept. Default memory: in this
	// process.
	Store string `yaml:"store" default:"memory" oneof:"memory"`

	// Clouds of your own: a laboratory, a simulator, a cloud that is new. One
	// that has the name of a built-in cloud replaces it. Default none.
	Clouds []Cloud `yaml:"clouds"`

	// Warnings are what is allowed but unwise, sorted by position.
	Warnings Faults `yaml:"-"`

	// Impaired is what keeps single tenants from getting tokens while the others
	// go on: files and variables of their credentials, as they were when the
	// configuration was read. In the order of Tenants; behind them the tenants that
	// LoadPartly left out, each with all its faults.
	Impaired []Impairment `yaml:"-"`

	// sources are the files and folders that the configuration was read from.
	sources []string
}

// Policy is what holds for all client groups.
type Policy struct {
	// Paths outside the catalog. Default deny; read lets GET and HEAD pass with
	// any token.
	UnknownOperations UnknownRule `yaml:"unknown_operations" default:"deny" oneof:"deny read"`

	// Permissions that the token lacks. Default enforce; report lets the request
	// pass and logs what would be refused.
	Claims ClaimsRule `yaml:"claims" default:"enforce" oneof:"enforce report"`

	// Additions to the catalog, or corrections of it, in the catalog's own form:
	// id, service, method, path, class, application, delegated; the rest may be
	// left out. Default none.
	Operations []policy.Operation `yaml:"operations"`
}

// Approval says which operations wait for a second person, of another client group
// than the one that asks. Without operations there are none.
type Approval struct {
	// What waits, in the words of allow: classes, operation ids, or the method and
	// path of a row of the catalog. Default none.
	Operations []string `yaml:"operations"`

	// The client groups that may approve, over their listener or the operator's.
	// Required with operations.
	By []string `yaml:"by"`

	// How long a call waits for its approval, and then for being repeated. Default
	// 15m; from 1s to 24h.
	Within time.Duration `yaml:"within" default:"15m" min:"1s" max:"24h"`
}

// UnknownRule is what becomes of paths outside the catalog.
type UnknownRule string

// The rules for paths outside the catalog.
const (
	UnknownDeny UnknownRule = "deny"
	UnknownRead UnknownRule = "read"
)

// ClaimsRule is what becomes of requests whose permission the token lacks.
type ClaimsRule string

// The rules for missing permissions.
const (
	ClaimsEnforce ClaimsRule = "enforce"
	ClaimsReport  ClaimsRule = "report"
)

// Regions is how the nearest region is found.
type Regions struct {
	// How often each region in use is measured. Default 30s; from 1s to 1h.
	ProbeInterval time.Duration `yaml:"probe_interval" default:"30s" min:"1s" max:"1h"`

	// How much quicker another region must be, as a share of the current one's
	// time, before it is used instead. Default 20%; from 0% to 90%.
	SwitchMargin float64 `yaml:"switch_margin" kind:"percent" default:"20%" min:"0%" max:"90%"`

	// How much quicker it must be in time; both margins must be met, but not by a
	// region that comes back from an outage. Default 10ms; from 0s to 10s.
	SwitchMarginMin time.Duration `yaml:"switch_margin_min" default:"10ms" min:"0s" max:"10s"`

	// How long one attempt may take to connect, TLS included. Default 5s; from
	// 100ms to 1m.
	ConnectTimeout time.Duration `yaml:"connect_timeout" default:"5s" min:"100ms" max:"1m"`

	// How long one attempt may wait for the answer to begin. Default 240s; from
	// 1s to 30m. Hunting queries are documented to take up to 200s.
	FirstByteTimeout time.Duration `yaml:"first_byte_timeout" default:"240s" min:"1s" max:"30m"`

	// Whether a hunting query that was sent and not answered may be sent to
	// another region. That changes nothing there, but costs quota twice. Default
	// false.
	RepeatHunting bool `yaml:"repeat_hunting" default:"false"`
}

// Egress is how every outbound call leaves this machine.
type Egress struct {
	// The network's proxy: http://, https://, socks5:// or socks5h://, with
	// USER:PASSWORD@ in front of the host where it wants them, percent-encoded. A
	// variable there is taken as it is. Names are looked up by the proxy.
	// NO_PROXY of the environment holds. Default: HTTPS_PROXY of the environment.
	Proxy ProxyURL `yaml:"proxy" kind:"proxy"`

	// Whether to speak HTTP/2 where Microsoft offers it. Default false: HTTP/1.1,
	// with a connection for each request under way.
	HTTP2 bool `yaml:"http2" default:"false"`

	// Certificates to trust beside the system's, a PEM file. Default none.
	CAFile string `yaml:"ca_file" kind:"path"`

	// How names are looked up, where Microsoft's lead to the proxy itself on this
	// machine. Default: as the machine does it.
	Resolve Resolve `yaml:"resolve"`
}

// Resolve is how the names of outbound calls are looked up.
type Resolve struct {
	// DNS servers to ask in place of this machine's hosts file and resolver: an
	// address, with a port where it is not 53. They are asked in order, at
	// most 8. Default none.
	Servers []netip.AddrPort `yaml:"servers"`

	// The addresses of single names, which are not looked up at all. Default none.
	Hosts map[string][]netip.Addr `yaml:"hosts"`
}

// Quota is the budget for the documented limits of Microsoft's APIs, of which
// this version keeps none, and the patience with them.
type Quota struct {
	// Whether budgets are kept. Default false in this version.
	Enforce bool `yaml:"enforce" default:"false"`

	// How long a read or a hunting query may wait in all when Microsoft asks for
	// patience with a short Retry-After; past that its answer is passed on. Default
	// 4s; from 0s to 1m. 0s: it never waits.
	MaxWait time.Duration `yaml:"max_wait" default:"4s" min:"0s" max:"1m"`

	// How callers share a budget. Default fair. Has an effect only with enforce.
	Share string `yaml:"share" default:"fair" oneof:"fair"`
}

// Relay is what becomes of download links.
type Relay struct {
	// Whether download links lead through the proxy. Default false: they are left
	// alone.
	Downloads bool `yaml:"downloads" default:"false"`

	// The keys that download links are sealed with, 32 bytes or more each: the first
	// seals, all of them open. Replicas share them. Default: one made at the start,
	// with which links end when the process does.
	Keys []Secret `yaml:"keys"`
}

// Cache is the memory for answers. This version keeps none.
type Cache struct {
	// The memory that kept answers may take. Default 64MiB; from 1MiB to 16GiB.
	// Has an effect only with ttl.
	MaxBytes int64 `yaml:"max_bytes" kind:"size" default:"64MiB" min:"1MiB" max:"16GiB"`

	// How long the answers of an operation are kept, by operation id. Default
	// none: the cache is off.
	TTL map[string]time.Duration `yaml:"ttl"`
}

// Limits is what callers may use up.
type Limits struct {
	// Requests under way at once; more are answered with 503. One address gets at
	// most half of them, loopback all. Default 512; from 1 to 100000.
	MaxInFlight int `yaml:"max_in_flight" default:"512" min:"1" max:"100000"`

	// Requests for tokens under way at once, of all tenants together. Default 16;
	// from 1 to 256.
	TokenConcurrency int `yaml:"token_concurrency" default:"16" min:"1" max:"256"`

	// The length of a request's body. Default 32MiB; from 1KiB to 1GiB.
	MaxRequestBytes int64 `yaml:"max_request_bytes" kind:"size" default:"32MiB" min:"1KiB" max:"1GiB"`

	// The length of a request's line and headers. Default 32KiB; from 4KiB to
	// 1MiB.
	HeaderBytes int64 `yaml:"header_bytes" kind:"size" default:"32KiB" min:"4KiB" max:"1MiB"`

	// How long a caller may take to send a request's headers. Default 10s; from
	// 100ms to 1m.
	ReadHeaderTimeout time.Duration `yaml:"read_header_timeout" default:"10s" min:"100ms" max:"1m"`

	// How long a connection without a request is kept. Default 120s; from 1s to
	// 1h.
	IdleTimeout time.Duration `yaml:"idle_timeout" default:"120s" min:"1s" max:"1h"`

	// How long requests under way may go on once the proxy was told to stop.
	// Default 30s; from 0s to 10m.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" default:"30s" min:"0s" max:"10m"`
}
