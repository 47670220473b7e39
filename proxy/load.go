package proxy

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// load counts the requests under way. The zero value counts none.
type load struct {
	mu     sync.Mutex // guards what follows
	total  int
	byAddr map[netip.Addr]int // of those that are not on loopback; at most total
}

// enter takes a place for a request from an address, of most that there are. One
// address, or one /64 of IPv6, gets at most half of them, so that it cannot keep all others out;
// loopback is exempt, because there one address is everybody. leave gives the
// place back and must be called once.
func (l *load) enter(from netip.Addr, most int) (leave func(), err error) {
	loopback := from.IsLoopback()
	if from.Is6() { // whoever has one IPv6 address has a network of them
		if network, err := from.Prefix(64); err == nil {
			from = network.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	share := max(1, most/2)
	switch {
	case l.total >= most:
		return nil, overloaded("%d requests are under way, the most that limits.max_in_flight allows. Try again.", most)
	case loopback:
		l.total++
		return func() { l.leave(from) }, nil
	case l.byAddr[from] >= share:
		return nil, overloaded("%d requests from %s are under way, half of what limits.max_in_flight allows and the most for one address. Try again.", share, from)
	}
	if l.byAddr == nil {
		l.byAddr = make(map[netip.Addr]int)
	}
	l.total++
	l.byAddr[from]++
	return func() { l.leave(from) }, nil
}

func (l *load) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if n, ok := l.byAddr[from]; ok && n > 1 {
		l.byAddr[from] = n - 1
	} else {
		delete(l.byAddr, from)
	}
}

func overloaded(format string, args ...any) *Refusal {
	return &Refusal{Code: Overloaded, Message: fmt.Sprintf(format, args...), RetryAfter: time.Second}
}
