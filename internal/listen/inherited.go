package listen

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// passed are the sockets that systemd passed to this process and nobody has taken
// yet, by name (sd_listen_fds(3)). The environment that tells of them is taken away
// when they are first asked for, so that no child believes they are its own.
var passed struct {
	sync.Mutex
	files map[string][]*os.File // nil before they were asked for
}

// inherited takes a socket that systemd passed under a FileDescriptorName. The name
// is the socket unit's, defender-proxy.socket, where the unit gives none
// (systemd.socket(5)).
func inherited(name string) (net.Listener, error) {
	passed.Lock()
	defer passed.Unlock()
	if passed.files == nil {
		passed.files = make(map[string][]*os.File)
		for _, f := range activation.Files(true) {
			passed.files[f.Name()] = append(passed.files[f.Name()], f)
		}
	}
	switch files := passed.files[name]; {
	case len(passed.files) == 0:
		return nil, errors.New("systemd passed no socket to this process (LISTEN_FDS is not set for it): start it by a socket unit, or listen on an address")
	case len(files) == 0:
		return nil, fmt.Errorf("systemd passed no socket of this name, but %s; FileDescriptorName= of the socket unit gives it", strings.Join(slices.Sorted(maps.Keys(passed.files)), ", "))
	case len(files) > 1:
		return nil, fmt.Errorf("systemd passed %d sockets of this name; give each a socket unit and a FileDescriptorName= of its own", len(files))
	}
	f := passed.files[name][0]
	if !listening(f) {
		return nil, errors.New("what systemd passed under this name is no socket that listens for connections; the socket unit needs ListenStream= and Accept=no")
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take the socket that systemd passed: %w", err)
	}
	_ = f.Close() // l has its own descriptor
	delete(passed.files, name)
	return l, nil
}

// Unclaimed gives the names of the sockets that systemd passed and no Open took, once
// one has been taken: callers can connect to them and are never answered.
func Unclaimed() []string {
	passed.Lock()
	defer passed.Unlock()
	return slices.Sorted(maps.Keys(passed.files))
}
