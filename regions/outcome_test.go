package regions

import (
	"errors"
	"strings"
	"testing"
)

// A transport's error may quote the request, a header of it too. What is kept goes to
// the log, to records and to /-/regions.
func TestAFailureIsKeptWithoutSecrets(t *testing.T) {
	const token = "eyJhbGciOiJub25lIn0.eyJhIjoiYiJ9.c2lnbmF0dXJl"
	for _, c := range []struct{ err, want string }{
		{"read: connection reset by peer", "connection lost: read: connection reset by peer"},
		{"malformed header Authorization: Bearer " + token, "connection lost: malformed header Authorization: [redacted]"},
		{`cannot send GET https://h/api/alerts?$filter=hunter2&sig=hunter2: EOF`, "connection lost: cannot send GET https://h/api/alerts?$filter=[redacted]&sig=[redacted] EOF"},
		{`proxy said "client_secret=hunter2"`, `connection lost: proxy said "client_secret=[redacted]"`},
		// The cut leaves no half of one.
		{strings.Repeat("x", 190) + " " + token, "connection lost: " + strings.Repeat("x", 190) + " [redacted…"},
	} {
		if got := Broken(errors.New(c.err)).failure; got != c.want {
			t.Errorf("of %s\ngot  %s\nwant %s", c.err, got, c.want)
		}
	}
}
