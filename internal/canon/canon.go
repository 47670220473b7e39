// Package canon turns the raw path of a request into the one path that is
// judged, matched and sent, or refuses it.
//
// There is one reading of a path here and nowhere else: what Parse returns is
// what package policy matches and what goes to Microsoft. A path that two
// programs could read differently is refused, not repaired; the three repairs
// that remain (a doubled slash of a naive join, a slash at the end, percent-
// encoding that was not needed) have one reading only.
//
// The far side is taken to be IIS with ASP.NET, which folds backslashes,
// trailing dots and spaces, maps look-alike characters to ASCII, and cuts
// sessions without cookies out of the path. A model of it in the tests holds
// that none of this changes a canonical path; testdata/targets.txt tells what
// becomes of some hundreds of odd ones.
//
// proxy's guard calls it for each request, the link rewriter's fuzz test and
// explain for paths that come from elsewhere.
package canon

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLength is the longest raw path in bytes that Parse looks at. The longest
// documented path, a library file of 255 characters, all of them encoded,
// stays far below.
const MaxLength = 8 << 10

// tenantPrefix begins the paths that name their tenant, /t/{name}/….
const tenantPrefix = "/t/"

// Path is a canonical path: it begins with a slash, ends with none unless it is
// "/" alone, has no empty or dot segment, and is percent-encoded only where RFC
// 3986 requires it, in upper-case digits. Letter case is the caller's. The zero
// value is no path.
type Path struct{ s string }

// String returns the path as it is judged and sent.
func (p Path) String() string { return p.s }

// CutTenant splits /t/{name}/rest into its name and the path behind it. ok is
// false, and rest the whole path, where no tenant is named.
func (p Path) CutTenant() (name string, rest Path, ok bool) {
	after, ok := strings.CutPrefix(p.s, tenantPrefix)
	if !ok {
		return "", p, false
	}
	name, _, more := strings.Cut(after, "/")
	if !more {
		return name, Path{"/"}, true
	}
	return name, Path{after[len(name):]}, true
}

// Error says why a path was refused.
type Error struct {
	// Path is the raw path, quoted and shortened for people to read.
	Path string
	// Why is a clause such as "it holds an encoded slash (%2F)".
	Why string
}

func (e *Error) Error() string { return "path " + e.Path + " is refused: " + e.Why }

func refuse(raw, format string, args ...any) (Path, error) {
	const most = 120
	if len(raw) > most {
		raw = raw[:most] + "…"
	}
	return Path{}, &Error{Path: fmt.Sprintf("%q", raw), Why: fmt.Sprintf(format, args...)}
}

// Parse gives the canonical form of a raw path as it stood in the request line,
// without the query. Its error is an *Error. A path that is canonical already,
// which nearly all are, is returned as it is, without allocation.
func Parse(raw string) (Path, error) {
	switch {
	case len(raw) > MaxLength:
		return refuse(raw, "it is longer than %d bytes", MaxLength)
	case raw == "" || raw[0] != '/':
		return refuse(raw, "it does not begin with a slash")
	}
	s := oneSlash(raw)
	if len(s) > 1 && s[len(s)-1] == '/' {
		s = s[:len(s)-1]
	}
	if s == "/" {
		return Path{s}, nil
	}
	if plain, why := scan(s); why != "" {
		return refuse(raw, "%s", why)
	} else if plain {
		return Path{s}, nil
	}
	out, why := recode(s)
	if why != "" {
		return refuse(raw, "%s", why)
	}
	return Path{out}, nil
}

// oneSlash undoes the doubled slash of a base URL that ends with one joined to
// a path that begins with one: at the start, and behind a tenant's prefix,
// which is part of a base URL too.
func oneSlash(s string) string {
	if strings.HasPrefix(s, "//") && !strings.HasPrefix(s, "///") {
		s = s[1:]
	}
	if after, ok := strings.CutPrefix(s, tenantPrefix); ok {
		if i := strings.IndexByte(after, '/'); i > 0 {
			if rest := after[i:]; strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///") {
				s = s[:len(tenantPrefix)+i] + rest[1:]
			}
		}
	}
	return s
}

// plainByte marks what RFC 3986 allows in a segment unencoded (section 3.3,
// pchar), less the semicolon.
var plainByte = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@") {
		t[c] = true
	}
	return t
}()

const (
	whyEmpty   = "it has an empty segment (//)"
	whyDot     = "a segment ends with a dot, which a server may drop or resolve"
	whySession = "a segment begins like a session without cookies, (S(…)), which ASP.NET cuts out"
)

// session reports whether a segment begins as ASP.NET's sessions without cookies
// do, /(S(id))/ or /(A(…)F(…))/. ASP.NET takes such a segment out of the path, and
// once it took it out of the front of a longer one as well: /prot/(S(x))ected was
// /protected (CVE-2023-36899). Only the beginning counts, so that nobody has to
// know where it ends. No file is called so.
func session(seg string) bool {
	return len(seg) > 2 && seg[0] == '(' && seg[2] == '(' && ('A' <= seg[1]&^0x20 && seg[1]&^0x20 <= 'Z')
}

// scan reports whether s is canonical as it stands. why is set when no
// recoding could save it.
func scan(s string) (plain bool, why string) {
	start := 1
	for i := 1; i < len(s); i++ {
		c := s[i]
		if plainByte[c] {
			continue
		}
		if c != '/' {
			return false, ""
		}
		if i == start {
			return false, whyEmpty
		}
		if s[i-1] == '.' {
			return false, whyDot
		}
		if session(s[start:i]) {
			return false, whySession
		}
		start = i + 1
	}
	switch {
	case start == len(s):
		return false, whyEmpty
	case s[len(s)-1] == '.':
		return false, whyDot
	case session(s[start:]):
		return false, whySession
	}
	return true, ""
}

// recode decodes each segment once, judges what comes out, and encodes it again
// where that is needed. why is set when the path is refused.
func recode(s string) (out, why string) {
	var b strings.Builder
	b.Grow(len(s) + 16)
	for seg := range strings.SplitSeq(s[1:], "/") {
		decoded, why := decode(seg)
		if why == "" {
			why = judge(decoded)
		}
		if why != "" {
			return "", why
		}
		b.WriteByte('/')
		encode(&b, decoded)
	}
	return b.String(), ""
}

// decode undoes the percent-encoding of one segment, once.
func decode(seg string) (decoded, why string) {
	if strings.IndexByte(seg, '%') < 0 {
		return seg, ""
	}
	b := make([]byte, 0, len(seg))
	for i := 0; i < len(seg); i++ {
		c := seg[i]
		if c != '%' {
			b = append(b, c)
			continue
		}
		if i+2 >= len(seg) || unhex(seg[i+1]) < 0 || unhex(seg[i+2]) < 0 {
			return "", "a percent sign is not followed by two hexadecimal digits"
		}
		c = byte(unhex(seg[i+1])<<4 | unhex(seg[i+2]))
		i += 2
		switch c {
		case '/', '\\':
			return "", fmt.Sprintf("it holds an encoded separator (%%%02X)", c)
		case '%':
			return "", "it holds an encoded percent sign (%25), which decodes twice"
		case '?', '#':
			return "", fmt.Sprintf("it holds an encoded delimiter (%%%02X)", c)
		}
		b = append(b, c)
	}
	return string(b), ""
}

// judge says what is wrong with a decoded segment, or nothing.
func judge(seg string) (why string) {
	if seg == "" {
		return whyEmpty
	}
	if seg[len(seg)-1] == '.' {
		return whyDot
	}
	if seg[0] == ' ' || seg[len(seg)-1] == ' ' {
		return "a segment begins or ends with a space, which a server may drop"
	}
	if session(seg) {
		return whySession
	}
	if !utf8.ValidString(seg) {
		return "it is not valid UTF-8"
	}
	for _, r := range seg {
		switch {
		case r < ' ' || r == 0x7f:
			return fmt.Sprintf("it holds a control character (U+%04X)", r)
		case r == '\\':
			return `it holds a backslash (\)`
		case r == ';':
			return "it holds a semicolon, which begins path parameters"
		case r == '#':
			return "it holds a number sign (#), which begins a fragment"
		case r == '?':
			return "it holds a question mark, which begins a query"
		case r >= utf8.RuneSelf && !soundRune(r):
			return fmt.Sprintf("it holds U+%04X, which a server may drop or take for an ASCII character", r)
		}
	}
	return ""
}

// soundRune admits letters, marks and digits that no server takes for ASCII:
// library files may be called résumé.ps1 or 日本.ps1. Windows' best-fit tables
// (unicode.org, bestfit1252.txt) make a of ā and α, l of ł, s of a long s, h of the
// Cyrillic shha; compatibility forms make ASCII of fullwidth letters, superscripts
// and the Kelvin sign; small capitals look like it. So of the Latin letters only
// those of Latin-1 pass, no Greek, and nothing that is invisible, which
// comparisons by the rules of a language pass over.
func soundRune(r rune) bool {
	switch {
	case r >= 0xC0 && r <= 0xFF:
		return r != 0xD7 && r != 0xF7 // × and ÷ are no letters
	case r >= 0x400 && r < 0x1E00, r >= 0x3040 && r <= 0xD7FF:
		return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lo, unicode.Mn, unicode.Mc, unicode.Nd) && r != 0x4BB &&
			!unicode.In(r, unicode.Latin, unicode.Greek, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
	}
	return false
}

func encode(b *strings.Builder, seg string) {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(seg); i++ {
		if c := seg[i]; plainByte[c] {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
