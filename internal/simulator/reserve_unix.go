//go:build unix

package simulator

import (
	"net"
	"syscall"
)

// reserve binds a port without listening, so that connections to it are refused
// and nobody else is given it meanwhile. It does what it can: the function that
// it returns, never nil, gives the port back.
func reserve(address string) (release func()) {
	nothing := func() {}
	at, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil || at.IP.To4() == nil {
		return nothing
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nothing
	}
	syscall.CloseOnExec(fd)
	// Connections that just ended may still hold the port.
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())})
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nothing
	}
	return func() { _ = syscall.Close(fd) }
}
