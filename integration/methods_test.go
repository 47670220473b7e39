package integration

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// came is a request as it came to Microsoft's side.
type came struct {
	method, target string
	header         http.Header
	length         int64
	coding         []string // of the transfer
	bytes          int64
	sum            string // SHA-256 of the body, in hex
}

// notebook is Microsoft's side for these stories: it writes down what comes and
// answers what it was told to.
type notebook struct {
	mu     sync.Mutex // guards what follows
	came   []came
	answer http.HandlerFunc
}

func (n *notebook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	size, err := io.Copy(sum, r.Body)
	if err != nil {
		return
	}
	n.mu.Lock()
	n.came = append(n.came, came{r.Method, r.RequestURI, r.Header.Clone(), r.ContentLength, r.TransferEncoding, size, hex.EncodeToString(sum.Sum(nil))})
	answer := n.answer
	n.mu.Unlock()
	if answer == nil {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"value":[]}`)
		return
	}
	answer(w, r)
}

// tell sets the answer to come and forgets what came.
func (n *notebook) tell(answer http.HandlerFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer, n.came = answer, nil
}

// only gives the request that came, of which there has to be one.
func (n *notebook) only(t *testing.T) came {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.came) != 1 {
		t.Fatalf("%d requests came: %+v", len(n.came), n.came)
	}
	return n.came[0]
}

// withNotebook starts a proxy before a notebook; it may do all that these stories
// ask for.
func withNotebook(t *testing.T) (*world, *notebook) {
	t.Helper()
	n := new(notebook)
	w := among(t, setup{
		permissions: map[string][]string{"mde": {"Library.Manage", "Alert.ReadWrite.All", "Ti.ReadWrite.All", "Machine.Isolate", "Machine.ReadWrite.All"}},
		config: func(c object) {
			allow(c, "read", "hunt", "triage", "manage", "respond")
			c["policy"] = object{"operations": []object{{
				"id": "settings.replace", "service": "mde", "method": "PUT", "path": "/api/settings/{id}", "class": "manage", "application": []string{"Library.Manage"},
			}}}
		},
	}, map[string]*httptest.Server{"eu": newOwn(t, nil, n.ServeHTTP)})
	return w, n
}

// upload is a form with a file of so many bytes, and its Content-Type. The
// boundary is one that a careless program would take for the file's own bytes.
func upload(t *testing.T, size int) ([]byte, string) {
	t.Helper()
	form := new(bytes.Buffer)
	parts := multipart.NewWriter(form)
	if err := parts.SetBoundary("----=_Part 1'()+_,-./:=?"); err != nil {
		t.Fatal(err)
	}
	file, err := parts.CreateFormFile("File", "tool (1).bin")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = file.Write(bytes.Repeat([]byte("\r\n--0123456789\x00\xff"), size/16))
	_ = parts.WriteField("HasParameters", "true")
	if err := parts.Close(); err != nil {
		t.Fatal(err)
	}
	return form.Bytes(), `multipart/form-data; boundary="----=_Part 1'()+_,-./:=?"; charset=UTF-8`
}

// Legacy tools send what their authors tried until it worked: a GET with a body, a
// DELETE with one, forms in chunks. The method, the body and what it says of itself
// arrive as they were sent, with a length or in chunks, and a body is never taken
// away or invented.
func TestEveryMethodArrivesWithItsBody(t *testing.T) {
	t.Parallel()
	w, n := withNotebook(t)
	const query = `{"Query":"DeviceInfo | take 1 \u0026 \/ ü"}`
	small, form := upload(t, 3000)
	large, _ := upload(t, 20<<20)
	for _, tc := range []struct {
		name, method, path string
		body               []byte
		header             []string
	}{
		{"a GET with a body", "GET", "/api/alerts?$top=1", []byte(query), []string{"Content-Type", "application/json"}},
		{"a GET with a body that is no JSON", "GET", "/api/machines", []byte("\x00\xff\r\n"), nil},
		{"a DELETE with a body", "DELETE", "/api/indicators/995", []byte(query), []string{"Content-Type", "application/json; charset=utf-8"}},
		{"a PATCH", "PATCH", "/api/alerts/da1_2", []byte(`{"status":"Resolved","comment":"A;B&C"}`), []string{"Content-Type", "application/json;odata.metadata=minimal"}},
		{"a PUT", "PUT", "/api/settings/1", []byte(`[]`), []string{"Content-Type", "application/json", "If-Match", `W/"1"`}},
		{"a POST without a body", "POST", "/api/machines/1/unisolate", nil, nil},
		{"a form by POST", "POST", "/api/libraryfiles", small, []string{"Content-Type", form}},
		{"a form of 20 MB", "POST", "/api/libraryfiles", large, []string{"Content-Type", form}},
		{"a body in gzip", "POST", "/api/advancedqueries/run", []byte("\x1f\x8b\x08\x00whatever"), []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}},
		{"a form of curl -d", "POST", "/api/indicators", []byte("a=b&c=%20d"), []string{"Content-Type", "application/x-www-form-urlencoded"}},
	} {
		for _, inChunks := range []bool{false, true} {
			if inChunks && len(tc.body) == 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s, in chunks: %v", tc.name, inChunks), func(t *testing.T) {
				n.tell(nil)
				w := w.in(t)
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				var body io.Reader
				if len(tc.body) > 0 {
					body = bytes.NewReader(tc.body)
				}
				if inChunks {
					body = struct{ io.Reader }{body} // so that nobody knows its length
				}
				r, err := http.NewRequestWithContext(ctx, tc.method, w.url+tc.path, body)
				if err != nil {
					t.Fatal(err)
				}
				for i := 0; i < len(tc.header); i += 2 {
					r.Header.Set(tc.header[i], tc.header[i+1])
				}
				resp, err := caller.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				if got := read(t, resp); resp.StatusCode != http.StatusOK {
					t.Fatalf("got %d %s", resp.StatusCode, got)
				}
				got := n.only(t)
				if sum := sha256.Sum256(tc.body); got.method != tc.method || got.target != tc.path || got.bytes != int64(len(tc.body)) || got.sum != hex.EncodeToString(sum[:]) {
					t.Errorf("%s %s with %d bytes came as %+v", tc.method, tc.path, len(tc.body), got)
				}
				if !inChunks && (got.length != int64(len(tc.body)) || got.coding != nil) {
					t.Errorf("the length %d came as %d %v", len(tc.body), got.length, got.coding)
				}
				for i := 0; i < len(tc.header); i += 2 {
					if v := got.header[tc.header[i]]; !slices.Equal(v, tc.header[i+1:i+2]) {
						t.Errorf("%s came as %q, want %q", tc.header[i], v, tc.header[i+1])
					}
				}
				if len(tc.header) == 0 && got.header["Content-Type"] != nil {
					t.Errorf("a Content-Type was invented: %q", got.header["Content-Type"])
				}
				a := answer{header: resp.Header}
				if rs := w.recordsOf(a); rs[len(rs)-1].BytesIn != int64(len(tc.body)) {
					t.Errorf("its record counts %d bytes of %d", rs[len(rs)-1].BytesIn, len(tc.body))
				}
			})
		}
	}
}

// What a tool does next hangs on the status: 204 is success to XSOAR, 201 to TheHive,
// and where the new thing is stands in Location. Each comes as Microsoft gave it, with
// its body or without one, and with no framing that was not there.
func TestStatusesComeAsTheyWere(t *testing.T) {
	t.Parallel()
	w, n := withNotebook(t)
	gives := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header()[header[i]] = []string{header[i+1]}
			}
			w.WriteHeader(status)
			if r.Method != http.MethodHead {
				_, _ = io.WriteString(w, body)
			}
		}
	}
	const plain = "application/json; odata.metadata=minimal; odata.streaming=true; charset=utf-8"
	const action = `{"id":"2e9da30d","@odata.context":"https://api.securitycenter.microsoft.com/api/$metadata#MachineActions/$entity","type":"Isolate"}`
	home := strings.ReplaceAll(action, "https://api.securitycenter.microsoft.com", w.url)
	homes := strings.ReplaceAll(action, "https://api.securitycenter.microsoft.com", w.url+"/t/contoso")
	for _, tc := range []struct {
		name, method, path string
		answer             http.HandlerFunc
		status             int
		body               string
		header             map[string]string // "" must not be there
	}{
		{"204 of a DELETE", "DELETE", "/api/indicators/1", gives(204, ""), 204, "", map[string]string{"Content-Length": "", "Transfer-Encoding": "", "Content-Type": ""}},
		{"204 that says JSON and a length", "DELETE", "/api/indicators/1", gives(204, "", "Content-Type", plain, "Content-Length", "0"), 204, "", map[string]string{"Content-Length": "", "Transfer-Encoding": ""}},
		{"200 without a body", "POST", "/api/machines/1/unisolate", gives(200, "", "Content-Length", "0"), 200, "", map[string]string{"Content-Length": "0"}},
		{"200 without a body that says JSON", "POST", "/api/machines/1/unisolate", gives(200, "", "Content-Type", plain, "Content-Length", "0"), 200, "", map[string]string{"Content-Length": "0", "Content-Type": plain}},
		{"200 with empty chunks that say JSON", "GET", "/api/alerts", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", plain)
			_ = http.NewResponseController(w).Flush()
		}, 200, "", map[string]string{"Content-Type": plain}},
		{"201 with an absolute Location", "POST", "/api/machines/1/isolate", gives(201, action, "Content-Type", plain, "Location", "https://api.securitycenter.microsoft.com/api/machineactions/2e9da30d"),
			201, home, map[string]string{"Location": w.url + "/api/machineactions/2e9da30d", "Content-Type": plain}},
		{"201 with a Location on an odd host", "POST", "/api/machines/1/isolate", gives(201, action, "Content-Type", plain, "Location", "http://WDATPPRD-EUS.Securitycenter.Windows.com.:8443/API/MachineActions('2e9da30d')?a=%2B;b"),
			201, home, map[string]string{"Location": w.url + "/API/MachineActions('2e9da30d')?a=%2B;b"}},
		{"201 with a Location without a host", "POST", "/api/machines/1/isolate", gives(201, action, "Content-Type", plain, "Location", "/api/machineactions/2e9da30d"),
			201, home, map[string]string{"Location": "/api/machineactions/2e9da30d"}},
		{"201 for a named tenant", "POST", "/t/contoso/api/machines/1/isolate", gives(201, action, "Content-Type", plain, "Location", "https://us.api.security.microsoft.com/api/machineactions/2e9da30d", "Content-Location", "/api/machineactions/2e9da30d"),
			201, homes, map[string]string{"Location": w.url + "/t/contoso/api/machineactions/2e9da30d", "Content-Location": "/t/contoso/api/machineactions/2e9da30d"}},
		{"201 with a Location that is none of our paths", "POST", "/api/machines/1/isolate", gives(201, action, "Content-Type", plain, "Location", "https://security.microsoft.com/action/1"),
			201, home, map[string]string{"Location": "https://security.microsoft.com/action/1"}},
		{"202 with a place to look for its progress", "POST", "/api/machines/1/unisolate", gives(202, "", "Content-Length", "0", "Operation-Location", "https://eu.api.security.microsoft.com/api/machineactions/1", "Retry-After", "5"),
			202, "", map[string]string{"Operation-Location": w.url + "/api/machineactions/1", "Retry-After": "5"}},
		{"404 with Microsoft's words", "GET", "/api/alerts/1", gives(404, `{"error":{"code":"ResourceNotFound","message":"No alert","target":"t"}}`, "Content-Type", "application/json"),
			404, `{"error":{"code":"ResourceNotFound","message":"No alert","target":"t"}}`, map[string]string{"Content-Type": "application/json"}},
		{"404 without a body", "GET", "/api/alerts/1", gives(404, "", "Content-Length", "0"), 404, "", map[string]string{"Content-Length": "0", "Content-Type": ""}},
		{"304", "GET", "/api/alerts/1", gives(304, "", "Content-Type", plain, "Etag", `W/"1"`), 304, "", map[string]string{"Etag": `W/"1"`, "Transfer-Encoding": ""}},
		{"a HEAD of what passes untouched", "HEAD", "/api/alerts", gives(200, "", "Content-Type", "application/octet-stream", "Content-Length", "5368709120"), 200, "", map[string]string{"Content-Length": "5368709120"}},
		{"a HEAD of what would be rewritten", "HEAD", "/api/alerts", gives(200, "", "Content-Type", plain, "Content-Length", "1000"), 200, "", map[string]string{"Content-Length": "", "Transfer-Encoding": "", "Content-Type": plain}},
		{"a HEAD without a length", "HEAD", "/api/alerts", gives(200, "", "Content-Type", "text/plain"), 200, "", map[string]string{"Content-Length": "", "Content-Type": "text/plain"}},
		{"a number of rows", "GET", "/api/alerts/$count", gives(200, "\ufeff137", "Content-Type", "text/plain"), 200, "\ufeff137", map[string]string{"Content-Length": "6", "Content-Type": "text/plain"}},
		{"a count beside the rows", "GET", "/api/alerts", gives(200, `{"@odata.count":137,"value":[],"@odata.nextLink":null}`, "Content-Type", "application/json;charset=UTF-8;odata.metadata=none"),
			200, `{"@odata.count":137,"value":[],"@odata.nextLink":null}`, map[string]string{"Content-Type": "application/json;charset=UTF-8;odata.metadata=none"}},
		{"JSON behind a byte order mark", "GET", "/api/alerts", gives(200, "\ufeff"+action, "Content-Type", plain), 200, "\ufeff" + home, map[string]string{"Content-Type": plain}},
		{"a type of somebody's own", "GET", "/api/alerts", gives(200, action, "Content-Type", "application/vnd.ms+json; x=\"a;b\""), 200, home, map[string]string{"Content-Type": "application/vnd.ms+json; x=\"a;b\""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n.tell(tc.answer)
			w := w.in(t)
			got := exchange(t, w.address(), tc.method+" "+tc.path+" HTTP/1.1\r\nHost: "+w.address()+"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			if len(got) != 1 || got[0].status != tc.status || string(got[0].body) != tc.body || got[0].err != nil || got[0].ours() {
				t.Fatalf("got %v, want %d %q", got, tc.status, tc.body)
			}
			for name, want := range tc.header {
				if v := got[0].header.Get(name); v != want {
					t.Errorf("%s is %q, want %q", name, v, want)
				}
			}
			n.only(t)
		})
	}
}

// OPTIONS is no way to learn what another origin may do: the proxy says which methods
// there are, grants nothing, and a browser that asks for a page of another origin is
// sent away. Microsoft's side is not asked.
func TestOptionsGrantNothing(t *testing.T) {
	t.Parallel()
	w, n := withNotebook(t)
	n.tell(nil)
	for _, tc := range []struct {
		name, path string
		header     []string
		status     int
		code       string
		allow      string
	}{
		{"of a list", "/api/alerts", nil, 405, "MethodNotAllowed", "GET, HEAD"},
		{"of one thing", "/api/indicators/1", nil, 405, "MethodNotAllowed", "DELETE, GET, HEAD"},
		{"that looks like a preflight, without an origin", "/api/alerts", []string{"Access-Control-Request-Method", "GET"}, 405, "MethodNotAllowed", "GET, HEAD"},
		{"of a page of another origin", "/api/alerts", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "GET"}, 403, "CrossSiteRequest", ""},
		{"of a page that hides its origin", "/api/indicators/1", []string{"Origin", "null", "Access-Control-Request-Method", "DELETE"}, 403, "CrossSiteRequest", ""},
		{"with a body", "/api/alerts", []string{"Content-Type", "application/json"}, 405, "MethodNotAllowed", "GET, HEAD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := w.in(t)
			body := ""
			if strings.HasSuffix(tc.name, "body") {
				body = "{}"
			}
			a := w.do(http.MethodOptions, tc.path, body, tc.header...)
			if code, _ := a.refused(); a.status != tc.status || code != tc.code {
				t.Errorf("got %v, want %d %s", a, tc.status, tc.code)
			}
			if got := a.header.Get("Allow"); tc.allow != "" && got != tc.allow {
				t.Errorf("Allow is %q, want %q", got, tc.allow)
			}
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("the answer has the header %s", name)
				}
			}
		})
	}
	if n.mu.Lock(); len(n.came) > 0 {
		t.Errorf("Microsoft's side was asked: %+v", n.came)
	}
	n.mu.Unlock()
}

// The proxy and an ordinary client agree on encodings without a word of either: what
// the client can unpack it gets unpacked, whatever Microsoft sends.
func TestClientsReadWhatTheyAskedFor(t *testing.T) {
	t.Parallel()
	w, n := withNotebook(t)
	page := `{"value":[` + strings.Repeat(`{"id":"da1","title":"again and again"},`, 5000) + `{}],"@odata.nextLink":"https:\/\/api.securitycenter.microsoft.com\/api\/alerts?$skip=1\u0026a=b"}`
	want := strings.ReplaceAll(page, `https:\/\/api.securitycenter.microsoft.com`, w.url)
	for _, always := range []bool{false, true} {
		n.tell(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			if always || r.Header.Get("Accept-Encoding") == "gzip" {
				rw.Header().Set("Content-Encoding", "gzip")
				_, _ = rw.Write(zipped(t, page))
				return
			}
			_, _ = io.WriteString(rw, page)
		})
		for _, accept := range []string{"", "gzip, deflate, br, zstd", "br", "deflate", "identity", "identity;q=0", "gzip;q=0", "*", "*;q=0", "x"} {
			t.Run(fmt.Sprintf("Accept-Encoding %q, always packed: %v", accept, always), func(t *testing.T) {
				w := w.in(t)
				var header []string
				if accept != "" {
					header = []string{"Accept-Encoding", accept}
				}
				a := w.get("/api/alerts", header...)
				body := string(a.body)
				switch coding := a.header.Get("Content-Encoding"); {
				case coding == "gzip" && (strings.HasPrefix(accept, "gzip,") || accept == "*"):
					body = gunzip(t, a.body)
				case coding != "":
					t.Errorf("Content-Encoding is %q", coding)
				}
				if a.status != http.StatusOK || body != want || a.err != nil {
					t.Errorf("got %d, %d bytes that end with %.100q, %v", a.status, len(body), body[max(0, len(body)-100):], a.err)
				}
			})
		}
	}
}

// A front that callers know by another name is where links lead: those in a body, in
// gzip too, and those in headers, with the tenant that the caller named.
func TestLinksLeadToTheFront(t *testing.T) {
	t.Parallel()
	n := new(notebook)
	w := among(t, setup{config: func(c object) {
		c["listeners"] = []object{{"address": "127.0.0.1:0", "public_url": "https://front.example"}}
	}}, map[string]*httptest.Server{"eu": newOwn(t, nil, n.ServeHTTP)})
	const page = `{"@odata.context":"https://api.securitycenter.microsoft.com/api/$metadata#Machines","value":[{"machines@odata.nextLink":"https:\/\/XN--BCHER-KVA.example.:8443\/api\/machines('1')\/alerts?$skip=1\u0026a=b","comment":"\"@odata.nextLink\":\"https://x/api/a\""}],"@odata.nextLink":"http://[2001:db8::1]:80/API/machines?$skiptoken=a%2Bb"}`
	n.tell(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Content-Location", "/api/machines?a=b")
		rw.Header().Set("Location", "https://us.api.security.microsoft.com/api/machines")
		if r.Header.Get("Accept-Encoding") == "gzip" {
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(zipped(t, page))
			return
		}
		_, _ = io.WriteString(rw, page)
	})
	for _, prefix := range []string{"", "/t/contoso"} {
		base := "https://front.example" + prefix
		want := strings.NewReplacer(
			"https://api.securitycenter.microsoft.com", base, `https:\/\/XN--BCHER-KVA.example.:8443`, base, "http://[2001:db8::1]:80", base,
		).Replace(page)
		for _, accept := range []string{"gzip", "identity"} {
			a := w.get(prefix+"/api/machines", "Accept-Encoding", accept)
			body := string(a.body)
			if accept == "gzip" {
				body = gunzip(t, a.body)
			}
			if body != want || a.header.Get("Location") != base+"/api/machines" || a.header.Get("Content-Location") != prefix+"/api/machines?a=b" {
				t.Errorf("under %q, %s: got %v\n%s\nwant %s", prefix, accept, a.header, body, want)
			}
		}
	}
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := io.WriteString(z, text); err != nil {
		t.Error(err)
	}
	if err := z.Close(); err != nil {
		t.Error(err)
	}
	return out.Bytes()
}
