package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"defender-proxy/internal/clients"
	"defender-proxy/policy"
)

// shadowed warns of groups that nobody can belong to: the first group that fits
// counts, and those before have all of their callers. An approver is looked for
// among all groups, whatever the listener.
func (v *validator) shadowed() {
	for i, g := range v.c.Clients {
		key := fmt.Sprintf("clients[%d]", i)
		if !v.clean(key) || len(g.From) == 0 {
			continue
		}
		var before []int // the groups that have its callers, each once
		seen, free := false, false
		for _, l := range v.doors() {
			if !l.takes(g) {
				continue
			}
			for _, s := range g.From {
				if !l.lets(s) {
					continue
				}
				seen = true
				j := slices.IndexFunc(v.c.Clients[:i], func(e ClientGroup) bool { return l.takes(e) && e.has(s) })
				if free = free || j < 0; j >= 0 && !slices.Contains(before, j) {
					before = append(before, j)
				}
			}
		}
		if seen && !free {
			v.warn(key, "nobody can belong to it: %s; put it before", v.first(before, g))
			continue
		}
		if !slices.Contains(v.c.Approval.By, g.Name) {
			continue
		}
		before = nil
		for _, s := range g.From {
			j := slices.IndexFunc(v.c.Clients[:i], func(e ClientGroup) bool { return e.has(s) })
			if j < 0 {
				before = nil
				break
			}
			if !slices.Contains(before, j) {
				before = append(before, j)
			}
		}
		if before != nil {
			v.warn(key, "nobody can approve as it: %s, and an approver is of the first group of all that fits; put it before", v.first(before, g))
		}
	}
}

// alike warns of approvers who could leave out their key and be whoever asks, and
// whom the proxy therefore does not let approve.
func (v *validator) alike(catalog *policy.Catalog) {
	waiting, err := catalog.Grants(policy.Entries(v.c.Approval.Operations...), nil)
	if err != nil || len(v.c.Approval.Operations) == 0 {
		return
	}
	asks := func(e ClientGroup) bool {
		var entries []policy.Entry
		for _, a := range e.Allow {
			entries = append(entries, policy.Entry{Operations: a.Operations})
		}
		may, err := catalog.Grants(entries, nil)
		return err == nil && slices.ContainsFunc(catalog.Operations(), func(op *policy.Operation) bool {
			return waiting.Rule(op, policy.Situation{}).Allow && (e.Grants == GrantsReport || may.Rule(op, policy.Situation{}).Allow)
		})
	}
	for i, g := range v.c.Clients {
		key := fmt.Sprintf("clients[%d]", i)
		if len(g.Headers) == 0 || len(g.From) == 0 || !v.clean(key) || !slices.Contains(v.c.Approval.By, g.Name) {
			continue
		}
		for j, e := range v.c.Clients {
			if j > i && asks(e) && !slices.ContainsFunc(g.From, func(s clients.Source) bool { return !e.has(s) }) {
				v.warn(key, "nobody of it can approve what clients[%d] (%s) asks for: whoever leaves the key out is one of those; let the two come from different addresses or users", j, e.Name)
			}
		}
	}
}

// first says which groups come before one and have its callers.
func (v *validator) first(before []int, g ClientGroup) string {
	slices.Sort(before)
	var names []string
	for _, j := range before {
		names = append(names, fmt.Sprintf("clients[%d] (%s)", j, v.c.Clients[j].Name))
	}
	verbs, what := "comes first and has", "callers"
	if len(before) > 1 {
		verbs = "come first and have"
	}
	if !slices.ContainsFunc(g.From, func(s clients.Source) bool { return !s.Prefix().IsValid() }) {
		what = "addresses"
	}
	words := strings.Join(names, " and ") + " " + verbs + " all of its " + what
	if slices.Contains(v.c.Approval.By, g.Name) {
		words += ", so that nobody of approval.by is there"
	}
	return words
}

// doorway is a listener as far as its callers go.
type doorway struct {
	groups []string // nil: all
	// Whether callers come over a Unix socket, over TCP, with certificates.
	peers, addresses, certificates bool
}

// doors are the listeners that client groups may use.
func (v *validator) doors() (all []doorway) {
	add := func(address string, groups []string, certificates bool) {
		tcp := overTCP(address)
		systemd := strings.HasPrefix(address, systemdScheme)
		all = append(all, doorway{groups: groups, peers: !tcp, addresses: tcp || systemd, certificates: certificates})
	}
	for _, l := range v.c.Listeners {
		add(l.Address, l.Clients, l.TLS != nil && l.TLS.ClientCAFile != "")
	}
	if a := v.c.Admin; a.Clients != nil {
		add(a.Address, a.Clients, false)
	}
	return all
}

func (d doorway) takes(g ClientGroup) bool {
	return d.groups == nil || slices.Contains(d.groups, g.Name)
}

// lets reports whether a caller of this kind can come through the door.
func (d doorway) lets(s clients.Source) bool {
	switch {
	case s.OnUnixSocket():
		return d.peers
	case s.ByCertificate():
		return d.certificates
	}
	return d.addresses
}

// has reports whether whoever s means belongs to the group, if it comes before the
// others.
func (g ClientGroup) has(s clients.Source) bool {
	if len(g.Headers) > 0 {
		return false
	}
	if s.ByCertificate() && g.everywhere() {
		return true
	}
	p := s.Prefix()
	return slices.ContainsFunc(g.From, func(own clients.Source) bool {
		o := own.Prefix()
		switch {
		case own == s:
			return true
		case s.OnUnixSocket():
			return own == anyPeer
		}
		return p.IsValid() && o.IsValid() && o.Bits() <= p.Bits() && o.Contains(p.Addr())
	})
}

// everywhere reports whether every address is the group's.
func (g ClientGroup) everywhere() bool {
	has := func(p string) bool { return slices.Contains(g.From, clients.Addresses(netip.MustParsePrefix(p))) }
	return has("0.0.0.0/0") && has("::/0")
}
