package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// respond is a setup in which machines may be isolated: granted and permitted.
func respond(c func(object)) setup {
	return setup{
		permissions: map[string][]string{"mde": {"Machine.Isolate"}},
		config: func(o object) {
			allow(o, "read", "hunt", "machines.isolate")
			if c != nil {
				c(o)
			}
		},
	}
}

// Whatever is refused ends at the proxy: the caller reads which code and why,
// there is a record, and nothing arrived at Microsoft's side, not even a
// question for a token.
func TestNothingThatWasRefusedArrivesUpstream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{
		config: func(c object) {
			allow(c, "read", "hunt", "triage")
			c["clients"].([]object)[0]["deny"] = []string{"users.alerts"}
			c["limits"] = object{"max_request_bytes": "64KiB"}
		},
	})
	w.sim.ResetRequests()
	host := "Host: " + w.address() + "\r\n"
	type refusal struct {
		name, line, headers, body string
		status                    int
		code                      string
	}
	cases := []refusal{
		{"a write that nobody granted", "POST /api/machines/1/isolate", "", `{"Comment":"x"}`, 403, "NotGranted"},
		{"a read that is denied", "GET /api/users/ann/alerts", "", "", 403, "NotGranted"},
		{"a write that is granted and not permitted", "PATCH /api/alerts/1", "", `{"status":"Resolved"}`, 403, "MissingPermission"},
		{"a read that is not permitted", "GET /api/indicators", "", "", 403, "MissingPermission"},
		{"a path that is in no catalog", "GET /api/secrets", "", "", 404, "UnknownOperation"},
		{"a path of another API", "GET /v1.0/users", "", "", 404, "UnknownOperation"},
		{"an OData batch", "POST /api/$batch", "", "{}", 404, "UnknownOperation"},
		{"a method that the path does not take", "DELETE /api/alerts", "", "", 405, "MethodNotAllowed"},
		{"a method that does not exist", "BREW /api/alerts", "", "", 405, "MethodNotAllowed"},
		{"TRACE", "TRACE /api/alerts", "", "", 405, "MethodNotAllowed"},
		{"a tunnel", "CONNECT " + w.address(), "", "", 405, "MethodNotAllowed"},
		{"an unknown tenant", "GET /t/fabrikam/api/alerts", "", "", 404, "UnknownTenant"},
		{"another host's name", "GET /api/alerts", "Host: rebound.example\r\n", "", 421, "HostNotAllowed"},
		{"an absolute target of another host", "GET http://rebound.example/api/alerts", "Host: rebound.example\r\n", "", 421, "HostNotAllowed"},
		{"a page of another origin", "GET /api/alerts", host + "Origin: https://evil.example\r\n", "", 403, "CrossSiteRequest"},
		{"a page without an origin", "GET /api/alerts", host + "Origin: null\r\n", "", 403, "CrossSiteRequest"},
		{"a cross-site read of a browser", "GET /api/alerts", host + "Sec-Fetch-Site: cross-site\r\n", "", 403, "CrossSiteRequest"},
		{"a body over the limit", "POST /api/advancedqueries/run", "", `{"Query":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "RequestTooLarge"},
		{"an unknown transfer coding", "POST /api/advancedqueries/run", host + "Transfer-Encoding: chunked, gzip\r\n", "", 501, ""},
		{"two hosts", "GET /api/alerts", host + host, "", 400, ""},
		{"two lengths", "POST /api/advancedqueries/run", host + "Content-Length: 3\r\nContent-Length: 4\r\n", "", 400, ""},
		{"an escape that is none", "GET /api/alerts/%zz", "", "", 400, ""},
		{"a space before a colon", "GET /api/alerts", host + "X-A : b\r\n", "", 400, ""},
	}
	for _, path := range []string{
		"/api/alerts/../machines", "/api/alerts/%2e%2e/machines", "/api/./alerts", "/api/alerts%2f1", "/api/alerts%5c1", `/api/alerts\1`,
		"/api//alerts", "/api/alerts;v=1", "/api/alerts/%00", "/api/alerts/%0d%0a", "/api/alerts/%252e", "/api/alerts/%3f", "/api/alerts/%23",
		"/api/alerts/%c0%ae", "/api/alerts#x", "/api/alert\xc3\xa9%ff", "/api/alerts/%25",
	} {
		cases = append(cases, refusal{"the path " + fmt.Sprintf("%q", path), "GET " + path, "", "", 400, "InvalidPath"})
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			w := w.in(t)
			if !strings.Contains(tc.headers, "Host:") {
				tc.headers += host
			}
			if tc.body != "" {
				tc.headers += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(tc.body))
			}
			got := raw(t, w.address(), tc.line+" HTTP/1.1\r\n"+tc.headers+"Connection: close\r\n\r\n"+tc.body)
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", tc.status)) {
				t.Fatalf("got %s, want %d %s", got, tc.status, tc.code)
			}
			if tc.code == "" {
				return // net/http's own refusal, before there is a request
			}
			_, id, _ := strings.Cut(got, "X-Request-Id: ")
			id, _, _ = strings.Cut(id, "\r\n")
			for _, want := range []string{`"code":"` + tc.code + `"`, `"target":"` + id + `"`, "Content-Type: application/json", "Proxy-Status: defender-proxy; error="} {
				if !strings.Contains(got, want) {
					t.Errorf("the answer lacks %s: %s", want, got)
				}
			}
			rs := w.recordsOf(answer{header: http.Header{"X-Request-Id": {id}}})
			if len(rs) != 1 || rs[0].Code != tc.code || rs[0].Status != tc.status || rs[0].Decision == "allowed" && tc.status < 413 {
				t.Errorf("its records: %+v", rs)
			}
		})
	}
	for _, r := range w.sim.Requests() {
		if r.Header.Get("Authorization") != "" || r.Listener == "api" && r.Method != http.MethodHead {
			t.Errorf("arrived: %+v", r)
		}
	}
}

// An analyst isolates a machine. The operator granted it and the token permits
// it, so it arrives once, with its body as it was sent; the intent was in the
// audit file before it left, and the outcome after. When the answer is lost, the
// caller is told that the machine may be isolated, and nobody tries again.
func TestAnIsolationArrivesOnceBetweenItsTwoRecords(t *testing.T) {
	t.Parallel()
	s := respond(nil)
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.jsonl")
	grant := s.config
	s.config = func(c object) {
		grant(c)
		c["audit"] = object{"file": file}
		inRegions(c, "eu")
		c["regions"] = object{"first_byte_timeout": "1s"}
	}
	w := newWorld(t, s)
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	// The first try is never answered, which leaves time to look at the file.
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultHang, Match: path}); err != nil {
		t.Fatal(err)
	}
	const body = `{"Comment":"ransomware","IsolationType":"Full"}`
	done := make(chan answer, 1)
	go func() { done <- w.do(http.MethodPost, path, body, "Content-Type", "application/json") }()
	w.eventually("the isolation arrives", func() error {
		if len(w.arrivals(http.MethodPost, path)) == 0 {
			return fmt.Errorf("nothing so far")
		}
		return nil
	})
	// It was written before the first byte left, so there is nothing to wait for.
	if rs := auditFile(t, file); len(rs) != 1 || rs[0].Event != "intent" || rs[0].Operation != "machines.isolate" || rs[0].Path != path {
		t.Errorf("on its arrival the records are %+v", rs)
	}
	a := <-done
	code, message := a.refused()
	if a.status != http.StatusGatewayTimeout || code != "RegionUnavailable" || !strings.Contains(message, "may have been carried out") || a.header.Get("Retry-After") != "" {
		t.Errorf("a lost answer to a write: %v", a)
	}
	if got := w.arrivals(http.MethodPost, path); len(got) != 1 {
		t.Errorf("it arrived %d times", len(got))
	}

	if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	w.sim.ResetRequests()
	a = w.do(http.MethodPost, path, body, "Content-Type", "application/json")
	if a.status != http.StatusCreated || !strings.HasPrefix(a.header.Get("Location"), w.url+"/api/machineactions/") {
		t.Fatalf("isolate: %v", a)
	}
	got := w.arrivals(http.MethodPost, path)
	if len(got) != 1 || got[0].Operation != "machines.isolate" || got[0].BodySHA256 != sha256Hex(body) || got[0].Header.Get("Content-Type") != "application/json" {
		t.Errorf("arrived: %+v", got)
	}
	var mine []record
	w.eventually("both records are there", func() error {
		mine = nil
		for _, r := range auditFile(t, file) {
			if r.RequestID == a.header.Get("X-Request-Id") {
				mine = append(mine, r)
			}
		}
		if len(mine) != 2 {
			return fmt.Errorf("there are %+v", mine)
		}
		return nil
	})
	if mine[0].Event != "intent" || mine[1].Event != "request" || mine[1].Status != http.StatusCreated || mine[0].TokenUTI == "" ||
		mine[1].BytesIn != int64(len(body)) || mine[0].Rule != "machines.isolate" {
		t.Errorf("its records are %+v", mine)
	}
	// The link leads to what it made.
	if b := w.get(a.header.Get("Location")); b.status != http.StatusOK || !strings.Contains(string(b.body), `"type":"Isolate"`) {
		t.Errorf("the action: %v", b)
	}
}

func auditFile(t *testing.T, file string) []record {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return records(t, data)
}

// A disk that is full takes no records. Reads go on; a write is refused, because
// nobody could tell afterwards that it was made.
func TestAWriteIsRefusedWhenItsRecordCannotBeStored(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // the device that takes no byte is Linux's
	}
	const full = "/dev/full"
	s := respond(nil)
	grant := s.config
	s.config = func(c object) { grant(c); c["audit"] = object{"file": full} }
	w := newWorld(t, s)
	w.faulty = []string{`"level":"error"`} // lost records are told
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	a := w.do(http.MethodPost, path, `{"Comment":"x"}`)
	if code, _ := a.refused(); a.status != http.StatusServiceUnavailable || code != "AuditUnavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("isolate: %v", a)
	}
	if got := w.arrivals(http.MethodPost, path); len(got) != 0 {
		t.Errorf("arrived: %+v", got)
	}
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
		t.Errorf("a read: %v", a)
	}
	w.eventually("the log tells of it", func() error {
		if !strings.Contains(w.stderr.String(), "audit records cannot be stored") {
			return fmt.Errorf("it does not")
		}
		return nil
	})
}
