package listen

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAConnectionThatIdlesWaitsOutsideAndGoesOn(t *testing.T) {
	l := newFront(loopback(t), nil, 0, 0)
	f := l.(*front)
	var conns sync.Map
	s := serve(t, l, func(s *served) {
		s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			conns.Store(c, true)
			return ConnContext(ctx, c)
		}
	})
	waiting := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.waiting)
	}
	c := dial(t, s.address)
	in := bufio.NewReader(c)
	for i := range 3 {
		path := fmt.Sprintf("/%d", i)
		if got, want := get(t, c, in, path), fmt.Sprintf(`GET %s "h" ""`, path); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		eventually(t, "it waits outside", func() bool { return waiting() == 1 })
	}
	n := 0
	conns.Range(func(any, any) bool { n++; return true })
	if n != 3 {
		t.Errorf("net/http saw %d connections, want one for each wait", n)
	}
	// A head that comes in pieces, after a wait.
	for _, piece := range []string{"GET /pieces HT", "TP/1.1\r\nHo", "st: h\r\n\r", "\n"} {
		_, _ = io.WriteString(c, piece)
		time.Sleep(5 * time.Millisecond)
	}
	if got, want := answerOf(t, in), `GET /pieces "h" ""`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Its close is seen.
	c.Close()
	eventually(t, "it is gone", func() bool { return waiting() == 0 })
}

func TestRequestsThatFollowOneAnotherAtOnceAreOneConnectionToNetHTTP(t *testing.T) {
	var mu sync.Mutex
	n := 0
	s := serve(t, newFront(loopback(t), nil, 0, 0), func(s *served) {
		s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			mu.Lock()
			n++
			mu.Unlock()
			return ConnContext(ctx, c)
		}
	})
	got := converse(t, s.address, strings.Repeat("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 50))
	if all := answers(t, got); len(all) != 50 {
		t.Errorf("%d answers, want 50", len(all))
	}
	mu.Lock()
	defer mu.Unlock()
	if n != 1 {
		t.Errorf("net/http saw %d connections, want 1", n)
	}
}

func TestACallerWhoLeavesIsNoticedWhileItsRequestRuns(t *testing.T) {
	for _, more := range []string{"", "GET /nex"} {
		s := serve(t, newFront(loopback(t), nil, 0, 0), func(s *served) { s.hold = make(chan struct{}) })
		c := dial(t, s.address)
		_, _ = io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n"+more)
		time.Sleep(20 * time.Millisecond)
		c.Close()
		eventually(t, "the request ends", func() bool { return len(s.lines()) == 1 })
		if got, want := s.lines()[0], `GET /slow "h" "" left`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// The next request's head has begun while one is running: that is no reason to end
// it, however long it runs, and its own time begins after the answer.
func TestAHeadThatHasBegunDoesNotEndTheRequestBeforeIt(t *testing.T) {
	const headers = 250 * time.Millisecond
	s := serve(t, newFront(loopback(t), nil, 0, headers), func(s *served) {
		s.hold = make(chan struct{})
		s.ReadHeaderTimeout = headers
	})
	c := dial(t, s.address)
	in := bufio.NewReader(c)
	_, _ = io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\nGET /next HT")
	time.Sleep(3 * headers)
	close(s.hold)
	if got, want := answerOf(t, in), `GET /slow "h" ""`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("the head that never ends: got %s, want 408", resp.Status)
	}
}

func TestSlowHeadsAreToldAndClosed(t *testing.T) {
	const headers = 200 * time.Millisecond
	s := serve(t, newFront(loopback(t), nil, 0, headers), nil)
	for _, tc := range []struct {
		name, begin string
		first       bool // a request before
		want        string
	}{
		{"one that says nothing", "", false, ""},
		{"one that stops in the request line", "GET /", false, "HTTP/1.1 408 "},
		{"one that stops in a header", "GET / HTTP/1.1\r\nX-A: ", false, "HTTP/1.1 408 "},
		{"one that stops before the last byte", "GET / HTTP/1.1\r\nHost: h\r\n\r", false, "HTTP/1.1 408 "},
		{"one that stops in its second head", "GET / HTTP/1.1\r\nX-A: ", true, "HTTP/1.1 408 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, s.address)
			in := bufio.NewReader(c)
			if tc.first {
				get(t, c, in, "/")
				time.Sleep(2 * parkAfter)
			}
			_, _ = io.WriteString(c, tc.begin)
			stop := make(chan struct{})
			defer close(stop)
			if strings.HasSuffix(tc.begin, "X-A: ") {
				go func() { // a byte at a time helps nobody
					for {
						select {
						case <-stop:
							return
						case <-time.After(10 * time.Millisecond):
							_, _ = io.WriteString(c, "a")
						}
					}
				}()
			}
			got, err := io.ReadAll(in)
			if err != nil && len(got) == 0 && tc.want != "" {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(got), tc.want) || tc.want == "" && len(got) > 0 {
				t.Errorf("got %q, want %q and the end", got, tc.want)
			}
			if tc.want != "" {
				resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(got)), nil)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || int64(len(body)) != resp.ContentLength || !strings.HasSuffix(string(body), "\n") {
					t.Errorf("the answer's body is %q, %v, of %d bytes", body, err, resp.ContentLength)
				}
			}
		})
	}
	if seen := s.lines(); len(seen) != 1 {
		t.Errorf("net/http saw %q", seen)
	}
}

// A request of a megabyte is refused by its first line, and the caller, who sends
// on meanwhile, still gets to read why.
func TestARefusalReachesACallerWhoIsStillSending(t *testing.T) {
	s := plain(t)
	for range 20 {
		got := converse(t, s.address, "GET /a b HTTP/1.1\r\nHost: h\r\n", strings.Repeat("X-A: aaaaaaaaaaaaaaaa\r\n", 50_000), "\r\n")
		if all := answers(t, got); len(all) != 1 || !strings.HasPrefix(all[0], "refused 400") {
			t.Fatalf("got %q", all)
		}
	}
}

// A body that nobody wants goes on and on, and the caller gets to read the answer.
func TestAnAnswerReachesACallerWhoIsStillSendingItsBody(t *testing.T) {
	s := serve(t, newFront(loopback(t), nil, 0, 0), func(s *served) {
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		})
	})
	for _, head := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		piece := fmt.Sprintf("%x\r\n%s\r\n", 2000, strings.Repeat("a", 2000))
		got := converse(t, s.address, "POST /a HTTP/1.1\r\nHost: h\r\n"+head+"\r\n\r\n", strings.Repeat(piece, 450))
		if !strings.HasPrefix(got, "HTTP/1.1 413 ") {
			t.Errorf("%s: got %q", head, got)
		}
	}
}

func TestShutdownLetsRequestsFinishAndEndsThoseThatWait(t *testing.T) {
	f := newFront(loopback(t), nil, 0, 0)
	s := serve(t, f, func(s *served) { s.hold = make(chan struct{}) })
	busy, idle, silent := dial(t, s.address), dial(t, s.address), dial(t, s.address)
	in := bufio.NewReader(idle)
	get(t, idle, in, "/")
	_, _ = io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	time.Sleep(2 * parkAfter)
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(t.Context()) }()
	for name, c := range map[string]io.Reader{"idle": in, "silent": silent} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("the %s one reads %d bytes, %v", name, n, err)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("it did not wait for the request that runs: %v", err)
	default:
	}
	close(s.hold)
	if got := answers(t, readAll(t, busy)); len(got) != 1 || got[0] != `GET /slow "h" ""` {
		t.Errorf("got %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := f.Accept(); err == nil {
		t.Error("a closed front accepts")
	}
}

func TestWhoHasJustConnectedIsAnsweredWhenTheServerStops(t *testing.T) {
	f := newFront(loopback(t), nil, 0, 0)
	s := serve(t, f, nil)
	early, silent := dial(t, s.address), dial(t, s.address)
	eventually(t, "both are there", func() bool {
		fr := f.(*front)
		fr.mu.Lock()
		defer fr.mu.Unlock()
		return fr.fresh >= 2
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Quiesce(f, time.Minute)
	}()
	eventually(t, "nobody new gets in", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	get(t, early, bufio.NewReader(early), "/")
	select {
	case <-ended:
		t.Fatal("it did not wait for the others")
	default:
	}
	_ = silent.Close()
	_ = f.Close() // as Shutdown does, when the patience is over
	<-ended
	Quiesce(f, time.Minute) // a second one, or one behind Close, does not wait
}

// flaky fails to accept for a while, as a process without descriptors does, and
// then for good.
type flaky struct {
	net.Listener
	mu     sync.Mutex
	errors []error
}

type passing struct{ error }

func (passing) Temporary() bool { return true }
func (p passing) Unwrap() error { return p.error }

func (f *flaky) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errors) > 0 {
		err := f.errors[0]
		f.errors = f.errors[1:]
		return nil, err
	}
	return f.Listener.Accept()
}

func TestAcceptGoesOnAfterAPassingErrorAndTellsALastingOne(t *testing.T) {
	few := passing{fmt.Errorf("too many open files")}
	s := serve(t, newFront(&flaky{Listener: loopback(t), errors: []error{few, few}}, nil, 0, 0), nil)
	if got := answers(t, converse(t, s.address, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")); len(got) != 1 {
		t.Errorf("got %q", got)
	}
	for _, last := range []error{fmt.Errorf("the network is gone"), passing{net.ErrClosed}} {
		f := newFront(&flaky{Listener: loopback(t), errors: []error{last}}, nil, 0, 0)
		if _, err := f.Accept(); err != last {
			t.Errorf("got %v, want %v", err, last)
		}
		_ = f.Close()
	}
}
