package proxy

import (
	"context"
	"errors"
	"strings"

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
			Message: x.Path.String() + " is known, but not with the method " + shortened(x.Method) + "; it takes " + wrong.Allow + ".",
			Err:     err,
			Allow:   wrong.Allow,
		}
	case errors.Is(err, policy.ErrUnknownPath):
		return nil, &Refusal{Code: UnknownOperation, Message: unknownPath(x.Path.String()), Err: err}
	}
	return nil, err
}

// unknownPath words what to do instead, by what the path looks like.
func unknownPath(path string) string {
	shown := shortened(path)
	switch {
	case strings.HasPrefix(path, "/-/"):
		return shown + " is no page of the proxy. There are /, /-/whoami, /-/operations and /-/explain; health and metrics are on the admin listener."
	case strings.HasSuffix(path, "/oauth2/token"), strings.HasSuffix(path, "/oauth2/v2.0/token"):
		return shown + " is where a tool would log in. No login is needed here: leave the token URL out, or give the tool any token; what it sends as Authorization is dropped."
	}
	return shown + " is no path of Microsoft's that the proxy knows. GET /-/operations lists those; an operator adds others under policy.operations in the proxy's configuration."
}

// decide asks the two questions of policy: did the operator grant the operation
// to this client group, and does the tenant's token permit it? The claims come
// with the token, so the first no saves the wait for one.
func (p *Proxy) decide(ctx context.Context, x *Exchange) (*token.Bearer, policy.Decision, error) {
	d := p.Policy.Granted(x.Operation, x.Client.Grants)
	if d.Verdict == policy.NotGranted {
		return nil, d, notGranted(x, d.Rule)
	}
	bearer, err := p.bearer(ctx, x)
	if err != nil {
		return nil, d, err
	}
	x.Permits = x.upstream().permitsOf(bearer, p.Policy.Catalog)
	d = p.Policy.Decide(x.Operation, x.Client.Grants, x.Permits)
	if !d.Allowed() {
		return nil, d, missingPermission(x)
	}
	return bearer, d, nil
}

// upstream is the service that the operation belongs to, as the tenant sees it;
// nil where the tenant's cloud does not have it.
func (x *Exchange) upstream() *Upstream { return x.Tenant.Upstreams[x.Operation.Service] }

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
