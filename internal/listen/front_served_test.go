package listen

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds how long a test waits for anything.
const patience = 20 * time.Second

// served is net/http behind a front. It answers each request with a line that
// tells of it, and remembers the lines.
type served struct {
	http.Server
	listener net.Listener
	address  string
	hold     chan struct{} // if there is one, /slow waits for it

	mu   sync.Mutex
	seen []string
}

// line tells of a request in the words of the tests.
func line(r *http.Request) string {
	if v := Violated(r); v != nil {
		return fmt.Sprintf("refused %d %q %q: %s", v.Status, v.Method, v.Path, v.Reason)
	}
	body, err := io.ReadAll(r.Body)
	text := fmt.Sprintf("%s %s %q %q", r.Method, r.RequestURI, r.Host, body)
	if err != nil {
		text += " broken"
	}
	if len(r.Trailer) > 0 {
		text += " trailers"
	}
	return text
}

// serve puts net/http behind a front on l, which the test's end closes.
func serve(t testing.TB, l net.Listener, change func(*served)) *served {
	t.Helper()
	s := &served{listener: l, address: l.Addr().String()}
	s.Server = http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text := line(r)
			if r.URL.Path == "/slow" {
				select {
				case <-s.hold:
				case <-r.Context().Done():
					text += " left"
				}
			}
			s.mu.Lock()
			s.seen = append(s.seen, text)
			s.mu.Unlock()
			if v := Violated(r); v != nil {
				w.WriteHeader(v.Status)
			}
			_, _ = io.WriteString(w, text+"\n")
		}),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
		DisableGeneralOptionsHandler: true,
		ConnContext:                  ConnContext, ConnState: ConnState,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	if change != nil {
		change(s)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return s
}

func (s *served) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
}

// loopback binds a free port.
func loopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func plain(t testing.TB) *served { return serve(t, newFront(loopback(t), nil, 0, 0), nil) }

func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// converse writes bytes, closes its sending side, and reads all answers.
func converse(t testing.TB, address string, pieces ...string) string {
	t.Helper()
	c := dial(t, address)
	for _, p := range pieces {
		if _, err := io.WriteString(c, p); err != nil {
			break // refused before its end
		}
	}
	_ = c.CloseWrite()
	var got bytes.Buffer
	if _, err := got.ReadFrom(c); err != nil {
		t.Errorf("the answer to %.100q ends with %v after %.200q", pieces, err, got.String())
	}
	return got.String()
}

// answers are the bodies of a connection's answers, each a line.
func answers(t testing.TB, raw string) (all []string) {
	t.Helper()
	for r := bufio.NewReader(strings.NewReader(raw)); ; {
		if _, err := r.Peek(1); err != nil {
			return all
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("no answer: %v in %q", err, raw)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("an answer breaks off: %v in %q", err, raw)
		}
		if resp.StatusCode != http.StatusContinue {
			all = append(all, strings.TrimSuffix(string(body), "\n"))
		}
	}
}

// get sends a request on an open connection and gives its answer's body.
func get(t testing.TB, c net.Conn, in *bufio.Reader, path string) string {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	return answerOf(t, in)
}

func answerOf(t testing.TB, in *bufio.Reader) string {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(body), "\n")
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
