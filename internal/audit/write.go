package audit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

var lines = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Write writes one record. When it returns an error the record may be missing
// or cut off, and a request that depends on it must not be sent. A crash of the
// process does not lose it, one of the machine may.
func (l *Log) Write(r *Record) error { return l.write(r, false) }

// WriteDurable is Write, and when it returns nil the record has outlived a crash of
// the machine, as far as a file can promise that: fsync has returned for it, and for
// its name in the folder. Calls that come together share an fsync. A stream, such as
// a pipe, promises nothing, and Write is all that is done.
//
// The path of audit.file leads to it then: where the file was moved or deleted, the
// path is opened again, and gets the record, perhaps for the second time.
func (l *Log) WriteDurable(r *Record) error {
	err := l.write(r, true)
	if errors.Is(err, errGone) {
		err = l.write(r, true)
	}
	return err
}

func (l *Log) write(r *Record, durable bool) error {
	line := lines.Get().(*bytes.Buffer)
	defer lines.Put(line)
	line.Reset()
	r.encode(line)

	l.turn.take()
	var err error
	if durable && l.next == nil { // the first of those that will share an fsync looks for all of them
		if err = l.follow(); errors.Is(err, errGone) {
			err = nil // nothing that counts was in it
		}
	}
	if err == nil {
		err = l.store(line)
	}
	told := l.settle(err)
	l.copy(r.Event, r.Time, r.Decision == "refused", line.Bytes())
	var c *commit
	lead := false
	if err == nil && durable {
		c, lead = l.join()
	}
	l.turn.give()
	l.tell(told)

	if c != nil {
		if err = l.await(c, lead); err != nil {
			err = fmt.Errorf("bring the audit record to the disk: %w", err)
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("write audit record: %w", err)
	}
	return nil
}

// store appends a line, and in front of it the record of those that are missing,
// where some are. The line gets what the chain adds, if it is stored. l.turn is held.
func (l *Log) store(line *bytes.Buffer) error {
	var lost bytes.Buffer
	if l.missing > 0 {
		encodeLost(&lost, time.Now(), l.missingSince, l.missing, l.stats.Failing)
	}
	if l.out.full(lost.Len() + line.Len()) {
		if err := l.putAside(); err != nil {
			l.settings.Log.Error().Err(err).Str("file", l.out.path).Msg("audit.file could not be put aside at audit.max_bytes; records go on into it")
		}
	}
	plain, first := line.Len(), l.out.bare
	next := l.chain
	if l.chain != nil {
		var err error
		if next, err = l.chain.clone(); err != nil {
			return err
		}
		if lost.Len() > 0 {
			next.seal(&lost, first)
			first = false
		}
		next.seal(line, first)
	}
	lines := line.Bytes()
	if lost.Len() > 0 {
		lines = slices.Concat(lost.Bytes(), lines)
	}
	part, err := l.out.append(lines)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.chain = next
		if lost.Len() > 0 {
			l.stats.Stored++
			l.copy(Lost, time.Now(), false, lost.Bytes())
		}
		return nil
	}
	if l.chain != nil {
		l.chain.left(part)
		// Other places get the record all the same, but no number that another will have.
		line.Truncate(plain - len("}\n"))
		line.WriteString("}\n")
	}
	return err
}

// copy gives a line to the other places. l.turn is held, so that they get it in the
// order of the file.
func (l *Log) copy(event Event, at time.Time, refused bool, line []byte) {
	if len(l.places) == 0 {
		return
	}
	e := entry{event: event, at: at, refused: refused, line: bytes.Clone(bytes.TrimSuffix(line, []byte("\n")))}
	for _, p := range l.places {
		p.add(e)
	}
}

// putAside begins a new file. l.turn is held.
func (l *Log) putAside() error {
	if err := l.out.putAside(time.Now(), l.retired); err != nil {
		return err
	}
	l.mu.Lock()
	l.stats.PutAside++
	l.mu.Unlock()
	return l.out.discard(l.settings.Keep)
}
