package config

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// absent are the tenants that a start does without, by the paths of their
// faulty files.
type absent map[string]*lost

// lost is a tenant that is left out.
type lost struct {
	// name is the tenant's, or the file's where named is false: it could not be read.
	name   string
	named  bool
	faults Faults
}

// add takes the faulty files of a reading of the configuration.
func (o absent) add(r *report, c *Config) {
	names := make(map[string]string)
	for i, t := range c.Tenants {
		if m := r.at(tenantKey(i)); m.file != "" && nameForm.MatchString(t.Name) {
			names[m.file] = t.Name
		}
	}
	for path, faults := range r.files {
		name, named := names[path]
		if !named {
			name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		}
		o[path] = &lost{oneLine(name), named, faults}
	}
}

// has reports whether a tenant may be one that is left out. Where the name of one
// could not be read, that may be any.
func (o absent) has(name string) bool {
	for _, l := range o {
		if l.name == name || !l.named {
			return true
		}
	}
	return false
}

// strip takes the tenants that are left out from where they are named, and tells
// why they are.
func (o absent) strip(c *Config) {
	if len(o) == 0 {
		return
	}
	there := make(map[string]bool, len(c.Tenants))
	for _, t := range c.Tenants {
		there[t.Name] = true
	}
	lost := func(name string) bool { return !there[name] }
	bound := func(list []Grant) []Grant {
		return slices.DeleteFunc(list, func(g Grant) bool {
			return g.Tenants != nil && !slices.ContainsFunc(g.Tenants, func(name string) bool { return there[name] })
		})
	}
	for i := range c.Clients {
		// What remains may be empty and is not nil, which would be all.
		g := &c.Clients[i]
		g.Tenants = slices.DeleteFunc(g.Tenants, lost)
		g.Allow, g.Deny = bound(g.Allow), bound(g.Deny)
		for _, list := range [][]Grant{g.Allow, g.Deny} {
			for j := range list {
				list[j].Tenants = slices.DeleteFunc(list[j].Tenants, lost)
			}
		}
	}
	for i := range c.Listeners {
		if l := &c.Listeners[i]; l.Tenant != "" && !there[l.Tenant] {
			// Without its tenant, requests would be for another one.
			l.Tenant, l.Clients = "", []string{}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(o)) {
		for _, f := range o[path].faults {
			c.Impaired = append(c.Impaired, Impairment{Tenant: o[path].name, Fault: f, LeftOut: true})
		}
	}
}
