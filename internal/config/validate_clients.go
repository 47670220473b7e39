package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/condition"
	"defender-proxy/policy"
)

func (v *validator) clients() {
	if v.given("clients") && len(v.c.Clients) == 0 && v.clean("clients") {
		v.fault("clients", "is empty, so nobody would be admitted; add a group, or leave it out when all listeners are on loopback")
	}
	v.names(v.known.groups)
	for i, g := range v.c.Clients {
		key := fmt.Sprintf("clients[%d]", i)
		v.someOrNone(key+".from", len(g.From), "give the addresses of the group's callers, such as [10.1.2.0/24]")
		v.someOrNone(key+".tenants", len(g.Tenants), "name tenants, or leave it out for all")
		for j, s := range g.From {
			if p := s.Prefix(); p.IsValid() && p.Bits() == 0 {
				v.warn(fmt.Sprintf("%s.from[%d]", key, j), "admits every address")
			}
		}
		v.someOrNone(key+".headers", len(g.Headers), "name a header and its key, or leave it out when callers need none")
		v.localKeys(key+".headers", g.Headers)
		if g.Grants == GrantsReport {
			v.warn(key+".grants", "lets pass whatever deny does not name and the token permits, changes too; set it to enforce once the records tell what the group needs")
		}
		for j, name := range g.Tenants {
			v.referTenant(fmt.Sprintf("%s.tenants[%d]", key, j), name)
		}
	}
}

// anyPeer is whoever can open a Unix socket.
var anyPeer = func() clients.Source {
	s, _ := clients.ParseSource("unix:*")
	return s
}()

// localKeys checks the headers that carry local keys, and gives them in the form
// that they are looked up in.
func (v *validator) localKeys(key string, headers map[string]LocalKey) {
	for _, h := range slices.Sorted(maps.Keys(headers)) {
		at := join(key, h)
		if !v.clean(at) {
			continue
		}
		read, err := clients.NewKey(h, noSum)
		switch _, again := headers[read.Header]; {
		case err != nil:
			v.fault(at, "%v", err)
		case read.Header != h && again:
			v.fault(at, "is given twice; letter case makes no other header")
		default:
			sum := headers[h]
			delete(headers, h)
			headers[read.Header] = sum
		}
	}
}

// noSum stands for a local key that is in order.
var noSum = "sha256:" + strings.Repeat("0", 2*sha256.Size)

// isLocalKey reports whether some group's callers send a local key in a header.
func (v *validator) isLocalKey(name string) bool {
	return slices.ContainsFunc(v.c.Clients, func(g ClientGroup) bool {
		_, is := g.Headers[name]
		return is
	})
}

// grants checks the entries of allow or deny.
func (v *validator) grants(catalog *policy.Catalog, key string, entries []Grant) {
	allow := strings.HasSuffix(key, ".allow")
	for i, g := range entries {
		at := fmt.Sprintf("%s[%d]", key, i)
		if !v.given(at + ".operations") {
			if len(g.Operations) == 1 {
				v.pattern(catalog, at, g.Operations[0])
			}
			continue
		}
		v.someOrNone(at+".operations", len(g.Operations), "name classes, operation ids or rows of the catalog")
		for j, text := range g.Operations {
			v.pattern(catalog, fmt.Sprintf("%s.operations[%d]", at, j), text)
		}
		v.someOrNone(at+".tenants", len(g.Tenants), "name tenants, or leave it out for all")
		for j, name := range g.Tenants {
			v.grantTenant(key, fmt.Sprintf("%s.tenants[%d]", at, j), name)
		}
		if v.given(at+".when") && v.clean(at+".when") {
			v.condition(at+".when", g.When, allow)
		}
	}
}

// grantTenant checks a tenant of an entry of a group's list.
func (v *validator) grantTenant(list, key, name string) {
	v.referTenant(key, name)
	of := list[:strings.LastIndexByte(list, '.')] + ".tenants"
	if !v.given(of) || !v.clean(of) || !v.clean(key) {
		return
	}
	if i := groupOf(list); !slices.Contains(v.c.Clients[i].Tenants, name) {
		v.warn(key, "%s is none of the group's tenants, so that the entry has no effect on it", v.show(key, name))
	}
}

// groupOf gives the place of the group that a key belongs to.
func groupOf(key string) (i int) {
	_, _ = fmt.Sscanf(key, "clients[%d]", &i)
	return i
}

// condition checks the condition of an entry.
func (v *validator) condition(key, text string, allow bool) {
	if !allow {
		v.fault(key, "has no place under deny, for what cannot be judged must not pass; leave it out, and bind the entry of allow instead")
		return
	}
	switch _, err := condition.Compile(text); {
	case err == nil:
	case v.fromEnv(key):
		v.fault(key, "%s is no condition", v.show(key, text))
	default:
		v.fault(key, "%v", err)
	}
}

// unreachable warns of members of groups that no listener can tell.
func (v *validator) unreachable() {
	systemd := func(l Listener) bool { return strings.HasPrefix(l.Address, systemdScheme) }
	for i, g := range v.c.Clients {
		var socket, certificates bool
		for _, l := range v.c.Listeners {
			if l.Clients == nil || slices.Contains(l.Clients, g.Name) {
				socket = socket || l.Unix() || systemd(l)
				certificates = certificates || l.TLS != nil && l.TLS.ClientCAFile != ""
			}
		}
		if a := v.c.Admin; slices.Contains(a.Clients, g.Name) {
			socket = socket || !overTCP(a.Address)
		}
		for j, s := range g.From {
			switch key := fmt.Sprintf("clients[%d].from[%d]", i, j); {
			case !v.given(key):
			case s.OnUnixSocket() && !socket:
				v.warn(key, "admits nobody: no listener of the group is a Unix socket")
			case s.ByCertificate() && !certificates:
				v.warn(key, "admits nobody: no listener of the group has tls.client_ca_file")
			}
		}
	}
}

// overTCP reports whether an address is one of TCP.
func overTCP(address string) bool {
	a, reason := parseListen(address)
	return reason == "" && a.addr.IsValid()
}

// approval checks what waits for a second person, and who that is.
func (v *validator) approval() {
	const key = "approval"
	a := v.c.Approval
	if !v.clean(key) {
		return
	}
	switch {
	case len(a.Operations) == 0 && len(a.By) > 0:
		v.fault(key+".by", "stands without operations; name what waits for approval, or leave it out")
	case len(a.Operations) > 0 && len(a.By) == 0:
		if v.given(key + ".by") {
			v.fault(key+".by", "is empty, so that nobody could approve; name client groups")
		} else {
			v.fault(key, "has operations and nobody who approves them; add by: [GROUP]")
		}
	}
	for i, name := range a.By {
		v.refer(fmt.Sprintf("%s.by[%d]", key, i), name, "client group", v.known.groups)
	}
	if len(v.c.Clients) == 1 && len(a.By) > 0 && v.clean(key) {
		v.fault(key+".by", "there is one client group alone, and nobody approves what its own group asks for; add a group")
	}
}
