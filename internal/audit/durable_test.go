package audit

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// observed is a Log that notes at the beginning of each fsync what stands in the
// file: that is what the fsync promises.
func observed(t *testing.T, s Settings) (log *Log, kept func(id string) bool) {
	path, log := fileLog(t, s)
	var mu sync.Mutex
	var promised string
	log.fsync = func(f *os.File, name bool) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := syncFile(f, name); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if len(text) > len(promised) {
			promised = string(text)
		}
		return nil
	}
	return log, func(id string) bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(promised, `"request_id":"`+id+`"`)
	}
}

func TestADurableRecordWasInTheFileWhenAnFsyncBegan(t *testing.T) {
	log, kept := observed(t, Settings{Chain: true})
	var wg sync.WaitGroup
	const writers, each = 16, 20
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("w%d-%d.", w, i)
				if err := log.WriteDurable(&Record{Event: Intent, ID: id}); err != nil {
					t.Error(err)
				} else if !kept(id) {
					t.Errorf("%s is said to be on the disk, and no fsync was asked for it", id)
				}
				if i%4 == 0 {
					if err := log.Write(&Record{Event: Request, ID: "r"}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if s := log.Stats(); s.Syncs == 0 || s.Syncs > writers*each {
		t.Errorf("%d calls of fsync for %d records", s.Syncs, writers*each)
	}
}

// Sixteen come while an fsync is under way: one more serves them all.
func TestRecordsThatComeTogetherShareAnFsync(t *testing.T) {
	_, log := fileLog(t, Settings{})
	begun, goOn := make(chan struct{}, 100), make(chan struct{})
	log.fsync = func(f *os.File, name bool) error {
		begun <- struct{}{}
		<-goOn
		return syncFile(f, name)
	}
	var wg sync.WaitGroup
	write := func(id string) {
		wg.Go(func() {
			if err := log.WriteDurable(&Record{Event: Intent, ID: id}); err != nil {
				t.Error(err)
			}
		})
	}
	write("first")
	<-begun
	for range 16 {
		write("next")
	}
	for log.Stats().Stored < 17 { // until all are in the file and wait
		runtime.Gosched()
	}
	close(goOn)
	wg.Wait()
	if s := log.Stats(); s.Syncs != 2 {
		t.Errorf("%d calls of fsync, want 2", s.Syncs)
	}
}

func TestAFailedFsyncIsToldToAllWhoWaitForItAndToNobodyElse(t *testing.T) {
	_, log := fileLog(t, Settings{})
	broken := errors.New("input/output error")
	fail := true
	log.fsync = func(f *os.File, name bool) error {
		if fail {
			return broken
		}
		return syncFile(f, name)
	}
	if err := log.WriteDurable(&Record{Event: Intent, ID: "1"}); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of fsync", err)
	}
	if err := log.Write(&Record{Event: Request, ID: "2"}); err != nil {
		t.Errorf("a record that need not be on the disk: %v", err)
	}
	if s := log.Stats(); !strings.Contains(s.Failing, "input/output") || s.Since.IsZero() {
		t.Errorf("the Log does not say that it fails: %+v", s)
	}
	fail = false
	if err := log.WriteDurable(&Record{Event: Intent, ID: "3"}); err != nil {
		t.Errorf("after the disk is well: %v", err)
	}
	if s := log.Stats(); s.Failing != "" {
		t.Errorf("the Log still says that it fails: %+v", s)
	}
}

// What standard output is decides what it can promise.
func TestStandardOutputIsBroughtToTheDiskWhereItIsAFile(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/out")
	must(t, err)
	defer f.Close()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	for want, out := range map[uint64]*os.File{1: f, 0: w} {
		log, err := Open(Settings{File: "stdout"}, out, nil)
		must(t, err)
		must(t, log.WriteDurable(&Record{Event: Intent}))
		if s := log.Stats(); s.Syncs != want || s.Stored != 1 {
			t.Errorf("%s: got %+v, want %d calls of fsync", out.Name(), s, want)
		}
		must(t, log.Close())
		if _, err := out.Stat(); err != nil {
			t.Errorf("what somebody else opened was closed: %v", err)
		}
	}
}

// whole verifies a chain that has no fault.
func whole(t testing.TB, paths ...string) *Verified {
	t.Helper()
	v, err := Verify(paths, VerifyOptions{}, nil)
	must(t, err)
	if v.Fault != nil {
		t.Fatalf("%s", v.Fault)
	}
	return v
}

func BenchmarkWriteDurable(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d callers", callers), func(b *testing.B) {
			_, log := fileLog(b, Settings{Chain: true})
			r := fullRecord()
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := log.WriteDurable(r); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/float64(log.Stats().Syncs), "records/fsync")
		})
	}
}
