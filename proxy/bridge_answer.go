package proxy

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"

	"defender-proxy/internal/hunting"
)

// ofGraph are headers that tell of the answer in Graph's form.
var ofGraph = []string{"Accept-Ranges", "Content-Range", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Etag", "Last-Modified", "Odata-Version", "Preference-Applied", "Location", "Content-Location"}

// unbridge gives Graph's answer the header of an older one. The error is a refusal:
// it is no answer to a hunting query.
func (x *Exchange) unbridge(h http.Header, status int) error {
	for _, name := range ofGraph {
		delete(h, name)
	}
	switch {
	case status >= http.StatusBadRequest:
	case status != http.StatusOK:
		return refusal(InvalidAnswer, "Microsoft Graph answered %d to a hunting query, which has no such answer. It is not passed on.", status)
	case !rewritable(h):
		return refusal(InvalidAnswer, "Microsoft Graph answered a hunting query with something that is not JSON. It is not passed on.")
	}
	h["Content-Type"] = []string{"application/json; charset=utf-8"}
	return nil
}

// bridgedError passes on an error of Graph's in the shape of the older APIs.
func (p *Proxy) bridgedError(w *answer, resp *http.Response, x *Exchange) error {
	body, err := plainStart(resp, hunting.MaxError+1)
	if err != nil {
		return brokeOff(err)
	}
	if len(body) > hunting.MaxError {
		body = nil
	}
	text := hunting.Error(resp.StatusCode, firstOf(resp.Header, "Request-Id", "X-Ms-Request-Id"), body)
	h := w.Header()
	h.Del("Content-Encoding")
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	return p.pass(w, bytes.NewReader(text), resp.StatusCode, false)
}

func firstOf(h http.Header, names ...string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// plainStart reads the beginning of a body, unpacked; nothing where it is packed in
// another way than was asked for, or is not packed at all.
func plainStart(resp *http.Response, most int64) ([]byte, error) {
	src := io.Reader(resp.Body)
	switch encoding(resp.Header) {
	case "", "identity":
	case "gzip":
		plain, err := gzip.NewReader(resp.Body)
		if errors.Is(err, gzip.ErrHeader) || err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		src = plain
	default:
		return nil, nil
	}
	return io.ReadAll(io.LimitReader(src, most))
}

// retiring tells with an answer that Microsoft retires the operation: Deprecation
// (RFC 9745), Sunset (RFC 8594) and links to the pages of it and of its successor
// (RFC 9745, section 3, and RFC 5829). What Microsoft says of it by itself stands.
func (p *Proxy) retiring(h http.Header, x *Exchange) {
	op := x.Operation
	if !op.Retires() {
		return
	}
	if x.bridged() {
		delete(h, "Deprecation") // said of Graph
		delete(h, "Sunset")
	}
	if at := op.DeprecatedAt(); !at.IsZero() && h["Deprecation"] == nil {
		h["Deprecation"] = []string{"@" + strconv.FormatInt(at.Unix(), 10)}
	}
	if at := op.SunsetAt(); !at.IsZero() && h["Sunset"] == nil {
		h["Sunset"] = []string{at.Format(http.TimeFormat)}
	}
	links := slices.Clone(h["Link"]) // upstream's, and shared
	if page := op.Page(); page != "" {
		links = append(links, "<"+page+`>; rel="deprecation"; type="text/html"`)
	}
	if next := p.Policy.Catalog.Successor(op); next != nil && next.Page() != "" {
		links = append(links, "<"+next.Page()+`>; rel="successor-version"; type="text/html"`)
	}
	if len(links) > 0 {
		h["Link"] = links
	}
}
