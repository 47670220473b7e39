package tenant

import (
	"strings"
	"testing"
)

func TestParseID(t *testing.T) {
	for _, c := range []struct{ name, in, want, err string }{
		{"a GUID", "11111111-2222-3333-4444-55556666aaff", "11111111-2222-3333-4444-55556666aaff", ""},
		{"capitals become small", "ABCDEF01-2345-6789-ABCD-EF0123456789", "abcdef01-2345-6789-abcd-ef0123456789", ""},
		{"nothing", "", "", "0 characters"},
		{"a domain", "contoso.onmicrosoft.com", "", "23 characters"},
		{"braces around it", "{11111111-2222-3333-4444-55556666aaff}", "", "38 characters"},
		{"no hyphens", strings.Repeat("1", 36), "", "character 9 should be a hyphen"},
		{"a letter too far", "g1111111-2222-3333-4444-55556666aaff", "", "character 1 is not a hexadecimal digit"},
		{"a path in it", "11111111-2222-3333-4444-5555/../aaff", "", "character 29"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseID(c.in)
			if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("ParseID(%q) = %q, %v; want %q, %q", c.in, got, err, c.want, c.err)
			}
		})
	}
}

// What is accepted is 36 characters of a URL's path and nothing else: the id
// stands in the URL of the token request.
func FuzzParseID(f *testing.F) {
	f.Add("11111111-2222-3333-4444-55556666aaff")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			if id != "" {
				t.Fatalf("a refusal came with %q", id)
			}
			return
		}
		if again, err := ParseID(string(id)); err != nil || again != id || !strings.EqualFold(string(id), s) || len(id) != 36 || strings.Trim(string(id), "0123456789abcdef-") != "" {
			t.Fatalf("%q gives %q, then %q, %v", s, id, again, err)
		}
	})
}
