package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// maxKept is the size in bytes up to which a request's body is kept in memory,
// so that it can be sent again. Larger ones stream and are sent once.
const maxKept = 256 << 10

// body is what a caller sends with its request.
type body struct {
	kept   []byte    // the whole of it, when keep is true
	stream io.Reader // else where it comes from
	keep   bool
	length int64 // -1 when it is not known
	begun  atomic.Bool
	read   atomic.Int64 // bytes
	failed atomic.Pointer[error]
}

// readBody takes the body of r: small ones whole, so that one that is malformed
// or breaks off does not begin to go out, others as a stream. The errors are
// refusals.
func (p *Proxy) readBody(w http.ResponseWriter, r *http.Request) (*body, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return &body{keep: true}, nil
	}
	b := &body{length: r.ContentLength}
	b.stream = &callerReader{
		src:  r.Body,
		conn: http.NewResponseController(w),
		idle: p.Limits.BodyIdle,
		left: p.Limits.RequestBytes,
		most: p.Limits.RequestBytes,
		body: b,
	}
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

// again reports whether the body can be sent from its start.
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
	return io.NopCloser(once{b})
}

// once reads a body that streams, and notes that it has begun.
type once struct{ b *body }

func (o once) Read(p []byte) (int, error) {
	o.b.begun.Store(true)
	return o.b.stream.Read(p)
}

// failure words what went wrong with the caller's side of the body.
func (b *body) failure(err error) error {
	if f := b.failed.Load(); f != nil {
		return *f
	}
	return &Refusal{Code: InvalidRequest, Message: "The request's body is not what its headers said: it broke off, or is malformed.", Err: err}
}

func tooLarge(most int64) *Refusal {
	return refusal(RequestTooLarge, "The request's body is larger than %d bytes, the most that limits.max_request_bytes allows.", most)
}

// callerReader reads a caller's body, bounded in size and in the time that the
// caller may pause. A caller that sends slowly but steadily is left alone.
type callerReader struct {
	src  io.Reader
	conn *http.ResponseController
	idle time.Duration
	left int64
	most int64
	body *body
}

func (c *callerReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(c.idle)) // not every connection has deadlines
	n, err := c.src.Read(p[:min(int64(len(p)), c.left+1)])
	c.body.read.Add(int64(n))
	if c.left -= int64(n); c.left < 0 {
		return 0, c.fail(tooLarge(c.most))
	}
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, c.fail(&Refusal{Code: RequestTimeout, Message: fmt.Sprintf("The request's body did not go on for %v.", c.idle), Err: err})
	}
	// The server reads on behind the body to see the caller leave. A deadline
	// left standing would look to it as if the caller had.
	_ = c.conn.SetReadDeadline(time.Time{})
	if err != io.EOF {
		return n, c.fail(&Refusal{Code: InvalidRequest, Message: "The request's body broke off.", Err: err})
	}
	return n, io.EOF
}

func (c *callerReader) fail(r *Refusal) error {
	err := error(r)
	c.body.failed.CompareAndSwap(nil, &err)
	return err
}
