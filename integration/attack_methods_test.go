package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Methods that ask the proxy for something other than an operation: an echo of what
// it sends (TRACE would show the bearer), a tunnel past all rules (CONNECT), a
// change of protocol after which nothing is judged any more.
func TestAttackMethods(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	const close = " HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"
	wrong := func(name, line string) attack {
		return attack{name: name, request: line + close, status: http.StatusMethodNotAllowed, code: "MethodNotAllowed"}
	}
	all := []attack{
		wrong("TRACE", "TRACE /api/alerts"),
		wrong("TRACE of the root", "TRACE /"),
		wrong("TRACE with hops left", "TRACE /api/alerts HTTP/1.1\r\nMax-Forwards: 0\r\nX-A: b\r\nX-End:"),
		wrong("TRACK, which IIS knew", "TRACK /api/alerts"),
		wrong("DEBUG, which ASP.NET knows", "DEBUG /api/alerts"),
		wrong("a method of WebDAV", "PROPFIND /api/alerts"),
		wrong("MERGE, which OData knew", "MERGE /api/alerts/1"),
		wrong("a method of no standard", "BREW /api/alerts"),
		wrong("GET in small letters", "get /api/alerts"),
		wrong("a method that begins like one", "GETX /api/alerts"),
		wrong("QUERY", "QUERY /api/alerts"),
		wrong("OPTIONS of a path", "OPTIONS /api/alerts"),
		wrong("a tunnel to a host of Microsoft's", "CONNECT api.security.microsoft.com:443"),
		wrong("a write to a page", "POST /-/whoami"),
		wrong("a method that the path does not have", "PUT /api/alerts"),
		{name: "a tunnel to another host", request: "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\nConnection: close\r\n\r\n", status: http.StatusMethodNotAllowed, code: "MethodNotAllowed"},
		{name: "a tunnel to ourselves", request: "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", status: http.StatusMethodNotAllowed, code: "MethodNotAllowed"},
		{name: "a tunnel to a path", request: "CONNECT /api/alerts" + close, status: http.StatusBadRequest, code: "InvalidRequest"},
		{name: "a tunnel with a body", request: "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n" + length("GET /api/alerts HTTP/1.1\r\n\r\n"), status: http.StatusBadRequest, code: "InvalidRequest"},
		{name: "OPTIONS of everything", request: "OPTIONS *" + close, status: http.StatusBadRequest, code: "InvalidPath"},
		{name: "GET of everything", request: "GET *" + close, status: http.StatusBadRequest, code: "InvalidPath"},
		{name: "a file", request: "GET file:///etc/passwd" + close, status: http.StatusBadRequest, code: "InvalidRequest"},
		{name: "another scheme", request: "GET gopher://HOST/api/alerts" + close, status: http.StatusBadRequest, code: "InvalidRequest"},
	}
	w.runAll(t, all)

	// What comes through a tunnel that was refused is a request like any other.
	got := exchange(t, w.address(), "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: "+w.address()+"\r\n\r\nDELETE /api/indicators/1 HTTP/1.1\r\nHost: "+w.address()+"\r\nConnection: close\r\n\r\n")
	if len(got) != 2 || got[0].status != http.StatusMethodNotAllowed || got[1].status != http.StatusForbidden {
		t.Errorf("behind a refused tunnel came %v", got)
	}
	// And TRACE gave back nothing of the request.
	got = exchange(t, w.address(), "TRACE /api/alerts HTTP/1.1\r\nHost: "+w.address()+"\r\nX-Echo: canary-echo\r\nConnection: close\r\n\r\n")
	if len(got) != 1 || strings.Contains(fmt.Sprint(got[0]), "canary-echo") || strings.Contains(got[0].header.Get("Content-Type"), "message/http") {
		t.Errorf("TRACE is answered with %v", got)
	}
}

// An upgrade would end the judging of requests on the connection (golang/go#80416,
// Traefik#13797). None is taken: the request is served as if it had offered nothing,
// what follows on the connection is judged like any other, and Microsoft's side
// learns of no offer.
func TestAttackUpgrades(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	for name, offer := range map[string]string{
		"to h2c":                          "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
		"to h2c without its settings":     "Connection: Upgrade\r\nUpgrade: h2c\r\n",
		"to h2c, not named in Connection": "Upgrade: h2c\r\n",
		"to h2c in capitals":              "CONNECTION: UPGRADE\r\nUPGRADE: H2C\r\n",
		"to a websocket":                  "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
		"to TLS":                          "Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n",
		"to something of the attacker's":  "Connection: Upgrade, Authorization\r\nUpgrade: evil/1\r\n",
		"to a list":                       "Connection: Upgrade\r\nUpgrade: h2c, websocket, HTTP/2.0\r\n",
		"to connect-udp":                  "Connection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n",
		"in two headers":                  "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.sim.ResetRequests()
			got := exchange(t, w.address(), strings.ReplaceAll("GET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\n"+offer+"\r\n"+
				"DELETE /api/indicators/1 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", "HOST", w.address()))
			if len(got) != 2 || got[0].status != http.StatusOK || got[1].status != http.StatusForbidden {
				t.Fatalf("got %v", got)
			}
			for _, a := range got {
				if a.header.Get("Upgrade") != "" {
					t.Errorf("an answer offers an upgrade: %v", a.header)
				}
			}
			arrived := w.upstream()
			if len(arrived) != 1 || arrived[0].Target != "/api/alerts?$top=1" {
				t.Fatalf("arrived: %+v", arrived)
			}
			for _, name := range []string{"Upgrade", "Connection", "Http2-Settings", "Sec-Websocket-Key", "Sec-Websocket-Version", "Capsule-Protocol"} {
				if v := arrived[0].Header.Get(name); v != "" {
					t.Errorf("%s arrived: %s", name, v)
				}
			}
		})
	}
	w.runAll(t, []attack{{
		name: "HTTP/2 without asking", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", status: http.StatusHTTPVersionNotSupported, code: "InvalidRequest",
	}})
}

// Expect holds a body back until there is leave for it. The proxy gives the leave or
// the refusal itself, and passes no expectation on: upstream, one that was not
// understood would shift all that follows (Go's CVE-2024-24791).
func TestAttackExpectations(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	const post = "POST /api/advancedqueries/run HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Type: application/json\r\n"
	const body = `{"Query":"DeviceInfo | take 1"}`
	failed := func(name, expect string) attack {
		return attack{name: name, request: post + expect + length(body), status: http.StatusExpectationFailed, code: "InvalidRequest"}
	}
	w.runAll(t, []attack{
		failed("something that nobody knows", "Expect: 200-ok\r\n"),
		failed("a list", "Expect: 100-continue, x\r\n"),
		failed("twice", "Expect: 100-continue\r\nExpect: 100-continue\r\n"),
		failed("nothing", "Expect:\r\n"),
		failed("with a parameter", "Expect: 100-continue;q=1\r\n"),
		{name: "of a write that is refused", request: "POST /api/machines/1/offboard HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\n" + length(body), status: http.StatusForbidden, code: "NotGranted"},
		{name: "without a body", request: "GET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", status: http.StatusOK, arrive: []string{"GET /api/alerts?$top=1"}},
		{name: "in HTTP/1.0", request: strings.Replace(post, "HTTP/1.1", "HTTP/1.0", 1) + "Expect: 100-continue\r\n" + length(body), status: http.StatusOK, arrive: []string{"POST /api/advancedqueries/run"}},
		{name: "in any letters, and the body at once", request: post + "EXPECT: 100-Continue\r\n" + length(body), status: http.StatusOK, arrive: []string{"POST /api/advancedqueries/run"}},
	})
	for _, r := range w.sim.Requests() {
		if r.Header.Get("Expect") != "" {
			t.Errorf("an expectation arrived: %+v", r)
		}
	}
}
