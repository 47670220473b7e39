package config

import (
	"fmt"
	"net/netip"
)

// bindAddress is an address that a listener takes, and the key that gives it.
type bindAddress struct {
	key  string
	addr netip.Addr
	port uint16
}

// clashes reports whether one machine cannot listen on both: the unspecified
// address takes every other with it, and IPv4 with IPv6.
func (a bindAddress) clashes(b bindAddress) bool {
	return a.port == b.port && a.port != 0 &&
		(a.addr == b.addr || a.addr.IsUnspecified() || b.addr.IsUnspecified())
}

func (v *validator) listeners() {
	var taken []bindAddress
	for i := range v.c.Listeners {
		l := &v.c.Listeners[i]
		key := fmt.Sprintf("listeners[%d]", i)
		taken = v.listen(key, l.Address, l.Clients, taken)
		if l.Tenant != "" {
			v.referTenant(key+".tenant", l.Tenant)
		}
		for j, h := range l.Hosts {
			l.Hosts[j] = v.host(fmt.Sprintf("%s.hosts[%d]", key, j), h)
		}
		v.keyPair(key+".tls", l.TLS)
	}
	v.listen("admin", v.c.Admin.Address, v.c.Admin.Clients, taken)
}

// listen checks an address with the groups that may use it, and adds it to the
// taken ones.
func (v *validator) listen(key, address string, groups []string, taken []bindAddress) []bindAddress {
	v.someOrNone(key+".clients", len(groups), "nobody could use the listener; name groups")
	for i, name := range groups {
		v.refer(fmt.Sprintf("%s.clients[%d]", key, i), name, "client group", v.known.groups)
	}
	at := key + ".address"
	if address == "" || !v.clean(at) {
		return taken
	}
	addr, port, reason := parseListen(address)
	if reason != "" {
		v.fault(at, "%s %s", v.show(at, address), reason)
		return taken
	}
	mine := bindAddress{key: at, addr: addr.Unmap(), port: port}
	for _, other := range taken {
		if !mine.clashes(other) {
			continue
		}
		if v.given(at) {
			v.fault(at, "%s is taken by %s", v.show(at, address), other.key)
		} else {
			v.fault(other.key, "the address is taken by %s, which is %s when left out", at, address)
		}
		break
	}
	if !loopback(address) && !v.given(key+".clients") {
		v.fault(at, "a listener on an address other than loopback must name its clients: add clients: [GROUP], the groups that may use it, or listen on 127.0.0.1")
	}
	return append(taken, mine)
}

// host checks a name or address that requests may carry as Host, and gives it
// in the form that they are compared in.
func (v *validator) host(key, text string) string {
	if !v.clean(key) {
		return text
	}
	host, ok := parseHost(text)
	if !ok {
		v.fault(key, "%s is not a host name or address, such as defender.corp.example or 10.1.2.3:8080; schemes, paths and wildcards are not allowed", v.show(key, text))
	}
	return host
}
