//go:build unix

package audit

import (
	"os"
	"syscall"
)

// linked reports whether an open file has a name somewhere; one that was deleted is
// gone when it is closed. A file that cannot be asked is taken to have one.
func linked(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || stat.Nlink > 0
}
