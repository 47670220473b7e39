package integration

import (
	endian "encoding/binary"
	"errors"
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

var downloadsSize = flag.Int64("downloads.size", 256<<20, "the size of the large file that is downloaded, in bytes; 5368709120 is 5 GiB")

// stored is a file that is in nobody's memory: each block begins with its number, and
// goes on in a way that all share.
type stored struct{ at, size int64 }

const storedBlock = 64 << 10

var storedFiller = func() (b [storedBlock]byte) {
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}()

// piece is what stands at a place of the file, up to a block's end.
func (s *stored) piece(at int64, into *[storedBlock]byte) []byte {
	endian.BigEndian.PutUint64(into[:], uint64(at/storedBlock))
	from := at % storedBlock
	return into[from:min(storedBlock, from+s.size-at)]
}

func (s *stored) Read(p []byte) (n int, err error) {
	block := storedFiller
	for n < len(p) && s.at < s.size {
		k := copy(p[n:], s.piece(s.at, &block))
		n += k
		s.at += int64(k)
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (s *stored) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.at
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 {
		return 0, errors.New("before the beginning")
	}
	s.at = offset
	return offset, nil
}

// Write checks that what comes is what stands there.
func (s *stored) Write(p []byte) (n int, err error) {
	block := storedFiller
	for n < len(p) {
		want := s.piece(s.at, &block)
		want = want[:min(len(want), len(p)-n)]
		if len(want) == 0 || string(p[n:n+len(want)]) != string(want) {
			return n, fmt.Errorf("byte %d of the file and those behind it are others", s.at)
		}
		n += len(want)
		s.at += int64(len(want))
	}
	return n, nil
}

// A package of some GiB comes from storage to an analyst, whose line breaks after a
// third of it. She goes on from there. Every byte stands where it should, and the
// process that they all went through has grown by less than 64 MiB.
func TestALargeFileIsDownloadedAndResumedInBoundedMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // another process's memory is read from /proc, which others do not have
	}
	const most = 64 << 20
	size := *downloadsSize
	modified := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	storage := newOwn(t, nil, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/zip")
		rw.Header().Set("ETag", `"0x1"`)
		http.ServeContent(rw, r, "", modified, &stored{size: size})
	})
	api := newOwn(t, nil, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{"value":"`+storage.URL+`/packages/large.zip?sig=x"}`)
	})
	w := among(t, setup{config: func(c object) {
		allow(c, "read", "download")
		c["relay"] = object{"downloads": true}
		storedAt(c, strings.TrimPrefix(storage.URL, "https://"))
	}}, map[string]*httptest.Server{"eu": api})
	link := w.get("/api/machineactions/a1/getPackageUri").link(t)
	ask := func(ranged string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ranged != "" {
			r.Header.Set("Range", ranged)
			r.Header.Set("If-Range", `"0x1"`)
		}
		resp, err := caller.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	warm := ask("bytes=0-4194303")
	if _, err := io.Copy(&stored{size: size}, warm.Body); err != nil {
		t.Fatal(err)
	}
	warm.Body.Close()
	before, _ := w.resident(t)

	begun := time.Now()
	got := &stored{size: size}
	resp := ask("")
	if resp.StatusCode != http.StatusOK || resp.ContentLength != size {
		t.Fatalf("all of it: %d, %d bytes", resp.StatusCode, resp.ContentLength)
	}
	if _, err := io.CopyN(struct{ io.Writer }{got}, resp.Body, size/3); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close() // the line breaks
	resp = ask(fmt.Sprintf("bytes=%d-", got.at))
	if want := fmt.Sprintf("bytes %d-%d/%d", got.at, size-1, size); resp.StatusCode != http.StatusPartialContent || resp.Header.Get("Content-Range") != want {
		t.Fatalf("the rest: %d, %v, want %s", resp.StatusCode, resp.Header, want)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{got}, resp.Body, make([]byte, 256<<10)); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got.at != size {
		t.Errorf("%d bytes came of %d", got.at, size)
	}
	took := time.Since(begun)
	_, peak := w.resident(t)
	if peak-before > most {
		t.Errorf("the process grew by %d MiB, want less than %d", (peak-before)>>20, most>>20)
	}
	t.Logf("%d MiB in %v, %.0f MB/s; the process grew by %d MiB", size>>20, took.Round(time.Millisecond), float64(size)/1e6/took.Seconds(), (peak-before)>>20)
}
