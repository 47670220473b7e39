package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// explain turns a failed exchange into words. Nothing of the answer's body is
// used but Entra's own sentence.
func (e *Engine) explain(ctx context.Context, job errand, secrets []string, x *exchange, err error, skew time.Duration) *Error {
	acc := job.account
	out := &Error{Tenant: acc.Name, Audience: job.audience, Status: x.status, RetryAfter: x.retryAfter}
	const wait = "The proxy tries again by itself."
	const onTheWay = "Check the authority, and whether an egress proxy or a sign-in page of the network answers in its place."
	foreign := func(s string) string { return quote(s, secrets) }

	var refused *oauth2.RetrieveError
	switch {
	case !x.answered:
		out.Kind = Unreachable
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			out.Sentence = fmt.Sprintf("%s did not answer within %s.", acc.Authority, e.timeout)
		} else {
			out.Sentence = acc.Authority + " cannot be reached: " + foreign(innermost(err).Error()) + "."
		}
		out.Remedy = "Check name resolution, firewall, egress proxy and trusted certificates of this machine. " + wait
	case x.status >= 300 && x.status < 400:
		out.Kind = BadAnswer
		out.Sentence = fmt.Sprintf("%s answered %d, a redirect, which is not followed because it would carry the secret elsewhere.", acc.Authority, x.status)
		out.Remedy = onTheWay
	case errors.As(err, &refused) && AADSTS(refused.ErrorDescription) != 0:
		e.explainCode(out, acc, refused.ErrorDescription, foreign, skew)
	case x.status == http.StatusTooManyRequests || x.status == http.StatusRequestTimeout || x.status >= 500:
		out.Kind = Unavailable
		out.Sentence = fmt.Sprintf("%s answered %d.", acc.Authority, x.status)
		out.Remedy = wait
	case x.tooLong:
		out.Kind = BadAnswer
		out.Sentence = fmt.Sprintf("%s answered %d with more than %d KiB, which no token takes.", acc.Authority, x.status, maxAnswer>>10)
		out.Remedy = onTheWay
	case errors.As(err, &refused) && refused.ErrorCode != "":
		out.Kind = Rejected
		out.Sentence = fmt.Sprintf("Entra ID answered %d with the error %s: %s.", x.status, foreign(refused.ErrorCode), foreign(meaning(refused.ErrorDescription)))
		out.Remedy = "Check client_id, credential and tenant id in the configuration."
	case x.broken:
		out.Kind = Unreachable
		out.Sentence = acc.Authority + " began an answer and did not end it."
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			out.Sentence = fmt.Sprintf("%s began an answer and did not end it within %s.", acc.Authority, e.timeout)
		}
		out.Remedy = wait
	default:
		out.Kind = BadAnswer
		out.Sentence = fmt.Sprintf("%s answered %d with something that is not a token answer (content type %s).", acc.Authority, x.status, foreign(x.contentType))
		out.Remedy = onTheWay
	}
	return out
}

// explainCode fills in what is known of the AADSTS code in the description.
func (e *Engine) explainCode(out *Error, acc Account, description string, foreign func(string) string, skew time.Duration) {
	out.Kind = Rejected
	out.AADSTS = AADSTS(description)
	a, known := adviceByCode[out.AADSTS]
	if !known {
		out.Sentence = "Entra ID refuses the token: " + foreign(meaning(description)) + "."
		out.Remedy = fmt.Sprintf("Microsoft explains the code at https://login.microsoftonline.com/error?code=%d", out.AADSTS)
	} else {
		out.Sentence, out.Remedy = a.words(acc, out.Audience, skew)
		out.Sentence = strings.TrimSuffix(out.Sentence, ".") + fmt.Sprintf(" (AADSTS%d).", out.AADSTS)
	}
	out.guarded = a.guarded
	if strings.Contains(a.remedy, "{consent}") {
		out.ConsentURL = acc.ConsentURL()
	}
	if a.transient || out.Status == http.StatusTooManyRequests || out.Status >= 500 {
		out.Kind = Unavailable
	}
}

// innermost is the error below http.Client's wrapping, which repeats the URL.
func innermost(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
