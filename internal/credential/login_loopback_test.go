package credential

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// localhost has two addresses, and a browser takes either.
func TestAuthorizationCodeIsReceivedOnLoopbackAlone(t *testing.T) {
	listeners, port, err := listenForBrowser()
	noError(t, err)
	probe, err := net.Listen("tcp6", "[::1]:0")
	want := 1
	if err == nil {
		probe.Close()
		want = 2
	}
	if len(listeners) != want {
		t.Errorf("got %d listeners, want %d", len(listeners), want)
	}
	for _, l := range listeners {
		a := l.Addr().(*net.TCPAddr)
		if !a.IP.IsLoopback() || strconv.Itoa(a.Port) != port {
			t.Errorf("got a listener on %v, want port %s of a loopback address", a, port)
		}
		if another, err := net.Listen("tcp", a.String()); err == nil {
			another.Close()
			t.Errorf("somebody else can listen on %v", a)
		}
		l.Close()
	}
}

func TestAuthorizationCodeOverIPv6(t *testing.T) {
	probe, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return // this machine has no IPv6
	}
	probe.Close()
	l, err := signInBy(t, &fakeLogin{}, nil, func(b *http.Client, p LoginPrompt) {
		right := redirected(t, b, p)
		if status, _, text := visit(t, b, http.MethodGet, strings.Replace(right, "localhost", "[::1]", 1), ""); status != http.StatusOK {
			t.Errorf("got %d %s", status, text)
		}
	})
	noError(t, err)
	if l.RefreshToken != fakeRefresh {
		t.Errorf("got %q", l.RefreshToken)
	}
}

// Somebody who opens connections and says nothing holds nothing up.
func TestAuthorizationCodeBesideConnectionsThatHang(t *testing.T) {
	server := landingServer(nil)
	for what, d := range map[string]time.Duration{"ReadHeaderTimeout": server.ReadHeaderTimeout, "ReadTimeout": server.ReadTimeout, "WriteTimeout": server.WriteTimeout, "IdleTimeout": server.IdleTimeout} {
		if d <= 0 || d > 10*time.Second {
			t.Errorf("got %s %v, want ten seconds at most", what, d)
		}
	}
	var hanging net.Conn
	_, err := signInBy(t, &fakeLogin{}, nil, func(b *http.Client, p LoginPrompt) {
		u, err := url.Parse(redirected(t, b, p))
		if err == nil {
			hanging, err = net.Dial("tcp4", "127.0.0.1:"+u.Port())
		}
		if err == nil {
			_, err = io.WriteString(hanging, "GET /?x HTTP/1.1\r\nHost: localho")
		}
		if err != nil {
			t.Error(err)
		}
		visit(t, b, http.MethodGet, u.String(), "")
	})
	noError(t, err)
	defer hanging.Close()
	// It is closed by now, which a server that only waits would not have done.
	noError(t, hanging.SetReadDeadline(time.Now().Add(5*time.Second)))
	if n, err := hanging.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes and %v, want a closed connection", n, err)
	}
}
