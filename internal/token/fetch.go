package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"time"

	"golang.org/x/oauth2"
)

// errand is what one fetch is to bring, as it was when the fetch began.
type errand struct {
	account  Account
	audience string
	// claims are those that Microsoft's API asked for, empty for none.
	claims string
	// skew is the server's clock less ours by the last answer, 0 where unknown.
	skew time.Duration
}

// outcome is what one fetch brought: a bearer or a failure, never both.
type outcome struct {
	bearer  *Bearer
	failure *Error
	skew    time.Duration // the server's clock less ours
	skewed  bool          // skew is known
	granted func()        // what is to be done once the bearer is in use, or nil
}

const fixCredential = "Correct the tenant's credential in the configuration."

// fetch gets one token and judges it. It returns within the engine's timeout, if
// the credential does. A
// panic in anything it calls is a failure like others, so that renewal goes on.
func (e *Engine) fetch(ctx context.Context, job errand) (out outcome) {
	defer func() {
		if p := recover(); p != nil {
			e.panicked(job, p)
			out = job.failed(Internal, "Fetching the token failed for a fault in the proxy.", "Report it with the stack from the log.")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	if job.account.Credential == nil {
		return job.failed(Misconfigured, "The tenant has no credential.", fixCredential)
	}
	if issuer, ok := job.account.Credential.(Issuer); ok {
		return e.issue(ctx, job, issuer)
	}
	out = e.prove(ctx, job)
	if f := out.failure; f != nil && f.AADSTS == codeOutsideItsTime && out.skewed && notable(out.skew-job.skew) {
		// The assertion was dated by a clock that this answer shows to be wrong.
		job.skew = out.skew
		out = e.prove(ctx, job)
	}
	return out
}

// panicked logs a panic. The value is not shown: nobody knows what it holds.
func (e *Engine) panicked(job errand, p any) {
	stack := make([]byte, 4<<10)
	stack = stack[:runtime.Stack(stack, false)]
	e.log.Error().Str("tenant", job.account.Name).Str("panic", fmt.Sprintf("%T", p)).Bytes("stack", stack).Msg("fetching a token panicked")
}

// prove asks Entra ID with the credential's proofs, one after the other while
// each is rejected for itself.
func (e *Engine) prove(ctx context.Context, job errand) outcome {
	tokenURL, err := job.account.tokenURL()
	if err != nil {
		return job.failed(Misconfigured, "Entra ID cannot be asked: "+err.Error()+".", fixCredential)
	}
	proofs, err := job.account.Credential.Proofs(ctx, e.ask(job, tokenURL))
	if err != nil {
		return job.fault(ctx, e.timeout, err)
	}
	if len(proofs) == 0 {
		return job.failed(Misconfigured, "The tenant's credential gives no proof.", fixCredential)
	}
	var out outcome
	var first *Error
	for _, p := range proofs {
		if slices.Contains(p.Secrets, "") {
			out = job.failed(Misconfigured, "The "+p.Name+" is empty.", "Put its value into the file or variable that the configuration names.")
		} else {
			out = e.exchange(ctx, job, tokenURL, p)
		}
		if out.failure == nil {
			return out
		}
		rejected := rejectsProof(out.failure.AADSTS)
		if rejected && p.Rejected != nil {
			p.Rejected(out.failure.AADSTS)
		}
		if first != nil {
			// What is told is the fault of the one that was to work; when to come again
			// is what was said last.
			first.Sentence += " The " + p.Name + " does not help: " + out.failure.Sentence
			first.RetryAfter = max(first.RetryAfter, out.failure.RetryAfter)
			if k := out.failure.Kind; k == Unreachable || k == Unavailable {
				first.Kind = k
			}
			out.failure = first
		} else {
			first = out.failure
		}
		if !rejected {
			break
		}
	}
	return out
}

func (e *Engine) ask(job errand, tokenURL string) Ask {
	a := job.account
	return Ask{
		Tenant: a.Name, TenantID: a.Tenant, ClientID: a.ClientID, Authority: a.Authority, TokenURL: tokenURL,
		Audience: job.audience, Version: a.Version, Now: e.now().time().Add(job.skew),
	}
}

// exchange asks Entra ID once and judges the answer.
func (e *Engine) exchange(ctx context.Context, job errand, tokenURL string, proof Proof) (out outcome) {
	x := &exchange{transport: e.transport}
	sent := e.now()
	answer, err := job.account.request(tokenURL, job.audience, job.claims, proof).Token(context.WithValue(ctx, oauth2.HTTPClient, x.client()))
	if !x.date.IsZero() {
		// The header has whole seconds: its middle is the better guess.
		out.skew = x.date.Add(time.Second / 2).Sub(e.now().time())
		out.skewed = true
	}
	if err != nil {
		out.failure = e.explain(ctx, job, proof.Secrets, x, err, out.skew)
		return out
	}
	refresh, _ := answer.Extra("refresh_token").(string)
	secrets := slices.Concat(proof.Secrets, []string{answer.AccessToken, refresh})
	b, err := e.accept(ctx, job, answer, secrets, sent, x.date)
	if err != nil {
		remedy := "Check that the authority is Entra ID and that nothing on the way answers for it."
		if bad, ok := errors.AsType[*badSignature](err); ok {
			remedy = bad.remedy
		}
		if out.skewed && notable(out.skew) {
			remedy += " " + skewSentence(out.skew)
		}
		out.failure = job.failed(BadAnswer, "Entra ID answered, but not with a token that can be used: "+without(err.Error(), secrets)+".", remedy).failure
		out.failure.Status = x.status
		return out
	}
	out.bearer = b
	if proof.Granted != nil {
		out.granted = func() {
			if err := proof.Granted(Grant{RefreshToken: refresh, Subject: firstOf(b.claims.UPN, b.claims.Name)}); err != nil {
				e.log.Warn().Str("tenant", job.account.Name).Str("credential", job.account.Credential.Health().Kind).
					Msg(without(err.Error(), secrets))
			}
		}
	}
	return out
}

// issue gets a token from a machine's own endpoint, and judges it as Entra's.
func (e *Engine) issue(ctx context.Context, job errand, issuer Issuer) outcome {
	sent := e.now()
	got, err := issuer.Issue(ctx, e.ask(job, ""))
	if err != nil {
		return job.fault(ctx, e.timeout, err)
	}
	answer := (&oauth2.Token{AccessToken: got.AccessToken, TokenType: "Bearer"}).
		WithExtra(map[string]any{"expires_in": got.ExpiresIn.Seconds()})
	b, err := e.accept(ctx, job, answer, []string{got.AccessToken}, sent, time.Time{})
	if err != nil {
		return job.failed(BadAnswer, "The machine's identity endpoint answered, but not with a token that can be used: "+err.Error()+".",
			"Check that the identity is one of the tenant's, and that the audience is right for its cloud.")
	}
	return outcome{bearer: b}
}

// accept judges an answer whole, and decides when its token is renewed.
func (e *Engine) accept(ctx context.Context, job errand, answer *oauth2.Token, secrets []string, sent instant, date time.Time) (*Bearer, error) {
	b, err := judge(answer, job.account, job.audience, secrets, sent, date)
	if err != nil {
		return nil, err
	}
	if job.account.VerifySignature {
		if err := e.keys.verify(ctx, job.account.Authority, job.account.Tenant, answer.AccessToken); err != nil {
			return nil, err
		}
	}
	if !b.live(e.now()) {
		return nil, errors.New("the token's life ended on the way")
	}
	b.renewAt = b.life - jitter(b.life/5, 0.1, e.rand())
	return b, nil
}

// failed is the outcome of a fetch that brought nothing.
func (j errand) failed(k Kind, sentence, remedy string) outcome {
	return outcome{failure: &Error{Kind: k, Tenant: j.account.Name, Audience: j.audience, Sentence: sentence, Remedy: remedy}}
}

// fault is the outcome of a credential that gave nothing.
func (j errand) fault(ctx context.Context, timeout time.Duration, err error) outcome {
	if known, ok := errors.AsType[*Fault](err); ok {
		out := j.failed(known.Kind, known.Sentence, known.Remedy)
		out.failure.RetryAfter = min(known.RetryAfter, maxRetryAfter)
		return out
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return j.failed(Unreachable, fmt.Sprintf("The tenant's credential could not be had within %s.", timeout), "Check what it is read from. The proxy tries again by itself.")
	}
	return j.failed(Misconfigured, "The tenant's credential cannot be used: "+quote(err.Error(), nil)+".", fixCredential)
}

// client sends by x. It follows no redirect: a 307 or 308 would carry the secret
// to wherever it points.
func (x *exchange) client() *http.Client {
	return &http.Client{
		Transport:     x,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// jitter spreads d by the share to either side; r is in [0, 1).
func jitter(d time.Duration, share, r float64) time.Duration {
	return time.Duration(float64(d) * (1 + share*(2*r-1)))
}
