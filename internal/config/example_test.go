package config

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const examplePath = "../../config.example.yaml"

// lines of the example that hold a key with a # before it, without a space.
var leftOut = regexp.MustCompile(`^( *)#([^ #].*)$`)

const (
	unbuiltNote     = "# not built yet"
	alternativeNote = "# instead of"
)

func example(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}

// uncommented takes the # away from the lines that pick chooses.
func uncommented(lines []string, pick func(i int, line string) bool) string {
	out := slices.Clone(lines)
	for i, line := range lines {
		if m := leftOut.FindStringSubmatch(line); m != nil && pick(i, line) {
			out[i] = m[1] + m[2]
		}
	}
	return strings.Join(out, "\n")
}

func TestTheExampleLoadsAndHoldsTheDefaults(t *testing.T) {
	got, err := Load(examplePath, contosoEnv.lookup)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Warnings) > 0 || len(got.Impaired) > 0 {
		t.Errorf("warnings: %v, impaired: %v", got.Warnings, got.Impaired)
	}
	least, err := Parse(examplePath, []byte(minimal), contosoEnv.lookup)
	if err != nil {
		t.Fatal(err)
	}
	// What is empty in the example is left out in the minimal file.
	got.Listeners[0].Hosts, got.Listeners[0].TrustedProxies, got.Listeners[0].Balancers = nil, nil, nil
	got.Clients[0].Deny, got.Clients[0].Headers, got.Approval.Operations, got.Approval.By = nil, nil, nil, nil
	got.ForwardHeaders, got.Policy.Operations, got.Clouds, got.Cache.TTL = nil, nil, nil, nil
	if !reflect.DeepEqual(got, least) {
		t.Errorf("the example differs from the defaults:\n got %+v\nwant %+v", got, least)
	}
}

// alternative is a key of the example that may stand only where others do not.
type alternative struct {
	first, end int      // its lines
	of         []string // the keys that it replaces
}

// alternatives finds the keys with "instead of", but for "instead of the above".
func alternatives(lines []string) (all []alternative) {
	for i, line := range lines {
		_, of, found := strings.Cut(line, alternativeNote+" ")
		if found && of != "the above" && leftOut.MatchString(line) {
			all = append(all, alternative{i, blockEnd(lines, i), strings.Split(of, ", ")})
		}
	}
	return all
}

// blockEnd gives the line behind a key and what is below it.
func blockEnd(lines []string, first int) int {
	depth := func(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }
	end := first + 1
	for end < len(lines) && lines[end] != "" && depth(lines[end]) > depth(lines[first]) {
		end++
	}
	return end
}

// exampleFiles writes the files that the example names into a folder, so that
// nothing is missing, and gives the path of a configuration beside them.
func exampleFiles(t *testing.T) (path string) {
	t.Helper()
	dir := t.TempDir()
	cert, key := certificate(t)
	for name, content := range map[string]string{
		"server.pem": string(cert), "server.key": string(key), "clients.pem": string(cert), "corp.pem": string(cert),
		"contoso.secret": marker, "contoso-next.secret": marker, "contoso.pem": string(cert), "contoso.key": string(key),
		"azure-identity-token": marker, "contoso.tokens": marker, "contoso.tokens.key": marker,
		"tenants.d/fabrikam.yaml": "id: 44444444-4444-4444-4444-444444444444\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), []byte(content))
	}
	return filepath.Join(dir, "config.yaml")
}

var exampleEnv = environment{"CONTOSO_SECRET": marker, "CONTOSO_KEY_PASSWORD": marker, "CONTOSO_PASSWORD": marker, "KEY": marker + marker, "RELAY_KEY": marker + marker + marker}

// builtExample is the example with everything uncommented that is built and no
// alternative, and the path of a configuration beside which its files are.
func builtExample(t *testing.T) (path, text string) {
	t.Helper()
	// "instead of the above" takes the place of the line above.
	lines := example(t)
	for i, line := range lines {
		if strings.Contains(line, alternativeNote+" the above") {
			lines[i-1] = ""
		}
	}
	others := alternatives(lines)
	return exampleFiles(t), uncommented(lines, func(i int, line string) bool {
		return !strings.Contains(line, unbuiltNote) &&
			!slices.ContainsFunc(others, func(a alternative) bool { return a.first <= i && i < a.end })
	})
}

func TestTheExampleLoadsWithEverythingUncommentedThatIsBuilt(t *testing.T) {
	path, text := builtExample(t)
	c, err := Parse(path, []byte(text), exampleEnv.lookup)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listeners[0].TLS == nil || c.Listeners[0].TLS.CertFile != filepath.Join(filepath.Dir(path), "server.pem") {
		t.Errorf("tls = %+v, want the files beside the configuration", c.Listeners[0].TLS)
	}
	if len(c.Clouds) != 1 || len(c.Policy.Operations) != 1 || c.Egress.Proxy == "" || len(c.Tenants) != 2 || c.Tenants[0].Credential.User == nil {
		t.Errorf("not everything was uncommented: %+v", c)
	}
	if len(c.Impaired) > 0 {
		t.Errorf("impaired: %v", c.Impaired)
	}
	if strings.Contains(c.Warnings.Error(), "nobody can") {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func TestEachAlternativeOfTheExampleLoadsInThePlaceOfWhatItReplaces(t *testing.T) {
	lines := example(t)
	user := slices.Index(lines, "      #user:")
	all := alternatives(lines)
	if len(all) < 6 || user < 0 {
		t.Fatalf("found %d alternatives, the user in line %d", len(all), user+1)
	}
	path := exampleFiles(t)
	for _, a := range all {
		t.Run(strings.TrimSpace(lines[a.first]), func(t *testing.T) {
			lines := slices.Clone(lines)
			ofUser := user < a.first && a.first < blockEnd(lines, user)
			for _, key := range a.of {
				at := nearestKey(lines, key, a.first)
				for i, end := at, blockEnd(lines, at); i < end; i++ {
					if i < a.first || i >= a.end { // env is in front of its alternatives
						lines[i] = ""
					}
				}
			}
			text := uncommented(lines, func(i int, line string) bool {
				return a.first <= i && i < a.end || ofUser && user <= i && i < a.end
			})
			if ofUser {
				text = strings.Replace(text, "flow: device_code", "flow: password", 1)
			}
			c, err := Parse(path, []byte(text), exampleEnv.lookup)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Impaired) > 0 {
				t.Errorf("impaired: %v", c.Impaired)
			}
			if reflect.DeepEqual(c.Tenants[0].Credential, parsed(t, minimal, contosoEnv).Tenants[0].Credential) {
				t.Error("the alternative was not uncommented")
			}
		})
	}
}

// nearestKey gives the line of a key as deep as the one in line from, the
// nearest to it.
func nearestKey(lines []string, key string, from int) int {
	depth := func(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }
	for d := range lines {
		for _, i := range []int{from - d, from + d} {
			if i >= 0 && i < len(lines) && depth(lines[i]) == depth(lines[from]) && strings.HasPrefix(strings.TrimLeft(lines[i], " #"), key+":") {
				return i
			}
		}
	}
	return -1
}

func TestEachKeyOfTheExampleThatIsNotBuiltIsRefusedWithThatReason(t *testing.T) {
	lines := example(t)
	seen := 0
	for i, line := range lines {
		if !strings.Contains(line, unbuiltNote) {
			continue
		}
		if leftOut.FindStringSubmatch(line) == nil {
			if !strings.Contains(line, `"Not built yet"`) {
				t.Errorf("line %d is said to be not built and yet stands there: %s", i+1, line)
			}
			continue
		}
		seen++
		t.Run(strings.TrimSpace(line), func(t *testing.T) {
			lines := slices.Clone(lines)
			indent := strings.Index(line, "#")
			key, _, _ := strings.Cut(line[indent+1:], ":")
			// The same key may stand above with what is allowed, and tls is left out.
			for j, other := range lines[:i] {
				if j >= i-3 && strings.HasPrefix(other[min(indent, len(other)):], key+":") {
					lines[j] = ""
				}
				if j >= i-8 && strings.Contains(other, "#tls:") {
					lines[j] = strings.Replace(other, "#", "", 1)
				}
			}
			_, err := Parse("config.yaml", []byte(uncommented(lines, func(j int, _ string) bool { return j == i })), contosoEnv.lookup)
			faults, ok := errors.AsType[Faults](err)
			if !ok {
				t.Fatalf("error is %v, want faults", err)
			}
			at := slices.IndexFunc(faults, func(f Fault) bool {
				return f.Line == i+1 && strings.Contains(f.Message, "asks for") && strings.Contains(f.Message, "which this version does not have; ")
			})
			if at < 0 {
				t.Errorf("line %d is not refused as unbuilt:\n%v", i+1, err)
			}
		})
	}
	if seen < len(notBuilt)-1 { // of the rows about enforce one line is enough
		t.Errorf("the example has %d keys that are not built, the table %d", seen, len(notBuilt))
	}
}

func TestEveryKeyIsInTheExample(t *testing.T) {
	text := uncommented(example(t), func(int, string) bool { return true })
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	pathsOf(doc.Content[0], "", have)

	want := make(map[string]bool)
	keysOf(reflect.TypeFor[Config](), "", want)
	for path := range want {
		// What is below them is shown where it stands first.
		for _, again := range []string{"tenant_defaults.credential.", "tenant_defaults.regions.", ".next_client_secret.", ".password.", "relay.keys[].", "clients[].deny[].", "admin.socket."} {
			if strings.Contains(path, again) {
				delete(want, path)
			}
		}
	}
	for _, row := range notBuilt {
		want[strings.TrimSuffix(row.key, "[]")] = true
	}
	if len(want) < 90 {
		t.Errorf("reflection finds %d keys only; it is broken", len(want))
	}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if !have[path] {
			t.Errorf("config.example.yaml does not show %s", path)
		}
	}
}

// pathsOf gathers the paths of a document without indices.
func pathsOf(n *yaml.Node, path string, into map[string]bool) {
	into[path] = true
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			pathsOf(c, path+"[]", into)
		case i%2 == 1:
			pathsOf(c, join(path, n.Content[i-1].Value), into)
		}
	}
}

// keysOf gathers the keys that the decoder knows.
func keysOf(t reflect.Type, path string, into map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer:
		keysOf(t.Elem(), path, into)
	case reflect.Slice:
		keysOf(t.Elem(), path+"[]", into)
	case reflect.Struct:
		if isScalar(t) {
			return
		}
		for i := range t.NumField() {
			if key := keyOf(t.Field(i)); key != "" {
				into[join(path, key)] = true
				keysOf(t.Field(i).Type, join(path, key), into)
			}
		}
	}
}

func TestTheExampleSaysWhatTheDocCommentsSay(t *testing.T) {
	comments := commentsOf(example(t))
	for _, f := range fieldDocs(t) {
		if f.doc == "" {
			t.Errorf("%s has no doc comment", f.name)
		} else if !strings.Contains(comments, f.doc) {
			t.Errorf("config.example.yaml does not say of %s: %s", f.name, f.doc)
		}
		if def := f.tag.Get("default"); def != "" && !strings.Contains(f.doc, "Default "+def) {
			t.Errorf("the doc comment of %s does not say \"Default %s\": %s", f.name, def, f.doc)
		}
		if bounds := "from " + f.tag.Get("min") + " to " + f.tag.Get("max"); f.tag.Get("min") != "" && !strings.Contains(f.doc, bounds) {
			t.Errorf("the doc comment of %s does not say %q: %s", f.name, bounds, f.doc)
		}
	}
}

// commentsOf joins the prose of the example, a line for each run of it.
func commentsOf(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		text := strings.TrimLeft(line, " -#")
		if hash := strings.Index(line, "# "); hash < 0 || strings.Trim(line[:hash], " -#") != "" {
			text = "\n"
		}
		b.WriteString(text + " ")
	}
	return strings.Join(strings.Split(b.String(), "  "), " ")
}

type fieldDoc struct {
	name, doc string
	tag       reflect.StructTag
}

// fieldDocs reads the doc comments of the fields that the file sets.
func fieldDocs(t *testing.T) (docs []fieldDoc) {
	t.Helper()
	for _, name := range []string{"config.go", "listener.go", "client.go", "audit.go", "tenant.go", "credential.go", "cloud.go", "secret.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range s.Fields.List {
				if f.Tag == nil {
					continue
				}
				tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
				if tag.Get("yaml") != "-" {
					docs = append(docs, fieldDoc{f.Names[0].Name, strings.Join(strings.Fields(f.Doc.Text()), " "), tag})
				}
			}
			return true
		})
	}
	if len(docs) < 50 {
		t.Fatalf("found %d fields only", len(docs))
	}
	return docs
}
