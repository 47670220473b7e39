package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"defender-proxy/internal/simulator"
)

// resident is the memory that the process holds now and the most that it ever
// held, in bytes.
func (p *process) resident(t *testing.T) (now, most int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = kb << 10
		case "VmHWM":
			most = kb << 10
		}
	}
	if now == 0 || most == 0 {
		t.Fatalf("no memory figures in:\n%s", text)
	}
	return now, most
}

// growth bounds what a body of any size may cost, in bytes of the process. The
// race detector's shadow memory is in it.
const growth = 32 << 20

// A hundred megabytes come back, and thirty go up. Both stream: the process
// grows by less than a third of either, and every byte is right.
func TestLargeBodiesStreamInBoundedMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // another process's memory is read from /proc, which others do not have
	}
	w := newWorld(t, setup{
		permissions: map[string][]string{"mde": {"Library.Manage"}},
		config: func(c object) {
			inRegions(c, "eu")
			allow(c, "read", "hunt", "libraryfiles.*")
			c["limits"] = object{"max_request_bytes": "32MiB"}
		},
	})
	for range 20 { // warm
		w.get("/api/alerts?$top=100")
	}
	before, _ := w.resident(t)

	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultEndless, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/api/alerts", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := caller.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	got := &pattern{t: t, head: `{"@odata.context":"` + w.url + `/api/$metadata#Alerts","value":[{"id":"0"}`, row: `,{"id":"da637472900382838869_1364969609","title":"again"}`}
	n, err := io.CopyN(got, resp.Body, 100<<20)
	resp.Body.Close()
	if err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	if _, most := w.resident(t); most-before > growth {
		t.Errorf("the process grew by %d MiB over an answer of 100 MiB", (most-before)>>20)
	}

	// The simulator takes files of 20 MB and skips the rest of a long field.
	form := new(bytes.Buffer)
	parts := multipart.NewWriter(form)
	for _, part := range []struct {
		name, file string
		size       int
	}{{"Description", "", 12 << 20}, {"File", "tool.bin", 18 << 20}} {
		into, err := parts.CreateFormField(part.name)
		if part.file != "" {
			into, err = parts.CreateFormFile(part.name, part.file)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := into.Write(bytes.Repeat([]byte("0123456789abcdef"), part.size/16)); err != nil {
			t.Fatal(err)
		}
	}
	parts.Close()
	sum := sha256.Sum256(form.Bytes())
	size := int64(form.Len())
	r, err = http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/api/libraryfiles", form)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", parts.FormDataContentType())
	resp, err = caller.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"fileName":"tool.bin"`) {
		t.Errorf("the upload: %d %s", resp.StatusCode, body)
	}
	up := w.arrivals(http.MethodPost, "/api/libraryfiles")
	if len(up) != 1 || up[0].BodyBytes != size || up[0].BodySHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("of %d bytes arrived %+v", size, up)
	}
	if _, most := w.resident(t); most-before > growth {
		t.Errorf("the process grew by %d MiB over an upload of 30 MiB", (most-before)>>20)
	}
}

// pattern checks a stream of rows as it comes.
type pattern struct {
	t         *testing.T
	head, row string
	at        int64
}

func (p *pattern) Write(b []byte) (int, error) {
	for i, c := range b {
		var want byte
		if at := p.at - int64(len(p.head)); at < 0 {
			want = p.head[p.at]
		} else {
			want = p.row[at%int64(len(p.row))]
		}
		if c != want {
			return i, fmt.Errorf("byte %d is %q, not %q", p.at, c, want)
		}
		p.at++
	}
	return len(b), nil
}

// A hunting query returns many thousands of rows; they are all there, in order.
func TestALongHuntingResultIsComplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { inRegions(c, "eu") }})
	const rows = 20_000
	a := w.do(http.MethodPost, "/api/advancedqueries/run", fmt.Sprintf(`{"Query":"DeviceNetworkEvents | take %d"}`, rows), "Content-Type", "application/json")
	var result struct {
		Schema  []struct{ Name, Type string }
		Results []struct{ ReportID *int64 }
	}
	if err := json.Unmarshal(a.body, &result); err != nil || a.status != http.StatusOK || a.err != nil || len(result.Results) != rows {
		t.Fatalf("%d of %d rows: %v, %d bytes, %v", len(result.Results), rows, err, len(a.body), a.err)
	}
	for i, row := range result.Results {
		if row.ReportID == nil || *row.ReportID != int64(i) {
			t.Fatalf("row %d is %v", i, row.ReportID)
		}
	}
}

// Three hundred requests of every kind, many of them given up in the middle.
// When they are over the process has as many goroutines and connections as
// before, and so has Microsoft's side.
func TestAfterManyRequestsNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { inRegions(c, "eu") }})
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultSlowBody, Match: "/api/machines"}); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	client := &http.Client{Transport: transport}
	burst := func(requests int) {
		var callers sync.WaitGroup
		places := make(chan struct{}, 24)
		for i := range requests {
			places <- struct{}{}
			callers.Go(func() {
				defer func() { <-places }()
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				method, path := http.MethodGet, "/api/alerts?$top=50"
				switch i % 5 {
				case 1: // given up in the middle of its body
					path = "/api/machines"
				case 2: // given up before there is an answer
					path = "/api/machines?$top=3"
				case 3:
					method, path = http.MethodPost, "/api/machines/1/isolate"
				}
				r, err := http.NewRequestWithContext(ctx, method, w.url+path, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if i%5 == 2 {
					cancel() // at once, or while it is on its way
				}
				resp, err := client.Do(r)
				if err != nil {
					if i%5 != 2 {
						t.Errorf("%s %s: %v", method, path, err)
					}
					return
				}
				defer resp.Body.Close()
				if i%5 == 1 {
					_, _ = io.CopyN(io.Discard, resp.Body, 512)
					cancel()
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil && i%5 != 2 {
					t.Errorf("%s %s: %v", method, path, err)
				}
			})
		}
		callers.Wait()
		transport.CloseIdleConnections()
	}
	settled := func() (goroutines, descriptors float64) {
		m := w.metrics()
		return m["go_goroutines"], m["process_open_fds"]
	}
	// The first burst brings what stays: warm connections to the region.
	burst(60)
	if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	var goroutines, descriptors float64
	w.eventually("the first burst has settled", func() error {
		g, d := settled()
		if g != goroutines || d != descriptors {
			goroutines, descriptors = g, d
			return fmt.Errorf("%v goroutines, %v descriptors", g, d)
		}
		return nil
	})
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultSlowBody, Match: "/api/machines"}); err != nil {
		t.Fatal(err)
	}
	burst(300)
	// Two goroutines and a descriptor go with each warm connection to the
	// region, of which up to 24 more may be kept for a while.
	const warm = 24
	w.eventually("the second has left nothing", func() error {
		g, d := settled()
		if g > goroutines+2*warm || d > descriptors+warm {
			return fmt.Errorf("%v goroutines after %v, %v descriptors after %v", g, goroutines, d, descriptors)
		}
		return nil
	})
	w.eventually("nothing is running at Microsoft's side", func() error {
		for _, r := range w.upstream() {
			if r.Status == 0 {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})
}
