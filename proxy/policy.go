package proxy

import (
	"context"
	"errors"

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
		return nil, &Refusal{
			Code:    UnknownOperation,
			Message: shortened(x.Path.String()) + " is no path of Microsoft's that the proxy knows. GET /-/operations lists those; an operator adds others under policy.operations in the proxy's configuration.",
			Err:     err,
		}
	}
	return nil, err
}

// decide asks the two questions of policy: did the operator grant the operation
// to this client group, and does the tenant's token permit it? The claims come
// with the token, so the first no saves the wait for one.
func (p *Proxy) decide(ctx context.Context, x *Exchange) (*token.Bearer, policy.Decision, error) {
	d := p.Policy.Granted(x.Operation, x.Client.Grants)
	x.Decision = d
	if d.Verdict == policy.NotGranted {
		return nil, d, notGranted(x)
	}
	bearer, err := p.bearer(ctx, x)
	if err != nil {
		return nil, d, err
	}
	d, err = p.judge(x, bearer)
	return bearer, d, err
}

// judge decides with the claims of one token.
func (p *Proxy) judge(x *Exchange, b *token.Bearer) (policy.Decision, error) {
	x.Permits = x.upstream().permitsOf(b, p.Policy.Catalog)
	d := p.Policy.Decide(x.Operation, x.Client.Grants, x.Permits)
	if !d.Allowed() {
		return d, missingPermission(x)
	}
	return d, nil
}

// upstream is the service that the operation belongs to, as the tenant sees it;
// nil where the tenant's cloud does not have it.
func (x *Exchange) upstream() *Upstream { return x.Tenant.Upstreams[x.Operation.Service] }

// permitsOf works out what a bearer permits, once for each bearer.
func (u *Upstream) permitsOf(b *token.Bearer, c *policy.Catalog) *policy.Permits {
	if seen := u.permits.Load(); seen != nil && seen.bearer == b {
		return seen.Permits
	}
	claims := b.Claims()
	fresh := &permits{b, c.Permits(claims.Roles, claims.Scopes)}
	u.permits.Store(fresh)
	return fresh.Permits
}
