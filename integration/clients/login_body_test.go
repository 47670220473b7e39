package clients

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A tool posts more than a login needs, or waits with it, or never ends. It has its
// token all the same, at once where it sends all, and the connection goes on where
// the rest is short.
func TestLoginsWithOddBodies(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	path := "/" + toolTenant + "/oauth2/v2.0/token"
	for _, base := range []string{d.plain, d.secure, login} {
		for name, body := range map[string]func() io.Reader{
			"of 1 MiB":                   func() io.Reader { return strings.NewReader(strings.Repeat("client_secret=x&", 1<<16)) },
			"of 1 MiB and of no length":  func() io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20))) },
			"of 30 bytes":                func() io.Reader { return strings.NewReader("client_secret=" + toolSecret) },
			"of no length, and of bytes": func() io.Reader { return io.MultiReader(strings.NewReader("\x00\xff")) },
		} {
			t.Run(base+" a body "+name, func(t *testing.T) {
				resp, err := d.client.Post(base+path, "application/x-www-form-urlencoded", body())
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				d.use(t, tokenIn(t, resp))
			})
		}
	}
	for name, request := range map[string]string{
		"that never ends":            "Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n",
		"that never comes":           "Content-Length: 100\r\n\r\n",
		"that waits to be asked for": "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
	} {
		t.Run("a body "+name, func(t *testing.T) {
			conn, err := net.Dial("tcp", d.callers[0])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\n%s", path, request); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodPost})
			if err == nil && resp.StatusCode == http.StatusContinue {
				resp, err = http.ReadResponse(in, &http.Request{Method: http.MethodPost})
			}
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			d.use(t, tokenIn(t, resp))
		})
	}
	t.Run("a body that comes behind its head, on a connection that is to be closed, as urllib sends it", func(t *testing.T) {
		conn, err := net.Dial("tcp", d.callers[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		body := "client_secret=" + toolSecret
		for _, part := range []string{fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", path, len(body)), body} {
			if _, err := io.WriteString(conn, part); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // a connection that was closed has been reset
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodPost})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		d.use(t, tokenIn(t, resp))
	})
	t.Run("one login after the other on a connection", func(t *testing.T) {
		conn, err := net.Dial("tcp", d.callers[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		in := bufio.NewReader(conn)
		for i := range 10 {
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", path, i*1000, strings.Repeat("a", i*1000)); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodPost})
			if err != nil {
				t.Fatalf("login %d: %v", i, err)
			}
			tokenIn(t, resp)
			_ = resp.Body.Close()
		}
	})
}

func tokenIn(t *testing.T, resp *http.Response) string {
	t.Helper()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK || answer.Token == "" {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return answer.Token
}
