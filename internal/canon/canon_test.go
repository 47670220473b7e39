package canon

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"a plain path stays as it is", "/api/alerts", "/api/alerts"},
		{"the root stays as it is", "/", "/"},
		{"letter case is the caller's", "/API/Machines/AbC", "/API/Machines/AbC"},
		{"the version stays", "/api/v1.0/alerts", "/api/v1.0/alerts"},
		{"a slash at the end goes", "/api/machines/", "/api/machines"},
		{"one leading slash where a naive join made two", "//api/alerts", "/api/alerts"},
		{"the same behind a tenant", "/t/contoso//api/alerts", "/t/contoso/api/alerts"},
		{"a tenant alone", "/t/contoso/", "/t/contoso"},
		{"two slashes alone are the root", "//", "/"},
		{"encoded letters become letters", "/api/%61lerts", "/api/alerts"},
		{"an encoded quote needs no encoding", "/api/machines/findbyip(ip=%2710.0.0.1%27,timestamp=2019-09-22T08:44:05Z)", "/api/machines/findbyip(ip='10.0.0.1',timestamp=2019-09-22T08:44:05Z)"},
		{"an encoded space stays, in upper-case digits", "/api/libraryfiles/my%20file%7b1%7d.ps1", "/api/libraryfiles/my%20file%7B1%7D.ps1"},
		{"characters that no URL may hold get encoded", `/api/libraryfiles/a"b<c>|{d}`, "/api/libraryfiles/a%22b%3Cc%3E%7C%7Bd%7D"},
		{"letters beyond ASCII get encoded", "/api/libraryfiles/résumé.ps1", "/api/libraryfiles/r%C3%A9sum%C3%A9.ps1"},
		{"encoded letters beyond ASCII stay", "/api/libraryfiles/r%c3%a9.ps1", "/api/libraryfiles/r%C3%A9.ps1"},
		{"letters of other scripts pass", "/api/libraryfiles/日本.ps1", "/api/libraryfiles/%E6%97%A5%E6%9C%AC.ps1"},
		{"a dot inside a segment is an ordinary character", "/api/machines/pc1.corp.example", "/api/machines/pc1.corp.example"},
		{"a dot at the start of a segment is one too", "/api/libraryfiles/.bashrc", "/api/libraryfiles/.bashrc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(c.raw)
			if err != nil || got.String() != c.want {
				t.Fatalf("Parse(%q) = %q, %v; want %q", c.raw, got, err, c.want)
			}
			if again, err := Parse(got.String()); err != nil || again != got {
				t.Errorf("Parse is not idempotent: %q becomes %q, %v", got, again, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, raw, why string }{
		{"an empty path", "", "does not begin with a slash"},
		{"a path without a slash at the start", "api/alerts", "does not begin with a slash"},
		{"the asterisk form", "*", "does not begin with a slash"},
		{"a dot segment", "/api/./alerts", "ends with a dot"},
		{"a dot segment at the end", "/api/alerts/.", "ends with a dot"},
		{"two dots", "/api/alerts/../machines", "ends with a dot"},
		{"two dots at the end", "/api/alerts/..", "ends with a dot"},
		{"two dots at the end with a slash", "/api/alerts/../", "ends with a dot"},
		{"two encoded dots", "/api/alerts/%2e%2e/machines", "ends with a dot"},
		{"one of two dots encoded", "/api/alerts/.%2E/machines", "ends with a dot"},
		{"three dots", "/api/.../alerts", "ends with a dot"},
		{"a dot at the end of a name, which Windows drops", "/api/machines/x/isolate.", "ends with a dot"},
		{"an encoded dot at the end", "/api/machines/x/isolate%2e", "ends with a dot"},
		{"a space at the end, which Windows drops", "/api/machines/x/isolate%20", "ends with a space"},
		{"a space at the start", "/api/%20machines", "ends with a space"},
		{"an encoded slash", "/api/machines/a%2Fisolate", "%2F"},
		{"an encoded slash in lower case", "/api/machines/a%2fisolate", "%2F"},
		{"an encoded backslash", "/api/machines/a%5Cisolate", "%5C"},
		{"a backslash", `/api/machines/a\isolate`, "backslash"},
		{"an encoded percent sign", "/api/machines/%2569solate", "%25"},
		{"an encoded percent sign before a slash's digits", "/api/a%252fb", "%25"},
		{"an encoded question mark", "/api/machines/a%3Fb", "%3F"},
		{"an encoded number sign", "/api/machines/a%23b", "%23"},
		{"a number sign", "/api/machines/a#b", "number sign"},
		{"path parameters", "/api/machines;x=1/abc", "semicolon"},
		{"encoded path parameters", "/api/machines%3Bx=1/abc", "semicolon"},
		{"an empty segment inside", "/api//alerts", "empty segment"},
		{"two empty segments at the start", "///api/alerts", "empty segment"},
		{"two slashes at the end", "/api/alerts//", "empty segment"},
		{"an empty segment further inside a tenant's path", "/t/contoso/api//alerts", "empty segment"},
		{"two empty segments behind a tenant", "/t/contoso///api", "empty segment"},
		{"an empty tenant", "/t//api/alerts", "empty segment"},
		{"a null byte", "/api/machines/a%00", "control character"},
		{"a line feed", "/api/machines/a%0ab", "control character"},
		{"a raw tab", "/api/machines/a\tb", "control character"},
		{"a delete character", "/api/machines/a%7f", "control character"},
		{"a bad escape", "/api/machines/%zz", "two hexadecimal digits"},
		{"an unfinished escape", "/api/machines/%4", "two hexadecimal digits"},
		{"the %u form", "/api/%u0061lerts", "two hexadecimal digits"},
		{"an overlong slash", "/api/machines/a%c0%af", "UTF-8"},
		{"a lone high byte", "/api/machines/a\xff", "UTF-8"},
		{"a surrogate", "/api/machines/a%ed%a0%80", "UTF-8"},
		{"a fullwidth slash", "/api/machines/a\uff0fisolate", "U+FF0F"},
		{"a fullwidth letter", "/api/machines/x/\uff49solate", "U+FF49"},
		{"a long s, which folds to s", "/api/machines/x/i\u017folate", "U+017F"},
		{"a Kelvin sign, which folds to k", "/api/machines/x/\u212a", "U+212A"},
		{"an a with a macron, which best-fit makes an a", "/api/\u0101lerts", "U+0101"},
		{"a Greek alpha, which best-fit makes an a", "/api/\u03b1lerts", "U+03B1"},
		{"a one dot leader", "/api/machines/\u2024\u2024/x", "U+2024"},
		{"a superscript digit", "/api/machines/a\u00b2", "U+00B2"},
		{"a right-to-left mark", "/api/machines/a\u200f", "U+200F"},
		{"a path without end", "/" + strings.Repeat("a", MaxLength), "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(c.raw)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.why) {
				t.Fatalf("Parse(%q) = %q, %v; want a refusal that says %q", c.raw, got, err, c.why)
			}
			if got != (Path{}) {
				t.Errorf("a refusal came with the path %q", got)
			}
			if len(err.Error()) > 600 {
				t.Errorf("the refusal has %d characters; it should quote the path shortened", len(err.Error()))
			}
		})
	}
}

func TestCutTenant(t *testing.T) {
	for _, c := range []struct {
		path, name, rest string
		ok               bool
	}{
		{"/t/contoso/api/alerts", "contoso", "/api/alerts", true},
		{"/t/contoso", "contoso", "/", true},
		{"/api/alerts", "", "/api/alerts", false},
		{"/t", "", "/t", false},
		{"/T/contoso/api", "", "/T/contoso/api", false},
	} {
		p, err := Parse(c.path)
		if err != nil {
			t.Fatal(err)
		}
		name, rest, ok := p.CutTenant()
		if name != c.name || rest.String() != c.rest || ok != c.ok {
			t.Errorf("CutTenant of %s = %q, %q, %v; want %q, %q, %v", c.path, name, rest, ok, c.name, c.rest, c.ok)
		}
	}
}

func TestQueryCutsCredentialsAndNothingElse(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"an empty query", "", ""},
		{"OData stays byte for byte", "$filter=a+eq+'x;y'&$expand=e($select=b;$top=1)&$top=5", "$filter=a+eq+'x;y'&$expand=e($select=b;$top=1)&$top=5"},
		{"bad escapes and lone separators stay", "&&a=%zz&=&b&", "&&a=%zz&=&b&"},
		{"%2B stays", "$skiptoken=a%2Bb==", "$skiptoken=a%2Bb=="},
		{"an access token goes", "access_token=x&$top=5", "$top=5"},
		{"one in the middle goes with its separator", "$top=5&client_secret=x&$skip=1", "$top=5&$skip=1"},
		{"all of them go", "client_id=a&client_secret=b&client_assertion=c&password=d&_method=DELETE&access_token=e", ""},
		{"the name may be in any letter case", "Access_Token=x&a=b", "a=b"},
		{"the name may be encoded", "acc%65ss%5Ftoken=x&a=b", "a=b"},
		{"white space around the name does not save it", "+password=x&a=b", "a=b"},
		{"a name without a value", "password&a=b", "a=b"},
		{"a longer name stays", "passwords=x&a_password=y", "passwords=x&a_password=y"},
		{"a value that looks like one stays", "$filter=access_token", "$filter=access_token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Query(c.raw); got != c.want {
				t.Errorf("Query(%q) = %q, want %q", c.raw, got, c.want)
			}
		})
	}
}

// What was judged is what is sent: whatever Parse lets pass reads the same in a
// second reading, decodes to nothing dangerous, once or twice, and survives
// net/url unchanged.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"/api/alerts", "//api/x/", "/api/%61/%2e%2e", "/a%20b/é", "/t/c//api", "/a;b", "/%252f", "/api/machines/findbyip(ip='1',timestamp=2)", "/\u017f", "/ a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := Parse(raw)
		if err != nil {
			return
		}
		s := p.String()
		if again, err := Parse(s); err != nil || again != p {
			t.Fatalf("%q gave %q, which gives %q, %v", raw, s, again, err)
		}
		decoded, err := url.PathUnescape(s)
		if err != nil {
			t.Fatalf("%q gave %q, which net/url does not decode: %v", raw, s, err)
		}
		twice, err := url.PathUnescape(decoded)
		if err != nil || twice != decoded {
			t.Fatalf("%q gave %q, which decodes twice, to %q, %v", raw, s, twice, err)
		}
		if strings.Count(decoded, "/") != strings.Count(s, "/") || strings.ContainsAny(decoded, "\\;#\x00\n\r") {
			t.Fatalf("%q gave %q, which decodes to %q", raw, s, decoded)
		}
		for seg := range strings.SplitSeq(s[1:], "/") {
			if s != "/" && (seg == "" || strings.Trim(seg, ".") == "") {
				t.Fatalf("%q gave %q, with the segment %q", raw, s, seg)
			}
		}
		for i := 0; i < len(s); i++ {
			if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '?' {
				t.Fatalf("%q gave %q, with the byte %#x", raw, s, s[i])
			}
		}
		u, err := url.ParseRequestURI(s)
		if err != nil || u.EscapedPath() != s && u.RawPath != "" {
			t.Fatalf("%q gave %q, which net/url reads as %v, %v", raw, s, u, err)
		}
	})
}

// What Query leaves has no credential in a second reading, and is made of the
// parameters that stood there, in their order.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "a=b&password=c", "&&", "access%5ftoken=1&$filter=x;y", "%00password=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got := Query(raw)
		if Query(got) != got {
			t.Fatalf("Query(%q) = %q is not final", raw, got)
		}
		if values, err := url.ParseQuery(got); err == nil {
			for name := range values {
				for _, c := range credentialParameters {
					if asciiLower(strings.Trim(name, " \t\r\n\v\f")) == c {
						t.Fatalf("Query(%q) = %q still holds %s", raw, got, c)
					}
				}
			}
		}
		rest := strings.Split(raw, "&")
		for p := range strings.SplitSeq(got, "&") {
			for len(rest) > 0 && rest[0] != p {
				rest = rest[1:]
			}
			if len(rest) == 0 && got != "" {
				t.Fatalf("Query(%q) = %q holds %q, which did not stand there in that order", raw, got, p)
			}
			if len(rest) > 0 {
				rest = rest[1:]
			}
		}
	})
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func BenchmarkParse(b *testing.B) {
	for name, raw := range map[string]string{
		"plain":   "/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/alerts",
		"encoded": "/api/libraryfiles/my%20file.ps1",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
