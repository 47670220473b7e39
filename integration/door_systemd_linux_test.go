package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"defender-proxy/internal/simulator"
)

// systemd holds two sockets, a port and a Unix socket, and passes them to the proxy.
// A request that comes before the proxy runs waits, and is answered once it does.
// When the proxy is restarted, whoever calls in between waits as well: not one of the
// calls is refused. The Unix socket's file is systemd's, and stays.
func TestSystemdKeepsTheDoorWhileTheProxyRestarts(t *testing.T) {
	t.Parallel()
	port, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	path := filepath.Join(t.TempDir(), "door.sock")
	file, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	w := simulated(t, setup{config: func(c object) {
		c["clients"] = []object{{"name": "all", "from": []string{"unix:*", "127.0.0.1"}, "allow": []string{"read"}}}
		c["listeners"] = []object{{"address": "systemd:door", "clients": []string{"all"}}, {"address": "systemd:port", "clients": []string{"all"}}}
	}})
	dial := func(network, address string) approach {
		return func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}
	ways := map[string]approach{"port": dial("tcp", port.Addr().String()), "socket": dial("unix", path)}

	var calls sync.WaitGroup
	call := func() {
		for name, way := range ways {
			calls.Go(func() {
				if a, err := w.through(way, http.MethodGet, "/api/alerts?$top=1", ""); err != nil || a.status != http.StatusOK {
					t.Errorf("a call of the %s: %v, %v", name, a, err)
				}
			})
		}
	}
	call() // before the proxy runs
	for range 3 {
		w.process = passed(t, w.file, map[string]interface{ File() (*os.File, error) }{"door": file, "port": port})
		calls.Wait()
		call()
		calls.Wait()
		w.stop()
		w.wait()
		call() // while none runs
	}
	w.process = passed(t, w.file, map[string]interface{ File() (*os.File, error) }{"door": file, "port": port})
	calls.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("systemd's socket: %v", err)
	}
}

// passed starts the proxy as systemd does: the sockets are the descriptors from 3 on,
// and the environment tells of them (sd_listen_fds(3)).
func passed(t *testing.T, config string, sockets map[string]interface{ File() (*os.File, error) }) *process {
	t.Helper()
	var files []*os.File
	names := ""
	for name, s := range sockets {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, names = append(files, f), names+":"+name
	}
	return startWith(t, func(cmd *exec.Cmd) {
		// exec keeps the process's number, which is not known before.
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.ExtraFiles = files
		cmd.Env = append(cmd.Env, fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES="+names[1:])
	}, "", config, secretVariable+"="+simulator.DefaultSecret)
}
