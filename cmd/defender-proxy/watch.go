package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// watchEvery is the time between two looks at the files.
	watchEvery = 2 * time.Second
	// maxWatched bounds the files that are looked at, maxHashed what is read of
	// each, in bytes. Of a longer one its size and time count too.
	maxWatched = 20_000
	maxHashed  = 4 << 20
	// racy is how old a file has to be for its time and size to stand for its
	// content: file systems stamp changes with a clock that ticks.
	racy = time.Second
)

// watcher tells when the content of files has changed, by looking at them again
// and again. It is not safe for concurrent use.
//
// It looks, rather than asks the system to be told: that works the same on
// network file systems, in containers and on every system, and sees a swap of
// symbolic links further up the path, with which Kubernetes brings in a secret,
// however it is done.
type watcher struct {
	files []string
	seen  map[string]sight
	// acted is the content that was acted on last, whether that worked or not. A
	// file that is not in it counts as changed.
	acted map[string]content
	// unsettled counts the polls that found a file other than it was acted on and
	// other than the one before.
	unsettled map[string]int
}

// content stands for what a file or folder holds, or why that cannot be told.
type content [sha256.Size]byte

// sight is what one look at a file finds.
type sight struct {
	path    string      // with all links resolved
	info    fs.FileInfo // nil where there is none
	problem string      // why, then
	content content
	// young says that the file had just been changed, so that time and size may not
	// tell the next change.
	young bool
}

// same reports whether nothing seems to have happened between two looks.
func (s sight) same(o sight) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil && s.problem == o.problem
	}
	return s.path == o.path && s.info.Size() == o.info.Size() && s.info.ModTime().Equal(o.info.ModTime()) &&
		s.info.Mode() == o.info.Mode() && os.SameFile(s.info, o.info)
}

// look finds how the files are now. What seems unchanged is not read again.
func (w *watcher) look(files []string) map[string]sight {
	now := time.Now()
	folders := make(map[string]string)
	found := make(map[string]sight, len(files))
	for _, f := range files[:min(len(files), maxWatched)] {
		s := glance(f, folders)
		s.young = s.info != nil && now.Sub(s.info.ModTime()).Abs() < racy
		if old, ok := w.seen[f]; ok && !old.young && s.same(old) {
			s.content = old.content
		} else {
			s.content = s.read()
		}
		found[f] = s
	}
	return found
}

// glance looks at one file without reading it. folders remembers where the
// folders lead that were resolved in this look.
func glance(file string, folders map[string]string) sight {
	info, err := os.Lstat(file)
	if err != nil {
		return sight{problem: problemOf(err)}
	}
	s := sight{info: info}
	if info.Mode()&fs.ModeSymlink != 0 {
		if s.path, err = filepath.EvalSymlinks(file); err != nil {
			return sight{problem: problemOf(err)}
		}
		if s.info, err = os.Stat(s.path); err != nil {
			return sight{problem: problemOf(err)}
		}
		return s
	}
	dir, name := filepath.Split(file)
	real, known := folders[dir]
	if !known {
		if real, err = filepath.EvalSymlinks(filepath.Clean(dir)); err != nil {
			return sight{problem: problemOf(err)}
		}
		folders[dir] = real
	}
	s.path = filepath.Join(real, name)
	return s
}

// problemOf is an error without the path, which may change with a link.
func problemOf(err error) string {
	if os.IsNotExist(err) {
		return "it is not there"
	}
	if os.IsPermission(err) {
		return "it may not be looked at"
	}
	return "it cannot be looked at"
}

// read gives the content: of a folder the names of its tenants' files.
func (s sight) read() content {
	switch {
	case s.info == nil:
		return sha256.Sum256([]byte("problem: " + s.problem))
	case s.info.IsDir():
		entries, err := os.ReadDir(s.path)
		if err != nil {
			return sha256.Sum256([]byte("problem: " + problemOf(err)))
		}
		var names []string
		for _, e := range entries {
			// The others are editors' and Kubernetes' own, which config passes over.
			if ext := filepath.Ext(e.Name()); !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml") {
				names = append(names, e.Name())
			}
		}
		return sha256.Sum256([]byte("folder: " + strings.Join(names, "\x00")))
	case !s.info.Mode().IsRegular():
		return sha256.Sum256([]byte("problem: it is not a file")) // a pipe would block, a device never end
	}
	f, err := os.Open(s.path)
	if err != nil {
		return sha256.Sum256([]byte("problem: " + problemOf(err)))
	}
	defer f.Close()
	h := sha256.New()
	_, _ = io.WriteString(h, "file: ")
	if n, err := io.Copy(h, io.LimitReader(f, maxHashed)); err != nil {
		return sha256.Sum256([]byte("problem: " + problemOf(err)))
	} else if n == maxHashed {
		_, _ = fmt.Fprintf(h, "%d %d", s.info.Size(), s.info.ModTime().UnixNano())
	}
	return content(h.Sum(nil))
}

// leftInPeace is how many polls a file that changes at each look is left in peace.
const leftInPeace = 10

// poll looks at the files and gives those whose content is not the one that was
// acted on, each once two looks in a row found the same in it: a file that is
// being written is left in peace, for leftInPeace polls, and holds up no other. Those
// that were still changing then are restless, and among the changed.
func (w *watcher) poll() (changed, restless []string) {
	found := w.look(w.files)
	for f, s := range found {
		if was, ok := w.acted[f]; ok && was == s.content {
			delete(w.unsettled, f)
			continue
		}
		if old, ok := w.seen[f]; !ok || s.content != old.content {
			if w.unsettled[f]++; w.unsettled[f] < leftInPeace {
				continue
			}
			restless = append(restless, f)
		}
		changed = append(changed, f)
	}
	w.seen = found
	slices.Sort(changed)
	slices.Sort(restless)
	return changed, restless
}

// act notes that what the files hold now is about to be acted on. What changes
// later is told by poll.
func (w *watcher) act() {
	w.seen, w.unsettled = w.look(w.files), make(map[string]int)
	w.acted = make(map[string]content, len(w.seen))
	for f, s := range w.seen {
		w.acted[f] = s.content
	}
}

// watch sets the files to look at. What of them is new was acted on at the time
// since: one that was changed after it counts as changed.
func (w *watcher) watch(files []string, since time.Time) {
	w.files = files
	old := w.acted
	w.seen, w.unsettled = w.look(files), make(map[string]int)
	w.acted = make(map[string]content, len(files))
	for f, s := range w.seen {
		if was, ok := old[f]; ok {
			w.acted[f] = was
		} else if s.info == nil || s.info.ModTime().Before(since) {
			w.acted[f] = s.content
		}
	}
}
