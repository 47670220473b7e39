//go:build !linux

package listen

import (
	"context"
	"errors"
	"net"
	"os"
)

// errNoPeers: without a way to tell who connects, a Unix socket would let in anybody
// who can open it under another's name.
var errNoPeers = errors.New("a Unix socket is for Linux alone, where the kernel tells who connects; listen on 127.0.0.1")

func openUnix(context.Context, string, Socket) (net.Listener, error) { return nil, errNoPeers }

func processOf(*net.UnixConn) (*Process, error) { return nil, errNoPeers }

func listening(*os.File) bool { return true }
