package policy

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Policy is what the operator set for all clients: the catalog and how strictly
// to hold to it. It is immutable and safe for concurrent use.
type Policy struct {
	Catalog *Catalog
	// AllowUnknown lets GET and HEAD of paths outside the catalog pass, with any
	// token, for groups that are granted the class read. The zero value denies.
	AllowUnknown bool
	// ReportOnly lets pass what only the token's permissions would refuse, so that
	// Microsoft decides; the decision still says what was missing. The zero
	// value enforces.
	ReportOnly bool
}

// Operation is Catalog.Match, but for the paths that AllowUnknown opens.
func (p *Policy) Operation(method, path string) (*Operation, error) {
	op, err := p.Catalog.Match(method, path)
	if err == ErrUnknownPath && p.AllowUnknown && p.Catalog.novel(path) && (method == http.MethodGet || method == http.MethodHead) {
		return p.Catalog.stray[serviceOf(path)], nil
	}
	return op, err
}

// novel reports whether a path outside the catalog may be opened: one of ours,
// in which no operation of the catalog stands in another spelling. A server may
// take a call with empty parentheses, a qualified name (Namespace.getPackageUri)
// or another version before the path for the operation that it knows, and that
// one has its own grant, or its own denial.
func (c *Catalog) novel(path string) bool {
	if !Ours(path) || strings.ContainsAny(path, "(%") || strings.Contains(path, "/$") {
		return false
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		s = s[strings.LastIndexByte(s, '.')+1:]
		segments[i] = strings.TrimFunc(s, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		})
	}
	for i := 1; i < len(segments); i++ {
		for _, root := range [...]string{"/api/", "/v1.0/security/"} {
			if _, err := c.Match(http.MethodGet, root+strings.Join(segments[i:], "/")); err != ErrUnknownPath {
				return false
			}
		}
	}
	return true
}

// Grants is what an operator granted to one client group, compiled for one
// catalog: for each operation the entry that decides. The nil value grants
// nothing. It is immutable and safe for concurrent use.
type Grants struct {
	catalog *Catalog
	rules   []Rule // by the operation's number
}

// Rule is the entry of allow or deny that decided about an operation. The zero
// value is no entry: not granted.
type Rule struct {
	// Entry is the text of the configuration, such as "respond" or "machines.*".
	Entry string
	// Allow is false where a deny entry decided, or none.
	Allow bool
}

// Grants compiles the entries of a client group. An entry is a class, an
// operation's id in which * stands for any characters, or "METHOD /path" of a
// row. Deny wins over allow, whatever their order. The error names the entry
// that names no operation.
func (c *Catalog) Grants(allow, deny []string) (*Grants, error) {
	g := &Grants{catalog: c, rules: make([]Rule, len(c.rows))}
	for _, list := range []struct {
		entries []string
		allow   bool
	}{{allow, true}, {deny, false}} {
		for _, entry := range list.entries {
			named := c.named(entry)
			if len(named) == 0 {
				return nil, c.CheckPattern(entry)
			}
			for _, op := range named {
				if r := &g.rules[op.number]; r.Entry == "" || r.Allow && !list.allow {
					*r = Rule{Entry: entry, Allow: list.allow}
				}
			}
		}
	}
	return g, nil
}

// CheckPattern says whether an entry of allow or deny names at least one
// operation; the error tells what an entry may be.
func (c *Catalog) CheckPattern(entry string) error {
	if len(c.named(entry)) > 0 {
		return nil
	}
	return fmt.Errorf("%q names no operation; an entry is a class (%s), an operation's id with * for any characters (machines.*), or the method and path of a row (\"GET /api/machines/{id}\"); the command operations lists them",
		entry, joined(Classes(), ", "))
}

func (c *Catalog) named(entry string) []*Operation {
	var is func(*Operation) bool
	if method, path, ok := strings.Cut(entry, " "); ok {
		path = plainTemplate(strings.TrimSpace(path))
		is = func(op *Operation) bool { return op.Method == method && plainTemplate(op.Path) == path }
	} else if slices.Contains(Classes(), Class(entry)) {
		is = func(op *Operation) bool { return op.Class == Class(entry) }
	} else {
		pattern := fold(entry)
		is = func(op *Operation) bool { return glob(pattern, fold(op.ID)) }
	}
	var ops []*Operation
	for _, op := range c.rows {
		if is(op) {
			ops = append(ops, op)
		}
	}
	return ops
}

// plainTemplate makes templates comparable: in lower case, without the names of
// placeholders and the version.
func plainTemplate(path string) string {
	var b strings.Builder
	inside := false
	for _, r := range fold(path) {
		switch {
		case r == '{':
			inside = true
		case r == '}':
			inside = false
		case inside:
			continue
		}
		b.WriteRune(r)
	}
	if rest, ok := strings.CutPrefix(b.String(), "/api/v1.0/"); ok {
		return "/api/" + rest
	}
	return strings.TrimSuffix(b.String(), "/")
}

// glob matches s against a pattern in which * stands for any characters, in
// time linear in their lengths multiplied: each star takes as little as it can,
// and only the last one is ever asked for more.
func glob(pattern, s string) bool {
	star, taken := -1, 0 // the last star's place, and how far it has taken s
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, taken = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			taken++
			p, i = star+1, taken
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// Rule tells which entry decides about an operation of g's catalog. An
// operation of another catalog has no rule.
func (g *Grants) Rule(op *Operation) Rule {
	if g == nil || op == nil || op.number >= len(g.rules) || g.catalog.rows[op.number] != op {
		return Rule{}
	}
	return g.rules[op.number]
}

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

// Verdict is the outcome of a decision.
type Verdict uint8

// The verdicts. The zero value denies.
const (
	Undecided         Verdict = iota
	NotGranted                // the operator did not grant it, or denied it
	MissingPermission         // the token has none of the permissions needed
	Reported                  // allowed, although a permission is missing: Policy.ReportOnly
	Allowed
)

// String gives the word for logs.
func (v Verdict) String() string {
	switch v {
	case NotGranted:
		return "not granted"
	case MissingPermission:
		return "missing permission"
	case Reported:
		return "allowed, missing permission reported"
	case Allowed:
		return "allowed"
	}
	return "undecided"
}

// Decision is the answer of Decide. Its zero value denies.
type Decision struct {
	Verdict Verdict
	// Rule is the operator's entry that took part, zero when none did.
	Rule Rule
}

// Allowed reports whether the request may go on.
func (d Decision) Allowed() bool { return d.Verdict == Allowed || d.Verdict == Reported }

// Granted answers the operator's half of the question, for when no token is
// there to ask. Its verdict is NotGranted or Undecided.
func (p *Policy) Granted(op *Operation, g *Grants) Decision {
	rule := g.Rule(op)
	if !rule.Allow {
		return Decision{Verdict: NotGranted, Rule: rule}
	}
	return Decision{Rule: rule}
}

// Decide answers both halves: is op granted, and does the token permit it? It
// does not allocate and may be called concurrently.
func (p *Policy) Decide(op *Operation, g *Grants, t *Permits) Decision {
	d := p.Granted(op, g)
	switch {
	case d.Verdict == NotGranted:
	case t.Allows(op):
		d.Verdict = Allowed
	case p.ReportOnly && t != nil:
		d.Verdict = Reported
	default:
		d.Verdict = MissingPermission
	}
	return d
}

func joined[S ~string](list []S, sep string) string {
	s := make([]string, len(list))
	for i, e := range list {
		s[i] = string(e)
	}
	return strings.Join(s, sep)
}
