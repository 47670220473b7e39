package bench

import (
	"syscall"
	"time"
)

// sleepUntil returns at t, within some 10 µs where the machine lets it.
//
// time.Sleep may come back a millisecond late: the runtime waits for its timers
// in epoll_wait, which counts whole milliseconds.
func sleepUntil(t time.Time) {
	const slack = 100 * time.Microsecond // the kernel's own (prctl(2), PR_SET_TIMERSLACK), and some
	for {
		left := time.Until(t)
		if left <= 0 {
			return
		}
		if left > slack {
			ts := syscall.NsecToTimespec(int64(left - slack))
			_ = syscall.Nanosleep(&ts, nil) // a signal ends it early, and the loop goes on
		}
	}
}
