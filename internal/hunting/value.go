package hunting

// maxDepth is how deep values may lie within each other; encoding/json has the
// same bound.
const maxDepth = 10_000

// state is what a value goes on with.
type state uint8

const (
	begin      state = iota // a value
	beginOrEnd              // a value, or the end of an array
	key                     // a member's name
	keyOrEnd                // the same, or the end of an object
	colon                   // the colon behind it
	next                    // a comma, or the end of what is open
	text                    // inside a string
	escape                  // behind its backslash
	hex                     // in the four digits behind \u
	minus                   // a digit behind the sign
	zero                    // a number that began with 0
	digits                  // a number's digits
	point                   // a digit behind the point
	fraction                // the digits behind it
	exponent                // a sign or a digit behind the e
	sign                    // a digit behind the sign
	power                   // the digits of the exponent
	word                    // the rest of true, false or null
	complete                // nothing
)

// value reads one JSON value (RFC 8259) in pieces, as they come, and holds nothing
// of it but what is open. The zero value reads any value; with state set to key it
// reads a string.
type value struct {
	state state
	open  []byte // of '{' and '[', the innermost last
	name  bool   // the string is a member's name
	left  int    // of the digits behind \u
	rest  string // of the word
}

// reset makes v read another value.
func (v *value) reset() { *v = value{open: v.open[:0]} }

// plain are the bytes of which a string is made but for its end and its escapes.
var plain = func() (t [256]bool) {
	for c := 0x20; c < len(t); c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// take reads on and gives how many bytes of data belong to the value. done says
// that it is complete: a number is when something else follows it. ok is false
// where data is no JSON from there on.
func (v *value) take(data []byte) (n int, done, ok bool) {
	for n < len(data) {
		c := data[n]
		switch v.state {
		case text:
			for n < len(data) && plain[data[n]] {
				n++
			}
			if n == len(data) {
				return n, false, true
			}
			switch data[n] {
			case '"':
				n++
				if v.name {
					v.name, v.state = false, colon
					if len(v.open) == 0 {
						v.state = complete // a name alone
						return n, true, true
					}
					continue
				}
				if v.ended() {
					return n, true, true
				}
				continue
			case '\\':
				v.state = escape
			default:
				return n, false, false // a control character
			}
		case escape:
			switch c {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				v.state = text
			case 'u':
				v.state, v.left = hex, 4
			default:
				return n, false, false
			}
		case hex:
			if !isHex(c) {
				return n, false, false
			}
			if v.left--; v.left == 0 {
				v.state = text
			}
		case word:
			if c != v.rest[0] {
				return n, false, false
			}
			if v.rest = v.rest[1:]; v.rest == "" {
				n++
				if v.ended() {
					return n, true, true
				}
				continue
			}
		case minus, zero, digits, point, fraction, exponent, sign, power:
			after, inside := numeral(v.state, c)
			switch {
			case inside:
				v.state = after
			case v.state == minus || v.state == point || v.state == exponent || v.state == sign:
				return n, false, false
			default:
				if v.ended() {
					return n, true, true
				}
				continue // c is of what comes next
			}
		default:
			if isSpace(c) {
				n++
				continue
			}
			if !v.token(c) {
				return n, false, false
			}
			if v.state == complete {
				return n + 1, true, true
			}
		}
		n++
	}
	return n, false, true
}

// token reads a byte between values.
func (v *value) token(c byte) bool {
	switch {
	case (v.state == begin || v.state == beginOrEnd) && v.start(c):
		return true
	case (v.state == key || v.state == keyOrEnd) && c == '"':
		v.state, v.name = text, true
	case v.state == colon && c == ':':
		v.state = begin
	case v.state == next && c == ',' && v.open[len(v.open)-1] == '{':
		v.state = key
	case v.state == next && c == ',':
		v.state = begin
	case (v.state == next || v.state == keyOrEnd) && c == '}' && v.open[len(v.open)-1] == '{',
		(v.state == next || v.state == beginOrEnd) && c == ']' && v.open[len(v.open)-1] == '[':
		v.open = v.open[:len(v.open)-1]
		v.ended()
	default:
		return false
	}
	return true
}

// start reads a value's first byte.
func (v *value) start(c byte) bool {
	switch {
	case c == '{' || c == '[':
		if len(v.open) == maxDepth {
			return false
		}
		v.open = append(v.open, c)
		v.state = keyOrEnd
		if c == '[' {
			v.state = beginOrEnd
		}
	case c == '"':
		v.state = text
	case c == '-':
		v.state = minus
	case c == '0':
		v.state = zero
	case '1' <= c && c <= '9':
		v.state = digits
	case c == 't':
		v.state, v.rest = word, "rue"
	case c == 'f':
		v.state, v.rest = word, "alse"
	case c == 'n':
		v.state, v.rest = word, "ull"
	default:
		return false
	}
	return true
}

// ended goes on behind a value, and reports whether it was the whole.
func (v *value) ended() bool {
	if len(v.open) == 0 {
		v.state = complete
		return true
	}
	v.state = next
	return false
}

// numeral gives what a number goes on with behind c, and whether c is of it.
func numeral(s state, c byte) (state, bool) {
	digit := '0' <= c && c <= '9'
	switch s {
	case minus:
		if c == '0' {
			return zero, true
		}
		return digits, digit
	case zero, digits, fraction:
		switch {
		case c == '.' && s != fraction:
			return point, true
		case c == 'e' || c == 'E':
			return exponent, true
		}
		return s, digit && s != zero
	case point:
		return fraction, digit
	case exponent:
		if c == '+' || c == '-' {
			return sign, true
		}
		return power, digit
	}
	return power, digit
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
