package listen

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// bounded is net/http behind a front that keeps no more of unfinished heads than
// that.
func bounded(t *testing.T, most int) (*served, *heads) {
	t.Helper()
	f := newFront(loopback(t), nil, 0, patience).(*front)
	f.heads.most = most
	return serve(t, f, nil), f.heads
}

func (h *heads) now() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytes
}

// unfinished begins a head of about that many bytes.
func unfinished(t *testing.T, address string, size int) *net.TCPConn {
	t.Helper()
	c := dial(t, address)
	if _, err := fmt.Fprintf(c, "GET /unfinished HTTP/1.1\r\nHost: h\r\nX-A: %s", strings.Repeat("a", size)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUnfinishedHeadsShareABoundedRoom(t *testing.T) {
	const most = 1 << 20
	s, h := bounded(t, most)
	var big []*net.TCPConn
	for range 28 {
		big = append(big, unfinished(t, s.address, 30_000))
	}
	eventually(t, "they are counted", func() bool { return h.now() == 28*32<<10 })
	// One of them has to go for each that comes, and is told why.
	for range 20 {
		big = append(big, unfinished(t, s.address, 30_000))
	}
	eventually(t, "those that have to go are refused", func() bool { return len(s.lines()) >= 16 })
	if got := h.now(); got > most {
		t.Errorf("%d bytes are kept, want at most %d", got, most)
	}
	for _, line := range s.lines() {
		if want := `refused 431 "GET" "/unfinished": ` + whyTooMuch; line != want {
			t.Errorf("got %s, want %s", line, want)
		}
	}
	// Smaller ones come through.
	c := unfinished(t, s.address, 6000)
	time.Sleep(10 * time.Millisecond)
	_, _ = io.WriteString(c, "\r\n\r\n")
	if got, want := answerOf(t, bufio.NewReader(c)), `GET /unfinished "h" ""`; got != want {
		t.Errorf("a smaller head: got %.100s, want %s", got, want)
	}
	var told atomic.Int64
	for _, c := range big {
		go func() {
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && resp.StatusCode == http.StatusRequestHeaderFieldsTooLarge {
				told.Add(1)
			}
		}()
	}
	eventually(t, "they know", func() bool { return told.Load() >= 16 })
	for _, c := range big {
		_ = c.Close()
	}
	_ = c.Close()
	eventually(t, "all room is free", func() bool { return h.now() == 0 })
	for class := range h.by {
		if len(h.by[class]) != 0 {
			t.Errorf("%d heads of class %d are still known", len(h.by[class]), class)
		}
	}
}

func TestConnectionsThatWaitTakeNothingOfTheRoomForHeads(t *testing.T) {
	s, h := bounded(t, 100)
	for range 50 {
		c := dial(t, s.address)
		in := bufio.NewReader(c)
		get(t, c, in, "/a")
		_, _ = io.WriteString(c, "GET /b HTTP/1.1\r\nHost: h") // less than the small buffer
		time.Sleep(time.Millisecond)
	}
	time.Sleep(2 * parkAfter)
	if got := h.now(); got != 0 {
		t.Errorf("%d bytes are counted, want none", got)
	}
	// What there is no room for is refused as every other request.
	c := dial(t, s.address)
	_, _ = fmt.Fprintf(c, "GET /c HTTP/1.1\r\nHost: h\r\nX-A: %s", strings.Repeat("a", 600))
	if got := readAll(t, c); !strings.HasPrefix(got, "HTTP/1.1 431 ") || !strings.Contains(got, `"GET" "/c"`) {
		t.Errorf("got %q, want 431", got)
	}
}

// The head of a next request may come while one is running, and be unfinished when
// the connection begins to wait.
func TestAHeadBehindARequestIsCountedToo(t *testing.T) {
	s, h := bounded(t, 1<<20)
	c := dial(t, s.address)
	in := bufio.NewReader(c)
	_, _ = fmt.Fprintf(c, "GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\nX-A: %s", strings.Repeat("a", 20_000))
	if got, want := answerOf(t, in), `GET /a "h" ""`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	time.Sleep(2 * parkAfter)
	eventually(t, "it is counted", func() bool { return h.now() > 20_000 })
	_, _ = io.WriteString(c, "\r\n\r\n")
	if got, want := answerOf(t, in), `GET /b "h" ""`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	eventually(t, "it is counted no more", func() bool { return h.now() == 0 })
}
