package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"time"

	"github.com/gorilla/mux"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/listen"
	"defender-proxy/policy"
)

// router finds the pages of our own. It sees the canonical path that the guard
// approved, behind a tenant's prefix; what is no page is a request for an
// operation, if an unknown one.
func (p *Proxy) router() *mux.Router {
	r := mux.NewRouter().SkipClean(true).UseEncodedPath()
	for path, page := range map[string]step{
		"/":                 p.help,
		"/-/whoami":         p.whoami,
		"/-/operations":     p.operations,
		"/-/explain":        p.explain,
		"/-/approvals":      p.approvals,
		"/-/approvals/{id}": p.oneApproval,
	} {
		r.Path(path).Handler(stepHandler(readOnly(page)))
	}
	r.Path("/-/approvals/{id}/{verdict:approve|deny}").Handler(stepHandler(p.verdict))
	r.NotFoundHandler = stepHandler(p.serve)
	return r
}

// step answers a request or says why it cannot.
type step func(*answer, *http.Request, *Exchange) error

// stepHandler lets mux call a step; its error goes where handle finds it.
func stepHandler(s step) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		x.Err = s(w.(*answer), r, x)
	})
}

// serve is the way of a request for an operation, behind the guard.
func (p *Proxy) serve(w *answer, r *http.Request, x *Exchange) (err error) {
	ctx := r.Context()
	if x.Tenant, err = p.tenant(x); err != nil {
		return err
	}
	if x.Operation, err = p.operation(x); err != nil {
		return err
	}
	x.Sent, x.Said = p.instead(x.Tenant, x.Operation, x.AsOf)
	defer func() { err = x.because(err) }()
	if err = x.crosses(); err != nil {
		return err
	}
	if x.Bearer, x.Decision, err = p.decide(ctx, x); err != nil {
		return err
	}
	if err = p.spend(ctx, x); err != nil {
		return err
	}
	plan, err := p.plan(x, w, r)
	if err != nil {
		return err
	}
	x.Body = plan.body
	var resp *http.Response
	defer func() {
		x.Gone = ctx.Err() != nil // end may wake a read, which ends the context too
		x.Body.end()              // the plan may have got another one meanwhile
		if resp != nil {          // last, because over HTTP/2 it waits for whoever reads the caller's body
			_ = resp.Body.Close()
		}
	}()
	if err = p.satisfy(x, r); err != nil {
		return err
	}
	if err = p.annotatable(x, r); err != nil {
		return err
	}
	if answered, err := p.approve(ctx, w, r, x, plan.header); answered || err != nil {
		return err
	}
	defer func() {
		if err != nil { // not after a panic: then nobody knows what was sent
			p.unsent(x)
		}
	}()
	if err = p.freshen(ctx, x); err != nil {
		return err
	}
	p.annotate(x, r)
	if x.Order, x.Choice, err = p.order(ctx, x); err != nil {
		return err
	}
	if err = p.announce(x, r); err != nil {
		return err
	}
	if resp, err = p.send(ctx, x, plan); err != nil {
		return err
	}
	x.Body.hasten()
	return x.answered(resp.StatusCode, p.rewrite(w, r, resp, x))
}

// handle runs a request from its first byte to its record. It is the one place
// that writes refusals.
func (p *Proxy) handle(w http.ResponseWriter, r *http.Request, l *listener) {
	x := newExchange(l, r, time.Now())
	out := &answer{ResponseWriter: w}
	out.Header().Set("X-Request-Id", x.ID)

	x.Err = p.run(out, r, x)
	if x.Body == nil || !x.Body.complete() {
		unwanted(w, r)
	}
	cut := false
	switch {
	case x.Err == nil:
	case x.left(r):
		x.Err = &Refusal{Code: clientGone, Message: "The caller left before the end of the answer.", Err: x.Err}
		cut = true // else net/http would send 200 to one that only closed its sending side
		if !out.started {
			out.status = codes[clientGone].status
		}
	case out.started:
		cut = true // an answer that broke off must not look complete
	default:
		refused := asRefusal(x.Err)
		if refused.Code == Internal {
			p.Log.Error().Str("request_id", x.ID).Err(x.Err).Msg("request failed")
		}
		clear(out.Header()) // an answer that turned out bad may have left some there
		out.Header().Set("X-Request-Id", x.ID)
		// A caller that does not read holds a handler outside of limits.max_in_flight.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(refusalTime)) // not every connection has deadlines
		refused.write(out, x.ID)
	}
	x.Status, x.BytesOut = out.status, out.bytes
	p.audit(x, r)
	if cut {
		panic(http.ErrAbortHandler)
	}
}

// unwanted bounds the time for the rest of a body that nobody reads: net/http
// reads on to its end before it sends an answer, and would wait without end.
func unwanted(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTime)) // not every connection has deadlines
	}
}

// refusalTime is how long a caller may take to read a refusal.
const refusalTime = 10 * time.Second

// drainTime is how long a caller may take to send the rest of a body that nobody
// wants.
const drainTime = 2 * time.Second

// left reports whether the caller's leaving is what ended the exchange. A body
// that breaks off or pauses too long ends the context as well, but has a refusal
// of its own.
func (x *Exchange) left(r *http.Request) bool {
	var refused *Refusal
	if errors.As(x.Err, &refused) {
		switch refused.Code {
		case RequestTimeout, RequestTooLarge, InvalidRequest:
			return false
		}
	}
	return x.Gone || x.Body == nil && r.Context().Err() != nil
}

// run guards a request and hands it to the family that it belongs to. A panic
// becomes an error: one request's bug is not the next one's.
func (p *Proxy) run(w *answer, r *http.Request, x *Exchange) (err error) {
	defer func() {
		if v := recover(); v != nil {
			// The value may hold anything, a header too; its type and the stack do not.
			p.Log.Error().Str("request_id", x.ID).Str("panic", fmt.Sprintf("%T", v)).Bytes("stack", debug.Stack()).Msg("bug: request panicked")
			err = fmt.Errorf("panic of type %T", v)
		}
	}()
	if x.Err != nil {
		return x.Err
	}
	if v := listen.Violated(r); v != nil {
		return p.violated(x, r, v)
	}
	if err := p.guard(x, r); err != nil {
		return err
	}
	leave, err := p.load.enter(sourceOf(x), p.Limits.InFlight)
	if err != nil {
		return err
	}
	defer leave()
	switch {
	case p.isPlaceholder(x.Path):
		return p.placeholder(w, r, x)
	case isDownload(x.Path):
		return p.download(w, r, x)
	case policy.Ours(x.Path.String()):
		return p.serve(w, r, x) // the way of nearly all, without mux's copies of the request
	}
	r = r.WithContext(x.with(r.Context()))
	r.URL = &url.URL{Path: x.Path.String(), RawPath: x.Path.String()}
	p.pages.ServeHTTP(w, r)
	return x.Err
}

// readOnly refuses all but GET and HEAD.
func readOnly(s step) step {
	return func(w *answer, r *http.Request, x *Exchange) error {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return &Refusal{Code: MethodNotAllowed, Message: fmt.Sprintf("%s is a page to read: GET it.", x.Path), Allow: "GET, HEAD"}
		}
		unwanted(w, r)
		w.Header().Set("Proxy-Status", "defender-proxy") // ours, and no error
		return s(w, r, x)
	}
}

// audit writes the record and counts it. By now the caller has its answer, so
// a record that cannot be stored can only be told in the log.
func (p *Proxy) audit(x *Exchange, r *http.Request) {
	rec := x.record(audit.Request, r)
	rec.Duration = time.Since(x.Start)
	if err := p.Audit.Write(&rec); err != nil {
		p.Log.Debug().Str("request_id", x.ID).Err(err).Msg("audit record lost") // audit tells once, and counts
	}
	p.Metrics.Observe(&rec)
}

// announce records a write before it is sent. Without a record, no write.
func (p *Proxy) announce(x *Exchange, r *http.Request) error {
	if !x.Operation.Class.Writes() {
		return nil
	}
	return p.intend(x, r, "write", "sent")
}

// intend records what is going to be done, a write sent or a decision made; its
// error says that it must not be done.
func (p *Proxy) intend(x *Exchange, r *http.Request, what, done string) error {
	rec := x.record(audit.Intent, r)
	write := p.Audit.Write
	if p.WritesNeedAudit {
		write = p.Audit.WriteDurable
	}
	err := write(&rec)
	switch {
	case err == nil:
		return nil
	case !p.WritesNeedAudit:
		p.Log.Error().Str("request_id", x.ID).Err(err).Msg("a " + what + " is " + done + " without its audit record")
		return nil
	}
	return &Refusal{
		Code:       AuditUnavailable,
		Message:    fmt.Sprintf("The audit record of this %s cannot be stored, so the %s is not %s. An operator looks at the disk and at audit.file in the proxy's configuration.", what, what, done),
		Err:        err,
		RetryAfter: 10 * time.Second,
	}
}

// answer is a ResponseWriter that remembers what went out.
type answer struct {
	http.ResponseWriter
	started bool
	status  int
	bytes   int64
}

func (a *answer) WriteHeader(status int) {
	a.started, a.status = true, status
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if !a.started {
		a.WriteHeader(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(b)
	a.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
