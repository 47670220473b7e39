package redact

import "strings"

// What a name says of the value behind it.
type sort uint8

const (
	plain  sort = iota
	loose       // a secret where it is written as a parameter or member, not in a sentence
	secret      // a secret in any case
	header      // the rest of the line is one
)

// endings are how the names of secrets end, in small letters and without marks
// between their words, so that client_secret, ClientSecret, CONTOSO_SECRET and
// X-Client-Secret are one.
var endings = []struct {
	name string
	sort sort
}{
	{"secret", secret}, {"password", secret}, {"passwd", secret}, {"passphrase", secret}, {"pwd", secret},
	{"accesstoken", secret}, {"refreshtoken", secret}, {"idtoken", secret}, {"authtoken", secret}, {"sastoken", secret}, {"bearertoken", secret},
	{"assertion", secret}, {"privatekey", secret}, {"apikey", secret}, {"accesskey", secret}, {"accountkey", secret}, {"localkey", secret},
	{"functionskey", secret}, {"subscriptionkey", secret}, {"devicecode", secret}, {"codeverifier", secret}, {"authorizationcode", secret},
	{"token", loose}, {"jwt", loose}, {"signature", loose}, {"sig", loose},
	{"authorization", header}, {"cookie", header},
}

// sortOf gives what a name says, percent-encoded or not.
func sortOf(name string) sort {
	var buf [48]byte
	n := len(buf) // the end of a name decides, so it is read from there
	for i := len(name); i > 0 && n > 0; {
		i--
		c := name[i]
		if i >= 2 && name[i-2] == '%' {
			if d, ok := unhex(name[i-1], name[i]); ok {
				c, i = d, i-2
			}
		}
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		default:
			continue
		}
		n--
		buf[n] = c
	}
	if n == len(buf) {
		return plain
	}
	for _, e := range endings {
		if last := len(buf) - len(e.name); last >= n && string(buf[last:]) == e.name {
			return e.sort
		}
	}
	return plain
}

// nameBefore gives the name that ends at end, after white space and one quote, and
// where it begins. quoted says that there was a quote.
func nameBefore(s string, end int) (name string, begin int, quoted bool) {
	const most = 128
	end = skipSpaceBack(s, end)
	if q := quoteBefore(s, end); q < end {
		end, quoted = q, true
	}
	begin = end
	for end-begin < most && is(s, begin-1, named) {
		begin--
	}
	const ampersand = "u0026"
	if begin > 0 && s[begin-1] == '\\' && strings.HasPrefix(s[begin:end], ampersand) {
		begin += len(ampersand)
	}
	return s[begin:end], begin, quoted
}

func skipSpaceBack(s string, end int) int {
	for n := 0; n < 4 && end > 0 && (s[end-1] == ' ' || s[end-1] == '\t'); n++ {
		end--
	}
	return end
}

// quotes are the ways in which others write a quotation mark.
var quotes = []string{`\u0022`, `\u0027`, "%22", "%27", "&quot;", "&#34;"}

// quoteBefore gives where the quotation mark that ends at end begins, with the
// backslashes before it; end where there is none.
func quoteBefore(s string, end int) int {
	if end == 0 {
		return end
	}
	if c := s[end-1]; c == '"' || c == '\'' || c == '`' {
		for end--; end > 0 && s[end-1] == '\\'; {
			end--
		}
		return end
	}
	for _, q := range quotes {
		if strings.HasSuffix(s[:end], q) {
			return end - len(q)
		}
	}
	return end
}

// quoteAt gives the quotation mark at i, with the backslashes before it.
func quoteAt(s string, i int) string {
	n := i
	for n < len(s) && s[n] == '\\' {
		n++
	}
	if n < len(s) && (s[n] == '"' || s[n] == '\'' || s[n] == '`') {
		return s[i : n+1]
	}
	for _, q := range quotes {
		if strings.HasPrefix(s[i:], q) {
			return q
		}
	}
	return ""
}

// endOfQuoted gives the end of a text that began with a quotation mark before i:
// where the same mark comes again, as deeply escaped and no deeper, or where the
// text around it or the line ends.
func (r *reader) endOfQuoted(i int, quote string) int {
	s, end := r.s, r.past(i, line)
	mark := quote[len(quote)-1]
	depth := len(quote) - 1 // backslashes
	if mark != '"' && mark != '\'' && mark != '`' {
		if n := strings.Index(s[i:end], quote); n >= 0 {
			return i + n
		}
		return end
	}
	for slashes := 0; i < end; i++ {
		switch s[i] {
		case '\\':
			slashes++
			continue
		case mark:
			// Inside, each backslash and quotation mark has depth+1 backslashes more.
			if slashes < depth || (slashes-depth)/(depth+1)%2 == 0 {
				return i - min(slashes, depth)
			}
		}
		slashes = 0
	}
	return end
}

// value finds what stands behind the equals sign at i, which ends before after:
// the value of a query's parameter, or of one whose name is a secret's.
func (r *reader) value(i, after int) (from, to int, with string) {
	s := r.s
	name, begin, _ := nameBefore(s, i)
	if name == "" {
		return 0, 0, ""
	}
	if !r.strict && afterAmpersand(s, begin) && after == i+1 {
		to = r.past(after, bare)
		if keeps(name, s[after:to]) {
			return 0, 0, ""
		}
		return after, to, mark
	}
	switch kind := sortOf(name); {
	case kind == plain, kind == loose && r.strict:
		return 0, 0, ""
	case kind == header:
		return trimmed(s, after, r.past(after, field))
	}
	from, to = r.valueAt(after, false)
	return from, to, mark
}

// member finds what stands behind the colon at i, which ends before after: the
// value of a member of JSON or YAML, of a header, or of a field that Go printed.
func (r *reader) member(i, after int) (from, to int) {
	s := r.s
	name, _, quoted := nameBefore(s, i)
	kind := sortOf(name)
	if kind == plain || !quoted && r.strict {
		return 0, 0
	}
	start := after
	for start < len(s) && (s[start] == ' ' || s[start] == '\t' || s[start] == '[' && quoted) {
		start++
	}
	switch {
	case quoteAt(s, start) != "":
		if from, to = r.valueAt(start, quoted); entraSays(s[from:to]) {
			return 0, 0
		}
		return from, to
	case kind == header && !quoted:
		from, to, _ = trimmed(s, after, r.past(after, field))
		return from, to
	case kind == loose && !quoted:
		return 0, 0
	}
	from, to = r.valueAt(start, quoted)
	switch word := s[from:to]; {
	case word == "null" || word == "true" || word == "false":
		return 0, 0
	case start > after && !secretLike(word):
		return 0, 0 // the next word of a sentence
	}
	return from, to
}

// entraSays reports whether a value is what Entra ID has to say of a secret or token,
// and not one.
func entraSays(word string) bool {
	digits, ok := strings.CutPrefix(word, "AADSTS")
	return ok && digits != "" && '0' <= digits[0] && digits[0] <= '9'
}

// secretLike reports whether a word behind a colon and a space is a value: what
// is wrong with a secret is told in words.
func secretLike(word string) bool {
	const least = 6
	if len(word) < least || entraSays(word) || strings.HasSuffix(word, ":") || word[0] == '/' {
		return false
	}
	return len(word) > longest || strings.ContainsAny(word, "0123456789")
}

// valueAt gives the extent of a value from i on, in quotation marks or without.
func (r *reader) valueAt(i int, inJSON bool) (from, to int) {
	s := r.s
	from = i
	if q := quoteAt(s, i); q != "" {
		from += len(q)
		to = r.endOfQuoted(from, q)
	} else {
		for n := 0; n < 2 && from < len(s) && s[from] == ' '; n++ {
			from++
		}
		to = r.endOfBare(from, inJSON)
	}
	if s[from:to] == mark {
		return 0, 0
	}
	return from, to
}

// endOfBare gives the end of a value without quotation marks.
func (r *reader) endOfBare(i int, inJSON bool) int {
	switch {
	case !inJSON:
		return r.past(i, bare)
	case i < len(r.s) && (r.s[i] == '{' || r.s[i] == '['):
		return i
	}
	return r.past(i, member)
}

// trimmed gives a span without the spaces around it, empty where it was taken out
// already.
func trimmed(s string, from, to int) (int, int, string) {
	for from < to && s[from] == ' ' {
		from++
	}
	for from < to && s[to-1] == ' ' {
		to--
	}
	if s[from:to] == mark {
		return 0, 0, ""
	}
	return from, to, mark
}
