package regions

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Begin takes note that a request goes through the pool: its endpoints are
// probed from now on if they rested, and its share of repeats grows. Every
// request calls it once, before it asks for the Order. In the usual case it takes
// no lock.
func (p *Pool) Begin() {
	// Written now and then only: many requests at once need not share the line of
	// memory.
	if now := p.monitor.now(); now-time.Duration(p.used.Load()) > p.monitor.settings.ProbeInterval/usedGrain {
		p.used.Store(int64(now))
	}
	if p.rests.Load() {
		p.monitor.mu.Lock()
		p.rouse()
		p.monitor.mu.Unlock()
	}
	p.budget.earn()
}

// usedGrain says how exact Pool.used is, as a part of the probe interval.
const usedGrain = 8

// inUse reports whether a request went through the pool lately.
func (p *Pool) inUse() bool {
	interval := p.monitor.settings.ProbeInterval
	return p.monitor.now()-time.Duration(p.used.Load()) <= restAfter*interval+interval/usedGrain
}

// rouse has the endpoints that rest probed now. The Monitor's mutex is held.
func (p *Pool) rouse() {
	p.rests.Store(false)
	for _, e := range p.endpoints {
		if e.health.resting {
			e.health.callAt(time.Now())
		}
	}
}

// restful reports whether e need not be probed: it is well, and nobody uses it.
// The pools that hold it will wake it. m.mu is held.
func (m *Monitor) restful(e Endpoint) bool {
	if h := e.health; h.troubled() || h.samples == 0 || h.doubted || m.wanted(e) {
		return false
	}
	for p := range m.holding(e) {
		p.rests.Store(true)
	}
	// Begin writes used and then reads rests, and here it is the other way round:
	// one of the two sees the other.
	return !m.wanted(e)
}

// wanted reports whether a pool that holds e is in use. m.mu is held.
func (m *Monitor) wanted(e Endpoint) bool {
	for p := range m.holding(e) {
		if p.inUse() {
			return true
		}
	}
	return false
}

// Measured waits until the pool knows where to begin: one of its endpoints has
// been measured, and the preferred one has answered or failed, or each has failed
// once. It ends with ctx and after atMost at the latest, and does not wait when
// the Monitor does not run. Later, for the rest of the pool's life, it returns at
// once and allocates nothing.
//
// It is for the requests that come just after the start. The first probe to
// answer is the nearest's, and then there is a warm connection too.
func (p *Pool) Measured(ctx context.Context, atMost time.Duration) {
	if p.known.Load() {
		return
	}
	ended := p.monitor.running.Load()
	if ended == nil {
		return
	}
	enough := time.NewTimer(atMost)
	defer enough.Stop()
	select {
	case <-p.word:
	case <-*ended:
	case <-enough.C:
	case <-ctx.Done():
	}
}

// know lets those go who wait in Measured. The Monitor's mutex is held.
func (p *Pool) know() {
	if !p.known.Swap(true) {
		close(p.word)
	}
}

// doubtEvery is the least time between the beginnings of two probes of an
// endpoint that is doubted.
const doubtEvery = time.Second

// Doubt has e probed at once, because a request has waited for long, but not
// before a second after the last probe began. A probe that is under way answers
// for it: when that ends, the next one is as far off as ever. What comes of it
// shows in Lost.
func (m *Monitor) Doubt(e Endpoint) {
	h := e.health
	if h == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h.doubted = true
	due := time.Now()
	if soonest := h.asked.Add(doubtEvery); due.Before(soonest) {
		due = soonest
	}
	if h.resting || due.Before(h.due) {
		h.callAt(due)
	}
}

const (
	// Each request earns 1 and a repeat costs repeatCost, so that repeats are a
	// fifth of the requests. maxEarned is the most that is saved.
	repeatCost = 5
	maxEarned  = 100 * repeatCost
	// freeRepeats are there for whoever has earned nothing: so many at once, and
	// one more with each second.
	freeRepeats = 10
)

// budget bounds the repeats of a pool, so that an outage is not answered with
// twice the load. The zero value is full. Its methods may be called concurrently.
type budget struct {
	earned atomic.Int64

	mu    sync.Mutex
	spent float64 // of the free ones, as of at
	at    time.Time
}

func (b *budget) earn() {
	for n := b.earned.Load(); n < maxEarned; n = b.earned.Load() {
		if b.earned.CompareAndSwap(n, n+1) {
			return
		}
	}
}

func (b *budget) spend(now time.Time) bool {
	for n := b.earned.Load(); n >= repeatCost; n = b.earned.Load() {
		if b.earned.CompareAndSwap(n, n-repeatCost) {
			return true
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(b.spent-max(now.Sub(b.at).Seconds(), 0), 0)
	b.at = now
	if b.spent > freeRepeats-1 {
		return false
	}
	b.spent++
	return true
}

// Repeat takes one repeat out of the pool's budget, or reports that there is none
// left. It is asked for what was sent already and is to be sent once more to
// another region; what never left is repeated without it. Requests that have
// begun give one repeat for five of them, of which 100 are saved; a pool that is
// hardly used has 10 at once, and one more with each second.
func (p *Pool) Repeat() bool { return p.budget.spend(time.Now()) }
