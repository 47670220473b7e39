package policy

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// Entry is one entry of allow or deny.
type Entry struct {
	// Operations are classes (respond, or respond.*), operation ids in which * stands
	// for any characters, or "METHOD /path" of a row.
	Operations []string
	// Tenants are the names of those that the entry holds for; nil: all.
	Tenants []string
	// Until is when the entry ends; zero: never.
	Until time.Time
	// When must hold beside; nil: nothing. For entries of allow alone.
	When Condition
	// Text is what records and messages call the entry; empty: its Operations.
	Text string
}

// Condition is what must be true of a request beside its operation. Package policy
// only carries it to whoever can look at the request.
type Condition interface{ String() string }

// Entries makes entries of plain text: one Entry each.
func Entries(texts ...string) []Entry {
	var all []Entry
	for _, t := range texts {
		all = append(all, Entry{Operations: []string{t}})
	}
	return all
}

// Situation is what a decision depends on beside the operation. What is left zero
// counts against the caller: an entry of allow that is bound to tenants or to a time
// does not hold then, one of deny does.
type Situation struct {
	Tenant string
	Now    time.Time
}

// Grants is what an operator granted to one client group, compiled for one
// catalog. The nil value and the zero value grant nothing. It is immutable and safe
// for concurrent use.
type Grants struct {
	catalog *Catalog
	entries []entry // those of deny, then those of allow without a condition, then the rest
	naming  []set   // by the operation's number: the entries that name it
	// holding are the entries that hold for a tenant, free those that are bound to
	// none. A situation without a tenant is under the empty name.
	holding map[string]set
	free    set
	report  bool
}

// entry is an Entry, compiled.
type entry struct {
	rule  Rule // what is answered where the entry decides
	until time.Time
	names []string // of the tenants that it is bound to; nil: none
}

// set is a set of places in Grants.entries.
type set []uint64

func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// Rule is the entry of allow or deny that decided about an operation. The zero
// value is no entry: not granted.
type Rule struct {
	// Entry is the text of the configuration, such as "respond" or "machines.*".
	Entry string
	// Allow is false where a deny entry decided, or none.
	Allow bool
	// When is a condition of an allow entry that is still to be asked; nil: none. If
	// it does not hold, Grants.Next gives the next entry.
	When Condition

	place int // behind the entry in Grants.entries
}

// Grants compiles the entries of a client group. Deny wins over allow, whatever
// their order; of those that allow, one without a condition goes before one with.
// The error names the entry that names no operation, or says what else of it can
// never be meant.
func (c *Catalog) Grants(allow, deny []Entry) (*Grants, error) {
	words := (len(allow)+len(deny))/64 + 1
	g := &Grants{catalog: c, naming: make([]set, len(c.rows)), holding: make(map[string]set), free: make(set, words)}
	all := make(set, len(c.rows)*words)
	for i := range g.naming {
		g.naming[i] = all[i*words : (i+1)*words]
	}
	for _, list := range []struct {
		entries            []Entry
		allow, conditional bool
	}{{deny, false, false}, {allow, true, false}, {allow, true, true}} {
		for _, e := range list.entries {
			if err := e.check(list.allow); err != nil {
				return nil, err
			}
			if (e.When != nil) != list.conditional {
				continue
			}
			if err := g.add(e, list.allow); err != nil {
				return nil, err
			}
		}
	}
	g.bind()
	return g, nil
}

// check says what of an entry can never be meant.
func (e *Entry) check(allow bool) error {
	switch {
	case len(e.Operations) == 0:
		return fmt.Errorf("entry %q names no operation", e.Text)
	case e.Tenants != nil && len(e.Tenants) == 0:
		return fmt.Errorf("entry %q holds for no tenant: its list of tenants is empty", e.text())
	case e.When != nil && !allow:
		return fmt.Errorf("entry %q of deny has a condition; only allow takes one, for what cannot be judged must not pass", e.text())
	}
	return nil
}

func (e *Entry) text() string {
	if e.Text != "" {
		return e.Text
	}
	return strings.Join(e.Operations, ", ")
}

func (g *Grants) add(e Entry, allow bool) error {
	place := len(g.entries)
	g.entries = append(g.entries, entry{
		rule:  Rule{Entry: e.text(), Allow: allow, When: e.When, place: place + 1},
		names: e.Tenants,
		until: e.Until,
	})
	for _, pattern := range e.Operations {
		named := g.catalog.named(pattern)
		if len(named) == 0 {
			return g.catalog.CheckPattern(pattern)
		}
		for _, op := range named {
			g.naming[op.number].add(place)
		}
	}
	return nil
}

// bind works out which entries hold for which tenant.
func (g *Grants) bind() {
	for i := range g.entries {
		if g.entries[i].names == nil {
			g.free.add(i)
		}
	}
	nobody := slices.Clone(g.free)
	for i, e := range g.entries {
		if !e.rule.Allow {
			nobody.add(i)
		}
		for _, name := range e.names {
			if g.holding[name] == nil {
				g.holding[name] = slices.Clone(g.free)
			}
			g.holding[name].add(i)
		}
	}
	g.holding[""] = nobody
}

// Reporting gives the same grants in report mode: what no entry of allow names is
// let pass and reported. What an entry of deny names is refused all the same.
func (g *Grants) Reporting() *Grants {
	r := *g
	r.report = true
	return &r
}

// Reports tells whether the grants are in report mode.
func (g *Grants) Reports() bool { return g != nil && g.report }

// knows reports whether an operation is one of g's catalog.
func (g *Grants) knows(op *Operation) bool {
	return g != nil && op != nil && op.number < len(g.naming) && g.catalog.rows[op.number] == op
}

// Rule tells which entry decides about an operation of g's catalog. An
// operation of another catalog has no rule. It does not allocate.
func (g *Grants) Rule(op *Operation, s Situation) Rule { return g.from(op, s, 0) }

// Next gives the rule that decides when the condition of r does not hold: the next
// allow entry whose tenants and time fit, or the zero Rule. r is of the same
// operation and Situation.
func (g *Grants) Next(op *Operation, s Situation, r Rule) Rule {
	if r.When == nil {
		return Rule{}
	}
	return g.from(op, s, r.place)
}

// from gives the first rule at place or behind it.
func (g *Grants) from(op *Operation, s Situation, place int) Rule {
	if !g.knows(op) {
		return Rule{}
	}
	naming, holding := g.naming[op.number], g.holds(s)
	for w := place / 64; w < len(naming); w++ {
		left := naming[w] & holding[w]
		if w == place/64 {
			left &^= 1<<(place%64) - 1
		}
		for ; left != 0; left &= left - 1 {
			if e := &g.entries[w*64+bits.TrailingZeros64(left)]; e.on(s) {
				return e.rule
			}
		}
	}
	return Rule{}
}

// holds gives the entries that hold for the situation's tenant.
func (g *Grants) holds(s Situation) set {
	if own, ok := g.holding[s.Tenant]; ok {
		return own
	}
	return g.free
}

// on reports whether an entry has not ended.
func (e *entry) on(s Situation) bool {
	if e.until.IsZero() {
		return true
	}
	if s.Now.IsZero() {
		return !e.rule.Allow
	}
	return s.Now.Before(e.until)
}

// Ended gives the text and the end of the allow entry that would grant an operation
// if it had not ended, the one that ended last; ok is false where there is none.
func (g *Grants) Ended(op *Operation, s Situation) (entry string, end time.Time, ok bool) {
	if !g.knows(op) || s.Now.IsZero() {
		return "", end, false
	}
	naming, holding := g.naming[op.number], g.holds(s)
	for i := range g.entries {
		if e := &g.entries[i]; e.rule.Allow && naming.has(i) && holding.has(i) && !e.on(s) && e.until.After(end) {
			entry, end, ok = e.rule.Entry, e.until, true
		}
	}
	return entry, end, ok
}

// Step is an entry that has to do with an operation, and what came of it.
type Step struct {
	List  string `json:"list"` // allow or deny
	Entry string `json:"entry"`
	// Fits says that tenant and time are the entry's; Why what is not, or what became
	// of its condition where that does not hold or is not known to.
	Fits bool   `json:"fits"`
	Why  string `json:"why,omitempty"`
	When string `json:"when,omitempty"`
	// Decided marks the entry that decides, or would if its condition holds.
	Decided bool `json:"decided,omitempty"`
}

// Trace gives every entry that names the operation, those of deny first, in the
// order in which they are asked.
func (g *Grants) Trace(op *Operation, s Situation) []Step {
	if !g.knows(op) {
		return nil
	}
	var steps []Step
	decides := g.Rule(op, s)
	for i := range g.entries {
		if !g.naming[op.number].has(i) {
			continue
		}
		e := &g.entries[i]
		step := Step{List: "allow", Entry: e.rule.Entry, Decided: e.rule.place == decides.place}
		if !e.rule.Allow {
			step.List = "deny"
		}
		if e.rule.When != nil {
			step.When = e.rule.When.String()
		}
		switch {
		case !g.holds(s).has(i):
			step.Why = "holds for " + tenantsNamed(e.names)
		case !e.on(s) && s.Now.IsZero():
			step.Why = "the time is not known"
		case !e.on(s):
			step.Why = "ended " + e.until.Format(time.RFC3339)
		default:
			step.Fits = true
		}
		steps = append(steps, step)
	}
	return steps
}

// tenantsNamed words a list of tenants, which may be thousands.
func tenantsNamed(names []string) string {
	const most = 5
	switch {
	case len(names) == 1:
		return "tenant " + names[0]
	case len(names) > most:
		return fmt.Sprintf("the tenants %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return "the tenants " + strings.Join(names, ", ")
}
