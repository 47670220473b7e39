package integration

import (
	"fmt"
	"strings"
	"testing"
)

// Somebody sends bytes that programs read in different ways, hoping that the proxy
// judges one request and Microsoft carries out another. Each is refused in the form
// of every refusal, with a record of who tried what; nothing of it arrives, and
// nothing that was hidden behind it either.
func TestSmuggledRequestsAreRefusedAndRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, respond(nil))
	w.get("/api/alerts?$top=1") // a token
	w.sim.ResetRequests()
	host := "Host: " + w.address() + "\r\n"
	hidden := "POST /api/machines/1/isolate HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\n{}"
	for _, tc := range []struct {
		name, request string
		status        int
		method, path  string
	}{
		{"a length and chunks", "POST /api/advancedqueries/run HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, 400, "POST", "/api/advancedqueries/run"},
		{"two lengths", "POST /api/advancedqueries/run HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 200\r\n\r\n" + hidden, 400, "POST", "/api/advancedqueries/run"},
		{"a coding behind a folded line", "POST /api/advancedqueries/run?sig=secret HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + hidden, 400, "POST", "/api/advancedqueries/run"},
		{"line feeds alone", "GET /api/alerts HTTP/1.1\n" + strings.ReplaceAll(host, "\r", "") + "\n" + hidden, 400, "GET", "/api/alerts"},
		{"two Hosts", "GET /api/alerts HTTP/1.1\r\n" + host + "Host: evil.example\r\n\r\n" + hidden, 400, "GET", "/api/alerts"},
		{"a coding that nobody knows", "POST /api/advancedqueries/run HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, 501, "POST", "/api/advancedqueries/run"},
		{"HTTP/2 by prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden, 505, "PRI", "*"},
		{"headers without end", "GET /api/alerts HTTP/1.1\r\n" + host + strings.Repeat("X-A: b\r\n", 10_000), 431, "GET", "/api/alerts"},
		{"what an allowed request's chunks hide", "POST /api/advancedqueries/run HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1;\n\r\n{\r\n0\r\n\r\n" + hidden, 400, "POST", "/api/advancedqueries/run"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := w.in(t)
			got := raw(t, w.address(), tc.request)
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", tc.status)) || strings.Count(got, "X-Request-Id: ") != 1 || !strings.Contains(got, `"code":"InvalidRequest"`) {
				t.Fatalf("got %s, want one answer, %d InvalidRequest", got, tc.status)
			}
			_, id, _ := strings.Cut(got, "X-Request-Id: ")
			id, _, _ = strings.Cut(id, "\r\n")
			all := w.recordsOf(answer{header: map[string][]string{"X-Request-Id": {id}}})
			if r := all[len(all)-1]; r.Method != tc.method || r.Path != tc.path || r.Status != tc.status || r.Code != "InvalidRequest" || r.Client != "local" {
				t.Errorf("its record is %+v", r)
			}
		})
	}
	if n := len(w.upstream()); n != 0 {
		t.Errorf("%d requests arrived: %+v", n, w.upstream())
	}
	if text := w.stdout.String() + w.stderr.String(); strings.Contains(text, "secret") {
		t.Error("a query of what was refused is in the records or in the log")
	}
	if got := raw(t, strings.TrimPrefix(w.admin, "http://"), "POST /-/reload HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, `"code":"InvalidRequest"`) {
		t.Errorf("the operator's listener: got %s", got)
	}
}
