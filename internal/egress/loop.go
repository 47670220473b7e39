package egress

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// LoopError tells that a host leads back to this proxy, or to another one that is
// built as this: where Microsoft's names were given other addresses for the sake of
// callers, the proxy finds itself under them.
//
// With an Address nothing has been sent. Without one, something was: the answer gave
// the other end away, or one that came a moment ago did.
type LoopError struct {
	// Host is the name or address that was called; without an Address, with its port
	// where the URL has one.
	Host string
	// Address is the one of our own that it led to.
	Address netip.AddrPort
}

// loopRemedy ends what a LoopError says.
const loopRemedy = "set its real address or a DNS server in egress.resolve"

// Error names the host, the address if there is one, and the remedy.
func (e *LoopError) Error() string {
	if e.Address.IsValid() {
		return fmt.Sprintf("%s leads to this proxy itself (%s); %s", e.Host, e.Address, loopRemedy)
	}
	return fmt.Sprintf("%s is answered by a defender-proxy, this one or another; %s", e.Host, loopRemedy)
}

// TellsOfLoop reports whether words hold those of a LoopError, for where they are all
// that is kept of one: package token keeps no errors, which might hold secrets.
func TellsOfLoop(words string) bool { return strings.Contains(words, loopRemedy) }

const (
	// loopQuiet is how long a host is sent nothing after an answer that was a proxy's
	// own, and then between one request and the next until an answer is not. It spares
	// a host that is known to lead back; that a request which leads back goes no
	// further is CDN-Loop's doing, for before its answer nothing is known.
	loopQuiet = 5 * time.Second
	// loopTold is how often a host is told of.
	loopTold = time.Minute
	// maxLoops bounds the hosts that are remembered.
	maxLoops = 1024
)

// loops knows which hosts lead back here. Its methods may be called concurrently.
type loops struct {
	own  func() []netip.AddrPort // nil: none
	told func(*LoopError)        // nil: nobody is

	known atomic.Int32 // the length of next: nearly always 0
	mu    sync.Mutex
	next  map[string]time.Time // by host that led back: when it may be tried
	since map[string]time.Time // by host: when it was told of
}

// enter refuses a request to a host that is known to lead back, but for one now and
// then that tries it.
func (l *loops) enter(host string) error {
	if l.known.Load() == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next, looping := l.next[host]
	now := time.Now()
	switch {
	case !looping:
		return nil
	case now.Before(next):
		return &LoopError{Host: host}
	}
	l.next[host] = now.Add(loopQuiet)
	return nil
}

// answered judges the host by the headers of its answer.
func (l *loops) answered(host string, h http.Header) error {
	if !ours(h) {
		if l.known.Load() > 0 {
			l.mu.Lock()
			delete(l.next, host)
			l.known.Store(int32(len(l.next)))
			l.mu.Unlock()
		}
		return nil
	}
	l.mu.Lock()
	if l.next == nil {
		l.next = make(map[string]time.Time)
	}
	now := time.Now()
	if len(l.next) >= maxLoops {
		maps.DeleteFunc(l.next, func(_ string, next time.Time) bool { return now.After(next) })
	}
	if _, known := l.next[host]; known || len(l.next) < maxLoops {
		l.next[host] = now.Add(loopQuiet)
	}
	l.known.Store(int32(len(l.next)))
	l.mu.Unlock()
	return l.tell(&LoopError{Host: host})
}

// tell gives its argument back, after it was told once a host and minute.
func (l *loops) tell(e *LoopError) *LoopError {
	if l.told == nil {
		return e
	}
	l.mu.Lock()
	if l.since == nil {
		l.since = make(map[string]time.Time)
	}
	now := time.Now()
	if len(l.since) >= maxLoops {
		maps.DeleteFunc(l.since, func(_ string, t time.Time) bool { return now.Sub(t) >= loopTold })
	}
	last, known := l.since[e.Host]
	tell := (!known || now.Sub(last) >= loopTold) && (known || len(l.since) < maxLoops)
	if tell {
		l.since[e.Host] = now
	}
	l.mu.Unlock()
	if tell {
		l.told(e)
	}
	return e
}

// check refuses an address that one of our listeners has.
func (l *loops) check(address string) error {
	if l.own == nil {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil // it is no address of TCP
	}
	to = plain(to)
	for _, own := range l.own() {
		if own.Port() == to.Port() && reaches(to.Addr(), plain(own).Addr()) {
			return &LoopError{Address: to}
		}
	}
	return nil
}

// reaches reports whether a connection to an address ends at a listener that is
// bound to own.
func reaches(to, own netip.Addr) bool {
	switch {
	case to.IsUnspecified(): // the system connects to loopback then
		return own.IsUnspecified() || own.IsLoopback()
	case !own.IsUnspecified():
		return to == own
	case own.Is4() && !to.Is4():
		return false
	case to.IsLoopback():
		return true
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addresses {
		if prefix, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(prefix.IP); ok && ip.Unmap() == to {
				return true
			}
		}
	}
	return false
}

// plain is an address without what does not matter for where it is.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// pseudonym is what the proxy calls itself in Proxy-Status (RFC 9209) and CDN-Loop.
const pseudonym = "defender-proxy"

// ours reports whether an answer came by way of a proxy like this one: each of its
// answers names it in Proxy-Status, and none of Microsoft's does. The field is a list,
// to which those on the way add themselves.
func ours(h http.Header) bool { return namesUs(h["Proxy-Status"]) }

// members gives the members of a list of structured fields (RFC 9651). Commas within
// strings separate none.
func members(line string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		begin, quoted := 0, false
		for i := 0; i < len(line); i++ {
			switch c := line[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case c == ',' && !quoted:
				if !yield(line[begin:i]) {
					return
				}
				begin = i + 1
			}
		}
		yield(line[begin:])
	}
}

// watched sends by a transport what does not come back.
type watched struct {
	*http.Transport
	loops *loops
}

// RoundTrip sends one request. Its error may be a *LoopError.
func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	host := lower(r.URL.Host)
	if err := w.loops.enter(host); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	resp, err := w.Transport.RoundTrip(marked(r))
	if err != nil {
		return nil, err
	}
	if err := w.loops.answered(host, resp.Header); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// lower is strings.ToLower for ASCII alone, as names are compared.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
