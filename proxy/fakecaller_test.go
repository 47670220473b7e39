package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// call is one request of a caller, and what it was told.
type call struct {
	id           string
	kind         *kind
	at           time.Duration
	leaves       time.Duration // 0: stays
	size         int           // of the body
	chunked      bool
	pause        time.Duration // before each of its pieces
	more         string        // header lines
	began, ended time.Time
	uploaded     time.Time // when the body had gone out
	header       http.Header
	status       int // 0: was told nothing
	body         string
	err          error
}

// kind is a kind of request. The id in its path is what regions and records know it
// by.
type kind struct {
	method, path string
	write        bool // changes something
	hunt         bool
	stream       bool // has a body that is too large to keep
}

var (
	isolate = &kind{method: "POST", path: "/api/machines/%s/isolate", write: true}
	update  = &kind{method: "PATCH", path: "/api/alerts/%s", write: true}
	remove  = &kind{method: "DELETE", path: "/api/indicators/%s", write: true}
	upload  = &kind{method: "POST", path: "/api/machines/%s/runliveresponse", write: true, stream: true}
	hunt    = &kind{method: "POST", path: "/api/advancedqueries/run?id=%s", hunt: true}
	read    = &kind{method: "GET", path: "/api/alerts/%s"}
	head    = &kind{method: "HEAD", path: "/api/machines/%s"}
)

// slow reports whether the caller itself takes longer over its body than it may,
// whatever the regions do.
func (c *call) slow(idle time.Duration) bool {
	sleeps := time.Duration(c.size/c.piece()+1) * c.pause
	return c.pause >= idle || sleeps >= idle+time.Duration(c.size)*time.Second/minRate
}

func (c *call) piece() int { return max(4<<10, c.size/6) }

// call makes a request and keeps what it was told. It speaks HTTP by hand: when an
// answer comes before the body has gone out, net/http may lose it.
func (w *fakeWorld) call(c *call) {
	time.Sleep(c.at)
	path := fmt.Sprintf(c.kind.path, c.id)
	w.witness.logf("%s: %s %s", c.id, c.kind.method, path)
	c.began = time.Now()
	dialled, err := w.net.dial(context.Background(), "tcp", fakeProxy)
	if err != nil {
		panic(err) // the proxy's listener is there
	}
	conn := dialled.(*fakeConn)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer conn.Close()
	if c.leaves > 0 {
		leave := time.AfterFunc(c.leaves, func() { conn.cut(c.chunked) })
		defer leave.Stop()
	}
	sending.Go(func() { c.send(conn, path) })
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: c.kind.method})
	if c.err = err; err == nil {
		var b []byte
		b, c.err = io.ReadAll(resp.Body)
		c.status, c.header, c.body = resp.StatusCode, resp.Header, string(b)
	}
	c.ended = time.Now()
	w.witness.logf("%s: is told %d, %v", c.id, c.status, c.err)
}

// send writes the request as far as it goes. The body holds the request's id again
// and again.
func (c *call) send(conn *fakeConn, path string) {
	framing := ""
	switch {
	case c.size > 0 && c.chunked:
		framing = "Transfer-Encoding: chunked\r\n"
	case c.size > 0:
		framing = fmt.Sprintf("Content-Length: %d\r\n", c.size)
	}
	_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: %s\r\n%s%s\r\n", c.kind.method, path, c.id, c.more, framing)
	for left := c.size; err == nil && left > 0; {
		time.Sleep(c.pause)
		n := min(left, c.piece())
		piece := strings.Repeat(c.id+" ", n/len(c.id)+1)[:n]
		left -= len(piece)
		if c.chunked {
			piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
		}
		_, err = io.WriteString(conn, piece)
	}
	if c.chunked && c.size > 0 && err == nil {
		_, err = io.WriteString(conn, "0\r\n\r\n")
	}
	if err == nil {
		c.uploaded = time.Now()
	}
}
