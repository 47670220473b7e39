//go:build unix

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

// Somebody deletes the file, or puts another in its place; no signal comes.
func TestADurableRecordIsInTheFileThatThePathLeadsTo(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced by an empty one": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600))
		},
		"renamed over": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
		"moved":         func(path string) error { return os.Rename(path, path+".1") },
		"left in peace": func(string) error { return nil },
	} {
		for _, when := range []string{"before", "during the fsync", "during the fsync of those before"} {
			t.Run(name+" "+when, func(t *testing.T) {
				var told bytes.Buffer
				path, log := fileLog(t, Settings{Chain: true, MaxBytes: 1 << 20, Log: zerolog.New(&told)})
				must(t, log.WriteDurable(&Record{Event: Intent, ID: "first"}))
				var once sync.Once
				var others sync.WaitGroup
				switch when {
				case "before":
					must(t, take(path))
				default:
					log.fsync = func(f *os.File, named bool) error {
						once.Do(func() {
							if when != "during the fsync" {
								others.Go(func() { must(t, log.WriteDurable(&Record{Event: Intent, ID: "third"})) })
								for log.Stats().Stored < 3 {
								}
							}
							must(t, take(path))
						})
						return syncFile(f, named)
					}
				}
				must(t, log.WriteDurable(&Record{Event: Intent, ID: "second"}))
				others.Wait()
				text, err := os.ReadFile(path)
				must(t, err)
				if !strings.Contains(string(text), `"request_id":"second"`) {
					t.Errorf("the record is not in the file: %q", text)
				}
				if when == "during the fsync of those before" && !strings.Contains(string(text), `"request_id":"third"`) {
					if moved, _ := os.ReadFile(path + ".1"); !strings.Contains(string(moved), `"request_id":"third"`) {
						t.Errorf("the record of another is nowhere: %q", text)
					}
				}
				if said := strings.Contains(told.String(), "opened anew"); said == (name == "left in peace") {
					t.Errorf("the process's log says %q", told.String())
				}
				if s := log.Stats(); s.Failing != "" {
					t.Errorf("got %+v", s)
				}
				whole(t, path)
			})
		}
	}
}

// It was deleted, and cannot be made again: then nothing is durable.
func TestADurableRecordIsRefusedWhereTheFileIsGone(t *testing.T) {
	path, log := fileLog(t, Settings{})
	must(t, log.WriteDurable(&Record{Event: Intent, ID: "1"}))
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	if err := log.WriteDurable(&Record{Event: Intent, ID: "2"}); err == nil || log.Stats().Failing == "" {
		t.Errorf("got %v, %+v; want an error", err, log.Stats())
	}
	must(t, os.Remove(path))
	must(t, log.WriteDurable(&Record{Event: Intent, ID: "3"}))
	if got := ids(t, linesOf(t, path)); fmt.Sprint(got) != "[lost 3]" && fmt.Sprint(got) != "[3]" {
		t.Errorf("the new file holds %v", got)
	}
}

// It was moved, and the path cannot be opened again: it is where it was moved to.
func TestADurableRecordCountsInAFileThatWasMovedAndCannotBeOpenedAnew(t *testing.T) {
	var told bytes.Buffer
	path, log := fileLog(t, Settings{Log: zerolog.New(&told)})
	moved := filepath.Join(filepath.Dir(path), "moved")
	must(t, os.Rename(path, moved))
	must(t, os.Mkdir(path, 0o700))
	for i := range 3 {
		must(t, log.WriteDurable(&Record{Event: Intent, ID: fmt.Sprint(i)}))
	}
	if n := len(linesOf(t, moved)); n != 3 {
		t.Errorf("%d records are where the file was moved, want 3", n)
	}
	if n := strings.Count(told.String(), "cannot be opened anew"); n != 1 {
		t.Errorf("it is told %d times, want once: %s", n, told.String())
	}
}
