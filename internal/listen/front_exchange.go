package listen

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// parkAfter is how long a connection idles in net/http before it waits outside,
// which costs some microseconds when it goes on.
const parkAfter = 100 * time.Millisecond

// exchange is a connection as net/http gets to see it, from the first byte of a
// request to a wait. NetConn leads to what it stands for.
type exchange struct {
	*wire
	front *front
	idle  atomic.Bool // net/http waits for a request
	once  sync.Once

	// reading is held during a read, which Close waits for: net/http may begin to
	// watch for the next request while it closes.
	reading sync.Mutex

	mu       sync.Mutex // guards what follows; taken after reading
	deadline time.Time  // of net/http
	sooner   time.Time  // the end of our own patience, in a read of an idle connection
	parked   bool
	closed   bool
}

func (e *exchange) self() *exchange { return e }

// NetConn gives the connection beneath, as that of tls.Conn does.
func (e *exchange) NetConn() net.Conn { return e.Conn }

// encrypted is an exchange over TLS. net/http puts its ConnectionState into the
// requests.
type encrypted struct{ *exchange }

func (e encrypted) ConnectionState() tls.ConnectionState {
	return e.Conn.(*tls.Conn).ConnectionState()
}

// Read gives no byte of a request before the whole of its head is known to be fit,
// and none of a body that is not.
func (e *exchange) Read(p []byte) (int, error) {
	w := e.wire
	if len(p) == 0 {
		return 0, nil
	}
	e.reading.Lock()
	defer e.reading.Unlock()
	if e.isClosed() {
		return 0, net.ErrClosed // it may be another request's by now
	}
	for {
		switch {
		case w.pass > 0:
			e.idle.Store(false)
			n := w.take(p, min(len(p), w.pass))
			w.pass -= n
			return n, nil
		case w.refused != nil:
			// net/http watches whether the caller is still there.
			if _, err := w.skip(); err != nil {
				return 0, err
			}
		case !w.body.over() || w.broken != nil:
			return w.more(p)
		case w.fit():
		case !e.idle.Load():
			if err := w.fill(usualBuffer); err != nil {
				return 0, err
			}
		default:
			if err := e.await(); err != nil {
				return e.failed(err)
			}
		}
	}
}

// await reads a head for as long as net/http would, but not much longer than
// parkAfter: one that comes slowly has its time outside.
func (e *exchange) await() error {
	e.bound(time.Now().Add(parkAfter))
	defer e.bound(time.Time{})
	for {
		if err := e.fill(usualBuffer); err != nil {
			return err
		}
		if e.fit() {
			return nil
		}
	}
}

// failed tells net/http of the end of a read unless it was our own patience that
// ended.
func (e *exchange) failed(err error) (int, error) {
	if !os.IsTimeout(err) {
		return 0, err
	}
	e.mu.Lock()
	theirs := e.closed || !e.deadline.IsZero() && !time.Now().Before(e.deadline)
	e.mu.Unlock()
	if theirs {
		return 0, err
	}
	return e.park()
}

// park ends the connection for net/http, which closes it then.
func (e *exchange) park() (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.parked = true
	return 0, io.EOF
}

func (e *exchange) bound(t time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sooner = t
	_ = e.apply()
}

// apply sets the earlier of the two deadlines; once it is closed, one that is over.
func (e *exchange) apply() error {
	t := e.deadline
	if e.closed {
		return e.Conn.SetReadDeadline(time.Unix(1, 0))
	}
	if !e.sooner.IsZero() && (t.IsZero() || e.sooner.Before(t)) {
		t = e.sooner
	}
	return e.Conn.SetReadDeadline(t)
}

func (e *exchange) SetReadDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return net.ErrClosed // it may be another request's by now
	}
	e.deadline = t
	return e.apply()
}

func (e *exchange) SetDeadline(t time.Time) error {
	if err := e.SetReadDeadline(t); err != nil {
		return err
	}
	return e.Conn.SetWriteDeadline(t)
}

// CloseWrite ends the answer's side, where the connection has two.
func (e *exchange) CloseWrite() error {
	if c, ok := e.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

func (e *exchange) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// Close ends the connection, or lets it wait for the next request. A read ends
// first.
func (e *exchange) Close() error {
	err := net.ErrClosed
	e.once.Do(func() {
		e.mu.Lock()
		e.closed = true
		_ = e.apply()
		e.mu.Unlock()
		e.reading.Lock()
		defer e.reading.Unlock()
		if !e.parked {
			e.heads.finish(e.wire)
		}
		switch {
		case e.front.isClosed():
			err = e.Conn.Close()
		case e.parked:
			err = e.front.again(e.wire, e.deadline)
		case e.refused != nil, !e.body.over(), e.broken != nil:
			err = e.front.linger(e.wire)
		default:
			err = e.Conn.Close()
		}
	})
	return err
}
