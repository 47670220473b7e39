package redact

import "strings"

// jwt finds a JSON Web Token, or the beginning of one, by the J at i: every one
// begins with the base64url of {" and a member's name. Within a word, where that may
// be chance, the name has to come to its end. What a token is written in, and base64
// with + and /, belongs to it as far as it goes, and so do the parts behind its dots.
func (r *reader) jwt(i int) (from, to int) {
	const least, judged = 5, 64 // less tells nothing of a token; names are shorter
	s := r.s
	if i < 2 || s[i-1] != 'y' || s[i-2] != 'e' {
		return 0, 0
	}
	from = i - 2
	end := r.past(from, opaque)
	if end < i+1+least || !beginsObject(s[from:min(end, from+judged)], r.strict || is(s, from-1, opaque)) {
		return 0, 0
	}
	return from, r.pastToken(from, i)
}

// beginsObject reports whether the bytes that base64url stands for begin an object of
// JSON with a member's name, and whether they have the whole of it.
func beginsObject(word string, whole bool) bool {
	var bits uint32
	n, at := 0, 0 // bits that wait, and bytes that were judged
	for i := range len(word) {
		bits, n = bits<<6|uint32(sextet(word[i])), n+6
		if n < 8 {
			continue
		}
		n -= 8
		c := byte(bits >> n)
		switch {
		case at < 2:
			if c != `{"`[at] {
				return false
			}
		case c == '"':
			return true
		case c <= ' ' || c >= 0x7f || strings.IndexByte("{}[]<>`\\^|", c) >= 0:
			return false
		}
		at++
	}
	return !whole
}

// sextet gives the value of a character of base64url.
func sextet(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c - 'A'
	case 'a' <= c && c <= 'z':
		return c - 'a' + 26
	case '0' <= c && c <= '9':
		return c - '0' + 52
	case c == '-':
		return 62
	}
	return 63
}

// pastToken gives the end of a token that begins at from, i being in it. In a path it
// ends with its segment.
func (r *reader) pastToken(from, i int) int {
	const most = 256
	for n := 0; n < most && is(r.s, from-1, bare); n++ {
		if from--; r.s[from] == '/' {
			return r.past(i, segment)
		}
	}
	return r.past(i, token68)
}

// clientSecret finds a client secret of Entra ID by the tilde at i, which ends
// before after. They are 37 to 40 letters, digits and -._~ with a digit and Q~
// behind the third (github.com/microsoft/security-utilities, rules SEC101/050 and
// SEC101/156; read 2026-11). Whatever of the alphabet is around belongs to it.
func (r *reader) clientSecret(i, after int) (from, to int) {
	const least, before, wholeBehind = 16, 5, 31
	s := r.s
	if i < 2 || s[i-1] != 'Q' || s[i-2] < '0' || s[i-2] > '9' {
		return 0, 0
	}
	for from = i - 2; is(s, from-1, opaque) || from > 0 && (s[from-1] == '.' || s[from-1] == '~'); {
		from--
	}
	to = r.pastToken(from, after)
	if to-from < least || r.strict && (i-from < before || to-after < wholeBehind) {
		return 0, 0
	}
	return from, to
}

// refreshToken finds a refresh token or authorization code of Entra ID by its
// first dot: they are opaque to us, and begin with 0.A or 1.A.
func (r *reader) refreshToken(i int) (from, to int) {
	const least, leastWhole = 16, 32
	s := r.s
	if i < 1 || s[i-1] < '0' || s[i-1] > '9' || is(s, i-2, opaque) || i+1 >= len(s) || s[i+1] != 'A' || r.past(i+1, opaque) < i+1+least {
		return 0, 0
	}
	to = r.pastToken(i-1, i)
	if r.strict && to-i < leastWhole {
		return 0, 0
	}
	return i - 1, to
}

// longWord finds a token by its length alone: the word from run on, where it has
// small letters, capitals and digits.
func (r *reader) longWord(run int) (from, to int) {
	s := r.s
	to = r.past(run, opaque)
	var small, capital, digit bool
	for i := run; i < to; i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z':
			small = true
		case 'A' <= c && c <= 'Z':
			capital = true
		case '0' <= c && c <= '9':
			digit = true
		}
	}
	if !small || !capital || !digit {
		return 0, 0
	}
	return run, r.pastToken(run, to)
}

// schemes are words of an Authorization header that a credential follows.
var schemes = []string{"bearer", "basic", "negotiate", "ntlm", "pop", "dpop", "sharedkey", "sharedkeylite", "sharedaccesssignature", "token"}

// afterScheme finds what follows Bearer and the like behind the space at i, which
// ends before after. Prose has the words too: what is all letters there is a word,
// unless it is long and in mixed case.
func (r *reader) afterScheme(i, after int) (from, to int) {
	s := r.s
	if i < 1 || s[i-1]|0x20 < 'a' || s[i-1]|0x20 > 'z' {
		return 0, 0
	}
	scheme := ""
	for _, name := range schemes {
		if endsWithFold(s[:i], name) {
			scheme = name
			break
		}
	}
	if scheme == "" {
		return 0, 0
	}
	for from = after; from < len(s) && (s[from] == ' ' || s[from] == '+' || s[from] == '%' && isEscape(s, from, ' ')); from++ {
		if s[from] == '%' {
			from += 2
		}
	}
	if to = from; is(s, from, token68) {
		to = r.past(from, sent)
	}
	const judged = 128
	word := strings.TrimRight(s[from:min(to, from+judged)], ".:")
	if name, value, ok := strings.Cut(word, "="); ok && plainWord(name) && (strings.Trim(value, "=") != "" || to < len(s) && (s[to] == '"' || s[to] == mark[0])) {
		return 0, 0 // a parameter, as in Bearer error="invalid_token"
	}
	if !credentialLike(word, scheme) || r.strict && !credentialAlone(s[:i], scheme, word) {
		return 0, 0
	}
	return from, to
}

// credentialLike reports whether a word behind a scheme's name is a credential
// rather than the next word of a sentence.
func credentialLike(word, scheme string) bool {
	const least, leastOfLetters = 8, 12
	if len(word) < least {
		return false
	}
	letters, capital := true, false
	digit := false
	for i := range len(word) {
		c := word[i]
		letters = letters && (c|0x20 >= 'a' && c|0x20 <= 'z')
		capital = capital || i > 0 && c >= 'A' && c <= 'Z'
		digit = digit || c >= '0' && c <= '9'
	}
	switch {
	case letters:
		return capital && len(word) >= leastOfLetters
	case scheme == "token" || scheme == "pop": // words of many sentences
		return digit && capital && len(word) >= leastOfLetters
	}
	return true
}

// credentialAlone reports whether a credential's scheme, which ends path, begins a
// segment, and whether the credential is no file's name either.
func credentialAlone(path, scheme, word string) bool {
	const least = 16
	if n := len(path) - len(scheme); n > 0 && path[n-1] != '/' || len(word) < least {
		return false
	}
	var small, capital, digit bool
	for i := range len(word) {
		c := word[i]
		small = small || 'a' <= c && c <= 'z'
		capital = capital || 'A' <= c && c <= 'Z'
		digit = digit || '0' <= c && c <= '9'
	}
	return small && capital && digit && strings.Count(word, ".") != 1
}

// plainWord reports whether s is letters and underscores.
func plainWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// endsWithFold reports whether s ends with suffix, which is in lower case ASCII.
func endsWithFold(s, suffix string) bool {
	if len(s) < len(suffix) {
		return false
	}
	s = s[len(s)-len(suffix):]
	for i := len(suffix) - 1; i >= 0; i-- { // the end tells sooner
		if c := s[i]; c != suffix[i] && (c < 'A' || c > 'Z' || c|0x20 != suffix[i]) {
			return false
		}
	}
	return true
}

const keyBegin, keyEnd = "-----BEGIN ", "-----END "

// withoutKeys takes private keys in PEM out, before anything else could take the
// beginning of one for the end of a word. Line breaks may be characters or their
// escapes; a key without an end goes to that of the text.
func withoutKeys(s string) string {
	const kind, longestKind, dashes = "PRIVATE KEY", 40, "-----"
	var out []byte
	kept := 0 // as much of s is in out
	for at := 0; ; {
		n := strings.Index(s[at:], keyBegin)
		if n < 0 {
			break
		}
		begin := at + n
		at = begin + len(keyBegin)
		n = strings.Index(s[at:min(len(s), at+longestKind)], kind)
		if n < 0 || strings.ContainsAny(s[at:at+n], "-[\n") {
			continue
		}
		end := len(s)
		if n = strings.Index(s[at:], keyEnd); n >= 0 {
			at += n + len(keyEnd)
			if n = strings.Index(s[at:], dashes); n >= 0 {
				end = at + n + len(dashes)
			}
		}
		out = append(append(out, s[kept:begin]...), mark...)
		kept, at = end, end
	}
	if out == nil {
		return s
	}
	return string(append(out, s[kept:]...))
}

// userinfo finds user and password of a URL by the colon at i, which ends before
// after: the two slashes behind it may be escaped by JSON, or all of it for another
// URL. Where they hold what no authority may, the last @ of the word ends them: of
// such a URL one reads in the error of whoever parsed it.
func (r *reader) userinfo(i, after int) (from, to int) {
	s, slash, at := r.s, "/", "@"
	switch rest := s[after:]; {
	case after > i+1 && hasPrefixFold(rest, "%2f%2f"):
		from, slash, at = after+6, rest[:3], "%40"
	case after > i+1:
		return 0, 0
	case strings.HasPrefix(rest, "//"):
		from = after + 2
	case strings.HasPrefix(rest, `\/\/`):
		from = after + 4
	default:
		return 0, 0
	}
	end := r.past(from, chunk)
	authority := s[from:end]
	if n := strings.Index(authority, slash); n >= 0 {
		authority = authority[:n]
	}
	if n := strings.IndexAny(authority, "?#"); n >= 0 {
		authority = authority[:n]
	}
	n := strings.LastIndex(authority, at)
	if n < 0 && slash == "/" && !hostAndPort(authority) {
		n = r.lastAt(end) - from
	}
	if n <= 0 || s[from:from+n] == mark {
		return 0, 0
	}
	return from, from + n
}

// lastAt gives where the last at sign of the word is that ends at end; -1 where it
// has none. It reads each word once.
func (r *reader) lastAt(end int) int {
	if r.at.end != end {
		r.at.end, r.at.last = end, -1
		for i := end - 1; is(r.s, i, chunk); i-- {
			if r.s[i] == '@' {
				r.at.last = i
				break
			}
		}
	}
	return r.at.last
}

// userinfoAlone finds user and password by the at sign at i, where the segment of
// a path begins so: what is left of a URL whose scheme went elsewhere.
func userinfoAlone(s string, i int) (from, to int) {
	const most = 512
	colon := false
	for from = i; from > max(0, i-most) && s[from-1] != '/'; from-- {
		c := s[from-1]
		if classes[c]&bare == 0 || c == '?' || c == '#' || c == '@' {
			return 0, 0
		}
		colon = colon || c == ':'
	}
	if !colon || from == 0 || s[from-1] != '/' || strings.HasSuffix(s[from:i], mark) {
		return 0, 0
	}
	for end := i; end < len(s) && classes[s[end]]&bare != 0 && s[end] != '/' && s[end] != '?' && s[end] != '#'; end++ {
		if s[end] == '@' {
			to = end
		}
	}
	return from, to
}

// hasPrefixFold reports whether s begins with prefix, which is in lower case ASCII.
func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && endsWithFold(s[:len(prefix)], prefix)
}

// hostAndPort reports whether an authority may be one as it stands: what follows
// its last colon is a port, or the rest of an address in brackets.
func hostAndPort(s string) bool {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.HasSuffix(s, "]") {
		return true
	}
	return strings.Trim(s[colon+1:], "0123456789") == ""
}
