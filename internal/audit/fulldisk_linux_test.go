package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
)

// smallDisk mounts a disk of 64 KiB, where the test may.
func smallDisk(t *testing.T) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return "", false
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir, true
}

// fill takes what is left of the disk, to the last byte.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
}

// A disk gets full in the middle of a record, and has room again later. What is in
// the file is whole, the chain too, and the file itself says what is missing.
func TestAFullDisk(t *testing.T) {
	dir, ok := smallDisk(t)
	if !ok {
		t.Log("only root may mount a disk: the record that is cut off is tested by TestARecordThatIsCutOff alone")
		return
	}
	var told bytes.Buffer
	path, log := fileLog(t, Settings{File: filepath.Join(dir, "audit.jsonl"), Chain: true, Log: zerolog.New(&told)})
	must(t, log.WriteDurable(&Record{Event: Intent, ID: "before"}))
	must(t, log.Write(&Record{Event: Request, ID: "before"}))
	fill(t, filepath.Join(dir, "other"))

	// The file's last page has room for some more; a record that does not fit is cut off
	// by the disk, and then by the Log.
	stored := 2
	var err error
	for n := 0; err == nil; n++ {
		if err = log.WriteDurable(&Record{Event: Intent, ID: fmt.Sprint("while ", n), Path: strings.Repeat("x", 500)}); err == nil {
			stored++
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a full disk gives %v, want ENOSPC", err)
	}
	const lost = 5
	for range lost - 1 {
		if err := log.Write(&Record{Event: Request, ID: "lost", Path: strings.Repeat("x", 5000)}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a full disk gives %v, want ENOSPC", err)
		}
	}
	if s := log.Stats(); !strings.Contains(s.Failing, "no space left") || s.Since.IsZero() || s.Lost != lost || s.Stored != uint64(stored) {
		t.Errorf("the Log says %+v; want %d stored and %d lost for want of space", s, stored, lost)
	}
	if n := strings.Count(told.String(), "cannot be stored"); n != 1 {
		t.Errorf("the process's log was told %d times, want once: %s", n, told.String())
	}
	if lines := linesOf(t, path); len(lines) != stored || !strings.HasSuffix(lines[stored-1], "}\n") {
		t.Errorf("the full disk holds %d lines, want the %d whole ones: %q", len(lines), stored, lines[len(lines)-1])
	}
	whole(t, path)

	must(t, os.Remove(filepath.Join(dir, "other")))
	must(t, log.WriteDurable(&Record{Event: Intent, ID: "after"}))
	all := linesOf(t, path)
	if got, want := ids(t, all)[stored:], []string{"lost", "after"}; !slices.Equal(got, want) {
		t.Errorf("after there is room the file goes on with %v, want %v", got, want)
	}
	if want := fmt.Sprintf(`"event":"lost","count":%d,`, lost); !strings.Contains(all[stored], want) {
		t.Errorf("no %s in %s", want, all[stored])
	}
	valid(t, schema(t), []byte(all[stored]))
	if s := log.Stats(); s.Failing != "" || !strings.Contains(told.String(), "stored again") {
		t.Errorf("nothing says that it is over: %+v, %s", s, told.String())
	}
	whole(t, path)
}

// /dev/full is where every write fails; standard output can be that, too.
func TestADeviceThatIsFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	for name, s := range map[string]Settings{
		"as audit.file": {File: "/dev/full"},
		"as audit.file, which would be put aside": {File: "/dev/full", MaxBytes: 1},
		"as standard output":                      {File: "stdout", Chain: true},
	} {
		t.Run(name, func(t *testing.T) {
			log, err := Open(s, full, nil)
			must(t, err)
			defer log.Close()
			for range 3 {
				if err := log.WriteDurable(&Record{Event: Intent}); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("got %v, want ENOSPC", err)
				}
			}
			if s := log.Stats(); s.Lost != 3 || s.Stored != 0 || s.Failing == "" {
				t.Errorf("got %+v, want three lost", s)
			}
		})
	}
}
