//go:build unix

package credential

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// openAtOnce makes open return where it would wait for the other end of a pipe.
const openAtOnce = syscall.O_NONBLOCK

// trusted reports whether a file belongs to the user that runs this program, or
// to root, who can do as they like anyway.
func trusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int64(st.Uid) == int64(os.Geteuid()))
}

// tryLock takes the lock of a file, which is made if there is none. It gives nil
// where another process, or another caller in this one, has it. The system
// unlocks what a killed process held.
func tryLock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openAtOnce|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = nil
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}
