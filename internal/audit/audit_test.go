package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fullRecord has a value in every field.
func fullRecord() *Record {
	return &Record{
		Event: Request, Time: time.Date(2026, 11, 21, 1, 2, 3, 4e6, time.FixedZone("CET", 3600)), ID: "id-1",
		Listener: "127.0.0.1:8080", Client: "local", Address: netip.MustParseAddr("127.0.0.1"), Method: "POST",
		Path: "/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/isolate", Tenant: "contoso", Operation: "machines.isolate",
		Class: "respond", Decision: "allowed", Rule: "respond", Code: "X", Reason: "a \"quoted\"\nreason", Region: "eu",
		RegionReason: "nearest: 4ms", Waited: time.Second, Tried: []string{"us", "eu"}, Attempts: 2, Status: 200, BytesIn: 1,
		BytesOut: 2, FirstByte: 1500 * time.Microsecond, Duration: 2 * time.Millisecond, TokenUTI: "u", UserAgent: "curl/8.5 (ü)",
		Query: "$top=10", Via: netip.MustParseAddr("2001:db8::1"), Process: true, UID: 1000, GID: 4294967295, PID: 77,
		Certificate: "spiffe://corp.example/soc", Reported: []string{"NotGranted", "MissingPermission"}, Approval: "A1",
		ApprovalState: "approved", ApprovedBy: "soc-leads", ApproverAddress: netip.MustParseAddr("10.0.0.9"), Annotated: true,
		SentAs: "hunting.graphRun", File: "a.blob.core.windows.net/packages/a%20b/p.zip",
	}
}

func TestARecordIsOneLineOfJSON(t *testing.T) {
	var b bytes.Buffer
	full := fullRecord()
	for v, i := reflect.ValueOf(full).Elem(), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Fatalf("this test gives no value to field %s", v.Type().Field(i).Name)
		}
	}
	if err := New(&b).Write(full); err != nil {
		t.Fatal(err)
	}
	if strings.Count(b.String(), "\n") != 1 {
		t.Fatalf("not one line: %q", b.String())
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"sent_as": "hunting.graphRun", "file": "a.blob.core.windows.net/packages/a%20b/p.zip",
		"time": "2026-11-21T00:02:03.004Z", "event": "request", "reason": "a \"quoted\"\nreason",
		"attempts": 2.0, "status": 200.0, "first_byte_ms": 1.5, "waited_ms": 1000.0, "region_reason": "nearest: 4ms", "address": "127.0.0.1",
		"via": "2001:db8::1", "uid": 1000.0, "gid": 4294967295.0, "pid": 77.0, "approver_address": "10.0.0.9", "annotated": true,
		"query": "$top=10", "certificate": "spiffe://corp.example/soc",
		"path": "/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/isolate",
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	if n := reflect.TypeFor[Record]().NumField() - 1; len(got) != n { // Process has no member
		t.Errorf("the line has %d members for the %d fields of a full Record: %s", len(got), n, b.String())
	}
}

// Root is a user as well, and its number is not left out.
func TestAPeerWithTheNumbersZeroIsInTheRecord(t *testing.T) {
	var b bytes.Buffer
	if err := New(&b).Write(&Record{Event: Request, Process: true}); err != nil {
		t.Fatal(err)
	}
	if want := `"uid":0,"gid":0,"pid":0`; !strings.Contains(b.String(), want) {
		t.Errorf("no %s in %s", want, b.String())
	}
}

func TestWhatIsNotKnownIsLeftOut(t *testing.T) {
	var b bytes.Buffer
	if err := New(&b).Write(&Record{Event: Intent, ID: "x"}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"tenant", "status", "address", "duration_ms", "token_uti"} {
		if strings.Contains(b.String(), `"`+key+`"`) {
			t.Errorf("%s is in %s", key, b.String())
		}
	}
}

type brokenWriter struct{ n int }

func (w brokenWriter) Write(p []byte) (int, error) {
	if w.n < 0 {
		return 0, errors.New("no space left on device")
	}
	return w.n, nil
}

func TestAFailedWriteIsTold(t *testing.T) {
	if err := New(brokenWriter{-1}).Write(&Record{}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v, want the writer's error", err)
	}
	if err := New(brokenWriter{3}).Write(&Record{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v, want io.ErrShortWrite", err)
	}
}

func TestLinesStayWholeUnderConcurrency(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := Open(Settings{File: path}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if err := log.Write(&Record{Event: Request, ID: "i", Path: strings.Repeat("x", 300)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range all {
		if !json.Valid([]byte(line)) {
			t.Fatalf("not JSON: %q", line)
		}
	}
	if len(all) != 800 {
		t.Errorf("%d lines, want 800", len(all))
	}
}

func TestOpen(t *testing.T) {
	var out, errs bytes.Buffer
	for name, w := range map[string]*bytes.Buffer{"stdout": &out, "stderr": &errs} {
		log, err := Open(Settings{File: name}, &out, &errs)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Write(&Record{ID: name}); err != nil || !strings.Contains(w.String(), name) {
			t.Errorf("%s got %q, %v", name, w, err)
		}
	}
	if _, err := Open(Settings{File: filepath.Join(t.TempDir(), "no", "such", "folder")}, nil, nil); err == nil {
		t.Error("a file in a folder that does not exist opens")
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := Open(Settings{File: path}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file has mode %v, %v; nobody else should read it", info.Mode(), err)
	}
}

func BenchmarkWrite(b *testing.B) {
	log := New(io.Discard)
	r := Record{Event: Request, Time: time.Now(), ID: "0198c7d0-0000-7000-8000-000000000000", Listener: "127.0.0.1:8080", Client: "local",
		Address: netip.MustParseAddr("127.0.0.1"), Method: "GET", Path: "/api/alerts", Tenant: "contoso", Operation: "alerts.list",
		Class: "read", Decision: "allowed", Rule: "read", Region: "eu", Attempts: 1, Status: 200, BytesOut: 1024, Duration: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		if err := log.Write(&r); err != nil {
			b.Fatal(err)
		}
	}
}

// logrotate moves the file away and sends SIGHUP.
func TestAFileThatWasMovedAwayIsOpenedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(Settings{File: path}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write := func(id string) {
		t.Helper()
		if err := l.Write(&Record{Event: Request, ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	reopen := func(want bool) {
		t.Helper()
		if again, err := l.Reopen(); again != want || err != nil {
			t.Fatalf("opened again: %v, %v; want %v", again, err, want)
		}
	}
	holds := func(path string, ids ...string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil || strings.Count(string(text), "\n") != len(ids) {
			t.Fatalf("%s: %q, %v; want records %q", path, text, err, ids)
		}
		for _, id := range ids {
			if !strings.Contains(string(text), `"request_id":"`+id+`"`) {
				t.Errorf("%s does not hold %s: %s", path, id, text)
			}
		}
	}
	write("1")
	reopen(false)
	write("2")
	if runtime.GOOS == "windows" {
		return // where an open file cannot be moved
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("3") // until somebody says so
	reopen(true)
	reopen(false)
	write("4")
	holds(path+".1", "1", "2", "3")
	holds(path, "4")

	// Where it cannot be opened, records go on into the file that is open.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if again, err := l.Reopen(); again || err == nil {
		t.Errorf("a folder in its place: %v, %v", again, err)
	}
	write("5")
	holds(path+".2", "4", "5")

	if again, err := New(io.Discard).Reopen(); again || err != nil {
		t.Errorf("standard output: %v, %v", again, err)
	}
}
