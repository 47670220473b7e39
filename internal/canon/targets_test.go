package canon

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// target is a line of testdata/targets.txt.
type target struct {
	line      int
	raw       string
	canonical string // empty where it is refused
	why       string // words of the reason for that
}

// targets reads testdata/targets.txt.
func targets(tb testing.TB) []target {
	tb.Helper()
	const name = "testdata/targets.txt"
	file, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	var all []target
	seen := make(map[string]bool)
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		quoted, what, ok := strings.Cut(rest, "\t")
		c := target{line: n, why: what}
		if c.raw, err = strconv.Unquote(quoted); err != nil || !ok {
			tb.Fatalf("%s:%d: %s is no quoted path with a tab behind it", name, n, rest)
		}
		if kind == "=" {
			c.why = ""
			if c.canonical, err = strconv.Unquote(what); err != nil || c.canonical == "" {
				tb.Fatalf("%s:%d: %s is no quoted path", name, n, what)
			}
		} else if kind != "!" || what == "" {
			tb.Fatalf("%s:%d: the line begins with neither = nor !, or gives no reason", name, n)
		}
		if seen[c.raw] {
			tb.Errorf("%s:%d: %q is there twice", name, n, c.raw)
		}
		seen[c.raw] = true
		all = append(all, c)
	}
	if err := lines.Err(); err != nil {
		tb.Fatal(err)
	}
	if len(all) < 300 {
		tb.Fatalf("%s has only %d paths", name, len(all))
	}
	return all
}

func TestTargets(t *testing.T) {
	for _, c := range targets(t) {
		got, err := Parse(c.raw)
		var refused *Error
		switch {
		case c.canonical != "" && (err != nil || got.String() != c.canonical):
			t.Errorf("line %d: Parse(%q) = %q, %v; want %q", c.line, c.raw, got, err, c.canonical)
		case c.canonical == "" && (!errors.As(err, &refused) || !strings.Contains(refused.Why, c.why)):
			t.Errorf("line %d: Parse(%q) = %q, %v; want a refusal that says %q", c.line, c.raw, got, err, c.why)
		}
		if c.canonical == "" {
			continue
		}
		if again, err := Parse(c.canonical); err != nil || again != got {
			t.Errorf("line %d: the canonical path %q is read again as %q, %v", c.line, c.canonical, again, err)
		}
	}
}
