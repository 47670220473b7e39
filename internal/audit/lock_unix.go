//go:build linux || darwin

package audit

import (
	"errors"
	"os"
	"syscall"
)

// lock makes this process the only one that has the file locked, until f is
// closed.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	return err
}
