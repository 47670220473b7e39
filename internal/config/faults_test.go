package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write the fault texts of testdata/faults anew")

// marker is a value of the environment that no fault may show.
const marker = "canary-7f3a91"

var faultsEnv = environment{"CONTOSO_SECRET": marker, "EMPTY": "", "MARKER": marker}

// Each file of testdata/faults has one fault, or a few of a kind; beside it
// stands what the operator is told.
func TestFaultsAreToldWithPlaceFindingAndRemedy(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) < 100 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(strings.ReplaceAll(name, "-", " "), func(t *testing.T) {
			c, err := Load(file, faultsEnv.lookup)
			if err == nil && len(c.Impaired) == 0 {
				t.Fatalf("accepted: %+v", c)
			}
			told := ""
			if err == nil {
				for _, i := range c.Impaired {
					told += "impaired: " + i.Tenant + ": " + i.Fault.String() + "\n"
				}
			} else if _, ok := errors.AsType[Faults](err); !ok || c != nil {
				t.Errorf("a faulty file gave %v and a %T, want Faults alone", c, err)
			} else {
				told = err.Error() + "\n"
			}
			got := strings.ReplaceAll(filepath.ToSlash(told), "testdata/faults/", "")
			beside := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				write(t, beside, []byte(got))
			}
			want, err := os.ReadFile(beside)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if strings.Contains(got, marker) || strings.Contains(got, "hunter2") {
				t.Errorf("a fault shows a secret:\n%s", got)
			}
		})
	}
}

func TestAFileThatCannotBeReadAtAllIsOneFault(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		write(t, path, []byte(content))
		return path
	}
	for _, tc := range []struct{ name, path, want string }{
		{"a file that does not exist", filepath.Join(dir, "no-such"), "no-such: cannot be read: file does not exist"},
		{"a directory", dir, "cannot be read: it is not a regular file"},
		{"an empty file", put("empty", ""), "empty: the file is empty; a configuration needs at least one tenant, config.example.yaml shows every key"},
		{"a file over 4 MiB", put("large", minimal+strings.Repeat("# comment\n", 1<<19)), "large: the file has 4194305 bytes; at most 4194304 (4MiB) are read"},
		{"a file in Latin-1", put("latin", minimal+"store: caf\xe9\n"), "latin:6:11: the byte 0xE9 is not UTF-8; save the file as UTF-8"},
		{"a file in UTF-16", put("utf16", "\xff\xfet\x00"), "utf16:1:1: the byte 0xFF is not UTF-8; save the file as UTF-8"},
		{"a file with a zero byte", put("zero", minimal+"store: \x00\n"), "zero:6:8: the invisible character U+0000 is not allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Load(tc.path, faultsEnv.lookup)
			if err == nil || !strings.HasSuffix(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want …%s", err, tc.want)
			}
		})
	}
}

func TestTheNumberOfFaultsIsBounded(t *testing.T) {
	_, err := Parse("config.yaml", []byte(minimal+"forward_headers:\n"+strings.Repeat("  - Cookie\n", 5000)), faultsEnv.lookup)
	faults, _ := errors.AsType[Faults](err)
	if len(faults) != maxFaults+1 || faults[0].String() != "config.yaml: there are more faults than the 200 told here" {
		t.Errorf("got %d faults, the first %v", len(faults), faults[0])
	}
}

// Every value of the example is taken from the environment, one at a time and
// all at once: of what is built, so that each fault stands alone, and of all.
func TestNoFaultShowsAValueOfTheEnvironment(t *testing.T) {
	path, built := builtExample(t)
	for name, text := range map[string]string{
		"what is built": built,
		"everything":    uncommented(example(t), func(int, string) bool { return true }),
	} {
		t.Run(name, func(t *testing.T) {
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
				t.Fatal(err)
			}
			scalars := scalarsOf(&doc)
			if len(scalars) < 60 {
				t.Fatalf("the example has %d values only", len(scalars))
			}
			faulty := 0
			check := func(value string) {
				t.Helper()
				data, err := yaml.Marshal(&doc)
				if err != nil {
					t.Fatal(err)
				}
				env := maps.Clone(exampleEnv)
				env["MARKER"] = value
				c, err := Parse(path, data, env.lookup)
				told := fmt.Sprint(err)
				if err == nil {
					told = fmt.Sprint(c.Impaired, c.Warnings)
				}
				if err != nil || len(c.Impaired) > 0 {
					faulty++
				}
				if strings.Contains(strings.ToLower(told), marker) {
					t.Errorf("a fault shows a value of the environment:\n%s", told)
				}
			}
			for _, value := range []string{marker, strings.ToUpper(marker), "https://u:" + marker + "@h", "10.0.0.1/" + marker} {
				for _, n := range scalars {
					was := *n
					n.Value, n.Tag, n.Style = "${MARKER}", "!!str", yaml.DoubleQuotedStyle
					check(value)
					*n = was
				}
			}
			for _, n := range scalars {
				n.Value, n.Tag, n.Style = "x-${MARKER}", "!!str", yaml.DoubleQuotedStyle
			}
			check(marker)
			if faulty < 3*len(scalars) {
				t.Errorf("only %d files were faulty; the test tests little", faulty)
			}
		})
	}
}

// scalarsOf gathers the values of a document, not its keys.
func scalarsOf(n *yaml.Node) (scalars []*yaml.Node) {
	for i, c := range n.Content {
		if c.Kind == yaml.ScalarNode && (n.Kind == yaml.SequenceNode || i%2 == 1) {
			scalars = append(scalars, c)
		}
		scalars = append(scalars, scalarsOf(c)...)
	}
	return scalars
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, examplePath) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	lines := strings.Split(string(must(os.ReadFile(examplePath))), "\n")
	f.Add([]byte(uncommented(lines, func(int, string) bool { return true })))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("config.yaml", data, faultsEnv.lookup)
		if err == nil {
			again, err := Parse("config.yaml", data, faultsEnv.lookup)
			if err != nil || !reflect.DeepEqual(c, again) {
				t.Fatalf("read twice, got\n%+v\nand\n%+v, %v", c, again, err)
			}
			files, told := c.Files(), fmt.Sprint(c.Impaired)
			if files[0] != "config.yaml" || len(slices.Compact(slices.Sorted(slices.Values(files)))) != len(files) || slices.Contains(files, "") {
				t.Fatalf("files = %q", files)
			}
			if strings.Contains(told, marker) && !bytes.Contains(data, []byte(marker)) {
				t.Errorf("a value of the environment is shown: %s", told)
			}
			for _, tenant := range c.Tenants {
				if err := oneProof(tenant.Credential); err != "" || !nameForm.MatchString(tenant.Name) || tenant.ID == "" {
					t.Fatalf("accepted a tenant without one proof, a name or an id: %s %+v", err, tenant)
				}
			}
			if len(c.Tenants) == 0 || len(c.Listeners) == 0 || len(c.Clients) == 0 {
				t.Fatalf("accepted without tenants, listeners or clients: %+v", c)
			}
			for _, l := range c.Listeners {
				if !l.Loopback() && len(l.Clients) == 0 {
					t.Fatalf("accepted an open door: %+v", l)
				}
				for _, p := range append(slices.Clone(l.TrustedProxies), l.Balancers...) {
					if p.Bits() == 0 || l.Unix() {
						t.Fatalf("accepted everybody's word for who they are: %+v", l)
					}
				}
			}
			if a := c.Approval; (len(a.Operations) == 0) != (len(a.By) == 0) {
				t.Fatalf("accepted half an approval: %+v", a)
			}
			for _, g := range c.Clients {
				for _, entry := range slices.Concat(g.Allow, g.Deny) {
					if len(entry.Operations) == 0 || entry.Tenants != nil && len(entry.Tenants) == 0 {
						t.Fatalf("accepted an entry of nothing: %+v", entry)
					}
				}
				for h, k := range g.Headers {
					if k == (LocalKey{}) && !bytes.Contains(data, []byte(strings.Repeat("0", 64))) {
						t.Fatalf("accepted %s without a key", h)
					}
				}
			}
			return
		}
		faults, ok := errors.AsType[Faults](err)
		if !ok || len(faults) == 0 || len(faults) > maxFaults+1 {
			t.Fatalf("error is %T with %d faults", err, len(faults))
		}
		for i, fault := range faults {
			text := fault.String()
			ours := fault.File == "config.yaml"
			if fault.Line < 0 || fault.Line == 0 && fault.Column != 0 || ours && fault.Line > 1+bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r")) {
				t.Errorf("a place that does not exist: %s", text)
			}
			if fault.Message == "" || strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) || len(text) > 4096 {
				t.Errorf("not a line for people: %q", text)
			}
			if i > 0 && fault.File == faults[i-1].File && fault.Line < faults[i-1].Line {
				t.Errorf("out of order: %v", faults)
			}
			if strings.Contains(text, marker) && !bytes.Contains(data, []byte(marker)) {
				t.Errorf("a value of the environment is shown: %s", text)
			}
		}
	})
}

// oneProof says what is wrong with the kinds of proof of an accepted credential.
func oneProof(c Credential) string {
	own := 0
	for _, has := range []bool{c.ClientSecret != Secret{}, c.Certificate != nil, c.FederatedToken != nil, c.ManagedIdentity != nil} {
		if has {
			own++
		}
	}
	identity := c.ManagedIdentity != nil && !c.ManagedIdentity.AsAssertion
	switch {
	case own > 1 || own == 0 && c.User == nil:
		return fmt.Sprintf("%d kinds of proof", own)
	case c.User != nil && (c.FederatedToken != nil || c.ManagedIdentity != nil):
		return "a user beside what is no client's"
	case identity != (c.ClientID == ""):
		return "client_id " + c.ClientID
	case c.NextClientSecret != Secret{} && c.ClientSecret == Secret{}:
		return "a second secret without a first"
	}
	return ""
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// What is accepted as the URL of a secret leads to a secret, over TLS, with
// nothing in it that could be one, and is read again as it is.
func FuzzVaultURL(f *testing.F) {
	for _, seed := range []string{
		"https://v.vault.azure.net/secrets/s", "https://V.vault.azure.net:443/secrets/s/0123456789abcdef0123456789abcdef/",
		"http://v.vault.azure.net/secrets/s", "https://u:p@v/secrets/s", "https://v/secrets/%2e%2e/x", "https://v/secrets/s?a=b#c", "https:secrets/s", marker,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, reason := parseVaultURL(text)
		if (value == "") == (reason == "") {
			t.Fatalf("%q gave %q and %q; want one of them", text, value, reason)
		}
		if reason != "" {
			if len(text) > 20 && strings.Contains(reason, text) {
				t.Errorf("the reason repeats the value: %s", reason)
			}
			return
		}
		u, err := url.Parse(value)
		if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !vaultPath.MatchString(u.Path) {
			t.Errorf("%q was read as %q", text, value)
		}
		if again, reason := parseVaultURL(value); again != value {
			t.Errorf("%q was read as %q and then as %q, %s", text, value, again, reason)
		}
	})
}
