package audit

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a pipe that nobody reads, until it is closed.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

// Nobody reads standard output any more: records wait, and nothing else does.
func TestAStalledWriteHoldsUpNothingButRecords(t *testing.T) {
	for name, ours := range map[string]bool{"standard output": false, "a file": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pipe := make(stuck)
				log, err := Open(Settings{File: "stdout", Chain: true}, pipe, nil)
				must(t, err)
				if ours {
					path := filepath.Join(t.TempDir(), "audit.jsonl")
					log, err = Open(Settings{File: path}, nil, nil)
					must(t, err)
					defer log.out.handle.f.Close()
					log.out.w = pipe
				}
				failed := make(chan error, 2)
				for range 2 {
					go func() { failed <- log.Write(&Record{Event: Request}) }()
				}
				within := func(what string, d time.Duration, f func() error, want error) {
					t.Helper()
					begun := time.Now()
					if err := f(); !errors.Is(err, want) {
						t.Errorf("%s gives %v, want %v", what, err, want)
					}
					if took := time.Since(begun); took > d {
						t.Errorf("%s takes %v, want at most %v", what, took, d)
					}
				}
				state := func(stalled bool) func() error {
					return func() error {
						if s := log.Stats(); s.Stalled != stalled || stalled && (!strings.Contains(s.Failing, "in a write") || s.Since.IsZero()) {
							t.Errorf("got %+v, want stalled %v", s, stalled)
						}
						return nil
					}
				}
				var stalled error
				if ours {
					stalled = ErrStalled
				}
				synctest.Wait()
				within("Stats", 0, state(false), nil)
				within("Reopen", closeTime, func() error { _, err := log.Reopen(); return err }, stalled)
				within("Close", closeTime, log.Close, stalled)
				time.Sleep(StallTime + time.Second)
				within("Stats", 0, state(true), nil)
				close(pipe)
				for range 2 {
					must(t, <-failed)
				}
				within("Stats", 0, state(false), nil)
				if ours {
					log.out.w = log.out.handle.f
				}
				within("Close", 0, log.Close, nil)
			})
		})
	}
}

// A file system hangs while the path is looked at.
func TestACallThatHangsIsNotWaitedForAndKeepsTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn, goOn := newTurn(), make(chan struct{})
		begun := time.Now()
		if err := turn.within(closeTime, func() error { <-goOn; return nil }); !errors.Is(err, ErrStalled) || time.Since(begun) != closeTime {
			t.Errorf("got %v after %v", err, time.Since(begun))
		}
		if !turn.takenAt().Equal(begun) {
			t.Errorf("nobody has the turn, says it: %v", turn.takenAt())
		}
		close(goOn)
		synctest.Wait()
		must(t, turn.within(closeTime, func() error { return nil }))
	})
}

// Streams are closed by whoever opened them.
func TestAStreamIsNotClosed(t *testing.T) {
	r, w := io.Pipe()
	log := New(w)
	must(t, log.Close())
	go func() { _ = log.Write(&Record{ID: "after"}) }()
	b := make([]byte, 1000)
	if n, err := r.Read(b); err != nil || !strings.Contains(string(b[:n]), "after") {
		t.Errorf("got %q, %v", b[:n], err)
	}
	_ = r.Close()
}
