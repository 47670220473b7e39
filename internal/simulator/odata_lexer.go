package simulator

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// tokenKind is what a word of a $filter is.
type tokenKind uint8

const (
	tokEnd     tokenKind = iota
	tokWord              // property, operator, function, true, false, null
	tokLiteral           // string, number or time
	tokMark              // ( ) , : /
)

// token is a word of a $filter with its place.
type token struct {
	kind  tokenKind
	text  string
	value any // of a literal: string, float64 or time.Time
	at    int
}

var (
	dateTime = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,12})?)?(Z|[+-]\d{2}:\d{2})?)?$`)
	number   = regexp.MustCompile(`^-?\d+(\.\d+)?([eE][+-]?\d+)?$`)
)

// lex cuts a $filter into words.
func lex(s string) ([]token, *problem) {
	var out []token
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t':
			i++
		case strings.IndexByte("(),:/", c) >= 0:
			out = append(out, token{kind: tokMark, text: s[i : i+1], at: i})
			i++
		case c == '\'':
			value, end, ok := lexString(s, i)
			if !ok {
				return nil, odataProblem("There is an unterminated string literal at position %d in '%s'.", i, s)
			}
			out = append(out, token{kind: tokLiteral, text: s[i:end], value: value, at: i})
			i = end
		case isDigit(c) || c == '-':
			end := i + 1
			for end < len(s) && (isLetter(s[end]) || isDigit(s[end]) || strings.IndexByte(".:+-", s[end]) >= 0) {
				end++
			}
			value, ok := lexNumber(s[i:end])
			if !ok {
				return nil, odataProblem("Unrecognized literal '%s' at position %d in '%s'.", s[i:end], i, s)
			}
			out = append(out, token{kind: tokLiteral, text: s[i:end], value: value, at: i})
			i = end
		case isLetter(c) || c == '_' || c == '@':
			end := i + 1
			for end < len(s) && (isLetter(s[end]) || isDigit(s[end]) || s[end] == '_' || s[end] == '.') {
				end++
			}
			out = append(out, token{kind: tokWord, text: s[i:end], at: i})
			i = end
		default:
			return nil, odataProblem("Syntax error: character '%s' is not valid at position %d in '%s'.", string(rune(c)), i, s)
		}
	}
	return append(out, token{kind: tokEnd, at: len(s)}), nil
}

// lexString reads a quoted string; two quotes stand for one.
func lexString(s string, from int) (value string, end int, ok bool) {
	var b strings.Builder
	for i := from + 1; i < len(s); i++ {
		if s[i] != '\'' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		return b.String(), i + 1, true
	}
	return "", 0, false
}

// lexNumber reads a number or a time, which OData writes without quotes.
func lexNumber(s string) (any, bool) {
	if number.MatchString(s) {
		f, err := strconv.ParseFloat(s, 64)
		return f, err == nil
	}
	if !dateTime.MatchString(s) {
		return nil, false
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return nil, false
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
