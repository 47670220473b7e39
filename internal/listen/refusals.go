package listen

import (
	"sync"
	"time"
)

// refusals tells of connections that had no request, and so no record: once a second
// at most, for anybody can make many.
type refusals struct {
	refused func(err error, more int) // may be nil

	mu     sync.Mutex // guards what follows
	next   time.Time  // before it, nothing is told
	untold int
}

func (r *refusals) add(err error) {
	const pause = time.Second
	if r.refused == nil {
		return
	}
	r.mu.Lock()
	now, more := time.Now(), r.untold
	if now.Before(r.next) {
		r.untold++
		r.mu.Unlock()
		return
	}
	r.next, r.untold = now.Add(pause), 0
	r.mu.Unlock()
	r.refused(err, more)
}
