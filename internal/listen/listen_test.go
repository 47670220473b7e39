package listen

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	names := NewNames([]string{"Defender.corp.example", "other.example:8443", "192.0.2.9"}, false, "https://front.example/")
	for _, c := range []struct {
		name, local, host string
		header            map[string]string
		want              string // part of the error, empty for none
	}{
		{name: "the address itself", local: "127.0.0.1:8080", host: "127.0.0.1:8080"},
		{name: "localhost on loopback", local: "127.0.0.1:8080", host: "localhost:8080"},
		{name: "localhost in capitals", local: "127.0.0.1:8080", host: "LOCALHOST:8080"},
		{name: "another loopback address on loopback", local: "127.0.0.1:8080", host: "127.0.0.53"},
		{name: "IPv6 loopback with a port", local: "[::1]:8080", host: "[::1]:8080"},
		{name: "IPv6 loopback without a port", local: "[::1]:8080", host: "[::1]"},
		{name: "another port, as behind port forwarding", local: "127.0.0.1:8080", host: "localhost:9999"},
		{name: "a configured name with any port", local: "10.0.0.1:80", host: "defender.corp.example:1234"},
		{name: "a configured name with its port", local: "10.0.0.1:80", host: "other.example:8443"},
		{name: "a configured address", local: "10.0.0.1:80", host: "192.0.2.9"},
		{name: "the address of the connection on a wide listener", local: "10.0.0.1:80", host: "10.0.0.1"},
		{name: "a configured name with another port than its own", local: "10.0.0.1:80", host: "other.example", want: "host"},
		{name: "a rebound name", local: "127.0.0.1:8080", host: "evil.example:8080", want: "host"},
		{name: "a name that begins like ours", local: "127.0.0.1:8080", host: "localhost.evil.example", want: "host"},
		{name: "a name that ends like ours", local: "10.0.0.1:80", host: "xdefender.corp.example", want: "host"},
		{name: "localhost on a wide address", local: "10.0.0.1:80", host: "localhost", want: "host"},
		{name: "loopback on a wide address", local: "10.0.0.1:80", host: "127.0.0.1", want: "host"},
		{name: "the address that means all", local: "127.0.0.1:8080", host: "0.0.0.0:8080", want: "host"},
		{name: "another address", local: "127.0.0.1:8080", host: "10.0.0.1", want: "host"},
		{name: "no host", local: "127.0.0.1:8080", host: "", want: "host"},
		{name: "a Kelvin sign in localhost's place", local: "127.0.0.1:8080", host: "localho\u017ft", want: "host"},

		{name: "our own page", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}},
		{name: "an address typed into a browser", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Sec-Fetch-Site": "none"}},
		{name: "the public URL's page", local: "10.0.0.1:80", host: "defender.corp.example", header: map[string]string{"Origin": "https://front.example"}},
		{name: "another page", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "http://evil.example"}, want: "Origin"},
		{name: "another port on this machine is another page", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "http://localhost:3000"}, want: "Origin"},
		{name: "a page without an origin", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "null"}, want: "Origin"},
		{name: "a cross-site GET", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Sec-Fetch-Site": "cross-site"}, want: "Sec-Fetch-Site"},
		{name: "a same-site GET", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Sec-Fetch-Site": "same-site"}, want: "Sec-Fetch-Site"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			local, err := net.ResolveTCPAddr("tcp", c.local)
			if err != nil {
				t.Fatal(err)
			}
			err = names.Check(r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(local))))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	if err := names.Check(httptest.NewRequest("GET", "http://127.0.0.1/", nil)); err == nil {
		t.Error("a request whose connection is unknown passes")
	}
}

func TestOpenTellsWhichAddressIsTaken(t *testing.T) {
	first, err := Open(t.Context(), Settings{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	address := first.Addr().String()
	_, err = Open(t.Context(), Settings{Address: address})
	var used *InUseError
	if !errors.As(err, &used) || used.Address != address || !strings.Contains(err.Error(), address) {
		t.Errorf("got %v, want an InUseError for %s", err, address)
	}
	if _, err := Open(t.Context(), Settings{Address: "127.0.0.1:0", CertFile: "missing.pem", KeyFile: "missing.key"}); err == nil || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestOneConnectionTooManyIsClosedAndTheOthersStay(t *testing.T) {
	l, err := Open(t.Context(), Settings{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.(*bounded).open.Store(MaxConnections - 1)
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	last := dial()
	server := <-accepted
	if _, err := dial().Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the connection beyond the bound reads %v, want EOF", err)
	}
	if _, err := server.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := last.Read(make([]byte, 1)); err != nil {
		t.Errorf("the last one within the bound reads %v", err)
	}
	server.Close()
	server.Close() // counts once
	dial()
	select {
	case c := <-accepted:
		c.Close()
	case <-time.After(10 * time.Second):
		t.Error("the place of a closed connection is not free again")
	}
}
