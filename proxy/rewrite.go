package proxy

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"defender-proxy/internal/links"
)

// maxWhole is the size in bytes up to which an answer whose links are rewritten
// is read whole, so that it goes out with its length and one that breaks off is
// noticed before it has begun. Larger ones stream.
const maxWhole = 128 << 10

// rewrite passes the answer on to the caller: its headers cleaned, its links
// turned home, all else as it came.
func (p *Proxy) rewrite(w *answer, r *http.Request, resp *http.Response, x *Exchange) error {
	if endless(resp) {
		return brokeOff(errEndless)
	}
	if echoes(resp.Header, x.Bearer.Authorization()) {
		return &Refusal{Code: InvalidAnswer, Message: "Microsoft's answer has a header that holds the proxy's token. It is not passed on."}
	}
	h := w.Header()
	clean(resp.Header)
	if err := linkHeaders(resp, x.Target); err != nil {
		return err
	}
	for name, values := range resp.Header {
		h[name] = values
	}
	h["Proxy-Status"] = []string{"defender-proxy; next-hop=" + string(x.region())}

	if !rewritable(resp.Header) || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		return p.pass(w, resp.Body, resp.StatusCode, resp.ContentLength < 0)
	}
	h.Del("Content-Length")
	if r.Method == http.MethodHead {
		return p.pass(w, resp.Body, resp.StatusCode, false)
	}
	p.notePage(x, resp.StatusCode)
	var turned io.Reader
	if resp.Header.Get("Content-Encoding") == "gzip" {
		plain, err := gzip.NewReader(resp.Body)
		if err != nil {
			return brokeOff(err)
		}
		packed := newPacked(p.linked(plain, x))
		defer packed.release()
		turned = packed
	} else {
		turned = p.linked(resp.Body, x)
	}
	if resp.ContentLength < 0 || resp.ContentLength > maxWhole {
		return p.pass(w, turned, resp.StatusCode, resp.ContentLength < 0)
	}
	whole := wholes.Get().(*bytes.Buffer)
	defer func() {
		if whole.Cap() <= 4*maxWhole { // gzip may have come out larger than it went in
			wholes.Put(whole)
		}
	}()
	whole.Reset()
	if _, err := whole.ReadFrom(turned); err != nil {
		return brokeOff(err)
	}
	h["Content-Length"] = []string{strconv.Itoa(whole.Len())}
	return p.pass(w, whole, resp.StatusCode, false)
}

// linked turns the links of a document home, and remembers for the link to the
// next page where this one came from.
func (p *Proxy) linked(src io.Reader, x *Exchange) io.Reader {
	r := links.NewReader(src, x.Target)
	if x.Method == http.MethodGet {
		r.OnNext = func(link string) { p.noteLink(x, link) }
	}
	return r
}

var wholes = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, maxWhole+bytes.MinRead)) }}

// echoes reports whether a header gives back the bearer.
func echoes(h http.Header, authorization string) bool {
	bearer := strings.TrimPrefix(authorization, "Bearer ")
	for _, values := range h {
		for _, v := range values {
			if len(v) >= len(bearer) && strings.Contains(v, bearer) {
				return true
			}
		}
	}
	return false
}

var errEndless = errors.New("the answer has neither a length nor chunks: nobody can tell its end from its breaking off")

// endless reports whether only the end of the connection ends the answer's body
// (RFC 9112, section 6.3, the last rule).
func endless(resp *http.Response) bool {
	return resp.ContentLength < 0 && resp.ProtoMajor == 1 && len(resp.TransferEncoding) == 0
}

// linkHeaders turns the links in headers home. A redirect that leads elsewhere
// is not passed on: the caller would follow it past the proxy. Other links that
// lead elsewhere are Microsoft's to give.
func linkHeaders(resp *http.Response, target links.Target) error {
	for _, name := range [...]string{"Location", "Content-Location", "Operation-Location"} {
		values := resp.Header[name]
		if len(values) == 0 {
			continue
		}
		home, ok := links.Header(values[0], target)
		switch {
		case ok && len(values) == 1:
			resp.Header[name] = []string{home}
		case resp.StatusCode >= 300 && resp.StatusCode < 400 && name == "Location":
			return refusal(InvalidAnswer, "Microsoft's answer is a redirect (%d) to a place that is not one of its API's paths. It is not followed.", resp.StatusCode)
		}
	}
	return nil
}

// rewritable reports whether an answer may hold links that can be reached: JSON,
// plain or in gzip.
func rewritable(h http.Header) bool {
	// Parameters do not matter, so mime.ParseMediaType need not look at them.
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	if kind = asciiLower(strings.TrimSpace(kind)); kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return false
	}
	switch h.Get("Content-Encoding") {
	case "", "identity", "gzip":
		return true
	}
	return false
}

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

// answered adds to the failure of an answer what it means for a write: that it was
// most likely carried out, so that nobody takes a 502 for leave to repeat it.
func (x *Exchange) answered(status int, err error) error {
	var refused *Refusal
	if !errors.As(err, &refused) || refused.Code != InvalidAnswer || !x.Operation.Class.Writes() {
		return err
	}
	refused.RetryAfter = 0
	refused.Message = fmt.Sprintf("Microsoft answered %d to this write, but the answer cannot be passed on. %s It may have been carried out: look at its effect before you repeat it.",
		status, strings.TrimSuffix(refused.Message, " Try again."))
	return err
}

// brokeOff words an answer that did not come to its end. Where the caller left,
// and took the request along, handle says so instead.
func brokeOff(err error) *Refusal {
	return &Refusal{
		Code:       InvalidAnswer,
		Message:    "Microsoft's answer broke off or cannot be read. Try again.",
		Err:        withoutBytes(err),
		RetryAfter: time.Second,
	}
}
