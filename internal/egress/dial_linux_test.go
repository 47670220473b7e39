package egress

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// mute listens and has no room for another connection, so that whoever comes
// hears nothing. Without IPv6 the address is not there, which is silent enough.
func mute(t *testing.T, address string) {
	t.Helper()
	to := netip.MustParseAddrPort(address)
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Logf("no IPv6 here: %v", err)
		return
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}); err != nil {
		t.Logf("no IPv6 here: %v", err)
		return
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		cancel()
		if err != nil {
			return // it is full
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of connections does not fill up")
}

func TestDeadPathsAreNoticed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := transport(t, Settings{}).dialer.plain(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	idle, interval, count, unacknowledged := 0, 0, 0, 0
	raw.Control(func(fd uintptr) {
		option := func(number int) int {
			v, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, number)
			if err != nil {
				t.Error(err)
			}
			return v
		}
		idle, interval, count, unacknowledged = option(syscall.TCP_KEEPIDLE), option(syscall.TCP_KEEPINTVL), option(syscall.TCP_KEEPCNT), option(tcpUserTimeout)
	})
	if idle+count*interval != 15 || unacknowledged != 15_000 {
		t.Errorf("idle %d s, %d times %d s, unacknowledged %d ms; want 15 s each", idle, count, interval, unacknowledged)
	}
}
