package token

import (
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind sorts the reasons for which there is no token.
type Kind int

// The kinds. The zero value is Internal, a bug.
const (
	Internal      Kind = iota
	Misconfigured      // the credential cannot be used as it stands: an unreadable or empty secret, a bad authority
	Rejected           // Entra ID said no, and will until somebody changes something
	Unavailable        // Entra ID answered that it cannot now: 429, 5xx or a transient code
	Unreachable        // no answer: network, TLS, egress proxy, time-out
	BadAnswer          // an answer that is not a token for what was asked
	Stopped            // Run has ended, or the tenant is no longer configured
)

// String is a word for logs and metric labels.
func (k Kind) String() string {
	switch k {
	case Misconfigured:
		return "misconfigured"
	case Rejected:
		return "rejected"
	case Unavailable:
		return "unavailable"
	case Unreachable:
		return "unreachable"
	case BadAnswer:
		return "bad_answer"
	case Stopped:
		return "stopped"
	}
	return "internal"
}

// MarshalText gives the word of String.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Error says why there is no token. It holds cleaned words only, never a
// secret, a token, a raw body or the error that caused it, so it may be shown
// to callers and logged in any format.
type Error struct {
	Kind Kind `json:"kind"`
	// Tenant is the tenant's configured name.
	Tenant   string `json:"tenant"`
	Audience string `json:"audience"`
	// AADSTS is Entra's error code without its letters, 0 where it gave none.
	AADSTS int `json:"aadsts,omitempty"`
	// Status is the HTTP status of Entra's answer, 0 where none came.
	Status int `json:"status,omitempty"`
	// Sentence says what happened and Remedy what to do about it, each in whole
	// sentences.
	Sentence string `json:"sentence"`
	Remedy   string `json:"remedy"`
	// ConsentURL is where an administrator of the tenant consents, set where that
	// is the remedy.
	ConsentURL string `json:"consent_url,omitempty"`
	// RetryAfter is how long Bearer will repeat this error before it asks Entra
	// again; 0 where it does not hold back.
	RetryAfter time.Duration `json:"-"`

	// guarded failures are not tried again soon: they lock an account.
	guarded bool
}

// Error gives sentence and remedy, after what was being done.
func (e *Error) Error() string {
	return "token: tenant " + e.Tenant + ", audience " + e.Audience + ": " + e.Sentence + " " + e.Remedy
}

// maxQuote bounds what is quoted of others' words, in bytes.
const maxQuote = 240

// without takes secrets out of somebody else's words, as they stand and as a
// form carries them: a server, or a file's error, may repeat what it was given.
func without(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.NewReplacer(secret, redacted, url.QueryEscape(secret), redacted).Replace(text)
		}
	}
	return text
}

// quote makes somebody else's words fit for an error: without the secrets,
// without a token, bounded, and in Go's quotes so that no control character
// gets into a log.
func quote(text string, secrets []string) string {
	text = without(text, secrets)
	// Every JWT begins so, it being the base64 of {" .
	if i := strings.Index(text, "eyJ"); i >= 0 {
		text = text[:i] + redacted
	}
	if len(text) > maxQuote {
		cut := maxQuote
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	return strconv.Quote(text)
}
