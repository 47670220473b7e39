package regions

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"defender-proxy/internal/redact"
)

// maxFailureText bounds the text of a failure that is kept, in bytes.
const maxFailureText = 200

// Outcome is how a request to an endpoint ended, as far as that tells about the
// endpoint's health. The zero value tells nothing. A request that its caller
// gave up tells nothing either: there is no Outcome for it.
type Outcome struct {
	told    bool
	failure string
	contact contact
}

// contact is how far a request came that failed.
type contact int

const (
	answered    contact = iota // there was an answer
	unanswered                 // there was a connection
	unconnected                // there was none
)

// Answered is a request that got an answer with the HTTP status. 502, 503 and
// 504 are ill health; every other answer, 429 among them, is a sign of life. A 503
// counts when it throttles, too: an edge that throttles is no good place to go. A
// 429 is about the tenant, and holds everywhere.
func Answered(status int) Outcome {
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return Outcome{told: true, failure: fmt.Sprintf("answered %d %s", status, http.StatusText(status))}
	}
	return Outcome{told: true}
}

// ConnectFailed is a request for which no connection could be had: name lookup,
// dial, egress proxy or TLS. One of them makes an endpoint suspect.
func ConnectFailed(err error) Outcome { return failed("no connection", unconnected, err) }

// TimedOut is a request that was not answered within the time of one attempt.
func TimedOut(err error) Outcome { return failed("no answer in time", unanswered, err) }

// Broken is a request whose connection ended before the answer began.
func Broken(err error) Outcome { return failed("connection lost", unanswered, err) }

// failed keeps the text of err without the URL of the request, which
// *url.Error carries and whose query is the caller's business, and without what else
// a connection's error may quote of a request. That comes out before the text is cut.
func failed(what string, c contact, err error) Outcome {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if err != nil {
		text := redact.Text(strings.ToValidUTF8(err.Error(), "?"))
		if len(text) > maxFailureText {
			text = strings.ToValidUTF8(text[:maxFailureText], "") + "…"
		}
		what += ": " + text
	}
	return Outcome{told: true, failure: what, contact: c}
}

// unreachable reports whether the outcome alone makes an endpoint suspect. To a
// probe, whose answer costs nothing to give, silence is as bad as no connection;
// a real request may be slow, or fail for what was asked.
func (o Outcome) unreachable(probed bool) bool {
	return o.contact == unconnected || probed && o.contact == unanswered
}
