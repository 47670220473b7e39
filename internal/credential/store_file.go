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

// readPrivate reads a file that nobody but its owner may read, of at most limit
// bytes. what is its name in faults. It gives errNotSignedIn for a file that is
// not there.
func readPrivate(path, what string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNotSignedIn
	case err != nil:
		return nil, storeUnreadable(path, what, err)
	case !info.Mode().IsRegular():
		// A pipe would block and a device never end.
		return nil, storeFault("The "+what+" "+path+" is not a regular file.", "Name a file in the configuration.")
	}
	if err := checkFolder(path, what); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotSignedIn
	}
	if err != nil {
		return nil, storeUnreadable(path, what, err)
	}
	defer f.Close()
	// The mode of what was opened: the path may lead elsewhere by now.
	if info, err = f.Stat(); err != nil {
		return nil, storeUnreadable(path, what, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && modesCount {
		return nil, storeFault(fmt.Sprintf("The %s %s is open to other users of this machine (mode %04o).", what, path, mode),
			"Close it: chmod 600 "+path+". If others may have read it, remove it and sign in again.")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, storeUnreadable(path, what, err)
	case int64(len(data)) > limit:
		return nil, storeFault(fmt.Sprintf("The %s %s has more than %d bytes.", what, path, limit), "Check that the configuration names the right file; if so, remove it and sign in again.")
	case len(data) == 0:
		return nil, storeFault("The "+what+" "+path+" is empty.", "Remove it and sign in again.")
	}
	return data, nil
}

// modesCount says that a file's mode tells who may read it. On Windows it does
// not: there the folder's access list decides.
const modesCount = runtime.GOOS != "windows"

// checkFolder refuses a folder in which every user may put another file in the
// place of ours. The sticky bit of /tmp prevents just that.
func checkFolder(path, what string) error {
	folder := filepath.Dir(resolved(path))
	info, err := os.Stat(folder)
	if err != nil {
		return storeFault("The folder "+folder+" of the "+what+" cannot be used: "+storeReason(err)+".", "Make the folder, owned by the user that runs the proxy, with mode 0700.")
	}
	if modesCount && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return storeFault("Every user of this machine can write to the folder "+folder+" of the "+what+".", "Close it: chmod o-w "+folder)
	}
	return nil
}

func storeUnreadable(path, what string, err error) error {
	return storeFault("The "+what+" "+path+" cannot be read: "+storeReason(err)+".", "Make it readable for the user that runs the proxy, and for nobody else.")
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

// resolved follows a symbolic link, so that the link stays when its target is
// replaced.
func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// leftover is the age at which a temporary file is nobody's any more: writing
// one takes milliseconds.
const leftover = time.Minute

// tempPrefix begins the names of temporary files for a path.
func tempPrefix(path string) string { return "." + filepath.Base(path) + ".new-" }

// replaceFile writes data to path with mode 0600, whole or not at all: to a file
// beside it that takes its place. What a killed process left behind goes.
func replaceFile(path string, data []byte) error {
	if err := checkFolder(path, "token store"); err != nil {
		return err
	}
	path = resolved(path)
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, tempPrefix(path)+"*") // of mode 0600
	if err != nil {
		return storeUnwritable(path, err)
	}
	temp := f.Name()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return storeUnwritable(path, err)
	}
	syncFolder(folder)
	removeLeftovers(folder, tempPrefix(path))
	return nil
}

// tryWrite finds out whether replaceFile could work.
func tryWrite(path string) error {
	if err := checkFolder(path, "token store"); err != nil {
		return err
	}
	path = resolved(path)
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return storeFault("The token store "+path+" is not a regular file.", "Name a file in the configuration.")
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path)+"*")
	if err != nil {
		return storeUnwritable(path, err)
	}
	f.Close()
	os.Remove(f.Name())
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

func removeLeftovers(folder, prefix string) {
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
