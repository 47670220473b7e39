package integration

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

const (
	oldMDE   = "/api/advancedqueries/run"
	oldXDR   = "/api/advancedhunting/run"
	newGraph = "/v1.0/security/runHuntingQuery"
)

// inGraph is the simulator's region that stands for Microsoft Graph's only endpoint.
const inGraph = "au"

// hunting sets which API answers the older hunting calls. Those are in some regions,
// Microsoft Graph in one of its own.
func hunting(c object, way string, regions ...string) {
	c["tenants"].([]object)[0]["hunting"] = way
	if way == "auto" { // what is tried has to be so after the day as well
		var later []object
		for _, id := range []string{"hunting.runMDE", "hunting.runXDR", "hunting.runMDEByKey"} {
			later = append(later, object{"id": id, "sunset": "2999-01-01"})
		}
		c["policy"] = object{"operations": later}
	}
	endpoints := c["clouds"].([]object)[0]["endpoints"].(object)
	endpoints["graph"] = object{"global": endpoints["mde"].(object)[inGraph]}
	inRegions(c, append(regions, "global")...)
}

// apart fails where a hunting query came to a region of the other API, or with a token
// that was not meant for it.
func (w *world) apart() {
	w.t.Helper()
	for _, r := range w.upstream() {
		path, _, _ := strings.Cut(r.Target, "?")
		if path != newGraph && path != oldMDE && path != oldXDR {
			continue
		}
		if (path == newGraph) != (r.Region == inGraph) || r.Host != strings.TrimPrefix(w.sim.Endpoint(r.Region), "https://") || r.Status == http.StatusUnauthorized {
			w.t.Errorf("%s %s came to %s (%s), which answered %d", r.Method, r.Target, r.Region, r.Host, r.Status)
		}
	}
}

// legacyTool reads an answer as tools of the older APIs do: Schema for the columns,
// Results for the rows, and for Defender XDR the statistics.
type legacyTool struct {
	Stats *struct {
		ExecutionTime float64
		Dataset       []struct {
			Rows int `json:"table_row_count"`
			Size int `json:"table_size"`
		} `json:"dataset_statistics"`
	}
	Schema  []struct{ Name, Type string }
	Results []map[string]any
}

// hunt asks as a legacy tool does, and says what of the answer it cannot read.
func (w *world) hunt(path, query string) (legacyTool, error) {
	var out legacyTool
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	body, _ := json.Marshal(map[string]string{"Query": query})
	a, err := ask(ctx, http.MethodPost, w.url+path, string(body), "Content-Type", "application/json")
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(a.body, &out); err != nil || a.status != http.StatusOK || a.err != nil {
		return out, fmt.Errorf("%s: %v: %v", path, err, a)
	}
	if len(out.Schema) == 0 || out.Results == nil || (path == oldXDR) != (out.Stats != nil) {
		return out, fmt.Errorf("%s: a tool of the older API cannot read %v", path, a)
	}
	for _, row := range out.Results {
		for _, column := range out.Schema {
			if _, ok := row[column.Name]; !ok {
				return out, fmt.Errorf("%s: column %s is not in %v", path, column.Name, row)
			}
		}
		if len(row) != len(out.Schema) {
			return out, fmt.Errorf("%s: a row of %d members for %d columns: %v", path, len(row), len(out.Schema), row)
		}
	}
	return out, nil
}

const fewProcesses = "DeviceProcessEvents | project Timestamp, FileName, ProcessId, ReportId | take 25"

// Scripts hunt all day, and nobody has touched them in years. One day Microsoft
// switches the older APIs off. No script sees an error, or another answer than
// before; the operator sees in the audit, the report and the metric who still asks
// for what is gone.
func TestNobodyNoticesThatTheOldHuntingAPIsAreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { hunting(c, "auto", "eu", "uk") }})
	before := map[string]legacyTool{}
	for _, path := range []string{oldMDE, oldXDR} {
		out, err := w.hunt(path, fewProcesses)
		if err != nil || len(out.Results) != 25 {
			t.Fatalf("before: %v", err)
		}
		before[path] = out
	}
	if got := len(w.arrivals(http.MethodPost, newGraph)); got != 0 {
		t.Errorf("Graph was asked %d times before", got)
	}

	var asking sync.WaitGroup
	var stop atomic.Bool
	var asked atomic.Int64
	for i := range 4 {
		asking.Go(func() {
			path := []string{oldMDE, oldXDR}[i%2]
			for !stop.Load() {
				out, err := w.hunt(path, fewProcesses)
				asked.Add(1)
				if err != nil || !slices.EqualFunc(out.Results, before[path].Results, sameRow) || !slices.Equal(out.Schema, before[path].Schema) {
					t.Errorf("while they were switched off: %v\n%v", err, out.Results)
					return
				}
			}
		})
	}
	w.eventually("some have asked", func() error {
		if asked.Load() < 8 {
			return fmt.Errorf("%d have", asked.Load())
		}
		return nil
	})
	if err := w.sim.SetRetired(http.StatusGone); err != nil {
		t.Fatal(err)
	}
	now := asked.Load()
	w.eventually("some have asked afterwards", func() error {
		if asked.Load() < now+16 {
			return fmt.Errorf("%d have", asked.Load()-now)
		}
		return nil
	})
	stop.Store(true)
	asking.Wait()

	w.apart()

	// Of what is gone nobody asks again: the next goes to Graph alone.
	w.sim.ResetRequests()
	a := w.do(http.MethodPost, oldMDE, `{"Query":"DeviceInfo | take 1"}`) // without a type, as curl -d would have it of another kind
	w.apart()
	if got := w.upstream(); len(got) != 1 || got[0].Operation != "graph.hunting.run" || got[0].Header.Get("Content-Type") != "application/json" || a.status != http.StatusOK {
		t.Errorf("asked %+v, answered %v", got, a)
	}
	if a.header.Get("Sunset") != "Tue, 01 Jan 2999 00:00:00 GMT" || a.header.Get("Deprecation") != "@1770336000" || !strings.Contains(strings.Join(a.header["Link"], ","), `rel="successor-version"`) {
		t.Errorf("headers %v", a.header)
	}
	var rec struct {
		Operation, Class, Path string
		SentAs                 string `json:"sent_as"`
	}
	w.recordsOf(a)
	for line := range bytes.Lines(w.stdout.bytes()) {
		if bytes.Contains(line, []byte(a.header.Get("X-Request-Id"))) && json.Unmarshal(line, &rec) == nil {
			break
		}
	}
	if rec.Operation != "hunting.runMDE" || rec.SentAs != "graph.hunting.run" || rec.Class != "hunt" || rec.Path != oldMDE {
		t.Errorf("record %+v", rec)
	}

	var report struct {
		Retiring []struct {
			Operation, Sunset, Successor string
			Clients                      []struct {
				Client, Tenant string
				Count, Bridged int
				Last           time.Time
			}
		}
	}
	page := w.get(w.admin + "/-/usage").body
	if err := json.Unmarshal(page, &report); err != nil || len(report.Retiring) != 2 {
		t.Fatalf("%v: %s", err, page)
	}
	for i, id := range []string{"hunting.runMDE", "hunting.runXDR"} {
		r := report.Retiring[i]
		if r.Operation != id || r.Sunset != "2999-01-01" || r.Successor != "graph.hunting.run" || len(r.Clients) != 1 {
			t.Errorf("%+v", r)
			continue
		}
		if c := r.Clients[0]; c.Client != "local" || c.Tenant != "contoso" || c.Count < 5 || c.Bridged < 4 || c.Bridged >= c.Count || c.Last.IsZero() {
			t.Errorf("%s: %+v", id, c)
		}
		if got := sum(w.metrics(), "defender_proxy_retiring_requests_total", `operation="`+id+`"`, `client="local"`); int(got) < r.Clients[0].Count {
			t.Errorf("%s: the metric has %v, the report %d", id, got, r.Clients[0].Count)
		}
	}
	table := string(w.run(t, "usage", "--admin", w.admin))
	if !strings.Contains(table, "Microsoft retires these operations") || !strings.Contains(table, "hunting.runXDR  2999-01-01") {
		t.Errorf("the command:\n%s", table)
	}

	// It is remembered for the tenant, not for the configuration.
	if a := w.do(http.MethodPost, w.admin+"/-/reload", ""); a.status != http.StatusOK {
		t.Fatalf("reload: %v", a)
	}
	w.sim.ResetRequests()
	if _, err := w.hunt(oldXDR, fewProcesses); err != nil || len(w.arrivals(http.MethodPost, oldXDR)) != 0 {
		t.Errorf("after a reload: %v, asked %d times for what is gone", err, len(w.arrivals(http.MethodPost, oldXDR)))
	}
}

func sameRow(a, b map[string]any) bool {
	for name, v := range a {
		if fmt.Sprint(b[name]) != fmt.Sprint(v) {
			return false
		}
	}
	return len(a) == len(b)
}

// A query gives as many rows as there may be. They come through as they are sent,
// packed and plain, and the process hardly grows.
func TestAHundredThousandRowsCrossTheBridge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { hunting(c, "graph", "eu") }})
	const query = `{"Query":"DeviceProcessEvents"}`
	for range 5 { // warm
		if _, err := w.hunt(oldMDE, fewProcesses); err != nil {
			t.Fatal(err)
		}
	}
	var before int64
	if runtime.GOOS == "linux" {
		before, _ = w.resident(t)
	}
	for _, encoding := range []string{"identity", "gzip"} {
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+oldXDR, strings.NewReader(query))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept-Encoding", encoding)
		resp, err := caller.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		src := io.Reader(resp.Body)
		if encoding == "gzip" {
			if resp.Header.Get("Content-Encoding") != "gzip" {
				t.Fatalf("not packed: %v", resp.Header)
			}
			if src, err = gzip.NewReader(resp.Body); err != nil {
				t.Fatal(err)
			}
		}
		rows, size, err := countRows(src)
		resp.Body.Close()
		if err != nil || rows != 100_000 || size < 30<<20 {
			t.Errorf("%s: %d rows of %d bytes, %v", encoding, rows, size, err)
		}
	}
	if runtime.GOOS == "linux" {
		if _, most := w.resident(t); most-before > growth {
			t.Errorf("the process grew by %d MiB", (most-before)>>20)
		}
	}
}

// countRows reads an answer as it comes, and holds one row.
func countRows(src io.Reader) (rows int, size int64, err error) {
	counted := &countingReader{src: src}
	d := json.NewDecoder(counted)
	var stats int
	for {
		tok, err := d.Token()
		if err == io.EOF {
			if stats != rows {
				return rows, counted.n, fmt.Errorf("Stats tell of %d rows", stats)
			}
			return rows, counted.n, nil
		}
		if err != nil {
			return rows, counted.n, err
		}
		switch tok {
		case "Results":
			if _, err := d.Token(); err != nil {
				return rows, counted.n, err
			}
			for d.More() {
				var row struct {
					ReportId   *int
					Annotation any `json:"ReportId@odata.type"`
				}
				if err := d.Decode(&row); err != nil || row.ReportId == nil || *row.ReportId != rows || row.Annotation != nil {
					return rows, counted.n, fmt.Errorf("row %d: %+v, %w", rows, row, err)
				}
				rows++
			}
		case "table_row_count":
			if err := d.Decode(&stats); err != nil {
				return rows, counted.n, err
			}
		}
	}
}

type countingReader struct {
	src io.Reader
	n   int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.n += int64(n)
	return n, err
}

// What Graph refuses reaches an old tool in words that it knows.
func TestErrorsCrossTheBridgeInTheOldShape(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{Quotas: true}, config: func(c object) {
		hunting(c, "graph", "eu")
		c["quota"] = object{"max_wait": "0s"}
	}})
	shape := func(a answer, status int, code, words string) {
		t.Helper()
		var e struct{ Error map[string]any }
		if err := json.Unmarshal(a.body, &e); err != nil || a.status != status || e.Error["code"] != code || !strings.Contains(fmt.Sprint(e.Error["message"]), words) || e.Error["target"] != a.header.Get("request-id") || len(e.Error) != 3 || a.ours() {
			t.Errorf("want %d %s %q: %v", status, code, words, a)
		}
		if a.header.Get("Sunset") == "" {
			t.Errorf("no Sunset: %v", a.header)
		}
	}
	shape(w.do(http.MethodPost, oldMDE, `{"Query":"Nothing | take 1"}`, "Content-Type", "application/json"), 400, "BadRequest", "Fix semantic errors in your query")
	shape(w.do(http.MethodPost, oldXDR, `{}`, "Content-Type", "application/json"), 400, "MissingRequiredParameter", "Query")
	var last answer
	for range 50 {
		if last = w.do(http.MethodPost, oldMDE, `{"Query":"DeviceInfo | take 1"}`, "Content-Type", "application/json"); last.status != http.StatusOK {
			break
		}
	}
	shape(last, 429, "TooManyRequests", "45 calls per minute")
	if last.header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %v", last.header)
	}
	for kind, want := range map[simulator.FaultKind]string{simulator.FaultTruncate: "InvalidAnswer", simulator.FaultGarbage: "InvalidAnswer"} {
		if err := w.sim.SetRegion(inGraph, simulator.Fault{Kind: kind, Match: newGraph}); err != nil {
			t.Fatal(err)
		}
		if code, _ := w.do(http.MethodPost, oldMDE, `{"Query":"DeviceInfo | take 1"}`).refused(); code != want {
			t.Errorf("%s: %q", kind, code)
		}
	}
}

// The operator has not granted the application Graph's permission. check and explain
// say so beforehand; until the older API is gone its answers come, and then the
// refusal says what is wanted.
func TestWhatTheBridgeNeedsIsToldBeforehand(t *testing.T) {
	t.Parallel()
	tenant := simulator.DefaultTenant()
	held := tenant.Apps[0].Permissions
	held["graph"] = slices.DeleteFunc(slices.Clone(held["graph"]), func(p string) bool { return p == "ThreatHunting.Read.All" })
	w := newWorld(t, setup{sim: simulator.Config{Tenants: []simulator.Tenant{tenant}}, config: func(c object) {
		hunting(c, "auto", "eu")
		allow(c, "hunting.runMDE", "hunting.runXDR")
	}})
	check, err := command([]string{secretVariable + "=" + simulator.DefaultSecret}, "check", "--online", "--config", w.file).CombinedOutput()
	if err == nil || !bytes.Contains(check, []byte("MISSING  ThreatHunting.Read.All\n             for hunting.runMDE, hunting.runXDR, granted to local")) || !bytes.Contains(check, []byte("CallAnAPI")) {
		t.Errorf("check: %v\n%s", err, check)
	}
	explain := string(w.run(t, "explain", "POST", oldMDE, "--config", w.file, "--online"))
	if strings.Contains(explain, "ThreatHunting.Read.All") || !strings.Contains(explain, "AdvancedQuery.Read.All") {
		t.Errorf("explain, before:\n%s", explain)
	}
	if _, err := w.hunt(oldMDE, fewProcesses); err != nil {
		t.Errorf("before: %v", err)
	}
	if err := w.sim.SetRetired(http.StatusNotFound); err != nil {
		t.Fatal(err)
	}
	a := w.do(http.MethodPost, oldMDE, `{"Query":"DeviceInfo"}`, "Content-Type", "application/json")
	code, message := a.refused()
	if code != "MissingPermission" || a.status != http.StatusForbidden || !strings.Contains(message, "answered 404 to POST "+oldMDE+": that API is gone.") || !strings.Contains(message, "needs ThreatHunting.Read.All") {
		t.Errorf("after: %v", a)
	}
	w.apart()
	late := command([]string{secretVariable + "=" + simulator.DefaultSecret}, "explain", "POST", oldMDE, "--config", w.file, "--at", "2999-01-01T00:00:00Z")
	if out, err := late.Output(); err != nil || !bytes.Contains(out, []byte("graph.hunting.run")) || !bytes.Contains(out, []byte("ThreatHunting.Read.All")) || !bytes.Contains(out, []byte(newGraph)) {
		t.Errorf("explain of the day on which they end: %v\n%s", err, out)
	}
}
