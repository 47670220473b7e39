package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// blobHeaders are the request headers that go to storage, beside those that begin
// with If-. x-ms-range is Azure's own Range, which clients use for what is larger than
// 4 GiB (learn.microsoft.com/rest/api/storageservices, "Specifying the range header
// for Blob service operations", read 2026-11).
var blobHeaders = [...]string{"Range", "Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "X-Ms-Range", "X-Ms-Client-Request-Id"}

// blobRequest makes the request for storage. What the caller accepts goes out as it
// is: a file that is stored in gzip is not to be unpacked on the way.
func blobRequest(in *http.Request, u *url.URL, version string) *http.Request {
	header := make(http.Header, 8)
	for _, name := range blobHeaders {
		if values, ok := in.Header[name]; ok {
			header[name] = values
		}
	}
	for name, values := range in.Header {
		if strings.HasPrefix(name, "If-") {
			header[name] = values
		}
	}
	for _, v := range in.Header["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = []string{"defender-proxy/" + version}
	}
	return &http.Request{
		Method: in.Method, URL: u, Host: u.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
}

// fetch sends the request, once, and waits for the answer to begin as long as for one
// of an API's. cancel ends ctx; the answer's body is the caller's to close.
func (p *Proxy) fetch(ctx context.Context, cancel context.CancelCauseFunc, x *Exchange, req *http.Request) (*http.Response, error) {
	connecting := time.AfterFunc(p.Limits.ConnectTimeout, func() { cancel(errNoConnection) })
	defer connecting.Stop()
	waiting := time.AfterFunc(p.Limits.ConnectTimeout+p.Limits.FirstByteTimeout, func() { cancel(errNoAnswer) })
	defer waiting.Stop()
	var conns atomic.Int32
	early := 0
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			connecting.Stop()
			if conns.Add(1) > maxConns { // over HTTP/2 net/http itself has no bound
				cancel(errRefused)
			}
		},
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			if early++; early > maxEarly {
				return errFlooded
			}
			return nil
		},
	})
	resp, err := p.Transport.RoundTrip(req.WithContext(traced))
	if cause := context.Cause(ctx); cause != nil {
		if err == nil {
			_ = resp.Body.Close() // it came just as it was given up
		}
		return nil, noFile(x, cause)
	}
	if err != nil {
		if conns.Load() > 0 { // then its text may quote what was sent, or came
			err = afterConnecting(err)
		}
		return nil, noFile(x, err)
	}
	x.FirstByte = time.Since(x.Start)
	resp.Body = &upstreamBody{
		ReadCloser: resp.Body, ctx: ctx, cancel: cancel, pause: p.Limits.FirstByteTimeout,
		timer: time.AfterFunc(p.Limits.FirstByteTimeout, func() { cancel(errNoAnswer) }),
	}
	return resp, nil
}

// noFile words that storage gave no answer.
func noFile(x *Exchange, err error) error {
	if errors.Is(err, context.Canceled) {
		return err // the caller left
	}
	r := &Refusal{
		Code:       RegionUnavailable,
		Message:    fmt.Sprintf("Storage did not answer for %s (%s). Try again; an operator finds out whether the proxy's machine can reach that host.", x.File, public(err)),
		Err:        err,
		Timeout:    errors.Is(err, errNoConnection) || errors.Is(err, errNoAnswer) || errors.Is(err, os.ErrDeadlineExceeded),
		RetryAfter: 5 * time.Second,
	}
	switch {
	case errors.Is(err, errFlooded):
		r.Code = InvalidAnswer
	case errors.Is(err, errMalformed):
		r.Code = InvalidAnswer
		r.Message = fmt.Sprintf("Storage's answer for %s cannot be read: it is malformed. Try again; an operator finds out what stands at that host.", x.File)
	}
	return r
}

// errDied stands for a failure of the connection that has no name of its own.
var errDied = errors.New("the connection failed")

// afterConnecting gives the kind of a failure behind a connection: errMalformed where
// what came is no answer.
func afterConnecting(err error) error {
	var network *net.OpError
	kind := withoutBytes(err)
	if errors.Is(kind, errMalformed) && errors.As(err, &network) {
		return errDied
	}
	return kind
}

// passFile passes an answer of storage's on: status and body as they come, the headers
// cleaned. Azure's own errors are answers like any other.
func (p *Proxy) passFile(w *answer, r *http.Request, resp *http.Response) error {
	bodiless := r.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	switch status := resp.StatusCode; {
	case status == http.StatusSwitchingProtocols:
		return &Refusal{Code: InvalidAnswer, Message: "Storage answered with something that nobody asked for. Try again.", Err: errSwitched, RetryAfter: time.Second}
	case status >= 300 && status < 400 && status != http.StatusNotModified:
		return refusal(InvalidAnswer, "Storage's answer is a redirect (%d). It is not followed: a download link leads to one place only.", status)
	case !isStatus(status):
		return noStatus("Storage", status)
	case !bodiless && endless(resp):
		return brokeOff(errEndless)
	}
	clean(resp.Header)
	h := w.Header()
	for name, values := range resp.Header {
		if !slices.Contains(linkNames[:], name) { // they lead past the proxy, and may be signed
			h[name] = values
		}
	}
	h["Proxy-Status"] = []string{"defender-proxy; next-hop=storage"}
	return p.passPieces(w, resp.Body, resp.StatusCode, !bodiless, !bodiless && resp.ContentLength < 0)
}

// maxUnread is how much of a body that a caller sends with its GET is read, in bytes.
const maxUnread = 64 << 10

// dropBody reads a body that nobody wants, in the time that unwanted set. Only behind
// its end does net/http watch the connection, and notice that the caller leaves.
func dropBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	_, err := io.CopyN(io.Discard, r.Body, maxUnread+1)
	switch {
	case err == io.EOF:
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // else the watch would take it for the caller's leaving
		return nil
	case err == nil:
		return refusal(RequestTooLarge, "The request's body is larger than %d bytes. A download link needs none: GET it without.", maxUnread)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Refusal{Code: RequestTimeout, Message: fmt.Sprintf("The request's body did not come to its end within %v. A download link needs none: GET it without.", drainTime), Err: err}
	}
	return malformed(err)
}
