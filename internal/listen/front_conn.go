package listen

import (
	"net"
	"net/http"
)

// wire is a connection with what has been read from it. One goroutine at a time
// reads it.
type wire struct {
	net.Conn          // the listener's, or TLS over it
	below    net.Conn // the listener's
	limit    int      // of a head, in bytes
	heads    *heads   // where an unfinished head is counted
	waits    bool     // outside net/http
	used     bool     // has had a request

	room []byte // where what comes is put
	buf  []byte // of room, what has come and has not been passed on
	head head   // of the request that begins buf
	pass int    // bytes at the beginning of buf that are let through as they are
	body frame  // behind pass
	// refused is set once there is a request that is not let through. Nothing of the
	// connection is read any more then.
	refused *Violation
	broken  *Violation // of a body

	grown   bool    // counts in heads
	counted counted // guarded by heads
}

// standIn is what net/http reads in place of a request that is not let through.
// Its version is one that net/http takes and head does not, so that no caller can
// send it.
const standIn = "REFUSED * HTTP/1.2\r\nHost: \r\nConnection: close\r\n\r\n"

// Violated gives what is wrong with a request that stands in for what was not let
// through; nil for every other request. Whoever serves requests of Open's listeners
// asks it first. It changes nothing and may be called concurrently.
func Violated(r *http.Request) *Violation {
	if r.ProtoMajor != 1 || r.ProtoMinor != 2 {
		return nil
	}
	if e, ok := r.Context().Value(peerKey{}).(interface{ self() *exchange }); ok && e.self().refused != nil {
		return e.self().refused
	}
	// Not of a front, or its server lacks ConnContext.
	return &Violation{Status: http.StatusHTTPVersionNotSupported, Reason: "The request's version of HTTP is none of HTTP/1.1 and HTTP/1.0."}
}

// begun reports whether a byte of the next head has come.
func (w *wire) begun() bool { return len(w.buf) > 0 }

// fit reports whether a request is there to be passed on: one that is fit, or what
// stands in for one that is not.
func (w *wire) fit() bool {
	if w.refused != nil {
		return true
	}
	end, v := w.head.scan(w.buf, w.limit)
	if v != nil || end > 0 {
		w.heads.finish(w)
	}
	switch {
	case v != nil:
		w.refuse(v)
	case end > 0:
		w.buf = w.buf[w.head.start:]
		w.pass = end - w.head.start
		w.body = w.head.frame()
	default:
		return false
	}
	w.head = head{}
	return true
}

// refuse puts what stands in for a request in the place of what came.
func (w *wire) refuse(v *Violation) {
	w.refused = v
	w.heads.finish(w)
	w.room, w.buf = nil, nil
	w.put([]byte(standIn))
	w.pass = len(w.buf)
}

// tooMuch is what is wrong with a head for which there is no room.
func (w *wire) tooMuch() *Violation {
	v := &Violation{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: whyTooMuch}
	v.Method, v.Path = beginning(w.buf[min(w.head.start, len(w.buf)):])
	return v
}

// The sizes in bytes of buffers: of a connection that waits, and of one that is in
// use, which keeps no larger one from one request to the next.
const (
	smallBuffer = 512
	usualBuffer = 4 << 10
)

// fill reads what there is into a buffer of at least that size. Where there is no
// room for a larger one, the request is refused.
func (w *wire) fill(least int) error {
	if len(w.buf) == cap(w.buf) || len(w.buf) == 0 && len(w.room) < least {
		if len(w.buf) == len(w.room) || len(w.room) < least {
			size := max(least, 2*len(w.buf))
			if size > least && !w.heads.grow(w, size) {
				w.refuse(w.tooMuch())
				return nil
			}
			w.room = make([]byte, size)
		}
		w.buf = w.room[:copy(w.room, w.buf)]
	}
	n, err := w.Conn.Read(w.buf[len(w.buf):cap(w.buf)])
	w.buf = w.buf[:len(w.buf)+n]
	if n == 0 && w.heads.gone(w) {
		w.refuse(w.tooMuch())
		return nil
	}
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// put keeps bytes; there are none yet.
func (w *wire) put(b []byte) {
	if len(w.room) < len(b) {
		w.room = make([]byte, max(smallBuffer, len(b)))
	}
	w.buf = w.room[:copy(w.room, b)]
}

// take moves n bytes from the beginning of the buffer.
func (w *wire) take(p []byte, n int) int {
	n = copy(p, w.buf[:n])
	if w.buf = w.buf[n:]; len(w.buf) == 0 {
		if len(w.room) > usualBuffer {
			w.room = nil
		}
		w.buf = w.room[:0]
	}
	return n
}

// skip reads what nobody wants; nothing else is read any more.
func (w *wire) skip() (int, error) {
	if len(w.room) == 0 {
		w.room = make([]byte, usualBuffer)
	}
	return w.Conn.Read(w.room)
}

// rest makes a connection that waits as small as can be.
func (w *wire) rest() {
	if b := w.buf; len(b) == 0 {
		w.room, w.buf = nil, nil
	} else {
		w.room = nil
		w.put(b)
	}
}

// more reads a part of the body.
func (w *wire) more(p []byte) (n int, err error) {
	if w.broken != nil {
		return 0, w.broken
	}
	if len(w.buf) > 0 {
		n, w.broken = w.body.scan(w.buf[:min(len(p), len(w.buf))])
		n = w.take(p, n)
	} else {
		var come int
		if w.body.state == unchunked {
			p = p[:min(int64(len(p)), w.body.left)]
		}
		come, err = w.Conn.Read(p)
		n, w.broken = w.body.scan(p[:come])
		if n < come {
			w.put(p[n:come])
		}
	}
	if n == 0 && w.broken != nil {
		return 0, w.broken
	}
	return n, err
}
