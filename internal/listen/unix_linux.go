package listen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openUnix makes a Unix socket. Nobody but the process's own user can connect before
// it has its owner and mode.
func openUnix(ctx context.Context, path string, s Socket) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path of a Unix socket has to be absolute, as in unix:/run/defender-proxy.sock")
	}
	owner, group, err := s.ids()
	if err != nil {
		return nil, err
	}
	if err := clearWay(ctx, path); err != nil {
		return nil, err
	}
	l, err := listenPrivately(ctx, path)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &InUseError{unixScheme + path, err}
	}
	if err != nil {
		return nil, err
	}
	if owner >= 0 || group >= 0 {
		if err := os.Lchown(path, owner, group); err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("give the socket its socket.owner %q and socket.group %q: %w (root may give it to anybody, others only to a group of theirs)", s.Owner, s.Group, err)
		}
	}
	if err := os.Chmod(path, cmp.Or(s.Mode.Perm(), 0o660)); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// listenPrivately makes a socket that nobody but the process's own user can open. On
// Linux the file has the mode of its descriptor, less the umask.
func listenPrivately(ctx context.Context, path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	return lc.Listen(ctx, "unix", path)
}

// ids gives the numbers of owner and group, -1 for what stays as it is.
func (s Socket) ids() (owner, group int, err error) {
	owner, group = -1, -1
	if s.Owner != "" {
		if owner, err = strconv.Atoi(s.Owner); err != nil {
			u, err := user.Lookup(s.Owner)
			if err != nil {
				return 0, 0, fmt.Errorf("socket.owner: %w", err)
			}
			owner, _ = strconv.Atoi(u.Uid)
		}
	}
	if s.Group != "" {
		if group, err = strconv.Atoi(s.Group); err != nil {
			g, err := user.LookupGroup(s.Group)
			if err != nil {
				return 0, 0, fmt.Errorf("socket.group: %w", err)
			}
			group, _ = strconv.Atoi(g.Gid)
		}
	}
	return owner, group, nil
}

// clearWay takes away a socket that a process left behind which was killed. It
// touches nothing else.
func clearWay(ctx context.Context, path string) error {
	folder, err := os.Stat(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the folder %s is not there; make it, so that only the proxy's user may write to it: %w", filepath.Dir(path), err)
	}
	if err != nil {
		return err
	}
	if m := folder.Mode(); m&0o002 != 0 && m&fs.ModeSticky == 0 {
		return fmt.Errorf("everybody may write to the folder %s, and put another socket in this one's place; chmod o-w it, or take another", filepath.Dir(path))
	}
	there, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case there.Mode()&fs.ModeSocket == 0:
		return errors.New("there is a file of this name that is no socket; move it away")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return &InUseError{Address: unixScheme + path}
	case errors.Is(err, syscall.ECONNREFUSED): // nobody listens
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("there is a socket of this name that another user has: %w", err)
	}
	return &InUseError{unixScheme + path, err}
}

// processOf asks the kernel who connected.
func processOf(c *net.UnixConn) (*Process, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &Process{}
	if e := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p.UID, p.GID, p.PID = cred.Uid, cred.Gid, cred.Pid
			p.Groups = append([]uint32{cred.Gid}, groupsOf(fd)...)
		}
	}); e != nil {
		return nil, e
	}
	if err == nil && (p.UID == math.MaxUint32 || p.GID == math.MaxUint32) {
		err = errors.New("listen: the kernel does not know who is at the other end of a Unix socket")
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// groupsOf gives the supplementary groups of a socket's peer; none before Linux 4.13,
// which cannot tell. Package unix has no call for it.
func groupsOf(fd uintptr) []uint32 {
	for size := uint32(32); size <= 1<<16; { // NGROUPS_MAX
		groups := make([]uint32, size)
		bytes := 4 * size
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&bytes)), 0)
		switch {
		case errno == 0:
			return groups[:bytes/4]
		case errno != unix.ERANGE || bytes/4 <= size:
			return nil
		}
		size = bytes / 4 // what it needs
	}
	return nil
}

// listening reports whether a file is a socket that takes connections.
func listening(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	yes := 0
	if e := raw.Control(func(fd uintptr) { yes, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) }); e != nil {
		return false
	}
	return err == nil && yes == 1
}
