package proxy

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"defender-proxy/internal/token"
)

const (
	// maxWaits is how often one request is patient.
	maxWaits = 3
	// minWait is the shortest wait, for a Retry-After of 0.
	minWait = 100 * time.Millisecond
	// waitingShare is the share of Limits.InFlight, as a divisor, that may be
	// waiting: callers that are not throttled want to be served meanwhile.
	waitingShare = 4
)

// waits is how patient one request has been.
type waits struct {
	left, total, next time.Duration
	count             int
}

// patient reports whether the request waits for a little, because Microsoft asks
// for it, and is then sent to the same region again. Another region is no way
// round a quota, which is the tenant's.
//
// Only what changes nothing is repeated: a caller that was told 429 for a write
// decides itself.
func (p *Proxy) patient(x *Exchange, pl *plan, resp *http.Response, w *waits) bool {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return false
	}
	if !pl.safe() && x.Operation.Class.Writes() || !pl.body.again() || w.count == maxWaits {
		return false
	}
	asked, ok := retryAfter(resp.Header)
	if !ok || asked > w.left {
		return false
	}
	if p.waiting.Add(1) > int64(max(p.Limits.InFlight/waitingShare, 1)) {
		p.waiting.Add(-1)
		return false
	}
	// Whoever was throttled together does not come back together.
	w.next = asked + min(time.Duration(rand.Float64()*float64(asked)/10), w.left-asked)
	return true
}

// wait waits as patient said. Its error is the caller's leaving.
func (p *Proxy) wait(ctx context.Context, x *Exchange, w *waits) error {
	defer p.waiting.Add(-1)
	begun := time.Now()
	defer func() {
		took := time.Since(begun)
		w.left -= took
		w.total += took
		x.Waited += took
	}()
	w.count++
	t := time.NewTimer(w.next)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// retryAfter reads how long an answer asks to wait.
func retryAfter(h http.Header) (time.Duration, bool) {
	value := h.Get("Retry-After")
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		date = time.Now()
	}
	d := token.RetryAfter(value, date)
	return max(d, minWait), d > 0 || value == "0"
}
