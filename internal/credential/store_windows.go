package credential

import (
	"errors"
	"io/fs"
	"syscall"
)

// openAtOnce is nothing here: pipes have names of their own.
const openAtOnce = 0

// trusted is true: the folder's access list decides who may put a file there.
func trusted(fs.FileInfo) bool { return true }

// tryLock takes the lock of a file, which is made if there is none: it is open
// for one handle at a time. It gives nil where another process, or another
// caller in this one, has it. The system closes what a killed process held.
func tryLock(path string) (unlock func(), err error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	const sharingViolation = syscall.Errno(32) // ERROR_SHARING_VIOLATION
	switch {
	case errors.Is(err, sharingViolation):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return func() { _ = syscall.CloseHandle(h) }, nil
}
