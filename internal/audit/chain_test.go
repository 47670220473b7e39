package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// chained writes n records to a new file and gives its path.
func chained(t testing.TB, n int, s Settings) string {
	t.Helper()
	s.Chain = true
	path, log := fileLog(t, s)
	for i := range n {
		must(t, log.Write(&Record{Event: Request, ID: fmt.Sprint("id-", i+1), Path: "/api/alerts"}))
	}
	must(t, log.Close())
	return path
}

// What docs/audit.md says of the chain, computed anew with nothing of this package.
func TestEachRecordCarriesTheHashOfTheLineBefore(t *testing.T) {
	path := chained(t, 5, Settings{})
	before := strings.Repeat("0", 64)
	for i, line := range linesOf(t, path) {
		var r struct {
			Seq    int
			Prev   string
			Begins bool
		}
		must(t, json.Unmarshal([]byte(line), &r))
		if r.Seq != i+1 || r.Prev != before || r.Begins != (i == 0) {
			t.Errorf("line %d is number %d with prev %s, begins %v; want prev %s", i+1, r.Seq, r.Prev, r.Begins, before)
		}
		sum := sha256.Sum256([]byte(strings.TrimSuffix(line, "\n")))
		before = hex.EncodeToString(sum[:])
	}
	if v := whole(t, path); v.Records != 5 || v.First != 1 || v.Last != 5 || v.Head != before || v.Unchained != 0 || v.Broken != 0 {
		t.Errorf("got %+v, want the head %s", v, before)
	}
}

// A process ends, or the machine does; the next one goes on.
func TestAChainGoesOnOverRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		before    func(t *testing.T, path string)
		unchained uint64
		broken    uint64
		records   uint64
	}{
		"after an orderly end":      {func(*testing.T, string) {}, 0, 0, 6},
		"after half a record":       {func(t *testing.T, path string) { appendTo(t, path, `{"time":"2026-11-2`) }, 0, 1, 6},
		"after half a record twice": {func(t *testing.T, path string) { appendTo(t, path, "{\"time\":\"2026\n\x00\x00\x00") }, 0, 2, 6},
		"after zeros, and the end of a line": {func(t *testing.T, path string) {
			appendTo(t, path, strings.Repeat("\x00", 100_000)+"\n")
		}, 0, 1, 6},
		"after a record without the end of its line": {func(t *testing.T, path string) {
			text, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, bytes.TrimSuffix(text, []byte("\n")), 0o600))
		}, 0, 0, 6},
		"with an empty line": {func(t *testing.T, path string) { appendTo(t, path, "\n") }, 0, 1, 6},
		"in a file that had no chain": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte("{\"event\":\"request\"}\n{\"event\":\"request\"}\n"), 0o600))
		}, 2, 0, 3},
		"in a file that had no chain and half a record": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte("{\"event\":\"request\"}\n{\"event\":\"req"), 0o600))
		}, 1, 1, 3},
		"in a file with nothing but half a record": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte("{\"event\":\"req"), 0o600))
		}, 0, 1, 3},
		"in an empty file": {func(t *testing.T, path string) { must(t, os.WriteFile(path, nil, 0o600)) }, 0, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			path := chained(t, 3, Settings{})
			c.before(t, path)
			chained(t, 2, Settings{File: path})
			chained(t, 1, Settings{File: path})
			v := whole(t, path)
			if v.Records != c.records || v.Last != c.records || v.Unchained != c.unchained || v.Broken != c.broken {
				t.Errorf("got %+v, want %d records, %d without a chain, %d broken lines", v, c.records, c.unchained, c.broken)
			}
		})
	}
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	must(t, f.Close())
}

// A process may end between putting a file aside and its first record in the new
// one.
func TestAChainGoesOnFromTheFileThatWasPutAside(t *testing.T) {
	for name, left := range map[string]string{"no file": "", "half a record": `{"time`, "an empty file": "-"} {
		t.Run(name, func(t *testing.T) {
			path := chained(t, 3, Settings{})
			aside := path + ".20261121T170839.123Z"
			must(t, os.WriteFile(path+".20251121T170839.123Z", []byte("an older one\n"), 0o600))
			must(t, os.Rename(path, aside))
			if left != "" {
				must(t, os.WriteFile(path, []byte(strings.TrimPrefix(left, "-")), 0o600))
			}
			chained(t, 2, Settings{File: path})
			if v := whole(t, path, aside); v.Records != 5 || v.First != 1 {
				t.Errorf("got %+v, want five records", v)
			}
		})
	}
}

// logrotate moves the file, and then the process ends before a SIGHUP comes, or
// starts after it.
func TestAChainGoesOnOverARestartFromAFileThatOthersMovedAway(t *testing.T) {
	for name, c := range map[string]struct {
		moved  string
		others map[string]string // by what is behind FILE
		want   uint64            // the number of the first new record
	}{
		"by number":                       {".1", nil, 4},
		"by date":                         {"-20261121", nil, 4},
		"beside one without a chain":      {".1", map[string]string{".2": "{}\n"}, 4},
		"beside one that was put aside":   {".1", map[string]string{".20251121T170839.123Z": `{"seq":2,"prev":"x"}` + "\n"}, 4},
		"beside a packed one":             {".1", map[string]string{".2.gz": `{"seq":9,"prev":"x"}` + "\n"}, 4},
		"beside notes":                    {".1", map[string]string{".notes": strings.Repeat("no record\n", 600_000), "x": `{"seq":9,"prev":"x"}` + "\n"}, 4},
		"with half a record":              {".1", map[string]string{"": `{"tim`}, 4},
		"and packed":                      {".1.gz", nil, 1},
		"and nowhere near":                {"/../../elsewhere", nil, 1},
		"beside one with fewer and later": {".1", map[string]string{".bak": `{"seq":2,"prev":"x"}` + "\n"}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			must(t, os.MkdirAll(dir, 0o700))
			path := chained(t, 3, Settings{File: filepath.Join(dir, "audit.jsonl")})
			moved := filepath.Join(dir, "..", "elsewhere")
			if name != "and nowhere near" {
				moved = path + c.moved
			}
			must(t, os.Rename(path, moved))
			for behind, text := range c.others {
				must(t, os.WriteFile(path+behind, []byte(text), 0o600))
			}
			var told bytes.Buffer
			chained(t, 2, Settings{File: path, Log: zerolog.New(&told)})
			v := new(Verified)
			if c.want == 4 {
				v = whole(t, moved, path)
			} else {
				v = whole(t, path)
			}
			if v.First != 1 || v.Last != c.want+1 {
				t.Errorf("got %+v, want records 1 to %d", v, c.want+1)
			}
			if said := strings.Contains(told.String(), "begins anew"); said != (name == "and packed") {
				t.Errorf("it is said that a chain begins anew: %v; %s", said, told.String())
			}
		})
	}
}

func TestAChainGoesOnInAFileThatWasMovedAwayByOthers(t *testing.T) {
	path, log := fileLog(t, Settings{Chain: true})
	must(t, log.Write(&Record{Event: Request, ID: "1"}))
	if again, err := log.Reopen(); again || err != nil {
		t.Fatal(again, err)
	}
	must(t, os.Rename(path, path+".1"))
	must(t, log.Write(&Record{Event: Request, ID: "2"}))
	if again, err := log.Reopen(); !again || err != nil {
		t.Fatal(again, err)
	}
	must(t, log.Write(&Record{Event: Request, ID: "3"}))
	if v := whole(t, path, path+".1"); v.Records != 3 {
		t.Errorf("got %+v, want three records", v)
	}
	if v := whole(t, path); v.First != 3 {
		t.Errorf("the new file alone: got %+v, want record 3", v)
	}
}

func TestTheStatsHaveTheHeadOfTheChain(t *testing.T) {
	path, log := fileLog(t, Settings{Chain: true})
	for range 3 {
		must(t, log.Write(&Record{Event: Request}))
	}
	noted := log.Stats()
	for range 3 {
		must(t, log.Write(&Record{Event: Request}))
	}
	if noted.Seq != 3 || len(noted.Head) != 64 {
		t.Fatalf("got %+v, want number 3 and a hash", noted)
	}
	for name, c := range map[string]struct {
		keep int
		want FaultKind
	}{"all are there": {6, ""}, "it is the last one": {3, ""}, "it was cut off": {2, Missing}} {
		short := filepath.Join(t.TempDir(), "short")
		must(t, os.WriteFile(short, []byte(strings.Join(linesOf(t, path)[:c.keep], "")), 0o600))
		v, err := Verify([]string{short}, VerifyOptions{Head: noted.Head}, nil)
		must(t, err)
		if got := kindOf(v); got != c.want {
			t.Errorf("%s: got %q (%v), want %q", name, got, v.Fault, c.want)
		}
	}
}

func TestAFileThatCannotBeReadHasNoChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	must(t, os.WriteFile(path, bytes.Repeat([]byte("no record\n"), 600_000), 0o600))
	if log, err := Open(Settings{File: path, Chain: true}, nil, nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("six megabytes of something else: %v, %v; want an error with the path", log, err)
	}
	// And nobody holds it now.
	_, _ = fileLog(t, Settings{File: path, MaxBytes: 1 << 30})
}

func kindOf(v *Verified) FaultKind {
	if v.Fault == nil {
		return ""
	}
	return v.Fault.Kind
}
