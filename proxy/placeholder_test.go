package proxy

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/clients"
)

// loggingIn is a world whose operator answers tools that log in.
func loggingIn(o options) options {
	before := o.deps
	o.deps = func(d *Deps) {
		d.PlaceholderToken = true
		if before != nil {
			before(d)
		}
	}
	return o
}

// logins are paths at which tools look for a token, or for how to get one.
var logins = []string{
	"/oauth2/token", "/oauth2/v2.0/token", "/contoso.example/oauth2/token", "/11111111-1111-1111-1111-111111111111/oauth2/v2.0/token",
	"/api/oauth2/token", "/OAUTH2/Token/", "//oauth2/token", "/t/contoso/oauth2/token", "/t/contoso/x/y/oauth2/v2.0/token", "/t/nobody-s/oauth2/token",
	"/common/oauth2/devicecode", "/common/oauth2/v2.0/devicecode",
	"/.well-known/openid-configuration", "/contoso/.well-known/openid-configuration", "/contoso/v2.0/.well-known/openid-configuration",
	"/common/discovery/instance", "/common/discovery/keys", "/contoso/discovery/v2.0/keys", "/common/UserRealm/user@contoso.example",
}

// timeless is an answer without what depends on the time, in the JWTs of a token
// too.
func timeless(t *testing.T, body string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("not JSON: %v: %s", err, body)
	}
	for _, name := range []string{"expires_on", "not_before"} {
		if m[name] != nil {
			m[name] = "T"
		}
	}
	for _, name := range []string{"access_token", "id_token"} {
		token, ok := m[name].(string)
		if !ok {
			continue
		}
		parts := strings.Split(token, ".")
		claims, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		var c map[string]any
		if err := json.Unmarshal(claims, &c); err != nil {
			t.Fatal(err)
		}
		c["iat"], c["nbf"], c["exp"] = "T", "T", "T"
		m[name] = []any{parts[0], c, parts[2]}
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Whoever logs in, with whatever proof and in whatever form, gets the same answer:
// nobody learns from it whether a secret is right, or that it arrived.
func TestEveryLoginHasTheSameAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, loggingIn(options{}))
	var multi strings.Builder
	form := multipart.NewWriter(&multi)
	_ = form.WriteField("client_secret", "right")
	_ = form.Close()
	bodies := []struct{ kind, contentType, body string }{
		{"no body", "", ""},
		{"a form", "application/x-www-form-urlencoded", "grant_type=client_credentials&client_id=a&client_secret=right&scope=x%2F.default"},
		{"a form with another secret", "application/x-www-form-urlencoded", "grant_type=client_credentials&client_id=a&client_secret=wrong"},
		{"a refresh", "application/x-www-form-urlencoded", "grant_type=refresh_token&refresh_token=placeholder"},
		{"the poll of a device code", "application/x-www-form-urlencoded", "grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=placeholder"},
		{"JSON", "application/json", `{"grant_type":"password","username":"u","password":"p"}`},
		{"a multipart form", form.FormDataContentType(), multi.String()},
		{"garbage that says it is JSON", "application/json", "\x00\xff{{"},
		{"garbage that says it is packed", "text/plain", "\x1f\x8b\x00"},
	}
	proofs := []string{"", "Basic Y2xpZW50OnNlY3JldA==", "Bearer eyJhbGciOiJub25lIn0.e30.", "bare", "Negotiate ==="}
	n := 0
	for _, path := range logins {
		want := timeless(t, w.do("GET", path, "").body)
		for _, method := range []string{"GET", "POST"} {
			for _, b := range bodies {
				for _, proof := range proofs {
					var header []string
					if b.contentType != "" {
						header = append(header, "Content-Type", b.contentType)
					}
					if proof != "" {
						header = append(header, "Authorization", proof)
					}
					target := path
					if b.kind == "a form" && !strings.Contains(path, "instance") {
						target += "?client_id=a&client_secret=right&resource=https://x"
					}
					got := w.do(method, target, b.body, header...)
					n++
					if got.status != http.StatusOK || timeless(t, got.body) != want {
						t.Fatalf("%s %s with %s and Authorization %q: %d %s\nwithout either: %s", method, target, b.kind, proof, got.status, got.body, want)
					}
					for name, value := range map[string]string{
						"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", "Pragma": "no-cache",
						"Proxy-Status": "defender-proxy", "X-Content-Type-Options": "nosniff", "Content-Length": fmt.Sprint(len(got.body)),
						"Set-Cookie": "", "Www-Authenticate": "", "Location": "", "Access-Control-Allow-Origin": "",
					} {
						if v := got.header.Get(name); v != value {
							t.Errorf("%s %s: %s: got %q, want %q", method, target, name, v, value)
						}
					}
				}
			}
		}
	}
	lines := w.lines(n + len(logins))
	if len(lines) != n+len(logins) {
		t.Errorf("%d requests left %d records", n+len(logins), len(lines))
	}
	for _, l := range lines {
		if l["decision"] != "allowed" || l["operation"] != nil || l["tenant"] != nil || l["query"] != nil || l["status"] != 200.0 || l["path"] == "" {
			t.Fatalf("a record of a login says %v", l)
		}
	}
	for _, r := range w.regions {
		if len(r.requests()) > 0 {
			t.Errorf("%d requests went to region %s", len(r.requests()), r.name)
		}
	}
	if tokens := w.entra.tokens(); len(tokens) > 0 {
		t.Errorf("Entra ID was asked for %d tokens", len(tokens))
	}
}

// A tool's library says what it is: the one that cannot bear an ID token of another
// client gets none, and all else is the same.
func TestALibraryThatJudgesTheIDTokenGetsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, loggingIn(options{}))
	var usual, strict map[string]any
	for into, sku := range map[*map[string]any]string{&usual: "MSAL.Go", &strict: "MSAL.Python"} {
		if err := json.Unmarshal([]byte(timeless(t, w.do("POST", "/x/oauth2/v2.0/token", "a=b", "x-client-SKU", sku).body)), into); err != nil {
			t.Fatal(err)
		}
	}
	if usual["id_token"] == nil {
		t.Errorf("MSAL for Go has no ID token: %v", usual)
	}
	delete(usual, "id_token")
	if fmt.Sprint(usual) != fmt.Sprint(strict) {
		t.Errorf("MSAL for Python gets %v, want %v", strict, usual)
	}
}

// TestNoCanaryOfALoginIsSeen sends each kind of secret wherever a tool logs in with
// one. Nothing that the operator sees holds it, nor does the answer.
func TestNoCanaryOfALoginIsSeen(t *testing.T) {
	places := []string{
		"POST ~ HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: *\r\n\r\n@",
		"POST ~ HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n#\r\n@\r\n0\r\n\r\n",
		"POST ~ HTTP/1.1\r\nContent-Length: 500\r\n\r\n@", // the rest never comes
		"POST ~?client_secret=^&assertion=^&x=^&^ HTTP/1.1\r\nContent-Length: 0\r\n",
		"GET ~?refresh_token=^&device_code=^ HTTP/1.1\r\n",
		"GET ~?authorization_endpoint=https://x/^/y&^=1 HTTP/1.1\r\n",
		"GET ~?authorization_endpoint=^ HTTP/1.1\r\n",
		"GET ~ HTTP/1.1\r\nAuthorization: Basic @\r\n",
		"GET ~ HTTP/1.1\r\nAuthorization: @\r\nProxy-Authorization: @\r\nCookie: a=@\r\n",
		"POST ~ HTTP/1.1\r\nX-Client-Sku: @\r\nClient-Request-Id: @\r\nContent-Length: 0\r\n",
		"PUT ~?x=^ HTTP/1.1\r\nContent-Length: *\r\n\r\n@",
		"HEAD ~?^ HTTP/1.1\r\n",
	}
	for name, o := range map[string]options{
		"on":  loggingIn(options{}),
		"off": {},
		"with nobody admitted": loggingIn(options{deps: func(d *Deps) {
			d.Clients[0].From = []clients.Source{clients.Addresses(netip.MustParsePrefix("192.0.2.0/24"))}
		}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			for i, c := range canaries {
				for j, place := range places {
					path := logins[(i+j)%len(logins)]
					request := strings.NewReplacer("~", path, "@", c.value, "^", url.QueryEscape(c.value), "*", fmt.Sprint(len(c.value)), "#", fmt.Sprintf("%x", len(c.value))).Replace(place)
					answer := w.send(request)
					if answer == "" {
						t.Errorf("no answer to %q", request)
					}
					// A word may be a tenant's name, which the answer of an instance holds.
					if strings.Contains(answer, c.mark) && !(c.bare && strings.Contains(place, "authorization_endpoint")) {
						t.Errorf("the answer to %q shows %s: %s", place, c.kind, answer)
					}
				}
			}
			w.server.Close() // and so the last record is written
			for where, text := range map[string]string{"the log": w.log.String(), "the audit": w.records.String()} {
				for _, c := range canaries {
					for _, form := range []string{c.mark, url.QueryEscape(c.mark), url.PathEscape(c.mark)} {
						if strings.Contains(text, form) {
							t.Errorf("%s shows %s", where, c.kind)
						}
					}
				}
			}
		})
	}
}

func TestLoginsThatAreRefused(t *testing.T) {
	t.Parallel()
	on := newWorld(t, loggingIn(options{}))
	off := newWorld(t, options{})
	strangers := newWorld(t, loggingIn(options{deps: func(d *Deps) {
		d.Clients[0].From = []clients.Source{clients.Addresses(netip.MustParsePrefix("192.0.2.0/24"))}
	}}))
	for _, c := range []struct {
		name         string
		w            *world
		method, path string
		header       []string
		status       int
		code, says   string
	}{
		{"with PUT", on, "PUT", "/oauth2/token", nil, 405, "MethodNotAllowed", "GET or POST it"},
		{"with OPTIONS, as browsers ask beforehand", on, "OPTIONS", "/oauth2/token", nil, 405, "MethodNotAllowed", "GET or POST it"},
		{"with DELETE", on, "DELETE", "/contoso/v2.0/.well-known/openid-configuration", nil, 405, "MethodNotAllowed", "GET or POST it"},
		{"from a page of another origin", on, "POST", "/oauth2/token", []string{"Origin", "https://evil.example"}, 403, "CrossSiteRequest", "web page"},
		{"from such a page that says so otherwise", on, "GET", "/oauth2/token", []string{"Sec-Fetch-Site", "cross-site"}, 403, "CrossSiteRequest", "web page"},
		{"under a name that is not ours", on, "POST", "/oauth2/token", []string{"Host", "login.microsoftonline.com"}, 421, "HostNotAllowed", "login.microsoftonline.com"},
		{"from somebody who is not admitted", strangers, "POST", "/oauth2/token", nil, 403, "ClientNotAdmitted", ""},
		{"at an encoded slash", on, "POST", "/oauth2%2Ftoken", nil, 400, "InvalidPath", "%2F"},
		{"at a dot segment", on, "POST", "/x/../oauth2/token", nil, 400, "InvalidPath", "dot"},
		{"at an encoded dot segment", on, "POST", "/x/%2e%2e/oauth2/token", nil, 400, "InvalidPath", "dot"},
		{"at a path parameter", on, "POST", "/oauth2/token;x=1", nil, 400, "InvalidPath", ";"},
		{"at an empty segment inside", on, "POST", "/oauth2//token", nil, 400, "InvalidPath", "empty"},
		{"behind an encoded backslash", on, "GET", "/a%5Cb/.well-known/openid-configuration", nil, 400, "InvalidPath", "%5C"},
		{"at an interactive login", on, "GET", "/common/oauth2/v2.0/authorize", nil, 404, "UnknownOperation", "choose client credentials or a device code"},
		{"switched off", off, "POST", "/oauth2/token", nil, 404, "UnknownOperation", "placeholder_token: true"},
		{"switched off, with any method", off, "PUT", "/oauth2/token", nil, 404, "UnknownOperation", "No login is needed here"},
		{"switched off, behind a tenant", off, "POST", "/t/contoso/oauth2/v2.0/token", nil, 404, "UnknownOperation", "switched off"},
		{"switched off, behind a tenant that is none", off, "POST", "/t/nobody-s/oauth2/v2.0/token", nil, 404, "UnknownOperation", "switched off"},
		{"switched off, discovery", off, "GET", "/contoso/v2.0/.well-known/openid-configuration", nil, 404, "UnknownOperation", "switched off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.w.do(c.method, c.path, "", c.header...)
			if got.status != c.status || got.code() != c.code || !strings.Contains(got.message(), c.says) {
				t.Errorf("%s %s: %d %s\nwant %d %s with %q", c.method, c.path, got.status, got.body, c.status, c.code, c.says)
			}
			if allow := got.header.Get("Allow"); c.status == 405 && allow != "GET, HEAD, POST" {
				t.Errorf("Allow: got %q", allow)
			}
		})
	}
}

// A prefix is canonical before it stands in a document, where JSON has its way too.
func TestDiscoveryBehindAnOddPrefixIsCanonicalJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t, loggingIn(options{}))
	got := w.do("GET", `/%63ontoso/%22a%22&'<b>'/.well-known/openid-configuration`, "")
	var doc struct{ Issuer string }
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
		t.Fatalf("%v: %s", err, got.body)
	}
	if want := w.server.URL + `/contoso/%22a%22&'%3Cb%3E'`; doc.Issuer != want {
		t.Errorf("issuer: got %s, want %s", doc.Issuer, want)
	}
	if strings.ContainsAny(got.body, "<>") {
		t.Errorf("the document holds angle brackets: %s", got.body)
	}
}

func TestALoginOfHEADHasTheHeadersOfGET(t *testing.T) {
	t.Parallel()
	w := newWorld(t, loggingIn(options{}))
	for _, path := range logins {
		get, head := w.do("GET", path, ""), w.do("HEAD", path, "")
		if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != get.header.Get("Content-Length") {
			t.Errorf("HEAD %s: %d %q with Content-Length %s; GET has %s", path, head.status, head.body, head.header.Get("Content-Length"), get.header.Get("Content-Length"))
		}
	}
	for _, rec := range w.lines(2 * len(logins)) {
		if sent, _ := rec["bytes_out"].(float64); (sent == 0) != (rec["method"] == "HEAD") {
			t.Errorf("the record of %v %v has %v bytes", rec["method"], rec["path"], sent)
		}
	}
}

// What is in the body does not matter. A long one, one that never ends and one that
// waits to be asked for do not keep a tool from its answer, nor the next from the
// connection.
func TestBodiesOfLoginsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, loggingIn(options{limits: func(l *Limits) { l.RequestBytes = 8 << 20 }}))
	t.Run("a body of 1 MiB", func(t *testing.T) {
		got := w.do("POST", "/oauth2/token", strings.Repeat("client_secret=x&", 1<<16))
		if got.status != 200 || timeless(t, got.body) == "" {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("a body that is too long by its own word", func(t *testing.T) {
		got := w.raw("POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n")
		if got.status != 413 {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("a body that never ends", func(t *testing.T) {
		got := w.raw("POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
		if got.status != 200 || timeless(t, got.body) == "" {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("a body that waits to be asked for", func(t *testing.T) {
		got := w.do("POST", "/oauth2/token", "client_secret=x", "Expect", "100-continue")
		if got.status != 200 || timeless(t, got.body) == "" {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("a body that comes behind its head on a connection that is to be closed", func(t *testing.T) {
		c, err := net.Dial("tcp", w.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, "POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 15\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // an answer that does not wait is out and the connection closed
		if _, err := io.WriteString(c, "client_secret=x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // a reset has come
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "POST"})
		if err != nil {
			t.Fatal(err)
		}
		if got := readReply(t, resp); got.status != 200 || got.err != nil || timeless(t, got.body) == "" {
			t.Errorf("%d %s %v", got.status, got.body, got.err)
		}
	})
	t.Run("a connection that goes on", func(t *testing.T) {
		c, err := net.Dial("tcp", w.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		in := bufio.NewReader(c)
		for i := range 20 {
			body := strings.Repeat("a", i*1000)
			if _, err := fmt.Fprintf(c, "POST /oauth2/v2.0/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(in, &http.Request{Method: "POST"})
			if err != nil {
				t.Fatalf("login %d: %v", i, err)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != 200 || resp.Close || err != nil {
				t.Fatalf("login %d: %d, closes %v, %v", i, resp.StatusCode, resp.Close, err)
			}
		}
	})
}
