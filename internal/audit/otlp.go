package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// otlp sends records to a collector as log records of OpenTelemetry: OTLP over HTTP
// with JSON (opentelemetry.io/docs/specs/otlp, version 1.9). The body of each is the
// line as the file has it, its members are attributes.
type otlp struct {
	url    string
	client *http.Client
	// resource and scope are JSON, and the same for all.
	resource, scope []byte
	body            bytes.Buffer
}

// otlpTimeout bounds a request, as the specification's default does.
const otlpTimeout = 10 * time.Second

func newOTLP(s *Settings) (*place, error) {
	u, err := url.Parse(s.OTLP)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return nil, errors.New("audit.otlp is no http:// or https:// URL of a collector") // it may hold a password
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/logs"
	}
	host, _ := os.Hostname()
	o := &otlp{
		url: u.String(),
		client: &http.Client{
			Transport:     s.Transport,
			Timeout:       otlpTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		resource: attributes(nil, "service.name", "defender-proxy", "service.version", s.Version, "host.name", host, "process.pid", int64(os.Getpid())),
	}
	o.scope = appendString([]byte(`{"name":`), "defender-proxy/audit")
	if s.Version != "" {
		o.scope = appendString(append(o.scope, `,"version":`...), s.Version)
	}
	o.scope = append(o.scope, '}')
	p := newPlace("otlp", s.Log, o)
	p.linger = 500 * time.Millisecond
	return p, nil
}

func (o *otlp) send(ctx context.Context, batch []entry) (done, dropped int, err error) {
	o.encode(batch)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, bytes.NewReader(o.body.Bytes()))
	if err != nil {
		return 0, 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "defender-proxy")
	resp, err := o.client.Do(r)
	if err != nil {
		if e := new(url.Error); errors.As(err, &e) {
			err = e.Err // without the URL, which may hold a password
		}
		return 0, 0, fmt.Errorf("send to audit.otlp: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	switch {
	case resp.StatusCode/100 == 2:
		return len(batch), min(len(batch), rejected(answer)), nil
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusBadGateway,
		resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusGatewayTimeout:
		err = fmt.Errorf("send to audit.otlp: the collector answers %s", resp.Status)
		if seconds, e := strconv.Atoi(resp.Header.Get("Retry-After")); e == nil && seconds > 0 {
			err = &waitError{err, time.Duration(min(seconds, 3600)) * time.Second}
		}
		return 0, 0, err
	}
	// By the specification these are not to be sent again.
	return len(batch), len(batch), fmt.Errorf("send to audit.otlp: the collector answers %s and does not take these records", resp.Status)
}

func (o *otlp) close() { o.client.CloseIdleConnections() }

// rejected gives how many records a collector did not take, by its answer.
func rejected(answer []byte) int {
	var a struct {
		PartialSuccess struct {
			RejectedLogRecords json.Number `json:"rejectedLogRecords"` // a number as a string, by protobuf's JSON
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &a) != nil {
		return 0
	}
	n, err := a.PartialSuccess.RejectedLogRecords.Int64()
	if err != nil || n < 0 {
		return 0
	}
	return int(min(n, mostWaiting))
}

// encode makes the body of a request.
func (o *otlp) encode(batch []entry) {
	b := &o.body
	b.Reset()
	b.WriteString(`{"resourceLogs":[{"resource":{"attributes":`)
	b.Write(o.resource)
	b.WriteString(`},"scopeLogs":[{"scope":`)
	b.Write(o.scope)
	b.WriteString(`,"logRecords":[`)
	now := time.Now()
	for i, e := range batch {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(e.appendLogRecord(b.AvailableBuffer(), now))
	}
	b.WriteString(`]}]}]}`)
}

// appendLogRecord appends an entry as a LogRecord. Severities are those of the
// logs' data model: INFO is 9, INFO2 10, WARN 13.
func (e entry) appendLogRecord(b []byte, now time.Time) []byte {
	number, text := 9, "INFO"
	switch {
	case e.event == Lost:
		number, text = 13, "WARN"
	case e.refused:
		number, text = 10, "INFO2"
	}
	b = append(b, `{"timeUnixNano":"`...)
	b = strconv.AppendInt(b, max(0, e.at.UnixNano()), 10) // 0 is unknown
	b = append(b, `","observedTimeUnixNano":"`...)
	b = strconv.AppendInt(b, now.UnixNano(), 10)
	b = append(b, `","severityNumber":`...)
	b = strconv.AppendInt(b, int64(number), 10)
	b = append(b, `,"severityText":"`...)
	b = append(b, text...)
	b = append(b, `","eventName":"defender_proxy.audit.`...)
	b = append(b, e.event...)
	b = append(b, `","body":{"stringValue":`...)
	b = appendString(b, string(e.line))
	b = append(b, `},"attributes":`...)
	b = append(b, e.attributes()...)
	return append(b, '}')
}

// conventional are the members of a record that OpenTelemetry's conventions have a
// name for; the others get the prefix defender_proxy.
var conventional = map[string]string{
	"address":    "client.address",
	"method":     "http.request.method",
	"path":       "url.path",
	"query":      "url.query",
	"status":     "http.response.status_code",
	"bytes_in":   "http.request.body.size",
	"bytes_out":  "http.response.body.size",
	"code":       "error.type",
	"user_agent": "user_agent.original",
}

// attributes gives the members of the line as attributes, in its order.
func (e entry) attributes() []byte {
	d := json.NewDecoder(bytes.NewReader(e.line))
	d.UseNumber()
	var list []any
	if _, err := d.Token(); err != nil {
		return []byte("[]") // not a record
	}
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		if err != nil || !ok {
			break
		}
		var value any
		if err := d.Decode(&value); err != nil {
			break
		}
		switch name {
		case "time", "event":
			continue // the log record has them already
		}
		if c, ok := conventional[name]; ok {
			name = c
		} else {
			name = "defender_proxy." + name
		}
		list = append(list, name, value)
	}
	return attributes(nil, list...)
}

// attributes appends KeyValues of the pairs; those that are empty are left out.
func attributes(b []byte, pairs ...any) []byte {
	b = append(b, '[')
	first := true
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(append(b, `{"key":`...), pairs[i].(string))
		b = append(b, `,"value":`...)
		b = appendValue(b, pairs[i+1])
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendValue appends an AnyValue. Numbers of 64 bits are strings in protobuf's
// JSON.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		b = appendString(append(b, `{"stringValue":`...), v)
	case bool:
		b = strconv.AppendBool(append(b, `{"boolValue":`...), v)
	case int64:
		b = strconv.AppendInt(append(b, `{"intValue":"`...), v, 10)
		b = append(b, '"')
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return appendValue(b, n)
		}
		b = append(append(b, `{"doubleValue":`...), v...)
	case []any:
		b = append(b, `{"arrayValue":{"values":[`...)
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, item)
		}
		b = append(b, `]}`...)
	default:
		return append(b, `{}`...)
	}
	return append(b, '}')
}

// appendString appends a string of JSON.
func appendString(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil { // no string has one
		return append(b, `""`...)
	}
	return append(b, text...)
}
