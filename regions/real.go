package regions

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// groups is how many groups of operations have to bear a surplus out.
	groups = 2
	// maxSurplus bounds what real requests can tell against an endpoint.
	maxSurplus = 10 * time.Second
	// A request moves an estimate by surplusStep, or by a share of itself of one
	// in surplusShare, whichever is more; twice as much after each surplusRun of
	// them that point the same way.
	surplusStep  = 250 * time.Microsecond
	surplusShare = 32
	surplusRun   = 8
	// trust is the weight of a new request in the belief in an estimate.
	trust = 1.0 / 4
	// fading is what is left of that belief after a probe without requests.
	fading = 0.75
	// maxTries bounds how much slower it fades for a region that was tried again
	// and found as slow: at each eighth probe.
	maxTries = 4
	// Pools are arranged at each arrangeEvery-th request when the surplus has moved
	// by surplusMove, already at the arrangeSoon-th when it has by surplusJump.
	arrangeEvery = 16
	arrangeSoon  = 4
	surplusMove  = time.Millisecond
	surplusJump  = 10 * time.Millisecond
)

// realTimes is what the real requests to an endpoint tell of its speed. Probes are
// answered at the edge of Microsoft's network, so they don't see a region whose
// back end is slow.
//
// Times to the first byte cannot be compared as they are: the region in use gets
// the slow operations, and the others none. So what counts is the surplus: what
// requests take beyond the usual for their operation.
//
// What is slow may be a query, in every region, and whoever sends it often enough
// makes it most of what is heard. So the operations of a service fall into two
// groups, each with an estimate of its own, and the surplus is the lesser of the
// two: one operation alone cannot move a region, however slow and frequent it is.
// A back end that is slow shows in both. The price is that a service which is
// asked for operations of one group only is measured by its probes alone.
//
// The zero value has no surplus. It is safe for concurrent use, and no other lock
// is taken while mu is held.
type realTimes struct {
	probed  atomic.Int64 // health.latency as of the newest probe, for Took
	surplus atomic.Int64

	mu      sync.Mutex
	groups  [groups]estimator
	samples int

	arranged time.Duration // the surplus that pools went by last
	since    int           // requests since then
}

// estimator follows the median of what the requests of one group take beyond the
// usual, by steps, after Frugal-2U of Ma, Muthukrishnan and Sandler, "Frugal
// Streaming for Estimating Quantiles" (arXiv 1407.1121): that takes a few words of
// memory, and a request of 100 s moves it as little as one that is just too slow.
type estimator struct {
	estimate time.Duration // never negative
	run      int
	// belief is the share of requests that bear the estimate out, the newest
	// counting most. It is what fades while there are none: when a region is
	// tried again, few requests show whether the estimate still holds.
	belief float64
	fresh  bool // requests came since the last probe
	idle   int  // probes without requests
	tries  int  // how often the requests ended with an estimate
}

// score is what endpoints are compared by: the smoothed time of a probe, and what
// real requests take beyond the usual. The Monitor's mutex is held.
func (h *health) score() time.Duration {
	return h.latency + time.Duration(h.real.surplus.Load())
}

// decay lets the surplus fade when no request came since the last probe, so that
// the region is tried again. It is called after each probe; the Monitor's mutex is
// held.
func (h *health) decay() {
	r := &h.real
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probed.Store(int64(h.latency))
	for i := range r.groups {
		r.groups[i].fade()
	}
	r.conclude()
}

// fade takes from the belief in an estimate for which no request came lately.
func (e *estimator) fade() {
	if e.fresh {
		e.fresh = false
		return
	}
	if e.estimate == 0 {
		return
	}
	if e.idle == 0 {
		e.tries = min(e.tries+1, maxTries)
	}
	e.idle++
	if e.idle%(1<<(e.tries-1)) == 0 {
		e.belief *= fading
	}
}

// told returns the surplus and how many requests it was found with.
func (r *realTimes) told() (surplus time.Duration, samples int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Duration(r.surplus.Load()), r.samples
}

// Took tells how long a request to e, an Endpoint of this Monitor's pools, waited
// for the first byte of its answer. It should be a read that was sent on a
// connection which was there already, and an answer that took the work it asked
// for: a 4xx is quick everywhere. operation bounds what is alike: the id of a row
// of the catalog; requests without one tell nothing, and neither do those for more
// than 512 operations of a service, the first 40 of each operation, and those that
// come before e has been measured.
//
// A region whose requests take longer than is usual for their operations is less
// near than its probes say, and gives way to another by the margins that hold for
// probes; after a while without requests it is tried again. At least two operations
// have to bear it out: one that is slow alone tells of the query and not of the
// region. When all regions become slow alike, that is usual soon. The orders of pools may change before
// Took returns; usually it takes two uncontended locks and allocates nothing.
func (m *Monitor) Took(e Endpoint, operation string, wait time.Duration) {
	if e.health == nil || operation == "" || wait < 0 {
		return
	}
	r := &e.health.real
	probed := time.Duration(r.probed.Load())
	if probed == 0 {
		return
	}
	over, group, known := m.usual.over(e.Service, operation, wait-probed)
	if known && r.hear(over, group) {
		m.rearrange(e)
	}
}

// hear takes a request that took over longer than usual into the surplus, and
// reports whether the pools should be arranged anew.
func (r *realTimes) hear(over time.Duration, group int) (arrange bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples++
	r.groups[group].follow(over)
	surplus := r.conclude()
	r.since++
	moved := (surplus - r.arranged).Abs()
	if moved < surplusMove || r.since < arrangeSoon || moved < surplusJump && r.since < arrangeEvery {
		return false
	}
	r.since, r.arranged = 0, surplus
	return true
}

// follow moves the estimate towards over, not beyond it, and the belief in it.
func (e *estimator) follow(over time.Duration) {
	e.fresh, e.idle = true, 0
	borneOut := 0.0
	if over > e.estimate/2 {
		borneOut = 1
	}
	e.belief += trust * (borneOut - e.belief)

	up := over > e.estimate
	e.run = proceed(e.run, up)
	step := double(max(surplusStep, e.estimate/surplusShare), e.run, surplusRun)
	if up {
		e.estimate = min(e.estimate+step, over, maxSurplus)
	} else {
		e.estimate = max(e.estimate-step, over, 0)
	}
	if e.estimate == 0 {
		e.tries = 0
	}
}

// conclude brings the surplus up to date, and returns it. r.mu is held.
func (r *realTimes) conclude() time.Duration {
	surplus := maxSurplus
	for _, e := range r.groups {
		surplus = min(surplus, time.Duration(e.belief*float64(e.estimate)))
	}
	r.surplus.Store(int64(surplus))
	return surplus
}
