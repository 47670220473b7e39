package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A caller that sends a body with its GET and leaves is noticed, as any other, and
// storage is not waited for.
func TestACallerOfABodyThatLeavesEndsItsDownload(t *testing.T) {
	s := newStorage(t, options{limits: func(l *Limits) { l.FirstByteTimeout = time.Minute }})
	sealed := s.sealed()
	for name, body := range map[string]string{"no body": "\r\n", "a body": "Content-Length: 2\r\n\r\n{}", "a body in chunks": "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"} {
		begun, ended := make(chan struct{}), make(chan struct{})
		s.place.answer(func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
			close(ended)
		})
		c, err := net.Dial("tcp", s.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s", sealed, body)
		<-begun
		_ = c.Close()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Errorf("%s: storage is waited for", name)
			return
		}
	}
	for _, rec := range s.lines(4)[1:] {
		if rec["code"] != "ClientGone" {
			t.Errorf("the record is %v", rec)
		}
	}
}

// The time that a body may take does not end the download behind it.
func TestADownloadGoesOnBehindABody(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	s.place.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(3*1000))
		for range 3 {
			_, _ = w.Write(make([]byte, 1000))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(drainTime * 6 / 10): // more than drainTime in all
			}
		}
	})
	for name, body := range map[string]string{"none": "", "a small one": "{}", "the largest": strings.Repeat("x", maxUnread)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := s.do("GET", sealed, body); got.status != 200 || got.err != nil || len(got.body) != 3000 {
				t.Errorf("%d with %d bytes, %v", got.status, len(got.body), got.err)
			}
		})
	}
}

func TestABodyThatADownloadDoesNotWaitFor(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	for name, c := range map[string]struct{ rest, code string }{
		"one that does not come":      {"Content-Length: 2\r\n\r\n", "RequestTimeout"},
		"one that stops":              {"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "RequestTimeout"},
		"one that is large":           {"Content-Length: 70000\r\n\r\n" + strings.Repeat("x", 70000), "RequestTooLarge"},
		"one that is malformed":       {"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "InvalidRequest"},
		"one that is large in chunks": {"Transfer-Encoding: chunked\r\n\r\n11170\r\n" + strings.Repeat("x", 70000) + "\r\n0\r\n\r\n", "RequestTooLarge"},
	} {
		got := s.raw("GET " + sealed + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + c.rest)
		if got.code() != c.code {
			t.Errorf("%s: %d %s, want %s", name, got.status, got.body, c.code)
		}
	}
	if n := len(s.place.requests()); n != 0 {
		t.Errorf("%d requests came to storage", n)
	}
}

func TestAConnectionServesOnBehindADownloadWithABody(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	c, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	for i := range 2 { // on one connection, the second behind the first one's deadline
		_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}", sealed)
		b := make([]byte, 4096)
		if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
			t.Errorf("request %d: %q, %v", i, b[:n], err)
		}
		time.Sleep(drainTime + 200*time.Millisecond)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, c)
}
