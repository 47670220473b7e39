package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// approach makes a connection to a listener.
type approach func(context.Context) (net.Conn, error)

// through sends a request over a connection of its own and reads the answer. header
// holds names and values in turn.
func (w *world) through(dial approach, method, path, body string, header ...string) (answer, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Add(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, proto: resp.Proto, header: resp.Header}
	a.body, a.err = io.ReadAll(resp.Body)
	return a, nil
}

// who is what a record tells of a caller.
type who struct {
	Client, Address, Via, Certificate string
	UID, GID                          *uint32
	PID                               *int32
}

func (a who) String() string {
	text, err := json.Marshal(a)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// whoAsked tells from a request's record who called.
func (w *world) whoAsked(a answer) who {
	w.t.Helper()
	w.recordsOf(a) // it is written
	var found who
	for line := range bytes.Lines(w.stdout.bytes()) {
		var r struct {
			RequestID string `json:"request_id"`
			who
		}
		if json.Unmarshal(line, &r) == nil && r.RequestID == a.header.Get("X-Request-Id") {
			found = r.who
		}
	}
	return found
}

// expect looks at an answer's status and, of a refusal, the code and a word of the
// message.
func expect(t *testing.T, a answer, err error, status int, code, word string) {
	t.Helper()
	if err != nil {
		t.Errorf("no answer: %v, want %d %s", err, status, code)
		return
	}
	is, message := a.refused()
	if a.status != status || is != code || !strings.Contains(message, word) {
		t.Errorf("got %v, want %s", a, fmt.Sprintf("%d %s with %q", status, code, word))
	}
}
