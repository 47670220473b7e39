package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestAFileIsPutAsideBeforeItOutgrowsItsSize(t *testing.T) {
	path, log := fileLog(t, Settings{MaxBytes: 1500, Keep: 3})
	var want []string
	for i := range 100 {
		id := fmt.Sprint(i)
		must(t, log.Write(&Record{Event: Request, ID: id, Listener: "127.0.0.1:8080"}))
		want = append(want, id)
	}
	files, err := log.out.aside()
	must(t, err)
	if len(files) != 3 {
		t.Fatalf("%d files are kept, want 3: %v", len(files), files)
	}
	for _, f := range append(slices.Clone(files), path) {
		info, err := os.Stat(f)
		must(t, err)
		if info.Size() > 1500 || info.Size() == 0 {
			t.Errorf("%s has %d bytes, want 1 to 1500", f, info.Size())
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", f, info.Mode())
		}
	}
	got := ids(t, linesOf(t, append(files, path)...))
	if !slices.Equal(got, want[100-len(got):]) {
		t.Errorf("the files hold %v, want the newest records in their order", got)
	}
	if s := log.Stats(); s.PutAside < 5 || s.Stored != 100 {
		t.Errorf("got %+v, want all stored and several files put aside", s)
	}
}

func TestARecordThatIsLargerThanAFileGetsOneOfItsOwn(t *testing.T) {
	path, log := fileLog(t, Settings{MaxBytes: 300, Chain: true})
	for i := range 4 {
		must(t, log.Write(&Record{Event: Request, ID: fmt.Sprint(i), Path: strings.Repeat("x", 1000)}))
	}
	files, err := log.out.aside()
	must(t, err)
	if len(files) != 3 {
		t.Errorf("%d files were put aside, want 3", len(files))
	}
	for _, f := range append(files, path) {
		if n := len(linesOf(t, f)); n != 1 {
			t.Errorf("%s holds %d records, want 1", f, n)
		}
	}
	whole(t, append(files, path)...)
}

func TestAllFilesAreKeptUnlessANumberIsSaid(t *testing.T) {
	path, log := fileLog(t, Settings{MaxBytes: 300})
	for i := range 30 {
		must(t, log.Write(&Record{Event: Request, ID: fmt.Sprint(i)}))
	}
	files, err := log.out.aside()
	must(t, err)
	if got := len(linesOf(t, append(files, path)...)); got != 30 {
		t.Errorf("%d records are there, want 30", got)
	}
}

func TestOnlyFilesThatWerePutAsideAreRemoved(t *testing.T) {
	path, log := fileLog(t, Settings{MaxBytes: 200, Keep: 1})
	mine := []string{path + ".gz", path + ".1", path + ".20261121T170839.123Z.gz", path + ".notes", filepath.Join(filepath.Dir(path), "other.20261121T170839.123Z")}
	for _, name := range mine {
		must(t, os.WriteFile(name, nil, 0o600))
	}
	must(t, os.Mkdir(path+".20261121T170839.123Z", 0o700))
	for range 10 {
		must(t, log.Write(&Record{Event: Request}))
	}
	for _, name := range append(mine, path+".20261121T170839.123Z") {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// Where it cannot be put aside the file grows on, and nothing is lost.
func TestAFileThatCannotBePutAsideGrowsOn(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // where an open file cannot be deleted to put a folder in its place
	}
	path, log := fileLog(t, Settings{MaxBytes: 1000})
	must(t, log.Write(&Record{Event: Request, ID: "first"}))
	must(t, os.Rename(path, path+".kept"))
	must(t, os.Mkdir(path, 0o700)) // neither renamed, nor opened
	for i := range 30 {
		if err := log.Write(&Record{Event: Request, ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(linesOf(t, path+".kept")); n != 31 {
		t.Errorf("%d records, want 31", n)
	}
	must(t, os.Remove(path))
	for i := range 10 {
		must(t, log.Write(&Record{Event: Request, ID: fmt.Sprint(i)}))
	}
	if n := len(linesOf(t, path)); n == 0 {
		t.Error("when it can be done, no new file is begun")
	}
}

func TestAFileThatIsALinkIsPutAsideItself(t *testing.T) {
	dir := t.TempDir()
	link, real := filepath.Join(dir, "link"), filepath.Join(dir, "real")
	must(t, os.WriteFile(real, nil, 0o600))
	if err := os.Symlink(real, link); err != nil {
		if runtime.GOOS == "windows" {
			return // where links are a privilege
		}
		t.Fatal(err)
	}
	_, log := fileLog(t, Settings{File: link, MaxBytes: 200})
	for range 4 {
		must(t, log.Write(&Record{Event: Request, ID: "x"}))
	}
	aside, err := filepath.Glob(real + ".2*")
	must(t, err)
	if to, err := os.Readlink(link); err != nil || to != real || len(aside) != 3 {
		t.Errorf("the link leads to %q, %v; beside its target are %v", to, err, aside)
	}
}

func TestASecondWriterOfAFileWithAChainIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // where files have no locks for us
	}
	for name, s := range map[string]Settings{"a chain": {Chain: true}, "files put aside": {MaxBytes: 1 << 20}} {
		path, log := fileLog(t, s)
		s.File = path
		if second, err := Open(s, nil, nil); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the second gets %v, %v; want ErrInUse with the path", name, second, err)
		}
		must(t, log.Close())
		second, err := Open(s, nil, nil)
		if err != nil {
			t.Errorf("%s: after the first has ended: %v", name, err)
			continue
		}
		must(t, second.Close())
	}
	// Without, several may append to one file.
	path, _ := fileLog(t, Settings{})
	fileLog(t, Settings{File: path})
}

// failing is a writer that takes only so much of a line, once.
type failing struct {
	io.Writer
	takes []int // of each write, and then fails; or one of the values below
}

// What else a write can come to.
const (
	passes   = -1 // takes all, and does not fail
	butOne   = -2 // takes all but the last byte
	allTaken = -3 // takes all, and fails
)

func (f *failing) Write(p []byte) (int, error) {
	if len(f.takes) == 0 {
		return f.Writer.Write(p)
	}
	n := f.takes[0]
	f.takes = f.takes[1:]
	switch n {
	case passes:
		return f.Writer.Write(p)
	case butOne:
		n = len(p) - 1
	case allTaken:
		n = len(p)
	}
	n = min(n, len(p))
	_, _ = f.Writer.Write(p[:n])
	return n, errors.New("no space left on device")
}

// A stream keeps what was written of a record, which is then a line of its own, and
// the chain goes on over it.
func TestARecordThatIsCutOff(t *testing.T) {
	for name, takes := range map[string][]int{
		"before its first byte":                   {passes, 0},
		"after its first byte":                    {passes, 1},
		"in the middle":                           {passes, 40},
		"twice":                                   {passes, 40, 1, 70},
		"and the end of its line as well":         {passes, 40, 0},
		"after its last byte":                     {passes, allTaken},
		"in the first record":                     {40},
		"but for the end of its line":             {passes, butOne},
		"in the first, but for its end of line":   {butOne},
		"and the record of what is lost likewise": {passes, 40, passes, 300},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			log, err := Open(Settings{File: "stdout", Chain: true}, &failing{&b, takes}, nil)
			must(t, err)
			failed := 0
			for i := range 8 {
				if log.Write(&Record{Event: Request, ID: fmt.Sprint(i)}) != nil {
					failed++
				}
			}
			if failed == 0 {
				t.Fatal("no record failed: this proves nothing")
			}
			file := filepath.Join(t.TempDir(), "captured")
			must(t, os.WriteFile(file, b.Bytes(), 0o600))
			v := whole(t, file)
			if v.Last != v.Records || v.Records < 8-uint64(failed)+1 {
				t.Errorf("%d failed; got %+v", failed, v)
			}
			if !strings.Contains(b.String(), `"event":"lost"`) {
				t.Errorf("nothing tells that records are missing: %s", b.String())
			}
		})
	}
}

// What a crash leaves of a record stays in the file; records go on in lines of
// their own.
func TestAFileWhoseLastLineHasNoEndIsGoneOnWith(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	must(t, os.WriteFile(path, []byte("{\"event\":\"request\"}\n{\"event\":\"requ"), 0o600))
	_, log := fileLog(t, Settings{File: path})
	must(t, log.Write(&Record{Event: Request, ID: "x"}))
	if lines := linesOf(t, path); len(lines) != 3 || !strings.Contains(lines[2], `"request_id":"x"`) {
		t.Errorf("got %q", lines)
	}
}
