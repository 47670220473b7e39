//go:build network

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The network of a story is Linux's own, in namespaces that belong to it:
//
//	office ── router ──┬── eu
//	                   ├── uk
//	                   ├── us
//	                   ├── core     Entra ID, Graph, DNS
//	                   └── egress   the proxies of the network
//
// The proxy runs in the office. The addresses, of the range for benchmarks
// (RFC 2544), are known in the namespaces alone; every place has a link and a
// network of its own, in which .1 is the router.
//
// Microsoft's side is the simulator, on loopback of the test's own namespace.
// Relays stand for it at the addresses of the places: a socket stays in the
// namespace in which it was opened, so one process can hold both ends.
var places = []string{"office", "eu", "uk", "us", "core", "egress"}

// address is the nth address of a place. The first is the router's.
func address(place string, n int) string {
	return fmt.Sprintf("198.18.%d.%d", slices.Index(places, place), n)
}

// namespaces are those of one story.
type namespaces struct {
	t      *testing.T
	prefix string
}

const namespacePrefix = "defender-proxy-test-"

var (
	stories atomic.Int64
	sweep   = sync.OnceValue(sweepUp)
)

// newNamespaces makes the network and takes it away with the test. It needs root.
func newNamespaces(t *testing.T) *namespaces {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the stories of the network need root, to make namespaces")
	}
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	ns := &namespaces{t: t, prefix: fmt.Sprintf("%s%d-%d-", namespacePrefix, os.Getpid(), stories.Add(1))}
	t.Cleanup(ns.remove)
	var whole []string
	for _, p := range append([]string{"router"}, places...) {
		whole = append(whole, "netns add "+ns.name(p))
	}
	var router []string
	for _, p := range places {
		whole = append(whole, fmt.Sprintf("link add eth0 netns %s type veth peer name %s netns %s", ns.name(p), p, ns.name("router")))
		router = append(router, "addr add "+address(p, 1)+"/24 dev "+p, "link set "+p+" up")
	}
	ns.ip("", whole...)
	ns.ip("router", router...)
	for _, p := range places {
		ns.ip(p, "link set lo up", "addr add "+address(p, 2)+"/24 dev eth0", "link set eth0 up")
		ns.defaultRoute(p)
	}
	err := within(ns.name("router"), func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err != nil {
		t.Fatalf("let the router forward: %v", err)
	}
	return ns
}

func (ns *namespaces) name(place string) string { return ns.prefix + place }

// ip runs commands of ip(8) in the namespace of a place.
func (ns *namespaces) ip(place string, commands ...string) {
	ns.t.Helper()
	args := []string{"-batch", "-"}
	if place != "" {
		args = append([]string{"-n", ns.name(place)}, args...)
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		ns.t.Fatalf("ip %s: %v\n%s\n%s", place, err, strings.Join(commands, "\n"), out)
	}
}

// defaultRoute leads a place to the router, as after its link was down.
func (ns *namespaces) defaultRoute(place string) {
	ns.t.Helper()
	ns.ip(place, "route replace default via "+address(place, 1))
}

// swallow has the router drop whatever is sent to an address, silently; with
// swallowFrom, whatever it sends.
func (ns *namespaces) swallow(to string) { ns.ip("router", "route add blackhole "+to+"/32") }

func (ns *namespaces) swallowFrom(from string) {
	ns.ip("router", "rule add from "+from+" blackhole")
}

// pass ends swallow, passFrom swallowFrom.
func (ns *namespaces) pass(to string) { ns.ip("router", "route del blackhole "+to+"/32") }

func (ns *namespaces) passFrom(from string) { ns.ip("router", "rule del from "+from+" blackhole") }

// etc gives processes of a place their own file /etc/NAME.
func (ns *namespaces) etc(place, name, text string) {
	ns.t.Helper()
	dir := filepath.Join("/etc/netns", ns.name(place))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		ns.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		ns.t.Fatal(err)
	}
}

// command has the process run in a place. ip replaces itself by it.
func (ns *namespaces) command(place string, cmd *exec.Cmd) *exec.Cmd {
	ns.t.Helper()
	ip, err := exec.LookPath("ip")
	if err != nil {
		ns.t.Fatal(err)
	}
	cmd.Args = append([]string{ip, "netns", "exec", ns.name(place), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = ip
	return cmd
}

// listen opens a socket in a place.
func (ns *namespaces) listen(place, address string) net.Listener {
	ns.t.Helper()
	var l net.Listener
	err := within(ns.name(place), func() (err error) {
		l, err = net.Listen("tcp4", address)
		return err
	})
	if err != nil {
		ns.t.Fatalf("listen in %s: %v", place, err)
	}
	return l
}

func (ns *namespaces) listenPacket(place, address string) net.PacketConn {
	ns.t.Helper()
	var c net.PacketConn
	err := within(ns.name(place), func() (err error) {
		c, err = net.ListenPacket("udp4", address)
		return err
	})
	if err != nil {
		ns.t.Fatalf("listen in %s: %v", place, err)
	}
	return c
}

// dial connects from a place.
func (ns *namespaces) dial(ctx context.Context, place, address string) (net.Conn, error) {
	return dialWithin(ctx, ns.name(place), address)
}

func dialWithin(ctx context.Context, namespace, address string) (c net.Conn, err error) {
	err = within(namespace, func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp4", address)
		return err
	})
	return c, err
}

// remove takes the namespaces away. Nothing may go on running there.
func (ns *namespaces) remove() {
	if ns.t.Failed() {
		for _, p := range []string{"router", "office"} {
			out, _ := exec.Command("ip", "-n", ns.name(p), "-s", "route").CombinedOutput()
			ns.t.Logf("routes of %s at the end:\n%s", p, out)
		}
	}
	for _, p := range append([]string{"router"}, places...) {
		name := ns.name(p)
		pids, err := running(name)
		for deadline := time.Now().Add(slack); err == nil && len(pids) > 0; pids, err = running(name) {
			if time.Now().After(deadline) { // squid's helpers end a little after it
				ns.t.Errorf("processes %v go on running in %s", pids, name)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err := removeNamespace(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			ns.t.Errorf("remove namespace %s: %v", name, err)
		}
	}
}

func removeNamespace(name string) error {
	if err := os.RemoveAll(filepath.Join("/etc/netns", name)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join("/run/netns", name)); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "netns", "delete", name).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// running lists the processes of a namespace.
func running(name string) (pids []int, err error) {
	out, err := exec.Command("ip", "netns", "pids", name).Output()
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// sweepUp takes away what an earlier run left because it was killed: namespaces
// that bear the number of a process that is no more, with what runs in them.
func sweepUp() error {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), namespacePrefix)
		number, _, _ := strings.Cut(rest, "-")
		owner, err := strconv.Atoi(number)
		if !ours || err != nil || unix.Kill(owner, 0) == nil {
			continue
		}
		pids, err := running(e.Name())
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end process %d of an earlier run: %w", pid, err)
			}
		}
		if err := removeNamespace(e.Name()); err != nil {
			return fmt.Errorf("remove what an earlier run left: %w", err)
		}
	}
	return nil
}

// within calls f on a thread of a namespace. Sockets that f opens stay there.
func within(namespace string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		there, err := os.Open(filepath.Join("/run/netns", namespace))
		if err != nil {
			done <- err
			return
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", namespace, err)
			return
		}
		err = f()
		// A thread that cannot go home ends with its goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// offices are the namespaces of proxies by the address on which they listen to
// callers. No two of them share one, so that callers find the way.
var offices sync.Map

// openOffice gives the proxy of a story its address for callers.
func (ns *namespaces) openOffice() string {
	n := stories.Add(1)
	office := fmt.Sprintf("127.%d.%d.1", 1+n/250, 1+n%250)
	offices.Store(office, ns.name("office"))
	ns.t.Cleanup(func() { offices.Delete(office) })
	return office
}

func init() {
	transport := caller.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if office, ok := offices.Load(host); ok {
			return dialWithin(ctx, office.(string), address)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}
