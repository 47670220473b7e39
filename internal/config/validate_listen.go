package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// takenAddress is what a listener takes, and the key that gives it.
type takenAddress struct {
	key string
	bindAddress
}

func (v *validator) listeners() {
	var taken []takenAddress
	for i := range v.c.Listeners {
		l := &v.c.Listeners[i]
		key := fmt.Sprintf("listeners[%d]", i)
		taken = v.listen(key, &l.Address, l.Clients, taken)
		v.socket(key, l.Address, l.Socket)
		v.before(key, l)
		if l.Tenant != "" {
			v.referTenant(key+".tenant", l.Tenant)
		}
		for j, h := range l.Hosts {
			l.Hosts[j] = v.host(fmt.Sprintf("%s.hosts[%d]", key, j), h)
		}
		v.keyPair(key+".tls", l.TLS, l.Hosts)
	}
	a := &v.c.Admin
	v.listen("admin", &a.Address, a.Clients, taken)
	v.socket("admin", a.Address, a.Socket)
}

// listen checks an address with the groups that may use it, and adds it to the
// taken ones. A relative path of a Unix socket starts at the configuration's own
// directory.
func (v *validator) listen(key string, address *string, groups []string, taken []takenAddress) []takenAddress {
	v.someOrNone(key+".clients", len(groups), "nobody could use the listener; name groups")
	for i, name := range groups {
		v.refer(fmt.Sprintf("%s.clients[%d]", key, i), name, "client group", v.known.groups)
	}
	at := key + ".address"
	if *address == "" || !v.clean(at) {
		return taken
	}
	written := *address
	if path, is := strings.CutPrefix(written, unixScheme); is && path != "" && !strings.HasPrefix(path, "@") && !strings.HasPrefix(path, "/") {
		// Whole, because the file is taken away again when the proxy ends.
		if whole, err := filepath.Abs(filepath.Join(filepath.Dir(v.report.file), path)); err == nil && !filepath.IsAbs(path) {
			*address = unixScheme + whole
		}
	}
	bound, reason := parseListen(*address)
	if reason != "" {
		v.fault(at, "%s %s", v.show(at, written), reason)
		return taken
	}
	mine := takenAddress{at, bound}
	for _, other := range taken {
		if !mine.clashes(other.bindAddress) {
			continue
		}
		if v.given(at) {
			v.fault(at, "%s is taken by %s", v.show(at, written), other.key)
		} else {
			v.fault(other.key, "the address is taken by %s, which is %s when left out", at, written)
		}
		break
	}
	switch {
	case loopback(*address) || v.given(key+".clients"):
	case bound.name != "":
		v.fault(at, "a listener of systemd's may be on any address, so that it must name its clients: add clients: [GROUP], the groups that may use it")
	default:
		v.fault(at, "a listener on an address other than loopback must name its clients: add clients: [GROUP], the groups that may use it, or listen on 127.0.0.1")
	}
	return append(taken, mine)
}

// socket checks what file a Unix socket is.
func (v *validator) socket(key, address string, s Socket) {
	at := key + ".socket"
	bound, reason := parseListen(address)
	if !v.given(at) || reason != "" || !v.clean(at) {
		return
	}
	switch {
	case bound.path != "":
		if s.Mode&0o002 != 0 {
			v.warn(at+".mode", "mode %#o: every user of this machine can connect; groups tell them apart by unix:uid=N and unix:gid=N", s.Mode.Perm())
		}
	case bound.name != "":
		v.fault(at, "has no effect on a socket of systemd's; its unit has SocketMode, SocketUser and SocketGroup")
	default:
		v.fault(at, "has no effect on an address and port; leave it out, or listen on unix:PATH")
	}
}

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// before checks who may stand between the callers and a listener, and say who they
// are.
func (v *validator) before(key string, l *Listener) {
	for _, list := range []struct {
		name     string
		prefixes []netip.Prefix
	}{{"trusted_proxies", l.TrustedProxies}, {"balancers", l.Balancers}} {
		at := key + "." + list.name
		v.someOrNone(at, len(list.prefixes), "give addresses, or leave it out for none")
		if len(list.prefixes) > 0 && l.Unix() && v.clean(at) {
			v.fault(at, "has no effect on a Unix socket, whose peers have no address; leave it out")
		}
		for i, p := range list.prefixes {
			one := fmt.Sprintf("%s[%d]", at, i)
			switch {
			case !p.IsValid() || !v.clean(one):
			case p.Bits() == 0:
				v.fault(one, "names every address, so that every caller could say who it is; name those machines alone")
			case p.Overlaps(loopback4) || p.Overlaps(loopback6):
				v.warn(one, "is on loopback, so that every program of this machine can say that it is any caller it likes; let what speaks for others run where it has an address of its own, as in a container")
			}
		}
	}
	if l.TLS != nil && l.Unix() && v.clean(key+".tls") {
		v.fault(key+".tls", "has no use on a Unix socket, whose peers the kernel names; leave it out")
	}
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
