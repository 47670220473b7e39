package defenderproxy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The threat model says of each attack which tests hold it, the README of each promise. A test that was renamed
// or removed would leave a promise that nothing holds; a new attack that is in no row
// would be one that no reviewer finds.
func TestTheThreatModelNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	defined := make(map[string]string) // where
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]*)\(`)
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range function.FindAllSubmatch(source, -1) {
			defined[string(m[1])] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]*)`").FindAllSubmatch(text, -1) {
		name := string(m[1])
		named[name] = true
		if defined[name] == "" {
			t.Errorf("docs/threat-model.md names %s, which is no test", name)
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]*)`").FindAllSubmatch(readme, -1) {
		if name := string(m[1]); defined[name] == "" {
			t.Errorf("README.md names %s, which is no test", name)
		}
	}
	if len(named) < 60 {
		t.Errorf("docs/threat-model.md names only %d tests", len(named))
	}
	for name, path := range defined {
		if (strings.HasPrefix(name, "TestAttack") || strings.HasPrefix(name, "TestBrowser")) && !named[name] {
			t.Errorf("docs/threat-model.md does not name %s of %s", name, path)
		}
	}
	for _, m := range regexp.MustCompile(`\]\(\.\./([^)#]+)`).FindAllSubmatch(text, -1) {
		if _, err := os.Stat(string(m[1])); err != nil {
			t.Errorf("docs/threat-model.md leads to what is not there: %v", err)
		}
	}
}
