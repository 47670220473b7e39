//go:build !linux

package bench

import "time"

// sleepUntil returns at t, or up to a millisecond later.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
