package canon

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// readings are what IIS and ASP.NET do with a path, or may do by a setting, on the
// way from the request line to the code that answers. Each takes a path that was
// decoded once and gives what it is taken for. A refusal of theirs (request
// filtering, requestPathInvalidCharacters) is no reading: it does no harm.
//
// What leaves a path as it is leaves it so in any order and however often it is
// done. So it is enough to try them one by one: whichever of them a server has, it
// reads what was judged.
var readings = []struct {
	name string
	read func(path string) string
}{
	// Http.sys ("Http.sys registry settings", article 820129): escapes are decoded;
	// %uNNNN too, with PercentUAllowed; what is not UTF-8 is read in the code page
	// of the system, with EnableNonUTF8. Older decoders took overlong forms.
	{"decoding once more", unescaped},
	{"decoding %uNNNN", func(s string) string {
		return percentU.ReplaceAllStringFunc(s, func(escape string) string {
			n, _ := strconv.ParseUint(escape[2:], 16, 16)
			return string(rune(n))
		})
	}},
	{"decoding overlong forms", lenient},
	{"reading what is not UTF-8 in a code page", func(s string) string { return strings.ToValidUTF8(s, "ÿ") }},
	{"cutting at a null character", upTo("\x00")},
	{"dropping control characters", dropping(unicode.IsControl)},
	// Http.sys and System.Uri (learn.microsoft.com, HttpListenerElement.UnescapeRequestUrl):
	// backslashes, dot segments and doubled slashes are resolved.
	{"turning backslashes", func(s string) string { return strings.ReplaceAll(s, `\`, "/") }},
	{"joining slashes", func(s string) string { return slashes.ReplaceAllString(s, "/") }},
	{"resolving dot segments", resolved},
	// Whoever makes a URL of the path again.
	{"cutting at a question mark", upTo("?")},
	{"cutting at a number sign", upTo("#")},
	{"cutting off path parameters", func(s string) string { return parameters.ReplaceAllString(s, "") }},
	// Win32 (learn.microsoft.com, "Naming Files, Paths, and Namespaces"): dots and
	// spaces at the end of a name are dropped.
	{"trimming dots and spaces", func(s string) string { return ends.ReplaceAllString(s, "$1") }},
	{"trimming spaces at the start", func(s string) string { return starts.ReplaceAllString(s, "/") }},
	// System.Web, CookielessHelperClass.RemoveCookielessValuesFromPath and
	// HttpResponse.RemoveAppPathModifier.
	{"cutting out a session", func(s string) string { return sessionSegment.ReplaceAllString(s, "$1") }},
	{"cutting out a session before a name", func(s string) string { return sessionStart.ReplaceAllString(s, "") }},
	// WideCharToMultiByte, code page 1252.
	{"best fit", func(s string) string { return strings.Map(fitted, s) }},
	// OrdinalIgnoreCase and its relatives.
	{"folding case beyond ASCII", func(s string) string { return strings.Map(folded, s) }},
	// Comparisons by the rules of a language.
	{"passing over the invisible", dropping(func(r rune) bool {
		return unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
	})},
	{"taking every space for one", func(s string) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsSpace(r) || unicode.Is(unicode.Zs, r) {
				return ' '
			}
			return r
		}, s)
	}},
}

var (
	percentU       = regexp.MustCompile(`%[uU][0-9A-Fa-f]{4}`)
	slashes        = regexp.MustCompile(`//+`)
	parameters     = regexp.MustCompile(`;[^/]*`)
	starts         = regexp.MustCompile(`/ +`)
	ends           = regexp.MustCompile(`[ .]+(/|\z)`)
	sessionSegment = regexp.MustCompile(`/\((?:[A-Z]\([^/)]*\))+\)(/|\z)`)
	sessionStart   = regexp.MustCompile(`/\((?:[A-Z]\([^/)]*\))+\)`)
	escape         = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
)

// unescaped decodes what is an escape and leaves what is none.
func unescaped(s string) string {
	return escape.ReplaceAllStringFunc(s, func(e string) string {
		n, _ := strconv.ParseUint(e[1:], 16, 8)
		return string([]byte{byte(n)})
	})
}

// lenient reads UTF-8 without asking whether a form is the shortest.
func lenient(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c&0xFE == 0xC0 && i+1 < len(s) && s[i+1]&0xC0 == 0x80: // two bytes for less than U+0080
			b.WriteByte(c&1<<6 | s[i+1]&0x3F)
			i += 2
		case c == 0xE0 && i+2 < len(s) && s[i+1]&0xE0 == 0x80 && s[i+2]&0xC0 == 0x80: // three for less than U+0800
			b.WriteRune(rune(s[i+1]&0x3F)<<6 | rune(s[i+2]&0x3F))
			i += 3
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String()
}

func upTo(mark string) func(string) string {
	return func(s string) string {
		s, _, _ = strings.Cut(s, mark)
		return s
	}
}

func dropping(what func(rune) bool) func(string) string {
	return func(s string) string {
		return strings.Map(func(r rune) rune {
			if what(r) {
				return -1
			}
			return r
		}, s)
	}
}

// resolved removes dot segments as RFC 3986, section 5.2.4, does.
func resolved(s string) string {
	var out []string
	for seg := range strings.SplitSeq(strings.TrimPrefix(s, "/"), "/") {
		switch seg {
		case ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, seg)
		}
	}
	return "/" + strings.Join(out, "/")
}

// folded gives the ASCII letter that some comparison takes r for.
func folded(r rune) rune {
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		if r >= utf8.RuneSelf && f < utf8.RuneSelf {
			return unicode.ToLower(f)
		}
	}
	switch r {
	case 'ı', 'İ': // in Turkish
		return 'i'
	}
	return r
}

// readAsJudged fails when some reading makes something else of a canonical path
// than what was judged.
func readAsJudged(t *testing.T, raw string) {
	t.Helper()
	p, err := Parse(raw)
	if err != nil {
		return
	}
	judged, err := url.PathUnescape(p.String())
	if err != nil {
		t.Fatalf("%q gives %q, which does not decode: %v", raw, p, err)
	}
	for _, r := range readings {
		if got := r.read(judged); got != judged {
			t.Errorf("%q was judged as %q; %s makes %q of it", raw, judged, r.name, got)
		}
	}
}

func TestIISReadsWhatWasJudged(t *testing.T) {
	for _, c := range targets(t) {
		readAsJudged(t, c.raw)
	}
	for r := range characters {
		readAsJudged(t, "/a"+string(r)+"b")
		readAsJudged(t, "/"+string(r))
	}
}

// A model that never does anything would hold anything. Each reading makes
// something else of some path that is refused.
func TestEachReadingWouldMisreadSomethingThatIsRefused(t *testing.T) {
	for _, r := range readings {
		misread := 0
		for _, c := range targets(t) {
			if naive := unescaped(c.raw); c.canonical == "" && r.read(naive) != naive {
				misread++
			}
		}
		if misread == 0 {
			t.Errorf("%s makes nothing else of any path that is refused", r.name)
		}
	}
}

// What readings do one after the other: the paths of known holes, as IIS would have
// read them, had they been let through.
func TestTheModelKnowsTheHolesOfOld(t *testing.T) {
	for _, c := range []struct{ raw, as string }{
		{"/api/alerts/%252e%252e/machines", "/api/machines"},
		{"/api/alerts/..%5cmachines", "/api/machines"},
		{"/api/alerts/%c0%ae%c0%ae/machines", "/api/machines"},
		{"/api/alerts/%u002e%u002e%u2215machines", "/api/machines"},
		{"/api/(S(x))/machines", "/api/machines"},
		{"/api/mach/(S(x))ines", "/api/machines"},
		{"/api/machines/x/i\u017folate", "/api/machines/x/isolate"},
		{"/api/mac%D2%BBines", "/api/machines"},
		{"/api/machines/x/isolate.%20.", "/api/machines/x/isolate"},
		{"/api/machines/x/isolate;v=1", "/api/machines/x/isolate"},
		{"/api/mach\u200dines%00.json", "/api/machines"},
		{"/api//machines", "/api/machines"},
	} {
		if p, err := Parse(c.raw); err == nil {
			t.Errorf("%q is let through as %q", c.raw, p)
		}
		got := unescaped(c.raw)
		for range 8 {
			for _, r := range readings {
				got = r.read(got)
			}
		}
		if got != c.as {
			t.Errorf("the model reads %q as %q, want %q", c.raw, got, c.as)
		}
	}
}

func FuzzIISReadsWhatWasJudged(f *testing.F) {
	for _, c := range targets(f) {
		f.Add(c.raw)
	}
	f.Fuzz(readAsJudged)
}
