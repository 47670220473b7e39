package integration

import (
	"context"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"defender-proxy/internal/simulator"
)

// toSocket dials a Unix socket as a user with its groups. The numbers of a thread
// are its own, and a thread that ends with its goroutine takes them along.
func toSocket(path string, uid int, groups ...uint32) approach {
	return func(context.Context) (c net.Conn, err error) {
		if uid == os.Getuid() {
			return net.Dial("unix", path)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			id := uintptr(uid)
			_, _, first := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
			_, _, second := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id)
			_, _, third := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id)
			if failed := max(first, second, third); failed != 0 {
				err = failed
				return
			}
			c, err = net.Dial("unix", path)
		}()
		<-done
		return c, err
	}
}

// reachable lets every user through a folder of the test's.
func reachable(t *testing.T, folder string) {
	t.Helper()
	for ; strings.Contains(folder, "Test"); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Analysts share a machine, and each is known by the user that the kernel says is at
// the other end of a Unix socket: no key to steal, none to lose. The leads are the
// members of a group; they may isolate. Everybody else who can open the socket reads.
// The records name the user, and links lead back to a name that works at the socket.
//
// The operator's listener is a socket too, of the operator's alone.
func TestTheKernelTellsWhoCalls(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		asMyself(t)
		return
	}
	dir := t.TempDir()
	reachable(t, dir)
	door, own := filepath.Join(dir, "door.sock"), filepath.Join(dir, "admin.sock")
	w := newWorld(t, respond(func(c object) {
		inRegions(c, "eu")
		c["clients"] = []object{
			{"name": "alice", "from": []string{"unix:uid=2001"}, "allow": []string{"read", "hunt"}},
			{"name": "leads", "from": []string{"unix:gid=3000"}, "allow": []string{"read", "respond"}},
			{"name": "everybody", "from": []string{"unix:*"}, "allow": []string{"read"}},
			{"name": "local", "from": []string{"127.0.0.1"}, "allow": []string{"read"}},
			{"name": "operator", "from": []string{"unix:uid=2009"}, "allow": []string{}},
		}
		c["listeners"] = []object{
			{"address": "unix:" + door, "socket": object{"mode": "0666"}, "clients": []string{"alice", "leads", "everybody"}},
			{"address": "unix:" + own, "socket": object{"mode": "0600", "owner": "2009", "group": "3000"}, "clients": []string{"operator"}},
			{"address": "127.0.0.1:0", "clients": []string{"local", "everybody"}},
		}
	}))
	isolate := "/api/machines/" + w.sim.MachineID() + "/isolate"
	for _, c := range []struct {
		name   string
		uid    int
		groups []uint32
		status int
		code   string
		client string
	}{
		{"a lead", 2002, []uint32{2002, 3000}, http.StatusCreated, "", "leads"},
		{"an analyst", 2001, []uint32{2001}, http.StatusForbidden, "NotGranted", "alice"},
		{"an analyst who is a lead too, in the order of the groups", 2001, []uint32{3000}, http.StatusForbidden, "NotGranted", "alice"},
		{"somebody else", 2003, []uint32{2003}, http.StatusForbidden, "NotGranted", "everybody"},
		{"root", 0, nil, http.StatusForbidden, "NotGranted", "everybody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			a, err := w.through(toSocket(door, c.uid, c.groups...), http.MethodPost, isolate, `{"Comment":"x","IsolationType":"Full"}`, "Content-Type", "application/json")
			expect(t, a, err, c.status, c.code, "")
			if err != nil {
				return
			}
			got := w.whoAsked(a)
			if got.Client != c.client || got.UID == nil || *got.UID != uint32(c.uid) || got.GID == nil || *got.GID != uint32(c.uid) || got.PID == nil || *got.PID != int32(os.Getpid()) || got.Address != "" {
				t.Errorf("the record says %v, want client %s, uid and gid %d and pid %d", got, c.client, c.uid, os.Getpid())
			}
		})
	}

	a, err := w.through(toSocket(door, 2001, 2001), http.MethodGet, "/api/alerts?$top=1", "")
	if err != nil || !strings.Contains(string(a.body), `"@odata.context":"http://localhost/api/`) {
		t.Errorf("the alerts: %v, %v, want a link to http://localhost/api/", a, err)
	}
	a, err = w.through(toSocket(door, 2001, 2001), http.MethodGet, "/-/whoami", "")
	var me struct{ Client, Address string }
	if err != nil || json.Unmarshal(a.body, &me) != nil || me.Client != "alice" || me.Address != "uid 2001 on a Unix socket" {
		t.Errorf("who I am: %v, %v", a, err)
	}
	a, err = w.through(toSocket(door, 2001, 2001), http.MethodGet, "/api/alerts", "", "X-Forwarded-For", "127.0.0.1")
	if expect(t, a, err, http.StatusOK, "", ""); err == nil && w.whoAsked(a).Client != "alice" {
		t.Errorf("with X-Forwarded-For the record says %v", w.whoAsked(a))
	}
	// A user of the socket is nobody of the network's, and the other way round.
	expect(t, w.get("/api/alerts?$top=1"), nil, http.StatusOK, "", "")
	// The file's mode comes before any group; what passes it meets the groups.
	if _, err := toSocket(own, 2001, 3000)(t.Context()); err == nil {
		t.Error("another user opened the operator's socket")
	}
	a, err = w.through(toSocket(own, 0), http.MethodGet, "/api/alerts", "")
	expect(t, a, err, http.StatusForbidden, "ClientNotAdmitted", "uid 0")
	a, err = w.through(toSocket(own, 2009, 2009), http.MethodGet, "/-/whoami", "")
	expect(t, a, err, http.StatusOK, "", "")
	for path, want := range map[string]fs.FileMode{door: 0o666, own: 0o600} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|want {
			t.Errorf("%s: %v and %v, want mode %o", path, info, err, want)
		}
	}
}

// asMyself is the story for a user who can be nobody else.
func asMyself(t *testing.T) {
	door := filepath.Join(t.TempDir(), "door.sock")
	w := newWorld(t, setup{config: func(c object) {
		c["clients"] = []object{{"name": "me", "from": []string{"unix:uid=" + strconv.Itoa(os.Getuid())}, "allow": []string{"read"}}, {"name": "local", "from": []string{"127.0.0.1"}, "allow": []string{"read"}}}
		c["listeners"] = []object{{"address": "unix:" + door}, {"address": "127.0.0.1:0"}}
	}})
	a, err := w.through(toSocket(door, os.Getuid()), http.MethodGet, "/api/alerts?$top=1", "")
	if expect(t, a, err, http.StatusOK, "", ""); err == nil && w.whoAsked(a).Client != "me" {
		t.Errorf("the record says %v", w.whoAsked(a))
	}
}

// The proxy is killed, and its socket's file stays. The next start takes it away and
// serves. A second proxy beside a living one does not start, says why, and takes
// nothing from the first.
func TestASocketThatWasLeftBehindIsNoObstacle(t *testing.T) {
	t.Parallel()
	door := filepath.Join(t.TempDir(), "door.sock")
	mine := setup{config: func(c object) {
		c["clients"] = []object{{"name": "me", "from": []string{"unix:*", "127.0.0.1"}, "allow": []string{"read"}}}
		c["listeners"] = []object{{"address": "unix:" + door}, {"address": "127.0.0.1:0"}}
	}}
	w := newWorld(t, mine)
	ask := func() {
		t.Helper()
		a, err := w.through(toSocket(door, os.Getuid()), http.MethodGet, "/api/alerts?$top=1", "")
		expect(t, a, err, http.StatusOK, "", "")
	}
	ask()
	second := command([]string{secretVariable + "=" + simulator.DefaultSecret}, "serve", "--config", w.file)
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "unix:"+door) || !strings.Contains(string(out), "another program") {
		t.Errorf("a second proxy: %v, %s, want that the address is taken", err, out)
	}
	ask()

	w.expected = -1
	if err := w.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.wait()
	if _, err := os.Lstat(door); err != nil {
		t.Fatalf("the killed proxy's socket is not there: %v", err)
	}
	w.process = start(t, "", w.file, secretVariable+"="+simulator.DefaultSecret)
	w.ready()
	ask()
	w.stop()
	w.wait()
	if _, err := os.Lstat(door); err == nil {
		t.Error("a proxy that ended in order left its socket behind")
	}
}
