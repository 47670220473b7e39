package policy

import (
	"regexp"
	"strings"
	"testing"
)

// A second reading of patterns, by package regexp, must agree.
func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"machines.*", "machines.isolate"}, {"*.list", "alerts.list"}, {"a*b*c", "aXbXbc"}, {"**", ""}, {"a*a*a*b", "aaaaaaaa"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		for _, r := range pattern + s {
			if r >= 0x80 {
				return // ids are ASCII
			}
		}
		if len(pattern) > 200 {
			return // more than package regexp likes
		}
		re := regexp.MustCompile("(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
		if got, want := glob(pattern, s), re.MatchString(s); got != want {
			t.Fatalf("glob(%q, %q) = %v, want %v", pattern, s, got, want)
		}
	})
}
