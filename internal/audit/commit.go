package audit

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// handle is a file that fsync is asked of. Its fields are guarded by Log.turn.
type handle struct {
	f     *os.File
	named bool // its entry in the folder is on the disk
	// closed says that no records go into it any more, and end what fsync said then.
	closed bool
	end    error
}

// syncFile brings to the disk what was written, and if told so the name of the
// file.
//
// After an fsync that failed the system may take what was lost for written, so
// that the next one succeeds without it (lwn.net/Articles/752063). It is honest
// about what was written since, which is what its callers wait for.
func syncFile(f *os.File, name bool) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if !name || runtime.GOOS == "windows" { // which has no fsync for folders
		return nil
	}
	dir, err := os.Open(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	defer dir.Close()
	// Not every file system has it for folders; those that have not keep names safe, or
	// promise nothing.
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// commit is one fsync and those who wait for it.
type commit struct {
	done chan struct{} // closed when it has returned
	err  error         // guarded by Log.turn until done is closed
}

// join joins the fsync that has not begun, as the one who asks for it if there was
// none. Log.turn is held, and has been since the record was written. A stream has
// none: nil.
func (l *Log) join() (c *commit, lead bool) {
	if l.out.handle == nil {
		return nil, false
	}
	if l.next == nil {
		l.next = &commit{done: make(chan struct{})}
		lead = true
	}
	return l.next, lead
}

// await waits for the fsync, and asks for it when it is the caller's to do so.
// While it waits for the one before to return, others join.
func (l *Log) await(c *commit, lead bool) error {
	if !lead {
		<-c.done
		return c.err
	}
	l.syncing.Lock()
	l.turn.take()
	if l.next == c {
		l.next = nil // whoever writes from now on needs another one
	}
	l.flying = true
	h := l.out.handle
	if h == nil { // the file was left for another that could not be opened; retired has asked
		h = &handle{named: true}
	}
	named := h.named
	l.turn.give()

	var err error
	if h.f != nil {
		err = l.fsync(h.f, !named)
	}

	l.turn.take()
	l.flying = false
	if h.closed && (errors.Is(err, os.ErrClosed) || errors.Is(h.end, errGone)) { // it was left after the turn was given back
		err = h.end
	}
	h.named = err == nil
	if err == nil && !h.closed {
		err = l.follow()
	}
	if c.err == nil {
		c.err = err
	}
	err = c.err
	var told news
	if errors.Is(err, errGone) {
		told = l.synced(nil) // the disk is well
	} else {
		told = l.synced(err)
	}
	l.turn.give()
	l.syncing.Unlock()
	l.tell(told)
	close(c.done)
	return err
}

// errGone means that the file was moved or deleted before what was written into it
// counted. Another was opened then.
var errGone = errors.New("audit.file was moved or deleted while the record was written, and again while the next attempt was")

// follow sees to it that the path of audit.file leads to the file that is open. It
// is errGone where the path was opened anew: what the file before holds does not
// count. Where that cannot be done, it does as long as that file has a name
// somewhere. l.turn is held.
func (l *Log) follow() error {
	t := l.out
	if !t.regular || t.w == nil || t.same() {
		l.astray = false
		return nil
	}
	f := t.handle.f
	again, err := t.reopen(l.retired)
	log := l.settings.Log
	switch {
	case err != nil && !linked(f):
		return err
	case err != nil:
		if !l.astray {
			log.Error().Err(err).Str("file", t.path).Msg("audit.file was moved and cannot be opened anew; records go on into the file that was moved")
		}
		l.astray = true
		return nil
	case !again: // it is back
		return nil
	}
	l.astray = false
	log.Warn().Str("file", t.path).Msg("audit.file was moved or deleted, and is opened anew; records of before are where it was moved, or gone")
	return errGone
}

// retired closes a file that no more records go into. Whoever waits for an fsync
// has a record in it, perhaps. l.turn is held.
func (l *Log) retired(h *handle) {
	if l.next != nil || l.flying {
		if h.end = l.fsync(h.f, true); h.end == nil && !linked(h.f) {
			h.end = errGone
		}
		if l.next != nil && h.end != nil {
			l.next.err, l.next = h.end, nil // what is written from now on fares better
		}
	}
	h.closed = true
	_ = h.f.Close() // each record is in it whole already
}
