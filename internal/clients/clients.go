// Package clients tells which client group a caller belongs to, by the address
// that its connection comes from.
//
// The address is the socket's. Headers in which a caller names an address
// (X-Forwarded-For, Forwarded) are not looked at: whoever can connect can write
// them. What a group may do is package policy's business; proxy's guard asks
// here once a request.
package clients

import "net/netip"

// Group is a client group's name and the addresses that belong to it. A group
// without addresses has no members.
type Group struct {
	Name string
	From []netip.Prefix
}

// Groups finds the group of an address. It is immutable and safe for concurrent
// use; the nil value admits nobody.
type Groups struct{ groups []Group }

// New keeps the groups in the order in which they are searched.
func New(groups []Group) *Groups { return &Groups{groups} }

// Find returns the place of the first group that an address belongs to, in the
// order given to New. ok is false for an address in no group, and for an
// invalid one. An IPv4 address written as IPv6 (::ffff:10.0.0.1) is taken as
// IPv4, and an IPv6 zone does not count.
func (g *Groups) Find(a netip.Addr) (i int, ok bool) {
	if g == nil || !a.IsValid() {
		return 0, false
	}
	a = a.Unmap().WithZone("")
	for i, group := range g.groups {
		for _, p := range group.From {
			if p.Contains(a) {
				return i, true
			}
		}
	}
	return 0, false
}
