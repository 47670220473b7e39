package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"defender-proxy/policy"
)

func TestACallerWithoutACredentialGetsItsAlerts(t *testing.T) {
	w := newWorld(t, options{})
	got := w.do("GET", "/api/alerts?$top=5", "")
	if got.status != 200 || got.body != `{"region":"us"}` {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	up := w.regions[0].requests()
	if len(up) != 1 || up[0].target != "/api/alerts?$top=5" || up[0].method != "GET" {
		t.Fatalf("upstream got %+v", up)
	}
	if want := "Bearer " + w.entra.tokens()[0]; up[0].header.Get("Authorization") != want {
		t.Errorf("upstream got Authorization %q", up[0].header.Get("Authorization"))
	}
	if up[0].host != strings.TrimPrefix(w.regions[0].server.URL, "https://") {
		t.Errorf("upstream got Host %q", up[0].host)
	}
	if got.header.Get("X-Request-Id") == "" || strings.Contains(got.header.Get("Proxy-Status"), "error") {
		t.Errorf("headers %v", got.header)
	}
	rec := w.lines(1)[0]
	for key, want := range map[string]any{
		"event": "request", "request_id": got.header.Get("X-Request-Id"), "client": "local", "address": "127.0.0.1", "method": "GET",
		"path": "/api/alerts", "tenant": "contoso", "operation": "alerts.list", "class": "read", "decision": "allowed", "rule": "read",
		"region": "us", "attempts": 1.0, "status": 200.0, "bytes_out": 15.0, "token_uti": "uti-0",
	} {
		if rec[key] != want {
			t.Errorf("the record's %s is %v, want %v", key, rec[key], want)
		}
	}
	if rec["duration_ms"].(float64) <= 0 || rec["first_byte_ms"].(float64) <= 0 {
		t.Errorf("the record has no times: %v", rec)
	}
}

func TestTheTargetGoesOutAsItWasJudged(t *testing.T) {
	w := newWorld(t, options{})
	for _, c := range []struct{ name, in, out string }{
		{"an OData filter with spaces encoded", "/api/machines?$filter=healthStatus%20eq%20'Active'", "/api/machines?$filter=healthStatus%20eq%20'Active'"},
		{"a semicolon in a query", "/api/alerts?$expand=evidence($select=a;$top=1)", "/api/alerts?$expand=evidence($select=a;$top=1)"},
		{"a plus and an encoded plus", "/api/alerts?a=b+c&d=%2B", "/api/alerts?a=b+c&d=%2B"},
		{"a bad escape in a query", "/api/alerts?a=%zz&b=1", "/api/alerts?a=%zz&b=1"},
		{"a bare question mark", "/api/machines/m1?", "/api/machines/m1?"},
		{"a bare ampersand", "/api/alerts?&", "/api/alerts?&"},
		{"a question mark in a query", "/api/alerts?a=?b", "/api/alerts?a=?b"},
		{"raw bytes beyond ASCII in a query", "/api/alerts?a=\xc3\xa9\xff", "/api/alerts?a=\xc3\xa9\xff"},
		{"a slash before the query", "/api/machines/?$filter=a", "/api/machines?$filter=a"},
		{"a doubled slash at the start", "//api/alerts", "/api/alerts"},
		{"an encoded letter", "/api/%61lerts", "/api/alerts"},
		{"upper case and a version", "/API/v1.0/Alerts", "/API/v1.0/Alerts"},
		{"an OData function", "/api/machines/findbyip(ip='10.1.1.1',timestamp=2019-09-22T08:44:05Z)", "/api/machines/findbyip(ip='10.1.1.1',timestamp=2019-09-22T08:44:05Z)"},
		{"a tenant's prefix", "/t/contoso/api/alerts?x=1", "/api/alerts?x=1"},
		{"a tenant's prefix with a naive join", "/t/contoso//api/alerts", "/api/alerts"},
		{"credentials in a query", "/api/alerts?client_secret=s&$top=1&access_token=t", "/api/alerts?$top=1"},
		{"only credentials in a query", "/api/alerts?password=p", "/api/alerts?"},
		{"the absolute form with our own host", "http://127.0.0.1/api/alerts?a=b", "/api/alerts?a=b"},
		{"a count", "/api/alerts/$count", "/api/alerts/$count"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(w.regions[0].requests())
			got := w.raw("GET " + c.in + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
			if got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			up := w.regions[0].requests()[before:]
			if len(up) != 1 || up[0].target != c.out {
				t.Errorf("upstream got %+v, want target %q", up, c.out)
			}
		})
	}
}

func TestRequestHeadersGoOutByAList(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.ForwardHeaders = []string{"x-corp-ticket"} }})
	passes := map[string]string{
		"Accept": "application/json", "Accept-Language": "de", "Content-Type": "application/json", "User-Agent": "splunk/1",
		"If-None-Match": `"x"`, "If-Modified-Since": "yesterday", "Range": "bytes=0-1", "Prefer": "odata.maxpagesize=5", "ConsistencyLevel": "eventual",
		"OData-Version": "4.0", "OData-MaxVersion": "4.0", "client-request-id": "c1", "x-ms-client-request-id": "c2",
		"return-client-request-id": "true", "MIME-Version": "1.0", "X-Corp-Ticket": "T-1", "Content-Language": "en",
	}
	dropped := map[string]string{
		"Authorization": "Bearer theirs", "Proxy-Authorization": "Basic eA==", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "Forwarded": "for=x",
		"X-Forwarded-Host": "evil", "X-HTTP-Method": "DELETE", "X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE",
		"X-Original-URL": "/api/x", "X-Rewrite-URL": "/api/x", "X-MS-Client-Principal": "x", "Origin-Agent-Cluster": "x", "Upgrade": "h2c", "Http2-Settings": "x",
		"X_Other_Ticket": "y", "Te": "trailers", "Trailer": "X", "Keep-Alive": "1", "Via": "x", "X-Api-Key": "k",
		"Sec-Fetch-Mode": "navigate", "Dnt": "1",
	}
	header := []string{}
	for k, v := range passes {
		header = append(header, k, v)
	}
	for k, v := range dropped {
		header = append(header, k, v)
	}
	if got := w.do("GET", "/api/alerts", "", header...); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	up := w.regions[0].requests()[0].header
	for k, v := range passes {
		if up.Get(k) != v {
			t.Errorf("%s is %q upstream, want %q", k, up.Get(k), v)
		}
	}
	for k := range dropped {
		if got := up.Values(k); len(got) > 0 && k != "Authorization" {
			t.Errorf("%s reaches upstream: %q", k, got)
		}
	}
	if got := up.Values("Authorization"); len(got) != 1 || got[0] != "Bearer "+w.entra.tokens()[0] {
		t.Errorf("Authorization upstream is %q", got)
	}
}

// A CGI behind us, or its heir, reads an underscore or a dot as a hyphen.
func TestAHeaderThatCouldBeReadAsAnotherIsRefused(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.ForwardHeaders = []string{"x-corp-ticket"} }})
	for _, name := range []string{"Transfer_Encoding", "Content_Length", "content.length", "Authorization_", "X_HTTP_Method_Override", "X.Forwarded.For", "Host_", "X-Original_URL", "X_Corp_Ticket", "X-Corp.Ticket"} {
		header := []string{name, "1"}
		want := 400
		switch name {
		case "Authorization_", "Host_":
			want = 200 // no program reads these as another
		case "X_Corp_Ticket", "X-Corp.Ticket":
			if got := w.do("GET", "/api/alerts", "", name, "1"); got.status != 200 {
				t.Errorf("%s alone: %d %s", name, got.status, got.body)
			}
			header = append(header, "X-Corp-Ticket", "2")
		}
		got := w.do("GET", "/api/alerts", "", header...)
		if got.status != want || want == 400 && (got.code() != string(InvalidRequest) || !strings.Contains(got.message(), "hyphens")) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	for _, r := range w.regions[0].requests() {
		for name := range r.header {
			if strings.ContainsAny(name, "_.") {
				t.Errorf("%s reached upstream", name)
			}
		}
	}
}

func TestAConnectionHeaderCannotTakeTheBearerAway(t *testing.T) {
	w := newWorld(t, options{})
	got := w.raw("GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close, Authorization, X-Request-Id\r\nAccept: x/y\r\nAuthorization: Bearer theirs\r\n\r\n")
	if got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	up := w.regions[0].requests()[0].header
	if up.Get("Authorization") != "Bearer "+w.entra.tokens()[0] {
		t.Errorf("Authorization upstream is %q", up.Get("Authorization"))
	}
	if got.header.Get("X-Request-Id") == "" {
		t.Error("the answer has lost its request id")
	}
}

// What is judged is what is sent: a header that Connection names would be taken out
// after it was looked at.
func TestAHeaderThatGoesOutCannotBeNamedInConnection(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) {
		granting(t, []policy.Entry{when(t, `request.body.IsolationType == "Selective"`, "machines.isolate"), {Operations: []string{"read"}}}, nil)(d)
		d.ForwardHeaders = []string{"X-Corp-Ticket"}
	}})
	for _, named := range []string{
		"Content-Type", "content-type", "close, Content-Encoding", "Content-Disposition ,x", "Content-Language", "Content-Length", "Content-Location", "Prefer", "Accept", "accept-encoding",
		"If-Match", "OData-MaxVersion", "User-Agent", "ConsistencyLevel", "MIME-Version", "x-corp-ticket", "client-request-id",
	} {
		got := w.do("POST", isolatePath, `{"IsolationType":"Selective"}`, "Content-Type", "application/json", "Connection", named)
		if got.code() != "InvalidRequest" || !strings.Contains(got.message(), "Connection names") {
			t.Errorf("%s: %d %s", named, got.status, got.body)
		}
	}
	got := w.raw("GET /api/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nConnection: x, If-None-Match\r\nIf-None-Match: x\r\n\r\n")
	if got.code() != "InvalidRequest" {
		t.Errorf("in a second Connection: %d %s", got.status, got.body)
	}
	if n := w.arrivals(); n > 0 {
		t.Errorf("%d arrived", n)
	}
	if got := w.do("POST", isolatePath, `{"IsolationType":"Selective"}`, "Content-Type", "application/json", "Connection", "keep-alive, X-Other, TE, Keep-Alive"); got.status != 200 {
		t.Errorf("what does not go out anyway: %d %s", got.status, got.body)
	}
}

func TestACallersAuthorizationIsNeverAnswered(t *testing.T) {
	w := newWorld(t, options{})
	for _, value := range []string{"Bearer x", "Basic dTpw", "bare", ""} {
		if got := w.do("GET", "/api/alerts", "", "Authorization", value); got.status != 200 {
			t.Errorf("Authorization %q gives %d", value, got.status)
		}
	}
}

func TestAnswerHeadersAreCleaned(t *testing.T) {
	w := newWorld(t, options{})
	w.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range map[string]string{
			"Set-Cookie": "a=b", "Alt-Svc": "h3", "Strict-Transport-Security": "max-age=1", "Access-Control-Allow-Origin": "*",
			"Access-Control-Allow-Credentials": "true", "WWW-Authenticate": "Bearer", "Proxy-Status": "other; error=x", "X-Request-Id": "theirs",
			"Connection": "X-Secret-Hop", "X-Secret-Hop": "1", "Keep-Alive": "x", "Upgrade": "h2c",
			"request-id": "ms-1", "x-ms-request-id": "ms-2", "Retry-After": "7", "ETag": `"e"`, "OData-Version": "4.0", "Content-Type": "text/plain",
			"Location": "https://elsewhere.example/x", "Content-Location": "https://api.securitycenter.microsoft.com/api/alerts/1",
		} {
			w.Header().Set(k, v)
		}
		w.WriteHeader(http.StatusCreated)
	})
	got := w.do("GET", "/api/alerts", "")
	if got.status != http.StatusCreated {
		t.Fatalf("got %d", got.status)
	}
	for _, k := range []string{"Set-Cookie", "Alt-Svc", "Strict-Transport-Security", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "WWW-Authenticate", "X-Secret-Hop", "Keep-Alive", "Upgrade"} {
		if v := got.header.Get(k); v != "" {
			t.Errorf("%s reaches the caller: %q", k, v)
		}
	}
	for k, v := range map[string]string{
		"request-id": "ms-1", "x-ms-request-id": "ms-2", "Retry-After": "7", "ETag": `"e"`, "OData-Version": "4.0",
		"Location": "https://elsewhere.example/x", "Content-Location": w.server.URL + "/api/alerts/1", "Proxy-Status": "defender-proxy; next-hop=us",
	} {
		if got.header.Get(k) != v {
			t.Errorf("%s is %q, want %q", k, got.header.Get(k), v)
		}
	}
	if got.header.Get("X-Request-Id") == "theirs" {
		t.Error("the request id is upstream's")
	}
}

func TestTenants(t *testing.T) {
	w := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}, deps: func(d *Deps) {
		c := d.Clients[0]
		c.Name, c.Tenants = "one", []string{"fabrikam"}
		d.Clients = append(d.Clients, c)
	}})
	for _, path := range []string{"/t/contoso/api/alerts", "/t/fabrikam/api/alerts"} {
		if got := w.do("GET", path, ""); got.status != 200 {
			t.Errorf("%s gives %d %s", path, got.status, got.body)
		}
	}
	if n := len(w.entra.tokens()); n != 2 {
		t.Errorf("%d tokens were asked for two tenants", n)
	}
	up := w.regions[0].requests()
	if up[0].header.Get("Authorization") == up[1].header.Get("Authorization") {
		t.Error("two tenants share a token")
	}
	if got := w.do("GET", "/api/alerts", ""); got.code() != "UnknownTenant" || !strings.Contains(got.body, "/t/contoso/api/alerts") {
		t.Errorf("no tenant named gives %d %s", got.status, got.body)
	}

	only := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}, deps: func(d *Deps) { d.Clients[0].Tenants = []string{"fabrikam"} }})
	if got := only.do("GET", "/api/alerts", ""); got.status != 200 {
		t.Errorf("a group with one tenant that names none gets %d %s", got.status, got.body)
	}
	other, none := only.do("GET", "/t/contoso/api/alerts", ""), only.do("GET", "/t/nobody/api/alerts", "")
	if other.code() != "UnknownTenant" || none.code() != "UnknownTenant" {
		t.Errorf("a tenant of others gives %d %s, one of nobody %d %s", other.status, other.body, none.status, none.body)
	}
	words := func(r *reply, name string) string {
		s, _, _ := strings.Cut(strings.ReplaceAll(r.body, name, "X"), `"target"`)
		return s
	}
	if words(other, "contoso") != words(none, "nobody") {
		t.Errorf("the words differ: %s and %s", other.body, none.body)
	}

	byListener := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}, listener: Listener{Tenant: "fabrikam"}})
	if got := byListener.do("GET", "/api/alerts", ""); got.status != 200 || byListener.lines(1)[0]["tenant"] != "fabrikam" {
		t.Errorf("the listener's tenant gives %d %s", got.status, got.body)
	}
}

func TestTheAudienceGoesWithTheService(t *testing.T) {
	w := newWorld(t, options{})
	w.do("GET", "/api/alerts", "")
	w.do("GET", "/api/incidents", "")
	seen := map[string]bool{}
	for _, a := range w.regions[0].requests() {
		seen[a.header.Get("Authorization")] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d different tokens for mde and xdr, want 2", len(seen))
	}
	if got := w.do("GET", "/v1.0/security/incidents", ""); got.code() != "RegionUnavailable" || !strings.Contains(got.body, "Microsoft Graph") {
		t.Errorf("a service that the cloud does not have gives %d %s", got.status, got.body)
	}
}

func TestBodiesArriveWhole(t *testing.T) {
	w := newWorld(t, options{})
	for _, size := range []int{1, 1000, maxKept, maxKept + 1, 900_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			body := strings.Repeat("x", size)
			before := len(w.regions[0].requests())
			if got := w.do("POST", "/api/indicators", body, "Content-Type", "application/json"); got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			if up := w.regions[0].requests()[before:]; len(up) != 1 || up[0].body != body || up[0].length != int64(size) {
				t.Errorf("%d requests upstream, body of %d bytes", len(up), len(up[0].body))
			}
		})
	}
	before := len(w.regions[0].requests())
	got := w.raw("POST /api/indicators HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\nConnection: close\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n")
	if up := w.regions[0].requests()[before:]; got.status != 200 || up[0].body != "hello world" || up[0].header.Get("X-T") != "" {
		t.Errorf("a chunked body gives %d, upstream %+v", got.status, up)
	}
	before = len(w.regions[0].requests())
	if got := w.do("GET", "/api/alerts", "{}"); got.status != 200 || w.regions[0].requests()[before].body != "{}" {
		t.Errorf("a GET with a body gives %d %s", got.status, got.body)
	}
	if rec := w.lines(13); rec[len(rec)-1]["bytes_in"] != 2.0 {
		t.Errorf("bytes_in is %v, want 2", rec[len(rec)-1]["bytes_in"])
	}
}
