package integration

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

var (
	longest = flag.Duration("longest", 2*time.Second, "how long the longest hunting query takes to answer; Microsoft documents 200s")
	large   = flag.Int64("large", defaultLarge, "the size of the large bodies that are streamed, in bytes")
)

// repeated is a body of so many bytes: the same line again and again.
type repeated struct {
	line string
	at   int64
	size int64
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.at >= r.size {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && r.at < r.size {
		some := copy(p[n:min(int64(len(p)), int64(n)+r.size-r.at)], r.line[r.at%int64(len(r.line)):])
		n += some
		r.at += int64(some)
	}
	return n, nil
}

// Write checks that what comes is this body.
func (r *repeated) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		want := r.line[r.at%int64(len(r.line)):]
		want = want[:min(len(want), len(p)-n)]
		if string(p[n:n+len(want)]) != want || r.at+int64(len(want)) > r.size {
			return n, fmt.Errorf("byte %d and those that follow are %.60q, not %.60q", r.at, p[n:n+len(want)], want)
		}
		n += len(want)
		r.at += int64(len(want))
	}
	return len(p), nil
}

// manyRows are rows with links that are not the proxy's to turn, so that the
// stream is looked at all the way and nothing is changed.
var manyRows = strings.Repeat(`{"id":"da637472900382838869_1364969609","title":"again and again","url":"https://api.security.microsoft.com/x"}`+"\n", 64)

// A body of a GiB comes down, and one goes up. Both pass through a process that
// grows by less than 32 MiB, and every byte is right.
func TestAGiBStreamsDownAndUpInBoundedMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // another process's memory is read from /proc, which others do not have
	}
	const upload = "this line is part of a large file; "
	size := *large
	arrived := make(chan error, 1)
	server := newOwn(t, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method == http.MethodPost:
			got := &repeated{line: upload, size: size}
			_, err := io.CopyBuffer(struct{ io.Writer }{got}, r.Body, make([]byte, 256<<10))
			if err == nil && got.at != size {
				err = fmt.Errorf("%d bytes of %d", got.at, size)
			}
			arrived <- err
			io.WriteString(w, `{"fileName":"large.bin"}`)
		case strings.HasSuffix(r.RequestURI, "$top=1"):
			io.WriteString(w, `{"value":[]}`)
		default:
			io.CopyBuffer(struct{ io.Writer }{w}, &repeated{line: manyRows, size: size}, make([]byte, 256<<10))
		}
	})
	w := among(t, setup{
		permissions: map[string][]string{"mde": {"Library.Manage"}},
		config: func(c object) {
			allow(c, "read", "libraryfiles.*")
			c["limits"] = object{"max_request_bytes": "1GiB"}
		},
	}, map[string]*httptest.Server{"eu": server})
	for range 20 { // warm
		w.get("/api/alerts?$top=1")
	}
	before, _ := w.resident(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	send := func(method, path string, body io.Reader) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, w.url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		if body != nil {
			r.ContentLength = size
			r.Header.Set("Content-Type", "application/octet-stream")
		}
		resp, err := caller.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}

	begun := time.Now()
	resp := send(http.MethodGet, "/api/alerts", nil)
	got := &repeated{line: manyRows, size: size}
	_, err := io.CopyBuffer(struct{ io.Writer }{got}, resp.Body, make([]byte, 256<<10))
	resp.Body.Close()
	if err != nil || got.at != size {
		t.Fatalf("after %d bytes of %d: %v", got.at, size, err)
	}
	_, most := w.resident(t)
	t.Logf("%d MiB down in %v: grown by %d MiB", size>>20, time.Since(begun).Round(time.Millisecond), (most-before)>>20)
	if most-before > growth {
		t.Errorf("the process grew by %d MiB over an answer of %d MiB", (most-before)>>20, size>>20)
	}

	begun = time.Now()
	resp = send(http.MethodPost, "/api/libraryfiles", struct{ io.Reader }{&repeated{line: upload, size: size}})
	if body := read(t, resp); resp.StatusCode != http.StatusOK || !strings.Contains(body, "large.bin") {
		t.Errorf("the upload: %d %s", resp.StatusCode, body)
	}
	if err := <-arrived; err != nil {
		t.Errorf("what arrived of the upload: %v", err)
	}
	_, most = w.resident(t)
	t.Logf("%d MiB up in %v: grown by %d MiB", size>>20, time.Since(begun).Round(time.Millisecond), (most-before)>>20)
	if most-before > growth {
		t.Errorf("the process grew by %d MiB over an upload of %d MiB", (most-before)>>20, size>>20)
	}
}

// The longest query that Microsoft documents takes 200 s, and the largest result
// has 124 MB. Nothing between the caller and Microsoft is less patient than that,
// and the way to the region, which is looked at meanwhile, is found to be well.
func TestTheLongestQueryAndTheLargestResultPass(t *testing.T) {
	t.Parallel()
	const size = 124_000_000
	asked := make(chan struct{}, 8)
	server := newOwn(t, nil, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		select {
		case <-time.After(*longest):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.CopyBuffer(struct{ io.Writer }{w}, &repeated{line: manyRows, size: size}, make([]byte, 256<<10))
	})
	w := among(t, setup{}, map[string]*httptest.Server{"eu": server})
	ctx, cancel := context.WithTimeout(t.Context(), *longest+5*patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+huntingPath, strings.NewReader(huntingQuery))
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	resp, err := caller.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if waited := time.Since(begun); waited < *longest {
		t.Errorf("the answer began after %v", waited)
	}
	got := &repeated{line: manyRows, size: size}
	if _, err := io.CopyBuffer(struct{ io.Writer }{got}, resp.Body, make([]byte, 256<<10)); err != nil || got.at != size || resp.StatusCode != http.StatusOK {
		t.Errorf("%d after %d bytes of %d: %v", resp.StatusCode, got.at, size, err)
	}
	if n := len(asked); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}
