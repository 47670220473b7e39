// Package redact takes what nobody may see out of text on its way to a log, a
// record or a page: tokens, secrets, the signatures of download links, and the
// values of queries.
//
// A secret is known here by its shape or by what stands before it:
//
//   - JSON Web Tokens, and other long opaque tokens,
//   - Entra ID's client secrets, refresh tokens and authorization codes,
//   - what follows Bearer, Basic and their like,
//   - what is called a secret, password, token, signature, key, cookie or
//     authorization, in a form, a query, a header, JSON or Go's own print,
//   - the user and password of a URL, and the values of its query, the
//     parameters of a shared access signature among them,
//   - private keys in PEM.
//
// It is the last net and not the first: secrets have types that print nothing,
// and package token takes those that it knows out of what others say. A secret
// that looks like a word, and stands where no word says what it is, passes.
// Taking out too much is no fault, as long as the text still says what happened.
//
// Package audit calls it for the text of records, proxy for queries, config and
// regions for what they quote, and cmd for the log as a whole. All of it may be called
// concurrently.
package redact

import (
	"math/bits"
	"strings"
)

// mark stands where something was taken out.
const mark = "[redacted]"

// Text gives s with every secret that can be known by its shape, or by the word
// before it, replaced by [redacted]. Text without one is returned as it is, without
// allocation.
func Text(s string) string {
	r := reader{s: withoutKeys(s)}
	return r.text()
}

// Path is Text for the path of an operation that is known: what a write goes to has
// to be seen. So what has only part of a secret's shape stays, and what a name that
// could be any says nothing of; and nothing that goes takes the next segment with it.
func Path(path string) string {
	r := reader{s: path, strict: true}
	return r.text()
}

// reader reads one text. It keeps where runs of bytes end, so that many looks at one
// run cost as much as one, and the whole is linear in the length of the text.
type reader struct {
	s      string
	strict bool // a path, of which only what is certain goes
	runs   [kinds]struct{ from, to int }
	at     struct{ end, last int } // of the word that ends there, its last at sign
}

func (r *reader) text() string {
	s := r.s
	var out []byte
	kept := 0 // as much of s is in out
	run := 0  // where the word at i began
	for i := 0; i < len(s); i++ {
		class := classes[s[i]]
		if class&opaque == 0 {
			run = i + 1
		}
		if class&telling == 0 && i-run != longest-1 {
			continue
		}
		from, to, with := r.find(i, run)
		if from = max(from, kept); to <= from {
			continue
		}
		out = append(append(out, s[kept:from]...), with...)
		kept, run = to, to
		i = to - 1
	}
	if kept == 0 {
		return s
	}
	return string(append(out, s[kept:]...))
}

// longest is the length in bytes from which a word of an opaque alphabet is a
// token whatever it is called. Names of functions, files and hosts are shorter, and
// hashes in hex have no capitals.
const longest = 100

// What a byte may be part of, and what it may be the sign of.
const (
	opaque  = 1 << iota // base64url
	token68             // RFC 9110, section 11.2, percent-encoded too
	segment             // token68 within a segment of a path
	sent                // behind the name of a scheme
	named               // the name of a parameter or member, percent-encoded too
	bare                // a value without quotes
	member              // bare, of an object of JSON
	chunk               // bare, or an ampersand
	line                // anything but a line feed
	field               // of a header: anything but a line's end
	telling             // find looks closer

	kinds = iota
)

var classes = func() (c [256]uint16) {
	for b := range c {
		if b != '\n' {
			c[b] |= line
		}
		if b != '\n' && b != '\r' {
			c[b] |= field
		}
		switch {
		case b <= ' ', b == '"', b == '<', b == '>', b == '`', b == '\\', b == 0x7f:
		case b == '&':
			c[b] |= chunk
		case b == ',', b == '}', b == ']':
			c[b] |= bare | chunk
		default:
			c[b] |= bare | chunk | member
		}
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '_':
			c[b] |= opaque | token68 | segment | sent | named
		case b == '.', b == '%':
			c[b] |= token68 | segment | sent | named
		case b == '~', b == '+', b == '=':
			c[b] |= token68 | segment | sent
		case b == '/':
			c[b] |= token68 | sent
		case b == ':', b == '|':
			c[b] |= sent
		case b == '$', b == '@':
			c[b] |= named
		}
	}
	for _, b := range []byte("J~.=:%?@ +") {
		c[b] |= telling
	}
	return c
}()

// is reports whether the byte at i exists and is of the class.
func is(s string, i int, class uint16) bool { return i >= 0 && i < len(s) && classes[s[i]]&class != 0 }

// past gives the end of the bytes of a class from i on.
func (r *reader) past(i int, class uint16) int {
	run := &r.runs[bits.TrailingZeros16(class)]
	if run.from <= i && i < run.to {
		return run.to
	}
	to := i
	for is(r.s, to, class) {
		to++
	}
	if to > i {
		run.from, run.to = i, to
	}
	return to
}

// find gives what the byte at i shows to be a secret, around it or behind it, and
// what is to stand there; an empty span where there is nothing. run is where the
// opaque word at i began.
func (r *reader) find(i, run int) (from, to int, with string) {
	from, to, with = r.look(i, run)
	if r.strict && to > from {
		if n := strings.IndexByte(r.s[from:to], '/'); n >= 0 {
			to = from + n
		}
	}
	return from, to, with
}

func (r *reader) look(i, run int) (from, to int, with string) {
	s, with := r.s, mark
	switch c := s[i]; c {
	case '@':
		if !r.strict {
			from, to = userinfoAlone(s, i)
		}
	case ' ', '+':
		from, to = r.afterScheme(i, i+1)
	case '=':
		return r.value(i, i+1)
	case ':':
		from, to = r.afterColon(i, i+1)
	case '?':
		if !r.strict { // a path has none
			return r.queryOf(i)
		}
	case '%':
		switch {
		case isEscape(s, i, '='):
			return r.value(i, i+3)
		case isEscape(s, i, ':'):
			from, to = r.afterColon(i, i+3)
		case isEscape(s, i, ' '):
			from, to = r.afterScheme(i, i+3)
		default:
			from, to = r.shape(i)
		}
	default:
		from, to = r.shape(i)
	}
	if to <= from && i-run == longest-1 {
		from, to = r.longWord(run)
	}
	return from, to, with
}

// shape finds what is a secret by its own shape, around the byte at i.
func (r *reader) shape(i int) (from, to int) {
	switch c := r.s[i]; {
	case c == 'J':
		return r.jwt(i)
	case c == '~':
		return r.clientSecret(i, i+1)
	case c == '.':
		return r.refreshToken(i)
	case c == '%' && isEscape(r.s, i, '~'):
		return r.clientSecret(i, i+3)
	}
	return 0, 0
}

// afterColon finds what is secret behind the colon at i, which ends before after.
func (r *reader) afterColon(i, after int) (from, to int) {
	if from, to = r.userinfo(i, after); to > from {
		return from, to
	}
	return r.member(i, after)
}

// isEscape reports whether the percent sign at i begins the escape of a byte.
func isEscape(s string, i int, of byte) bool {
	if i+2 >= len(s) {
		return false
	}
	b, ok := unhex(s[i+1], s[i+2])
	return ok && b == of
}

// unhex gives the byte of two hex digits.
func unhex(hi, lo byte) (byte, bool) {
	h, l := hexDigit(hi), hexDigit(lo)
	return h<<4 | l&15, h < 16 && l < 16
}

// hexDigit gives the value of a hex digit; 16 for any other character.
func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

// Short bounds what a caller can put into a record or a message. Secrets come
// out first: nobody would know half of one by its shape. So that nobody's long text
// takes long, they are looked for in its beginning, up to a word that is cut off.
func Short(s string) string {
	const most, judged = 256, 4 << 10
	if len(s) <= most {
		return s
	}
	end := ""
	if len(s) > judged {
		s, end = s[:strings.LastIndexAny(s[:judged], " /")+1], "…"
	}
	if s = Text(s); len(s) > most {
		s, end = s[:most], "…"
	}
	return s + end
}
