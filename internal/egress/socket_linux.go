package egress

import (
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall lacks.
const tcpUserTimeout = 0x12

// giveUpAfter ends a connection when what it sent is not acknowledged, or finds no
// room at the other end, for so long (tcp(7), RFC 5482). Keep-alives alone do not
// see a request that is written into a black hole: while there is something to
// repeat, none are sent. A kernel that does not know the option does without.
func giveUpAfter(fd uintptr, d time.Duration) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d/time.Millisecond))
}
