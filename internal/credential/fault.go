package credential

import (
	"errors"
	"strings"
	"unicode/utf8"

	"defender-proxy/internal/token"
)

// misconfigured is the fault of something that a person has to mend.
func misconfigured(sentence, remedy string) *token.Fault {
	return &token.Fault{Kind: token.Misconfigured, Sentence: sentence, Remedy: remedy}
}

// asFault gives err as the fault that it is, or as one of the given sentence
// with the words of err behind it. err must hold no secret.
func asFault(err error, sentence, remedy string) *token.Fault {
	if f, ok := errors.AsType[*token.Fault](err); ok {
		return f
	}
	return misconfigured(sentence+": "+oneLine(err.Error())+".", remedy)
}

// maxWords bounds what is quoted of an error that somebody else wrote, in bytes.
const maxWords = 200

// oneLine makes somebody else's words fit into a sentence: the first line
// without control characters and final full stop, bounded.
func oneLine(words string) string {
	words, _, _ = strings.Cut(strings.TrimSpace(words), "\n")
	words = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, words)
	if len(words) > maxWords {
		cut := maxWords
		for cut > 0 && !utf8.RuneStart(words[cut]) {
			cut--
		}
		words = words[:cut] + "…"
	}
	return strings.TrimRight(words, ". ")
}
