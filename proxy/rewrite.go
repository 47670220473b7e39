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

	"defender-proxy/internal/hunting"
	"defender-proxy/internal/links"
)

// maxWhole is the size in bytes up to which an answer whose links are rewritten
// is read whole, so that it goes out with its length and one that breaks off is
// noticed before it has begun. Larger ones stream.
const maxWhole = 128 << 10

// rewrite passes the answer on to the caller: its headers cleaned, its links
// turned home, all else as it came.
func (p *Proxy) rewrite(w *answer, r *http.Request, resp *http.Response, x *Exchange) error {
	if r.Method != http.MethodHead && endless(resp) {
		return brokeOff(errEndless)
	}
	if !isStatus(resp.StatusCode) {
		return noStatus("Microsoft", resp.StatusCode)
	}
	if echoes(resp.Header, x.Bearer.Authorization()) {
		return &Refusal{Code: InvalidAnswer, Message: "Microsoft's answer has a header that holds the proxy's token. It is not passed on."}
	}
	h := w.Header()
	clean(resp.Header)
	if err := linkHeaders(resp, x.Target); err != nil {
		return err
	}
	if err := p.sealable(resp, x); err != nil {
		return err
	}
	for name, values := range resp.Header {
		h[name] = values
	}
	h["Proxy-Status"] = []string{"defender-proxy; next-hop=" + string(x.region())}
	p.retiring(h, x)
	if x.bridged() {
		if err := x.unbridge(h, resp.StatusCode); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return p.bridgedError(w, resp, x)
		}
	}

	switch resp.StatusCode {
	case http.StatusNoContent, http.StatusNotModified, http.StatusPartialContent: // a part's bytes were counted in the whole
		return p.pass(w, resp.Body, resp.StatusCode, resp.ContentLength < 0)
	}
	if !rewritable(resp.Header) {
		return p.pass(w, resp.Body, resp.StatusCode, resp.ContentLength < 0)
	}
	h.Del("Content-Length")
	for _, name := range ofBytes {
		delete(h, name)
	}
	zipped := encoding(resp.Header) == "gzip"
	pack := zipped && accepts(r.Header["Accept-Encoding"], "gzip")
	if zipped && !pack {
		h.Del("Content-Encoding") // upstream packs what nobody asked it to
	}
	if r.Method == http.MethodHead {
		return p.pass(w, resp.Body, resp.StatusCode, false)
	}
	p.notePage(x, resp.StatusCode)
	turned := io.Reader(resp.Body)
	if zipped {
		plain, err := gzip.NewReader(resp.Body)
		switch {
		case err == io.EOF: // there is nothing, which some say gzip of
			h.Del("Content-Encoding")
			zipped, pack = false, false
		case err != nil:
			return brokeOff(err)
		default:
			turned = plain
		}
	}
	turned = p.turn(turned, x)
	if pack {
		packed := newPacked(turned)
		defer packed.release()
		turned = packed
	}
	if resp.ContentLength < 0 || resp.ContentLength > maxWhole || zipped && !pack { // nobody knows what that unpacks to
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

// ofBytes are headers that tell of the very bytes of a body, which may be others once
// its links are rewritten. ETag stays: callers send it back in If-Match.
var ofBytes = [...]string{"Accept-Ranges", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest"}

// turn gives the plain body of an answer as the caller gets it.
func (p *Proxy) turn(src io.Reader, x *Exchange) io.Reader {
	if x.bridged() {
		return hunting.NewReader(src, shapes[x.Operation.ID], x.Took)
	}
	return p.relayed(p.linked(src, x), x)
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
	for _, name := range linkNames {
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
	switch encoding(h) {
	case "", "identity", "gzip":
		return true
	}
	return false
}

// encoding names the encoding of an answer, gzip by that one of its two names
// (RFC 9110, section 8.4.1); several are none that is known.
func encoding(h http.Header) string {
	name := asciiLower(strings.TrimSpace(strings.Join(h["Content-Encoding"], ",")))
	if name == "x-gzip" {
		return "gzip"
	}
	return name
}

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
	if errors.Is(err, hunting.ErrShape) {
		return &Refusal{
			Code:    InvalidAnswer,
			Message: "What Microsoft Graph answered is not that of a hunting query as it is documented, or not the whole of it, so it has no form that the older API had. It is not passed on. An operator finds what is wrong with it in the audit record.",
			Err:     err, // which holds nothing of the answer
		}
	}
	return &Refusal{
		Code:       InvalidAnswer,
		Message:    "Microsoft's answer broke off or cannot be read. Try again.",
		Err:        withoutBytes(err),
		RetryAfter: time.Second,
	}
}
