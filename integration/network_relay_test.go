//go:build network

package integration

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// relay stands at an address of the network for a listener of the simulator.
type relay struct {
	l        net.Listener
	to       string
	accepted atomic.Int64

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

func (ns *namespaces) relay(place, address, to string) *relay {
	ns.t.Helper()
	r := &relay{l: ns.listen(place, address), to: to, open: make(map[net.Conn]struct{})}
	r.wg.Go(r.accept)
	ns.t.Cleanup(r.close)
	return r
}

func (r *relay) accept() {
	for {
		c, err := r.l.Accept()
		if err != nil {
			return
		}
		r.accepted.Add(1)
		r.wg.Go(func() { r.serve(c) })
	}
}

// keep takes note of a connection, so that close can end it.
func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.open[c] = struct{}{}
	return true
}

func (r *relay) drop(c net.Conn) {
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

func (r *relay) serve(near net.Conn) {
	defer r.drop(near)
	if !r.keep(near) {
		return
	}
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer r.drop(far)
	if !r.keep(far) {
		return
	}
	var there sync.WaitGroup
	there.Go(func() { pour(far, near) })
	pour(near, far)
	there.Wait()
}

// pour copies until one side ends, and passes the end on.
func pour(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err != nil {
		to.Close()
		from.Close()
		return
	}
	_ = to.(*net.TCPConn).CloseWrite()
}

// cut ends the connections that are open.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		c.Close()
	}
}

func (r *relay) close() {
	r.l.Close()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cut()
	r.wg.Wait()
}
