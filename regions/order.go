package regions

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// choice is an order and why it begins as it does.
type choice struct {
	order  []Endpoint
	cause  cause
	reason string
	// settled says that every region which can be reached had been measured. Until
	// then the margins hold nothing: the first to answer is not the nearest.
	settled bool
	// displaced was first until it could not be reached or went out; the zero
	// Endpoint when no such thing happened. Once it is the nearest again it takes
	// its place back, though it may not be better by both margins: those are
	// against flapping, and an outage is none.
	displaced Endpoint
}

type cause int

const (
	byChance     cause = iota // nothing is measured yet
	byNecessity               // there is no other
	byLatency                 // the nearest, or near enough to it
	byPreference              // the operator's
	byDespair                 // none is healthy
)

// Order returns the endpoints in the order to try them: every one that is
// allowed, once. The healthy and measured come first, the quickest before the
// others; then those not yet measured; then those that are suspect, and last
// those that are out, because the least bad is tried rather than none. The first
// keeps its place as the reason of Choice says. The slice is shared and must not be changed.
func (p *Pool) Order() []Endpoint { return p.choice.Load().order }

// Choice returns the Order, and one line of words about why it begins as it does.
func (p *Pool) Choice() (order []Endpoint, reason string) {
	c := p.choice.Load()
	return c.order, c.reason
}

// Current returns the endpoint to try first, and one line of words about why it
// was chosen.
func (p *Pool) Current() (Endpoint, string) {
	c := p.choice.Load()
	return c.order[0], c.reason
}

// standing is an endpoint and what decides its place, as of one moment: the score
// moves with every request.
type standing struct {
	Endpoint
	rank  int
	score time.Duration
}

// compareStandings orders by rank. Of the healthy the quickest comes first, of
// those that are suspect too, once measured; of those that are out the one that
// answered last.
func compareStandings(a, b standing) int {
	if c := cmp.Compare(a.rank, b.rank); c != 0 {
		return c
	}
	if a.rank == rankOut {
		return b.health.answered.Compare(a.health.answered)
	}
	if x, y := a.health.samples > 0, b.health.samples > 0; x != y {
		if x {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.score, b.score)
}

// arrange brings the order up to date and tells whether another region came to
// its head. The Monitor's mutex is held.
func (p *Pool) arrange(s Settings) []Change {
	all := make([]standing, len(p.endpoints))
	for i, e := range p.endpoints {
		all[i] = standing{e, e.health.rank(), e.health.score()}
	}
	slices.SortStableFunc(all, compareStandings)

	old := p.choice.Load()
	first, next := p.choose(old, all, s)
	next.order = make([]Endpoint, 0, len(all))
	next.order = append(next.order, first)
	next.settled = true
	for _, st := range all {
		if st.Endpoint != first {
			next.order = append(next.order, st.Endpoint)
		}
		if st.rank == rankUnmeasured {
			next.settled = false
		}
	}
	if old == nil || next.cause != old.cause || next.reason != old.reason || next.settled != old.settled || next.displaced != old.displaced || !slices.Equal(next.order, old.order) {
		p.choice.Store(&next)
	}
	if informed(next.order) {
		p.know() // now that the order is in place
	}
	if old == nil || old.order[0] == first {
		return nil
	}
	return []Change{{Event: Chosen, Service: first.Service, Region: first.Region, From: old.order[0].Region, Reason: next.reason}}
}

// informed reports whether an order rests on something: its first has been heard
// of, and one has been measured or each has failed. So a preferred region is
// waited for.
func informed(order []Endpoint) bool {
	return order[0].health.told() &&
		(slices.ContainsFunc(order, func(e Endpoint) bool { return e.health.samples > 0 }) ||
			!slices.ContainsFunc(order, func(e Endpoint) bool { return !e.health.told() }))
}

// choose returns the endpoint to begin with, and why, given all in the order of
// compareStandings. The choice has no order yet.
func (p *Pool) choose(old *choice, all []standing, s Settings) (Endpoint, choice) {
	best := all[0]
	if len(all) == 1 {
		return best.Endpoint, choice{cause: byNecessity, reason: "the only region allowed"}
	}
	if i := slices.IndexFunc(all, func(st standing) bool { return st.Region == p.prefer }); i >= 0 && all[i].rank < rankSuspect {
		return all[i].Endpoint, choice{cause: byPreference, reason: "preferred by the configuration"}
	}
	from := ""
	var displaced Endpoint
	if old != nil {
		displaced = old.displaced
		current := all[slices.IndexFunc(all, func(st standing) bool { return st.Endpoint == old.order[0] })]
		switch {
		case current.Endpoint == best.Endpoint || !old.settled && current.rank == rankMeasured:
		case current.rank == rankMeasured && best.Endpoint == displaced:
			from = fmt.Sprintf(", back in its place before %s at %v", current.Region, brief(current.score))
		case current.rank == rankMeasured && !s.better(best.score, current.score):
			return current.Endpoint, choice{cause: byLatency, displaced: displaced, reason: fmt.Sprintf("near enough: %v; %s at %v is not better by both margins",
				brief(current.score), best.Region, brief(best.score))}
		case current.rank == rankOut:
			from = fmt.Sprintf("; %s is out: %s", current.Region, current.health.failure)
		case current.rank == rankSuspect:
			from = fmt.Sprintf("; %s is suspect: %s", current.Region, current.health.failure)
		case current.rank == rankMeasured:
			from = fmt.Sprintf(" against %v of %s", brief(current.score), current.Region)
			displaced = Endpoint{}
		}
		if current.rank >= rankSuspect && displaced.health == nil {
			displaced = current.Endpoint
		}
		if displaced == best.Endpoint {
			displaced = Endpoint{}
		}
	}
	switch best.rank {
	case rankMeasured:
		return best.Endpoint, choice{cause: byLatency, displaced: displaced, reason: fmt.Sprintf("nearest: %v%s", brief(best.score), from)}
	case rankUnmeasured:
		return best.Endpoint, choice{cause: byChance, displaced: displaced, reason: "not measured yet" + from}
	case rankSuspect:
		return best.Endpoint, choice{cause: byDespair, displaced: displaced, reason: "no allowed region is healthy: this one is suspect, not out" + from}
	}
	return best.Endpoint, choice{cause: byDespair, displaced: displaced, reason: "every allowed region is out: this one answered last" + from}
}

// brief rounds a latency for reading.
func brief(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
