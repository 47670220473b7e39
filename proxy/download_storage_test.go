package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// turningAway is a server for HTTP/2 that says to each connection, once a request has
// come, that it takes none, so that the transport makes another one.
func turningAway(t *testing.T, certificate tls.Certificate) (address string, conns *atomic.Int64) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	conns = new(atomic.Int64)
	serve := func(c net.Conn) {
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go serve(c)
		}
	}()
	return l.Addr().String(), conns
}

// A storage that sends every connection away cannot make one request of a caller's
// thousands.
func TestOneRequestMakesFewConnectionsToStorage(t *testing.T) {
	s := newStorage(t, options{deps: func(d *Deps) { d.Transport.(*http.Transport).ForceAttemptHTTP2 = true }})
	address, conns := turningAway(t, s.place.server.TLS.Certificates[0])
	s.proxy.tenants["contoso"].blobs = newBlobHosts([]string{address})
	s.give("https://" + address + "/c/f?sig=" + signature)
	sealed := s.sealed()
	got := s.do("GET", sealed, "")
	if got.code() != "RegionUnavailable" || !strings.Contains(got.message(), "Storage did not answer") || strings.Contains(got.message(), "region") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if n := conns.Load(); n < 2 || n > maxConns+1 {
		t.Errorf("%d connections were made, want up to %d", n, maxConns+1)
	}
	s.secretsAreKept(sealed)
}

// written answers with bytes as they are, and closes the connection.
func written(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, b, _ := http.NewResponseController(w).Hijack()
		_, _ = b.WriteString(text)
		_ = b.Flush()
		_ = c.(*tls.Conn).CloseWrite()
		_, _ = io.Copy(io.Discard, c) // until the other side has it
		_ = c.Close()
	}
}

func TestAnAnswerThatIsNoneIsToldAsOne(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	for name, text := range map[string]string{
		"no HTTP":                 "sig=canarySIG garbage\r\n\r\n",
		"a status that is none":   "HTTP/1.1 sig=canarySIG x\r\n\r\n",
		"a header that is none":   "HTTP/1.1 200 x\r\nsig=canarySIG\r\n\r\n",
		"a length below zero":     "HTTP/1.1 200 x\r\nContent-Length: -3\r\n\r\nabc",
		"two lengths":             "HTTP/1.1 200 x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
		"an encoding on the way":  "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"a status below 100":      "HTTP/1.1 099 x\r\nContent-Length: 3\r\n\r\nabc",
		"a status of zero":        "HTTP/1.1 000 x\r\nContent-Length: 3\r\n\r\nabc",
		"a status beyond 599":     "HTTP/1.1 600 x\r\nContent-Length: 3\r\n\r\nabc",
		"a status far beyond 599": "HTTP/1.1 999 x\r\nContent-Length: 3\r\n\r\nabc",
	} {
		s.place.answer(written(text))
		got := s.do("GET", sealed, "")
		if got.code() != "InvalidAnswer" || got.status != 502 || !strings.Contains(got.message(), "Storage") || strings.Contains(got.message(), "did not answer") || strings.Contains(got.message(), "canary") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	s.place.answer(written(""))
	if got := s.do("GET", sealed, ""); got.code() != "RegionUnavailable" || !strings.Contains(got.message(), "did not answer") {
		t.Errorf("an end instead of an answer: %d %s", got.status, got.body)
	}
	s.secretsAreKept(sealed)
}

func TestAStatusThatIsNoneIsNotPassedOn(t *testing.T) {
	w := newWorld(t, options{})
	for _, status := range []string{"000", "099", "600", "999"} {
		w.regions[0].answer(written("HTTP/1.1 " + status + " x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
		if got := w.do("GET", "/api/alerts", ""); got.code() != "InvalidAnswer" || got.status != 502 {
			t.Errorf("%s to a read: %d %s", status, got.status, got.body)
		}
		got := w.do("POST", "/api/machines/m1/isolate", `{"Comment":"x","IsolationType":"Full"}`, "Content-Type", "application/json")
		if got.code() != "InvalidAnswer" || !strings.Contains(got.message(), "may have been carried out") || got.header.Get("Retry-After") != "" {
			t.Errorf("%s to a write: %d %s", status, got.status, got.body)
		}
	}
}

// Whoever waits for a file that comes slowly sees that it has begun.
func TestTheBeginningOfAFileGoesOutAtOnce(t *testing.T) {
	for _, length := range []string{"", "10"} {
		s := newStorage(t, options{})
		goOn := make(chan struct{})
		s.place.answer(func(w http.ResponseWriter, _ *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			_, _ = io.WriteString(w, "01234")
			_ = http.NewResponseController(w).Flush()
			<-goOn
			_, _ = io.WriteString(w, "56789")
		})
		c, err := net.Dial("tcp", s.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(8 * time.Second)) // less than storage may pause
		_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", s.sealed())
		var seen strings.Builder
		for b := make([]byte, 4096); !strings.Contains(seen.String(), "01234"); {
			n, err := c.Read(b)
			seen.Write(b[:n])
			if err != nil {
				t.Errorf("of length %q: nothing before the end: %q, %v", length, seen.String(), err)
				break
			}
		}
		close(goOn)
		rest, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(rest), "56789") {
			t.Errorf("of length %q: the rest is %q, %v", length, rest, err)
		}
	}
}
