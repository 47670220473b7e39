package audit

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Files are put aside all the time, and still no promise is broken.
func TestADurableRecordIsOnTheDiskThoughItsFileWasPutAside(t *testing.T) {
	path, log := fileLog(t, Settings{MaxBytes: 2000, Chain: true})
	var mu sync.Mutex
	synced := map[string]bool{} // ids that were in a file when its fsync began
	log.fsync = func(f *os.File, name bool) error {
		// The file may have been renamed; the descriptor leads to it.
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err != nil {
			return os.ErrClosed
		}
		if err := syncFile(f, name); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids(t, slices.Collect(strings.Lines(string(text)))) {
			synced[id] = true
		}
		return nil
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 60 {
				id := fmt.Sprintf("w%d-%d", w, i)
				if err := log.WriteDurable(&Record{Event: Intent, ID: id}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				if !synced[id] {
					t.Errorf("no fsync was asked for %s", id)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if s := log.Stats(); s.PutAside < 10 {
		t.Errorf("only %d files were put aside: this proves nothing", s.PutAside)
	}
	files, err := log.out.aside()
	must(t, err)
	if got := len(ids(t, linesOf(t, append(files, path)...))); got != 480 {
		t.Errorf("the files hold %d records, want 480", got)
	}
	whole(t, append(files, path)...)
}
