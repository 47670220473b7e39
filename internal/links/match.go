package links

import (
	"bytes"
	"strings"
)

// marker begins the name of every member that is rewritten. Names never
// overlap, since @ stands at the start only.
var marker = []byte("@odata.")

// member is a name that a key ends with, without the marker and with the quote
// that closes the key.
type member struct {
	name    string
	context bool
}

var members = []member{
	{name: `nextLink"`},
	{name: `context"`, context: true},
	{name: `deltaLink"`},
}

// maxHeld bounds, in bytes, what is looked at to decide about one member: from
// the marker to the end of the link's path. That is room for the longest path that
// the proxy takes, 8 KiB, for a host, and for some hundred slashes that are escaped.
// A member that needs more passes untouched. The query, where long tokens live, is
// not looked at, so its length does not matter.
const maxHeld = 10 << 10

// verdict is what is known of a member. The zero value leaves it alone.
type verdict int

const (
	leave   verdict = iota
	rewrite         // the link is one of ours
	more            // bytes are missing to tell
)

// match judges the member whose name begins with the marker that data starts
// with. On rewrite, data[at:end] is the scheme and authority to replace. Only
// the first maxHeld bytes count, so the verdict is the same however data arrives.
//
// No parser is needed to know that the marker stands in a key: in valid JSON
// the bytes @odata.nextLink" : " can be nothing but the end of a key followed
// by a string. The first quote is not escaped, since k stands before it, so it
// opens or closes a string. It does not open one, since letters stand before it
// that no JSON has outside of a string. So it closes one, and a string followed
// by a colon is a key. The second quote then opens the member's value.
// FuzzReader holds this against encoding/json.
//
// A key that spells the name itself with escapes (\u0040odata.nextLink) is not
// recognised; no known serialiser writes it so.
func match(data []byte) (at, end int, v verdict) {
	full := len(data) >= maxHeld
	data = data[:min(len(data), maxHeld)]
	at, context, v := value(data)
	if v == rewrite {
		end, v = origin(data[at:], context)
		end += at
	}
	if v == more && full {
		v = leave
	}
	return at, end, v
}

// value finds where the string begins that belongs to the member at the start
// of data, just after its quote. The verdict is rewrite when there is one.
func value(data []byte) (at int, context bool, v verdict) {
	rest := data[len(marker):]
	for _, m := range members {
		head := rest[:min(len(rest), len(m.name))]
		if string(head) != m.name[:len(head)] {
			continue
		}
		if len(head) < len(m.name) {
			return 0, false, more
		}
		at = len(marker) + len(m.name)
		for _, c := range []byte(`:"`) {
			at += space(data[at:])
			if at == len(data) {
				return 0, false, more
			}
			if data[at] != c {
				return 0, false, leave
			}
			at++
		}
		return at, m.context, rewrite
	}
	return 0, false, leave
}

// space counts the white space, as JSON knows it, that data begins with.
func space(data []byte) int {
	return len(data) - len(bytes.TrimLeft(data, " \t\r\n"))
}

// origin measures the scheme and authority of the URL that value begins with, a
// JSON string without its opening quote. The verdict is rewrite when the URL is
// absolute and its path one of ours.
func origin(value []byte, context bool) (end int, v verdict) {
	s := scanner{data: value}
	for _, c := range []byte("http") {
		if !s.accept(c) {
			return 0, s.failed()
		}
	}
	s.accept('s')
	for _, c := range []byte("://") {
		if !s.accept(c) {
			return 0, s.failed()
		}
	}
	start := s.at
	for plain(s.peek()) {
		s.skip()
	}
	if s.at == start || s.peek() != '/' {
		return 0, s.failed()
	}
	end = s.at // before ours moves s on
	return end, ours(&s, context)
}

// ours judges the path at s, up to the query, the fragment or the end of the
// string. Ours are, without regard to ASCII case,
//
//	/api and below
//	/v1.0/security and below
//	/v1.0 and below in a context, where Graph writes /v1.0/$metadata#…
//
// An empty segment that is not the last, a dot segment (percent-encoded or not),
// a backslash, a control or a character beyond ASCII makes a path that two
// readers may read differently: not ours.
func ours(s *scanner, context bool) verdict {
	var (
		segment [len("security") + 1]byte
		found   bool
		first   string
	)
	for n := 0; s.accept('/'); n++ {
		length := 0
		for c := s.peek(); plain(c); c = s.peek() {
			if length < len(segment) {
				segment[length] = lower(byte(c))
				length++
			}
			s.skip()
		}
		c := s.peek()
		if c == missing || c == odd {
			return s.failed()
		}
		switch string(segment[:length]) {
		case "":
			if c == '/' {
				return leave
			}
		case ".", "..", "%2e", ".%2e", "%2e.", "%2e%2e":
			return leave
		case "api":
			found = found || n == 0
		case "v1.0":
			if n == 0 {
				first = "v1.0"
				found = context
			}
		case "security":
			found = found || n == 1 && first == "v1.0"
		}
	}
	if !found {
		return leave
	}
	return rewrite
}

// plain reports whether c belongs to an authority or to a segment of a path.
func plain(c rune) bool {
	return c > ' ' && c < 0x7f && c != '/' && c != '?' && c != '#'
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// What a scanner sees besides characters.
const (
	missing rune = -1 // the data ends within the string
	closing rune = -2 // the quote that ends the string
	odd     rune = -3 // no character of a URL, or no JSON
)

// scanner reads the characters of a JSON string, escaped or not.
type scanner struct {
	data []byte
	at   int
}

// accept steps over the character want, in either letter case, if it is next.
func (s *scanner) accept(want byte) bool {
	c := s.peek()
	if c < 0 || lower(byte(c)) != want {
		return false
	}
	s.skip()
	return true
}

func (s *scanner) skip() {
	_, n := decode(s.data[s.at:])
	s.at += n
}

func (s *scanner) peek() rune {
	c, _ := decode(s.data[s.at:])
	return c
}

// failed is the verdict when the next character is not the one hoped for.
func (s *scanner) failed() verdict {
	if s.peek() == missing {
		return more
	}
	return leave
}

// decode returns the character that data begins with and how many bytes it
// takes. Only printable ASCII without space, quote and backslash comes out as
// itself, for a URL holds nothing else.
func decode(data []byte) (rune, int) {
	if len(data) == 0 {
		return missing, 0
	}
	c := data[0]
	switch {
	case c == '"':
		return closing, 0
	case c == '\\':
		return unescape(data)
	case c <= ' ' || c >= 0x7f:
		return odd, 0
	}
	return rune(c), 1
}

// unescape is decode for data that begins with a backslash.
func unescape(data []byte) (rune, int) {
	if len(data) < 2 {
		return missing, 0
	}
	if data[1] == '/' {
		return '/', 2
	}
	if data[1] != 'u' {
		return odd, 0
	}
	var c rune
	for i := 2; i < 6; i++ {
		if i == len(data) {
			return missing, 0
		}
		digit := strings.IndexByte("0123456789abcdef", lower(data[i]))
		if digit < 0 {
			return odd, 0
		}
		c = c<<4 | rune(digit)
	}
	if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
		return odd, 0
	}
	return c, 6
}
