package proxy

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// load counts the requests under way. The zero value counts none.
type load struct {
	mu    sync.Mutex // guards what follows
	total int
	by    map[source]int // of those that are not on loopback; at most total
}

// source is what shares one part of the places: an address, the first of a /64 of
// IPv6; or a user of a Unix socket.
type source struct {
	addr netip.Addr
	unix bool
	uid  uint32
}

func sourceOf(x *Exchange) source {
	if u := x.Peer.Unix; u != nil {
		return source{unix: true, uid: u.UID}
	}
	from := x.Address
	if from.Is6() && !from.IsLoopback() { // whoever has one IPv6 address has a network of them
		if network, err := from.Prefix(64); err == nil {
			from = network.Addr()
		}
	}
	return source{addr: from}
}

func (s source) String() string {
	if s.unix {
		return fmt.Sprintf("the user with uid %d", s.uid)
	}
	return s.addr.String()
}

// enter takes a place for a request, of most that there are. One source gets at most
// half of them, so that it cannot keep all others out; loopback is exempt, because
// there one address is everybody. leave gives the place back and must be called once.
func (l *load) enter(from source, most int) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	share := max(1, most/2)
	switch {
	case l.total >= most:
		return nil, overloaded("%d requests are under way, the most that limits.max_in_flight allows. Try again.", most)
	case from.addr.IsLoopback():
		l.total++
		return func() { l.leave(from) }, nil
	case l.by[from] >= share:
		return nil, overloaded("%d requests from %s are under way, half of what limits.max_in_flight allows and the most for one address or user. Try again.", share, from)
	}
	if l.by == nil {
		l.by = make(map[source]int)
	}
	l.total++
	l.by[from]++
	return func() { l.leave(from) }, nil
}

func (l *load) leave(from source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if n, ok := l.by[from]; ok && n > 1 {
		l.by[from] = n - 1
	} else {
		delete(l.by, from)
	}
}

func overloaded(format string, args ...any) *Refusal {
	return &Refusal{Code: Overloaded, Message: fmt.Sprintf(format, args...), RetryAfter: time.Second}
}
