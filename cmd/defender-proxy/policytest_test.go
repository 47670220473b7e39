package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// The configuration and the tests of docs/policy.md are what it says they are.
func TestTheExamplesOfTheDocumentHold(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Fatalf("the document has %d blocks of YAML, want a configuration and a file of tests", len(blocks))
	}
	dir := t.TempDir()
	for i, name := range []string{"proxy.yaml", "tests.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), blocks[i][1], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	none := func(string) (string, bool) { return "", false }
	code := run(t.Context(), []string{"policy", "test", filepath.Join(dir, "tests.yaml")}, none, &stdout, &stderr)
	if code != exitOK || !strings.Contains(stdout.String(), " 0 not\n") {
		t.Errorf("got %d, want 0\n%s%s", code, stdout.String(), stderr.String())
	}
}

func TestABodyOfATestIsWhatIsSent(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"a mapping in its order", `{b: 1, a: [true, null, 1.5], "0": x}`, `{"b":1,"a":[true,null,1.5],"0":"x"}`},
		{"what looks like a time is a text", `{at: 2026-11-21, "on": 2026-11-21T00:00:00Z}`, `{"at":"2026-11-21","on":"2026-11-21T00:00:00Z"}`},
		{"a text as it is", `'{"a":1,"a":2}'`, `{"a":1,"a":2}`},
		{"an empty text", `""`, ``},
		{"a number", `12`, `12`},
		{"a key twice", `{a: 1, a: 2}`, `{"a":1,"a":2}`},
		{"an alias", `[&x {a: 1}, *x]`, `[{"a":1},{"a":1}]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var n yaml.Node
			if err := yaml.Unmarshal([]byte(tc.yaml), &n); err != nil {
				t.Fatal(err)
			}
			got, err := expectedBody(n.Content[0])
			if err != nil || got == nil || string(got) != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
	var deep yaml.Node
	if err := yaml.Unmarshal([]byte(strings.Repeat("[", 150)+strings.Repeat("]", 150)), &deep); err != nil {
		t.Fatal(err)
	}
	if _, err := expectedBody(deep.Content[0]); err == nil {
		t.Error("a body without end is taken")
	}
}

// Whatever stands in a file of expectations, reading it ends, and what is accepted
// can be decided: requests, a word that is known, a body that is JSON or a text.
func FuzzExpectations(f *testing.F) {
	f.Add([]byte("tests:\n  - {client: soc, request: GET /api/alerts, expect: allowed}\n"))
	f.Add([]byte("at: 2026-01-01T00:00:00Z\ntests:\n  - &a {client: a, request: [GET /a, GET /b], body: {x: [1, 2]}, expect: {decision: NotGranted, rule: ''}}\n  - *a\n"))
	f.Add([]byte("tests: [{client: a, request: GET /, body: 0x10, expect: granted}]"))
	f.Add([]byte("tests: [{client: a, request: GET /, body: .nan, expect: granted}]"))
	file := filepath.Join(f.TempDir(), "tests.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := readExpectations(file)
		if err != nil {
			return
		}
		if len(read.tests) == 0 {
			t.Fatalf("%q is accepted without tests", text)
		}
		for _, e := range read.tests {
			if e.Client == "" || len(e.Request) == 0 || e.want.check() != nil || !e.Body.IsZero() && e.body == nil {
				t.Fatalf("%q gives %+v", text, e)
			}
			if (e.Body.Kind == yaml.MappingNode || e.Body.Kind == yaml.SequenceNode) && !json.Valid(e.body) {
				t.Fatalf("%q gives the body %q", text, e.body)
			}
		}
	})
}
