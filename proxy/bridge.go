package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"defender-proxy/internal/hunting"
	"defender-proxy/internal/tenant"
	"defender-proxy/policy"
)

// Hunting says which API answers the older hunting calls, which Microsoft retires.
type Hunting string

// The ways of hunting.
const (
	HuntingLegacy Hunting = "legacy" // the one that they name
	HuntingGraph  Hunting = "graph"  // Microsoft Graph, in the shape of the old answers
	HuntingAuto   Hunting = "auto"   // the one that they name until it is gone
)

// The operations that there is a bridge between: shapes has those whose answers
// can be made of that of graphHunting.
const graphHunting = "graph.hunting.run"

var shapes = map[string]hunting.Shape{"hunting.runMDE": hunting.MDE, "hunting.runMDEByKey": hunting.MDE, "hunting.runXDR": hunting.XDR}

// successor gives what can be asked in an operation's place; nil where nothing can.
func (p *Proxy) successor(op *policy.Operation) *policy.Operation {
	if op.Successor == "" {
		return nil
	}
	next := p.Policy.Catalog.Successor(op)
	if _, known := shapes[op.ID]; !known || next == nil || next.ID != graphHunting {
		return nil
	}
	return next
}

// sends gives what is sent for an operation of a tenant's: itself, or its successor.
func (p *Proxy) sends(t *Tenant, op *policy.Operation, now time.Time) *policy.Operation {
	next := p.successor(op)
	switch {
	case next == nil:
	case t.Hunting == HuntingGraph, t.Hunting == HuntingAuto && (op.Past(now) || p.Bridges.gone(t, op)):
		return next
	}
	return op
}

// Sends tells what is sent for the operations of a tenant, for reports of what its
// tokens have to permit. With auto a hunting query goes to both APIs until the older
// one is gone: its answer decides. A tenant that is not there sends what it is asked.
func (p *Proxy) Sends(name string) policy.Sends {
	t := p.tenants[name]
	if t == nil || t.Hunting != HuntingGraph && t.Hunting != HuntingAuto {
		return nil
	}
	return func(op *policy.Operation) []*policy.Operation {
		sent := p.sends(t, op, time.Now())
		if next := p.successor(op); next != nil && sent == op && t.Hunting == HuntingAuto {
			return []*policy.Operation{op, next}
		}
		return []*policy.Operation{sent}
	}
}

// sent is the operation that goes out.
func (x *Exchange) sent() *policy.Operation {
	if x.Sent != nil {
		return x.Sent
	}
	return x.Operation
}

// bridged reports whether another operation goes out than was asked for.
func (x *Exchange) bridged() bool { return x.Sent != nil && x.Sent != x.Operation }

const (
	// goneFor is how long an older API is not asked any more that said it is gone: if
	// it was a mistake, it does not last.
	goneFor = time.Hour
	// maxGone bounds what Bridges remembers.
	maxGone = 20_000
)

// Bridges remembers which older APIs are gone. It is safe for concurrent use.
type Bridges struct {
	mu    sync.Mutex // guards what follows
	until map[bridge]time.Time
}

type bridge struct {
	cloud     string
	tenant    tenant.ID
	operation string
}

func bridgeOf(t *Tenant, op *policy.Operation) bridge { return bridge{t.Cloud, t.ID, op.ID} }

// gone reports whether the operation said so within goneFor.
func (b *Bridges) gone(t *Tenant, op *policy.Operation) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, ok := b.until[bridgeOf(t, op)]
	return ok && time.Now().Before(until)
}

// put notes that the operation says that it is gone.
func (b *Bridges) put(t *Tenant, op *policy.Operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if len(b.until) >= maxGone {
		for k, until := range b.until {
			if !now.Before(until) {
				delete(b.until, k)
			}
		}
		if len(b.until) >= maxGone {
			return // then it is asked each time
		}
	}
	if b.until == nil {
		b.until = make(map[bridge]time.Time)
	}
	b.until[bridgeOf(t, op)] = now.Add(goneFor)
}

// send forwards the plan. Where the answer of an older API is that it is gone, the
// same query goes to its successor at once: nothing has run. Any 404 or 410 is such
// an answer, for these operations look nothing up; whoever may have made it, the
// older API did not answer.
func (p *Proxy) send(ctx context.Context, x *Exchange, pl *plan) (*http.Response, error) {
	if x.bridged() {
		pl.bridge(x.Sent)
	}
	resp, err := p.forward(ctx, x, pl)
	if err != nil || x.Tenant.Hunting != HuntingAuto || x.bridged() || resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusGone {
		return resp, err
	}
	next := p.successor(x.Operation)
	if next == nil {
		return resp, nil
	}
	p.Bridges.put(x.Tenant, x.Operation)
	if !pl.body.again() {
		return resp, nil // too long to be kept: the caller's next one goes to Graph
	}
	status := resp.StatusCode
	attempt{outcome: answered, resp: resp}.discard()
	x.Sent, x.Retired, x.Renewed = next, x.region(), false
	if x.Bearer, x.Decision, err = p.decide(ctx, x); err != nil {
		return nil, x.insteadOf(status, err)
	}
	if x.Order, x.Choice, err = p.order(ctx, x); err != nil {
		return nil, x.insteadOf(status, err)
	}
	pl.bridge(next)
	return p.forward(ctx, x, pl)
}

// insteadOf adds to a refusal why another API is asked.
func (x *Exchange) insteadOf(status int, err error) error {
	var refused *Refusal
	if errors.As(err, &refused) {
		refused.Message = fmt.Sprintf("Microsoft answered %d to %s %s: that API is gone. %s", status, x.Method, x.Operation.Path, refused.Message)
	}
	return err
}

// bridge directs the plan to the successor of its operation. The body stays: what
// the older APIs take, {"Query": "…"}, Graph takes too. It tells Graph that it is
// JSON where the caller did not: curl calls what it is given with -d a form. The
// older APIs get such a type as it came, for nobody knows what they make of it.
//
// One older call is a GET and has its query in the parameter key instead.
func (pl *plan) bridge(next *policy.Operation) {
	if pl.safe() && pl.body.keep {
		key, _ := parameter(pl.query, "key")
		text, err := json.Marshal(struct{ Query string }{key})
		if err != nil {
			panic(err) // a string alone
		}
		pl.body.kept, pl.body.length = text, int64(len(text))
		pl.header["Content-Type"] = []string{"application/json"}
		delete(pl.header, "Content-Encoding")
	}
	pl.method, pl.path, pl.query, pl.hasQuery = next.Method, next.Path, "", false
	pl.header.Del("Range") // of an answer in another form
	for name := range pl.header {
		if len(name) > 3 && name[:3] == "If-" {
			delete(pl.header, name)
		}
	}
	kind := kindOf(pl.header["Content-Type"])
	if len(pl.header["Content-Type"]) > 0 && kind != "" && kind != "application/x-www-form-urlencoded" || !pl.body.keep || packed(pl.header["Content-Encoding"]) {
		return
	}
	text := bytes.TrimLeft(unmarked(pl.body.kept), " \t\r\n")
	if bytes.HasPrefix(text, []byte("{")) && json.Valid(text) {
		pl.header["Content-Type"] = []string{"application/json"}
	}
}

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
