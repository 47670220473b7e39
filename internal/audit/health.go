package audit

import (
	"fmt"
	"time"
)

// Stats is what a Log knows of itself.
type Stats struct {
	// Stored and Lost count the records that are in the file, and those that could
	// not be put there. Of the lost ones event "lost" tells once there is room again.
	Stored, Lost uint64
	// Failing says why the newest record could not be stored, or not be brought to the
	// disk, since Since; empty: all is well.
	Failing string
	Since   time.Time
	// Stalled says that a record has been on its way into the file for longer than
	// StallTime, and all others wait behind it: nobody reads the pipe, or the file
	// system hangs. Failing says so too, then.
	Stalled bool
	// Syncs counts calls of fsync, PutAside the files that were put aside.
	Syncs, PutAside uint64
	// Seq and Head are the number and the hash of the newest record of a chain. Who
	// notes them elsewhere can tell later whether the end of the file is missing.
	Seq  uint64
	Head string
	// Places are those beside the file.
	Places []PlaceStats
}

// PlaceStats is what is known of syslog or of the collector.
type PlaceStats struct {
	Name    string // syslog, or otlp
	Sent    uint64
	Dropped uint64 // because too many waited, or it would not have them
	Waiting int
	Failing string // why the newest attempt failed; empty: it did not
}

// StallTime is how long a record may take before Stats calls the Log stalled.
const StallTime = 10 * time.Second

// Stats gives the present state. It answers at once, whatever the file does.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	s := l.stats
	if l.chain != nil {
		s.Seq = l.chain.seq
		if s.Seq > 0 {
			s.Head = l.chain.sum()
		}
	}
	l.mu.Unlock()
	if since := l.turn.takenAt(); !since.IsZero() && time.Since(since) > StallTime {
		s.Stalled = true
		if s.Failing == "" {
			s.Failing, s.Since = fmt.Sprintf("a record has been in a write for more than %v, and others wait for it", StallTime), since
		}
	}
	for _, p := range l.places {
		s.Places = append(s.Places, p.stats())
	}
	return s
}

// news is what the process's log is told once Log.turn is given back.
type news struct {
	failed error // records begin to be lost
	over   bool
	lost   uint64
}

// settle counts a record. l.turn is held.
func (l *Log) settle(err error) news {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if l.missing == 0 {
			l.missingSince = time.Now()
		}
		l.missing++
		l.stats.Lost++
		return l.failing(err)
	}
	l.told += l.missing
	l.missing = 0
	l.stats.Stored++
	if l.syncFailed {
		return news{} // only an fsync can say that this is over
	}
	return l.well()
}

// synced notes how an fsync ended. l.turn is held.
func (l *Log) synced(err error) news {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Syncs++
	l.syncFailed = err != nil
	if err != nil {
		return l.failing(err)
	}
	if l.missing > 0 {
		return news{}
	}
	return l.well()
}

func (l *Log) failing(err error) (n news) {
	if l.stats.Failing == "" {
		l.stats.Since = time.Now()
		n.failed = err
	}
	l.stats.Failing = err.Error()
	return n
}

func (l *Log) well() (n news) {
	n.over, n.lost = l.stats.Failing != "", l.told
	l.told = 0
	l.stats.Failing, l.stats.Since = "", time.Time{}
	return n
}

// tell tells the process's log, once when it begins and once when it ends.
func (l *Log) tell(n news) {
	switch {
	case n.failed != nil:
		l.settings.Log.Error().Err(n.failed).Str("file", l.settings.File).
			Msg("audit records cannot be stored; with audit.writes: required writes are refused, reads pass without a record")
	case n.over:
		l.settings.Log.Warn().Uint64("lost", n.lost).Str("file", l.settings.File).Msg("audit records are stored again")
	}
}
