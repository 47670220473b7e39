package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// ErrInUse means that another process writes to the file. One that is put aside or
// has a chain has one writer.
var ErrInUse = errors.New("another process writes to it")

// target is where lines go: a file that we opened, or a stream. Its methods are
// called with Log.turn held.
type target struct {
	w io.Writer
	// handle is what fsync is asked of; nil for what it cannot be asked of.
	handle *handle
	// path is that of a file that we opened, whatever its kind; else empty.
	path    string
	regular bool // a file that we opened, and no device or pipe
	alone   bool // this process is to be the only writer
	size    int64
	most    int64 // what size may become before the file is put aside; 0: anything
	step    int64
	bare    bool // a regular file that we opened and that has no record yet
	ragged  bool // the last line has no end
}

// openFile opens a file to append to. most is the size that it may reach; 0: any.
func openFile(path string, most int64, alone bool) (*target, error) {
	path = filepath.Clean(path)
	// What is put aside is the file, not a link to it.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	t := &target{path: path, most: most, step: most, alone: alone}
	if err := t.open(); err != nil {
		return nil, err
	}
	return t, nil
}

// open opens t.path.
func (t *target) open() error {
	f, err := os.OpenFile(t.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open audit.file: the folder %s is not there; make it, so that the proxy's user may write to it: %w", filepath.Dir(t.path), err)
	}
	if err != nil {
		return fmt.Errorf("open audit.file: %w", err)
	}
	next := target{w: f, path: t.path, most: t.step, step: t.step, alone: t.alone}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		next.regular, next.size, next.handle = true, info.Size(), &handle{f: f}
		next.bare, next.ragged = next.size == 0, ragged(t.path, next.size)
		if t.alone {
			err = lock(f)
		}
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("open audit.file %s: %w", t.path, err)
	}
	*t = next
	return nil
}

// ragged reports whether a file ends without the end of a line. One that must not
// be read is taken for well-formed.
func ragged(path string, size int64) bool {
	if size == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return err == nil && last[0] != '\n'
}

// append appends a line, or several, as a whole. After an error the file is as it
// was, or as close to that as can be: part is what stands there of the lines.
func (t *target) append(line []byte) (part []byte, err error) {
	if t.w == nil {
		if err := t.open(); err != nil { // it could not be opened when the one before was left
			return nil, err
		}
	}
	if t.ragged {
		n, err := t.w.Write([]byte("\n"))
		t.size += int64(n)
		t.ragged = n == 0
		if err != nil {
			return nil, err
		}
	}
	n, err := t.w.Write(line)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	if err == nil {
		t.size += int64(n)
		t.bare = false
		return nil, nil
	}
	if n > 0 && !t.cut(n) {
		t.size += int64(n)
		t.ragged = line[n-1] != '\n'
		return line[:n], err
	}
	return nil, err
}

// cut takes the last n bytes off the file, which are part of a line, and reports
// whether it could. Where somebody else has written meanwhile it must not.
func (t *target) cut(n int) bool {
	if !t.regular {
		return false
	}
	info, err := t.handle.f.Stat()
	return err == nil && info.Size() == t.size+int64(n) && t.handle.f.Truncate(t.size) == nil
}

// full reports whether a line of n bytes has to go into a new file.
func (t *target) full(n int) bool {
	const chained = 2 * 120 // what the chain adds to two lines, at most
	return t.most > 0 && t.regular && !t.bare && t.size+int64(n)+chained > t.most
}

// asideTime sorts by time, and stands in every file system.
const asideTime = "20060102T150405.000Z"

// putAside renames the file and begins a new one. After an error the next attempt
// comes when the file has grown by an eighth of what it may hold.
func (t *target) putAside(now time.Time, retired func(*handle)) error {
	now = now.Truncate(time.Millisecond)
	t.most += t.step/8 + 1
	if t.same() {
		before, err := t.aside()
		if err != nil {
			return err
		}
		if len(before) > 0 { // names sort in the order of the files, whatever the clock does
			if newest, _ := time.Parse(asideTime, before[len(before)-1][len(t.path)+1:]); !now.After(newest) {
				now = newest.Add(time.Millisecond)
			}
		}
		name := t.path + "." + now.UTC().Format(asideTime)
		if _, err := os.Lstat(name); err == nil {
			return fmt.Errorf("%s is there already", name)
		}
		if runtime.GOOS == "windows" { // where an open file has no other name
			t.leave(retired)
		}
		if err := os.Rename(t.path, name); err != nil {
			return err
		}
	}
	_, err := t.reopen(retired)
	return err
}

// same reports whether the path leads to the file that is open.
func (t *target) same() bool {
	if t.w == nil {
		return false
	}
	open, err := t.handle.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(t.path)
	return err == nil && os.SameFile(open, there)
}

// reopen opens the path anew, where it leads elsewhere than to the file that is
// open.
func (t *target) reopen(retired func(*handle)) (again bool, err error) {
	if t.path == "" || t.w != nil && !t.regular {
		return false, nil
	}
	if t.w != nil {
		if _, err := os.Stat(t.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("look at audit.file: %w", err)
		} else if t.same() {
			return false, nil
		}
	}
	before := t.handle
	if err := t.open(); err != nil {
		return false, err
	}
	if before != nil {
		retired(before)
	}
	return true, nil
}

// leave closes the file before another is open.
func (t *target) leave(retired func(*handle)) {
	retired(t.handle)
	t.w, t.handle = nil, nil
}

// aside gives the paths of the files that were put aside, the oldest first.
func (t *target) aside() ([]string, error) {
	list, err := os.ReadDir(filepath.Dir(t.path))
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range list {
		when, ok := strings.CutPrefix(e.Name(), filepath.Base(t.path)+".")
		if _, err := time.Parse(asideTime, when); ok && err == nil && e.Type().IsRegular() {
			paths = append(paths, filepath.Join(filepath.Dir(t.path), e.Name()))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// discard removes the oldest of the files put aside, until keep are left; 0 keeps
// all.
func (t *target) discard(keep int) error {
	if keep == 0 {
		return nil
	}
	paths, err := t.aside()
	if err != nil {
		return err
	}
	for _, path := range paths[:max(0, len(paths)-keep)] {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// close closes what open opened, and leaves streams to who opened them.
func (t *target) close() error {
	if f, ok := t.w.(*os.File); ok && t.path != "" {
		return f.Close()
	}
	return nil
}
