package credential

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"defender-proxy/internal/token"
)

const redacted = "[redacted]"

// Value reads a secret as it is now. It returns soon after ctx ends, and may be
// called concurrently. Its error is a *token.Fault.
type Value func(ctx context.Context) (Secret, error)

// Secret is what a Value read. Whatever way it is printed, it shows
// [redacted].
type Secret struct {
	// Text is the secret itself.
	Text string
	// Expires is when it ends by what its keeper says; zero where nobody says so.
	Expires time.Time
	// Version is the keeper's name for this state of the secret; empty where it
	// has none. It is no secret.
	Version string

	// kind is the word for token.Health, and notice what the keeper has to say.
	kind, notice string
	// judged tells the keeper whether Entra ID took the text; nil where the keeper
	// does not care.
	judged func(taken bool)
}

// String gives [redacted].
func (Secret) String() string { return redacted }

// GoString gives [redacted].
func (Secret) GoString() string { return redacted }

// Format prints [redacted] for every verb.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// MarshalJSON gives "[redacted]".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// veiled keeps a secret where printing does not look: fmt follows pointers and
// unexported fields, some verbs even nested ones, but never a function. The zero
// value is empty.
type veiled func() string

func veil(text string) veiled { return func() string { return text } }

func (h veiled) text() string {
	if h == nil {
		return ""
	}
	return h()
}

// Plain is the Value of an environment variable or a file. read is called each
// time; its error names the place and never the content, and becomes a
// *token.Fault of kind Misconfigured. A mark of UTF-8 in front is left out.
func Plain(read func() (string, error)) Value {
	return func(context.Context) (Secret, error) {
		text, err := read()
		if err != nil {
			return Secret{}, asFault(err, "The secret cannot be read", "Make it readable for the proxy, or correct where the configuration looks for it.")
		}
		return Secret{Text: strings.TrimPrefix(text, string(markUTF8)), kind: kindClientSecret}, nil
	}
}

// patience is how long to wait for a secret while another one is at hand: at most
// most, and at most the given part of the time that ctx leaves, for the exchange
// with Entra ID has to fit into the rest.
func patience(ctx context.Context, most time.Duration, part int) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)/time.Duration(part))
	}
	return max(most, 0)
}

// checkSecret finds what no client secret looks like and what an editor, an
// echo or a here-document leaves behind. Entra's secrets hold no white space.
func checkSecret(name, text string) *token.Fault {
	const store = "Store the secret's value alone, on one line, with nothing around it: with printf '%s' instead of echo, for example."
	switch {
	case text == "":
		return misconfigured("The "+name+" is empty.", "Put the secret's value into the file, the variable or the vault that the configuration names.")
	case strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "\xfe\xff"), strings.Contains(text, "\x00"):
		return misconfigured("The "+name+" is text in UTF-16, or not text at all.", "Save it in UTF-8 or ASCII, as Set-Content -Encoding ascii does in PowerShell.")
	case strings.TrimSpace(text) != text:
		return misconfigured("The "+name+" has white space or a line end around it.", store)
	case strings.ContainsAny(text, "\r\n"):
		return misconfigured("The "+name+" has several lines.", store)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unseen):
		return misconfigured("The "+name+" has a space or a character that cannot be seen within it.", store)
	}
	return nil
}

// unseen reports whether a character leaves no mark on paper.
func unseen(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) }
