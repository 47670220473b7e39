//go:build !linux && !darwin

package audit

import "os"

// lock does nothing where the standard library has no locks of files.
func lock(*os.File) error { return nil }
