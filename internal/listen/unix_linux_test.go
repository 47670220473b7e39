package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// as connects as another user, which root can: the numbers of a thread are its own,
// and a thread that ends with its goroutine takes them along.
func as(uid, gid int, groups []uint32, path string) (c net.Conn, err error) {
	if len(groups) == 0 {
		groups = []uint32{uint32(gid)}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		id := [2]uintptr{uintptr(gid), uintptr(uid)}
		_, _, first := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
		_, _, second := unix.RawSyscall(unix.SYS_SETRESGID, id[0], id[0], id[0])
		_, _, third := unix.RawSyscall(unix.SYS_SETRESUID, id[1], id[1], id[1])
		if failed := max(first, second, third); failed != 0 {
			err = failed
			return
		}
		c, err = net.Dial("unix", path)
	}()
	<-done
	return c, err
}

func TestTheKernelTellsWhoIsAtAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door.sock")
	openFor(t, Settings{Address: "unix:" + path, Socket: Socket{Mode: 0o666}})
	got, err := ask(t, func(context.Context) (net.Conn, error) { return net.Dial("unix", path) })
	if err != nil {
		t.Fatal(err)
	}
	p := got.Unix
	if p == nil || p.UID != uint32(os.Getuid()) || p.GID != uint32(os.Getgid()) || p.PID != int32(os.Getpid()) || got.Addr.IsValid() {
		t.Fatalf("got %+v of %+v, want this process and no address", p, got)
	}
	own, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range own {
		if !slices.Contains(p.Groups, uint32(g)) {
			t.Errorf("the groups are %v, want %d among them", p.Groups, g)
		}
	}
	if os.Getuid() != 0 {
		return // others can be nobody else
	}
	open(t, filepath.Dir(path))
	many := make([]uint32, 200)
	for i := range many {
		many[i] = uint32(5000 + i)
	}
	for _, c := range []struct {
		name     string
		uid, gid int
		groups   []uint32
	}{
		{"another user", 1000, 1001, []uint32{50, 51}},
		{"a user without other groups", 1002, 1002, []uint32{1002}},
		{"a user of many groups", 1003, 1003, many},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ask(t, func(context.Context) (net.Conn, error) { return as(c.uid, c.gid, c.groups, path) })
			if err != nil {
				t.Fatal(err)
			}
			want := append([]uint32{uint32(c.gid)}, c.groups...)
			if p := got.Unix; p.UID != uint32(c.uid) || p.GID != uint32(c.gid) || !slices.Equal(p.Groups, want) {
				t.Errorf("got %+v, want uid %d and the groups %v", p, c.uid, want)
			}
		})
	}
}

// open lets everybody reach a folder of the test's.
func open(t *testing.T, folder string) {
	t.Helper()
	for ; strings.Contains(folder, "Test"); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheFileOfAUnixSocket(t *testing.T) {
	for _, c := range []struct {
		name         string
		socket       Socket
		mode         fs.FileMode
		owner, group uint32
	}{
		{name: "by default for user and group", mode: 0o660},
		{name: "a mode", socket: Socket{Mode: 0o600}, mode: 0o600},
		{name: "a mode for everybody", socket: Socket{Mode: 0o666}, mode: 0o666},
		{name: "owner and group by number", socket: Socket{Mode: 0o620, Owner: "1000", Group: "50"}, mode: 0o620, owner: 1000, group: 50},
		{name: "owner and group by name", socket: Socket{Owner: "root", Group: "root"}, mode: 0o660},
		{name: "the group alone", socket: Socket{Group: "50"}, mode: 0o660, group: 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "door.sock")
			umask := syscall.Umask(0) // the most that others could get
			l, err := Open(t.Context(), Settings{Address: "unix:" + path, Socket: c.socket})
			syscall.Umask(umask)
			if os.Getuid() != 0 {
				if err == nil {
					_ = l.Close()
				}
				if given := c.socket.Owner + c.socket.Group; given != "" && err == nil {
					t.Error("another owner was given without root's rights")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			st := info.Sys().(*syscall.Stat_t)
			if info.Mode() != fs.ModeSocket|c.mode || st.Uid != c.owner || st.Gid != c.group {
				t.Errorf("the file is %s of %d:%d, want %s of %d:%d", info.Mode(), st.Uid, st.Gid, fs.ModeSocket|c.mode, c.owner, c.group)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after Close the file is still there: %v", err)
			}
		})
	}
}

func TestNobodyElseConnectsBeforeASocketHasItsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door.sock")
	umask := syscall.Umask(0)
	l, err := listenPrivately(t.Context(), path)
	syscall.Umask(umask)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := fs.ModeSocket | 0o600; info.Mode() != want {
		t.Errorf("the file begins as %s, want %s", info.Mode(), want)
	}
}

func TestTheModeOfAUnixSocketDecidesWhoConnects(t *testing.T) {
	if os.Getuid() != 0 {
		return // nobody else can be tried
	}
	path := filepath.Join(t.TempDir(), "door.sock")
	openFor(t, Settings{Address: "unix:" + path, Socket: Socket{Mode: 0o660, Owner: "1000", Group: "50"}})
	open(t, filepath.Dir(path))
	for _, c := range []struct {
		name   string
		uid    int
		groups []uint32
		want   bool
	}{
		{"the owner", 1000, nil, true},
		{"a member of the group", 1001, []uint32{50}, true},
		{"somebody else", 1002, []uint32{51}, false},
	} {
		conn, err := as(c.uid, c.uid, c.groups, path)
		if err == nil {
			_ = conn.Close()
		}
		if (err == nil) != c.want || err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: got %v, want connected %t", c.name, err, c.want)
		}
	}
}

func TestWhatIsInTheWayOfAUnixSocket(t *testing.T) {
	left := func(t *testing.T, path string) { // a socket whose process was killed
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		_ = l.Close()
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		address string // unix:path when empty
		want    string // part of the error
		used    bool
	}{
		{name: "nothing", prepare: func(*testing.T, string) {}},
		{name: "a socket that nobody listens at any more", prepare: left},
		{name: "a socket that another process listens at", used: true, want: "another program", prepare: func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}},
		{name: "a socket of datagrams", used: true, want: "another program", prepare: func(t *testing.T, path string) {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}},
		{name: "a file", want: "no socket", prepare: func(t *testing.T, path string) { put(t, path, []byte("precious")) }},
		{name: "a link to a file", want: "no socket", prepare: func(t *testing.T, path string) {
			put(t, path+".file", nil)
			if err := os.Symlink(path+".file", path); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a link to a socket", want: "no socket", prepare: func(t *testing.T, path string) {
			left(t, path+".other")
			if err := os.Symlink(path+".other", path); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a folder that everybody may write to", want: "everybody may write", prepare: func(t *testing.T, path string) {
			if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "such a folder as /tmp", prepare: func(t *testing.T, path string) {
			if err := os.Chmod(filepath.Dir(path), 0o777|fs.ModeSticky); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "no folder", want: "is not there; make it", prepare: func(t *testing.T, path string) {
			if err := os.Remove(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a path that starts nowhere", address: "unix:door.sock", want: "absolute", prepare: func(*testing.T, string) {}},
		{name: "an abstract socket", address: "unix:@door", want: "absolute", prepare: func(*testing.T, string) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "door.sock")
			c.prepare(t, path)
			if c.address == "" {
				c.address = "unix:" + path
			}
			l, err := Open(t.Context(), Settings{Address: c.address})
			if err == nil {
				_ = l.Close()
			}
			if (err != nil) != (c.want != "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.address)) {
				t.Errorf("got %v, want an error with the address and %q", err, c.want)
			}
			var used *InUseError
			if errors.As(err, &used) != c.used {
				t.Errorf("got %v, want an InUseError %t", err, c.used)
			}
			if b, err := os.ReadFile(path); err == nil && string(b) != "precious" && c.name == "a file" {
				t.Error("the file has changed")
			}
		})
	}
	for _, s := range []Socket{{Owner: "no-such-user"}, {Group: "no-such-group"}} {
		path := filepath.Join(t.TempDir(), "door.sock")
		l, err := Open(t.Context(), Settings{Address: "unix:" + path, Socket: s})
		if err == nil {
			_ = l.Close()
		}
		if name := s.Owner + s.Group; err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want an error with %s", err, name)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a failed Open leaves the socket there: %v", err)
		}
	}
}

// helper is set for a process that the next test starts: what it is to open.
const helper = "LISTEN_TEST_OPEN"

func TestSocketsOfSystemd(t *testing.T) {
	if address, is := os.LookupEnv(helper); is {
		beStarted(t, address)
		return
	}
	onPort, err := net.ListenTCP("tcp", tcp("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer onPort.Close()
	path := filepath.Join(t.TempDir(), "door.sock")
	onPath, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer onPath.Close()
	datagrams, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	connected, err := net.DialTCP("tcp", nil, onPort.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()

	type filer interface{ File() (*os.File, error) }
	for _, c := range []struct {
		name    string
		pass    map[string]filer
		address string
		pid     string // of LISTEN_PID; empty for the process's own
		want    []string
	}{
		{name: "a port", pass: map[string]filer{"door": onPort}, address: "systemd:door", want: []string{"opened " + onPort.Addr().String(), "unclaimed []", "asked by address", "LISTEN_FDS is gone"}},
		{name: "a Unix socket", pass: map[string]filer{"door": onPath}, address: "systemd:door", want: []string{"opened " + path, "asked by uid " + fmt.Sprint(os.Getuid())}},
		{name: "one of two", pass: map[string]filer{"door": onPort, "other": onPath}, address: "systemd:door", want: []string{"opened", "unclaimed [other]"}},
		{name: "another name", pass: map[string]filer{"door": onPort}, address: "systemd:admin", want: []string{"listen on systemd:admin: systemd passed no socket of this name, but door"}},
		{name: "what takes no connections", pass: map[string]filer{"door": datagrams}, address: "systemd:door", want: []string{"no socket that listens"}},
		{name: "a connection, as with Accept=yes", pass: map[string]filer{"door": connected}, address: "systemd:door", want: []string{"no socket that listens"}},
		{name: "sockets for another process", pass: map[string]filer{"door": onPort}, address: "systemd:door", pid: "1", want: []string{"systemd passed no socket to this process"}},
		{name: "none", address: "systemd:door", want: []string{"systemd passed no socket to this process"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			pid := c.pid
			if pid == "" {
				pid = "$$"
			}
			// exec keeps the process's number, which systemd tells.
			cmd := exec.CommandContext(ctx, "sh", "-c", `LISTEN_PID=`+pid+` exec "$0" -test.run '^TestSocketsOfSystemd$'`, os.Args[0])
			var names []string
			for name, s := range c.pass {
				f, err := s.File()
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				names = append(names, name)
				cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			}
			cmd.Env = append(os.Environ(), helper+"="+c.address)
			if names != nil {
				cmd.Env = append(cmd.Env, fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("got %s, want %q", out, want)
				}
			}
		})
	}
}

// beStarted is the process that systemd would start.
func beStarted(t *testing.T, address string) {
	l, err := Open(t.Context(), Settings{Address: address})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("opened", serveOn(t, l))
	fmt.Println("unclaimed", Unclaimed())
	if _, is := os.LookupEnv("LISTEN_FDS"); !is {
		fmt.Println("LISTEN_FDS is gone")
	}
	got, err := ask(t, func(context.Context) (net.Conn, error) { return net.Dial(l.Addr().Network(), l.Addr().String()) })
	switch {
	case err != nil:
		t.Fatal(err)
	case got.Unix != nil:
		fmt.Println("asked by uid", got.Unix.UID)
	default:
		fmt.Println("asked by address", got.Addr)
	}
}
