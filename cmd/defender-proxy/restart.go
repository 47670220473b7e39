package main

import (
	"fmt"
	"reflect"
	"slices"

	"defender-proxy/internal/config"
)

// initial is what the process was started with, as far as it cannot change while
// it runs: addresses and who stands in front of them, which files hold their
// certificates, the way out, the places of records, sizes and times of servers.
type initial struct {
	*config.Config
	// files are the contents of those that were read once, by path.
	files map[string]content
}

// initialOf takes note of what a process begins with.
func initialOf(cfg *config.Config) initial {
	s := initial{cfg, make(map[string]content)}
	if f := cfg.Egress.CAFile; f != "" {
		s.files[f] = contentOf(f)
	}
	return s
}

func contentOf(file string) content { return glance(file, make(map[string]string)).read() }

// hold gives next with whatever cannot change put back to what the process was
// started with, and the keys for which that made a difference. The listeners are
// those that are bound, in their order, as in inForce, which is what was held last.
//
// Who may use an address that next does not have any more is held against what is
// in force, never against the start: what a reload narrowed stays narrow. The
// listener that next has instead narrows it further.
func (s initial) hold(next, inForce *config.Config) (held *config.Config, keys []string) {
	c := *next
	h := holder{}
	c.Listeners = s.listeners(next, inForce, &h)
	if c.Admin.Address != s.Admin.Address {
		h.keys = append(h.keys, "admin.address")
		c.Admin = config.Admin{Address: s.Admin.Address, Socket: s.Admin.Socket, Clients: narrower(inForce.Admin.Clients, c.Admin.Clients)}
	}
	hold(&h, "admin.socket", &c.Admin.Socket, s.Admin.Socket)
	hold(&h, "regions.probe_interval", &c.Regions.ProbeInterval, s.Regions.ProbeInterval)
	hold(&h, "regions.switch_margin", &c.Regions.SwitchMargin, s.Regions.SwitchMargin)
	hold(&h, "regions.switch_margin_min", &c.Regions.SwitchMarginMin, s.Regions.SwitchMarginMin)
	hold(&h, "regions.connect_timeout", &c.Regions.ConnectTimeout, s.Regions.ConnectTimeout)
	hold(&h, "regions.first_byte_timeout", &c.Regions.FirstByteTimeout, s.Regions.FirstByteTimeout)
	hold(&h, "egress.proxy", &c.Egress.Proxy, s.Egress.Proxy)
	hold(&h, "egress.http2", &c.Egress.HTTP2, s.Egress.HTTP2)
	if f := s.Egress.CAFile; f == c.Egress.CAFile && f != "" && s.files[f] != contentOf(f) {
		h.keys = append(h.keys, "egress.ca_file")
	}
	hold(&h, "egress.ca_file", &c.Egress.CAFile, s.Egress.CAFile)
	if !reflect.DeepEqual(c.Egress.Resolve, s.Egress.Resolve) {
		h.keys = append(h.keys, "egress.resolve")
		c.Egress.Resolve = s.Egress.Resolve
	}
	hold(&h, "audit.file", &c.Audit.File, s.Audit.File)
	hold(&h, "audit.max_bytes", &c.Audit.MaxBytes, s.Audit.MaxBytes)
	hold(&h, "audit.keep", &c.Audit.Keep, s.Audit.Keep)
	hold(&h, "audit.chain", &c.Audit.Chain, s.Audit.Chain)
	hold(&h, "audit.syslog", &c.Audit.Syslog, s.Audit.Syslog)
	hold(&h, "audit.otlp", &c.Audit.OTLP, s.Audit.OTLP)
	hold(&h, "limits.token_concurrency", &c.Limits.TokenConcurrency, s.Limits.TokenConcurrency)
	hold(&h, "limits.header_bytes", &c.Limits.HeaderBytes, s.Limits.HeaderBytes)
	hold(&h, "limits.read_header_timeout", &c.Limits.ReadHeaderTimeout, s.Limits.ReadHeaderTimeout)
	hold(&h, "limits.idle_timeout", &c.Limits.IdleTimeout, s.Limits.IdleTimeout)
	hold(&h, "limits.shutdown_timeout", &c.Limits.ShutdownTimeout, s.Limits.ShutdownTimeout)
	return &c, h.keys
}

type holder struct{ keys []string }

func hold[T comparable](h *holder, key string, value *T, started T) {
	if *value != started {
		h.keys = append(h.keys, key)
		*value = started
	}
}

// listeners gives those that are bound, with what next says of them: the first
// that has the address, where several are alike in that.
func (s initial) listeners(next, inForce *config.Config, h *holder) []config.Listener {
	taken := make([]bool, len(next.Listeners))
	all := slices.Clone(inForce.Listeners)
	var orphans []int
	for place, bound := range s.Listeners {
		i := 0
		for i < len(taken) && (taken[i] || next.Listeners[i].Address != bound.Address) {
			i++
		}
		if i == len(taken) {
			orphans = append(orphans, place)
			continue
		}
		taken[i] = true
		l := next.Listeners[i]
		if !reflect.DeepEqual(l.TLS, bound.TLS) {
			h.keys = append(h.keys, fmt.Sprintf("listeners[%d].tls", i))
			l.TLS = bound.TLS
		}
		hold(h, fmt.Sprintf("listeners[%d].socket", i), &l.Socket, bound.Socket)
		if !slices.Equal(l.Balancers, bound.Balancers) {
			h.keys = append(h.keys, fmt.Sprintf("listeners[%d].balancers", i))
			l.Balancers = bound.Balancers
		}
		all[place] = l
	}
	var newcomers []config.Listener
	for i, t := range taken {
		if !t {
			h.keys = append(h.keys, fmt.Sprintf("listeners[%d].address", i))
			newcomers = append(newcomers, next.Listeners[i])
		}
	}
	for i, place := range orphans {
		var successor *config.Listener
		if i < len(newcomers) {
			successor = &newcomers[i]
		}
		all[place] = orphan(all[place], successor, next, inForce)
	}
	if len(orphans) > len(newcomers) {
		h.keys = append(h.keys, "listeners")
	}
	return all
}

// orphan is a listener that is bound and not in the configuration any more. It
// goes on as it is in force, for the groups that there still are and its
// successor, if there is one, admits too; a group that comes later is none of
// them. Whom it believes about its callers stays: a proxy that is believed no more
// would itself count as all the callers behind it. Without its tenant, requests
// would be for another one, so that then it admits nobody.
func orphan(l config.Listener, successor *config.Listener, next, inForce *config.Config) config.Listener {
	if l.Clients == nil {
		for _, g := range inForce.Clients {
			l.Clients = append(l.Clients, g.Name)
		}
	}
	there := []string{}
	for _, g := range next.Clients {
		there = append(there, g.Name)
	}
	l.Clients = narrower(l.Clients, there)
	if successor != nil {
		l.Clients = narrower(l.Clients, successor.Clients)
		l.Hosts = slices.DeleteFunc(slices.Clone(l.Hosts), func(host string) bool { return !slices.Contains(successor.Hosts, host) })
	}
	if l.Tenant == "" && len(inForce.Tenants) == 1 {
		l.Tenant = inForce.Tenants[0].Name // as requests that name none had it
	}
	if l.Tenant != "" && !slices.ContainsFunc(next.Tenants, func(t config.Tenant) bool { return t.Name == l.Tenant }) {
		l.Tenant, l.Clients = "", []string{}
	}
	return l
}

// narrower gives the groups that both lists admit, where nil admits whoever
// comes.
func narrower(a, b []string) []string {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	both := []string{}
	for _, name := range a {
		if slices.Contains(b, name) {
			both = append(both, name)
		}
	}
	return both
}
