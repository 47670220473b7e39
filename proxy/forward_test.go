package proxy

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprintf(w, "status %d", code)
	}
}

func TestTheNextRegionAnswersWhereNothingCanBeDoneTwice(t *testing.T) {
	for _, c := range []struct {
		name          string
		method, path  string
		first         http.HandlerFunc // nil: no connection
		status        int
		code          string // of the refusal, empty for an answer
		first1, next1 int    // requests that arrived at the first and the next region
	}{
		{"a read when there is no connection", "GET", "/api/alerts", nil, 200, "", 0, 1},
		{"a write when there is no connection", "POST", "/api/machines/m1/isolate", nil, 200, "", 0, 1},
		{"a read when the connection dies", "GET", "/api/alerts", reset, 200, "", 1, 1},
		{"a HEAD when the connection dies", "HEAD", "/api/alerts", reset, 200, "", 1, 1},
		{"no write when the connection dies", "POST", "/api/machines/m1/isolate", reset, 502, "RegionUnavailable", 1, 0},
		{"no deletion when the connection dies", "DELETE", "/api/indicators/1", reset, 502, "RegionUnavailable", 1, 0},
		{"no hunting query when the connection dies", "POST", "/api/advancedqueries/run", reset, 502, "RegionUnavailable", 1, 0},
		{"a read when the answer is 502", "GET", "/api/alerts", status(502), 200, "", 1, 1},
		{"a read when the answer is 503", "GET", "/api/alerts", status(503), 200, "", 1, 1},
		{"a read when the answer is 504", "GET", "/api/alerts", status(504), 200, "", 1, 1},
		{"no write when the answer is 503", "POST", "/api/machines/m1/isolate", status(503), 503, "", 1, 0},
		{"no read when the answer is 429", "GET", "/api/alerts", status(429, "Retry-After", "9"), 429, "", 1, 0},
		{"no read when the answer is 500", "GET", "/api/alerts", status(500), 500, "", 1, 0},
		{"no read when the answer is 403", "GET", "/api/alerts", status(403), 403, "", 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{})
			if c.first == nil {
				w.regions[0].server.Close()
			} else {
				w.regions[0].answer(c.first)
			}
			body := ""
			if c.method == "POST" {
				body = `{"Comment":"x"}`
			}
			got := w.do(c.method, c.path, body)
			if got.status != c.status || got.code() != c.code {
				t.Errorf("got %d %q %s, want %d %q", got.status, got.code(), got.body, c.status, c.code)
			}
			if n := len(w.regions[0].requests()); n != c.first1 {
				t.Errorf("the first region got %d requests, want %d", n, c.first1)
			}
			next := w.regions[1].requests()
			if len(next) != c.next1 {
				t.Errorf("the next region got %d requests, want %d", len(next), c.next1)
			}
			if len(next) > 0 && (next[0].body != body || next[0].method != c.method || next[0].target != c.path) {
				t.Errorf("the next region got %+v", next[0])
			}
			if got.status == 429 && got.header.Get("Retry-After") != "9" {
				t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
			}
		})
	}
}

func TestABodyThatHasBegunToStreamIsNotSentAgain(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].answer(reset)
	if got := w.do("GET", "/api/alerts", strings.Repeat("x", maxKept+1)); got.code() != "RegionUnavailable" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if n := len(w.regions[1].requests()); n != 0 {
		t.Errorf("the next region got %d requests", n)
	}
	closed := newWorld(t, options{})
	closed.regions[0].server.Close()
	if got := closed.do("POST", "/api/indicators", strings.Repeat("x", maxKept+1)); got.status != 200 {
		t.Errorf("a stream that had not begun gives %d %s", got.status, got.body)
	}
}

func TestARefusedTokenIsRenewedOnce(t *testing.T) {
	w := newWorld(t, options{})
	var calls atomic.Int32
	w.regions[0].answer(func(rw http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.Header.Get("Authorization") == "Bearer "+w.entra.tokens()[0] {
			rw.Header().Set("WWW-Authenticate", "Bearer")
			rw.WriteHeader(401)
			return
		}
		_, _ = io.WriteString(rw, "fresh")
	})
	if got := w.do("POST", "/api/machines/m1/isolate", `{"Comment":"x"}`); got.status != 200 || got.body != "fresh" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if calls.Load() != 2 || len(w.entra.tokens()) != 2 {
		t.Errorf("%d requests, %d tokens, want 2 and 2", calls.Load(), len(w.entra.tokens()))
	}
	if up := w.regions[0].requests(); up[0].body != up[1].body {
		t.Errorf("the bodies differ: %+v", up)
	}
	if rec := w.lines(2)[1]; rec["attempts"] != 2.0 || rec["token_uti"] != "uti-1" {
		t.Errorf("the record is %v", rec)
	}
}

// A caller without a patience of its own does not wait for ever behind tenants
// whose Entra ID hangs.
func TestTheWaitForATokenIsBounded(t *testing.T) {
	w := newWorld(t, options{})
	w.proxy.longestWait = 50 * time.Millisecond
	w.entra.set(func(e *entra) { e.hangs = make(chan struct{}) })
	defer w.entra.set(func(e *entra) { close(e.hangs) })
	got := w.do("GET", "/api/alerts", "")
	if got.status != 503 || got.code() != "TokenUnavailable" || !strings.Contains(got.body, "has not come yet") || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s %v", got.status, got.body, got.header)
	}
	if n := len(w.regions[0].requests()); n != 0 {
		t.Errorf("%d requests went out without a token", n)
	}
}

// A token that continuous access evaluation has ended is replaced by one that is
// asked for with the claims that the API named.
func TestAClaimsChallengeIsAnsweredAndTheRequestRepeatedOnce(t *testing.T) {
	const claims = `{"access_token":{"nbf":{"essential":true,"value":"1763722800"}}}`
	w := newWorld(t, options{})
	w.regions[0].answer(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+w.entra.tokens()[0] {
			rw.Header().Set("WWW-Authenticate", `Bearer realm="", authorization_uri="https://login.example/authorize", error="insufficient_claims", claims="`+base64.StdEncoding.EncodeToString([]byte(claims))+`"`)
			rw.WriteHeader(401)
			return
		}
		_, _ = io.WriteString(rw, "fresh")
	})
	if got := w.do("POST", "/api/machines/m1/isolate", `{"Comment":"x"}`); got.status != 200 || got.body != "fresh" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	w.entra.set(func(e *entra) {
		if len(e.claims) != 2 || e.claims[0] != "" || e.claims[1] != claims {
			t.Errorf("the tokens were asked for with the claims %q", e.claims)
		}
	})
}

// The identity endpoint of a machine hands out one token until it is nearly
// dead: sending it again would gain nothing.
func TestARefusedTokenThatCannotBeReplacedIsNotSentAgain(t *testing.T) {
	w := newWorld(t, options{})
	w.entra.set(func(e *entra) { e.same = true })
	w.regions[0].answer(status(401))
	if got := w.do("GET", "/api/alerts", ""); got.status != 401 {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if n := len(w.regions[0].requests()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// The token was revoked and the secret is wrong by now: a bare 401 would tell
// nobody what to do.
func TestA401WithoutAnotherTokenSaysWhyThereIsNone(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].answer(status(401))
	w.do("GET", "/-/whoami", "") // gets the first token
	w.entra.set(func(e *entra) { e.refuses = true })
	got := w.do("GET", "/api/alerts", "")
	if got.status != 503 || got.code() != "TokenUnavailable" || !strings.Contains(got.body, "AADSTS7000215") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if n := len(w.regions[0].requests()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestA401ThatStaysIsMicrosoftsAnswer(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].answer(status(401, "WWW-Authenticate", "Bearer", "Content-Type", "application/json"))
	got := w.do("GET", "/api/alerts", "")
	if got.status != 401 || got.body != "status 401" || got.header.Get("WWW-Authenticate") != "" {
		t.Errorf("got %d %s %v", got.status, got.body, got.header)
	}
	if n := len(w.regions[0].requests()); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

func TestANewTokenThatPermitsLessIsNotUsed(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].answer(status(401))
	w.do("GET", "/-/whoami", "") // gets the first token
	w.entra.set(func(e *entra) { e.roles = []string{"Machine.Read.All"} })
	if got := w.do("GET", "/api/alerts", ""); got.status != 401 {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if n := len(w.regions[0].requests()); n != 1 {
		t.Errorf("%d requests went out, want 1: the second token does not permit it", n)
	}
}

func TestAnAnswerThatBreaksOffDoesNotLookComplete(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"within its length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, strings.Repeat("x", 70000))
			_ = http.NewResponseController(w).Flush()
			reset(w, r)
		},
		"within its chunks": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", 70000))
			_ = http.NewResponseController(w).Flush()
			reset(w, r)
		},
		"in JSON": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"value":["`+strings.Repeat("x", 70000))
			_ = http.NewResponseController(w).Flush()
			reset(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			w.regions[0].answer(h)
			got := w.do("GET", "/api/alerts", "")
			if got.status != 200 || got.err == nil {
				t.Errorf("got %d, %d bytes, error %v; want an error", got.status, len(got.body), got.err)
			}
			if rec := w.lines(1)[0]; rec["code"] != string(InvalidAnswer) {
				t.Errorf("the record is %v", rec)
			}
		})
	}
	t.Run("before any of it went out", func(t *testing.T) {
		w := newWorld(t, options{})
		w.regions[0].answer(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"value":[`)
			_ = http.NewResponseController(w).Flush()
			reset(w, r)
		})
		if got := w.do("GET", "/api/alerts", ""); got.code() != "InvalidAnswer" || got.status != 502 {
			t.Errorf("got %d %s", got.status, got.body)
		}
	})
}

func TestAnAnswerThatStallsIsEnded(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.FirstByteTimeout = 200 * time.Millisecond }})
	w.regions[0].answer(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	got := w.do("GET", "/api/alerts", "")
	if got.err == nil || !strings.HasPrefix(got.body, "begun") {
		t.Errorf("got %d %q, error %v", got.status, got.body, got.err)
	}
}

func TestALongAnswerThatGoesOnIsNotEnded(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.FirstByteTimeout = 400 * time.Millisecond }})
	w.regions[0].answer(func(w http.ResponseWriter, r *http.Request) {
		for range 8 {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	})
	if got := w.do("GET", "/api/alerts", ""); got.err != nil || got.body != "xxxxxxxx" {
		t.Errorf("got %d %q, error %v", got.status, got.body, got.err)
	}
}

func TestAnswersStreamAsTheyCome(t *testing.T) {
	w := newWorld(t, options{})
	next := make(chan struct{})
	w.regions[0].answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, piece := range []string{`{"value":[1,`, `2]}`} {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-time.After(10 * time.Second):
			}
		}
	})
	resp, err := http.Get(w.server.URL + "/api/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 100)
	n, err := io.ReadAtLeast(resp.Body, b, len(`{"value":[1,`))
	if err != nil || string(b[:n]) != `{"value":[1,` {
		t.Fatalf("the first piece is %q, %v", b[:n], err)
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != `2]}` {
		t.Errorf("the rest is %q, %v", rest, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestBodiesStreamUpAsTheyCome(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.RequestBytes = 8 << 20 }})
	seen := make(chan int, 100)
	w.regions[0].server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(b)
			if n > 0 {
				select {
				case seen <- n:
				default:
				}
			}
			if err != nil {
				return
			}
		}
	})
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(mustRequest(t, "POST", w.server.URL+"/api/indicators", pr))
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	if _, err := pw.Write(make([]byte, maxKept+1)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-seen: // while the caller has not finished
	case <-time.After(10 * time.Second):
		t.Fatal("nothing reaches upstream before the body has ended")
	}
	pw.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func mustRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestUnsolicitedSwitchingOfProtocolsEndsTheExchange(t *testing.T) {
	w := newWorld(t, options{})
	for _, r := range w.regions {
		r.answer(func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			_, _ = bufio.NewReader(c).ReadByte()
		})
	}
	got := w.do("GET", "/api/alerts", "", "Connection", "Upgrade", "Upgrade", "websocket")
	if got.status != 502 || got.code() != "InvalidAnswer" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestEarlyAnswersAreNotPassedOnAndAFloodOfThemEndsTheExchange(t *testing.T) {
	for _, c := range []struct {
		early, status int
		code          string
	}{{1, 200, ""}, {maxEarly, 200, ""}, {maxEarly + 1, 502, "InvalidAnswer"}, {1000, 502, "InvalidAnswer"}} {
		w := newWorld(t, options{})
		for _, r := range w.regions {
			r.answer(func(w http.ResponseWriter, _ *http.Request) {
				c2, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer c2.Close()
				for range c.early {
					if _, err := io.WriteString(c2, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"); err != nil {
						return
					}
				}
				_, _ = io.WriteString(c2, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
			})
		}
		if got := w.do("GET", "/api/alerts", ""); got.status != c.status || got.code() != c.code {
			t.Errorf("%d early answers give %d %s", c.early, got.status, got.body)
		}
	}
}

func TestUpstreamThatIsNotHTTPOrHasHugeHeaders(t *testing.T) {
	for name, bytes := range map[string]string{
		"nonsense":     "\x00\x01\x02 nonsense\r\n\r\n",
		"huge headers": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 12<<20) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			for _, r := range w.regions {
				r.answer(func(w http.ResponseWriter, _ *http.Request) {
					c, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						return
					}
					defer c.Close()
					_, _ = io.WriteString(c, bytes)
				})
			}
			if got := w.do("GET", "/api/alerts", ""); got.code() != "RegionUnavailable" {
				t.Errorf("got %d %.300s", got.status, got.body)
			}
		})
	}
}

func TestOneBeyondTheLimitIsRefusedAndTheOthersAreServed(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.InFlight = 2 }})
	release := make(chan struct{})
	w.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, "late")
	})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if got := w.do("GET", "/api/alerts", ""); got.body != "late" {
				t.Errorf("one within the limit gets %d %s", got.status, got.body)
			}
		})
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(w.regions[0].requests()) < 2 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if got := w.do("GET", "/api/alerts", ""); got.code() != "Overloaded" {
		t.Errorf("one beyond the limit gets %d %s", got.status, got.body)
	}
	close(release)
	wg.Wait()
	w.regions[0].answer(nil)
	if got := w.do("GET", "/api/alerts", ""); got.status != 200 {
		t.Errorf("afterwards: %d %s", got.status, got.body)
	}
}

// A connection idles for longer than a body or answer may pause, and serves on:
// no deadline of one request is left standing for the next.
func TestDeadlinesDoNotOutliveTheirRequest(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.BodyIdle = 150 * time.Millisecond }})
	c, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for i := range 3 {
		_, _ = io.WriteString(c, "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i+1, err)
		}
		if got := readReply(t, resp); got.status != 200 {
			t.Fatalf("request %d: %d %s", i+1, got.status, got.body)
		}
		time.Sleep(250 * time.Millisecond)
	}
	w.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(400 * time.Millisecond) // longer than a body may pause
		_, _ = io.WriteString(w, "late")
	})
	_, _ = io.WriteString(c, "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := readReply(t, resp); got.body != "late" {
		t.Errorf("a slow answer gives %d %s", got.status, got.body)
	}
}
