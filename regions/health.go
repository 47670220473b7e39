package regions

import (
	"sync/atomic"
	"time"
)

// health is what is known of one endpoint. The Monitor's mutex guards all but
// failures, lost, wake, gone and real.
type health struct {
	failures atomic.Int32                  // in a row; written under the mutex
	lost     atomic.Pointer[chan struct{}] // what Lost returns; written under the mutex
	wake     chan struct{}                 // capacity 1: due has changed, or the rest is over
	gone     chan struct{}                 // closed when Keep forgot the endpoint
	real     realTimes

	watched bool // has a prober
	resting bool // the prober waits until it is woken
	doubted bool // a request wants to know, so it does not rest before the next probe
	out     bool
	suspect bool // its last word was none; lost is closed then
	since   time.Time

	suspected time.Time // when it last became suspect

	latency  time.Duration
	last     time.Duration
	samples  int
	answered time.Time // the last success of a probe, or after a failure

	failure   string
	failureAt time.Time

	asked time.Time     // when the last probe began
	due   time.Time     // of the next probe
	retry time.Duration // the newest wait after a failure; zero when there is none to count from
}

func newHealth() *health {
	h := &health{since: time.Now(), wake: make(chan struct{}, 1), gone: make(chan struct{})}
	h.reachable()
	return h
}

// reachable makes a new channel for Lost.
func (h *health) reachable() {
	lost := make(chan struct{})
	h.lost.Store(&lost)
}

// Lost is closed when e cannot be reached any more: a request found no
// connection, or a probe no answer. Once e has answered again there is a new
// channel. It is nil, and so never closed, for the zero Endpoint. It takes no
// lock.
func (e Endpoint) Lost() <-chan struct{} {
	if e.health == nil {
		return nil
	}
	return *e.health.lost.Load()
}

// Report tells how a request to e, an Endpoint of this Monitor's pools, fared.
// One ConnectFailed makes a region suspect: it is tried after the healthy ones
// until a probe has been answered, which looks within about a second, and after
// two and a half when the region was suspect in the ten seconds before. Three
// failures in a row, of any kind, put it out. The orders of all pools follow before
// Report returns.
//
// A success ends the row of failures, and brings a region back that is out but not
// suspect. One that is suspect, out or not, waits for the probe: the request may
// have had a connection that was there already, while new ones are refused, and
// would move everybody to and fro. A success of a healthy endpoint, the usual case,
// costs no lock.
func (m *Monitor) Report(e Endpoint, o Outcome) {
	if e.health == nil || !o.told || o.failure == "" && e.health.failures.Load() == 0 {
		return
	}
	m.note(e, o, false, 0)
}

// note books an outcome and arranges the next probe and the pools. Only a
// probe that succeeded has a latency.
func (m *Monitor) note(e Endpoint, o Outcome, probed bool, latency time.Duration) {
	now := time.Now()
	first, longest := m.retries()
	var changes []Change

	m.mu.Lock()
	h := e.health
	before := h.rank()
	if o.failure == "" {
		changes = h.succeed(e, now, probed)
		if probed {
			h.sample(latency)
		}
		wait := m.settings.ProbeInterval
		if h.suspect {
			wait = min(suspectAgain, longest)
		}
		m.schedule(h, now, wait, probed)
	} else {
		already, again := h.suspect, now.Sub(h.suspected) < suspectCalm
		changes = h.fail(e, now, o.failure, o.unreachable(probed))
		// Many requests may fail at once: they make the wait longer only
		// when they put the region out. That counts even when probes do
		// well, so that a region which fails real requests alone is not
		// taken back every second.
		switch {
		case probed || h.retry == 0 || len(changes) > 0:
			h.retry = min(max(2*h.retry, first), longest)
			m.schedule(h, now, h.retry, probed)
		case h.suspect && !already && again:
			m.schedule(h, now, min(suspectAgain, longest), false)
		case h.suspect && !already:
			m.schedule(h, now, first, false)
		}
	}
	if probed {
		h.decay()
	}
	// In an outage each request ends here: what moves no region is cheap.
	if probed || h.rank() != before {
		changes = append(changes, m.arrange(e)...)
	}
	m.mu.Unlock()
	m.tell(changes)
}

// retries gives the first and the longest wait for the next probe of an endpoint
// that fails.
func (m *Monitor) retries() (first, longest time.Duration) {
	longest = m.settings.longestRetry()
	return min(firstRetry, longest), longest
}

// schedule sets the next probe to about wait from now, or leaves it when it is
// to come sooner anyway and the last one isn't just over.
func (m *Monitor) schedule(h *health, now time.Time, wait time.Duration, probed bool) {
	jitter := 1 + spread*(2*m.settings.Rand()-1)
	due := now.Add(time.Duration(float64(wait) * jitter))
	if probed || h.resting || due.Before(h.due) {
		h.callAt(due)
	}
}

// callAt has the prober probe at the time due, resting or not.
func (h *health) callAt(due time.Time) {
	h.due, h.resting = due, false
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *health) succeed(e Endpoint, now time.Time, probed bool) []Change {
	h.failures.Store(0)
	h.answered = now
	if h.suspect {
		if !probed {
			return nil
		}
		h.suspect = false
		h.reachable()
	}
	if !h.out {
		return nil
	}
	reason := "answered again after " + now.Sub(h.since).Round(time.Second).String()
	h.out, h.since = false, now
	return []Change{{Event: CameBack, Service: e.Service, Region: e.Region, Reason: reason}}
}

func (h *health) fail(e Endpoint, now time.Time, failure string, unreachable bool) []Change {
	if now.Sub(h.failureAt) > calm {
		h.retry = 0
	}
	h.failure, h.failureAt = failure, now
	if unreachable && !h.suspect {
		h.suspect, h.suspected = true, now
		close(*h.lost.Load())
	}
	if h.failures.Add(1) < outAfter || h.out {
		return nil
	}
	h.out, h.since = true, now
	return []Change{{Event: WentOut, Service: e.Service, Region: e.Region, Reason: failure}}
}

// sample takes a latency into the smoothed one; the first stands as it is.
func (h *health) sample(latency time.Duration) {
	h.last = latency
	if h.samples == 0 {
		h.latency = latency
	} else {
		h.latency += time.Duration(smoothing * float64(latency-h.latency))
	}
	h.samples++
}

// The ranks of an endpoint: those of a lower one are tried first.
const (
	rankMeasured   = iota // healthy and measured
	rankUnmeasured        // healthy, as far as is known
	rankSuspect
	rankOut
)

func (h *health) rank() int {
	switch {
	case h.out:
		return rankOut
	case h.suspect:
		return rankSuspect
	case h.samples == 0:
		return rankUnmeasured
	}
	return rankMeasured
}

// told reports whether anything has been heard of the endpoint: a latency, or a
// failure that no success has followed.
func (h *health) told() bool { return h.samples > 0 || h.troubled() }

// troubled reports whether something speaks against the endpoint.
func (h *health) troubled() bool { return h.failures.Load() > 0 || h.rank() >= rankSuspect }
