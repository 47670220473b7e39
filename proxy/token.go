package proxy

import (
	"context"
	"net/http"

	"defender-proxy/internal/token"
)

// bearer gives a live token for the operation's audience in the tenant. It
// waits for one as long as the caller does, no longer than package token takes
// for a fetch.
func (p *Proxy) bearer(ctx context.Context, x *Exchange) (*token.Bearer, error) {
	u := x.upstream()
	if u == nil {
		return nil, unreachable(x)
	}
	b, err := u.Token.Bearer(ctx)
	if err != nil {
		return nil, tokenUnavailable(x, err)
	}
	return b, nil
}

// freshen sees to it that the bearer is live when it is sent. The caller may have
// taken its time over the body since the decision, and a token that came
// meanwhile may permit less.
func (p *Proxy) freshen(ctx context.Context, x *Exchange) error {
	if b, ok := x.upstream().Token.Current(); ok && b == x.Bearer {
		return nil
	}
	var err error
	x.Bearer, x.Decision, err = p.decide(ctx, x)
	return err
}

// another gives a token in place of one that Microsoft refused with an answer of
// this header, if there is one that the decision still stands with. Fifty callers
// that see the same refusal get the same new token: only the one that is current
// is dropped.
func (p *Proxy) another(ctx context.Context, x *Exchange, refused http.Header) (*token.Bearer, bool) {
	u := x.upstream()
	u.Token.Challenge(x.Bearer, token.ClaimsChallenge(refused))
	b, err := u.Token.Bearer(ctx)
	// The identity endpoint of a machine may have no newer token than the one that
	// was refused.
	if err != nil || b.Authorization() == x.Bearer.Authorization() {
		return nil, false
	}
	return b, p.Policy.Decide(x.Operation, x.Client.Grants, u.permitsOf(b, p.Policy.Catalog)).Allowed()
}
