package credential

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// guard says how a file is kept from others.
type guard struct {
	what  string // its name in faults
	limit int64  // its length at most, in bytes
	// closed are the bits of its mode that may not be set.
	closed fs.FileMode
	// sticky accepts a folder in which everybody can make files and nobody can
	// replace another's, such as /tmp.
	sticky bool
}

var (
	storeGuard = guard{what: "token store", limit: maxStore, closed: 0o077}
	// Kubernetes mounts a secret as a folder of root's with mode 1777, and with
	// fsGroup its files have mode 0440
	// (kubernetes.io/docs/tasks/configure-pod-container/security-context).
	keyGuard = guard{what: "key file", limit: 1 << 10, closed: 0o037, sticky: true}
)

// read reads the file. It gives errNotSignedIn for one that is not there, and
// does not wait for a pipe.
func (g guard) read(path string) ([]byte, error) {
	target, err := g.follow(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(target, os.O_RDONLY|openAtOnce, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotSignedIn
	}
	if err != nil {
		return nil, g.unreadable(path, err)
	}
	defer f.Close()
	// What was opened is looked at: the path may lead elsewhere by now.
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, g.unreadable(path, err)
	case !info.Mode().IsRegular():
		return nil, notRegular(path, g.what)
	case !trusted(info):
		return nil, storeFault("The "+g.what+" "+path+" belongs to another user of this machine.",
			"Run the proxy and its command login as one user. If that is so already, remove the file and sign in again.")
	case modesCount && info.Mode().Perm()&g.closed != 0:
		return nil, storeFault(fmt.Sprintf("The %s %s is open to other users of this machine (mode %04o).", g.what, path, info.Mode().Perm()),
			"Close it: chmod 600 "+path+". If others may have read it, remove it and sign in again.")
	}
	data, err := io.ReadAll(io.LimitReader(f, g.limit+1))
	switch {
	case err != nil:
		return nil, g.unreadable(path, err)
	case int64(len(data)) > g.limit:
		return nil, storeFault(fmt.Sprintf("The %s %s has more than %d bytes.", g.what, path, g.limit), "Check that the configuration names the right file; if so, remove it and sign in again.")
	case len(data) == 0:
		return nil, storeFault("The "+g.what+" "+path+" is empty.", "Remove it and sign in again.")
	}
	return data, nil
}

func notRegular(path, what string) error {
	return storeFault("The "+what+" "+path+" is not a regular file.", "Name a file in the configuration.")
}

// modesCount says that a file's mode tells who may read it. On Windows it does
// not: there the folder's access list decides.
const modesCount = runtime.GOOS != "windows"

// follow gives the file that a path leads to, which need not be there. Each link
// on the way, and the file, is in a folder where nobody else can put another one
// in its place.
func (g guard) follow(path string) (string, error) {
	at := path
	for range 10 {
		folder, err := g.folder(at)
		if err != nil {
			return "", err
		}
		at = filepath.Join(folder, filepath.Base(at))
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return at, nil
		case err != nil:
			return "", g.unreadable(path, err)
		case info.Mode()&fs.ModeSymlink == 0:
			return at, nil
		case !trusted(info):
			return "", storeFault("The link "+at+" to the "+g.what+" belongs to another user of this machine.", "Remove it, and find out who made it.")
		}
		target, err := os.Readlink(at)
		if err != nil {
			return "", g.unreadable(path, err)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(folder, target)
		}
		at = target
	}
	return "", storeFault("The "+g.what+" "+path+" is behind too many links.", "Name the file itself in the configuration.")
}

// folder gives the folder of a file, behind links, and refuses one in which
// others may put another file in the place of ours.
func (g guard) folder(path string) (string, error) {
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	var info fs.FileInfo
	if err == nil {
		info, err = os.Stat(folder)
	}
	if err != nil {
		return "", storeFault("The folder "+filepath.Dir(path)+" of the "+g.what+" cannot be used: "+storeReason(err)+".", "Make the folder, owned by the user that runs the proxy, with mode 0700.")
	}
	mode := info.Mode()
	switch {
	case !modesCount || g.sticky && mode&fs.ModeSticky != 0 && trusted(info):
	case !trusted(info):
		return "", storeFault("The folder "+folder+" of the "+g.what+" belongs to another user of this machine.", "Take a folder that belongs to the user that runs the proxy, with mode 0700.")
	case mode.Perm()&0o022 != 0:
		return "", storeFault(fmt.Sprintf("Other users of this machine can write to the folder %s of the %s (mode %04o).", folder, g.what, mode.Perm()),
			"Close it: chmod go-w "+folder+"; or take a folder of its own.")
	}
	return folder, nil
}

func (g guard) unreadable(path string, err error) error {
	return storeFault("The "+g.what+" "+path+" cannot be read: "+storeReason(err)+".", "Make it readable for the user that runs the proxy, and for nobody else.")
}

func storeUnwritable(path string, err error) error {
	return storeFault("The token store "+path+" cannot be written: "+storeReason(err)+".", "Make its folder writable for the user that runs the proxy, and see that the disk is not full.")
}

// storeReason is why the system refused, without the path that it repeats.
func storeReason(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok {
		return le.Err.Error()
	}
	return err.Error()
}

// leftover is the age at which a temporary file is nobody's any more: writing
// one takes milliseconds.
const leftover = time.Minute

// tempPrefix begins the names of temporary files for a path.
func tempPrefix(path string) string { return "." + filepath.Base(path) + ".new-" }

// writeTemp writes a file of mode 0600 beside path, and leaves none after an
// error.
func writeTemp(path string, data []byte) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path)+"*") // of mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return f.Name(), err
}

// replaceFile writes data to a token store with mode 0600, whole or not at all:
// to a file beside it that takes its place. What a killed process left behind
// goes.
func replaceFile(path string, data []byte) error {
	target, err := replaceable(path)
	if err != nil {
		return err
	}
	return putFile(target, data)
}

func putFile(path string, data []byte) error {
	temp, err := writeTemp(path, data)
	if err != nil {
		return storeUnwritable(path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return storeUnwritable(path, err)
	}
	syncFolder(filepath.Dir(path))
	removeLeftovers(path)
	return nil
}

// replaceable gives the file that a token store's path leads to, if it is a token
// store or not there: a path in the configuration may be mistaken, and the file
// of another user would become ours.
func replaceable(path string) (string, error) {
	target, err := storeGuard.follow(path)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(target, os.O_RDONLY|openAtOnce, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return target, nil
	}
	if err != nil {
		return "", storeUnwritable(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", storeUnwritable(path, err)
	case !info.Mode().IsRegular():
		return "", notRegular(path, storeGuard.what)
	case !trusted(info):
		return "", storeFault("The token store "+path+" belongs to another user of this machine.", "Sign in as the user that runs the proxy, or remove the file.")
	}
	begin := make([]byte, len(storeMark))
	if n, err := io.ReadFull(f, begin); err != nil || string(begin[:n]) != storeMark {
		return "", notAStore(path)
	}
	return target, nil
}

// tryWrite finds out whether replaceFile could work.
func tryWrite(path string) error {
	target, err := replaceable(path)
	if err != nil {
		return err
	}
	temp, err := writeTemp(target, nil)
	if err != nil {
		return storeUnwritable(path, err)
	}
	os.Remove(temp)
	return nil
}

// syncFolder makes a rename last through a power failure. Where folders cannot
// be synced, as on Windows, the system does so in its own time.
func syncFolder(folder string) {
	if d, err := os.Open(folder); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// removeLeftovers removes what killed processes left beside path.
func removeLeftovers(path string) {
	folder, prefix := filepath.Dir(path), tempPrefix(path)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > leftover {
			os.Remove(filepath.Join(folder, e.Name()))
		}
	}
}
