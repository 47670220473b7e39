package audit

import (
	"errors"
	"sync"
	"time"
)

// ErrStalled means that a write, or another call of the system, does not return:
// nobody reads the pipe, or the file system hangs.
var ErrStalled = errors.New("a record is still being written, or the file system hangs")

// closeTime is how long Close and Reopen wait for a record that is being written.
const closeTime = 2 * time.Second

// turn is a lock that can be waited for within bounds, because a write may never
// return, and that tells since when it is held.
type turn struct {
	held chan struct{} // holds one element while somebody has the turn

	mu    sync.Mutex
	since time.Time // zero: nobody has it
}

func newTurn() *turn { return &turn{held: make(chan struct{}, 1)} }

func (t *turn) take() {
	t.held <- struct{}{}
	t.note(time.Now())
}

// within calls f while it has the turn, and returns after patience at most:
// ErrStalled is that the turn did not come, or that f has not returned.
func (t *turn) within(patience time.Duration, f func() error) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case t.held <- struct{}{}:
		t.note(time.Now())
	case <-timer.C:
		return ErrStalled
	}
	done := make(chan error, 1)
	go func() { // which a file system that hangs may outlast
		err := f()
		t.give()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return ErrStalled
	}
}

func (t *turn) give() {
	t.note(time.Time{})
	<-t.held
}

func (t *turn) note(since time.Time) {
	t.mu.Lock()
	t.since = since
	t.mu.Unlock()
}

// takenAt is when who has the turn took it; zero: nobody has.
func (t *turn) takenAt() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.since
}
