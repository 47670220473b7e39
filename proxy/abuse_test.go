package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"defender-proxy/regions"
)

// dial opens a connection to the listener that gives up after a while.
func (w *world) dial() *net.TCPConn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	return c.(*net.TCPConn)
}

// The transport goes on reading a body after an early answer; what it did to
// the connection of a finished HTTP/2 stream ended the process.
func TestAnEarlyAnswerToABodyOverHTTP2EndsTheExchangeOnly(t *testing.T) {
	w := newWorld(t, options{tls: true})
	w.regions[0].server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(400)
		_ = http.NewResponseController(rw).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	for range 5 {
		pr, pw := io.Pipe()
		req := mustRequest(t, "POST", w.server.URL+"/api/advancedqueries/run", pr)
		req.ContentLength = 400 << 10
		client := w.server.Client()
		go func() {
			_, _ = pw.Write(make([]byte, 300<<10))
			time.Sleep(50 * time.Millisecond)
			_, _ = pw.Write(make([]byte, 100<<10))
			pw.Close()
		}()
		resp, err := client.Do(req)
		if err != nil {
			continue // the stream may be reset; the process has to live
		}
		if resp.ProtoMajor != 2 || resp.StatusCode != 400 {
			t.Errorf("got HTTP/%d status %d", resp.ProtoMajor, resp.StatusCode)
		}
		resp.Body.Close()
	}
	time.Sleep(100 * time.Millisecond)
	resp, err := w.server.Client().Get(w.server.URL + "/-/operations")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("the next request: %v, %v", resp, err)
	}
	resp.Body.Close()
	w.server.Client().CloseIdleConnections()
}

func TestABodyThatNobodyWantsIsNotWaitedFor(t *testing.T) {
	w := newWorld(t, options{})
	for name, request := range map[string]string{
		"a refusal":                 "POST /nope HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n",
		"a refusal by the host":     "POST /api/alerts HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 10\r\n\r\n",
		"a refusal of a large body": "POST /nope HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 300000\r\n\r\n",
		"a page":                    "GET /-/operations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n",
		"chunks":                    "POST /nope HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := w.dial()
			_, _ = io.WriteString(c, request)
			began := time.Now()
			if _, err := io.ReadAll(c); err != nil {
				t.Fatalf("the connection is still open: %v", err)
			}
			if took := time.Since(began); took > 3*drainTime {
				t.Errorf("the connection was held for %v", took)
			}
		})
	}
}

func TestABodyThatDripsIsEnded(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.BodyIdle = 300 * time.Millisecond }})
	c := w.dial()
	_, _ = io.WriteString(c, "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 200000\r\n\r\n")
	ended := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(c)
		ended <- string(b)
	}()
	for {
		select {
		case got := <-ended:
			if !strings.HasPrefix(got, "HTTP/1.1 408") {
				t.Errorf("got %q", got)
			}
			return
		case <-time.After(50 * time.Millisecond):
			_, _ = c.Write([]byte("x"))
		}
	}
}

func TestAnHonestSlowUploadSucceeds(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.BodyIdle = 300 * time.Millisecond }})
	c := w.dial()
	_, _ = io.WriteString(c, "POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n")
	for range 10 { // 100 kB/s
		_, _ = c.Write(bytes.Repeat([]byte("x"), 10_000))
		time.Sleep(100 * time.Millisecond)
	}
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestALargeBodyMayBeAnsweredLate(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.BodyIdle = 300 * time.Millisecond }})
	w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		for range 4 {
			_, _ = io.WriteString(rw, "x")
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(200 * time.Millisecond)
		}
	})
	for _, size := range []int{1000, maxKept + 1000} {
		if got := w.do("POST", "/api/indicators", strings.Repeat("x", size)); got.status != 200 || got.body != "xxxx" || got.err != nil {
			t.Errorf("%d bytes: got %d %q, %v", size, got.status, got.body, got.err)
		}
	}
}

func TestASlowUploadIsNoSlowAnswer(t *testing.T) {
	for _, tls := range []bool{false, true} {
		w := newWorld(t, options{tls: tls, limits: func(l *Limits) { l.FirstByteTimeout = 600 * time.Millisecond }})
		pr, pw := io.Pipe()
		go func() {
			for range 8 {
				_, _ = pw.Write(make([]byte, 50_000))
				time.Sleep(200 * time.Millisecond)
			}
			pw.Close()
		}()
		req := mustRequest(t, "POST", w.server.URL+"/api/indicators", pr)
		req.ContentLength = 400_000
		client := w.server.Client()
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := readReply(t, resp); got.status != 200 || len(w.regions[0].requests()[0].body) != 400_000 {
			t.Errorf("HTTP/%d: got %d %s", resp.ProtoMajor, got.status, got.body)
		}
		client.CloseIdleConnections()
	}
}

func TestAStalledRecordDoesNotHarmTheNextRequest(t *testing.T) {
	w := newWorld(t, options{allow: []string{"read"}})
	w.records.mu.Lock()
	w.records.stall = drainTime + 300*time.Millisecond
	w.records.mu.Unlock()
	c := w.dial()
	r := bufio.NewReader(c)
	for i := range 2 {
		_, _ = io.WriteString(c, "GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i+1, err)
		}
		if got := readReply(t, resp); got.status != 200 {
			t.Fatalf("request %d: %d %s", i+1, got.status, got.body)
		}
	}
	for _, rec := range w.lines(2) {
		if rec["code"] != nil {
			t.Errorf("the record is %v", rec)
		}
	}
}

func TestAnEarlyAnswerToALargeChunkedBody(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 1000))
		rw.WriteHeader(422)
	})
	for range 3 {
		c := w.dial()
		_, _ = io.WriteString(c, "POST /api/advancedqueries/run HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
		go func() {
			for range 20 {
				if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", 30_000, strings.Repeat("x", 30_000)); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := readReply(t, resp); got.status != 422 {
			t.Errorf("got %d %s", got.status, got.body)
		}
		c.Close()
	}
	for _, rec := range w.lines(3) {
		if rec["status"] != 422.0 {
			t.Errorf("the record is %v", rec)
		}
	}
}

func TestAPermissionThatIsLostWhileTheBodyComesIsRecordedAsRefused(t *testing.T) {
	w := newWorld(t, options{life: 2})
	c := w.dial()
	_, _ = io.WriteString(c, "POST /api/machines/m1/isolate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{")
	deadline := time.Now().Add(5 * time.Second)
	for len(w.entra.tokens()) == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	w.entra.set(func(e *entra) { e.roles = []string{"Alert.Read.All"} })
	time.Sleep(3500 * time.Millisecond)
	_, _ = io.WriteString(c, "}")
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 403") {
		t.Fatalf("got %q, %v", b, err)
	}
	if up := w.regions[0].requests(); len(up) > 0 {
		t.Errorf("upstream got %+v", up)
	}
	lines := w.lines(1)
	if len(lines) != 1 || lines[0]["decision"] != "refused" || lines[0]["code"] != "MissingPermission" || lines[0]["token_uti"] != nil {
		t.Errorf("the records are %v", lines)
	}
}

func TestATokenThatDiesWhileTheBodyComesIsNotSent(t *testing.T) {
	w := newWorld(t, options{life: 2})
	c := w.dial()
	_, _ = io.WriteString(c, "POST /api/machines/m1/isolate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{")
	time.Sleep(3500 * time.Millisecond)
	_, _ = io.WriteString(c, "}")
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
		t.Fatalf("got %q, %v", b, err)
	}
	issued := w.entra.tokens()
	if got := w.regions[0].requests()[0].header.Get("Authorization"); len(issued) < 2 || got == "Bearer "+issued[0] {
		t.Errorf("%d tokens were issued, and the first one went out: %v", len(issued), got == "Bearer "+issued[0])
	}
}

func TestACallerThatClosesItsSendingSideGetsNoMadeUpAnswer(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := w.dial()
	_, _ = io.WriteString(c, "POST /api/machines/m1/isolate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}")
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("got %q, %v", b, err)
	}
	if rec := w.lines(2)[1]; rec["code"] != string(clientGone) || rec["status"] != 499.0 {
		t.Errorf("the record is %v", rec)
	}
}

func TestACallerThatLeavesWithinTheAnswerIsNotMicrosoftsFault(t *testing.T) {
	w := newWorld(t, options{})
	left := make(chan struct{})
	w.regions[0].answer(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "begun")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
		close(left)
	})
	c := w.dial()
	_, _ = io.WriteString(c, "GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-left
	if rec := w.lines(1)[0]; rec["code"] != string(clientGone) || rec["status"] != 200.0 || rec["decision"] != "allowed" {
		t.Errorf("the record is %v", rec)
	}
}

func TestACallerThatDoesNotReadIsEnded(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.BodyIdle, l.FirstByteTimeout = 300*time.Millisecond, time.Minute }})
	gone := make(chan struct{})
	w.regions[0].answer(func(rw http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for {
			if _, err := rw.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	c := w.dial()
	_, _ = io.WriteString(c, "GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	select {
	case <-gone:
	case <-time.After(15 * time.Second):
		t.Fatal("upstream is still held")
	}
}

// An upstream that answers with what it was sent must not get the bearer into
// a log, a record or a page.
func TestAnUpstreamThatEchoesTheBearerDoesNotSpreadIt(t *testing.T) {
	for name, answer := range map[string]string{
		"as a header without a colon": "HTTP/1.1 200 OK\r\nauthorization %s\r\n\r\n",
		"as a status line":            "%s\r\n\r\n",
		"as a status":                 "HTTP/1.1 %s\r\n\r\n",
		"as a length":                 "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
		"as a transfer coding":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
		"as a chunk's length":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
		"as a header of its own":      "HTTP/1.1 200 OK\r\nX-Echo: %s\r\nContent-Length: 0\r\n\r\n",
		"as a redirect":               "HTTP/1.1 302 Found\r\nLocation: https://x/%s\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			for _, r := range w.regions {
				r.answer(func(rw http.ResponseWriter, req *http.Request) {
					c, _, err := http.NewResponseController(rw).Hijack()
					if err != nil {
						return
					}
					defer c.Close()
					fmt.Fprintf(c, answer, req.Header.Get("Authorization"))
				})
			}
			got := w.do("GET", "/api/alerts", "")
			if got.status != 502 && got.err == nil {
				t.Errorf("got %d %s", got.status, got.body)
			}
			w.lines(1)
			all := got.body + w.records.String() + w.log.String() + fmt.Sprint(w.proxy.Monitor.Snapshot()) + fmt.Sprint(got.header)
			for _, issued := range w.entra.tokens() {
				if i := strings.Index(all, issued[:40]); i >= 0 {
					t.Errorf("the bearer is in %q", all[max(0, i-200):i])
				}
			}
		})
	}
}

func TestManyHeaderFieldsCostLittle(t *testing.T) {
	w := newWorld(t, options{})
	var many strings.Builder
	for i := range maxFields + 1 {
		fmt.Fprintf(&many, "If-%d: x\r\n", i)
	}
	if got := w.raw("GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\n" + many.String() + "\r\n"); got.code() != "InvalidRequest" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	began := time.Now()
	got := w.raw("GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-Match: x\r\nConnection: close," + strings.Repeat("a,", 200_000) + "b\r\n\r\n")
	if took := time.Since(began); got.status != 200 || took > 2*time.Second {
		t.Errorf("got %d after %v", got.status, took)
	}
}

func TestAHostThatCannotStandInALinkIsRefusedBeforeAnythingIsSent(t *testing.T) {
	w := newWorld(t, options{})
	got := w.raw("POST /api/machines/m1/isolate HTTP/1.1\r\nHost: 127.0.0.1:x\r\nContent-Length: 2\r\n\r\n{}")
	if got.code() != "InvalidRequest" && got.code() != "HostNotAllowed" || len(w.regions[0].requests()) > 0 {
		t.Errorf("got %d %s, upstream %+v", got.status, got.body, w.regions[0].requests())
	}
}

func TestAStreamedBodyIsNotSentTwiceAfterAnAnswer(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 1000))
		rw.WriteHeader(503)
	})
	if got := w.do("GET", "/api/alerts", strings.Repeat("x", maxKept+100_000)); got.status != 503 || got.code() != "" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if n := len(w.regions[1].requests()); n != 0 {
		t.Errorf("the next region got %d requests", n)
	}
}

func TestNoRequestReachesMoreThanThreeRegions(t *testing.T) {
	names := []regions.Name{"us", "eu", "uk", "au", "swa"}
	for _, c := range []struct {
		name   string
		h      http.HandlerFunc
		status int
	}{{"503", status(503), 503}, {"a dead connection", reset, 502}} {
		w := newWorld(t, options{regions: names})
		for _, r := range w.regions {
			r.answer(c.h)
		}
		if got := w.do("GET", "/api/alerts", ""); got.status != c.status {
			t.Errorf("%s: got %d %s", c.name, got.status, got.body)
		}
		total := 0
		for _, r := range w.regions {
			total += len(r.requests())
		}
		if total != maxSent {
			t.Errorf("%s: %d regions were reached, want %d", c.name, total, maxSent)
		}
	}
	w := newWorld(t, options{regions: names})
	for _, r := range w.regions[:4] {
		r.server.Close()
	}
	if got := w.do("GET", "/api/alerts", ""); got.status != 200 {
		t.Errorf("four regions without a connection: %d %s", got.status, got.body)
	}
	if rec := w.lines(1)[0]; rec["attempts"] != 5.0 || fmt.Sprint(rec["tried"]) != "[us eu uk au swa]" {
		t.Errorf("the record is %v", rec)
	}
}

func TestAnAnswerWhoseEndNobodyCanTellIsRefused(t *testing.T) {
	w := newWorld(t, options{})
	for _, r := range w.regions {
		r.answer(func(rw http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"value\":[1,2")
			_ = c.(*tls.Conn).CloseWrite()
			c.Close()
		})
	}
	if got := w.do("GET", "/api/alerts", ""); got.code() != "InvalidAnswer" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestNoHeaderGivesLeaveToRepeatAWrite(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.ForwardHeaders = []string{"Idempotency-Key", "x-idempotency-key"} }})
	w.do("POST", "/api/indicators", "{}", "Idempotency-Key", "k", "X-Idempotency-Key", "k")
	if h := w.regions[0].requests()[0].header; h.Get("Idempotency-Key")+h.Get("X-Idempotency-Key") != "" {
		t.Errorf("upstream got %v", h)
	}
}

func TestRecordsHoldNoCredentialOfACaller(t *testing.T) {
	w := newWorld(t, options{})
	const canary = "canary-8842"
	for _, request := range []string{
		"GET /api/alerts?client_secret=" + canary + " HTTP/1.1\r\nHost: 127.0.0.1\r\n",
		"GET /api/alerts?client_secret=" + canary + "#x HTTP/1.1\r\nHost: 127.0.0.1\r\n",
		"GET /api/alerts#" + canary + " HTTP/1.1\r\nHost: 127.0.0.1\r\n",
		"GET http://user:" + canary + "@127.0.0.1/api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\n",
		"GET http://user:" + canary + "@evil.example/api/alerts HTTP/1.1\r\nHost: x\r\n",
		"GET /api/nothing?password=" + canary + " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + canary + "\r\nCookie: a=" + canary + "\r\n",
		"GET /api/..%2f?access_token=" + canary + " HTTP/1.1\r\nHost: 127.0.0.1\r\n",
		"CONNECT user:" + canary + "@x:443 HTTP/1.1\r\nHost: x\r\n",
	} {
		got := w.raw(request + "Connection: close\r\n\r\n")
		if strings.Contains(got.body, canary) && !strings.Contains(request, "CONNECT") {
			t.Errorf("%q is answered with it: %s", request, got.body)
		}
	}
	if all := w.records.String() + w.log.String(); strings.Contains(all, canary) {
		t.Errorf("the records hold it: %s", all)
	}
	for _, r := range w.regions {
		for _, a := range r.requests() {
			if strings.Contains(fmt.Sprint(a), canary) {
				t.Errorf("upstream got it: %+v", a)
			}
		}
	}
}
