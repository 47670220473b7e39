package token

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// maxAnswer bounds the body of Entra's answer. A token with two hundred groups
// takes about 10 KiB.
const maxAnswer = 256 << 10

// errTooLong ends the reading of an answer at maxAnswer.
var errTooLong = errors.New("the answer is too long")

// exchange is one request to Entra ID, as seen from below x/oauth2: it bounds
// the body and keeps what the library hides.
type exchange struct {
	transport http.RoundTripper

	answered    bool
	status      int
	contentType string
	date        time.Time // by the server's clock; zero where it gave none
	retryAfter  time.Duration
	tooLong     bool
	broken      bool // the connection ended within the body
}

// RoundTrip implements http.RoundTripper.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := x.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	x.answered = true
	x.status = resp.StatusCode
	x.contentType, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	x.date, _ = http.ParseTime(resp.Header.Get("Date"))
	x.retryAfter = RetryAfter(resp.Header.Get("Retry-After"), x.date)
	resp.Body = &boundedBody{body: resp.Body, left: maxAnswer, exchange: x}
	return resp, nil
}

// boundedBody fails once more than left bytes have come, where io.LimitReader
// would pass a cut answer off as a whole one.
type boundedBody struct {
	body     io.ReadCloser
	left     int
	exchange *exchange
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if b.left -= n; b.left < 0 {
		b.exchange.tooLong = true
		return 0, errTooLong
	}
	if err != nil && err != io.EOF {
		b.exchange.broken = true
	}
	return n, err
}

func (b *boundedBody) Close() error { return b.body.Close() }

// maxRetryAfter caps what Entra may ask for; a wrong value would else lock a
// tenant out for good.
const maxRetryAfter = 5 * time.Minute

// RetryAfter reads both forms of the header Retry-After (RFC 9110, section
// 10.2.3): 0 where it says nothing, five minutes at most. A date counts from the
// server's own, without which it says nothing.
func RetryAfter(value string, date time.Time) time.Duration {
	// Of a number beyond 64 bits ParseInt gives the nearest.
	if s, err := strconv.ParseInt(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(max(s, 0), int64(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && !date.IsZero() {
		return min(max(at.Sub(date), 0), maxRetryAfter)
	}
	return 0
}
