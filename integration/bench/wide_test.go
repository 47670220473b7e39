package bench

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// relay carries TCP connections to one upstream as a network of some length
// would: each byte takes half a round trip, in both directions, and there is no
// limit to how many are under way.
//
// A process cannot hold back the SYN of a connection that the kernel has answered
// already. So what a caller sends within the first round trip counts as sent
// after it: a caller that sends as soon as it is connected, as TLS does, waits as
// long as it would for the handshake, and one that connected ahead does not wait
// again. For the same reason a refused connection is one that is reset after a
// round trip, when a real RST would arrive.
type relay struct {
	rtt    time.Duration
	target string
	l      net.Listener

	mu       sync.Mutex
	refusing bool
	ends     map[*net.TCPConn]struct{} // the callers' ends of what is open
}

// relayTo starts a relay that ends with the benchmark.
func relayTo(b *testing.B, target string, rtt time.Duration) *relay {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	r := &relay{rtt: rtt, target: target, l: l, ends: make(map[*net.TCPConn]struct{})}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				running.Go(func() { r.carry(c.(*net.TCPConn), time.Now()) })
			}
		}
	})
	b.Cleanup(func() {
		_ = l.Close()
		r.drop()
		running.Wait()
	})
	return r
}

func (r *relay) url() string { return "https://" + r.l.Addr().String() }

// refuse has connections reset from now on, those that are open too, or lets
// them be made again.
func (r *relay) refuse(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = yes
	if yes {
		for c := range r.ends {
			reset(c)
		}
	}
}

// drop closes what is open, as front ends do with connections that have idled
// for long.
func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.ends {
		_ = c.Close()
	}
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// carry serves one connection, accepted at a time, until both its ends are done.
func (r *relay) carry(caller *net.TCPConn, accepted time.Time) {
	defer caller.Close()
	r.mu.Lock()
	refusing := r.refusing
	if !refusing {
		r.ends[caller] = struct{}{}
	}
	r.mu.Unlock()
	if refusing {
		sleepUntil(accepted.Add(r.rtt))
		reset(caller)
		return
	}
	defer func() {
		r.mu.Lock()
		delete(r.ends, caller)
		r.mu.Unlock()
	}()
	c, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	upstream := c.(*net.TCPConn)
	defer upstream.Close()

	connected := accepted.Add(r.rtt)
	var up sync.WaitGroup
	up.Go(func() {
		pump(upstream, caller, func(sent time.Time) time.Time {
			if sent.Before(connected) {
				sent = connected
			}
			return sent.Add(r.rtt / 2)
		})
	})
	pump(caller, upstream, func(sent time.Time) time.Time { return sent.Add(r.rtt / 2) })
	up.Wait()
}

// pump copies what comes from src to dst, each piece when it is due, and then
// the end of it.
func pump(dst, src *net.TCPConn, due func(sent time.Time) time.Time) {
	type piece struct {
		data []byte
		due  time.Time
	}
	const underWay = 4096 // pieces: more than any answer here has
	line := make(chan piece, underWay)
	go func() {
		defer close(line)
		buf := make([]byte, 64<<10)
		for {
			n, err := src.Read(buf)
			if n > 0 {
				line <- piece{append([]byte(nil), buf[:n]...), due(time.Now())}
			}
			if err != nil {
				if errors.Is(err, io.EOF) {
					line <- piece{due: due(time.Now())}
				}
				return
			}
		}
	}()
	ended := false
	for p := range line {
		sleepUntil(p.due)
		if len(p.data) == 0 {
			_ = dst.CloseWrite()
			ended = true
			continue
		}
		if _, err := dst.Write(p.data); err != nil {
			_ = src.Close() // ends the reader, and with it the line
		}
	}
	if !ended {
		_ = dst.Close()
		_ = src.Close()
	}
}
