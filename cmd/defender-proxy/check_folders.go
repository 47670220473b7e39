package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"defender-proxy/internal/config"
)

// folders tells of those that the proxy will not start without. They are no faults:
// whoever starts it may make them first, and check may run on another machine.
func folders(cfg *config.Config) (all []string) {
	const start = "the proxy does not start"
	missing := func(err error, key, folder string) {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			all = append(all, fmt.Sprintf("%s: the folder %s is not there, and %s without it; make it, so that the proxy's user may write to it", key, folder, start))
		case err != nil:
			all = append(all, fmt.Sprintf("%s: the folder %s cannot be looked at: %v", key, folder, err))
		}
	}
	socket := func(key, address string) {
		path, is := strings.CutPrefix(address, "unix:")
		if !is {
			return
		}
		folder := filepath.Dir(path)
		info, err := os.Stat(folder)
		missing(err, key, folder)
		if err == nil && info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			all = append(all, fmt.Sprintf("%s: everybody may write to the folder %s, and put another socket in this one's place, so that %s; chmod o-w it, or take another", key, folder, start))
		}
	}
	for i, l := range cfg.Listeners {
		socket(fmt.Sprintf("listeners[%d].address", i), l.Address)
	}
	socket("admin.address", cfg.Admin.Address)
	if f := cfg.Audit.File; f != config.Stdout && f != config.Stderr {
		folder := filepath.Dir(f)
		_, err := os.Stat(folder)
		missing(err, "audit.file", folder)
	}
	return all
}
