package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"defender-proxy/internal/token"
)

// maxSDKAnswer bounds the body of an answer of Key Vault, of a machine's
// identity or of Entra ID, in bytes. Secrets have at most 25 KiB.
const maxSDKAnswer = 256 << 10

var errSDKAnswerTooLong = errors.New("the answer is too long")

// sighting is what was seen of the requests of one call into Azure's SDK. The
// SDK's own errors quote whole bodies and are for no log; this is what sentences
// are made from instead. It holds no token and no secret.
type sighting struct {
	mu sync.Mutex
	seen
}

type seen struct {
	requests int
	host     string // of the last request
	err      error  // of the last request, where no answer came
	// The rest is of the last answer.
	status     int
	retryAfter time.Duration
	date       time.Time // by the other side's clock; zero where it gave none
	challenge  string    // WWW-Authenticate
	codes      []string  // error codes, outer before inner: plain words without space
	aadsts     int
	// expiresIn and expiresOn are a token's life, zero where the answer is silent.
	expiresIn time.Duration
	expiresOn time.Time
}

func (s *sighting) last() seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// is reports whether the answer gave one of the error codes.
func (s seen) is(code string) bool {
	for _, c := range s.codes {
		if strings.EqualFold(c, code) {
			return true
		}
	}
	return false
}

// code is the innermost error code in brackets, for a sentence.
func (s seen) code() string {
	if len(s.codes) == 0 {
		return ""
	}
	return " (" + s.codes[len(s.codes)-1] + ")"
}

type sightingKey struct{}

// watch makes a context whose requests are noted.
func watch(ctx context.Context) (context.Context, *sighting) {
	s := &sighting{}
	return context.WithValue(ctx, sightingKey{}, s), s
}

// watched notes the requests of contexts made by watch, and bounds answers.
type watched struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	s, _ := r.Context().Value(sightingKey{}).(*sighting)
	if s == nil {
		s = &sighting{}
	}
	resp, err := w.base.RoundTrip(r)
	var body []byte
	if err == nil {
		body, err = readAnswer(resp)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = seen{requests: s.requests + 1, host: r.URL.Host, err: err}
	if err != nil {
		return nil, err
	}
	s.status = resp.StatusCode
	s.challenge = resp.Header.Get("WWW-Authenticate")
	s.date, _ = http.ParseTime(resp.Header.Get("Date"))
	s.retryAfter = token.RetryAfter(resp.Header.Get("Retry-After"), s.date)
	s.read(body)
	return resp, nil
}

// readAnswer takes the whole body in, so that a lie about its length fails here,
// and leaves a copy for the SDK.
func readAnswer(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSDKAnswer+1))
	if err == nil && len(body) > maxSDKAnswer {
		err = errSDKAnswerTooLong
	}
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return body, nil
}

var plainCode = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// read picks out of an answer what may be told: codes and lifetimes. Entra ID
// and IMDS give error as a string, Key Vault as an object.
func (s *seen) read(body []byte) {
	type nested struct {
		Code  string          `json:"code"`
		Inner json.RawMessage `json:"innererror"`
	}
	var answer struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
		ExpiresOn   json.RawMessage `json:"expires_on"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return
	}
	if n, ok := wholeNumber(answer.ExpiresIn); ok && n < 1<<32 {
		s.expiresIn = time.Duration(n) * time.Second
	}
	if n, ok := wholeNumber(answer.ExpiresOn); ok && n < 1<<36 {
		s.expiresOn = time.Unix(n, 0)
	}
	s.aadsts = token.AADSTS(answer.Description)
	var text string
	if json.Unmarshal(answer.Error, &text) == nil && plainCode.MatchString(text) {
		s.codes = append(s.codes, text)
		return
	}
	for level, raw := 0, answer.Error; level < 4 && len(raw) > 0; level++ {
		var n nested
		if json.Unmarshal(raw, &n) != nil {
			return
		}
		if plainCode.MatchString(n.Code) {
			s.codes = append(s.codes, n.Code)
		}
		raw = n.Inner
	}
}

// wholeNumber reads a number above 0 that may stand in quotes, as IMDS puts it.
func wholeNumber(raw json.RawMessage) (int64, bool) {
	n, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	return n, err == nil && n > 0
}

// sdkOptions are the settings of every client of Azure's SDK: our transport, no
// redirects, no telemetry in User-Agent, and few tries, since whoever asks for
// the token backs off by himself.
func sdkOptions(transport http.RoundTripper, authority string, retry policy.RetryOptions) azcore.ClientOptions {
	o := azcore.ClientOptions{
		Transport: &http.Client{
			Transport: watched{transport},
			// A redirect would carry a token to wherever it points.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Retry:     retry,
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
	if authority != "" {
		o.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: authority}
	}
	return o
}

// noAnswer puts into words why no answer came.
func noAnswer(ctx context.Context, s seen) string {
	switch {
	case s.err == nil, errors.Is(s.err, context.DeadlineExceeded), ctx.Err() != nil:
		return "it did not answer in time"
	case errors.Is(s.err, io.ErrUnexpectedEOF), errors.Is(s.err, io.EOF):
		return "the connection ended within the answer"
	}
	return oneLine(s.err.Error())
}
