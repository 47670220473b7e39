package integration

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames are the beginning of a connection of HTTP/2 with one request.
func frames(method, authority, path, body string) string {
	var b, block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", method}, {":scheme", "https"}, {":authority", authority}, {":path", path},
		{"content-type", "application/json"}, {"content-length", strconv.Itoa(len(body))},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: body == ""})
	if body != "" {
		_ = f.WriteData(1, true, []byte(body))
	}
	return b.String()
}

// Over HTTP/2 net/http would read the frames and keep what has not come to its end,
// and neither the strict framing nor the bounds of memory would be the proxy's. It is
// not spoken: who offers it is told HTTP/1.1 at TLS, and who sends its frames all the
// same, over TLS or not, is refused as every other request is, with a record.
func TestAttackOverHTTP2(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "defender.corp.example")
	dir := t.TempDir()
	for file, data := range map[string][]byte{"server.pem": cert, "server.key": key} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overTLS := victimOverTLS(t, dir)
	plain := victim(t, nil)
	const isolate = "/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/isolate"
	dial := func(t *testing.T, w *world, protocols ...string) (net.Conn, string) {
		t.Helper()
		d := &net.Dialer{Timeout: patience}
		if w == plain {
			c, err := d.Dial("tcp", w.address())
			if err != nil {
				t.Fatal(err)
			}
			return c, ""
		}
		c, err := tls.DialWithDialer(d, "tcp", w.address(), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		if err != nil {
			t.Fatal(err)
		}
		return c, c.ConnectionState().NegotiatedProtocol
	}
	for _, tc := range []struct {
		name     string
		w        *world
		offers   []string
		protocol string
	}{
		{"agreed on nothing", overTLS, nil, ""},
		{"agreed on HTTP/1.1", overTLS, []string{"http/1.1"}, "http/1.1"},
		{"offered first", overTLS, []string{"h2", "http/1.1"}, "http/1.1"},
		{"without TLS", plain, nil, ""},
	} {
		for _, request := range []string{frames("GET", tc.w.address(), "/api/alerts", ""), frames("POST", tc.w.address(), isolate, `{"Comment":"x","IsolationType":"Full"}`)} {
			t.Run(tc.name, func(t *testing.T) {
				w := tc.w.in(t)
				w.sim.ResetRequests()
				c, protocol := dial(t, tc.w, tc.offers...)
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				if protocol != tc.protocol {
					t.Errorf("%q was agreed on, want %q", protocol, tc.protocol)
				}
				_, _ = io.WriteString(c, request)
				in := bufio.NewReader(c)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				a := answer{status: resp.StatusCode, proto: resp.Proto, header: resp.Header}
				a.body, a.err = io.ReadAll(resp.Body)
				expect(t, a, a.err, http.StatusHTTPVersionNotSupported, "InvalidRequest", "HTTP/1.1")
				if rest, _ := io.ReadAll(in); len(rest) > 0 {
					t.Errorf("behind the answer came %.200q", rest)
				}
				if rs := w.recordsOf(a); len(rs) == 0 || rs[len(rs)-1].Code != "InvalidRequest" || rs[len(rs)-1].Method != "PRI" {
					t.Errorf("its records: %+v", rs)
				}
				if arrived := w.upstream(); len(arrived) > 0 {
					t.Errorf("arrived at Microsoft's side: %+v", arrived)
				}
			})
		}
	}
	if c, err := tls.Dial("tcp", overTLS.address(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}); err == nil {
		c.Close()
		t.Errorf("a client that speaks HTTP/2 alone is let in, with %q", c.ConnectionState().NegotiatedProtocol)
	}
}

// victimOverTLS is a victim whose listener has the certificate in dir.
func victimOverTLS(t *testing.T, dir string) *world {
	return newWorld(t, respond(func(c object) {
		inRegions(c, "eu")
		c["listeners"].([]object)[0]["tls"] = object{"cert_file": filepath.Join(dir, "server.pem"), "key_file": filepath.Join(dir, "server.key")}
	}))
}
