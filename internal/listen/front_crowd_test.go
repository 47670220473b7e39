package listen

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Callers of every kind at once: in pieces, aborted, with bodies that nobody reads,
// pausing for about as long as a connection idles before it waits outside. Each gets
// the answer to its own request, and no place is lost.
func TestACrowdOfCallersGetsEachItsOwnAnswer(t *testing.T) {
	const callers, length = 40, 3 * time.Second
	l := loopback(t)
	g := newGate(l, Settings{})
	serve(t, newFront(g, nil, 0, 500*time.Millisecond), func(s *served) {
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if v := Violated(r); v != nil {
				w.WriteHeader(v.Status)
				return
			}
			PeerOf(r)
			switch r.URL.Path {
			case "/slow":
				select {
				case <-time.After(30 * time.Millisecond):
				case <-r.Context().Done():
					return
				}
			case "/abort":
				panic(http.ErrAbortHandler)
			}
			if r.URL.Path != "/unread" {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			_, _ = io.WriteString(w, r.Header.Get("X-N"))
		})
		s.IdleTimeout, s.WriteTimeout, s.ErrorLog = 400*time.Millisecond, 5*time.Second, log.New(io.Discard, "", 0)
	})
	var right atomic.Int64
	caller := func(k int, end time.Time) {
		rnd := rand.New(rand.NewPCG(uint64(k), 1))
		for time.Now().Before(end) {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				continue
			}
			_ = c.SetDeadline(time.Now().Add(6 * time.Second))
			in := bufio.NewReader(c)
			for n := range 6 {
				id := fmt.Sprintf("%d-%d-%d", k, n, rnd.Uint64())
				path := []string{"/", "/slow", "/abort", "/unread", "/"}[rnd.IntN(5)]
				body := strings.Repeat("x", rnd.IntN(3)*rnd.IntN(20_000))
				message := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\nX-N: %s\r\nContent-Length: %d\r\n\r\n%s", path, id, len(body), body)
				switch rnd.IntN(8) {
				case 0:
					_, _ = io.WriteString(c, message[:rnd.IntN(len(message))])
					_ = c.Close()
				case 1:
					message += "GET / HTTP/1.1\nbad"
				}
				for len(message) > 0 {
					most := min(len(message), 1+rnd.IntN(30_000))
					if _, err := io.WriteString(c, message[:most]); err != nil {
						break
					}
					message = message[most:]
					if rnd.IntN(6) == 0 {
						time.Sleep(time.Duration(rnd.IntN(130)) * time.Millisecond)
					}
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					break
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil {
					break
				}
				if resp.StatusCode == http.StatusOK {
					if string(got) != id {
						t.Errorf("%s got the answer %q", id, got)
					}
					right.Add(1)
				}
				if resp.Close {
					break
				}
				time.Sleep([]time.Duration{0, 95, 101, 105, 250, 390, 405}[rnd.IntN(7)] * time.Millisecond)
			}
			_ = c.Close()
		}
	}
	var all sync.WaitGroup
	end := time.Now().Add(length)
	for k := range callers {
		all.Go(func() { caller(k, end) })
	}
	all.Wait()
	if right.Load() == 0 {
		t.Error("nobody got an answer")
	}
	eventually(t, "every place is free", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.open == 0 && len(g.by) == 0
	})
}

// net/http reads a body to its end when a handler gives up, begins to watch for the
// next request, and closes the connection at the same time.
func TestAConnectionIsClosedBehindTheReadThatIsUnderWay(t *testing.T) {
	l := loopback(t)
	f := newFront(l, nil, 0, 0)
	defer f.Close()
	c := dial(t, l.Addr().String())
	const request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	_, _ = io.WriteString(c, request)
	e, err := f.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(e, make([]byte, len(request))); err != nil {
		t.Fatal(err)
	}
	watched := make(chan error, 1)
	go func() { // as net/http does, a byte at a time
		for {
			if _, err := e.Read(make([]byte, 1)); err != nil {
				watched <- err
				return
			}
		}
	}()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n")
	time.Sleep(50 * time.Millisecond) // a channel would hide the race
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := <-watched; err == io.EOF {
		t.Errorf("the watch ends with %v, as if the connection waited", err)
	}
	if n, err := e.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("once it is closed it reads %d bytes, %v", n, err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || isTimeout(err) {
		t.Errorf("the caller reads %d bytes, %v, want the end", n, err)
	}
}
