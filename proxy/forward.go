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
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"defender-proxy/internal/egress"
	"defender-proxy/internal/hunting"
	"defender-proxy/policy"
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

	// What forward has used of the limits, which hold for the whole request: it may
	// go to an operation and then to its successor.
	begun   time.Time
	waits   waits
	arrived int // regions that were reached
}

// plan builds the outgoing request from nothing: the method and path that were
// judged, the query as it came, the headers of the list.
func (p *Proxy) plan(x *Exchange, w http.ResponseWriter, r *http.Request) (*plan, error) {
	b, err := p.readBody(w, r)
	if err != nil {
		return nil, err
	}
	header := p.headers.outgoing(r.Header, p.Version)
	p.wholly(header, x)
	return &plan{
		method:   x.Method,
		path:     x.Path.String(),
		query:    x.Query,
		hasQuery: x.HasQuery,
		header:   header,
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
//   - what was not sent, because there was no connection,
//   - GET and HEAD, and hunting queries if RepeatHunting says so, when no answer
//     came,
//   - GET and HEAD after a 502, 503 or 504,
//   - once more what was answered with 401, when there is another token,
//   - reads and hunting queries to the region that asked for a little patience.
//
// At most maxSent regions are reached, or one more, of the successor of an operation
// that is gone, and what was sent is sent to another one
// only as far as the pool's budget for repeats goes, so that an outage is not
// multiplied. No attempt begins when the time of a whole one is over, waits not
// counted, so that a region that hangs leaves room for one more try. The answer's
// body is the caller's to close.
func (p *Proxy) forward(ctx context.Context, x *Exchange, pl *plan) (*http.Response, error) {
	defer func() { x.BytesIn = x.Body.read.Load() }()
	if pl.begun.IsZero() {
		pl.begun, pl.waits.left = time.Now(), p.Limits.MaxWait
	}
	pool := x.upstream().Regions
	begin := func() bool { // whether there is time for another attempt
		return time.Since(pl.begun)-pl.waits.total < p.Limits.ConnectTimeout+p.Limits.FirstByteTimeout
	}
	for i := 0; i < len(x.Order); {
		last := i+1 == len(x.Order) || pl.arrived+1 >= maxSent
		var repeat func() bool
		if !last && pl.body.keep && p.repeatable(x, pl) {
			repeat = func() bool { return begin() && pool.Repeat() }
		}
		a, err := p.try(ctx, x, pl, x.Order[i], repeat)
		if err != nil {
			return nil, err
		}
		if a.outcome != unsent {
			pl.arrived++
		}
		switch {
		case a.outcome != answered && pl.body.failed.Load() != nil:
			return nil, pl.body.failure(a.err)
		case a.outcome != answered && ctx.Err() != nil:
			return nil, a.err // the caller left
		case i+1 < len(x.Order) && pl.arrived < maxSent && begin() && p.elsewhere(x, pl, a) && (a.outcome == unsent || a.paid || pool.Repeat()):
			a.discard()
			i++
			x.Order = reachableFirst(x.Order, i)
		case a.outcome != answered:
			return nil, p.unavailable(x, pl, fmt.Errorf("region %s: %w", x.Order[i].Region, a.err), a.outcome)
		case begin() && p.patient(x, pl, a.resp, &pl.waits):
			a.discard()
			if err := p.wait(ctx, x, &pl.waits); err != nil {
				return nil, err
			}
			pl.arrived--
		default:
			x.FirstByte = time.Since(x.Start)
			return a.resp, nil
		}
	}
	return nil, refusal(RegionUnavailable, "There is no region to ask.") // order sees to it that there is one
}

// reachableFirst gives an order whose rest, from an index on, begins with those
// that can be reached, as far as is known by now: much may have happened since the
// order was made.
func reachableFirst(order []regions.Endpoint, from int) []regions.Endpoint {
	order = slices.Clone(order) // it is shared
	slices.SortStableFunc(order[from:], func(a, b regions.Endpoint) int {
		switch {
		case a.Up() == b.Up():
			return 0
		case a.Up():
			return -1
		}
		return 1
	})
	return order
}

// elsewhere reports whether the plan may go to another region after an attempt
// that ended so.
func (p *Proxy) elsewhere(x *Exchange, pl *plan, a attempt) bool {
	if !pl.body.again() {
		return false
	}
	switch a.outcome {
	case unsent:
		return true
	case unknown:
		return p.repeatable(x, pl)
	case answered:
		return pl.safe() && ill(a.resp.StatusCode)
	}
	return false
}

// repeatable reports whether the plan may be sent again although it may have been
// carried out.
func (p *Proxy) repeatable(x *Exchange, pl *plan) bool {
	return pl.safe() || p.RepeatHunting && x.Operation.Class == policy.ClassHunt
}

// try sends the plan to one region, and once more with another token when the
// first is refused. The error is a refusal: there is no token.
func (p *Proxy) try(ctx context.Context, x *Exchange, pl *plan, e regions.Endpoint, repeat func() bool) (attempt, error) {
	if err := p.freshen(ctx, x); err != nil {
		return attempt{}, err
	}
	timed := func() attempt {
		begun := time.Now()
		defer func() { x.Took = time.Since(begun) }()
		return p.attempt(ctx, x, pl, e, repeat)
	}
	a := timed()
	if a.outcome != answered || a.resp.StatusCode != http.StatusUnauthorized || x.Renewed || !pl.body.again() {
		return a, nil
	}
	x.Renewed = true
	renewed, err := p.another(ctx, x, a.resp.Header)
	if err == nil && !renewed {
		return a, nil // Microsoft's answer stands
	}
	a.discard()
	if err != nil {
		return attempt{}, err
	}
	return timed(), nil
}

// ill reports whether a status speaks of the region's health rather than of the
// request.
func ill(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// unavailable words that nobody answered, and what that means for a write.
func (p *Proxy) unavailable(x *Exchange, pl *plan, err error, o outcome) *Refusal {
	r := &Refusal{Code: RegionUnavailable, Err: err, RetryAfter: 5 * time.Second}
	var timeout net.Error
	r.Timeout = errors.Is(err, errNoAnswer) || errors.Is(err, errNoConnection) || errors.Is(err, errLost) || errors.As(err, &timeout) && timeout.Timeout()
	if errors.Is(err, errSwitched) || errors.Is(err, errFlooded) {
		r.Code = InvalidAnswer
	}
	if o == unknown && !pl.safe() && !x.Operation.Class.Writes() {
		r.Message = fmt.Sprintf("The query was sent to region %s, but no answer came back (%s). It may have run and spent quota, so it is not sent again by itself.", x.region(), public(err))
		return r
	}
	if o == unknown && !pl.safe() {
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
	var way *egress.ProxyError
	var loop *egress.LoopError
	switch {
	case errors.As(err, &loop):
		return "its name leads back to the proxy, this one or another like it; an operator sets its real address or a DNS server in egress.resolve"
	case errors.As(err, &way) && way.Status != 0:
		return way.Error()
	case errors.As(err, &way):
		return "the network's proxy (egress.proxy) gave no connection"
	case errors.Is(err, errNoConnection), errors.Is(err, errNoAnswer), errors.Is(err, errLost), errors.Is(err, errRefused), errors.Is(err, errSwitched), errors.Is(err, errFlooded):
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
	if loop, ok := errors.AsType[*egress.LoopError](err); ok {
		return loop
	}
	for _, known := range []error{
		errNoAnswer, errNoConnection, errLost, errRefused, errSwitched, errFlooded, errEndless, hunting.ErrShape, context.Canceled, io.ErrUnexpectedEOF, io.EOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.EPIPE, gzip.ErrHeader, gzip.ErrChecksum,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return fmt.Errorf("%w (%T)", errMalformed, innermost(err))
}

func innermost(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}
