package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"defender-proxy/internal/token"
)

// longestWait bounds how long a request waits for a token: twice what package
// token takes for a fetch, for others may go first.
const longestWait = 30 * time.Second

// bearer gives a live token for the operation's audience in the tenant. Where
// there is none it waits for one as long as the caller does, longestWait at most;
// the fetch goes on without it.
func (p *Proxy) bearer(ctx context.Context, x *Exchange) (*token.Bearer, error) {
	u := x.upstream()
	if u == nil {
		return nil, unreachable(x)
	}
	ctx, cancel := context.WithTimeout(ctx, p.longestWait)
	defer cancel()
	b, err := u.Token.Bearer(ctx)
	if err != nil {
		return nil, tokenUnavailable(x, err)
	}
	return b, nil
}

// freshen sees to it that the bearer is live when it is sent. The caller may have
// taken its time over the body since the decision, and a token that came
// meanwhile may permit less.
//
// Where the configuration no longer has the tenant, or another credential of it,
// there is no other token: the request began before and finishes with the one it
// has, as long as that lives.
func (p *Proxy) freshen(ctx context.Context, x *Exchange) error {
	if b, ok := x.upstream().Token.Current(); ok && b == x.Bearer {
		return nil
	}
	b, d, err := p.decide(ctx, x)
	var gone *token.Error
	if !errors.As(err, &gone) || gone.Kind != token.Stopped {
		x.Bearer, x.Decision = b, d
		return err
	}
	if x.Bearer.Live() {
		return nil
	}
	return &Refusal{
		Code:       TokenUnavailable,
		Message:    fmt.Sprintf("The configuration of tenant %s changed while the request was under way, and the token that it began with has run out. Send it again.", x.Tenant.Name),
		Err:        err,
		RetryAfter: time.Second,
	}
}

// another puts a token in place of the exchange's, which Microsoft refused with
// an answer of this header, and reports whether there is one that the decision
// still stands with. Fifty callers that see the same refusal get the same new
// token. The error is a refusal: there is no other token, and why.
func (p *Proxy) another(ctx context.Context, x *Exchange, refused http.Header) (bool, error) {
	u := x.upstream()
	ctx, cancel := context.WithTimeout(ctx, p.longestWait)
	defer cancel()
	b, err := u.Token.Replace(ctx, x.Bearer, token.ClaimsChallenge(refused))
	var gone *token.Error
	switch {
	case errors.As(err, &gone) && gone.Kind == token.Stopped:
		return false, nil // taken out of the configuration meanwhile: Microsoft's answer stands
	case err != nil:
		return false, tokenUnavailable(x, err)
	}
	// The identity endpoint of a machine may have no newer token than the one that
	// was refused.
	if b.Authorization() == x.Bearer.Authorization() {
		return false, nil
	}
	permits := u.permitsOf(b, p.Policy.Catalog)
	d := p.judge(x, permits)
	if !d.Allowed() {
		return false, nil
	}
	x.Bearer, x.Permits, x.Decision = b, permits, d
	return true, nil
}
