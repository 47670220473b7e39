package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVerifyFindsTheFirstRecordThatWasChangedOrIsMissing(t *testing.T) {
	lines := linesOf(t, chained(t, 8, Settings{}))
	edit := func(at int, old, new string) func([]string) []string {
		return func(l []string) []string {
			if !strings.Contains(l[at-1], old) {
				panic("nothing to change: " + l[at-1])
			}
			l[at-1] = strings.Replace(l[at-1], old, new, 1)
			return l
		}
	}
	for name, c := range map[string]struct {
		change func([]string) []string
		kind   FaultKind
		line   int
		text   string
	}{
		"nothing was done":                   {func(l []string) []string { return l }, "", 0, ""},
		"a path was changed":                 {edit(4, "alerts", "alertz"), Changed, 4, "was changed"},
		"the first record was changed":       {edit(1, "alerts", "alertz"), Changed, 1, "was changed"},
		"the last but one was changed":       {edit(7, "alerts", "alertz"), Changed, 8, "or the one before it"},
		"a space was added":                  {edit(4, `"event":`, `"event": `), Changed, 4, "was changed"},
		"its hash was changed":               {edit(4, `"prev":"`, `"prev":"0`), Changed, 4, "or the one before it"},
		"its number was changed":             {edit(4, `"seq":4`, `"seq":5`), Changed, 4, "is number 4"},
		"it has no number":                   {edit(4, `"seq":4,`, ``), Changed, 4, "no number"},
		"it has neither number nor hash":     {func(l []string) []string { l[3] = "{\"event\":\"request\"}\n"; return l }, Changed, 4, "no number"},
		"it is no JSON any more":             {edit(4, `{`, `<`), Changed, 4, "is no record, and record 4 is missing"},
		"the last is no JSON":                {edit(8, `{`, `<`), Changed, 8, "is no record"},
		"the end of the last line is gone":   {edit(8, "}\n", ""), "", 0, ""},
		"a record is missing":                {func(l []string) []string { return slices.Delete(l, 3, 4) }, Missing, 4, "record 4 is missing before record 5"},
		"three are missing":                  {func(l []string) []string { return slices.Delete(l, 3, 6) }, Missing, 4, "records 4 to 6 are missing before record 7"},
		"the first is missing":               {func(l []string) []string { return l[1:] }, Missing, 1, "did not begin with record 2"},
		"two changed places":                 {func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }, Moved, 4, "record 4 is not here, but further on, at "},
		"one was moved to the end":           {func(l []string) []string { return append(slices.Delete(l, 3, 4), lines[3]) }, Moved, 4, "audit.jsonl:8"},
		"the first was moved to the end":     {func(l []string) []string { return append(l[1:], lines[0]) }, Moved, 1, "record 1 is not here"},
		"two are missing, one is further on": {func(l []string) []string { return append(slices.Delete(l, 3, 5), lines[4]) }, Moved, 4, "records 4 to 5 are not here; record 5 is further on"},
		"JSON behind a space is there":       {func(l []string) []string { return slices.Insert(l, 3, " "+l[2]) }, Changed, 4, "JSON and no record"},
		"JSON behind a zero is there":        {func(l []string) []string { return slices.Insert(l, 3, "\x00\ufeff"+l[2]) }, Changed, 4, "JSON and no record"},
		"JSON behind a space is at the end":  {func(l []string) []string { return append(l, " {}") }, Changed, 9, "JSON and no record"},
		"one is there twice":                 {func(l []string) []string { return slices.Insert(l, 4, l[3]) }, Moved, 5, "record 4 stands behind record 4"},
		"an old one is there again":          {func(l []string) []string { return slices.Insert(l, 6, l[1]) }, Moved, 7, "record 2 stands behind record 6"},
		"a line of something else is there":  {func(l []string) []string { return slices.Insert(l, 3, "hello\n") }, Changed, 3, "or what stands between"},
		"a record without a chain is there":  {func(l []string) []string { return slices.Insert(l, 3, "{}\n") }, Changed, 4, "no number"},
		"an empty line is at the end":        {func(l []string) []string { return append(l, "\n") }, Changed, 9, "is no record"},
		"records without a chain come first": {func(l []string) []string { return slices.Insert(l, 0, "{}\n") }, Changed, 1, "was changed"},
		"something else comes first":         {func(l []string) []string { return slices.Insert(l, 0, "#\n") }, Changed, 2, "in front of the record"},
		"a new chain follows":                {func(l []string) []string { return slices.Concat(l, l) }, Moved, 9, "record 1 stands behind record 8"},
		"lines end as on Windows": {func(l []string) []string {
			return strings.SplitAfter(strings.ReplaceAll(strings.Join(l, ""), "\n", "\r\n"), "\n")
		}, Changed, 2, "or the one before it"},
		"a line is endless": {func(l []string) []string { return append(l, strings.Repeat("x", longest+1)) }, Changed, 9, "longer than any record"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			must(t, os.WriteFile(path, []byte(strings.Join(c.change(slices.Clone(lines)), "")), 0o600))
			v, err := Verify([]string{path}, VerifyOptions{}, nil)
			must(t, err)
			if kindOf(v) != c.kind {
				t.Fatalf("got %v, want %q", v.Fault, c.kind)
			}
			if c.kind == "" {
				return
			}
			if v.Fault.File != path || v.Fault.Line != c.line || !strings.Contains(v.Fault.Text, c.text) {
				t.Errorf("got %s\nwant line %d and %q", v.Fault, c.line, c.text)
			}
		})
	}
}

func TestFilesMayBeGivenInAnyOrder(t *testing.T) {
	path := chained(t, 40, Settings{MaxBytes: 1000})
	files, err := filepath.Glob(path + "*")
	must(t, err)
	if len(files) < 5 {
		t.Fatalf("only %d files", len(files))
	}
	if v := whole(t, files...); v.Records != 40 {
		t.Errorf("got %+v, want 40 records", v)
	}
	slices.Reverse(files)
	if v := whole(t, files...); v.Records != 40 {
		t.Errorf("got %+v, want 40 records", v)
	}
	// The oldest may be gone, one between may not.
	slices.Sort(files) // the newest, and then from the oldest on
	if v := whole(t, slices.Concat(files[2:], files[:1])...); v.First == 1 || v.Last != 40 {
		t.Errorf("without the first file: %+v", v)
	}
	v, err := Verify(slices.Concat(files[:3], files[4:]), VerifyOptions{}, nil)
	must(t, err)
	if kindOf(v) != Missing {
		t.Errorf("without a file in the middle: got %v, want missing", v.Fault)
	}
}

// The oldest files are gone, and so nothing carries a hash of what stands in front of
// the first record.
func TestNothingCanBePutInFrontOfTheOldestFileThatIsKept(t *testing.T) {
	path := chained(t, 40, Settings{MaxBytes: 1000})
	files, err := filepath.Glob(path + "*")
	must(t, err)
	slices.Sort(files)
	kept := slices.Concat(files[3:], files[:1])
	oldest, err := os.ReadFile(kept[0])
	must(t, err)
	for put, want := range map[string]FaultKind{
		"":                                     "",
		"\n":                                   "",
		"\x00\x00\n":                           "",
		" {\"event\":\"request\",\"seq\":1}\n": Changed,
		"\t{\"seq\":1,\"prev\":\"x\"}\n":       Changed,
		"{\"event\":\"request\"}\n":            Missing,
		"{\"seq\":3,\"prev\":\"x\"}\n":         Missing,
		"{\"event\":\"request\"},\n":           Changed,
		"{\"event\":\"request\",\"path\":\"/ap\n": Changed,
		"\n\n{\"event\":\"requ\n\n":               Changed,
		"hello\n":                                 Changed,
	} {
		must(t, os.WriteFile(kept[0], slices.Concat([]byte(put), oldest), 0o600))
		v, err := Verify(kept, VerifyOptions{}, nil)
		must(t, err)
		if kindOf(v) != want {
			t.Errorf("%q in front: got %q (%v), want %q", put, kindOf(v), v.Fault, want)
		}
	}
}

// Of several chains each has a record of that number.
func TestARecordOfAnotherStartIsNotTheOneThatIsMissing(t *testing.T) {
	one, two := linesOf(t, chained(t, 5, Settings{})), linesOf(t, chained(t, 5, Settings{}))
	text := strings.Join(slices.Concat(one[:2], one[3:], two), "")
	v, err := Verify([]string{"-"}, VerifyOptions{Restarts: true}, strings.NewReader(text))
	must(t, err)
	if kindOf(v) != Missing || v.Fault.Line != 3 {
		t.Errorf("got %v, want record 3 missing", v.Fault)
	}
}

func TestAChainOfAStreamBeginsAnewAtEachStart(t *testing.T) {
	var b bytes.Buffer
	for range 3 {
		log, err := Open(Settings{File: "stdout", Chain: true}, &b, nil)
		must(t, err)
		for range 3 {
			must(t, log.Write(&Record{Event: Request}))
		}
	}
	for restarts, want := range map[bool]FaultKind{true: "", false: Moved} {
		v, err := Verify([]string{"-"}, VerifyOptions{Restarts: restarts}, bytes.NewReader(b.Bytes()))
		must(t, err)
		if kindOf(v) != want {
			t.Errorf("restarts %v: got %v, want %q", restarts, v.Fault, want)
		}
	}
}

func TestWhatIsNoChainIsNotVerified(t *testing.T) {
	for name, text := range map[string]string{"an empty file": "", "records without a chain": "{}\n{}\n"} {
		if v, err := Verify([]string{"-"}, VerifyOptions{}, strings.NewReader(text)); !errors.Is(err, ErrNoChain) {
			t.Errorf("%s: got %v, %v; want ErrNoChain", name, v, err)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing")
	for _, files := range [][]string{{missing}, {missing, missing}} {
		if _, err := Verify(files, VerifyOptions{}, nil); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file that is not there: got %v", err)
		}
	}
}

// Whatever is done to a chain, but for its last record, is found. The last one is
// when its hash was kept elsewhere.
func FuzzVerifyFindsEveryChange(f *testing.F) {
	var b bytes.Buffer
	log, err := Open(Settings{File: "stdout", Chain: true}, &b, nil)
	must(f, err)
	for i := range 6 {
		must(f, log.Write(&Record{Event: Request, ID: fmt.Sprint(i), Path: "/api/alerts", UserAgent: "ü\x00\"\\"}))
	}
	text, head := b.Bytes(), log.Stats().Head
	f.Add(uint(10), uint(1), []byte("x"))
	f.Add(uint(0), uint(len(text)), text)
	f.Add(uint(0), uint(len(text)/2), []byte{})
	f.Add(uint(len(text)-1), uint(1), []byte("\r\n"))
	f.Add(uint(len(text)-1), uint(1), []byte{})
	f.Add(uint(300), uint(0), []byte("{}\n"))
	f.Add(uint(len(text)), uint(0), []byte("{"))
	f.Fuzz(func(t *testing.T, from, length uint, put []byte) {
		at := int(from % uint(len(text)+1))
		end := at + int(length%uint(len(text)-at+1))
		changed := slices.Concat(text[:at], put, text[end:])
		if bytes.Contains(put, []byte(`"prev"`)) {
			return // a record of one's own with hashes of one's own: that needs more than this to be seen
		}
		v, err := Verify([]string{"-"}, VerifyOptions{Head: head}, bytes.NewReader(changed))
		same := bytes.Equal(bytes.TrimSuffix(changed, []byte("\n")), bytes.TrimSuffix(text, []byte("\n")))
		switch {
		case same && (err != nil || v.Fault != nil):
			t.Fatalf("nothing was changed: %v, %v", v, err)
		case same, err != nil, v.Fault != nil:
		case v.Broken == 1 && bytes.HasPrefix(changed, text) && !bytes.ContainsRune(changed[len(text):], '\n'):
			// half a record behind the last: it may be on its way
		default:
			t.Fatalf("the change is not found: %+v\n%q", v, changed)
		}
	})
}

// Whatever stands in a file before, a chain that goes on from there is whole as far
// as this process wrote it, and what stood there can no longer be changed.
func FuzzAChainGoesOnAfterAnything(f *testing.F) {
	one := linesOf(f, chained(f, 1, Settings{}))[0]
	for _, text := range []string{"", "{", "{}", "{}\n", "\n", "\n\n", one, one + "{\"tim", one + "{}\n", "x\n" + one, "\x00\x00", one + "\n\x00\n", one[:40] + "\n" + one} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, before []byte) {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		must(t, os.WriteFile(path, before, 0o600))
		log, err := Open(Settings{File: path, Chain: true}, nil, nil)
		must(t, err)
		defer log.Close()
		for range 3 {
			must(t, log.Write(&Record{Event: Request, ID: "new"}))
		}
		text, err := os.ReadFile(path)
		must(t, err)
		if !bytes.HasPrefix(text, before) {
			t.Fatalf("what stood there was changed: %q", text)
		}
		was, err := Verify([]string{"-"}, VerifyOptions{}, bytes.NewReader(before))
		now, err2 := Verify([]string{path}, VerifyOptions{}, nil)
		must(t, err2)
		if err == nil && was.Fault == nil && now.Fault != nil {
			t.Fatalf("the chain was whole, and is not any more: %s\n%q", now.Fault, text)
		}
	})
}
