package canon

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// read is a second reading of the rules that Parse follows: made of the words of
// DESIGN.md, with regular expressions over the whole path and net/url's decoding
// and encoding, and with nothing of Parse's. It gives the canonical path, or
// false for one that is refused.
func read(raw string) (path string, ok bool) {
	if len(raw) > 8192 || !wellEncoded.MatchString(raw) || delimiter.MatchString(raw) {
		return "", false
	}
	raw = joined.ReplaceAllString(raw, "/$1")
	raw = joinedToTenant.ReplaceAllString(raw, "$1/$2")
	if raw = strings.TrimSuffix(raw, "/"); raw == "" {
		return "/", true
	}
	decoded, err := url.PathUnescape(raw)
	if err != nil || !utf8.ValidString(decoded) || !segments.MatchString(decoded) || session2.MatchString(decoded) {
		return "", false
	}
	foreign := latin1.ReplaceAllString(decoded, "")
	if !blocks.MatchString(foreign) || !letters.MatchString(foreign) || lookalikes.MatchString(foreign) {
		return "", false
	}
	all := strings.Split(decoded, "/")
	for i, seg := range all {
		all[i] = spared.Replace(url.PathEscape(seg))
	}
	return strings.Join(all, "/"), true
}

var (
	// A slash at the start, and each percent sign begins an escape.
	wellEncoded = regexp.MustCompile(`\A/(?:[^%]|%[0-9A-Fa-f]{2})*\z`)
	// The escapes of / \ % ? # ;, and the last four themselves.
	delimiter = regexp.MustCompile(`%2[Ff]|%5[Cc]|%25|%3[Ff]|%23|%3[Bb]|[\\?#;]`)

	// One slash that a naive join added, at the start or behind a tenant.
	joined         = regexp.MustCompile(`\A//([^/][^\x00]*|)\z`)
	joinedToTenant = regexp.MustCompile(`\A(/t/[^/]+)//([^/][^\x00]*|)\z`)

	// No segment is empty, ends with a dot or a space, or begins with a space.
	segments = regexp.MustCompile(`\A(?:/(?:[^/ .]|[^/ ][^/]*[^/ .]))+\z`)
	session2 = regexp.MustCompile(`/\([A-Za-z]\(`)

	// Of ASCII what can be seen and the space; the letters of Latin-1.
	latin1 = regexp.MustCompile(`[ -~À-ÖØ-öø-ÿ]`)
	// What is left lies in these blocks, is a letter, a mark or a digit, and is not
	// Latin, Greek, the shha, a filler or a selector.
	blocks     = regexp.MustCompile(`\A[\x{400}-\x{1DFF}\x{3040}-\x{D7FF}]*\z`)
	letters    = regexp.MustCompile(`\A[\p{Lu}\p{Ll}\p{Lo}\p{Mn}\p{Mc}\p{Nd}]*\z`)
	lookalikes = regexp.MustCompile(`[\p{Latin}\p{Greek}\x{4BB}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{3164}]`)

	// What PathEscape encodes although RFC 3986 lets a segment hold it.
	spared = strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*", "%2C", ",")
)

// compare holds Parse against the second reading.
func compare(t *testing.T, raw string) {
	t.Helper()
	p, err := Parse(raw)
	path, ok := read(raw)
	if (err == nil) != ok || p.String() != path {
		t.Errorf("Parse(%q) = %q, %v; the second reading gives %q, %t", raw, p, err, path, ok)
	}
}

func TestTwoReadingsAgreeOnEveryTarget(t *testing.T) {
	for _, c := range targets(t) {
		compare(t, c.raw)
	}
	for _, c := range targets(t) { // once more, with what a naive join and a tenant add
		for _, raw := range []string{"/" + c.raw, c.raw + "/", "/t/x" + c.raw, "/t/x/" + c.raw, "/api/machines" + c.raw, c.raw + "/isolate", url.PathEscape(c.raw)} {
			compare(t, raw)
		}
	}
}

// characters yields every character up to U+33FF, surrogates, the presentation
// forms and their neighbours, and one of 61 of all others.
func characters(yield func(rune) bool) {
	for r := rune(0); r <= utf8.MaxRune; {
		if !yield(r) {
			return
		}
		if r++; r >= 0x3400 && r < 0xD700 || r >= 0xE000 && r < 0xF900 || r > 0xFFFF {
			r += 60
		}
	}
}

// Characters raw and encoded, inside a segment, at its ends and alone.
func TestTwoReadingsAgreeOnEveryCharacter(t *testing.T) {
	const digits = "0123456789abcdef"
	for r := range characters {
		c := string(r)
		if r >= 0xD800 && r < 0xE000 { // which string does not encode
			c = string([]byte{0xED, 0x80 | byte(r>>6)&0x3F, 0x80 | byte(r)&0x3F})
		}
		var escaped strings.Builder
		for _, b := range []byte(c) {
			escaped.Write([]byte{'%', digits[b>>4], digits[b&15]})
		}
		for _, raw := range []string{"/a" + c + "b", "/" + escaped.String()} {
			compare(t, raw)
		}
		if r < 0x800 {
			for _, raw := range []string{"/" + c, "/a/" + c + "b/c", "/a" + c, "/a" + escaped.String() + "/c", "/(" + c + "("} {
				compare(t, raw)
			}
		}
		if t.Failed() {
			t.Fatalf("the first such character is %U", r)
		}
	}
}

func FuzzTwoReadings(f *testing.F) {
	for _, c := range targets(f) {
		f.Add(c.raw)
	}
	f.Fuzz(compare)
}
