package integration

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// sentSecret is a secret that a caller sends, and the part of it that is looked for.
type sentSecret struct{ kind, value, mark string }

// sentSecrets are of every kind. The last looks like any word, and is sent only
// where what stands there is never shown.
var sentSecrets = []sentSecret{
	{"token", "eyJhbGciOiJub25lIiwiY2FuYXJ5IjoxfQ.eyJjYW5hcnkiOiJjYW5hcnkifQ.c2lnbmF0dXJl", "eyJjYW5hcnki"},
	{"client secret", "can8Q~aryCANARYaryCANARYaryCANARY12345", "aryCANARY"},
	{"refresh token", "0.AXcanaryCANARYcanary123.AgABAAEAAAcanaryCANARY", "canaryCANARY"},
	{"download link", "https://canary.blob.core.windows.net/c/f?sv=2020&se=2026&sig=canarySIG%2Fabc%3D", "canarySIG"},
	{"basic credential", "Basic Y2FuYXJ5OmNhbmFyeTEyMw==", "Y2FuYXJ5OmNhbmFyeTEyMw"},
	{"URL with a password", "https://user:canaryPASS@corp.example/x", "canaryPASS"},
	{"form", "client_secret=canaryFORM1", "canaryFORM1"},
	{"word", "canary-hunter2", "canary-hunter2"},
}

// sentPlaces are where in a request they stand, @ as they are and ^ escaped for a
// URL; shown ones may be in a record, and are no place for a word.
var sentPlaces = []struct {
	request string
	shown   bool
}{
	{"GET /api/alerts?x=^&$top=1 HTTP/1.1", false},
	{"GET /api/alerts?^ HTTP/1.1", false},
	{"GET /api/alerts?$filter=title%20eq%20'^' HTTP/1.1", false},
	{"GET /api/nothing?access_token=^ HTTP/1.1", false},
	{"GET /api/..%2f?x=^ HTTP/1.1", false},
	{"GET /t/fabrikam/api/alerts?x=^ HTTP/1.1", false},
	{"GET /-/explain?method=^&path=^ HTTP/1.1", false},
	{"GET /?^ HTTP/1.1", false},
	{"GET /contoso/oauth2/token?client_secret=^&x=^&^ HTTP/1.1\r\nAuthorization: Basic @", false},
	{"GET /api/alerts HTTP/1.1\r\nAuthorization: Bearer @\r\nCookie: s=@\r\nX-Local-Key: @", false},
	{"GET /api/nothing HTTP/1.1\r\nAuthorization: @\r\nX-Api-Key: @", false},
	{"GET /api/alerts HTTP/1.1\r\nReferer: https://x/@\r\nAccept: @\r\nPrefer: @", false},
	{"GET /api/alerts HTTP/1.1\r\nUpgrade: @\r\nConnection: @", false},
	{"GET /api/alerts HTTP/@", false},
	{"GET /api/alerts HTTP/1.1\r\n@", false},
	{"GET /api/alerts HTTP/1.1\r\nTransfer-Encoding: @", false},
	{"GET /api/alerts HTTP/1.1\r\nContent-Length: @", false},
	{"@", false},

	{"GET /api/alerts/^ HTTP/1.1", true},
	{"GET /api/^ HTTP/1.1", true},
	{"GET /t/^/api/alerts HTTP/1.1", true},
	{"POST /api/machines/^/isolate HTTP/1.1\r\nContent-Length: 0", true},
	{"^ /api/alerts HTTP/1.1", true},
	{"GET /api/alerts HTTP/1.1\r\nUser-Agent: tool (@)", true},
	{"GET /api/alerts HTTP/1.1\r\nHost: @", true},
	{"GET /api/alerts HTTP/1.1\r\nOrigin: https://@", true},
}

// The tools of a network send their secrets where they do not belong: in paths and
// queries, as names, as methods, in requests that are none. The operator keeps the
// log at its most talkative, and has the audit in a file with a chain, at a syslog
// server and at a collector. In none of these is a secret to be seen, nor on any
// page of the operator's; what happened is.
func TestNoSecretOfACallerIsSeenInAnyPlace(t *testing.T) {
	t.Parallel()
	const localKey = "canary-local-key-5c1f0e7a9b"
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	syslog, collector := newSink(t), new(output)
	otlp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(collector, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(otlp.Close)
	w := simulated(t, setup{config: func(c object) {
		allow(c, "read", "hunt", "machines.isolate")
		keyed := object{"name": "keyed", "from": []string{"127.0.0.0/8"}, "allow": []string{"read"},
			"headers": object{"X-Local-Key": fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(localKey)))}}
		c["clients"] = append([]object{keyed}, c["clients"].([]object)...)
		c["audit"] = object{"file": file, "chain": true, "annotate": true, "syslog": "tcp://" + syslog.address, "otlp": otlp.URL}
	}})
	w.process = start(t, "debug", w.file, secretVariable+"="+simulator.DefaultSecret)
	w.ready()

	for _, s := range sentSecrets {
		for _, p := range sentPlaces {
			if s.kind == "word" && p.shown {
				continue
			}
			request := strings.NewReplacer("@", s.value, "^", url.QueryEscape(s.value)).Replace(p.request)
			if !strings.Contains(request, "\r\nHost:") {
				request += "\r\nHost: 127.0.0.1"
			}
			raw(t, w.address(), request+"\r\nConnection: close\r\n\r\n")
		}
		body := `{"Comment":"` + s.value + `","Query":"` + s.value + `"}`
		for _, path := range []string{"/api/machines/" + w.sim.MachineID() + "/isolate", "/api/advancedqueries/run", "/api/machines/x/offboard", "/api/nothing", "/contoso/oauth2/v2.0/token"} {
			w.do(http.MethodPost, path, body, "Content-Type", "application/json")
			w.do(http.MethodPost, path, s.value, "Content-Type", s.value)
		}
	}
	if a := w.get("/api/alerts", "X-Local-Key", localKey); a.status != http.StatusOK {
		t.Fatalf("with the local key: %v", a)
	} else if got := w.recordIn(file, a); got.Client != "keyed" {
		t.Fatalf("the local key makes the caller %q", got.Client)
	}
	for _, r := range w.sim.Requests() {
		if strings.Contains(fmt.Sprint(r.Header), localKey) {
			t.Errorf("the local key arrived at Microsoft's side: %+v", r)
		}
	}

	seen := map[string][]byte{}
	for _, path := range []string{"/", "/metrics", "/-/ready", "/-/regions", "/-/tenants", "/-/usage", "/-/audit", "/-/approvals"} {
		seen["the operator's "+path] = w.get(w.admin + path).body
	}
	for _, path := range []string{"/", "/-/whoami", "/-/operations"} {
		seen["the caller's "+path] = w.get(path, "X-Local-Key", localKey).body
	}
	w.stop()
	w.wait()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen["the audit file"], seen["the log"], seen["standard output"] = text, w.stderr.bytes(), w.stdout.bytes()
	seen["syslog"], seen["the collector"] = syslog.stop(), collector.bytes()
	for where, text := range seen {
		for _, s := range append(sentSecrets, sentSecret{"local key", localKey, localKey}, sentSecret{"proxy's own secret", simulator.DefaultSecret, simulator.DefaultSecret}) {
			for _, form := range []string{s.mark, url.QueryEscape(s.mark)} {
				if at := bytes.Index(text, []byte(form)); at >= 0 {
					from := max(0, at-200)
					t.Errorf("%s shows the %s: …%s…", where, s.kind, text[from:min(len(text), at+len(form)+40)])
					break
				}
			}
		}
	}
	// The audit went everywhere, and says what happened.
	for _, where := range []string{"the audit file", "syslog", "the collector"} {
		for _, what := range []string{"machines.isolate", "InvalidPath", "HostNotAllowed", "UnknownOperation", "[redacted]", "keyed"} {
			if !bytes.Contains(seen[where], []byte(what)) {
				t.Errorf("%s does not hold %s: the story did not go that way", where, what)
			}
		}
	}
	w.run(t, "audit", "verify", file)
}

// recordIn waits for the record of a request's outcome in the audit's file.
func (w *world) recordIn(file string, a answer) (found record) {
	w.t.Helper()
	id := a.header.Get("X-Request-Id")
	w.eventually("the record of request "+id+" is in the file", func() error {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, r := range records(w.t, data) {
			if r.RequestID == id && r.Event == "request" {
				found = r
				return nil
			}
		}
		return fmt.Errorf("%d bytes are", len(data))
	})
	return found
}

// sink takes what is sent to it over TCP and answers nothing.
type sink struct {
	output
	address  string
	listener net.Listener
	ended    chan struct{}
}

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{address: l.Addr().String(), listener: l, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(&s.output, c) // until the proxy ends
			c.Close()
		}
	}()
	t.Cleanup(func() { s.stop() })
	return s
}

// stop ends it once the connection that it has is at its end, and gives what came.
func (s *sink) stop() []byte {
	s.listener.Close()
	<-s.ended
	return s.bytes()
}
