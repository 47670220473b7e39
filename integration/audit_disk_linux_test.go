package integration

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The disk of the audit file is full. An analyst is refused an isolation, with words
// that say why, and nothing is sent; reads go on. The log, the metrics and /-/audit
// say so. When there is room, isolations pass again, and the file says what it lacks.
func TestAFullDiskRefusesWritesAndLetsReadsPass(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, room := filepath.Join(dir, "audit.jsonl"), func() {}
	full := func() {}
	switch err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0700"); {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		file = "/dev/full" // only root may mount a disk; this one is never well again
	case err != nil:
		t.Fatal(err)
	default:
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Errorf("unmount %s: %v", dir, err)
			}
		})
		other := filepath.Join(dir, "other")
		full = func() {
			f, err := os.OpenFile(other, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for size := 4096; size > 0; {
				if _, err := f.Write(make([]byte, size)); err != nil {
					size /= 2
				}
			}
		}
		room = func() {
			if err := os.Remove(other); err != nil {
				t.Fatal(err)
			}
		}
	}
	mounted := file != "/dev/full"

	w := newWorld(t, audited(file, nil))
	w.faulty = []string{`"level":"error"`}
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	// The simulator knows of a machine that is isolated already; that is an answer too.
	isolate := func() answer {
		return w.do(http.MethodPost, path, `{"Comment":"x","IsolationType":"Full"}`, "Content-Type", "application/json")
	}
	if mounted {
		if a := isolate(); a.status != http.StatusCreated {
			t.Fatalf("before: %v", a)
		}
	}
	full()
	// What is left of the file's last page takes some more records.
	w.eventually("an isolation is refused", func() error {
		if a := isolate(); a.status != http.StatusServiceUnavailable {
			return fmt.Errorf("it passed")
		}
		return nil
	})
	w.sim.ResetRequests()
	for range 3 {
		a := isolate()
		if code, message := a.refused(); a.status != http.StatusServiceUnavailable || code != "AuditUnavailable" || !strings.Contains(message, "not sent") || a.header.Get("Retry-After") == "" {
			t.Errorf("an isolation: %v", a)
		}
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
			t.Errorf("a read: %v", a)
		}
	}
	if got := w.arrivals(http.MethodPost, path); len(got) != 0 {
		t.Errorf("%d isolations arrived", len(got))
	}
	if err := w.logged("audit records cannot be stored"); err != nil {
		t.Error(err)
	}
	if m := w.metrics(); sum(m, "defender_proxy_audit_failing") != 1 || sum(m, "defender_proxy_audit_records_total", "lost") < 6 {
		t.Errorf("the metrics say nothing: %v, %v", sum(m, "defender_proxy_audit_failing"), sum(m, "defender_proxy_audit_records_total", "lost"))
	}
	if a := w.get(w.admin + "/-/audit"); !strings.Contains(string(a.body), "no space left on device") {
		t.Errorf("/-/audit: %v", a)
	}
	if !mounted {
		return
	}

	room()
	if a := isolate(); a.ours() || len(w.arrivals(http.MethodPost, path)) != 1 {
		t.Errorf("after: %v", a)
	}
	if err := w.logged("audit records are stored again"); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"event":"lost","count":`) {
		t.Error("the file does not say that records are missing")
	}
	w.stop()
	w.wait()
	if code, said := verify(t, file); code != 0 {
		t.Errorf("audit verify exits with %d: %s", code, said)
	}
}
