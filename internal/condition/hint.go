package condition

import (
	"regexp"
	"slices"
	"strings"
)

// input is how the parser names what it did not expect.
var input = regexp.MustCompile(`^Syntax error: (?:token recognition error at|mismatched input|extraneous input):? '(.*?)'(?: expecting |$)`)

// word is what may stand where a text was meant, without its quotes.
var word = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// slipped words a fault of the syntax that is a slip out of another language, by
// what the parser stumbled on; empty for any other. column counts from 0.
func slipped(text, message string, line, column int) string {
	m := input.FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	const spelt = "write && for and, || for or, ! for not"
	before := ""
	if lines := strings.Split(text, "\n"); line >= 1 && line <= len(lines) {
		if r := []rune(lines[line-1]); column <= len(r) {
			before = strings.TrimSpace(string(r[:column]))
		}
	}
	switch got := strings.TrimSpace(m[1]); {
	case got == "=" && strings.HasSuffix(before, "=="):
		return "=== compares nothing; did you mean ==?"
	case got == "=":
		return "= compares nothing; did you mean ==?"
	case got == ">" && strings.HasSuffix(before, "<"):
		return "<> compares nothing; did you mean !=?"
	case slices.Contains([]string{"and", "or", "not", "&", "|"}, strings.ToLower(got)):
		return got + " joins nothing; " + spelt
	case strings.EqualFold(before, "not") || strings.HasSuffix(strings.ToLower(before), " not"):
		return "not negates nothing; " + spelt
	case strings.ContainsAny(got, "“”‘’„"):
		return got + ` is no quote; a text stands in straight ones, as in "Selective"`
	case strings.EqualFold(got, "is"):
		return "is compares nothing; did you mean ==?"
	case word.MatchString(got):
		return "unexpected " + got + `; a text needs quotes, as in "Selective"`
	}
	return ""
}

// hint says what was probably meant by a name that nothing has.
func hint(text, message string) string {
	name, is := strings.CutPrefix(message, "undeclared reference to '")
	if !is {
		return ""
	}
	name, guess, _ := strings.Cut(name, "'")
	first, _, _ := strings.Cut(name, ".")
	switch {
	case first == "request":
		return "; the request has .method, .path, .tenant, .client, .operation and .body"
	case guess != "": // the compiler has one of its own
	case word.MatchString(name) && !strings.Contains(text, name+"("):
		return `; a text needs quotes, as in "` + name + `"`
	}
	return ""
}
