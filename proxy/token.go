package proxy

import (
	"context"

	"defender-proxy/internal/token"
)

// bearer gives a live token for the operation's audience in the tenant. It
// waits for one as long as the caller does, no longer than package token takes
// for a fetch.
func (p *Proxy) bearer(ctx context.Context, x *Exchange) (*token.Bearer, error) {
	u := x.upstream()
	if u == nil {
		return nil, refusal(TokenUnavailable, "The cloud of tenant %s has no %s (service %s). An operator adds its endpoints and audience under clouds in the proxy's configuration.",
			x.Tenant.Name, x.Operation.Service.Application(), x.Operation.Service)
	}
	b, err := u.Token.Bearer(ctx)
	if err != nil {
		return nil, tokenUnavailable(x, err)
	}
	return b, nil
}

// another gives a token in place of one that Microsoft refused, if there is one
// that the decision still stands with. Fifty callers that see the same refusal
// get the same new token: only the one that is current is dropped.
func (p *Proxy) another(ctx context.Context, x *Exchange) (*token.Bearer, bool) {
	u := x.upstream()
	u.Token.Invalidate(x.Bearer)
	b, err := u.Token.Bearer(ctx)
	if err != nil || b == x.Bearer {
		return nil, false
	}
	d, err := p.judge(x, b)
	return b, err == nil && d.Allowed()
}
