package regions

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxOperations bounds the operations of one service of which the usual time
	// is kept; requests for further ones tell nothing.
	maxOperations = 512
	// The usual time of an operation is known after earlySamples requests for it:
	// the one of rank usualRank, by length.
	earlySamples = 40
	usualRank    = 24
	// Later requests move it by usualStep, or by a share of itself of one in
	// usualShare, whichever is more; twice as much after each usualRun of them
	// that point the same way. It has to be slower than the surplus of a region
	// that becomes slow.
	usualStep  = 50 * time.Microsecond
	usualShare = 1024
	usualRun   = 16
	// maxDoublings bounds how often a step is doubled.
	maxDoublings = 8
)

// usualTimes are how long requests for an operation usually wait, over all regions
// of its service and beyond the time of a probe. The zero value knows of none. It
// is safe for concurrent use.
type usualTimes struct {
	mu       sync.Mutex
	services map[Service]map[string]*usual
}

// usual is the time that three in five requests for one operation stay under.
//
// It is not the median, which half of the requests exceed: then chance would
// make a surplus out of durations that vary much, as those of hunting do, though
// they are alike in all regions.
type usual struct {
	group int           // for realTimes: the operations of a service take turns
	level time.Duration // may be negative, where probes take longer
	run   int
	early []time.Duration // nil once level is known
}

// over takes a request into account that waited for beyond longer than a probe. It
// returns by how much that is more than usual, negative when it is less, and the
// group of the operation, or false while it isn't known what is usual.
func (u *usualTimes) over(s Service, operation string, beyond time.Duration) (over time.Duration, group int, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	o := u.services[s][operation]
	if o == nil {
		if o = u.add(s, operation); o == nil {
			return 0, 0, false
		}
	}
	if o.early != nil {
		o.begin(beyond)
		return 0, 0, false
	}
	return o.follow(beyond), o.group, true
}

// add returns what is to be known of an operation, nil when there are too many.
func (u *usualTimes) add(s Service, operation string) *usual {
	if u.services == nil {
		u.services = make(map[Service]map[string]*usual)
	}
	if u.services[s] == nil {
		u.services[s] = make(map[string]*usual)
	}
	if len(u.services[s]) >= maxOperations {
		return nil
	}
	o := &usual{group: len(u.services[s]) % groups, early: make([]time.Duration, 0, earlySamples)}
	u.services[s][strings.Clone(operation)] = o
	return o
}

func (o *usual) begin(beyond time.Duration) {
	o.early = append(o.early, beyond)
	if len(o.early) == earlySamples {
		slices.Sort(o.early)
		o.level, o.early = o.early[usualRank], nil
	}
}

// follow moves the level towards beyond and returns how far off it was. Two steps
// up weigh as much as three steps down, so that it stays where two in five
// requests exceed it.
func (o *usual) follow(beyond time.Duration) time.Duration {
	over := beyond - o.level
	o.run = proceed(o.run, over > 0)
	step := double(max(usualStep, o.level.Abs()/usualShare), o.run, usualRun)
	if over > 0 {
		o.level += min(step*3/2, over)
	} else {
		o.level -= min(step, -over)
	}
	return over
}

// proceed counts a sample that points up or down: run is how many in a row did
// so, those that point down being negative.
func proceed(run int, up bool) int {
	if up {
		return max(run, 0) + 1
	}
	return min(run, 0) - 1
}

// double returns step, doubled after each length samples of a run.
func double(step time.Duration, run, length int) time.Duration {
	return step << min((max(run, -run)-1)/length, maxDoublings)
}
