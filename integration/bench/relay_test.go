package bench

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	relayed   = 1 << 30   // bytes of a body that passes untouched
	rewritten = 256 << 20 // bytes of a document whose links are turned
)

// BenchmarkRelay streams a body of 1 GiB through the proxy, with a length, in chunks
// and over HTTP/2, and through a plain httputil.ReverseProxy in turn: how many MB/s a
// caller gets, what processor time a MB takes, and how far the process grows beyond
// what it holds when idle. The upstream speaks TLS, the caller does not.
func BenchmarkRelay(b *testing.B) {
	body := bytes.Repeat([]byte("this line is part of a large file; "), 4<<10)
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		if r.URL.Path == "/api/alerts" {
			w.Header().Set("Content-Length", strconv.Itoa(relayed))
		}
		if r.URL.RawQuery != "" { // to warm up
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
			return
		}
		pour(w, body, relayed)
	}
	for _, c := range []struct {
		name, path string
		http2      bool
	}{{"length", "/api/alerts", false}, {"chunks", "/api/machines", false}, {"http2", "/api/alerts", true}} {
		b.Run(c.name, func(b *testing.B) {
			peer, ours := pair(b, c.http2, answer)
			b.ReportMetric(side(b, peer, ours, c.path, relayed, relayed, false), "speed-ratio")
		})
	}
}

// BenchmarkRewrite does the same with a JSON document full of rows, whose links are
// turned: plain, and in gzip. Beside the latter stands what gunzip and gzip alone
// take, since the proxy has to do both. The plain proxy turns nothing and leaves gzip
// as it is.
func BenchmarkRewrite(b *testing.B) {
	const head, tail = `{"@odata.context":"https://api.securitycenter.microsoft.com/api/$metadata#Alerts","value":[{}`, `],"@odata.nextLink":"https://api.securitycenter.microsoft.com/api/alerts?$skiptoken=a%2Bb=="}`
	some := rows(8 << 20)
	packed := [3][]byte{pack(b, []byte(head)), pack(b, some), pack(b, []byte(tail))}
	times := rewritten / len(some)
	peer, ours := pair(b, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
		first, middle, last := []byte(head), some, []byte(tail)
		if r.URL.Path == "/api/machines" {
			w.Header().Set("Content-Encoding", "gzip")
			first, middle, last = packed[0], packed[1], packed[2] // a gzip file may have several parts
		}
		n := times
		if r.URL.RawQuery != "" {
			n = 1
		}
		_, _ = w.Write(first)
		pour(w, middle, n*len(middle))
		_, _ = w.Write(last)
	})
	size := len(head) + times*len(some) + len(tail)
	b.Run("plain", func(b *testing.B) {
		b.ReportMetric(side(b, peer, ours, "/api/alerts", size, size, false), "speed-ratio")
	})
	b.Run("gzip", func(b *testing.B) {
		wire := len(packed[0]) + times*len(packed[1]) + len(packed[2])
		side(b, peer, ours, "/api/machines", size, wire, true)
		b.ReportMetric(gzipAlone(b, packed[1], len(some)), "gzip-alone-cpu-µs/MB")
	})
}

// pour writes n bytes: those of body again and again.
func pour(w io.Writer, body []byte, n int) {
	for n > 0 {
		m, err := w.Write(body[:min(n, len(body))])
		if err != nil {
			return
		}
		n -= m
	}
}

// rows are about n bytes of rows, each behind a comma, that compress as alerts do.
func rows(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+1<<10)
	for len(b) < n {
		b = fmt.Appendf(b, `,{"id":"da%d_%d","incidentId":%d,"severity":"Medium","status":"New","title":"Suspicious process injection observed","machineId":"%016x%016x%08x",`+
			`"evidence@odata.type":"#Collection(microsoft.windowsDefenderATP.api.AlertEvidence)","evidence":[],"lastUpdateTime":"2026-01-24T16:%02d:%02d.%07dZ"}`,
			rnd.Int64(), rnd.Int32(), rnd.Int32(), rnd.Uint64(), rnd.Uint64(), rnd.Uint32(), rnd.IntN(60), rnd.IntN(60), rnd.IntN(10_000_000))
	}
	return b
}

func pack(b *testing.B, data []byte) []byte {
	b.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(data)
	if err = errors.Join(err, z.Close()); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// gzipAlone is the processor time in µs that it takes to unpack a MB, counted plain,
// and to pack it again.
func gzipAlone(b *testing.B, packed []byte, plain int) float64 {
	b.Helper()
	const rounds = 8
	self := &process{pid: os.Getpid()}
	at := self.processorTime(b)
	for range rounds {
		from, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			b.Fatal(err)
		}
		to, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // the level exists
		if _, err = io.Copy(to, from); err != nil {
			b.Fatal(err)
		}
	}
	return float64(self.processorTime(b)-at) / 1e3 / (rounds * float64(plain) / 1e6)
}

// side loads both proxies in turn, reports the figures of ours, and returns its
// speed as a part of the plain one's. plain is the size of the body once it is
// unpacked, in which speeds are counted, wire its size as it is sent.
func side(b *testing.B, peer, ours *process, path string, plain, wire int, zipped bool) float64 {
	b.Helper()
	if runtime.GOOS != "linux" {
		b.Fatal("memory and processor time of another process are read from /proc: run this on Linux")
	}
	peer.waitFor(b, path+"?$top=1", 1)
	ours.waitFor(b, path+"?$top=1", 1)
	idle := ours.forget(b)
	for range 20 {
		peer.stream(b, path+"?$top=1", zipped)
		ours.stream(b, path+"?$top=1", zipped)
	}
	var speeds, theirs, cpus, plainCPUs, ratios []float64
	mb := float64(plain) / 1e6
	for b.Loop() {
		took := func(p *process) (seconds, cpu float64) {
			at := p.processorTime(b)
			begun := time.Now()
			n := p.stream(b, path, zipped)
			seconds = time.Since(begun).Seconds()
			if n < int64(wire)/2 {
				b.Errorf("only %d bytes of about %d came", n, wire)
			}
			return seconds, float64(p.processorTime(b)-at) / 1e9
		}
		s, c := took(ours)
		ps, pc := took(peer)
		speeds, cpus = append(speeds, mb/s), append(cpus, c*1e6/mb)
		theirs, plainCPUs = append(theirs, mb/ps), append(plainCPUs, pc*1e6/mb)
		ratios = append(ratios, ps/s)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(speeds), "ours-MB/s")
	b.ReportMetric(median(theirs), "plain-MB/s")
	b.ReportMetric(median(cpus), "ours-cpu-µs/MB")
	b.ReportMetric(median(plainCPUs), "plain-cpu-µs/MB")
	b.ReportMetric(float64(ours.memory(b, "VmHWM")-idle)/(1<<20), "grown-MiB")
	return median(ratios)
}

// stream reads an answer to its end and counts its bytes.
func (p *process) stream(b *testing.B, path string, zipped bool) int64 {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	if zipped {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	resp, err := p.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{resp.Body}, make([]byte, 256<<10))
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%d after %d bytes: %v", resp.StatusCode, n, err)
	}
	return n
}

// forget lets the process's high-water mark begin anew (proc(5), clear_refs), and
// returns what it holds now, in bytes.
func (p *process) forget(b *testing.B) int64 {
	b.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	return p.memory(b, "VmRSS")
}

// memory is a figure of the process's memory, in bytes (proc(5), status).
func (p *process) memory(b *testing.B, name string) int64 {
	b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb << 10
		}
	}
	b.Fatalf("there is no %s", name)
	return 0
}
