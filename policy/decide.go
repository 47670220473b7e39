package policy

import (
	"net/http"
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

// Verdict is the outcome of a decision.
type Verdict uint8

// The verdicts. The zero value denies.
const (
	Undecided         Verdict = iota
	NotGranted                // the operator did not grant it, or denied it
	MissingPermission         // the token has none of the permissions needed
	Reported                  // allowed, although it would be refused but for report mode
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
		return "allowed by report mode"
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
	// Ungranted and Unpermitted say what a Reported decision would have been refused
	// for: no entry allows it, the token has none of the permissions.
	Ungranted, Unpermitted bool
}

// Allowed reports whether the request may go on, if Rule.When holds.
func (d Decision) Allowed() bool { return d.Verdict == Allowed || d.Verdict == Reported }

// Settled gives a decision that is not a no with another entry for the operator's
// half, once the conditions were asked: the one whose condition holds, or none
// where only report mode lets the request pass.
func (d Decision) Settled(r Rule, ungranted bool) Decision {
	switch d.Verdict {
	case NotGranted, MissingPermission:
		return d
	case Allowed, Reported:
		d.Verdict = Allowed
		if ungranted || d.Unpermitted {
			d.Verdict = Reported
		}
	}
	d.Rule, d.Ungranted = r, ungranted
	return d
}

// Granted answers the operator's half of the question, for when no token is
// there to ask. Its verdict is NotGranted or Undecided.
func (p *Policy) Granted(op *Operation, g *Grants, s Situation) Decision {
	rule := g.Rule(op, s)
	switch {
	case rule.Allow:
		return Decision{Rule: rule}
	case rule.Entry == "" && g.Reports() && g.knows(op):
		return Decision{Ungranted: true}
	}
	return Decision{Verdict: NotGranted, Rule: rule}
}

// Decide answers both halves: is op granted, and does the token permit it? It
// does not allocate and may be called concurrently.
func (p *Policy) Decide(op *Operation, g *Grants, s Situation, t *Permits) Decision {
	return p.DecideSent(op, op, g, s, t)
}

// DecideSent is Decide for a request that is sent as another operation: is op
// granted, and does the token permit what is sent?
func (p *Policy) DecideSent(op, sent *Operation, g *Grants, s Situation, t *Permits) Decision {
	d := p.Granted(op, g, s)
	if d.Verdict == NotGranted {
		return d
	}
	d.Unpermitted = !t.Allows(sent)
	switch {
	case d.Unpermitted && (!p.ReportOnly || t == nil):
		d.Verdict = MissingPermission
	case d.Unpermitted || d.Ungranted:
		d.Verdict = Reported
	default:
		d.Verdict = Allowed
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
