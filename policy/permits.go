package policy

import "slices"

// Permits is what a token permits, worked out once when the token comes. The
// nil value permits nothing. It is immutable and safe for concurrent use.
type Permits struct {
	catalog   *Catalog
	permitted []bool // by the operation's number
	held      []Permission
	delegated bool
}

// Permits works out what a token permits from its claims: roles of an
// application's token, scopes (scp) of a user's. A token with scopes is a
// user's, and then its roles, which are those of the user, do not count.
func (c *Catalog) Permits(roles, scopes []string) *Permits {
	p := &Permits{catalog: c, permitted: make([]bool, len(c.rows)), delegated: len(scopes) > 0}
	claim := roles
	if p.delegated {
		claim = scopes
	}
	for _, name := range claim {
		p.held = append(p.held, Permission(name))
	}
	for i, op := range c.rows {
		p.permitted[i] = op.stray() || slices.ContainsFunc(p.Needs(op), p.Holds)
	}
	return p
}

// Holds reports whether the token has a permission.
func (p *Permits) Holds(want Permission) bool {
	return p != nil && slices.ContainsFunc(p.held, func(h Permission) bool { return foldEqual(string(h), string(want)) })
}

// Needs lists the permissions of which the token needs one for op: the
// delegated ones for a user's token, those of applications for others.
func (p *Permits) Needs(op *Operation) []Permission {
	if p != nil && p.delegated {
		return op.Delegated
	}
	return op.Application
}

// Held lists what the token has, as it names it. The slice must not be changed.
func (p *Permits) Held() []Permission {
	if p == nil {
		return nil
	}
	return p.held
}

// Delegated reports whether the token is a user's.
func (p *Permits) Delegated() bool { return p != nil && p.delegated }

// Allows reports whether the token permits an operation of its catalog.
func (p *Permits) Allows(op *Operation) bool {
	return p != nil && op != nil && op.number < len(p.permitted) && p.catalog.rows[op.number] == op && p.permitted[op.number]
}
