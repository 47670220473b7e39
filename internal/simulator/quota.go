package simulator

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"
)

// quotas counts calls against the documented limits. No page says how the
// windows lie; here a window begins with its first call.
type quotas struct {
	on bool

	mu      sync.Mutex
	windows map[string]*window // bounded by tenants, applications and operations
}

// window counts the calls of a minute and of an hour.
type window struct {
	minute, hour   time.Time // begin
	inMinute, inHr int
}

func newQuotas(on bool) *quotas { return &quotas{on: on, windows: map[string]*window{}} }

func (q *quotas) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.windows = map[string]*window{}
}

// budget is the limit of an operation and what it is counted by. Hunting is
// limited for a tenant, all else for a tenant and application; the incidents
// API has one limit over all its operations.
func budget(op *operation, p principal) (key string, perMinute, perHour int) {
	switch {
	case strings.HasPrefix(op.ID, "hunting.") || op.ID == "graph.hunting.run":
		return p.tenant.id + " hunting", 45, 1500
	case strings.HasPrefix(op.ID, "incidents."):
		return p.tenant.id + " " + p.claims.AppID + " incidents", 50, 1500
	}
	return p.tenant.id + " " + p.claims.AppID + " " + op.ID, op.PerMinute, op.PerHour
}

// spend takes one call, or gives the answer that says until when to wait.
func (q *quotas) spend(op *operation, p principal, now time.Time) *problem {
	if !q.on {
		return nil
	}
	key, perMinute, perHour := budget(op, p)
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.windows[key]
	if w == nil {
		w = &window{minute: now, hour: now}
		q.windows[key] = w
	}
	if now.Sub(w.minute) >= time.Minute {
		w.minute, w.inMinute = now, 0
	}
	if now.Sub(w.hour) >= time.Hour {
		w.hour, w.inHr = now, 0
	}
	switch {
	case perHour > 0 && w.inHr >= perHour:
		return exceeded(op, perHour, "hour", w.hour.Add(time.Hour).Sub(now))
	case perMinute > 0 && w.inMinute >= perMinute:
		return exceeded(op, perMinute, "minute", w.minute.Add(time.Minute).Sub(now))
	}
	w.inMinute++
	w.inHr++
	return nil
}

// exceeded says so: Defender for Endpoint in Retry-After and in words, hunting
// and incidents of Defender XDR in words alone.
func exceeded(op *operation, limit int, per string, wait time.Duration) *problem {
	seconds := max(1, int(math.Ceil(wait.Seconds())))
	p := problemf(http.StatusTooManyRequests, "TooManyRequests",
		"API calls quota exceeded! Maximum allowed is %d calls per %s. You can send requests again in %s.", limit, per, plural(seconds, "second"))
	if op.Service != "xdr" {
		p.retryAfter = seconds
	}
	return p
}

func plural(n int, unit string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, unit)
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
