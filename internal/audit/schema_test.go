package audit

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaFile = "../../docs/audit.schema.json"

func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// valid checks a line against the schema.
func valid(t testing.TB, s *jsonschema.Schema, line []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err == nil {
		err = s.Validate(v)
	}
	if err != nil {
		t.Errorf("by the schema the line is wrong: %v\n%s", err, line)
	}
}

// What the package writes is what the schema says, and the schema says nothing
// that the package never writes.
func TestTheSchemaSaysWhatIsWritten(t *testing.T) {
	s := schema(t)
	seen := map[string]bool{}
	see := func(line string) {
		valid(t, s, []byte(line))
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatal(err)
		}
		for name := range members {
			seen[name] = true
		}
	}
	small := &Record{Event: Request, Time: time.Unix(1, 0), ID: "x", Listener: "unix:/run/p.sock", Decision: "refused"}
	intent := fullRecord()
	intent.Event, intent.Status, intent.Duration = Intent, 0, 0

	_, log := fileLog(t, Settings{Chain: true})
	for _, r := range []*Record{fullRecord(), small, intent} {
		must(t, log.Write(r))
	}
	for _, line := range linesOf(t, log.out.path) {
		see(line)
	}
	var lost bytes.Buffer
	encodeLost(&lost, time.Now(), time.Now(), 3, "no space left on device")
	see(lost.String())

	text, err := os.ReadFile(schemaFile)
	must(t, err)
	var doc struct {
		Properties map[string]any
	}
	must(t, json.Unmarshal(text, &doc))
	manual, err := os.ReadFile("../../docs/audit.md")
	must(t, err)
	for name := range doc.Properties {
		if !seen[name] {
			t.Errorf("the schema has %s, which is never written", name)
		}
		if !strings.Contains(string(manual), "`"+name+"`") {
			t.Errorf("docs/audit.md does not explain `%s`", name)
		}
	}
}

// Else the test above would prove nothing.
func TestTheSchemaRefusesWhatIsNotARecord(t *testing.T) {
	s := schema(t)
	for name, line := range map[string]string{
		"a member that does not exist":      `{"time":"2026-11-21T00:02:03.004Z","event":"request","request_id":"x","listener":"l","decision":"allowed","token":"x"}`,
		"no request id":                     `{"time":"2026-11-21T00:02:03.004Z","event":"request","listener":"l","decision":"allowed"}`,
		"a number without a hash":           `{"time":"2026-11-21T00:02:03.004Z","event":"request","request_id":"x","listener":"l","decision":"allowed","seq":1}`,
		"a count at an ordinary record":     `{"time":"2026-11-21T00:02:03.004Z","event":"request","request_id":"x","listener":"l","decision":"allowed","count":1}`,
		"an address that is none":           `{"time":"2026-11-21T00:02:03.004Z","event":"request","request_id":"x","listener":"l","decision":"allowed","address":"here"}`,
		"a lost event that does not say so": `{"time":"2026-11-21T00:02:03.004Z","event":"lost"}`,
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		must(t, err)
		if s.Validate(v) == nil {
			t.Errorf("%s passes: %s", name, line)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fileLog opens a Log with a file of its own.
func fileLog(t testing.TB, s Settings) (string, *Log) {
	t.Helper()
	if s.File == "" {
		s.File = t.TempDir() + "/audit.jsonl"
	}
	log, err := Open(s, nil, nil)
	must(t, err)
	t.Cleanup(func() { _ = log.Close() })
	return s.File, log
}

// linesOf gives the lines of files, one after the other.
func linesOf(t testing.TB, paths ...string) (all []string) {
	t.Helper()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(t, err)
		all = append(all, slices.Collect(strings.Lines(string(text)))...)
	}
	return all
}

// ids gives the request ids of lines, and the event of those that have none.
func ids(t testing.TB, lines []string) (all []string) {
	t.Helper()
	for _, line := range lines {
		var r struct {
			ID    string `json:"request_id"`
			Event string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("no record: %q", line)
		}
		if r.ID == "" {
			r.ID = r.Event
		}
		all = append(all, r.ID)
	}
	return all
}
