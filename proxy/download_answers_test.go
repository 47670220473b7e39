package proxy

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRangesAndConditionsAreStoragesToAnswer(t *testing.T) {
	s := newStorage(t, options{})
	content := []byte("0123456789abcdefghij")
	s.place.answer(file(content, "Content-Type", "application/octet-stream", "ETag", `"e1"`))
	sealed := s.sealed()
	for _, c := range []struct {
		name, method string
		header       []string
		status       int
		body         string
		want         map[string]string
	}{
		{"all", "GET", nil, 200, string(content), map[string]string{"Content-Length": "20", "Accept-Ranges": "bytes"}},
		{"a part", "GET", []string{"Range", "bytes=5-9"}, 206, "56789", map[string]string{"Content-Range": "bytes 5-9/20", "Content-Length": "5"}},
		{"from a place on", "GET", []string{"Range", "bytes=15-"}, 206, "fghij", map[string]string{"Content-Range": "bytes 15-19/20"}},
		{"the rest, if it is the same", "GET", []string{"Range", "bytes=15-", "If-Range", `"e1"`}, 206, "fghij", nil},
		{"all, if it is not the same", "GET", []string{"Range", "bytes=15-", "If-Range", `"e0"`}, 200, string(content), nil},
		{"beyond the end", "GET", []string{"Range", "bytes=50-"}, 416, "", map[string]string{"Content-Range": "bytes */20"}},
		{"what is known", "GET", []string{"If-None-Match", `"e1"`}, 304, "", map[string]string{"Etag": `"e1"`}},
		{"what has changed", "GET", []string{"If-Match", `"e0"`}, 412, "", nil},
		{"its head", "HEAD", nil, 200, "", map[string]string{"Content-Length": "20", "Etag": `"e1"`}},
		{"the head of a part", "HEAD", []string{"Range", "bytes=5-9"}, 206, "", map[string]string{"Content-Length": "5"}},
	} {
		got := s.do(c.method, sealed, "", c.header...)
		if got.status != c.status || got.err != nil || (c.status < 300) && got.body != c.body {
			t.Errorf("%s: got %d %q, %v, want %d %q", c.name, got.status, got.body, got.err, c.status, c.body)
		}
		for name, want := range c.want {
			if have := got.header.Get(name); have != want {
				t.Errorf("%s: %s is %q, want %q", c.name, name, have, want)
			}
		}
		if strings.Contains(got.header.Get("Proxy-Status"), "error") {
			t.Errorf("%s: it is taken for the proxy's own: %v", c.name, got.header)
		}
	}
	s.do("GET", sealed, "", "X-Ms-Range", "bytes=1-2", "Accept-Encoding", "br;q=1.0, gzip")
	arrived := s.place.requests()
	if last := arrived[len(arrived)-1]; last.header.Get("X-Ms-Range") != "bytes=1-2" || last.header.Get("Accept-Encoding") != "br;q=1.0, gzip" {
		t.Errorf("arrived with %v", last.header)
	}
	for _, a := range arrived {
		if a.header["Authorization"] != nil || a.header["Cookie"] != nil || a.header.Get("Accept-Encoding") == "identity" {
			t.Errorf("arrived with %v", a.header)
		}
	}
}

// A file that storage keeps in gzip comes as it is, whatever its type.
func TestAFileInGzipStaysAsItIs(t *testing.T) {
	s := newStorage(t, options{})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, `{"@odata.nextLink":"https://api.security.microsoft.com/api/alerts","value":"`+s.link+`"}`)
	_ = z.Close()
	for _, header := range [][]string{
		{"Content-Type", "application/x-gzip"}, {"Content-Type", "application/json", "Content-Encoding", "gzip"}, {"Content-Type", "application/json"},
	} {
		s.place.answer(file(packed.Bytes(), header...))
		got := s.do("GET", s.sealed(), "")
		if got.body != packed.String() || got.header.Get("Content-Type") != header[1] || len(header) > 2 && got.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%v: got %d bytes of %d, %v", header, len(got.body), packed.Len(), got.header)
		}
	}
}

func TestWhatStorageSaysPasses(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	const xml = "\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request.</Message></Error>"
	for _, status := range []int{400, 403, 404, 409, 412, 416, 429, 500, 503} {
		s.place.answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			w.Header().Set("X-Ms-Error-Code", "AuthenticationFailed")
			w.Header().Set("Www-Authenticate", "Bearer authorization_uri=https://login.microsoftonline.com/x")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, xml)
		})
		got := s.do("GET", sealed, "")
		if got.status != status || got.body != xml || got.header.Get("X-Ms-Error-Code") != "AuthenticationFailed" || got.header.Get("Www-Authenticate") != "" || strings.Contains(got.header.Get("Proxy-Status"), "error") {
			t.Errorf("%d comes as %d %q %v", status, got.status, got.body, got.header)
		}
	}
}

func TestWhatStorageMayNotSay(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	for name, answer := range map[string]http.HandlerFunc{
		"a redirect elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		},
		"a redirect to itself": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.link, http.StatusTemporaryRedirect)
		},
		"a redirect to nowhere": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMultipleChoices) },
		"an end that nobody can tell": func(w http.ResponseWriter, _ *http.Request) {
			c, b, _ := http.NewResponseController(w).Hijack()
			_, _ = b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nConnection: close\r\n\r\nabc")
			_ = b.Flush()
			_ = c.Close()
		},
		"another protocol": func(w http.ResponseWriter, _ *http.Request) {
			c, b, _ := http.NewResponseController(w).Hijack()
			_, _ = b.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
			_ = b.Flush()
			_ = c.Close()
		},
		"a flood of early answers": func(w http.ResponseWriter, _ *http.Request) {
			for range maxEarly + 2 {
				w.WriteHeader(http.StatusEarlyHints)
			}
		},
	} {
		before := len(s.place.requests())
		s.place.answer(answer)
		got := s.do("GET", sealed, "")
		if got.code() != "InvalidAnswer" || got.status != 502 || got.header.Get("Location") != "" {
			t.Errorf("%s: %d %v %s", name, got.status, got.header, got.body)
		}
		if n := len(s.place.requests()) - before; n != 1 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
	s.secretsAreKept(sealed)
}

func TestABrokenDownloadBreaksTheCallersConnectionAndCanBeResumed(t *testing.T) {
	s := newStorage(t, options{})
	content := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	whole := file(content, "ETag", `"e1"`)
	s.place.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Header().Set("ETag", `"e1"`)
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		c, _, _ := http.NewResponseController(w).Hijack()
		_ = c.(*tls.Conn).NetConn().Close()
	})
	sealed := s.sealed()
	got := s.do("GET", sealed, "")
	if got.status != 200 || got.err == nil || len(got.body) > len(content)/2 {
		t.Fatalf("half a file comes as %d with %d bytes, %v", got.status, len(got.body), got.err)
	}
	s.place.answer(whole)
	rest := s.do("GET", sealed, "", "Range", fmt.Sprintf("bytes=%d-", len(got.body)), "If-Range", `"e1"`)
	if rest.status != 206 || got.body+rest.body != string(content) {
		t.Errorf("the rest comes as %d with %d bytes", rest.status, len(rest.body))
	}
	lines := s.lines(3)
	if rec := lines[1]; rec["code"] != "InvalidAnswer" || rec["file"] == nil || rec["decision"] != "allowed" {
		t.Errorf("the record of the broken one is %v", rec)
	}
}

func TestStorageThatDoesNotAnswer(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	patient := s.proxy.Limits
	s.proxy.Limits.FirstByteTimeout, s.proxy.Limits.ConnectTimeout = 100*time.Millisecond, 300*time.Millisecond
	s.place.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if got := s.do("GET", sealed, ""); got.code() != "RegionUnavailable" || got.status != 504 || !strings.Contains(got.message(), s.host()+"/packages/") || got.header.Get("Retry-After") == "" {
		t.Errorf("silence: %d %s", got.status, got.body)
	}
	s.place.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "abc")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	if got := s.do("GET", sealed, ""); got.err == nil && got.code() != "InvalidAnswer" && got.code() != "RegionUnavailable" { // the latter on a machine that is very slow
		t.Errorf("silence in the middle: %d %q", got.status, got.body)
	}
	s.proxy.Limits = patient
	s.place.answer(reset)
	if got := s.do("GET", sealed, ""); got.code() != "RegionUnavailable" || got.status != 502 {
		t.Errorf("a reset: %d %s", got.status, got.body)
	}
	s.place.server.Close()
	if got := s.do("GET", sealed, ""); got.code() != "RegionUnavailable" || got.status != 502 || !strings.Contains(got.message(), "refused") {
		t.Errorf("nobody there: %d %s", got.status, got.body)
	}
	for _, rec := range s.lines(5)[1:] {
		if rec["file"] == nil || rec["decision"] != "allowed" {
			t.Errorf("the record is %v", rec)
		}
	}
	s.secretsAreKept(sealed)
}

func TestACallerThatLeavesADownloadEndsIt(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	ended := make(chan struct{})
	s.place.answer(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(mustRequest(t, "GET", s.server.URL+sealed, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("storage sends on to nobody")
	}
	if rec := s.lines(2)[1]; rec["code"] != "ClientGone" || rec["status"] != 200.0 && rec["status"] != 499.0 || rec["file"] == nil {
		t.Errorf("the record is %v", rec)
	}
}

func TestADownloadCountsAmongWhatIsUnderWay(t *testing.T) {
	s := newStorage(t, options{limits: func(l *Limits) { l.InFlight = 1 }})
	sealed := s.sealed()
	begun, leave := make(chan struct{}), make(chan struct{})
	s.place.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		close(begun)
		<-leave
		_, _ = io.WriteString(w, "0123456789")
	})
	done := make(chan *reply)
	go func() { done <- s.do("GET", sealed, "") }()
	<-begun
	if got := s.do("GET", sealed, ""); got.code() != "Overloaded" {
		t.Errorf("a second one: %d %s", got.status, got.body)
	}
	close(leave)
	if got := <-done; got.status != 200 || got.body != "0123456789" {
		t.Errorf("the first one: %d %s", got.status, got.body)
	}
}
