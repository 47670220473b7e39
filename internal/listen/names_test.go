package listen

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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

		{name: "localhost on a Unix socket", local: "unix", host: "localhost"},
		{name: "a loopback address on a Unix socket", local: "unix", host: "[::1]:80"},
		{name: "a configured name on a Unix socket", local: "unix", host: "defender.corp.example"},
		{name: "another name on a Unix socket, as through a forwarder", local: "unix", host: "evil.example", want: "host"},
		{name: "an address on a Unix socket", local: "unix", host: "10.0.0.1", want: "host"},
		{name: "no host on a Unix socket", local: "unix", host: "", want: "host"},
		{name: "an address with a user before it", local: "127.0.0.1:8080", host: "127.0.0.1@evil.example", want: "host"},
		{name: "an address in other notation", local: "127.0.0.1:8080", host: "127.1", want: "host"},
		{name: "an address as a number", local: "127.0.0.1:8080", host: "2130706433", want: "host"},
		{name: "IPv4 loopback written as IPv6", local: "127.0.0.1:8080", host: "[::ffff:127.0.0.1]:8080"},
		{name: "IPv6 without brackets", local: "[::1]:8080", host: "::1"},
		{name: "brackets that do not close", local: "[::1]:8080", host: "[::1", want: "host"},
		{name: "localhost with a dot", local: "127.0.0.1:8080", host: "localhost.", want: "host"},
		{name: "a port that is left out", local: "127.0.0.1:8080", host: "localhost:"},
		{name: "the highest port", local: "127.0.0.1:8080", host: "[::1]:65535"},
		{name: "a configured name with a port that is none", local: "10.0.0.1:80", host: "defender.corp.example:99999999", want: "host"},
		{name: "a port above the highest", local: "127.0.0.1:8080", host: "127.0.0.1:65536", want: "host"},
		{name: "port 0", local: "127.0.0.1:8080", host: "localhost:0", want: "host"},
		{name: "a port with a sign", local: "127.0.0.1:8080", host: "localhost:+80", want: "host"},
		{name: "a word for a port", local: "127.0.0.1:8080", host: "[::1]:http", want: "host"},
		{name: "two names", local: "127.0.0.1:8080", host: "localhost, evil.example", want: "host"},

		{name: "our own page", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}},
		{name: "an address typed into a browser", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Sec-Fetch-Site": "none"}},
		{name: "the public URL's page", local: "10.0.0.1:80", host: "defender.corp.example", header: map[string]string{"Origin": "https://front.example"}},
		{name: "another page", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "http://evil.example"}, want: "Origin"},
		{name: "another port on this machine is another page", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "http://localhost:3000"}, want: "Origin"},
		{name: "a page without an origin", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "null"}, want: "Origin"},
		{name: "an origin beside ours", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "http://localhost:8080 http://evil.example"}, want: "Origin"},
		{name: "our own page over TLS, which we do not have", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "https://localhost:8080"}, want: "Origin"},
		{name: "a page that a browser extension opened", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Origin": "moz-extension://2c127fa4"}, want: "Origin"},
		{name: "a word that no browser sends", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Sec-Fetch-Site": "same-origin, none"}, want: "Sec-Fetch-Site"},
		{name: "a cross-site GET", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Sec-Fetch-Site": "cross-site"}, want: "Sec-Fetch-Site"},
		{name: "a same-site GET", local: "127.0.0.1:8080", host: "localhost:8080", header: map[string]string{"Sec-Fetch-Site": "same-site"}, want: "Sec-Fetch-Site"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			var local net.Addr = &net.UnixAddr{Net: "unix", Name: "/run/x.sock"}
			if c.local != "unix" {
				var err error
				if local, err = net.ResolveTCPAddr("tcp", c.local); err != nil {
					t.Fatal(err)
				}
			}
			err := names.Check(r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local)))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	if err := names.Check(httptest.NewRequest("GET", "http://127.0.0.1/", nil)); err == nil {
		t.Error("a request whose connection is unknown passes")
	}
}
