package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// serve is a region's way with a connection.
func (s *schedule) serve(u *upstreamConn) {
	for n := 0; ; n++ {
		d := s.roll("connection", u.region.name, u.number, n)
		if n > 0 || d.IntN(8) == 0 {
			s.idle(u, d, n)
		}
		if s.now(u.region) == deaf {
			s.world.witness.logf("%s #%d: is deaf", u.region.name, u.number)
			u.left()
			return
		}
		if d.Float64() < s.trouble/8 { // it ends within the head
			_, _ = io.ReadFull(u, make([]byte, 1+d.IntN(160)))
			u.finish([]string{byReset, byClosing, byVanishing}[pick(d, 3, 2, 1)])
			return
		}
		r, seen, before, err := u.next()
		if err != nil {
			return
		}
		if r.Method == http.MethodHead && seen.id == "" {
			if !s.answerProbe(u, r, seen) {
				return
			}
		} else if !s.answer(u, r, seen, before) {
			return
		}
		u.done()
	}
}

// idle lets a connection end at a time of its own, whatever goes on then.
func (s *schedule) idle(u *upstreamConn, d *rand.Rand, n int) {
	if d.Float64() >= s.trouble/2 {
		return
	}
	how := []string{byClosing, byReset, byVanishing}[pick(d, 4, 2, 1)]
	after := max(s.time(d, []time.Duration{0, 100 * time.Millisecond, 20 * time.Second}[d.IntN(3)]), 0)
	if d.IntN(6) == 0 && n > 0 {
		time.AfterFunc(after, func() { u.stray("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") })
	}
	time.AfterFunc(after, func() {
		s.world.witness.logf("%s #%d: ends (%s) after its request %d", u.region.name, u.number, how, n)
		u.finish(how)
	})
}

// answerProbe answers a probe by the weather, and reports whether the connection
// goes on.
func (s *schedule) answerProbe(u *upstreamConn, r *http.Request, seen *sighting) bool {
	switch s.now(u.region) {
	case hanging:
		u.left()
		return false
	case resetting:
		u.finish(byReset)
		return false
	case failing:
		u.send(seen, 503, answerText(r, seen, 503, "", ""))
	default:
		u.send(seen, 401, answerText(r, seen, 401, "", ""))
	}
	return true
}

// whole reads the body of a request and reports whether it came to its end. What
// comes to its end is all that the caller sent.
func (s *schedule) whole(seen *sighting, r *http.Request) bool {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return false
	}
	for _, c := range s.calls {
		if c.id == seen.id && n != int64(c.size) {
			s.world.witness.mangled(seen, n)
		}
	}
	return true
}

// answer does one of the many things that can become of a request, and reports
// whether the connection goes on. before is how often it was seen already.
func (s *schedule) answer(u *upstreamConn, r *http.Request, seen *sighting, before int) bool {
	log := s.world.witness.logf
	d := s.roll("request", u.region.name, seen.id, before)
	log("%s #%d: %s %s arrives (%d before, kept %v)", u.region.name, u.number, r.Method, seen.id, before, seen.kept)
	switch s.now(u.region) {
	case hanging:
		_ = drain(r)
		u.left()
		return false
	case resetting:
		u.finish(byReset)
		return false
	case failing:
		if !s.whole(seen, r) {
			return false
		}
		u.answer(r, seen, 503, "")
		return true
	}
	if d.Float64() >= s.trouble {
		if !s.whole(seen, r) {
			return false
		}
		time.Sleep(s.time(d, 300*time.Millisecond))
		u.answer(r, seen, []int{200, 201, 204, 400, 403, 404, 500}[pick(d, 6, 3, 2, 1, 1, 1, 1)], "")
		return true
	}
	act := pick(d, 4, 5, 5, 4, 4, 5, 4, 3, 4, 3, 2, 1, 2)
	if act != 3 && act != 8 && !s.whole(seen, r) {
		return false
	}
	switch act {
	case 0:
		u.answer(r, seen, []int{502, 503, 504}[d.IntN(3)], []string{"", "Retry-After: 1\r\n", "Retry-After: 20\r\n"}[d.IntN(3)])
	case 1:
		u.answer(r, seen, []int{429, 503}[d.IntN(2)], fmt.Sprintf("Retry-After: %d\r\n", []int{0, 1, 2, 30}[d.IntN(4)]))
	case 2:
		if before > 2 {
			u.answer(r, seen, 200, "")
			break
		}
		u.answer(r, seen, 401, "WWW-Authenticate: Bearer\r\n")
	case 3:
		_, _ = io.CopyN(io.Discard, r.Body, int64(d.IntN(300<<10)))
		return s.ends(u, d)
	case 4:
		time.Sleep(s.time(d, time.Second))
		return s.ends(u, d)
	case 5:
		log("%s #%d: hangs", u.region.name, u.number)
		u.left()
		return false
	case 6:
		time.Sleep(s.time(d, 36*time.Second)) // around first_byte_timeout, and beyond
		u.answer(r, seen, 200, "")
	case 7:
		status := []int{200, 401, 429, 503}[pick(d, 6, 1, 1, 1)]
		header := []string{"Retry-After: 1\r\n", "Retry-After: 1\r\nEtag: 1\r\n", "Etag: 1\r\nContent-Type: text/plain\r\n"}[d.IntN(3)]
		text := answerText(r, seen, status, header, strings.Repeat(seen.id, 1+d.IntN([]int{1, 30000}[d.IntN(2)])))
		u.send(seen, status, text[:min(len(text), 80+d.IntN(len(text)))])
		if d.IntN(3) == 0 {
			u.left()
			return false
		}
		return s.ends(u, d)
	case 8:
		_, _ = io.CopyN(io.Discard, r.Body, int64(d.IntN(300<<10)))
		u.answer(r, seen, []int{200, 413, 503}[d.IntN(3)], "Connection: close\r\n")
		if d.IntN(2) == 0 {
			time.Sleep(s.time(d, time.Second))
		}
		u.finish(byClosing)
		return false
	case 9:
		for range 1 + d.IntN(maxEarly+2) {
			u.send(seen, 0, "HTTP/1.1 103 Early Hints\r\n\r\n")
		}
		if d.IntN(2) == 0 {
			return s.ends(u, d)
		}
		u.answer(r, seen, 200, "")
	case 10:
		u.send(seen, 0, []string{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "nonsense\r\n\r\n", "HTTP/1.1 2"}[d.IntN(3)])
		u.left()
		return false
	case 11:
		u.answer(r, seen, 200, "Connection: close\r\n")
		u.finish(byClosing)
		return false
	case 12:
		u.answer(r, seen, 200, "")
		return s.ends(u, d) // behind its answer, or over it
	}
	return true
}

func (s *schedule) ends(u *upstreamConn, d *rand.Rand) bool {
	how := []string{byReset, byClosing, byVanishing}[pick(d, 3, 3, 1)]
	s.world.witness.logf("%s #%d: ends (%s)", u.region.name, u.number, how)
	u.finish(how)
	return false
}
