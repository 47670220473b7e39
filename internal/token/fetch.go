package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"golang.org/x/oauth2"
)

// outcome is what one fetch brought: a bearer or a failure, never both.
type outcome struct {
	bearer  *Bearer
	failure *Error
	skew    time.Duration // the server's clock less ours
	skewed  bool          // skew is known
}

// fetch asks Entra ID once and judges the answer. It returns within timeout,
// apart from the account's Secret. A panic in anything it calls is a failure
// like others, so that renewal goes on.
func (e *Engine) fetch(ctx context.Context, acc Account, audience string) (out outcome) {
	fail := func(k Kind, sentence, remedy string) outcome {
		out.bearer = nil
		out.failure = &Error{Kind: k, Tenant: acc.Name, Audience: audience, Sentence: sentence, Remedy: remedy}
		return out
	}
	defer func() {
		if p := recover(); p != nil {
			// The value is not shown: nobody knows what it holds.
			stack := make([]byte, 4<<10)
			stack = stack[:runtime.Stack(stack, false)]
			e.log.Error().Str("tenant", acc.Name).Str("panic", fmt.Sprintf("%T", p)).Bytes("stack", stack).Msg("fetching a token panicked")
			out = fail(Internal, "Fetching the token failed for a fault in the proxy.", "Report it with the stack from the log.")
		}
	}()

	const fixCredential = "Correct the tenant's credential in the configuration."
	if acc.Secret == nil {
		return fail(Misconfigured, "The tenant has no client secret.", fixCredential)
	}
	secret, err := acc.Secret()
	if err != nil {
		return fail(Misconfigured, "The client secret cannot be read: "+quote(err.Error(), secret)+".", "Make it readable for the proxy, or correct where the configuration looks for it.")
	}
	if secret == "" {
		return fail(Misconfigured, "The client secret is empty.", "Put the secret's value into the file or variable that the configuration names.")
	}
	request, err := acc.request(audience, secret)
	if err != nil {
		return fail(Misconfigured, "Entra ID cannot be asked: "+err.Error()+".", fixCredential)
	}

	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	x := &exchange{transport: e.transport}
	client := &http.Client{
		Transport: x,
		// A 307 or 308 would carry the secret to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	sent := e.now()
	answer, err := request.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if !x.date.IsZero() {
		// The header has whole seconds: its middle is the better guess.
		out.skew = x.date.Add(time.Second / 2).Sub(e.now().time())
		out.skewed = true
	}
	if err != nil {
		out.failure = e.explain(ctx, acc, audience, secret, x, err, out.skew)
		return out
	}
	b, err := judge(answer, acc, audience, sent, x.date)
	if err == nil && !b.live(e.now()) {
		err = errors.New("the token's life ended on the way")
	}
	if err != nil {
		remedy := "Check that the authority is Entra ID and that nothing on the way answers for it."
		if out.skewed && notable(out.skew) {
			remedy += " " + skewSentence(out.skew)
		}
		out = fail(BadAnswer, "Entra ID answered, but not with a token that can be used: "+without(err.Error(), secret)+".", remedy)
		out.failure.Status = x.status
		return out
	}
	b.renewAt = b.life - jitter(b.life/5, 0.1, e.rand())
	out.bearer = b
	return out
}

// jitter spreads d by the share to either side; r is in [0, 1).
func jitter(d time.Duration, share, r float64) time.Duration {
	return time.Duration(float64(d) * (1 + share*(2*r-1)))
}
