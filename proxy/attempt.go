package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"defender-proxy/regions"
)

// outcome is how far an attempt got. It alone decides what may be sent again,
// and the zero value permits least.
type outcome int

const (
	unknown  outcome = iota // there was a connection, but no answer: it may have been carried out
	unsent                  // there was no connection: not a byte can have arrived
	answered                // there is an answer
)

// attempt is how one request to one endpoint ended.
type attempt struct {
	outcome outcome
	resp    *http.Response // when answered; its body is to be closed
	err     error          // otherwise
	// paid says that the repeat of this attempt is taken out of the budget already.
	paid bool
}

// maxEarly is how many 1xx answers may come before the answer. None of them is
// passed on.
const maxEarly = 8

var (
	errNoConnection = errors.New("no connection within regions.connect_timeout")
	errNoAnswer     = errors.New("no answer within regions.first_byte_timeout")
	errLost         = errors.New("no answer, and the region cannot be reached any more")
	errRefused      = errors.New("the connection or the stream was ended without an answer")
	errSwitched     = errors.New("the answer was 101 Switching Protocols, which nobody asked for")
	errMalformed    = errors.New("the answer is malformed")
	errFlooded      = fmt.Errorf("more than %d early answers (1xx) came before the answer", maxEarly)
)

// attempt sends the plan to one endpoint. repeat, when it is not nil, takes a
// repeat out of the budget: the request may be sent to another region although it
// has arrived at this one, so it does not wait any longer once this one cannot be
// reached.
func (p *Proxy) attempt(ctx context.Context, x *Exchange, pl *plan, e regions.Endpoint, repeat func() bool) attempt {
	x.Tried = append(x.Tried, e.Region)
	w := p.watch(ctx, pl, e, repeat)
	moved := w.moved
	pl.body.moved.Store(&moved)
	early := 0
	traced := httptrace.WithClientTrace(w.ctx, &httptrace.ClientTrace{
		GetConn: func(string) { w.connecting() },
		GotConn: func(info httptrace.GotConnInfo) {
			pl.body.begun.Store(true)
			w.connected(info)
		},
		WroteHeaders: w.wroteHeaders,
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			if early++; early > maxEarly {
				return errFlooded
			}
			return nil
		},
	})
	resp, err := p.Transport.RoundTrip(pl.request(traced, e, x.Bearer.Authorization()))
	pl.body.moved.Store(nil) // from here on the answer sets the pace
	w.end()
	switch {
	case err == nil && w.ctx.Err() != nil && ctx.Err() == nil:
		_ = resp.Body.Close() // it came just as the attempt was given up
		err = context.Cause(w.ctx)
	case err == nil && resp.StatusCode == http.StatusSwitchingProtocols:
		_ = resp.Body.Close()
		err = errSwitched
	}
	if err != nil {
		if cause := context.Cause(w.ctx); cause != nil && ctx.Err() == nil {
			err = cause
		}
		w.cancel(nil)
		a := attempt{outcome: unknown, err: err, paid: w.paid}
		if w.unsent() || tooManyHeaders(err) {
			a.outcome = unsent
		} else {
			a.err = withoutBytes(err)
			x.Arrived++
		}
		p.report(pl, e, a, w)
		return a
	}
	x.Arrived++
	p.Monitor.Report(e, regions.Answered(resp.StatusCode))
	if !w.warm.IsZero() && pl.safe() && resp.StatusCode/100 == 2 {
		p.Monitor.Took(e, x.Operation.ID, time.Since(w.warm))
	}
	resp.Body = &upstreamBody{
		ReadCloser: resp.Body, ctx: w.ctx, cancel: w.cancel, pause: p.Limits.FirstByteTimeout,
		timer: time.AfterFunc(p.Limits.FirstByteTimeout, func() { w.cancel(errNoAnswer) }),
	}
	return attempt{outcome: answered, resp: resp}
}

const (
	// maxDiscarded is how much of an answer that nobody wants is read, in bytes, so
	// that its connection can be kept; it has to come within discardTime.
	maxDiscarded = 16 << 10
	discardTime  = 100 * time.Millisecond
)

// discard is for an answer that is not passed on.
func (a attempt) discard() {
	if a.resp == nil {
		return
	}
	body := a.resp.Body.(*upstreamBody)
	defer time.AfterFunc(discardTime, func() { body.cancel(nil) }).Stop()
	_, _ = io.CopyN(io.Discard, body, maxDiscarded)
	_ = body.Close()
}

// report tells the region's health what happened, unless it was the caller's
// doing or is known already.
func (p *Proxy) report(pl *plan, e regions.Endpoint, a attempt, w *watch) {
	switch {
	case pl.body.failed.Load() != nil, errors.Is(a.err, errLost), errors.Is(a.err, context.Canceled):
	case w.got && a.outcome == unsent:
		// The connection is well: the request is such that it cannot be sent.
	case errors.Is(a.err, errNoAnswer):
		p.Monitor.Report(e, regions.TimedOut(a.err))
	case !w.got:
		p.Monitor.Report(e, regions.ConnectFailed(a.err))
	default:
		p.Monitor.Report(e, regions.Broken(a.err))
	}
}

// maxConns is how many connections one attempt of a GET or HEAD may be written to:
// the warm ones, should all have died unseen, and some to spare. But no more than
// maxSent that did not show within shows that they are dead.
const (
	maxConns = 8
	shows    = time.Second
)

// doubtAfter is how long a request waits for its answer until the way to the
// region is looked at. Together with the time of a probe it is less than what
// keep-alives take to notice a dead path.
const doubtAfter = 5 * time.Second

// stage is what an attempt waits for.
type stage int

const (
	connecting stage = iota // a connection
	waiting                 // the answer
	doubted                 // the same, and the region is looked at
	ended                   // nothing: it is over, or given up
)

// watch bounds the time of an attempt until its answer begins, and knows whether
// anything of it can have arrived. net/http calls its hooks, several times where it
// tries again by itself:
//
//   - over HTTP/1.1 when a kept connection turns out dead before a byte was
//     written, so that nothing is sent yet; after that only for methods that
//     change nothing, here on at most maxConns connections.
//   - over HTTP/2 when the server refused the stream or goes away, and also after
//     a protocol error, which does not say that nothing was done. It does so without
//     a bound. So whatever has gone out as a stream is not sent again here.
type watch struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	limits  *Limits
	monitor *regions.Monitor
	e       regions.Endpoint
	safe    bool
	repeat  func() bool

	mu      sync.Mutex // guards what follows
	stage   stage
	timer   *time.Timer
	due     time.Time // of the timer; one that comes earlier is of the stage before
	got     bool      // a connection, and with it the chance that something was sent
	since   time.Time // when the newest connection came
	conns   int       // all of them
	slow    int       // those that took their time to die
	streams bool      // the connection speaks HTTP/2
	wrote   bool      // a stream has begun
	warm    time.Time // since when it waits on a connection that was kept; zero when that is new
	paid    bool
}

func (p *Proxy) watch(ctx context.Context, pl *plan, e regions.Endpoint, repeat func() bool) *watch {
	w := &watch{limits: &p.Limits, monitor: p.Monitor, e: e, safe: pl.safe()}
	if e.Up() {
		w.repeat = repeat // else the region counts as lost to begin with, and this is the last thing tried
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.due = time.Now().Add(p.Limits.ConnectTimeout)
	w.timer = time.AfterFunc(p.Limits.ConnectTimeout, w.expired)
	return w
}

// arm sets the time that the stage may take. mu is held.
func (w *watch) arm(d time.Duration) {
	w.due = time.Now().Add(d)
	w.timer.Reset(d)
}

func (w *watch) untilDoubt() time.Duration { return min(doubtAfter, w.limits.FirstByteTimeout) }

func (w *watch) connecting() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrote || w.stage != waiting && w.stage != doubted {
		return
	}
	w.got, w.stage = false, connecting
	w.arm(w.limits.ConnectTimeout)
}

func (w *watch) connected(info httptrace.GotConnInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.conns++; w.conns > 1 && now.Sub(w.since) > shows {
		w.slow++
	}
	w.since = now
	if w.wrote || w.safe && (w.conns > maxConns || w.slow >= maxSent) {
		w.cancel(errRefused)
		w.stage = ended
	}
	w.got = true
	if w.stage == ended {
		return
	}
	if c, ok := info.Conn.(*tls.Conn); ok {
		w.streams = c.ConnectionState().NegotiatedProtocol == "h2"
	}
	w.stage, w.warm = waiting, time.Time{}
	w.arm(w.untilDoubt())
	if info.Reused {
		w.warm = now
	}
}

func (w *watch) wroteHeaders() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrote = w.streams // HTTP/1.1 calls this before anything leaves its buffer
}

// moved is called when some of a body has come: a body that comes slowly is no
// slow answer.
func (w *watch) moved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stage == waiting || w.stage == doubted {
		w.stage = waiting
		w.arm(w.untilDoubt())
	}
}

// expired is what becomes of an attempt that takes long.
func (w *watch) expired() {
	w.mu.Lock()
	switch {
	case w.stage == ended || time.Now().Before(w.due):
		w.mu.Unlock()
		return
	case w.stage == connecting:
		w.stage = ended
		w.mu.Unlock()
		w.cancel(errNoConnection)
		return
	case w.stage == doubted || w.limits.FirstByteTimeout <= doubtAfter:
		w.stage = ended
		w.mu.Unlock()
		w.cancel(errNoAnswer)
		return
	}
	w.stage = doubted
	w.arm(w.limits.FirstByteTimeout - doubtAfter)
	w.mu.Unlock()

	w.monitor.Doubt(w.e)
	if w.repeat == nil {
		return
	}
	select {
	case <-w.ctx.Done():
		return
	case <-w.e.Lost():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stage == doubted && w.repeat() {
		w.stage, w.paid = ended, true
		w.cancel(errLost)
	}
}

// end stops watching. Behind it nothing changes any more.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stage = ended
	w.timer.Stop()
}

// unsent reports whether not a byte of the request can have arrived, when it is
// over. What was written to a connection before the last one was a GET or HEAD.
func (w *watch) unsent() bool { return !w.got && (!w.safe || w.conns == 0) }

// tooManyHeaders reports whether err is that the settings of an HTTP/2 server do not
// allow the headers. net/http finds that before it writes a byte, and has no name
// for the error that others could use.
func tooManyHeaders(err error) bool {
	return strings.HasSuffix(err.Error(), "http2: request header list larger than peer's advertised limit")
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
	b.timer.Stop() // until the next Read it is the caller's time
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
