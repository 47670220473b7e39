package integration

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Some hundreds of odd paths, those that package canon lists with what becomes of
// each, go to the built binary over raw sockets, as a read and as a write. What
// arrives at Microsoft's side is what the list promises, and nothing that it says is
// refused.
func TestAttackOddPaths(t *testing.T) {
	t.Parallel()
	promised := make(map[string]string) // by raw path, empty for refused
	var raw []string
	for line := range strings.Lines(readFile(t, "../internal/canon/testdata/targets.txt")) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		quoted, what, _ := strings.Cut(rest, "\t")
		if kind != "=" && kind != "!" {
			continue
		}
		path, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if strings.Contains(path, "?") {
			continue // in a target it begins a query
		}
		raw = append(raw, path)
		if kind == "=" {
			if promised[path], err = strconv.Unquote(what); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	if len(raw) < 300 {
		t.Fatalf("there are only %d paths", len(raw))
	}
	w := newWorld(t, setup{
		permissions: map[string][]string{"mde": {"Machine.Isolate", "Library.Manage"}},
		config: func(c object) {
			inRegions(c, "eu")
			allow(c, "read", "machines.isolate", "libraryfiles.*")
			c["policy"] = object{"unknown_operations": "read"}
		},
	})
	w.get("/api/alerts?$top=1")
	w.sim.ResetRequests()

	may := make(map[string]bool)
	for _, path := range raw {
		if to := promised[path]; to != "" {
			may[strings.TrimPrefix(to, "/t/contoso")] = true
		}
	}
	var all sync.WaitGroup
	paths := make(chan string)
	for range 8 {
		all.Go(func() {
			for path := range paths {
				for _, method := range []string{"GET", "POST", "DELETE"} {
					status := statusOf(t, w.address(), fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", method, path, w.address()))
					if promised[path] == "" && status != http.StatusBadRequest {
						t.Errorf("%s %q is answered with %d, want 400", method, path, status)
					}
				}
			}
		})
	}
	for _, path := range raw {
		paths <- path
	}
	close(paths)
	all.Wait()
	arrived := make(map[string]bool)
	for _, r := range w.upstream() {
		path, _, _ := strings.Cut(r.Target, "?")
		arrived[path] = true
		if !may[path] {
			t.Errorf("%s %s arrived, which the list promises for no path", r.Method, r.Target)
		}
	}
	if len(arrived) < 50 {
		t.Errorf("only %d of these paths arrived, too few to tell anything", len(arrived))
	}
}

// statusOf sends a request and gives the status of the first answer, 0 for none.
func statusOf(t *testing.T, address, request string) int {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = c.Write([]byte(request))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && len(line) == 0 {
		if os.IsTimeout(err) {
			t.Errorf("no answer to %.80q", request)
		}
		return 0
	}
	var status int
	_, _ = fmt.Sscanf(line, "HTTP/1.1 %d", &status)
	return status
}

// A caller who may read tries to get a write, another tenant or another operation
// by what stands around the path. The query and the body choose nothing.
func TestAttackWhatStandsBesideThePath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) { inRegions(c, "eu") }})
	w.get("/api/alerts?$top=1")
	const close = " HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n"
	passes := func(name, target, arrives string) attack {
		return attack{name: name, request: "GET " + target + close + "\r\n", status: http.StatusOK, arrive: []string{"GET " + arrives}}
	}
	w.runAll(t, []attack{
		passes("another method in the query", "/api/alerts?_method=DELETE&$top=1", "/api/alerts?$top=1"),
		passes("the same, encoded and in capitals", "/api/alerts?%5fMETHOD=POST&$top=1", "/api/alerts?$top=1"),
		passes("a path in the query", "/api/alerts?$top=1&x=/../machines/1/isolate", "/api/alerts?$top=1&x=/../machines/1/isolate"),
		passes("a second question mark", "/api/alerts?$top=1&x=?/api/indicators", "/api/alerts?$top=1&x=?/api/indicators"),
		passes("a semicolon in the query", "/api/alerts?$top=1&x=a;/api/indicators", "/api/alerts?$top=1&x=a;/api/indicators"),
		passes("a tenant in the query", "/api/alerts?$top=1&tenant=fabrikam&tid=x", "/api/alerts?$top=1&tenant=fabrikam&tid=x"),
		passes("our own name in the target", "http://HOST/api/alerts?$top=1", "/api/alerts?$top=1"),
		{name: "a number sign and a path", request: "GET /api/alerts#/api/indicators" + close + "\r\n", status: 400, code: "InvalidPath"},
		{name: "a number sign in the query", request: "GET /api/alerts?$top=1#x" + close + "\r\n", status: 400, code: "InvalidPath"},
		{name: "a batch", request: "POST /api/$batch" + close + length(`{"requests":[{"id":"1","method":"POST","url":"/machines/1/isolate"}]}`), status: 404, code: "UnknownOperation"},
		{name: "a batch of Graph's", request: "POST /v1.0/$batch" + close + length(`{"requests":[{"id":"1","method":"GET","url":"/users"}]}`), status: 404, code: "UnknownOperation"},
		{name: "a query in a body", request: "POST /api/alerts/$query" + close + length("$filter=x"), status: 404, code: "UnknownOperation"},
		{name: "a reference", request: "GET /api/machines/$ref" + close + "\r\n", status: 404, code: "UnknownOperation"},
		{name: "a key in parentheses", request: "GET /api/machines('1')" + close + "\r\n", status: 404, code: "UnknownOperation"},
		{name: "a qualified name", request: "POST /api/machines/1/Microsoft.Windows.DefenderATP.Api.isolate" + close + length("{}"), status: 404, code: "UnknownOperation"},
		{name: "an action as a function", request: "GET /api/machines/1/isolate()" + close + "\r\n", status: 404, code: "UnknownOperation"},
		{name: "another version", request: "GET /api/v2.0/alerts" + close + "\r\n", status: 404, code: "UnknownOperation"},
		{name: "another path of Graph's", request: "GET /v1.0/users" + close + "\r\n", status: 404, code: "UnknownOperation"},
		{name: "Graph's beta", request: "GET /beta/security/alerts_v2" + close + "\r\n", status: 404, code: "UnknownOperation"},
		{name: "another tenant", request: "GET /t/fabrikam/api/alerts" + close + "\r\n", status: 404, code: "UnknownTenant"},
		{name: "a tenant within a tenant", request: "GET /t/contoso/t/fabrikam/api/alerts" + close + "\r\n", status: 404, code: "UnknownOperation"},
		{name: "another method in a form", request: "POST /api/alerts" + close + "Content-Type: application/x-www-form-urlencoded\r\n" + length("_method=GET"), status: 405, code: "MethodNotAllowed"},
		{name: "a write with a read's name in the body", request: "POST /api/machines/1/isolate" + close + "Content-Type: application/json\r\n" + length(`{"operation":"alerts.list","class":"read"}`), status: 403, code: "NotGranted"},
		{name: "a write in any letters", request: "POST /API/Machines/1/ISOLATE" + close + length("{}"), status: 403, code: "NotGranted"},
		{name: "a write with letters encoded", request: "POST /api/machines/1/%69solate" + close + length("{}"), status: 403, code: "NotGranted"},
		{name: "a write with a slash behind it", request: "POST /api/machines/1/isolate/" + close + length("{}"), status: 403, code: "NotGranted"},
		{name: "a write behind a doubled slash", request: "POST //api/machines/1/isolate" + close + length("{}"), status: 403, code: "NotGranted"},
		{name: "a write with a version", request: "POST /api/v1.0/machines/1/isolate" + close + length("{}"), status: 403, code: "NotGranted"},
		{name: "a write with a shha in it", request: "POST /api/mac%D2%BBines/1/isolate" + close + length("{}"), status: 400, code: "InvalidPath"},
		{name: "a write behind a session of ASP.NET's", request: "POST /api/(S(x))/machines/1/isolate" + close + length("{}"), status: 400, code: "InvalidPath"},
	})
}
