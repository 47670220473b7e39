package proxy

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"defender-proxy/regions"
)

// plan is a request for upstream, settled before a byte leaves. Where it goes
// and the bearer are added for each attempt.
type plan struct {
	method   string
	path     string
	query    string
	hasQuery bool // a question mark stood there
	header   http.Header
	body     *body
}

// plan builds the outgoing request from nothing: the method and path that were
// judged, the query as it came, the headers of the list.
func (p *Proxy) plan(x *Exchange, w http.ResponseWriter, r *http.Request) (*plan, error) {
	b, err := p.readBody(w, r)
	if err != nil {
		return nil, err
	}
	return &plan{
		method:   x.Method,
		path:     x.Path.String(),
		query:    x.Query,
		hasQuery: x.HasQuery,
		header:   p.headers.outgoing(r.Header, p.Version),
		body:     b,
	}, nil
}

// safe reports whether the request can be sent twice although the first may
// have arrived: RFC 9110, section 9.2.1, and no more than that.
func (pl *plan) safe() bool { return pl.method == http.MethodGet || pl.method == http.MethodHead }

func (pl *plan) request(ctx context.Context, e regions.Endpoint, authorization string) *http.Request {
	// Opaque is what net/http sends as it is; Path and RawPath it would read
	// and write again.
	u := &url.URL{Scheme: e.URL.Scheme, Host: e.URL.Host, Opaque: pl.path, RawQuery: pl.query, ForceQuery: pl.hasQuery}
	// A copy, because an attempt that was given up may still be writing its own.
	header := maps.Clone(pl.header)
	header["Authorization"] = []string{authorization}
	req := &http.Request{
		Method: pl.method, URL: u, Host: u.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: pl.body.open(), ContentLength: pl.body.length,
	}
	if pl.body.keep {
		// Without it the transport gives up when a pooled connection turns out
		// dead before a byte was written.
		req.GetBody = func() (io.ReadCloser, error) { return pl.body.open(), nil }
	}
	return req.WithContext(ctx)
}

// maxSent is how many regions one request may reach.
const maxSent = 3

// forward sends the plan to the regions in order until one answers. It sends
// again only
//
//   - what certainly did not arrive, because there was no connection,
//   - GET and HEAD, after a failure or a 502, 503 or 504,
//   - once more what was answered with 401, when there is another token.
//
// At most maxSent times does it reach a region, so that an outage is not
// multiplied. No attempt begins once the longest one is over, so that a region
// that hangs leaves room for one more try. The answer's body is the caller's to
// close.
func (p *Proxy) forward(ctx context.Context, x *Exchange, pl *plan) (*http.Response, error) {
	defer func() { x.BytesIn = pl.body.read.Load() }()
	deadline := time.Now().Add(p.Limits.ConnectTimeout + p.Limits.FirstByteTimeout)
	arrived := 0
	for i, e := range x.Order {
		resp, sent, err := p.try(ctx, x, pl, e)
		if sent {
			arrived++
		}
		more := i+1 < len(x.Order) && arrived < maxSent && time.Now().Before(deadline)
		switch {
		case err == nil && more && pl.safe() && pl.body.again() && ill(resp.StatusCode):
			_ = resp.Body.Close()
		case err == nil:
			x.FirstByte = time.Since(x.Start)
			return resp, nil
		case errors.As(err, new(*Refusal)):
			return nil, err
		case pl.body.failed.Load() != nil:
			return nil, pl.body.failure(err)
		case ctx.Err() != nil:
			return nil, err // the caller left
		case !more || !pl.body.again() || sent && !pl.safe():
			return nil, p.unavailable(x, pl, fmt.Errorf("region %s: %w", e.Region, err), sent)
		}
	}
	return nil, refusal(RegionUnavailable, "There is no region to ask.") // order sees to it that there is one
}

// try sends the plan to one region, and once more with another token when the
// first is refused.
func (p *Proxy) try(ctx context.Context, x *Exchange, pl *plan, e regions.Endpoint) (resp *http.Response, sent bool, err error) {
	if err := p.freshen(ctx, x); err != nil {
		return nil, false, err
	}
	x.Tried = append(x.Tried, e.Region)
	resp, sent, err = p.attempt(ctx, pl, e, x.Bearer.Authorization())
	if err != nil || resp.StatusCode != http.StatusUnauthorized || x.Renewed || !pl.body.again() {
		return resp, sent, err
	}
	x.Renewed = true
	renewed, err := p.another(ctx, x, resp.Header)
	if err == nil && !renewed {
		return resp, sent, nil // Microsoft's answer stands
	}
	_ = resp.Body.Close()
	if err != nil {
		return nil, sent, err
	}
	x.Tried = append(x.Tried, e.Region)
	return p.attempt(ctx, pl, e, x.Bearer.Authorization())
}

// ill reports whether a status speaks of the region's health rather than of the
// request.
func ill(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// maxEarly is how many 1xx answers may come before the answer. None of them is
// passed on.
const maxEarly = 8

var (
	errNoConnection = errors.New("no connection within regions.connect_timeout")
	errNoAnswer     = errors.New("no answer within regions.first_byte_timeout")
	errSwitched     = errors.New("the answer was 101 Switching Protocols, which nobody asked for")
	errFlooded      = fmt.Errorf("more than %d early answers (1xx) came before the answer", maxEarly)
)

// attempt sends the plan to one endpoint. sent is false when no connection came
// about, so that not a byte can have arrived.
func (p *Proxy) attempt(ctx context.Context, pl *plan, e regions.Endpoint, authorization string) (resp *http.Response, sent bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var connected atomic.Bool
	timer := time.AfterFunc(p.Limits.ConnectTimeout, func() {
		if connected.Load() {
			cancel(errNoAnswer)
		} else {
			cancel(errNoConnection)
		}
	})
	moved := func() { // a body that comes slowly is no slow answer
		if connected.Load() {
			timer.Reset(p.Limits.FirstByteTimeout)
		}
	}
	pl.body.moved.Store(&moved)
	early := 0
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			connected.Store(true)
			pl.body.begun.Store(true)
			timer.Reset(p.Limits.FirstByteTimeout)
		},
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			if early++; early > maxEarly {
				return errFlooded
			}
			return nil
		},
	})
	resp, err = p.Transport.RoundTrip(pl.request(traced, e, authorization))
	pl.body.moved.Store(nil) // from here on the answer sets the pace
	sent = connected.Load()
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		err = errSwitched
	}
	if err != nil {
		timer.Stop()
		if cause := context.Cause(ctx); errors.Is(cause, errNoAnswer) || errors.Is(cause, errNoConnection) {
			err = cause
		}
		cancel(nil)
		if sent {
			err = withoutBytes(err)
		}
		p.report(ctx, pl, e, sent, err)
		return nil, sent, err
	}
	p.Monitor.Report(e, regions.Answered(resp.StatusCode))
	resp.Body = &upstreamBody{ReadCloser: resp.Body, timer: timer, pause: p.Limits.FirstByteTimeout, ctx: ctx, cancel: cancel}
	return resp, sent, nil
}

// report tells the region's health what happened, unless it was the caller's
// doing.
func (p *Proxy) report(ctx context.Context, pl *plan, e regions.Endpoint, sent bool, err error) {
	switch {
	case pl.body.failed.Load() != nil:
	case errors.Is(err, errNoAnswer):
		p.Monitor.Report(e, regions.TimedOut(err))
	case errors.Is(err, errNoConnection):
		p.Monitor.Report(e, regions.ConnectFailed(err))
	case errors.Is(err, context.Canceled):
	case sent:
		p.Monitor.Report(e, regions.Broken(err))
	default:
		p.Monitor.Report(e, regions.ConnectFailed(err))
	}
}

// unavailable words that nobody answered, and what that means for a write.
func (p *Proxy) unavailable(x *Exchange, pl *plan, err error, sent bool) *Refusal {
	r := &Refusal{Code: RegionUnavailable, Err: err, RetryAfter: 5 * time.Second}
	r.Timeout = errors.Is(err, errNoAnswer) || errors.Is(err, errNoConnection)
	if errors.Is(err, errSwitched) || errors.Is(err, errFlooded) {
		r.Code = InvalidAnswer
	}
	if sent && !pl.safe() {
		r.RetryAfter = 0
		r.Message = fmt.Sprintf("The request was sent to region %s, but no answer came back (%s). It may have been carried out, so it is not sent again: look at its effect before you repeat it.", x.region(), public(err))
		return r
	}
	var tried []string
	for _, name := range x.Tried {
		if !slices.Contains(tried, string(name)) {
			tried = append(tried, string(name))
		}
	}
	r.Message = fmt.Sprintf("No region that tenant %s may use answered. Tried: %s. The last failure: %s. An operator finds their state under /-/regions of the admin listener.",
		x.Tenant.Name, strings.Join(tried, ", "), public(err))
	return r
}

// public gives the kind of a failure without its detail, which may name inner
// hosts and addresses.
func public(err error) string {
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, errNoConnection), errors.Is(err, errNoAnswer), errors.Is(err, errSwitched), errors.Is(err, errFlooded):
		return innermost(err).Error()
	case errors.As(err, &cert):
		return "its certificate is not trusted; an operator sets egress.ca_file where a proxy of the network inspects TLS"
	case errors.As(err, &dns):
		return "its name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	}
	return "the connection failed"
}

// withoutBytes gives the kind of a failure that came after a request was sent.
// The text of such an error may quote what upstream answered, and an upstream
// may answer with what it was sent.
func withoutBytes(err error) error {
	var timeout net.Error
	for _, known := range []error{
		errNoAnswer, errNoConnection, errSwitched, errFlooded, errEndless, context.Canceled, io.ErrUnexpectedEOF, io.EOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.EPIPE, gzip.ErrHeader, gzip.ErrChecksum,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return fmt.Errorf("the answer is malformed (%T)", innermost(err))
}

func innermost(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

// upstreamBody is the body of an answer that may not pause for too long.
type upstreamBody struct {
	io.ReadCloser
	timer  *time.Timer
	pause  time.Duration
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *upstreamBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.pause)
	n, err := b.ReadCloser.Read(p)
	if cause := context.Cause(b.ctx); err != nil && cause != nil {
		// Not even an EOF is believed now: an upstream that sees us go may end
		// its answer neatly, in the middle, before our socket is closed.
		err = cause
	}
	return n, err
}

func (b *upstreamBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
