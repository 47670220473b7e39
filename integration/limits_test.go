package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// Two hundred connections send their headers a byte at a time, or nothing at
// all. Each is closed within the time that headers may take; meanwhile others
// are served as if nothing were.
func TestSlowHeadersAreCutOffWhileOthersAreServed(t *testing.T) {
	t.Parallel()
	const (
		slow    = 200
		allowed = time.Second
	)
	w := newWorld(t, setup{config: func(c object) { c["limits"] = object{"read_header_timeout": allowed.String()} }})
	begun := time.Now()
	var open sync.WaitGroup
	late := make(chan string, slow)
	for i := range slow {
		open.Go(func() {
			c, err := net.Dial("tcp", w.address())
			if err != nil {
				late <- err.Error()
				return
			}
			defer c.Close()
			connected := time.Now()
			deadline := connected.Add(allowed + 2*time.Second)
			_ = c.SetDeadline(deadline)
			switch i % 3 {
			case 0: // says nothing
			case 1: // stops in the middle of a header
				_, _ = io.WriteString(c, "GET /api/alerts HTTP/1.1\r\nHost: "+w.address()+"\r\nX-A: ")
			case 2: // goes on for ever, a byte at a time
				_, _ = io.WriteString(c, "GET /api/alerts HTTP/1.1\r\nX-A: ")
				go func() {
					for {
						if _, err := io.WriteString(c, "a"); err != nil {
							return
						}
						time.Sleep(50 * time.Millisecond)
					}
				}()
			}
			// Whatever is read on the way, the end has to come in time.
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				late <- fmt.Sprintf("connection %d was still open %v after it began", i, time.Since(connected))
			}
		})
	}
	served := 0
	for time.Since(begun) < allowed {
		began := time.Now()
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
			t.Fatalf("another caller: %v", a)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("another caller waited %v", took)
		}
		served++
	}
	open.Wait()
	close(late)
	for l := range late {
		t.Error(l)
	}
	if served == 0 {
		t.Errorf("no request of others was served meanwhile")
	}
}

// Headers beyond the limit are refused before anybody looks at them, whether in
// one large one, in many small ones, or in the request line.
func TestHeaderBombsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { c["limits"] = object{"header_bytes": "8KiB"} }})
	w.sim.ResetRequests()
	for _, tc := range []struct{ name, request string }{
		{"one large header", "GET /api/alerts HTTP/1.1\r\nHost: " + w.address() + "\r\nX-A: " + strings.Repeat("a", 32<<10) + "\r\n\r\n"},
		{"many small headers", "GET /api/alerts HTTP/1.1\r\nHost: " + w.address() + "\r\n" + strings.Repeat("X-A: a\r\n", 8<<10) + "\r\n"},
		{"a large target", "GET /api/alerts?$filter=" + strings.Repeat("a", 32<<10) + " HTTP/1.1\r\nHost: " + w.address() + "\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := raw(t, w.address(), tc.request); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
				t.Errorf("got %.200q", got)
			}
		})
	}
	if a := w.get("/api/alerts?$top=1", "X-A", strings.Repeat("a", 4<<10)); a.status != http.StatusOK {
		t.Errorf("headers within the limit: %v", a)
	}
	if n := len(w.upstream()); n != 1 {
		t.Errorf("%d requests arrived", n)
	}
}

// A body over the limit is refused: by its length before it is read, without a
// length as soon as it is too long. What was let in of it is nobody's request.
func TestBodiesOverTheLimitAreRefused(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	w := newWorld(t, setup{config: func(c object) { c["limits"] = object{"max_request_bytes": "1MiB"} }})
	query := func(n int) string {
		const q = `{"Query":"DeviceInfo | take 1"}`
		return q + strings.Repeat(" ", n-len(q))
	}
	if a := w.do(http.MethodPost, "/api/advancedqueries/run", query(limit)); a.status != http.StatusOK {
		t.Errorf("a body of just the limit: %v", a)
	}
	w.sim.ResetRequests()
	if a := w.do(http.MethodPost, "/api/advancedqueries/run", query(limit+1)); a.status != http.StatusRequestEntityTooLarge || !a.ours() {
		t.Errorf("a byte more: %v", a)
	}
	if n := len(w.upstream()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	// Without a length: what is small is read whole first, what is larger has
	// begun to go out when it turns out too large.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/api/advancedqueries/run", io.MultiReader(strings.NewReader(query(limit)), strings.NewReader("   ")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := caller.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(body, `"code":"RequestTooLarge"`) {
		t.Errorf("a chunked body that is too long: %d %s", resp.StatusCode, body)
	}
	for _, r := range w.upstream() {
		if r.Status == http.StatusOK {
			t.Errorf("a cut body was taken for a whole one: %+v", r)
		}
	}
}

// As many requests as are allowed hang; the next one is told to come again, at
// once. When they have gone, there is room.
func TestMoreRequestsThanAllowedAreToldToComeAgain(t *testing.T) {
	t.Parallel()
	const most = 3
	w := newWorld(t, setup{config: func(c object) {
		inRegions(c, "eu")
		c["limits"] = object{"max_in_flight": most}
	}})
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultHang, Match: "/api/machines"}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	var hanging sync.WaitGroup
	for range most {
		hanging.Go(func() { _, _ = ask(ctx, http.MethodGet, w.url+"/api/machines", "") })
	}
	w.eventually("they hang", func() error {
		if n := len(w.arrivals(http.MethodGet, "/api/machines")); n < most {
			return fmt.Errorf("%d of %d", n, most)
		}
		return nil
	})
	a := w.get("/api/alerts")
	if code, message := a.refused(); a.status != http.StatusServiceUnavailable || code != "Overloaded" || a.header.Get("Retry-After") != "1" ||
		!strings.Contains(message, "3 requests are under way") {
		t.Errorf("one more: %v", a)
	}
	leave()
	hanging.Wait()
	w.eventually("there is room again", func() error {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
}

// A client sends Expect: 100-continue and waits for leave before its body, as
// curl does with a large one. A refusal comes in place of the leave.
func TestAClientThatExpectsLeaveForItsBodyGetsItOrARefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	for _, tc := range []struct{ path, first string }{
		{"/api/advancedqueries/run", "HTTP/1.1 100 Continue"},
		{"/api/machines/1/isolate", "HTTP/1.1 403 Forbidden"},
	} {
		c, err := net.Dial("tcp", w.address())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		const body = `{"Query":"DeviceInfo | take 1"}`
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", tc.path, w.address(), len(body))
		in := bufio.NewReader(c)
		line, err := in.ReadString('\n')
		if err != nil || strings.TrimSpace(line) != tc.first {
			t.Errorf("%s: %q, %v", tc.path, line, err)
			continue
		}
		if tc.first != "HTTP/1.1 100 Continue" {
			continue
		}
		_, _ = io.WriteString(c, body)
		rest, err := io.ReadAll(in)
		if err != nil || !strings.Contains(string(rest), "HTTP/1.1 200 OK") {
			t.Errorf("%s: %q, %v", tc.path, rest, err)
		}
	}
	for _, r := range w.upstream() {
		if r.Header.Get("Expect") != "" {
			t.Errorf("the expectation was passed on: %+v", r)
		}
	}
}
