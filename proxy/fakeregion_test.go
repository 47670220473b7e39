package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"defender-proxy/regions"
)

// fakeRegion is an upstream that speaks HTTP/1.1 by hand, so that it can break
// off anywhere.
type fakeRegion struct {
	name    regions.Name
	witness *witness
	net     *fakeListener
	serve   func(*upstreamConn) // returns when it is done with the connection

	running sync.WaitGroup

	mu    sync.Mutex // guards what follows
	count int
	open  []*upstreamConn
}

// run accepts until the listener is closed. Connections outlive it.
func (r *fakeRegion) run() {
	for {
		c, err := r.net.accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.count++
		u := &upstreamConn{fakeConn: c, region: r, number: r.count}
		u.buf = bufio.NewReaderSize(u, 2048)
		r.open = append(r.open, u)
		r.mu.Unlock()
		r.running.Go(func() {
			r.serve(u)
			u.finish(byClosing) // if nothing else has
			r.mu.Lock()
			defer r.mu.Unlock()
			r.open = slices.DeleteFunc(r.open, func(o *upstreamConn) bool { return o == u })
		})
	}
}

// connections gives those that are open.
func (r *fakeRegion) connections() []*upstreamConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.open)
}

// upstreamConn is a connection as the region sees it.
type upstreamConn struct {
	*fakeConn
	region   *fakeRegion
	number   int
	requests int // begun to be answered
	buf      *bufio.Reader

	mu      sync.Mutex // guards what follows
	raw     []byte     // the first bytes of a request that has no sighting yet
	since   time.Time  // they arrived
	current *sighting  // of the request that is read or answered; nil: idle
	over    bool
}

func (u *upstreamConn) Read(p []byte) (int, error) {
	n, err := u.fakeConn.Read(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.current == nil && len(u.raw) < 1024 {
		if len(u.raw) == 0 {
			u.since = time.Now()
		}
		u.raw = append(u.raw, p[:n]...)
	}
	return n, err
}

const idPrefix = "xid-"

// idIn finds the id of a request in its bytes.
func idIn(raw []byte) string {
	i := bytes.Index(raw, []byte(idPrefix))
	if i < 0 || len(raw) < i+len(idPrefix)+4 {
		return ""
	}
	return string(raw[i : i+len(idPrefix)+4])
}

// sight notes that some of a request has arrived; before counts the sightings of
// the same one. u.mu is held.
func (u *upstreamConn) sight(at time.Time, raw []byte) (s *sighting, before int) {
	s = &sighting{at: at, region: u.region.name, id: idIn(raw), words: firstWords(raw), kept: u.requests > 0}
	if s.id == "" && bytes.HasPrefix(raw, []byte("HEAD /api/ ")) {
		return s, 0 // a probe
	}
	before = u.region.witness.note(s)
	return s, before
}

// next reads the head of a request. Its error is the connection's end.
func (u *upstreamConn) next() (r *http.Request, s *sighting, before int, err error) {
	r, err = http.ReadRequest(u.buf)
	if err != nil {
		return nil, nil, 0, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over && u.current != nil {
		return nil, nil, 0, io.ErrClosedPipe // finish has noted it
	}
	s, before = u.sight(u.since, []byte(r.Method+" "+r.RequestURI+" "))
	u.current, u.raw = s, nil
	return r, s, before, nil
}

// done makes the connection ready for its next request.
func (u *upstreamConn) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests++
	u.current = nil
	if n := u.buf.Buffered(); n > 0 { // it was there already
		u.raw, _ = u.buf.Peek(n)
		u.raw, u.since = slices.Clone(u.raw), time.Now()
	}
}

// The ways in which a connection ends.
const (
	byClosing   = "closed"
	byReset     = "reset"
	byVanishing = "black hole"
)

// finish ends the connection so, at any time. What had arrived on it is noted: the
// region may have seen it.
func (u *upstreamConn) finish(how string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return
	}
	u.over = true
	var unread []byte
	switch how {
	case byClosing:
		unread = u.cut(false)
	case byReset:
		unread = u.cut(true)
	case byVanishing:
		unread = u.vanish()
	}
	at := u.since
	if len(u.raw) == 0 {
		at = u.inSince // nobody adds to it any more
	}
	if rest := append(u.raw, unread...); u.current == nil && len(rest) > 0 {
		s, _ := u.sight(at, rest)
		u.region.witness.logf("%s #%d: %q arrived before the connection ended (%s)", u.region.name, u.number, firstWords(rest), how)
		u.current = s
	}
}

func firstWords(b []byte) string { return string(b[:min(len(b), 48)]) }

// stray sends an answer that belongs to no request, as servers do that end an idle
// connection. What has crossed it takes it for its own.
func (u *upstreamConn) stray(text string) {
	w := u.region.witness
	w.mu.Lock()
	w.strays = append(w.strays, u.region.name)
	w.mu.Unlock()
	_, _ = io.WriteString(u, text)
}

// send writes some of an answer, or all of it. status is that of the head in text, 0
// where there is none.
func (u *upstreamConn) send(s *sighting, status int, text string) {
	w := u.region.witness
	w.mu.Lock()
	s.begun = true
	if status != 0 {
		s.status, s.told = status, time.Now()
		if _, after, ok := strings.Cut(text, "Retry-After: "); ok {
			s.again, _, _ = strings.Cut(after, "\r\n")
		}
	}
	w.mu.Unlock()
	_, _ = io.WriteString(u, text)
}

// answerText is an answer; header is lines with their ends.
func answerText(r *http.Request, s *sighting, status int, header, body string) string {
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	if status == http.StatusNoContent {
		length, body = "", ""
	}
	if r.Method == http.MethodHead {
		body = ""
	}
	if !strings.Contains(header, "Content-Type") {
		header += "Content-Type: application/json\r\n"
	}
	return fmt.Sprintf("HTTP/1.1 %d %s\r\n%s: %d\r\n%s%s\r\n%s", status, http.StatusText(status), sightHeader, s.number, header, length, body)
}

// answer sends a whole answer.
func (u *upstreamConn) answer(r *http.Request, s *sighting, status int, header string) {
	u.region.witness.logf("%s #%d: answers %s with %d %s", u.region.name, u.number, s.id, status, strings.TrimSpace(header))
	u.send(s, status, answerText(r, s, status, header, fmt.Sprintf(`{"id":%q}`, s.id)))
}

// drain reads the rest of a request's body.
func drain(r *http.Request) error {
	_, err := io.Copy(io.Discard, r.Body)
	return err
}
