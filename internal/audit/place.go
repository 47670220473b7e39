package audit

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// entry is a record on its way to another place.
type entry struct {
	event   Event
	at      time.Time
	refused bool
	number  uint64 // from 1 on, those counted that were dropped
	line    []byte // without the end of line; shared, and not to be changed
}

// Bounds of what waits for a place.
const (
	mostWaiting      = 16384
	mostWaitingBytes = 16 << 20
)

// flushTime is how long a place may take for the rest when the process ends.
const flushTime = 3 * time.Second

// place is syslog or a collector: a queue, and who empties it.
type place struct {
	name string
	log  zerolog.Logger
	// batch and batchBytes bound what is sent at once, linger how long a record waits
	// for others.
	batch, batchBytes int
	linger            time.Duration
	to                sender

	wake chan struct{} // holds one element when something waits

	mu      sync.Mutex
	waiting []entry
	bytes   int
	number  uint64
	stat    PlaceStats
}

// sender brings entries to a place. It is used by one goroutine.
type sender interface {
	// send sends the entries, and gives how many of them are dealt with: sent, or
	// dropped because they will never be taken. When it returns an error the others
	// are sent again later; a *waitError says when.
	send(ctx context.Context, batch []entry) (done, dropped int, err error)
	close()
}

// waitError is an answer that names the time of the next attempt.
type waitError struct {
	error
	wait time.Duration
}

func (e *waitError) Unwrap() error { return e.error }

func newPlace(name string, log zerolog.Logger, to sender) *place {
	return &place{name: name, log: log, to: to, batch: 512, batchBytes: 1 << 20, wake: make(chan struct{}, 1), stat: PlaceStats{Name: name}}
}

// add lets an entry wait, or drops it where too many do. It never blocks.
func (p *place) add(e entry) {
	p.mu.Lock()
	p.number++
	e.number = p.number
	full := len(p.waiting) >= mostWaiting || p.bytes+len(e.line) > mostWaitingBytes
	if full {
		p.stat.Dropped++
	} else {
		p.waiting = append(p.waiting, e)
		p.bytes += len(e.line)
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run sends what waits until ctx ends, and then the rest, for flushTime at most.
func (p *place) run(ctx context.Context) {
	defer p.to.close()
	// What is under way when ctx ends may end well: only the sending goes on.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if sleep(sending, flushTime) {
			cancel()
		}
	})()
	pause := firstPause
	for p.gather(ctx) {
		err := p.send(sending)
		if err == nil {
			pause = firstPause
			continue
		}
		wait := pause/2 + rand.N(pause/2+1)
		pause = min(2*pause, longestPause)
		var told *waitError
		if errors.As(err, &told) {
			wait = max(wait, min(told.wait, longestPause))
		}
		sleep(ctx, wait)
	}
	for p.left() > 0 && sending.Err() == nil {
		if p.send(sending) != nil {
			sleep(sending, firstPause)
		}
	}
	if n := p.left(); n > 0 {
		p.log.Error().Str("to", p.name).Int("records", n).Msg("audit records were not sent before the end")
	}
}

// Bounds of the pause after a failure, which doubles each time.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 30 * time.Second
)

// gather waits for an entry, and then for others to go with it. It is false when
// ctx has ended.
func (p *place) gather(ctx context.Context) bool {
	for p.left() == 0 {
		select {
		case <-p.wake:
		case <-ctx.Done():
			return false
		}
	}
	if p.linger > 0 && p.left() < p.batch {
		return sleep(ctx, p.linger)
	}
	return ctx.Err() == nil
}

// send sends one batch.
func (p *place) send(ctx context.Context) error {
	p.mu.Lock()
	n, size := 0, 0
	for n < len(p.waiting) && n < p.batch && (n == 0 || size+len(p.waiting[n].line) <= p.batchBytes) {
		size += len(p.waiting[n].line)
		n++
	}
	batch := p.waiting[:n:n]
	p.mu.Unlock()

	done, dropped, err := p.to.send(ctx, batch)

	p.mu.Lock()
	for _, e := range batch[:done] {
		p.bytes -= len(e.line)
	}
	clear(p.waiting[:done]) // so that the lines can go
	p.waiting = p.waiting[done:]
	if len(p.waiting) == 0 {
		p.waiting = nil
	}
	p.stat.Sent += uint64(done - dropped)
	p.stat.Dropped += uint64(dropped)
	began, over := p.stat.Failing == "" && err != nil, p.stat.Failing != "" && err == nil
	p.stat.Failing = ""
	if err != nil {
		p.stat.Failing = err.Error()
	}
	lost := p.stat.Dropped
	p.mu.Unlock()

	switch {
	case began:
		p.log.Warn().Err(err).Str("to", p.name).Msg("audit records do not get there; some thousands wait, the file has all of them")
	case over:
		p.log.Info().Str("to", p.name).Uint64("dropped", lost).Msg("audit records get there again")
	}
	return err
}

func (p *place) left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

func (p *place) stats() PlaceStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stat
	s.Waiting = len(p.waiting)
	return s
}

// sleep reports whether d has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
