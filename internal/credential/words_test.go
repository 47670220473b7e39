package credential

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWhatOthersSayIsMadeFitForASentence(t *testing.T) {
	for words, want := range map[string]string{
		" it failed. \n":             "it failed",
		"one line\nanother":          "one line",
		"a bell\a, an escape\x1b[1m": "a bell , an escape [1m",
		"deleted\x7f and broken\xff": "deleted  and broken",
	} {
		if got := oneLine(words); got != want {
			t.Errorf("%q becomes %q, want %q", words, got, want)
		}
	}
	for _, long := range []string{strings.Repeat("a", 5000), "a" + strings.Repeat("ü", 5000)} {
		if got := oneLine(long); len(got) > maxWords+len("…") || len(got) < maxWords-4 || !utf8.ValidString(got) || !strings.HasSuffix(got, "…") {
			t.Errorf("%d bytes become %d: %q", len(long), len(got), got)
		}
	}
}

func TestAnAnswersLifetimesThatCannotBeAreLeftOut(t *testing.T) {
	for body, want := range map[string]struct {
		in, on bool
	}{
		`{"expires_in":"3600","expires_on":"1795262400"}`:                {true, true},
		`{"expires_in":3600,"expires_on":1795262400}`:                    {true, true},
		`{"expires_in":0,"expires_on":-1}`:                               {false, false},
		`{"expires_in":4294967296,"expires_on":68719476736}`:             {false, false},
		`{"expires_in":9223372036854775807,"expires_on":1e9}`:            {false, false},
		`{"expires_in":"soon","expires_on":"11/21/2026 12:00:00 +0000"}`: {false, false},
	} {
		if !json.Valid([]byte(body)) {
			t.Fatal(body)
		}
		var s seen
		s.read([]byte(body))
		if s.expiresIn > 0 != want.in || s.expiresOn.IsZero() == want.on || s.expiresIn < 0 {
			t.Errorf("%s gives %v and %v, want them known: %v and %v", body, s.expiresIn, s.expiresOn, want.in, want.on)
		}
	}
}
