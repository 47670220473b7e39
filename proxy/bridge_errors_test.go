package proxy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestErrorsOfGraphReachOldToolsInTheOldShape(t *testing.T) {
	zipped := func(text string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, text)
		_ = z.Close()
		return b.String()
	}
	const inner = `,"innerError":{"request-id":"inner"}`
	for _, c := range []struct {
		name          string
		graph         http.HandlerFunc
		status        int
		code, message string
		header        map[string]string
	}{
		{"a bad query", gives(400, `{"error":{"code":"BadRequest","message":"Fix semantic errors in your query."`+inner+`}}`), 400, "BadRequest", "Fix semantic errors in your query.", nil},
		{"a quota", gives(429, `{"error":{"code":"TooManyRequests","message":"CPU"`+inner+`}}`, "Retry-After", "900"), 429, "TooManyRequests", "CPU", map[string]string{"Retry-After": "900"}},
		{"a token that is refused", gives(401, `{"error":{"code":"InvalidAuthenticationToken","message":"m"`+inner+`}}`), 401, "Unauthorized", "m", nil},
		{"no permission", gives(403, `{"error":{"code":"Forbidden","message":"m"`+inner+`}}`), 403, "Forbidden", "m", nil},
		{"gone", gives(404, `{"error":{"code":"NotFound","message":"m"`+inner+`}}`), 404, "NotFound", "m", nil},
		{"too large", gives(413, ``, "request-id", "head"), 413, "RequestEntityTooLarge", "", nil},
		{"unknown", gives(500, `{"error":{"code":"UnknownError","message":""`+inner+`}}`), 500, "InternalServerError", "", nil},
		{"busy", gives(503, `<html>`, "Content-Type", "text/html", "request-id", "head", "Retry-After", "7"), 503, "ServiceUnavailable", "", map[string]string{"Retry-After": "7"}},
		{"in gzip", gives(400, zipped(`{"error":{"code":"BadRequest","message":"packed"`+inner+`}}`), "Content-Encoding", "gzip"), 400, "BadRequest", "packed", nil},
		{"in gzip that is none", gives(400, `{"error":{}}`, "Content-Encoding", "gzip", "request-id", "head"), 400, "BadRequest", "", nil},
		{"in another encoding", gives(400, `x`, "Content-Encoding", "br", "request-id", "head"), 400, "BadRequest", "", nil},
		{"of more than 64 KiB", gives(500, `{"error":{"code":"c","message":"`+strings.Repeat("x", 65<<10)+`"}}`, "request-id", "head"), 500, "InternalServerError", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := hunts(t, HuntingGraph, nil, c.graph)
			got := w.do("POST", runMDE, aQuery, "Accept-Encoding", "gzip")
			var e struct {
				Error map[string]string
			}
			if err := json.Unmarshal([]byte(got.body), &e); err != nil || len(e.Error) != 3 {
				t.Fatalf("%v: %.300s", err, got.body)
			}
			target := "inner"
			if got.header.Get("Request-Id") != "" {
				target = got.header.Get("Request-Id")
			}
			if got.status != c.status || e.Error["code"] != c.code || c.message != "" && e.Error["message"] != c.message || e.Error["message"] == "" || e.Error["target"] != target || len(got.body) > 1000 {
				t.Errorf("got %d %v", got.status, e.Error)
			}
			if got.header.Get("Content-Type") != "application/json; charset=utf-8" || got.header["Content-Encoding"] != nil || strings.Contains(got.header.Get("Proxy-Status"), "error=") || got.header.Get("Sunset") == "" {
				t.Errorf("headers %v", got.header)
			}
			for name, want := range c.header {
				if got.header.Get(name) != want {
					t.Errorf("%s: %q, want %q", name, got.header.Get(name), want)
				}
			}
		})
	}
}

func TestWhatIsNoAnswerOfGraphsIsNotPassedOn(t *testing.T) {
	for name, graph := range map[string]http.HandlerFunc{
		"another document":   gives(200, `{"value":[]}`),
		"HTML":               gives(200, `<html>`, "Content-Type", "text/html"),
		"nothing":            gives(200, ``),
		"no content":         gives(204, ``),
		"a part":             gives(206, graphAnswer),
		"accepted":           gives(202, `{}`),
		"not modified":       gives(304, ``),
		"a redirect":         gives(302, ``, "Location", "https://evil.example/"),
		"a redirect to ours": gives(307, ``, "Location", "https://graph.microsoft.com"+runGraph),
		"an error as 200":    gives(200, `{"error":{"code":"x","message":"y"}}`),
		"a list":             gives(200, `[]`),
		"nothing in gzip":    gives(200, ``, "Content-Encoding", "gzip"),
		"gzip that is none":  gives(200, graphAnswer, "Content-Encoding", "gzip"),
		"rows that break":    gives(200, graphAnswer[:len(graphAnswer)-5]),
	} {
		t.Run(name, func(t *testing.T) {
			w := hunts(t, HuntingGraph, nil, graph)
			if got := w.do("POST", runMDE, aQuery, "Accept-Encoding", "gzip"); got.code() != "InvalidAnswer" || got.status != 502 {
				t.Errorf("got %d %s", got.status, got.body)
			}
			if rec := w.lines(1)[0]; rec["code"] != "InvalidAnswer" || rec["sent_as"] != "graph.hunting.run" || strings.Contains(fmt.Sprint(rec["reason"]), "evil") {
				t.Errorf("record %v", rec)
			}
		})
	}
}

// An answer that came whole and is none will be none when it is asked for again; one
// that says it is not all is no answer of the older APIs, which had no pages.
func TestAnAnswerThatIsNoneIsNotCalledBroken(t *testing.T) {
	for name, c := range map[string]struct{ graph, words, retry string }{
		"another document": {`{"value":[]}`, "is not that of a hunting query", ""},
		"an error inside":  {`{"schema":[{"name":"A"}],"results":[{"A":1}],"error":{"code":"QueryLimits","message":"partial"}}`, "is not that of a hunting query", ""},
		"a next page":      {`{"schema":[{"name":"A"}],"results":[{"A":1}],"@odata.nextLink":"https://graph.microsoft.com/v1.0/x"}`, "is not that of a hunting query", ""},
		"half of it":       {graphAnswer[:100], "broke off", "1"},
	} {
		w := hunts(t, HuntingGraph, nil, gives(200, c.graph))
		got := w.do("POST", runMDE, aQuery)
		if got.code() != "InvalidAnswer" || !strings.Contains(got.message(), c.words) || strings.Contains(got.message(), "Try again") != (c.retry != "") || got.header.Get("Retry-After") != c.retry {
			t.Errorf("%s: %d %s, Retry-After %q", name, got.status, got.body, got.header.Get("Retry-After"))
		}
	}
}

// An answer that has begun and then breaks off, or turns out to be none, breaks the
// caller's connection.
func TestALongAnswerThatBreaksNeverLooksComplete(t *testing.T) {
	for name, end := range map[string]func(w http.ResponseWriter){
		"it breaks off":      func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"it ends too early":  func(http.ResponseWriter) {},
		"a row is no JSON":   func(w http.ResponseWriter) { _, _ = io.WriteString(w, `,{"A":nul}]}`) },
		"results come twice": func(w http.ResponseWriter) { _, _ = io.WriteString(w, `],"results":[]}`) },
	} {
		t.Run(name, func(t *testing.T) {
			w := hunts(t, HuntingGraph, nil, func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(rw, `{"schema":[{"name":"A","type":"String"}],"results":[{"A":"`+strings.Repeat("x", 300<<10)+`"}`)
				_ = http.NewResponseController(rw).Flush()
				end(rw)
			})
			got := w.do("POST", runMDE, aQuery)
			if got.status != 200 || got.err == nil || json.Valid([]byte(got.body)) {
				t.Errorf("got %d with %d bytes, %v", got.status, len(got.body), got.err)
			}
		})
	}
}
