package token

import "time"

// instant is one reading of both clocks of the machine, in nanoseconds. Only
// differences between instants of one process mean anything, but for wall,
// which is Unix time.
//
// Both are kept because neither can be trusted alone: the wall clock is set
// back and forth, and Linux's monotonic clock stands still while the machine
// sleeps, during which a token goes on ageing.
type instant struct {
	wall, mono int64
}

// processStart anchors the monotonic readings.
var processStart = time.Now()

func readClocks() instant {
	t := time.Now()
	return instant{wall: t.UnixNano(), mono: int64(t.Sub(processStart))}
}

// since is the time that has passed from start to now by whichever clock says
// more: what is too old for one of them is too old.
func (now instant) since(start instant) time.Duration {
	return time.Duration(max(now.wall-start.wall, now.mono-start.mono))
}

// time is the wall clock's reading, without a monotonic part.
func (now instant) time() time.Time { return time.Unix(0, now.wall) }
