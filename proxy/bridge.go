package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	sent, _ := p.instead(t, op, now)
	return sent
}

// instead is sends, with the status with which the operation said that it is gone; 0
// where that is not why.
func (p *Proxy) instead(t *Tenant, op *policy.Operation, now time.Time) (sent *policy.Operation, status int) {
	next := p.successor(op)
	switch {
	case next == nil:
	case t.Hunting == HuntingGraph, t.Hunting == HuntingAuto && op.Past(now):
		return next, 0
	case t.Hunting == HuntingAuto:
		if status = p.Bridges.gone(t, op); status != 0 {
			return next, status
		}
	}
	return op, 0
}

// Sends tells what is sent for the operations of a tenant, for reports of what its
// tokens have to permit. With auto a hunting query may go to both APIs until the day
// on which the older one ends: what was learnt of it lasts an hour, and then it is
// asked again. A tenant that is not there sends what it is asked.
func (p *Proxy) Sends(name string) policy.Sends {
	t := p.tenants[name]
	if t == nil || t.Hunting != HuntingGraph && t.Hunting != HuntingAuto {
		return nil
	}
	return func(op *policy.Operation) []*policy.Operation {
		next := p.successor(op)
		switch {
		case next == nil:
			return []*policy.Operation{op}
		case t.Hunting == HuntingAuto && !op.Past(time.Now()):
			return []*policy.Operation{op, next}
		}
		return []*policy.Operation{next}
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
	mu   sync.Mutex // guards what follows
	said map[bridge]farewell
}

type bridge struct {
	cloud     string
	tenant    tenant.ID
	operation string
	// auto: what is said decides where queries go; else it was told in the log alone,
	// and nobody knows whether Graph answers.
	auto bool
}

// farewell is the status with which an older API said that it is gone, and until when
// that is believed.
type farewell struct {
	status int
	until  time.Time
}

func bridgeOf(t *Tenant, op *policy.Operation) bridge {
	return bridge{t.Cloud, t.ID, op.ID, t.Hunting == HuntingAuto}
}

// gone gives the status with which the operation said so within goneFor, 0 for none.
func (b *Bridges) gone(t *Tenant, op *policy.Operation) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.said[bridgeOf(t, op)]; time.Now().Before(last.until) {
		return last.status
	}
	return 0
}

// put notes that the operation says with a status that it is gone.
func (b *Bridges) put(t *Tenant, op *policy.Operation, status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if len(b.said) >= maxGone {
		for k, last := range b.said {
			if !now.Before(last.until) {
				delete(b.said, k)
			}
		}
		if len(b.said) >= maxGone {
			return // then it is asked each time
		}
	}
	if b.said == nil {
		b.said = make(map[bridge]farewell)
	}
	b.said[bridgeOf(t, op)] = farewell{status, now.Add(goneFor)}
}

// send forwards the plan. Where the answer of an older API is that it is gone, the
// same query goes to its successor at once: nothing has run. Any 404 or 410 is such
// an answer, for these operations look nothing up; whoever may have made it, the
// older API did not answer.
//
// That holds for this query. For those of others it counts only when the successor
// gave an answer, so that the tenant can do without the older API, and when there was
// nothing in the request's address that the 404 may have been for.
func (p *Proxy) send(ctx context.Context, x *Exchange, pl *plan) (*http.Response, error) {
	if x.bridged() {
		pl.bridge(x.Sent)
		return p.forward(ctx, x, pl)
	}
	resp, err := p.forward(ctx, x, pl)
	if err != nil || resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusGone {
		return resp, err
	}
	next := p.successor(x.Operation)
	if x.Tenant.Hunting != HuntingAuto {
		if next != nil && x.plain() && p.Bridges.gone(x.Tenant, x.Operation) == 0 { // once in a while
			p.Bridges.put(x.Tenant, x.Operation, resp.StatusCode)
			p.Log.Warn().Str("tenant", x.Tenant.Name).Str("operation", x.Operation.ID).Int("status", resp.StatusCode).Msg("Microsoft says that this hunting API is gone; hunting: auto or graph of the tenant lets Microsoft Graph answer")
		}
		return resp, nil
	}
	if next == nil || x.Method == http.MethodHead || !pl.safe() && !pl.body.again() {
		return resp, nil // of a body that is too long to be kept nothing is left to send
	}
	attempt{outcome: answered, resp: resp}.discard()
	x.Sent, x.Said, x.Retired = next, resp.StatusCode, x.region()
	x.Renewed, x.Arrived = false, 0 // another token, and nothing that was carried out
	if x.Bearer, x.Decision, err = p.decide(ctx, x); err != nil {
		return nil, err
	}
	if x.Order, x.Choice, err = p.order(ctx, x); err != nil {
		return nil, err
	}
	pl.bridge(next)
	if resp, err = p.forward(ctx, x, pl); err == nil && resp.StatusCode == http.StatusOK && x.plain() {
		p.Bridges.put(x.Tenant, x.Operation, x.Said)
	}
	return resp, err
}

// plain reports whether the request's address is the operation's own and no more.
func (x *Exchange) plain() bool {
	return !x.HasQuery && asciiLower(x.Path.String()) == asciiLower(x.Operation.Path)
}

// because adds to a refusal on the way to a successor why that was asked, where the
// tenant's configuration alone does not say it.
func (x *Exchange) because(err error) error {
	var refused *Refusal
	if !x.bridged() || x.Tenant.Hunting != HuntingAuto || !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case MissingPermission, TokenUnavailable, RegionUnavailable, InvalidAnswer:
	default:
		return err // nothing of the successor's
	}
	op := x.Operation
	why := fmt.Sprintf("%s %s ended on %s. ", op.Method, op.Path, op.Sunset)
	if x.Said != 0 {
		why = fmt.Sprintf("Microsoft answered %d to %s %s: that API is gone. ", x.Said, op.Method, op.Path)
	}
	refused.Message = why + refused.Message
	return err
}

// crosses refuses what the bridge has no form for.
func (x *Exchange) crosses() error {
	if !x.bridged() || x.Method != http.MethodHead {
		return nil
	}
	return &Refusal{
		Code: MethodNotAllowed,
		Message: fmt.Sprintf("HEAD %s: what is asked there goes to %s as a query (hunting: %s of tenant %s), which would run for an answer that nobody gets. GET it.",
			x.Operation.Path, x.Sent.Service.Application(), x.Tenant.Hunting, x.Tenant.Name),
		Allow: http.MethodGet,
	}
}

// bridge directs the plan to the successor of its operation. The body stays: what
// the older APIs take, {"Query": "…"}, Graph takes too. It tells Graph that it is
// JSON where the caller did not: curl calls what it is given with -d a form. The
// older APIs get such a type as it came, for nobody knows what they make of it.
//
// One older call is a GET and has its query in the parameter key instead. It gets a
// body of its own: the caller's, if there is one, was never what is asked.
func (pl *plan) bridge(next *policy.Operation) {
	if pl.safe() {
		key, _ := parameter(pl.query, "key")
		text, err := json.Marshal(struct{ Query string }{key})
		if err != nil {
			panic(err) // a string alone
		}
		pl.body = &body{kept: text, keep: true, length: int64(len(text))}
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
