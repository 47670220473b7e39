package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"defender-proxy/internal/listen"
)

// maxKept is the size in bytes up to which a request's body is kept in memory,
// so that it can be sent again. Larger ones stream and are sent once.
const maxKept = 256 << 10

// minRate is the rate in bytes a second below which a body, on the whole, is
// too slow once BodyIdle is over. It keeps callers that drip a byte now and then
// from holding all places; an honest upload over a bad line is ten times as fast.
const minRate = 10_000

// body is what a caller sends with its request.
type body struct {
	kept   []byte    // the whole of it, when keep is true
	stream io.Reader // else where it comes from
	keep   bool
	length int64       // -1 when it is not known
	begun  atomic.Bool // a connection has a stream
	read   atomic.Int64
	failed atomic.Pointer[error]
	caller *callerReader
	moved  atomic.Pointer[func()] // called when some of a stream has come
}

// readBody takes the body of r: small ones whole, so that one that is malformed
// or breaks off does not begin to go out, others as a stream. The errors are
// refusals.
func (p *Proxy) readBody(w http.ResponseWriter, r *http.Request) (*body, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return &body{keep: true}, nil
	}
	b := &body{length: r.ContentLength}
	b.caller = &callerReader{
		src:  r.Body,
		conn: http.NewResponseController(w),
		idle: p.Limits.BodyIdle,
		left: p.Limits.RequestBytes,
		most: p.Limits.RequestBytes,
		body: b,

		patience: p.Limits.Patience(),
	}
	b.stream = b.caller
	if b.length > maxKept {
		return b, nil
	}
	var head bytes.Buffer
	if b.length > 0 {
		head.Grow(int(b.length) + bytes.MinRead)
	}
	if _, err := head.ReadFrom(io.LimitReader(b.stream, maxKept+1)); err != nil {
		return nil, b.failure(err)
	}
	if head.Len() > maxKept { // only where the length was not known
		b.stream = io.MultiReader(&head, b.stream)
		return b, nil
	}
	b.kept, b.keep, b.length = head.Bytes(), true, int64(head.Len())
	return b, nil
}

// again reports whether the body can be sent from its start. A stream cannot
// once there was a connection: the transport may begin to read it at any time.
func (b *body) again() bool { return b.keep || !b.begun.Load() }

// open gives the body for one attempt. The transport closes it, which does not
// end the caller's stream: the server does that.
func (b *body) open() io.ReadCloser {
	switch {
	case b.keep && len(b.kept) == 0:
		return http.NoBody
	case b.keep:
		return io.NopCloser(bytes.NewReader(b.kept))
	}
	return io.NopCloser(b.stream)
}

// empty reports whether there is none.
func (b *body) empty() bool { return b.keep && len(b.kept) == 0 }

// complete reports whether the caller has sent the whole of it.
func (b *body) complete() bool { return b.keep || b.caller.complete() }

// hasten leaves the caller drainTime for each piece of what it still sends: the
// answer has come, and net/http reads on before it passes it on.
func (b *body) hasten() {
	if b.caller == nil {
		return
	}
	b.caller.mu.Lock()
	defer b.caller.mu.Unlock()
	if b.caller.eof || b.caller.ended {
		return
	}
	b.caller.idle = min(b.caller.idle, drainTime)
	_ = b.caller.conn.SetReadDeadline(time.Now().Add(b.caller.idle)) // not every connection has deadlines
}

// end lets nobody read on, and waits for a read that is under way. The transport
// may still be reading when an answer comes early, and the caller's connection
// is not to be touched once its handler has returned.
func (b *body) end() {
	if b.caller == nil {
		return
	}
	b.caller.mu.Lock()
	b.caller.ended = true
	if !b.caller.eof {
		_ = b.caller.conn.SetReadDeadline(time.Unix(1, 0)) // wakes the read
	}
	b.caller.mu.Unlock()
	b.caller.reading.Lock()
	defer b.caller.reading.Unlock()
}

// failure words what went wrong with the caller's side of the body.
func (b *body) failure(err error) error {
	if f := b.failed.Load(); f != nil {
		return *f
	}
	return malformed(err)
}

// malformed words that a body is not what its headers said.
func malformed(err error) *Refusal {
	var v *listen.Violation
	if errors.As(err, &v) {
		return &Refusal{Code: InvalidRequest, Message: v.Reason, Err: err}
	}
	return &Refusal{Code: InvalidRequest, Message: "The request's body broke off, or is malformed.", Err: err}
}

func tooLarge(most int64) *Refusal {
	return refusal(RequestTooLarge, "The request's body is larger than %d bytes, the most that limits.max_request_bytes allows.", most)
}

// callerReader reads a caller's body, bounded in size, in the time that the
// caller may pause, and in rate.
type callerReader struct {
	src   io.Reader
	conn  *http.ResponseController
	spent time.Duration // in reading
	idle  time.Duration
	left  int64
	most  int64
	body  *body
	// patience is how long the server may take to answer from now on.
	patience time.Duration

	reading sync.Mutex // held by Read

	mu    sync.Mutex // guards what follows, and the use of conn
	ended bool
	eof   bool
}

var errEnded = errors.New("the exchange is over")

func (c *callerReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if err := c.hurry(); err != nil {
		return 0, err
	}
	begun := time.Now()
	n, err := c.src.Read(p[:min(int64(len(p)), c.left+1)])
	c.spent += time.Since(begun)
	c.body.read.Add(int64(n))
	if c.left -= int64(n); c.left < 0 {
		return 0, c.fail(tooLarge(c.most))
	}
	if moved := c.body.moved.Load(); moved != nil {
		(*moved)()
	}
	switch {
	case err == io.EOF:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.eof = true
		return n, err
	case err == nil:
		return n, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, c.fail(&Refusal{
			Code:    RequestTimeout,
			Message: fmt.Sprintf("The request's body did not go on for %v, or came more slowly than %d bytes a second.", c.idle, minRate),
			Err:     err,
		})
	}
	return n, c.fail(malformed(err))
}

func (c *callerReader) complete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.eof
}

// hurry sets the time until which the caller has to send something, and moves
// that until which it gets its answer. It errs when there is nothing more to
// read: io.EOF behind the end, where the server itself reads on to see the
// caller leave and would take a deadline for it, or errEnded.
func (c *callerReader) hurry() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.eof:
		return io.EOF
	case c.ended:
		return errEnded
	}
	// Only the time counts that is spent here: a region that takes the body slowly
	// is not the caller's fault.
	left := c.idle + time.Duration(c.body.read.Load())*time.Second/minRate - c.spent
	last := time.Now().Add(min(left, c.idle))
	_ = c.conn.SetReadDeadline(last) // not every connection has deadlines
	_ = c.conn.SetWriteDeadline(last.Add(c.patience))
	return nil
}

func (c *callerReader) fail(r *Refusal) error {
	err := error(r)
	c.body.failed.CompareAndSwap(nil, &err)
	return err
}
