package credential

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"defender-proxy/internal/token"
)

// patienceForStore is how long a change of a store may take, the wait for others
// included. A change takes milliseconds.
const patienceForStore = 20 * time.Second

// storeLock keeps those of this process apart who use one file.
type storeLock struct {
	// change is held to change what the file holds, in front of the lock between
	// processes.
	change slot
	// file is held for the moment in which the file is read or replaced: Windows
	// does not replace a file that somebody is reading.
	file slot
}

func newStoreLock() *storeLock { return &storeLock{make(slot, 1), make(slot, 1)} }

// storeLocks has the lock of each store file of the process, by absolute path. A
// reload makes new Stores, while fetches of the old ones still end. Two paths to
// one file have two locks here, and one between processes.
var storeLocks sync.Map // string → *storeLock

// slot is a mutex that one can stop waiting for.
type slot chan struct{}

// take reports whether the slot was taken before ctx ended.
func (s slot) take(ctx context.Context) bool {
	select {
	case s <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s slot) leave() { <-s }

// within reads with f while nobody replaces the file, and leaves when ctx ends.
// f then goes on, with the slot in hand: a disk that hangs holds one goroutine
// and not one for each fetch.
func within[T any](ctx context.Context, s *Store, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if ctx.Err() != nil || !s.lock.file.take(ctx) {
		return none, s.waited(ctx)
	}
	done := make(chan result, 1)
	go func() {
		defer s.lock.file.leave()
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, s.waited(ctx)
	}
}

// change runs f while nobody else changes what is stored, in this process or in
// another. Nobody who holds the lock takes long; f has a bound of its own.
func (s *Store) change(ctx context.Context, f func() error) error {
	waiting, cancel := context.WithTimeout(ctx, patienceForStore)
	defer cancel()
	if waiting.Err() != nil || !s.lock.change.take(waiting) {
		return s.waited(waiting)
	}
	defer s.lock.change.leave()
	path, err := storeGuard.follow(s.o.File)
	if err != nil {
		return err
	}
	lock := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".lock")
	for {
		unlock, err := tryLock(lock)
		if err != nil {
			return storeFault("The token store "+s.o.File+" cannot be locked with the file "+lock+": "+storeReason(err)+".",
				"Make the folder writable for the user that runs the proxy, on a disk that has locks; remove the lock file if it belongs to another user.")
		}
		if unlock != nil {
			defer unlock()
			return f()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-waiting.Done():
			return s.waited(waiting)
		}
	}
}

// waited is the fault of a wait that ctx has ended.
func (s *Store) waited(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &token.Fault{Kind: token.Stopped, Sentence: "The wait for token store " + s.o.File + " was interrupted.", Remedy: "Start it again."}
	}
	return &token.Fault{Kind: token.Unavailable, Sentence: "The token store " + s.o.File + " could not be used in time: its disk does not answer, or another process holds its lock.",
		Remedy: "Check the disk, and that no command login hangs."}
}
