package proxy

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// packedReader reads src compressed. Memory is constant, whatever the ratio of
// what it reads is.
type packedReader struct {
	src io.Reader
	gz  *gzip.Writer
	out bytes.Buffer
	buf [16 << 10]byte
	err error
}

// packedReaders compress with the quickest level: what comes is compressed only
// to be sent over a local network.
var packedReaders = sync.Pool{New: func() any {
	r := new(packedReader)
	r.gz, _ = gzip.NewWriterLevel(&r.out, gzip.BestSpeed) // the level exists
	return r
}}

func newPacked(src io.Reader) *packedReader {
	r := packedReaders.Get().(*packedReader)
	r.src, r.err = src, nil
	r.out.Reset()
	r.gz.Reset(&r.out)
	return r
}

// release gives the reader back. It must not be read any more.
func (r *packedReader) release() {
	r.src = nil
	packedReaders.Put(r)
}

func (r *packedReader) Read(p []byte) (int, error) {
	for r.out.Len() == 0 && r.err == nil {
		n, err := r.src.Read(r.buf[:])
		if _, werr := r.gz.Write(r.buf[:n]); werr != nil {
			err = werr
		}
		switch {
		case err == io.EOF:
			r.err = err
			if cerr := r.gz.Close(); cerr != nil {
				r.err = cerr
			}
		case err != nil:
			r.err = err // without its end the stream cannot look complete
		case n < len(r.buf):
			_ = r.gz.Flush() // into memory: it cannot fail
		}
	}
	if r.out.Len() > 0 {
		return r.out.Read(p)
	}
	return 0, r.err
}

// pass sends status and body. flush sends each piece at once, for answers of
// which nobody knows when they end; of others as much as the buffer holds goes
// out in one piece. The status goes out with the first piece, so that an answer
// that fails at once can still be refused.
func (p *Proxy) pass(w *answer, src io.Reader, status int, flush bool) error {
	return p.passPieces(w, src, status, flush, flush)
}

// passPieces is pass where the first piece is flushed, or all the others are.
func (p *Proxy) passPieces(w *answer, src io.Reader, status int, first, others bool) error {
	flush := first
	conn := http.NewResponseController(w.ResponseWriter)
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := fill(src, buf[:], flush)
		if err != nil && err != io.EOF {
			return brokeOff(err)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(p.Limits.BodyIdle)) // not every connection has deadlines
		if !w.started {
			w.WriteHeader(status)
		}
		if n > 0 {
			if _, werr := w.Write(buf[:n]); errors.Is(werr, http.ErrBodyNotAllowed) {
				return nil // a status that has no body
			} else if werr != nil {
				return &Refusal{Code: clientGone, Message: "The caller left during the answer, or read too slowly.", Err: werr}
			}
		}
		if err == io.EOF {
			return nil
		}
		if flush {
			_ = conn.Flush()
		}
		flush = others
	}
}

// fill reads once, or until the buffer is full.
func fill(src io.Reader, buf []byte, once bool) (n int, err error) {
	if once {
		return src.Read(buf)
	}
	for n < len(buf) && err == nil {
		var m int
		m, err = src.Read(buf[n:])
		n += m
	}
	return n, err
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// isStatus reports whether the status of an answer is one (RFC 9110, section 15);
// net/http panics at some that are none.
func isStatus(status int) bool { return status >= 200 && status <= 599 }

func noStatus(whose string, status int) *Refusal {
	return &Refusal{Code: InvalidAnswer, Message: fmt.Sprintf("%s answered with status %03d, which is none. Try again.", whose, status), RetryAfter: time.Second}
}
