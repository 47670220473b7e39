package integration

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// mayGoOut are the headers that a request to Microsoft's side may have.
var mayGoOut = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Accept-Charset", "Authorization", "Content-Type", "Content-Length", "Content-Encoding", "Content-Language",
	"Content-Disposition", "User-Agent", "If-Match", "If-None-Match", "If-Modified-Since", "Range", "Prefer", "Consistencylevel", "Odata-Version",
	"Odata-Maxversion", "Client-Request-Id", "X-Ms-Client-Request-Id", "Return-Client-Request-Id", "Mime-Version",
	"Cdn-Loop", // the proxy's own, and nothing else in it
}

// carried sends a request with headers of an attacker's, and gives what of it
// reached Microsoft's side: one request, with our bearer and none of theirs.
func (w *world) carried(line, headers, body string) simulator.Request {
	w.t.Helper()
	target := strings.Fields(line)[1]
	end := "\r\n"
	if body != "" {
		end = length(body)
	}
	w.fire(attack{
		request: line + " HTTP/1.1\r\nHost: HOST\r\n" + headers + "Connection: close\r\n" + end,
		status:  map[bool]int{true: http.StatusOK, false: http.StatusCreated}[body == ""], arrive: []string{strings.Fields(line)[0] + " " + target},
	})
	arrived := w.upstream()
	if len(arrived) != 1 {
		w.t.Fatalf("arrived: %+v", arrived)
	}
	r := arrived[0]
	for name := range r.Header {
		if !slices.Contains(mayGoOut, name) {
			w.t.Errorf("the header %s arrived: %q", name, r.Header[name])
		}
	}
	if a := r.Header["Cdn-Loop"]; !slices.Equal(a, []string{"defender-proxy"}) {
		w.t.Errorf("CDN-Loop arrived as %q", a)
	}
	if a := r.Header["Authorization"]; len(a) != 1 || r.Token == nil || r.Refused != "" {
		w.t.Errorf("%d times Authorization arrived, the token was %+v, refused for %q", len(a), r.Token, r.Refused)
	}
	return r
}

// What a hop says to the next one ends here, and with it what the caller calls so.
// A caller cannot have a header taken out that the proxy put in, the bearer first of
// all (golang/go#50580, Traefik's CVE-2024-45410, Teleport#42800).
func TestAttackHopByHopHeaders(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	for name, headers := range map[string]string{
		"the bearer is named in Connection":               "Connection: Authorization\r\n",
		"the bearer is named in small letters":            "Connection: authorization\r\n",
		"the bearer is named in a list":                   "Connection: keep-alive, Authorization , X-A\r\n",
		"the bearer is named in a second Connection":      "Connection: keep-alive\r\nConnection: Authorization\r\n",
		"a bearer of the caller's is named in Connection": "Authorization: Bearer theirs\r\nConnection: Authorization\r\n",
		"the length is asked about by Proxy-Connection":   "Proxy-Connection: Authorization\r\n",
		"headers of a hop":                                "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic dGhlaXJz\r\nProxy-Authenticate: Basic\r\nTE: trailers\r\n",
		"a header that is ours":                           "Connection: X-Request-Id, Proxy-Status\r\n",
		"an empty list":                                   "Connection: ,,, ,\r\n",
		"a name in Connection is no word":                 "Connection: \"Authorization\", ((, \xc3\xa9\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := w.in(t).carried("GET /api/alerts?$top=1", headers, "")
			if r.Header.Get("Accept-Encoding") == "" || r.Header.Get("User-Agent") == "" {
				t.Errorf("what the proxy says itself is gone: %v", r.Header)
			}
		})
	}
	w.runAll(t, []attack{
		{name: "a header that would pass is named in Connection", request: "GET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\nPrefer: odata.maxpagesize=7\r\nConnection: close, prefer\r\n\r\n", status: 400, code: "InvalidRequest"},
		{name: "the type that a body was judged by is named in Connection", request: "POST /api/machines/1/isolate HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nConnection: close, Content-Type\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "InvalidRequest"},
		{name: "the length is named in Connection", request: "POST /api/machines/1/isolate HTTP/1.1\r\nHost: HOST\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "InvalidRequest"},
		{name: "the host is named in Connection", request: "GET /api/alerts HTTP/1.1\r\nHost: HOST\r\nConnection: close, Host\r\n\r\n", status: 400, code: "InvalidRequest"},
		{name: "the coding is named in Connection", request: "POST /api/machines/1/isolate HTTP/1.1\r\nHost: HOST\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 400, code: "InvalidRequest"},
	})
}

// Servers of Microsoft's family take another method or another path from a header,
// and other programs an address, a user or a host. What is judged is the request
// line; none of these goes out, however it is spelt (MS-ODATA section 2.2.5.8;
// oauth2-proxy's CVE-2026-40575, Traefik's CVE-2026-35051).
func TestAttackHeadersThatSayOtherwise(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	for _, header := range []string{
		// another method
		"X-HTTP-Method: POST", "X-HTTP-Method: DELETE", "X-HTTP-Method-Override: POST", "x-http-method-override: delete", "X-Method-Override: POST", "X-Method: POST", "_method: POST", "X-METHOD-OVERRIDE: PATCH",
		// another path
		"X-Original-URL: /api/machines/1/isolate", "X-Rewrite-URL: /api/machines/1/isolate", "X-Original-URI: /api/indicators", "X-Rewrite-Url: http://evil.example/", "X-Forwarded-Uri: /api/indicators",
		"X-Forwarded-Path: /api/indicators", "X-Forwarded-Prefix: /api/indicators", "X-Envoy-Original-Path: /api/indicators", "X-Accel-Redirect: /api/indicators", "Request-Uri: /api/indicators",
		"X-WAP-Profile: http://evil.example/x", "Destination: /api/indicators", "UNENCODED_URL: /api/indicators",
		// another host
		"X-Forwarded-Host: evil.example", "X-Host: evil.example", "X-Original-Host: evil.example", "X-Forwarded-Server: evil.example", "Forwarded: for=10.1.2.3;host=evil.example;proto=https", "X-Backend-Host: evil.example", "X-HTTP-Host-Override: evil.example",
		// another caller
		"X-Forwarded-For: 10.1.2.3", "X-Real-IP: 10.1.2.3", "X-Client-IP: 10.1.2.3", "True-Client-IP: 10.1.2.3", "CF-Connecting-IP: 10.1.2.3", "X-Cluster-Client-IP: 10.1.2.3", "X-ProxyUser-Ip: 10.1.2.3", "X-Azure-ClientIP: 10.1.2.3",
		"X-MS-Client-Principal: eyJ9", "X-MS-Client-Principal-Name: admin", "X-MS-Token-AAD-Access-Token: eyJ9", "X-Remote-User: admin", "X-Forwarded-User: admin", "X-Forwarded-Access-Token: eyJ9", "X-ARR-ClientCert: MII", "X-Client-Cert: MII", "X-SSL-Client-Verify: SUCCESS", "SPIFFE-ID: spiffe://corp.example/admin",
		"CDN-Loop: cdn.example, evil",
		// another tenant or application
		"X-Tenant: fabrikam", "X-MS-Tenant-Id: 44444444-4444-4444-4444-444444444444", "X-AnchorMailbox: a", "Client-Id: x",
		// a credential of the caller's
		"Authorization: Bearer theirs", "Authorization: Basic dGhlaXJz", "Authorization: ", "authorization: Bearer theirs", "X-Authorization: Bearer theirs", "Cookie: session=theirs", "Cookie2: theirs", "X-Api-Key: theirs", "Api-Key: theirs", "Ocp-Apim-Subscription-Key: theirs", "X-ZUMO-AUTH: theirs",
		// another framing, another protocol
		"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "X-Transfer-Encoding: chunked", "Content-Length-Override: 4", "Max-Forwards: 0", "Via: 1.1 evil", "Front-End-Https: on", "X-Forwarded-Proto: https", "X-Forwarded-Scheme: https", "X-Url-Scheme: https", "Sec-WebSocket-Key: x",
		// what ASP.NET takes for a session, and Azure's front ends for a route
		"AspFilterSessionId: S(x)", "X-ARR-SSL: x", "X-Original-For: 10.1.2.3", "X-Original-Proto: https", "X-WAWS-Unencoded-URL: /api/indicators", "X-Arr-Log-Id: x", "Disguised-Host: evil.example", "Was-Default-Hostname: evil.example", "X-AppService-Proto: https",
		// what makes a server answer otherwise, or tell more
		"X-Debug: 1", "X-Requested-With: XMLHttpRequest", "DNT: 1", "Sec-Fetch-Mode: navigate", "Access-Control-Request-Method: POST", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Idempotency-Key: x", "X-Idempotency-Key: x",
	} {
		t.Run(header, func(t *testing.T) {
			r := w.in(t).carried("GET /api/alerts?$top=1", header+"\r\n", "")
			if r.Operation != "alerts.list" || r.Host == "evil.example" {
				t.Errorf("arrived: %+v", r)
			}
		})
	}
}

// Programs that make variables of headers know no hyphens, so that Content_Length
// and Content.Length are Content-Length to them. What looks like a header with a
// meaning, or like another that is there, is refused; what looks like none is left
// out like any other (oauth2-proxy's CVE-2025-64484, Traefik's CVE-2026-39858).
func TestAttackNamesThatLookAlike(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	var all []attack
	for _, header := range []string{
		"Content_Length: 60", "content_length: 0", "Content.Length: 60", "Transfer_Encoding: chunked", "TRANSFER_ENCODING: chunked", "Transfer.Encoding: chunked", "transfer_encoding: identity",
		"X_Forwarded_For: 10.1.2.3", "X-Forwarded_For: 10.1.2.3", "X_Forwarded-Host: evil.example", "X.Forwarded.Host: evil.example", "X_Original_URL: /api/indicators", "X_Rewrite_URL: /api/indicators",
		"X_HTTP_Method_Override: DELETE", "X.HTTP.Method: DELETE", "Proxy_Connection: close", "Proxy_Authorization: Basic x", "Keep_Alive: 1", "Content_Type: text/html", "Content.Encoding: gzip",
		"X-A: 1\r\nX_A: 2", "X_A: 2\r\nX-A: 1", "If-Match: a\r\nIf_Match: b", "x.corp.ticket: 1\r\nX_Corp_Ticket: 2",
	} {
		all = append(all, attack{
			name: strings.ReplaceAll(header, "\r\n", " and "), request: "GET /api/alerts HTTP/1.1\r\nHost: HOST\r\n" + header + "\r\nConnection: close\r\n\r\n",
			status: http.StatusBadRequest, code: "InvalidRequest",
		})
	}
	w.runAll(t, all)
	for _, header := range []string{"X_Corp_Ticket: 1", "x_request_source: soar", "x.b3.traceid: 1"} {
		w.carried("GET /api/alerts?$top=1", header+"\r\n", "")
	}
}
