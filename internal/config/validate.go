package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"sync"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/placeholder"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// validator checks what the decoder cannot see in one value alone, and fills in
// the defaults that depend on other keys.
type validator struct {
	*report
	c      *Config
	lookup func(string) (string, bool)
	out    absent
	// certified says that the certificates of listeners are looked at.
	certified bool

	known struct{ tenants, groups, clouds directory }
	// What was looked up once for many tenants: the regions of clouds, by name, and
	// what is wrong with files and variables, by the key that names them.
	regionsOf map[string][]regions.Name
	evidenced map[string]string
}

func (v *validator) validate() {
	v.implied()
	v.gather()
	v.clouds()
	v.tenants()
	v.clients()
	v.listeners()
	v.unreachable()
	v.shadowed()
	v.forwardHeaders()
	v.catalog()
	v.approval()
	v.audit()
	v.egress()
	v.relay()
	v.bridges()
}

// implied fills in the listener and the client group of a file that has none.
func (v *validator) implied() {
	if !v.given("listeners") {
		v.c.Listeners = []Listener{{Address: "127.0.0.1:8080", Socket: Socket{Mode: 0o660}}}
	} else if len(v.c.Listeners) == 0 && v.clean("listeners") {
		v.fault("listeners", "is empty; at least one listener is needed")
	}
	if !v.given("clients") && !slices.ContainsFunc(v.c.Listeners, outside) {
		local := ClientGroup{Name: "local", Grants: GrantsEnforce}
		for _, text := range []string{"127.0.0.0/8", "::1/128"} {
			local.From = append(local.From, clients.Addresses(netip.MustParsePrefix(text)))
		}
		if slices.ContainsFunc(v.c.Listeners, Listener.Unix) {
			local.From = append(local.From, anyPeer)
		}
		v.c.Clients = []ClientGroup{local}
	}
	for i := range v.c.Clients {
		if !v.given(fmt.Sprintf("clients[%d].allow", i)) {
			v.c.Clients[i].Allow = Granting(string(policy.ClassRead), string(policy.ClassHunt))
		}
	}
}

// outside reports whether others than this machine may be able to connect to a
// listener.
func outside(l Listener) bool {
	_, reason := parseListen(l.Address)
	return reason == "" && !l.Loopback()
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// named is a name that others refer to, and the key that gives it; at is empty
// for what is built in.
type named struct{ name, at string }

// directory is a set of names that others refer to.
type directory struct {
	all []named
	has map[string]bool
}

// add puts the names of the n entries under key into the directory.
func (d *directory) add(key string, n int, name func(int) string) {
	for i := range n {
		d.put(named{name(i), fmt.Sprintf("%s[%d].name", key, i)})
	}
}

func (d *directory) put(n named) {
	if d.has == nil {
		d.has = make(map[string]bool)
	}
	d.all = append(d.all, n)
	d.has[n.name] = true
}

// gather notes the names that the configuration gives.
func (v *validator) gather() {
	v.known.tenants.add("tenants", len(v.c.Tenants), func(i int) string { return v.c.Tenants[i].Name })
	v.known.groups.add("clients", len(v.c.Clients), func(i int) string { return v.c.Clients[i].Name })
	for _, c := range regions.Clouds() {
		v.known.clouds.put(named{name: c.Name})
	}
	v.known.clouds.add("clouds", len(v.c.Clouds), func(i int) string { return v.c.Clouds[i].Name })
}

// names checks the form of names, and that each is given once.
func (v *validator) names(d directory) {
	first := make(map[string]string)
	for _, n := range d.all {
		if n.name == "" || n.at == "" || !v.clean(n.at) {
			continue
		}
		if !nameForm.MatchString(n.name) {
			v.fault(n.at, "%s is not a name; one has a-z, 0-9 and hyphens, does not begin with a hyphen and is at most 63 long", v.show(n.at, n.name))
			continue
		}
		if other := first[n.name]; other != "" {
			v.clash(n.at, "%s is taken by %s", v.show(n.at, n.name), v.place(other, n.at))
			continue
		}
		first[n.name] = n.at
	}
}

// refer checks that what stands at key is one of the known names.
func (v *validator) refer(key, got, what string, known directory) {
	if v.full() || !v.clean(key) || got != "" && known.has[got] {
		return
	}
	var words, shown []string
	for _, n := range known.all {
		switch m := v.marks[n.at]; {
		case n.name == "" || n.at != "" && !v.clean(n.at):
			return // the entry that was meant may be this one
		case m.env:
			shown = append(shown, quote(m.raw))
		default:
			words, shown = append(words, n.name), append(shown, n.name)
		}
	}
	if len(known.all) == 0 {
		v.fault(key, "unknown %s %s; none is configured", what, v.show(key, got))
		return
	}
	hint := ""
	if !v.fromEnv(key) {
		hint = DidYouMean(got, words)
	}
	v.fault(key, "unknown %s %s; known are %s%s", what, v.show(key, got), few(shown), hint)
}

// referTenant is refer for the tenants. That there are none is a fault of its own.
func (v *validator) referTenant(key, got string) {
	if len(v.known.tenants.all) > 0 && !v.out.has(got) {
		v.refer(key, got, "tenant", v.known.tenants)
	}
}

// few joins names for a fault, the first of many.
func few(names []string) string {
	const most = 20
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// someOrNone refuses a list that is there but empty where leaving it out means
// all.
func (v *validator) someOrNone(key string, n int, instead string) {
	if v.given(key) && n == 0 && v.clean(key) {
		v.fault(key, "is empty; %s", instead)
	}
}

// builtIn is the catalog without additions, which does not change.
var builtIn = sync.OnceValues(func() (*policy.Catalog, error) { return policy.NewCatalog(nil) })

// catalog checks the operator's operations, and that each grant names one.
func (v *validator) catalog() {
	if !v.clean("policy.operations") {
		return
	}
	for i, op := range v.c.Policy.Operations {
		if op.ID == "" {
			v.fault(fmt.Sprintf("policy.operations[%d].id", i), "is missing; it needs an id such as machines.isolate")
		}
		if _, _, login := placeholder.Find(op.Path); login {
			v.fault(fmt.Sprintf("policy.operations[%d].path", i), "ends as one where tools log in, which the proxy answers itself wherever it is (placeholder_token): no call of the operation would reach the API; leave it out")
		}
	}
	if !v.clean("policy.operations") {
		return
	}
	catalog, err := builtIn()
	if len(v.c.Policy.Operations) > 0 {
		catalog, err = policy.NewCatalog(v.c.Policy.Operations)
	}
	if err != nil {
		v.operationFaults(err)
		return
	}
	for i, g := range v.c.Clients {
		v.grants(catalog, fmt.Sprintf("clients[%d].allow", i), g.Allow)
		v.grants(catalog, fmt.Sprintf("clients[%d].deny", i), g.Deny)
	}
	for i, entry := range v.c.Approval.Operations {
		v.pattern(catalog, fmt.Sprintf("approval.operations[%d]", i), entry)
	}
	v.alike(catalog)
}

// maxStars bounds the * of an entry: each multiplies the work of matching it.
const maxStars = 4

func (v *validator) pattern(catalog *policy.Catalog, key, entry string) {
	if v.full() || !v.clean(key) {
		return
	}
	if strings.Count(entry, "*") > maxStars {
		v.fault(key, "%s has more than %d *; name the operations, or their class", v.show(key, entry), maxStars)
		return
	}
	err := catalog.CheckPattern(entry)
	switch {
	case err == nil:
	case v.marks[key].env:
		v.fault(key, "%s names no operation; the command operations lists them", v.show(key, entry))
	default:
		words := make([]string, 0, len(policy.Classes()))
		for _, c := range policy.Classes() {
			words = append(words, string(c))
		}
		v.fault(key, "%v%s", err, DidYouMean(entry, words))
	}
}

// operationFaults tells what policy.NewCatalog refused, each at its entry.
func (v *validator) operationFaults(err error) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, err := range all {
		key, message := "policy.operations", err.Error()
		if add, ok := errors.AsType[*policy.AdditionError](err); ok && add.Index >= 0 {
			key = fmt.Sprintf("%s[%d]", key, add.Index)
		}
		if v.env[key] {
			message = "the catalog does not take this operation; why is not shown, because a value of it came from the environment"
		}
		v.fault(key, "%s", message)
	}
}

// The headers that no caller's value may be sent for: they carry credentials,
// framing, routing, identity, another method, or leave to repeat a request.
var (
	neverForwarded = []string{
		"Authorization", "Cookie", "Cookie2", "Host", "Content-Length",
		"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Expect", "Via",
		"Forwarded", "X-Real-Ip", "X-Method-Override",
		// The proxy's own, for whoever repeats a call that was approved.
		"X-Approval-Id",
		// net/http takes these for leave to send a write twice.
		"Idempotency-Key", "X-Idempotency-Key",
	}
	neverForwardedBegin = []string{
		"Proxy-", "X-Forwarded-", "X-Http-Method", "X-Original-", "X-Rewrite-", "X-Ms-Client-Principal",
	}
	headerForm = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

func (v *validator) forwardHeaders() {
	listed := make(map[string]bool)
	for i, h := range v.c.ForwardHeaders {
		key := fmt.Sprintf("forward_headers[%d]", i)
		if !v.clean(key) {
			continue
		}
		name := textproto.CanonicalMIMEHeaderKey(h)
		shown := v.show(key, h)
		switch begins := func(p string) bool { return strings.HasPrefix(name, p) }; {
		case !headerForm.MatchString(h):
			// Servers differ on whether _ and . are other ways to write a hyphen.
			v.fault(key, "%s is not a header that can be let through; a name has letters, digits and hyphens", shown)
		case slices.Contains(neverForwarded, name) || slices.ContainsFunc(neverForwardedBegin, begins):
			v.fault(key, "%s is never let through: it carries credentials, framing, routing, identity, another method or leave to repeat", shown)
		case v.isLocalKey(name):
			v.fault(key, "%s carries a local key of clients, which nobody else may see; leave it out, or let the key come in another header", shown)
		case listed[name]:
			v.fault(key, "%s is listed twice", shown)
		}
		listed[name] = true
		v.c.ForwardHeaders[i] = name
	}
}
