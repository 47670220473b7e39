// Package clients tells which client group a caller belongs to: by the address
// that its connection comes from, by the process behind a Unix socket, by its
// client certificate, and by a local key in a header.
//
// What a group may do is package policy's business, and who is at the other end of
// a connection is package listen's; proxy's guard asks here once a request, package
// admin for each of its own.
package clients

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"net/http"
	"net/netip"
)

// Caller is what is known of who sends a request. The zero value is nobody.
type Caller struct {
	// Addr is the caller's address; invalid on a Unix socket, or where it is not
	// known. IPv4 written as IPv6 is taken as IPv4, and a zone does not count.
	Addr netip.Addr
	// Unix says that the connection came over a Unix socket; UID and GIDs are of the
	// process there, GIDs its effective group first and then the others.
	Unix bool
	UID  uint32
	GIDs []uint32
	// Certificate is the client certificate, once it was verified; else nil.
	Certificate *x509.Certificate
	// Header is the request's; keys are looked for there.
	Header http.Header
}

// Group is a client group's name, who belongs to it, and the keys that they have to
// send, all of them. A group without From has no members.
type Group struct {
	Name string
	From []Source // any of them will do
	Keys []Key
}

// Groups finds the group of a caller. It is immutable and safe for concurrent
// use; the nil value admits nobody.
type Groups struct {
	keys [][]Key // by the place of their group

	// Who belongs where, each in the order of the groups. An address is looked for
	// among those of its own family alone.
	v4, v6 []member[netip.Prefix]
	unix   []member[Source]
	certs  []member[Source]
}

// member is one entry of a group, by the group's place.
type member[T any] struct {
	group int
	of    T
}

// New keeps the groups in the order in which they are searched.
func New(groups []Group) *Groups {
	g := &Groups{keys: make([][]Key, len(groups))}
	for i, group := range groups {
		g.keys[i] = group.Keys
		for _, s := range group.From {
			switch {
			case s.kind == address && s.prefix.Addr().Is4():
				g.v4 = append(g.v4, member[netip.Prefix]{i, s.prefix})
			case s.kind == address:
				g.v6 = append(g.v6, member[netip.Prefix]{i, s.prefix})
			case s.OnUnixSocket():
				g.unix = append(g.unix, member[Source]{i, s})
			case s.ByCertificate():
				g.certs = append(g.certs, member[Source]{i, s})
			}
		}
	}
	return g
}

// Find returns the place of the first group that a caller belongs to, in the
// order given to New. ok is false for a caller in no group. It allocates nothing.
//
// A caller that comes from where a group's callers do, but sends another key than
// the group's or none, does not belong to it; a later group may still have it.
func (g *Groups) Find(c Caller) (i int, ok bool) {
	if g == nil {
		return 0, false
	}
	sent := sentKey{}
	for next := 0; ; next = i + 1 {
		if i, ok = g.from(&c, next); !ok || sent.opens(g.keys[i], c.Header) {
			return i, ok
		}
	}
}

// CouldBe reports whether a caller can pass for a member of the group at place i by
// what it shows now or by leaving some of it out: it belongs to that group, and no
// group before it has the caller by its address or process alone, which nobody can
// leave out.
func (g *Groups) CouldBe(i int, c Caller) bool {
	if g == nil || i < 0 || i >= len(g.keys) {
		return false
	}
	sent := sentKey{}
	if first, ok := g.from(&c, i); !ok || first != i || !sent.opens(g.keys[i], c.Header) {
		return false
	}
	c.Certificate = nil
	for next := 0; ; {
		first, ok := g.from(&c, next)
		switch {
		case !ok || first >= i:
			return true
		case len(g.keys[first]) == 0:
			return false
		}
		next = first + 1
	}
}

// from finds the first group, from the place next on, that a caller comes from.
func (g *Groups) from(c *Caller, next int) (first int, ok bool) {
	first = len(g.keys)
	if c.Unix {
		for k := range g.unix {
			if m := &g.unix[k]; m.group >= next && m.of.peer(c) {
				first = m.group
				break
			}
		}
	} else if a := c.Addr.Unmap().WithZone(""); a.IsValid() {
		all := g.v6
		if a.Is4() {
			all = g.v4
		}
		for k := range all {
			if m := &all[k]; m.group >= next && m.of.Contains(a) {
				first = m.group
				break
			}
		}
	}
	if c.Certificate != nil {
		for k := range g.certs {
			m := &g.certs[k]
			if m.group >= first {
				break
			}
			if m.group >= next && m.of.certifies(c.Certificate) {
				first = m.group
				break
			}
		}
	}
	return first, first < len(g.keys)
}

// sentKey is the hash of the key that was looked at last: several groups may ask
// for the same header.
type sentKey struct {
	header string
	sum    [sha256.Size]byte
	ok     bool
}

// opens reports whether a request has all the keys.
func (s *sentKey) opens(keys []Key, h http.Header) bool {
	all := 1
	for i := range keys {
		k := &keys[i]
		if s.header != k.Header {
			s.read(k.Header, h)
		}
		if !s.ok {
			return false
		}
		all &= subtle.ConstantTimeCompare(s.sum[:], k.Sum[:])
	}
	return all == 1
}

// read takes the hash of a header's value. A header that is there twice is no key:
// what stands behind us may read the other one.
func (s *sentKey) read(header string, h http.Header) {
	s.header, s.ok = header, false
	if values := h[header]; len(values) == 1 && len(values[0]) <= longestKey {
		var text [longestKey]byte
		s.sum = sha256.Sum256(text[:copy(text[:], values[0])])
		s.ok = true
	}
}
