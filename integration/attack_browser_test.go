package integration

import (
	"net/http"
	"strings"
	"testing"
)

// Pages of other origins, as their browsers would send what they ask for. The page
// cannot choose Host, Origin and Sec-Fetch-Site; its author chooses the name that it
// comes from, and to which address that name resolves today. Nothing a page sends is
// served, so that it can neither read nor change anything, on the callers' listener
// and on the operator's.
func TestAttackPagesOfOtherOrigins(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	_, port, _ := strings.Cut(w.address(), ":")
	const get = "GET /api/alerts?$top=1 HTTP/1.1\r\nConnection: close\r\n"
	const post = "POST /api/machines/1/isolate HTTP/1.1\r\nConnection: close\r\nHost: HOST\r\n"
	var all []attack

	// DNS rebinding: to the browser the page is of our origin, and only its name in
	// Host tells.
	for _, host := range []string{
		"evil.example", "evil.example:" + port, "localhost.evil.example:" + port, "127.0.0.1.evil.example:" + port, "127.0.0.1.nip.io:" + port, "evil.localhost:" + port,
		"localhost.:" + port, "localhost.localdomain:" + port, "0.0.0.0:" + port, "0:" + port, "2130706433:" + port, "0x7f000001:" + port, "0177.0.0.1:" + port, "127.1:" + port, "127.0.0.01:" + port, "127.000.000.001:" + port,
		"[::]:" + port, "[::ffff:10.0.0.1]:" + port, "[fe80::1%25eth0]:" + port, "10.0.0.1:" + port, "169.254.169.254", "host.docker.internal:" + port, "kubernetes.docker.internal:" + port, "xn--lcalhost-54a:" + port,
		"api.security.microsoft.com", "login.microsoftonline.com", "",
	} {
		all = append(all, attack{
			name: "a page whose name " + host + " was rebound", request: get + "Host: " + host + "\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n\r\n",
			status: http.StatusMisdirectedRequest, code: "HostNotAllowed",
		})
	}
	// A page that calls us by our name says where it comes from.
	for _, header := range []string{
		"Origin: https://evil.example", "Origin: http://evil.example:" + port, "Origin: null", "Origin: ", "Origin: http://HOST.evil.example", "Origin: http://evil.example/HOST", "Origin: http://HOST@evil.example",
		"Origin: https://HOST", "Origin: http://127.0.0.1", "Origin: http://127.0.0.1:1", "Origin: http://localhost:" + port, "Origin: http://HOST/", "Origin: HOST", "Origin: file://", "Origin: chrome-extension://abcdefghijklmnop",
		"Origin: http://HOST, https://evil.example", "Origin: http://HOST\r\nOrigin: https://evil.example", "Origin: https://evil.example\r\nSec-Fetch-Site: same-origin",
		"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: Cross-Site", "Sec-Fetch-Site: ", "Sec-Fetch-Site: none, cross-site", "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site", "Sec-Fetch-Site: something-new",
		"Origin: http://HOST\r\nSec-Fetch-Site: cross-site",
	} {
		for _, request := range []string{get + "Host: HOST\r\n", post + "Content-Type: text/plain\r\nContent-Length: 0\r\n"} {
			all = append(all, attack{
				name:    strings.Fields(request)[0] + " with " + strings.ReplaceAll(strings.ReplaceAll(header, "\r\n", " and "), "HOST", "our address"),
				request: request + header + "\r\n\r\n", status: http.StatusForbidden, code: "CrossSiteRequest",
			})
		}
	}
	const evil = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n"
	cross := func(name, request string) {
		all = append(all, attack{name: name, request: request, status: http.StatusForbidden, code: "CrossSiteRequest"})
	}
	cross("a form", post+evil+"Sec-Fetch-Mode: navigate\r\nContent-Type: application/x-www-form-urlencoded\r\n"+length("Comment=x"))
	cross("a form that looks like JSON", post+evil+"Content-Type: text/plain\r\n"+length(`{"Comment":"x","IsolationType":"Full"}`))
	cross("a beacon", post+evil+"Sec-Fetch-Mode: no-cors\r\nContent-Type: text/plain;charset=UTF-8\r\n"+length(`{}`))
	cross("an image", get+"Host: HOST\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n\r\n")
	cross("a script", get+"Host: HOST\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n\r\n")
	cross("a frame", get+"Host: HOST\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n\r\n")
	cross("a link that somebody followed", get+"Host: HOST\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n\r\n")
	cross("a websocket", get+"Host: HOST\r\nOrigin: https://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	for _, path := range []string{"/api/alerts", "/api/machines/1/isolate", "/", "/-/whoami", "/nothing"} {
		cross("a preflight for "+path, "OPTIONS "+path+" HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n"+evil+"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n")
		cross("a preflight into the private network for "+path, "OPTIONS "+path+" HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n"+evil+"Access-Control-Request-Method: GET\r\nAccess-Control-Request-Private-Network: true\r\nAccess-Control-Request-Local-Network: true\r\n\r\n")
		cross("a cross-site read of "+path, "GET "+path+" HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nSec-Fetch-Site: cross-site\r\n\r\n")
	}
	w.runAll(t, all)

	// The operator's listener is a door like the other. It is called by the name in
	// the request, not by that of the callers' listener.
	admin := strings.TrimPrefix(w.admin, "http://")
	for _, path := range []string{"GET /", "GET /-/tenants", "GET /-/regions", "GET /metrics", "GET /-/healthy", "POST /-/reload", "GET /debug/pprof/", "GET /nothing"} {
		for header, want := range map[string]int{
			"Host: evil.example\r\nSec-Fetch-Site: same-origin": http.StatusMisdirectedRequest,
			"Host: HOST\r\nOrigin: https://evil.example":        http.StatusForbidden,
			"Host: HOST\r\nOrigin: null":                        http.StatusForbidden,
			"Host: HOST\r\nSec-Fetch-Site: cross-site":          http.StatusForbidden,
			"Host: HOST\r\nOrigin: http://" + w.address():       http.StatusForbidden, // the callers' listener is another origin
		} {
			got := exchange(t, admin, strings.ReplaceAll(path+" HTTP/1.1\r\n"+header+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "HOST", admin))
			if len(got) != 1 || got[0].status != want {
				t.Errorf("%s of the operator with %q: got %v, want %d", path, header, got, want)
			}
		}
	}
	if strings.Contains(w.stderr.String(), "configuration read again") {
		t.Errorf("a page had the configuration read again")
	}
}

// What a browser sends for somebody who typed the address, and for our own pages.
// It is served, for else nobody could read the help.
func TestBrowsersOfPeopleAreServed(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	_, port, _ := strings.Cut(w.address(), ":")
	for _, headers := range []string{
		"Host: HOST\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n",
		"Host: localhost:" + port + "\r\nSec-Fetch-Site: none\r\n",
		"Host: LocalHost:" + port + "\r\nSec-Fetch-Site: none\r\n",
		"Host: [::1]:" + port + "\r\nSec-Fetch-Site: none\r\n",
		"Host: 127.0.0.53:" + port + "\r\n",
		"Host: [::ffff:127.0.0.1]:" + port + "\r\n",
		"Host: HOST\r\nOrigin: http://HOST\r\nSec-Fetch-Site: same-origin\r\n",
		"Host: localhost:9999\r\nOrigin: http://localhost:9999\r\nSec-Fetch-Site: same-origin\r\n", // a forwarded port
		"Host: HOST\r\n",
	} {
		got := exchange(t, w.address(), strings.ReplaceAll("GET / HTTP/1.1\r\nAccept: text/html\r\nConnection: close\r\n"+headers+"\r\n", "HOST", w.address()))
		if len(got) != 1 || got[0].status != http.StatusOK || !strings.HasPrefix(got[0].header.Get("Content-Type"), "text/html") {
			t.Errorf("%q: got %v", headers, got)
		}
	}
}
