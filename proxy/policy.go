package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"defender-proxy/internal/canon"
	"defender-proxy/internal/condition"
	"defender-proxy/internal/redact"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
)

// operation finds the row of the catalog that is asked for.
func (p *Proxy) operation(x *Exchange) (*policy.Operation, error) {
	op, err := p.Policy.Operation(x.Method, x.Path.String())
	var wrong *policy.MethodError
	switch {
	case err == nil:
		return op, nil
	case errors.As(err, &wrong):
		return nil, &Refusal{
			Code:    MethodNotAllowed,
			Message: x.Path.String() + " is known, but not with the method " + redact.Short(x.Method) + "; it takes " + wrong.Allow + ".",
			Err:     err,
			Allow:   wrong.Allow,
		}
	case errors.Is(err, policy.ErrUnknownPath):
		return nil, &Refusal{Code: UnknownOperation, Message: p.unknownPath(x.Path), Err: err}
	}
	return nil, err
}

// unknownPath words what to do instead, by what the path looks like.
func (p *Proxy) unknownPath(path canon.Path) string {
	shown := redact.Short(concealed(path.String()))
	switch {
	case strings.HasPrefix(path.String(), "/-/"):
		return shown + " is no page of the proxy. There are /, /-/whoami, /-/operations, /-/explain and /-/approvals; health and metrics are on the admin listener."
	case p.isPlaceholder(path) && p.PlaceholderToken: // only explain comes here
		return shown + " is no operation: a tool logs in there, and the proxy answers it with a placeholder token, whoever asks with whatever secret. It is worth nothing; what a tool sends as Authorization is dropped."
	case p.isPlaceholder(path):
		return shown + " is where a tool would log in, and the answer to that is switched off. No login is needed here: leave the token URL out, or give the tool any token; what it sends as Authorization is dropped. For tools that insist, an operator sets placeholder_token: true in the proxy's configuration."
	}
	if strings.HasSuffix(asciiLower(path.String()), "/authorize") {
		return shown + " is where people log in with a browser, which the proxy does not answer: choose client credentials or a device code in the tool. A token comes from the token URL beside it, whatever is sent there."
	}
	return shown + " is no path of Microsoft's that the proxy knows. GET /-/operations lists those; an operator adds others under policy.operations in the proxy's configuration."
}

// decide asks the two questions of policy: did the operator grant the operation
// to this client group, and does the tenant's token permit what is sent for it? The
// claims come with the token, so the first no saves the wait for one.
func (p *Proxy) decide(ctx context.Context, x *Exchange) (*token.Bearer, policy.Decision, error) {
	d := p.Policy.Granted(x.Operation, x.Client.Grants, x.situation())
	if d.Verdict == policy.NotGranted {
		return nil, d, notGranted(x, d.Rule)
	}
	bearer, err := p.bearer(ctx, x)
	if err != nil {
		return nil, d, err
	}
	x.Permits = x.upstream().permitsOf(bearer, p.Policy.Catalog)
	d = p.judge(x, x.Permits)
	if !d.Allowed() {
		return nil, d, missingPermission(x)
	}
	return bearer, d, nil
}

// judge is policy's decision about the exchange with a token that permits this
// much. The operator's half stands once its conditions were asked.
func (p *Proxy) judge(x *Exchange, permits *policy.Permits) policy.Decision {
	d := p.Policy.DecideSent(x.Operation, x.sent(), x.Client.Grants, x.situation(), permits)
	if x.Settled && d.Allowed() {
		d = d.Settled(x.Decision.Rule, x.Decision.Ungranted)
	}
	return d
}

// satisfy asks the conditions of the grant, which may look at the request's body.
// The first entry whose condition holds decides; an error of a condition is a no. Of a
// hunting query that is a GET nothing is asked of the body, not even whether there is
// none: what runs stands elsewhere, and a condition that forbids would hold.
func (p *Proxy) satisfy(x *Exchange, r *http.Request) error {
	rule := x.Decision.Rule
	if rule.When == nil {
		return nil
	}
	looked := false
	parse := sync.OnceValues(func() (*condition.Body, error) {
		if x.Operation.Method == http.MethodGet && !x.Body.empty() {
			return nil, errors.New("a GET has a body, which is not what is asked for")
		}
		return x.Body.judged(r.Header)
	})
	asked := condition.Request{
		Method: x.Method, Path: x.Path.String(), Tenant: x.Tenant.Name, Client: x.Client.Name, Operation: x.Operation.ID,
		Body: func() (*condition.Body, error) {
			if x.Operation.Method == http.MethodGet && x.Operation.Class == policy.ClassHunt {
				return nil, errors.New("the query is in no body, it stands in the parameter key")
			}
			looked = true
			return parse()
		},
	}
	x.Noes = nil
	for ; rule.Allow && rule.When != nil; rule = x.Client.Grants.Next(x.Operation, x.situation(), rule) {
		looked = false
		holds, err := holds(rule.When, asked)
		if holds && err == nil {
			x.Decision, x.Settled = x.Decision.Settled(rule, x.Decision.Ungranted), true
			return nil
		}
		x.Noes = append(x.Noes, no{rule, looked, err})
	}
	if x.Client.Grants.Reports() {
		x.Decision, x.Settled = x.Decision.Settled(policy.Rule{}, true), true
		return nil
	}
	denied := x.Decision.Rule
	x.Decision = policy.Decision{Verdict: policy.NotGranted, Rule: policy.Rule{Entry: denied.Entry}}
	return conditionFailed(x)
}

// no is an entry whose condition was asked and did not hold.
type no struct {
	rule   policy.Rule
	looked bool  // at the body
	err    error // why it could not be told, if it could not
}

// words say it behind the condition.
func (n no) words() string {
	if n.err != nil {
		return fmt.Sprintf("which cannot be told: %v", n.err)
	}
	return "which is not so"
}

func holds(c policy.Condition, asked condition.Request) (bool, error) {
	askable, ok := c.(interface {
		Holds(condition.Request) (bool, error)
	})
	if !ok {
		return false, fmt.Errorf("condition of type %T cannot be asked", c)
	}
	return askable.Holds(asked)
}

// judged gives the body to a condition. One that streams is longer than what can
// be judged.
func (b *body) judged(h http.Header) (*condition.Body, error) {
	if !b.keep {
		return nil, fmt.Errorf("the body is longer than %d bytes, the most that a condition looks at", condition.MaxBody)
	}
	return condition.ParseBody(h["Content-Type"], h["Content-Encoding"], b.kept)
}

// situation is what the operator's grants depend on beside the operation.
func (x *Exchange) situation() policy.Situation {
	return policy.Situation{Tenant: x.Tenant.Name, Now: x.AsOf}
}

// waits reports whether an operation needs a second person's approval.
func (p *Proxy) waits(op *policy.Operation, at policy.Situation) bool {
	return p.Approval != nil && p.Approval.Operations.Rule(op, at).Allow
}

// upstream is the service that what is sent belongs to, as the tenant sees it; nil
// where the tenant's cloud does not have it.
func (x *Exchange) upstream() *Upstream { return x.Tenant.Upstreams[x.sent().Service] }

// permitsOf works out what a bearer permits, once for each bearer.
func (u *Upstream) permitsOf(b *token.Bearer, c *policy.Catalog) *policy.Permits {
	if last := u.seen.Load(); last != nil && last.bearer == b {
		return last.permits
	}
	claims := b.Claims()
	fresh := &seen{b, c.Permits(claims.Roles, claims.Scopes)}
	u.seen.Store(fresh)
	return fresh.permits
}
