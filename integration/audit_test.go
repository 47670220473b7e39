package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"defender-proxy/internal/simulator"
)

// audited is a proxy that may respond, and whose records go to a file with a chain.
func audited(file string, more object) setup {
	s := respond(nil)
	grant := s.config
	s.config = func(c object) {
		grant(c)
		a := object{"file": file, "chain": true}
		for key, value := range more {
			a[key] = value
		}
		c["audit"] = a
		inRegions(c, "eu")
	}
	return s
}

// verify runs audit verify on the files of a chain, and gives its exit code.
func verify(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	out, err := command(nil, append([]string{"audit", "verify"}, args...)...).CombinedOutput()
	exit := interface{ ExitCode() int }(nil)
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

// auditFiles gives the file and those put aside, the oldest first.
func auditFiles(t *testing.T, file string) []string {
	t.Helper()
	aside, err := filepath.Glob(file + ".2*Z")
	if err != nil {
		t.Fatal(err)
	}
	return append(aside, file)
}

// A day at the proxy: reads, writes, refusals of each kind, broken requests, a
// restart. Every line is as the schema says, which is what those who take the records
// in go by; nobody changed one, and when somebody does, it shows.
func TestTheRecordsOfADayAreAsTheSchemaSaysAndTheirChainIsWhole(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, audited(file, object{"max_bytes": "4KiB", "keep": 1000}))
	day := func() {
		w.get("/api/alerts?$top=2&$filter=severity+eq+'High'", "User-Agent", "tool \"ü\"\x09\\", "X-Forwarded-For", "10.9.9.9")
		w.get("/t/contoso/api/machines/" + w.sim.MachineID())
		w.do(http.MethodPost, "/api/machines/"+w.sim.MachineID()+"/isolate", `{"Comment":"x","IsolationType":"Full"}`, "Content-Type", "application/json")
		w.do(http.MethodPost, "/api/advancedqueries/run", `{"Query":"DeviceInfo"}`, "Content-Type", "application/json")
		w.do(http.MethodPost, "/api/indicators", `{}`)                                          // not granted
		w.do(http.MethodDelete, "/api/alerts", "")                                              // no such method
		w.get("/api/nothing/of/the/kind")                                                       // unknown
		w.get("/api/alerts/..%2f..%2fmachines")                                                 // no canonical form
		w.get("/t/nobody/api/alerts")                                                           // no such tenant
		w.get("/api/alerts", "Host", "evil.example")                                            // not our name
		w.get("/api/alerts", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")  // a page of somebody else
		w.get("/api/alerts?sig=s3cr3tsignature&access_token=s3cr3ttoken&$filter=s3cr3tmachine") // values that are nobody's business
		w.get("/-/whoami")
		w.get("/")
		c, err := net.Dial("tcp", w.address())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /api/alerts HTTP/1.1\r\nHost: %s\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", w.address())
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
	}
	day()
	w.stop()
	w.wait()
	w.process = start(t, "", w.file, secretVariable+"="+simulator.DefaultSecret)
	w.ready()
	day()
	var report struct {
		Seq, Stored uint64
		Head        string
	}
	if a := w.get(w.admin + "/-/audit"); a.status != http.StatusOK || json.Unmarshal(a.body, &report) != nil || report.Stored < 16 || report.Seq < 32 || len(report.Head) != 64 {
		t.Errorf("/-/audit: %v", a)
	}
	w.stop()
	w.wait()

	files := auditFiles(t, file)
	if len(files) < 4 {
		t.Errorf("only %d files", len(files))
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile("../docs/audit.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]bool{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"s3cr3t", simulator.DefaultSecret} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds %s", name, secret)
			}
		}
		for line := range bytes.Lines(text) {
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
			if err == nil {
				err = schema.Validate(v)
			}
			if err != nil {
				t.Errorf("by the schema the line is wrong: %v\n%s", err, line)
			}
		}
		for _, r := range records(t, text) {
			codes[r.Code] = true
		}
	}
	for _, code := range []string{"", "NotGranted", "MethodNotAllowed", "UnknownOperation", "InvalidPath", "UnknownTenant", "HostNotAllowed", "CrossSiteRequest"} {
		if !codes[code] {
			t.Errorf("no record has the code %q; there are %v", code, codes)
		}
	}

	if code, said := verify(t, append([]string{"--head", report.Head}, files...)...); code != 0 || !strings.Contains(said, "The chain is whole") {
		t.Errorf("audit verify exits with %d: %s", code, said)
	}
	text, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[1], bytes.Replace(text, []byte(`"address":"127.0.0.1"`), []byte(`"address":"127.0.0.7"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := verify(t, files...); code != 1 || !strings.Contains(said, "FAULT "+files[1]) {
		t.Errorf("after a change audit verify exits with %d: %s", code, said)
	}
}

// The process is killed in the midst of writes, three times. Of each isolation that
// arrived at Microsoft's there is an intent, and the chain goes on.
func TestAKilledProxyLeavesAnIntentOfEachWriteThatWasSent(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, audited(file, nil))
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	for round := range 3 {
		arrived := len(w.arrivals(http.MethodPost, path))
		ctx, cancel := context.WithCancel(context.Background())
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for ctx.Err() == nil {
					if _, err := ask(ctx, http.MethodPost, w.url+path, `{"Comment":"x","IsolationType":"Full"}`, "Content-Type", "application/json"); err != nil {
						return // it was killed
					}
				}
			})
		}
		w.eventually("isolations arrive", func() error {
			if n := len(w.arrivals(http.MethodPost, path)); n < arrived+40 {
				return fmt.Errorf("%d", n-arrived)
			}
			return nil
		})
		w.expected = -1
		if err := w.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		w.wait()
		cancel()
		callers.Wait()
		intents := 0
		for _, r := range auditFile(t, file) {
			if r.Event == "intent" {
				intents++
			}
		}
		if n := len(w.arrivals(http.MethodPost, path)); intents < n {
			t.Errorf("round %d: %d isolations arrived, and there are %d intents", round, n, intents)
		}
		w.process = start(t, "", w.file, secretVariable+"="+simulator.DefaultSecret)
		w.ready()
	}
	if code, said := verify(t, file); code != 0 {
		t.Errorf("audit verify exits with %d: %s", code, said)
	}
}

// Two others get the records as well: a syslog server that reads octet counts, and a
// collector of OpenTelemetry. Both have every line of the file when the proxy ends.
func TestSyslogAndACollectorHaveEachRecordOfTheFile(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var syslog output
	var server sync.WaitGroup
	server.Go(func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(&syslog, c)
			_ = c.Close()
		}
	})
	defer server.Wait()
	defer l.Close()
	var collected output
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data logspb.LogsData
		if err == nil {
			err = protojson.Unmarshal(body, &data)
		}
		if err != nil || r.URL.Path != "/v1/logs" {
			t.Errorf("%s: %v", r.URL, err)
			return
		}
		for _, of := range data.ResourceLogs {
			for _, s := range of.ScopeLogs {
				for _, record := range s.LogRecords {
					_, _ = collected.Write([]byte(record.Body.GetStringValue() + "\n"))
				}
			}
		}
	}))
	defer collector.Close()

	file := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, audited(file, object{"syslog": "tcp://" + l.Addr().String(), "otlp": collector.URL}))
	for range 50 {
		w.get("/api/alerts?$top=1")
		w.do(http.MethodPost, "/api/machines/"+w.sim.MachineID()+"/isolate", `{"Comment":"x","IsolationType":"Full"}`, "Content-Type", "application/json")
	}
	w.stop()
	w.wait()

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(bytes.Lines(text))
	if len(lines) < 150 {
		t.Errorf("only %d records", len(lines))
	}
	if !bytes.Equal(collected.bytes(), text) {
		t.Errorf("the collector has\n%s\nthe file\n%s", collected.String(), text)
	}
	w.eventually("the syslog server has read all", func() error {
		rest := syslog.bytes()
		for i, line := range lines {
			at := bytes.Index(rest, bytes.TrimSuffix(line, []byte("\n")))
			if at < 0 {
				return fmt.Errorf("record %d is not there, or not in its place: %s", i, line)
			}
			rest = rest[at:]
		}
		return nil
	})
}
