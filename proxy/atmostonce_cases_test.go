package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// manner is how a region treats a connection; nil is to serve it well.
type manner func(*upstreamConn)

// served answers the next request well, and reports whether there was one.
func served(u *upstreamConn) bool {
	r, s, _, err := u.next()
	if err != nil || drain(r) != nil {
		return false
	}
	if s.id == "" {
		u.send(s, 401, answerText(r, s, 401, "", ""))
	} else {
		u.answer(r, s, 200, "")
	}
	u.done()
	return true
}

func well(u *upstreamConn) {
	for served(u) {
	}
}

// first does something with the first request of the world's that is no probe,
// and serves others well.
func first(f func(u *upstreamConn, r *http.Request, s *sighting)) manner {
	var once sync.Once
	return func(u *upstreamConn) {
		for {
			r, s, _, err := u.next()
			if err != nil {
				return
			}
			mine := false
			if s.id != "" {
				once.Do(func() { mine = true })
			}
			if mine {
				f(u, r, s)
				return
			}
			if drain(r) != nil {
				return
			}
			u.answer(r, s, 200, "")
			u.done()
		}
	}
}

// replies answers the first requests with these, a status and header lines each,
// and serves what follows well. after is what each answer takes.
func replies(after time.Duration, answers ...string) manner {
	var mu sync.Mutex
	return func(u *upstreamConn) {
		for {
			r, s, _, err := u.next()
			if err != nil || drain(r) != nil {
				return
			}
			mu.Lock()
			answer := "200 "
			if len(answers) > 0 {
				answer, answers = answers[0], answers[1:]
			}
			mu.Unlock()
			time.Sleep(after)
			var status int
			code, header, _ := strings.Cut(answer, " ")
			_, _ = fmt.Sscan(code, &status)
			u.answer(r, s, status, header)
			if strings.Contains(header, "close") {
				return
			}
			u.done()
		}
	}
}

// kept serves the first request of the first connection well, which is the one
// before the case's, and then does something at a time after the start.
func kept(at time.Duration, f func(*upstreamConn)) manner {
	return func(u *upstreamConn) {
		if u.number > 1 {
			well(u)
			return
		}
		if served(u) {
			time.Sleep(at - time.Since(u.region.witness.start))
			f(u)
		}
	}
}

func ending(how string) func(*upstreamConn) { return func(u *upstreamConn) { u.finish(how) } }

func hang(u *upstreamConn, r *http.Request, _ *sighting) {
	_ = drain(r)
	u.left()
}

func deafness(u *upstreamConn) { u.left() }

// The request of a case begins at a second, and its way to a region takes so long.
const (
	caseBegins  = time.Second
	caseLatency = 10 * time.Millisecond
)

const mayHave = "may have been carried out"

func TestWritesMeetConnectionsThatDie(t *testing.T) {
	refused := func() fate { return fate{latency: caseLatency, refused: true} }
	unanswered := func() fate { return fate{latency: caseLatency, silent: true} }
	for _, c := range []struct {
		name    string
		call    call
		kept    int // reads that go before at once, and leave connections to the first region
		monitor bool
		hunting bool // is repeated
		manners [3]manner
		fates   [3]func() fate
		status  []int  // any of them
		says    string // in the answer
		arrived [3]int // at each region, were it a single byte
		most    time.Duration
	}{
		{
			name: "a write goes out on a new connection when the kept one was closed before",
			call: call{kind: isolate, size: 50}, kept: 1, manners: [3]manner{kept(caseBegins/2, ending(byClosing))},
			status: []int{200}, arrived: [3]int{1},
		},
		{
			name: "a write goes out on a new connection when the kept one was reset before",
			call: call{kind: isolate, size: 50}, kept: 1, manners: [3]manner{kept(caseBegins/2, ending(byReset))},
			status: []int{200}, arrived: [3]int{1},
		},
		{
			name: "a write is not sent again when the end of the kept connection crosses it",
			call: call{kind: isolate, size: 50}, kept: 1, manners: [3]manner{kept(caseBegins-caseLatency/2, ending(byClosing))},
			status: []int{502}, says: mayHave,
		},
		{
			name: "a deletion without a body is not sent again when the end of the kept connection crosses it",
			call: call{kind: remove}, kept: 1, manners: [3]manner{kept(caseBegins-caseLatency/2, ending(byClosing))},
			status: []int{502}, says: mayHave,
		},
		{
			name: "a read is sent again when the end of the kept connection crosses it",
			call: call{kind: read}, kept: 1, manners: [3]manner{kept(caseBegins-caseLatency/2, ending(byClosing))},
			status: []int{200}, arrived: [3]int{1},
		},
		{
			name: "a write is not sent again when the kept connection dies with it",
			call: call{kind: update, size: 50}, kept: 1, manners: [3]manner{kept(caseBegins+2*caseLatency, ending(byReset))},
			status: []int{502}, says: mayHave, arrived: [3]int{1},
		},
		{
			name: "a deletion is not sent again when the kept connection dies with it",
			call: call{kind: remove}, kept: 1, manners: [3]manner{kept(caseBegins+2*caseLatency, ending(byClosing))},
			status: []int{502}, says: mayHave, arrived: [3]int{1},
		},
		{
			name: "a write with a key that net/http takes for leave to repeat it is not sent again",
			call: call{kind: isolate, size: 50, more: "Idempotency-Key: 1\r\nX-Idempotency-Key: 1\r\n"}, kept: 1,
			manners: [3]manner{kept(caseBegins+2*caseLatency, ending(byReset))},
			status:  []int{502}, says: mayHave, arrived: [3]int{1},
		},
		{
			name: "a write is not sent again when five bytes of it were read",
			call: call{kind: isolate, size: 50}, manners: [3]manner{func(u *upstreamConn) {
				_, _ = io.ReadFull(u, make([]byte, 5))
				u.finish(byReset)
			}},
			status: []int{502}, says: mayHave, arrived: [3]int{1},
		},
		{
			name: "a write that meets a 408 for the idle connection is not sent again",
			call: call{kind: isolate, size: 50}, kept: 1, manners: [3]manner{kept(caseBegins-caseLatency/2, func(u *upstreamConn) {
				u.stray("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				u.finish(byClosing)
			})},
			status: []int{408, 502},
		},
		{
			name: "a write goes to the next region when the first refuses",
			call: call{kind: isolate, size: 50}, fates: [3]func() fate{refused}, status: []int{200}, arrived: [3]int{0, 1},
			most: 10 * caseLatency,
		},
		{
			name: "a write goes to the last region when the others do not answer",
			call: call{kind: remove}, fates: [3]func() fate{unanswered, unanswered}, status: []int{200}, arrived: [3]int{0, 0, 1},
			most: 11 * time.Second,
		},
		{
			name: "a write that no region can be reached for was not carried out",
			call: call{kind: update, size: 50}, fates: [3]func() fate{refused, unanswered, refused}, status: []int{502, 504}, says: "No region",
		},
		{
			name: "a stream goes to the next region when there is no connection to the first",
			call: call{kind: upload, size: maxKept + 1}, fates: [3]func() fate{unanswered}, status: []int{200}, arrived: [3]int{0, 1},
		},
		{
			name: "a stream is not sent again when its connection dies halfway",
			call: call{kind: upload, size: maxKept + 1}, manners: [3]manner{first(func(u *upstreamConn, r *http.Request, _ *sighting) {
				_, _ = io.CopyN(io.Discard, r.Body, 100<<10)
				u.finish(byReset)
			})},
			status: []int{502}, says: mayHave, arrived: [3]int{1},
		},
		{
			name: "a caller that has sent its body in time is not blamed for a region that takes its time",
			call: call{kind: upload, size: maxKept + 64<<10}, manners: [3]manner{first(func(u *upstreamConn, r *http.Request, s *sighting) {
				for range 16 {
					time.Sleep(5 * time.Second)
					_, _ = io.CopyN(io.Discard, r.Body, 20<<10)
				}
				u.answer(r, s, 200, "")
			})},
			status: []int{200}, arrived: [3]int{1},
		},
		{
			name: "an answer that comes before the body is read counts, if it comes",
			call: call{kind: upload, size: maxKept + 1}, manners: [3]manner{first(func(u *upstreamConn, r *http.Request, s *sighting) {
				u.answer(r, s, 413, "Connection: close\r\n")
				u.finish(byClosing)
			})},
			status: []int{413, 502}, arrived: [3]int{1},
		},
		{
			name: "a write is not sent again when the region hangs",
			call: call{kind: isolate, size: 50}, manners: [3]manner{first(hang)}, status: []int{504}, says: mayHave, arrived: [3]int{1},
			most: 31 * time.Second,
		},
		{
			name: "a write is not sent again when the region accepts and reads nothing",
			call: call{kind: isolate, size: 50}, manners: [3]manner{deafness}, status: []int{504}, says: mayHave, arrived: [3]int{1},
			most: 31 * time.Second,
		},
		{
			name: "a write that is answered 401 is sent once more, and no more than that when its connection dies",
			call: call{kind: isolate, size: 50}, manners: [3]manner{func(u *upstreamConn) {
				r, s, _, err := u.next()
				if err != nil || drain(r) != nil {
					return
				}
				u.answer(r, s, 401, "")
				u.done()
				if _, _, _, err := u.next(); err == nil {
					u.finish(byReset)
				}
			}},
			status: []int{502}, says: mayHave, arrived: [3]int{2},
		},
		{
			name: "a stream that is answered 401 is not sent again",
			call: call{kind: upload, size: maxKept + 1}, manners: [3]manner{replies(0, "401 ")}, status: []int{401}, arrived: [3]int{1},
		},
		{
			name: "a write that is throttled is not sent again",
			call: call{kind: isolate, size: 50}, manners: [3]manner{replies(0, "429 Retry-After: 0\r\n")}, status: []int{429}, arrived: [3]int{1},
			most: time.Second / 2,
		},
		{
			name: "a write that is answered 503 is not sent again",
			call: call{kind: remove}, manners: [3]manner{replies(0, "503 Retry-After: 0\r\n")}, status: []int{503}, arrived: [3]int{1},
			most: time.Second / 2,
		},
		{
			name: "a write is not sent again after early answers",
			call: call{kind: isolate, size: 50}, manners: [3]manner{first(func(u *upstreamConn, r *http.Request, s *sighting) {
				u.send(s, 0, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
				u.finish(byReset)
			})},
			status: []int{502}, says: mayHave, arrived: [3]int{1},
		},
		{
			name: "a write is not sent again after a switch of protocols",
			call: call{kind: isolate, size: 50}, manners: [3]manner{first(func(u *upstreamConn, r *http.Request, s *sighting) {
				u.send(s, 0, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
				u.left()
			})},
			status: []int{502}, says: mayHave, arrived: [3]int{1},
		},
		{
			name: "a write whose answer breaks off is not sent again, and nobody is asked to",
			call: call{kind: isolate, size: 50}, manners: [3]manner{first(func(u *upstreamConn, r *http.Request, s *sighting) {
				_ = drain(r)
				u.send(s, 201, strings.TrimSuffix(answerText(r, s, 201, "", `{"id":"1"}`), `"}`))
				u.finish(byClosing)
			})},
			status: []int{502}, says: "broke off", arrived: [3]int{1},
		},
		{
			name: "a refusal in the place of an answer has none of its headers",
			call: call{kind: read}, manners: [3]manner{first(func(u *upstreamConn, r *http.Request, s *sighting) {
				u.send(s, 200, strings.TrimSuffix(answerText(r, s, 200, "Content-Type: text/plain\r\nEtag: 1\r\n", "answer"), "answer"))
				u.finish(byClosing)
			})},
			status: []int{502}, says: "broke off", arrived: [3]int{1},
		},
		{
			name: "a write whose caller leaves while there is no connection goes nowhere",
			call: call{kind: isolate, size: 50, leaves: time.Second}, fates: [3]func() fate{unanswered}, status: []int{0},
		},
		{
			name: "a write whose caller leaves while it waits is not sent again, and ended there",
			call: call{kind: isolate, size: 50, leaves: time.Second}, manners: [3]manner{first(func(u *upstreamConn, _ *http.Request, _ *sighting) {
				if u.left(); time.Since(u.region.witness.start) > caseBegins+time.Second+2*caseLatency {
					panic("the connection goes on when the caller has left")
				}
			})},
			status: []int{0}, arrived: [3]int{1},
		},
		{
			name: "a read whose caller leaves while it is patient is not sent again",
			call: call{kind: read, leaves: time.Second}, manners: [3]manner{replies(0, "429 Retry-After: 2\r\n")}, status: []int{0}, arrived: [3]int{1},
		},
		{
			name: "a hunting query is not sent again when the region hangs",
			call: call{kind: hunt, size: 50}, manners: [3]manner{first(hang)}, status: []int{504}, says: "may have run", arrived: [3]int{1},
		},
		{
			name: "a hunting query is sent again when the region hangs and the operator says so",
			call: call{kind: hunt, size: 50}, hunting: true, manners: [3]manner{first(hang)}, status: []int{200}, arrived: [3]int{1, 1},
		},
		{
			name: "a hunting query waits out a throttle in the same region",
			call: call{kind: hunt, size: 50}, manners: [3]manner{replies(0, "429 Retry-After: 1\r\n")}, status: []int{200}, arrived: [3]int{2},
			most: 2 * time.Second,
		},
		{
			name: "a query that is throttled slowly is answered while its caller can be told",
			call: call{kind: hunt, size: 50}, manners: [3]manner{replies(29*time.Second, "429 Retry-After: 1\r\n", "429 Retry-After: 1\r\n", "429 Retry-After: 1\r\n")},
			status: []int{200, 429}, arrived: [3]int{-1},
		},
		{
			name: "a read leaves a region that answers 503 and does not come to its end",
			call: call{kind: read}, manners: [3]manner{first(func(u *upstreamConn, r *http.Request, s *sighting) {
				u.send(s, 503, strings.TrimSuffix(answerText(r, s, 503, "", "unwell"), "l"))
				u.left()
			})},
			status: []int{200}, arrived: [3]int{1, 1}, most: 5 * time.Second,
		},
		{
			name: "a query whose three regions hang is answered while its caller can be told",
			call: call{kind: hunt, size: 50}, hunting: true, manners: [3]manner{first(hang), first(hang), first(hang)},
			status: []int{504}, arrived: [3]int{-1, -1, -1},
		},
		{
			name: "a read does not go round all the connections that a region has kept",
			call: call{kind: read}, kept: 8, manners: [3]manner{func(u *upstreamConn) {
				for {
					r, s, _, err := u.next()
					if err != nil {
						return
					}
					if s.id == idPrefix+"0000" {
						time.Sleep(10 * time.Second)
						return
					}
					time.Sleep(100 * time.Millisecond) // so that each needs one of its own
					u.answer(r, s, 200, "")
					u.done()
				}
			}},
			status: []int{200}, arrived: [3]int{maxSent, 1}, most: maxSent*10*time.Second + time.Second,
		},
		{
			name: "a write waits on for a region that nobody can reach any more",
			call: call{kind: isolate, size: 50}, monitor: true, manners: [3]manner{lostFor(20 * time.Second)}, status: []int{200}, arrived: [3]int{1},
			most: 21 * time.Second,
		},
		{
			name: "a read does not wait on for a region that nobody can reach any more",
			call: call{kind: read}, monitor: true, manners: [3]manner{lostFor(20 * time.Second)}, status: []int{200}, arrived: [3]int{1, 1},
			most: 15 * time.Second,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &schedule{hunting: c.hunting, monitor: c.monitor, maxWait: 4 * time.Second}
				s.world = newFakeWorld(t, fakeOptions{monitor: c.monitor, serve: well, deps: func(d *Deps) {
					d.RepeatHunting = c.hunting
					d.ForwardHeaders = []string{"Idempotency-Key", "X-Idempotency-Key"}
				}})
				w := s.world
				for i, r := range w.regions {
					r.net.fate = func() fate { return fate{latency: caseLatency} }
					if c.fates[i] != nil {
						r.net.fate = c.fates[i]
					}
					if c.manners[i] != nil {
						r.serve = c.manners[i]
					}
				}
				w.start()
				var before sync.WaitGroup
				for i := range c.kept {
					one := &call{id: fmt.Sprintf("%s%04d", idPrefix, 1+i), kind: read}
					s.calls = append(s.calls, one)
					before.Go(func() { w.call(one) })
				}
				before.Wait()
				got := c.call
				got.id, got.at = idPrefix+"0000", caseBegins-time.Since(w.witness.start)
				s.calls = append(s.calls, &got)
				w.call(&got)
				for _, left := range w.close() {
					t.Errorf("the connection %s is still open in the end", left)
				}
				for _, wrong := range s.judge() {
					t.Error(wrong)
				}
				if !slices.Contains(c.status, got.status) || !strings.Contains(got.body, c.says) {
					t.Errorf("the caller is told %d %s, %v; want one of %v, %q", got.status, got.body, got.err, c.status, c.says)
				}
				if took := got.ended.Sub(got.began); c.most > 0 && took > c.most {
					t.Errorf("it took %v, want at most %v", took, c.most)
				}
				for i, r := range w.regions {
					n := 0
					for _, id := range []string{got.id, ""} {
						for _, seen := range w.witness.of(id) {
							if seen.region == r.name && !strings.HasPrefix(seen.words, "HEAD /api/ ") {
								n++
							}
						}
					}
					if n != c.arrived[i] && c.arrived[i] >= 0 {
						t.Errorf("it arrived %d times at %s, want %d", n, r.name, c.arrived[i])
					}
				}
				if t.Failed() {
					t.Log(w.witness.journal())
				}
			})
		})
	}
}

// lostFor answers a request after a while, and no probe meanwhile.
func lostFor(d time.Duration) manner {
	var mu sync.Mutex
	var until time.Time
	return func(u *upstreamConn) {
		for {
			r, s, _, err := u.next()
			if err != nil || drain(r) != nil {
				return
			}
			mu.Lock()
			if s.id != "" && until.IsZero() {
				until = time.Now().Add(d)
			}
			back := until
			mu.Unlock()
			switch {
			case s.id != "":
				time.Sleep(time.Until(back))
				u.answer(r, s, 200, "")
			case time.Now().Before(back):
				u.left()
				return
			default:
				u.send(s, 401, answerText(r, s, 401, "", ""))
			}
			u.done()
		}
	}
}

// An outage is not answered with a multiple of the load.
func TestRepeatsAreAShareOfTheRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const reads = 500
		w := newFakeWorld(t, fakeOptions{monitor: true, limits: func(l *Limits) { l.InFlight = reads }, serve: func(u *upstreamConn) {
			for {
				r, s, _, err := u.next()
				if err != nil {
					return
				}
				u.answer(r, s, 503, "")
				u.done()
			}
		}})
		for _, r := range w.regions {
			r.net.fate = func() fate { return fate{latency: caseLatency} }
		}
		w.start()
		time.Sleep(time.Minute)
		var calling sync.WaitGroup
		var calls []*call
		for i := range reads {
			c := &call{id: fmt.Sprintf("%s%04d", idPrefix, i), kind: read, at: time.Duration(i) * time.Millisecond}
			calls = append(calls, c)
			calling.Go(func() { w.call(c) })
		}
		calling.Wait()
		w.close()
		arrived := 0
		for _, c := range calls {
			if c.status != 503 {
				t.Errorf("%s is told %d %v", c.id, c.status, c.err)
			}
			arrived += len(w.witness.of(c.id)) - w.attempts.again[c.id]
		}
		// A fifth of them, what a quiet proxy has, and a second's worth.
		if most := reads + reads/5 + 10 + 2; arrived > most || arrived <= reads {
			t.Errorf("%d reads arrived %d times, want at most %d and some repeats", reads, arrived, most)
		}
	})
}
