package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// folder is a place with files and a watcher of some of them. Files are written
// with a time long past, so that looks depend on what the test does and not on
// when.
type folder struct {
	t   *testing.T
	dir string
	w   watcher
	now time.Time
}

func newFolder(t *testing.T, files ...string) *folder {
	t.Helper()
	f := &folder{t: t, dir: t.TempDir(), now: time.Now().Add(-time.Hour)}
	var paths []string
	for _, name := range files {
		paths = append(paths, f.path(name))
		if filepath.Ext(name) != "" {
			f.write(name, "first")
		}
	}
	f.w.watch(paths, time.Now())
	return f
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) write(name, text string) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.touch(name)
}

// touch gives a file another time.
func (f *folder) touch(name string) {
	f.t.Helper()
	f.now = f.now.Add(time.Second)
	if err := os.Chtimes(f.path(name), f.now, f.now); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) link(target, name string) {
	f.t.Helper()
	temporary := f.path(name + ".new")
	if err := os.Symlink(target, temporary); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(temporary, f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) remove(name string) {
	f.t.Helper()
	if err := os.RemoveAll(f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

// polls polls so many times and wants nothing but at the last; there the files of
// these names, or nothing.
func (f *folder) polls(times int, want ...string) {
	f.t.Helper()
	for i := range times {
		var got []string
		changed, _ := f.w.poll()
		for _, p := range changed {
			got = append(got, strings.TrimPrefix(p, f.dir+string(filepath.Separator)))
		}
		switch {
		case i < times-1 && len(got) > 0:
			f.t.Fatalf("poll %d of %d tells of %v already", i+1, times, got)
		case i == times-1 && !slices.Equal(got, want):
			f.t.Fatalf("poll %d tells of %v, want %v", i+1, got, want)
		}
	}
}

func TestAChangeIsToldOnceItHasSettled(t *testing.T) {
	f := newFolder(t, "a.yaml", "b.yaml")
	f.polls(3)
	f.write("a.yaml", "second")
	f.polls(2, "a.yaml")
	f.w.act()
	f.polls(3)

	// A file that is still being written: no two looks agree.
	for i := range 4 {
		f.write("b.yaml", strings.Repeat("x", i+1))
		f.polls(1)
	}
	f.polls(1, "b.yaml")
	f.w.act()
	f.polls(3)

	// The same length, and even the same time.
	stamp := f.now
	f.write("a.yaml", "SECOND")
	f.now = stamp
	if err := os.Chtimes(f.path("a.yaml"), stamp.Add(time.Second), stamp.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	f.polls(2, "a.yaml")
}

func TestAFileThatWasTouchedOrWrittenAlikeIsNoChange(t *testing.T) {
	f := newFolder(t, "a.yaml")
	f.touch("a.yaml")
	f.polls(3)
	f.write("a.yaml", "first")
	f.polls(3)
	f.remove("a.yaml")
	f.write("a.yaml", "first") // another inode
	f.polls(3)
	// There and back again between two looks that agree.
	f.write("a.yaml", "second")
	f.polls(1)
	f.write("a.yaml", "first")
	f.polls(3)
}

// Kubernetes swaps a symlink: ..data leads to a folder with the time in its name.
func TestASwapOfALinkFurtherUpIsSeen(t *testing.T) {
	f := newFolder(t)
	f.write("..2026_1/secret", "first")
	f.link("..2026_1", "..data")
	f.link("..data/secret", "secret")
	f.w.watch([]string{f.path("secret")}, time.Now().Add(time.Hour))
	f.polls(2)

	f.write("..2026_2/secret", "other")
	f.polls(2) // prepared, not yet in place
	f.link("..2026_2", "..data")
	f.polls(2, "secret")
	f.w.act()
	f.remove("..2026_1")
	f.polls(3)

	// A swap to the same content, with the same size and time, is none.
	f.write("..2026_3/secret", "other")
	f.link("..2026_3", "..data")
	f.polls(3)

	// A folder further up is a link too.
	f.write("deep/1/app/tenant.yaml", "first")
	f.link("1", "deep/current")
	f.w.watch([]string{f.path("deep/current/app/tenant.yaml")}, time.Now().Add(time.Hour))
	f.polls(2)
	f.write("deep/2/app/tenant.yaml", "other")
	f.link("2", "deep/current")
	f.polls(2, "deep/current/app/tenant.yaml")
}

func TestAFileThatVanishesIsToldOnceAndAgainWhenItIsBack(t *testing.T) {
	f := newFolder(t, "a.yaml", "b.yaml")
	f.remove("a.yaml")
	f.polls(2, "a.yaml")
	f.w.act()
	f.polls(5)
	f.write("a.yaml", "first")
	f.polls(2, "a.yaml")
	f.w.act()
	f.polls(3)

	// A link that leads nowhere is one that vanished.
	f.remove("b.yaml")
	f.link("nowhere", "b.yaml")
	f.polls(2, "b.yaml")
}

func TestAFolderChangesWithTheTenantsFilesInIt(t *testing.T) {
	f := newFolder(t)
	f.write("tenants/a.yaml", "first")
	f.w.watch([]string{f.path("tenants")}, time.Now().Add(time.Hour))
	f.polls(2)
	f.write("tenants/b.yml", "new")
	f.polls(2, "tenants")
	f.w.act()
	f.write("tenants/.b.yml.swp", "an editor's")
	f.write("tenants/a.yaml~", "an editor's")
	f.write("tenants/README", "text")
	f.polls(3)
	f.remove("tenants/a.yaml")
	f.polls(2, "tenants")
	f.w.act()
	f.remove("tenants")
	f.polls(2, "tenants")
}

func TestWhatChangedWhileItWasReadCountsAsChanged(t *testing.T) {
	f := newFolder(t, "a.yaml")
	begun := f.now.Add(time.Minute)
	f.now = begun
	f.write("new.yaml", "written while the configuration was read")
	f.w.watch([]string{f.path("a.yaml"), f.path("new.yaml")}, begun)
	f.polls(1, "new.yaml")

	// What was known keeps the content that was acted on, though it changed since.
	f.w.act()
	f.write("a.yaml", "second")
	f.w.watch([]string{f.path("a.yaml")}, time.Now())
	f.polls(1, "a.yaml")
}

func TestFilesThatWereJustWrittenAreReadAgain(t *testing.T) {
	f := newFolder(t, "a.yaml")
	now := time.Now().Add(time.Minute) // young, however long the test takes
	stamp := func(text string) {
		if err := os.WriteFile(f.path("a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(f.path("a.yaml"), now, now); err != nil {
			t.Fatal(err)
		}
	}
	stamp("aaaaa")
	f.w.act()
	for _, s := range f.w.seen {
		s.young = true
		f.w.seen[f.path("a.yaml")] = s
	}
	stamp("bbbbb") // same size, same time, same inode
	f.polls(2, "a.yaml")
}

func TestWhatIsNoFileIsNotOpened(t *testing.T) {
	f := newFolder(t, "a.yaml")
	f.w.watch([]string{os.DevNull, f.path("a.yaml")}, time.Now())
	f.polls(3)
}

func TestTheWatchIsBounded(t *testing.T) {
	f := newFolder(t)
	files := make([]string, maxWatched+10)
	for i := range files {
		files[i] = f.path(fmt.Sprint(i))
	}
	f.w.watch(files, time.Now())
	if len(f.w.seen) != maxWatched {
		t.Errorf("%d files are watched", len(f.w.seen))
	}
	// Of a long file only its beginning is read; time and size tell the rest.
	f.write("long.yaml", strings.Repeat("x", maxHashed)+"a")
	f.w.watch([]string{f.path("long.yaml")}, time.Now())
	f.polls(2)
	f.write("long.yaml", strings.Repeat("x", maxHashed)+"b")
	f.polls(2, "long.yaml")
}

// One look at the files of 1,000 tenants.
func BenchmarkLook(b *testing.B) {
	dir := b.TempDir()
	var files []string
	for i := range 1000 {
		files = append(files, filepath.Join(dir, fmt.Sprintf("t%d.yaml", i)))
		if err := os.WriteFile(files[i], []byte("x"), 0o600); err != nil {
			b.Fatal(err)
		}
		if err := os.Chtimes(files[i], time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			b.Fatal(err)
		}
	}
	var w watcher
	w.watch(files, time.Now())
	for b.Loop() {
		w.poll()
	}
}

// A file that is touched or rewritten without end holds up no other.
func TestOneFileThatDoesNotSettleHoldsUpNoOther(t *testing.T) {
	f := newFolder(t, "a.yaml", "b.secret")
	for range 3 * leftInPeace {
		f.touch("b.secret")
		f.polls(1)
	}
	f.write("a.yaml", "second")
	f.touch("b.secret")
	f.polls(1)
	f.write("b.secret", "half of")
	f.polls(1, "a.yaml")
	f.w.act()

	// What is never twice the same is read all the same at last, again and again.
	for range 2 {
		for i := range leftInPeace {
			f.write("b.secret", fmt.Sprint(f.now))
			changed, restless := f.w.poll()
			if last := i == leftInPeace-1; last != (len(changed) == 1) || last != (len(restless) == 1) {
				t.Fatalf("poll %d tells of %q, restless %q", i+1, changed, restless)
			}
		}
		f.w.act()
	}
	f.polls(3)
}
