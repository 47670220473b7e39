package audit

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// collector is a server of OTLP that answers as it is told, and well when it is told
// nothing.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	answers  []func(http.ResponseWriter)
	requests []*http.Request
	bodies   [][]byte
}

func newCollector(t *testing.T, answers ...func(http.ResponseWriter)) *collector {
	c := &collector{answers: answers}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests, c.bodies = append(c.requests, r), append(c.bodies, body)
		if len(c.answers) > 0 {
			answer := c.answers[0]
			c.answers = c.answers[1:]
			answer(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(c.Close)
	return c
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

// records gives what came, read by the messages of the specification; members that
// they do not know are an error.
func (c *collector) records(t *testing.T) (all []*logspb.LogRecord, of []*logspb.ResourceLogs) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, body := range c.bodies {
		var data logspb.LogsData
		if err := (protojson.UnmarshalOptions{DiscardUnknown: false}).Unmarshal(body, &data); err != nil {
			t.Fatalf("not a request of OTLP: %v\n%s", err, body)
		}
		for _, r := range data.ResourceLogs {
			of = append(of, r)
			for _, s := range r.ScopeLogs {
				all = append(all, s.LogRecords...)
			}
		}
	}
	return all, of
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.requests)
}

func values(list []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		m[kv.Key] = protojson.Format(kv.Value)
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			m[kv.Key] = "s:" + v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[kv.Key] = "i:" + strconv.FormatInt(v.IntValue, 10)
		case *commonpb.AnyValue_DoubleValue:
			m[kv.Key] = "d:" + strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
		case *commonpb.AnyValue_BoolValue:
			m[kv.Key] = "b:" + strconv.FormatBool(v.BoolValue)
		case *commonpb.AnyValue_ArrayValue:
			m[kv.Key] = "a:"
			for _, item := range v.ArrayValue.Values {
				m[kv.Key] += item.GetStringValue() + ","
			}
		}
	}
	return m
}

func TestACollectorGetsEachRecord(t *testing.T) {
	c := newCollector(t)
	path, log := fileLog(t, Settings{OTLP: c.URL, Chain: true, Version: "v1.2"})
	running(t, log)
	full, refused := fullRecord(), &Record{Event: Request, Time: time.Now(), ID: "2", Decision: "refused"}
	must(t, log.Write(full))
	must(t, log.Write(refused))
	eventually(t, "both are there", func() bool { return log.Stats().Places[0].Sent == 2 })

	got, of := c.records(t)
	if len(got) != 2 {
		t.Fatalf("%d records, want 2", len(got))
	}
	if r := c.requests[0]; r.Method != "POST" || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the request is %s %s of %s", r.Method, r.URL, r.Header.Get("Content-Type"))
	}
	resource := values(of[0].Resource.Attributes)
	if resource["service.name"] != "s:defender-proxy" || resource["service.version"] != "s:v1.2" {
		t.Errorf("the resource is %v", resource)
	}
	if s := of[0].ScopeLogs[0].Scope; s.Name != "defender-proxy/audit" || s.Version != "v1.2" {
		t.Errorf("the scope is %v", s)
	}
	lines := linesOf(t, path)
	for i, r := range got {
		if r.Body.GetStringValue()+"\n" != lines[i] {
			t.Errorf("the body is %s\nthe file has %s", r.Body.GetStringValue(), lines[i])
		}
	}
	first := got[0]
	if first.TimeUnixNano != uint64(full.Time.UnixNano()) || first.ObservedTimeUnixNano == 0 || first.EventName != "defender_proxy.audit.request" ||
		first.SeverityNumber != logspb.SeverityNumber_SEVERITY_NUMBER_INFO || got[1].SeverityNumber != logspb.SeverityNumber_SEVERITY_NUMBER_INFO2 {
		t.Errorf("got %v", first)
	}
	attributes := values(first.Attributes)
	for key, want := range map[string]string{
		"client.address": "s:127.0.0.1", "http.request.method": "s:POST", "url.path": "s:" + full.Path, "url.query": "s:$top=10",
		"http.response.status_code": "i:200", "http.request.body.size": "i:1", "http.response.body.size": "i:2", "error.type": "s:X",
		"user_agent.original": "s:curl/8.5 (ü)", "defender_proxy.request_id": "s:id-1", "defender_proxy.tenant": "s:contoso",
		"defender_proxy.first_byte_ms": "d:1.5", "defender_proxy.tried": "a:us,eu,", "defender_proxy.annotated": "b:true",
		"defender_proxy.gid": "i:4294967295", "defender_proxy.reason": "s:a \"quoted\"\nreason", "defender_proxy.seq": "i:1",
	} {
		if attributes[key] != want {
			t.Errorf("%s is %q, want %q", key, attributes[key], want)
		}
	}
	if _, ok := attributes["defender_proxy.time"]; ok {
		t.Error("the time is there twice")
	}
}

func TestWhatACollectorAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answers       []func(http.ResponseWriter)
		sent, dropped uint64
		requests      int
	}{
		"all is well":                {nil, 3, 0, 1},
		"204 is a success too":       {[]func(http.ResponseWriter){status(204)}, 3, 0, 1},
		"503 and 502 are tried anew": {[]func(http.ResponseWriter){status(503), status(502)}, 3, 0, 3},
		"429 with a Retry-After": {[]func(http.ResponseWriter){func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		}}, 3, 0, 2},
		"400 is not":        {[]func(http.ResponseWriter){status(400)}, 0, 3, 1},
		"500 is not":        {[]func(http.ResponseWriter){status(500)}, 0, 3, 1},
		"a redirect is not": {[]func(http.ResponseWriter){func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(307) }}, 0, 3, 1},
		"one is not taken": {[]func(http.ResponseWriter){func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}`)
		}}, 2, 1, 1},
		"a warning": {[]func(http.ResponseWriter){func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"partialSuccess":{"errorMessage":"slow down"}}`)
		}}, 3, 0, 1},
		"an absurd number":    {[]func(http.ResponseWriter){func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"partialSuccess":{"rejectedLogRecords":99}}`) }}, 0, 3, 1},
		"not JSON":            {[]func(http.ResponseWriter){func(w http.ResponseWriter) { _, _ = io.WriteString(w, `<html>`) }}, 3, 0, 1},
		"a connection broken": {[]func(http.ResponseWriter){func(http.ResponseWriter) { panic(http.ErrAbortHandler) }}, 3, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			server := newCollector(t, c.answers...)
			_, log := fileLog(t, Settings{OTLP: server.URL + "/custom/path?x=1"})
			for i := range 3 {
				must(t, log.Write(&Record{Event: Request, ID: fmt.Sprint(i)}))
			}
			running(t, log)
			eventually(t, "they are dealt with", func() bool { p := log.Stats().Places[0]; return p.Sent+p.Dropped == 3 })
			if p := log.Stats().Places[0]; p.Sent != c.sent || p.Dropped != c.dropped || p.Waiting != 0 {
				t.Errorf("got %+v, want %d sent and %d dropped", p, c.sent, c.dropped)
			}
			if n := server.count(); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
			if u := server.requests[0].URL.String(); u != "/custom/path?x=1" {
				t.Errorf("the request went to %s", u)
			}
		})
	}
}

func TestACollectorsPasswordIsSentAndNotTold(t *testing.T) {
	c := newCollector(t)
	var told lockedBuffer
	address := strings.Replace(c.URL, "http://", "http://user:s3cr3t@", 1)
	_, log := fileLog(t, Settings{OTLP: address, Log: zerolog.New(&told)})
	running(t, log)
	must(t, log.Write(&Record{Event: Request}))
	eventually(t, "it is there", func() bool { return log.Stats().Places[0].Sent == 1 })
	if user, password, _ := c.requests[0].BasicAuth(); user != "user" || password != "s3cr3t" {
		t.Errorf("the collector got %q and %q", user, password)
	}
	c.Close()
	must(t, log.Write(&Record{Event: Request}))
	eventually(t, "it fails", func() bool { return told.String() != "" })
	if all := told.String() + fmt.Sprint(log.Stats()); strings.Contains(all, "s3cr3t") {
		t.Errorf("the password is told: %s", all)
	}
}

func TestRequestsToACollectorAreBounded(t *testing.T) {
	c := newCollector(t)
	_, log := fileLog(t, Settings{OTLP: c.URL})
	const n = 1500
	for range n {
		must(t, log.Write(&Record{Event: Request, Path: strings.Repeat("x", 3000)}))
	}
	running(t, log)
	eventually(t, "all are there", func() bool { return log.Stats().Places[0].Sent == n })
	got, _ := c.records(t)
	if len(got) != n {
		t.Errorf("%d records, want %d", len(got), n)
	}
	for _, body := range c.bodies {
		if len(body) > 4<<20 {
			t.Errorf("a request has %d bytes", len(body))
		}
	}
}

// Whatever is in a record, a collector can read it.
func FuzzWhatACollectorGetsIsOTLP(f *testing.F) {
	f.Add("GET", "/api/alerts", "curl", "reason", "<>&\u2028\x00\xff", int64(1))
	f.Fuzz(func(t *testing.T, method, path, agent, reason, tenant string, n int64) {
		var line bytes.Buffer
		(&Record{Event: Request, Method: method, Path: path, UserAgent: agent, Reason: reason, Tenant: tenant, BytesOut: n, Reported: []string{agent}}).encode(&line)
		text := strings.TrimSuffix(line.String(), "\n")
		var r logspb.LogRecord
		if err := protojson.Unmarshal(entry{event: Request, line: []byte(text)}.appendLogRecord(nil, time.Now()), &r); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if r.Body.GetStringValue() != text {
			t.Errorf("the body is %q, want %q", r.Body.GetStringValue(), text)
		}
	})
}
