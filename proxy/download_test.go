package proxy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	packagePath = "/api/machineactions/a1/getPackageUri"
	packageID   = "machineactions.getPackageUri"
	exportPath  = "/api/machines/SoftwareInventoryExport"

	signature = "canarySIG%2Fabc%2B1%3D"
)

var downloadKey = bytes.Repeat([]byte("k"), 32)

// storage is a place for files, and a proxy that relays them.
type storage struct {
	*world
	place *region
	// link is one to a file that expires in an hour.
	link string
}

// newStorage makes a world whose first region answers packagePath with link, or with
// whatever give says.
func newStorage(t *testing.T, o options) *storage {
	t.Helper()
	s := &storage{place: newRegion(t, "storage")}
	if o.allow == nil {
		o.allow = []string{"read", "download"}
	}
	o.roles = []string{"Machine.Read.All", "Software.Read.All", "Alert.Read.All"}
	deps := o.deps
	o.deps = func(d *Deps) {
		d.Downloads = NewDownloads([][]byte{downloadKey})
		for i := range d.Tenants {
			d.Tenants[i].BlobHosts = []string{s.host(), "*.blob.example"}
		}
		if deps != nil {
			deps(d)
		}
	}
	s.world = newWorld(t, o)
	s.link = s.place.server.URL + "/packages/a%20b/p.zip?sv=2023-11-03&se=" + url.QueryEscape(time.Now().UTC().Add(time.Hour).Format(time.RFC3339)) + "&sr=b&sp=r&sig=" + signature
	s.give(s.link)
	return s
}

func (s *storage) host() string { return strings.TrimPrefix(s.place.server.URL, "https://") }

// give lets the API answer with a link.
func (s *storage) give(link string) {
	s.regions[0].answer(jsonAnswer(`{"@odata.context":"https://api.security.microsoft.com/api/$metadata#Edm.String","value":` + strconv.Quote(link) + `}`))
}

// ask asks the API for a link, under a prefix.
func (s *storage) ask(prefix string, header ...string) string {
	s.t.Helper()
	got := s.do("GET", prefix+packagePath, "", header...)
	var body struct{ Value string }
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.status != 200 {
		s.t.Fatalf("%s: %d %s", packagePath, got.status, got.body)
	}
	return body.Value
}

// sealed asks for a link that leads home, and gives its path.
func (s *storage) sealed(header ...string) string {
	s.t.Helper()
	link := s.ask("", header...)
	path, ok := strings.CutPrefix(link, s.server.URL)
	if !ok || !strings.HasPrefix(path, blobPrefix) {
		s.t.Fatalf("the link leads to %s", link)
	}
	return path
}

// secretsAreKept sees that neither a signature nor a sealed link stands anywhere.
func (s *storage) secretsAreKept(sealed ...string) {
	s.t.Helper()
	for where, text := range map[string]string{"the audit": s.records.String(), "the log": s.log.String()} {
		if strings.Contains(text, "canarySIG") || strings.Contains(text, "sig=") {
			s.t.Errorf("%s shows a signature: %s", where, text)
		}
		for _, path := range sealed {
			if at := strings.Index(text, path[len(blobPrefix):][:40]); at >= 0 {
				s.t.Errorf("%s shows a sealed link: %s", where, text[max(0, at-200):])
			}
		}
	}
}

// file serves bytes as a storage service does.
func file(content []byte, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		http.ServeContent(w, r, "", time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), bytes.NewReader(content))
	}
}

func TestADownloadLeadsThroughTheProxy(t *testing.T) {
	s := newStorage(t, options{})
	content := bytes.Repeat([]byte("PK\x03\x04 forensic "), 20000)
	s.place.answer(file(content, "Content-Type", "application/zip", "ETag", `"0x1"`, "Content-MD5", "abc==", "Content-Disposition", `attachment; filename="p.zip"`,
		"X-Ms-Request-Id", "r1", "Set-Cookie", "a=b", "Access-Control-Allow-Origin", "*", "Location", s.link, "X-Request-Id", "theirs"))
	sealed := s.sealed()
	got := s.do("GET", sealed, "", "Authorization", "Bearer mine", "Cookie", "a=b", "Referer", "https://x/", "X-Forwarded-For", "1.2.3.4", "Ocp-Apim-Key", "k",
		"Accept", "*/*", "Accept-Language", "de", "User-Agent", "tool/1", "X-Ms-Client-Request-Id", "c1", "If-Unmodified-Since", "Sat, 21 Nov 2026 00:00:00 GMT", "Prefer", "x")
	if got.status != 200 || got.body != string(content) || got.err != nil {
		t.Fatalf("got %d, %d bytes, %v", got.status, len(got.body), got.err)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/zip", "Etag": `"0x1"`, "Content-Md5": "abc==", "Content-Disposition": `attachment; filename="p.zip"`, "X-Ms-Request-Id": "r1",
		"Content-Length": strconv.Itoa(len(content)), "Accept-Ranges": "bytes", "Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff",
		"Set-Cookie": "", "Access-Control-Allow-Origin": "", "Location": "", "Content-Encoding": "", "Proxy-Status": "defender-proxy; next-hop=storage",
	} {
		if have := got.header.Get(name); have != want {
			t.Errorf("%s is %q, want %q", name, have, want)
		}
	}
	if id := got.header.Get("X-Request-Id"); id == "theirs" || id == "" {
		t.Errorf("X-Request-Id is %q", id)
	}
	arrived := s.place.requests()
	if len(arrived) != 1 {
		t.Fatalf("at storage arrived %+v", arrived)
	}
	a := arrived[0]
	if "https://"+a.host+a.target != s.link || a.method != "GET" {
		t.Errorf("arrived: %s https://%s%s\nwant    GET %s", a.method, a.host, a.target, s.link)
	}
	want := http.Header{
		"Accept": {"*/*"}, "Accept-Language": {"de"}, "User-Agent": {"tool/1"}, "X-Ms-Client-Request-Id": {"c1"},
		"If-Unmodified-Since": {"Sat, 21 Nov 2026 00:00:00 GMT"},
	}
	if fmt.Sprint(a.header) != fmt.Sprint(want) {
		t.Errorf("arrived with %v, want %v", a.header, want)
	}
	records := s.lines(2)
	rec := records[1]
	for name, want := range map[string]any{
		"path": "/blob/{sealed}", "file": s.host() + "/packages/a%20b/p.zip", "operation": packageID, "class": "download", "client": "local", "tenant": "contoso",
		"decision": "allowed", "rule": "download", "status": 200.0, "bytes_out": float64(len(content)), "method": "GET", "user_agent": "tool/1", "token_uti": nil, "attempts": nil,
	} {
		if rec[name] != want {
			t.Errorf("the record's %s is %v, want %v", name, rec[name], want)
		}
	}
	if records[0]["file"] != nil {
		t.Errorf("the record of the API's call has the file %v", records[0]["file"])
	}
	s.secretsAreKept(sealed)
}

// What is sealed is a link to one of the hosts, as it stands, in the answer of an
// operation that gives such links. Everything else passes as it came.
func TestWhichLinksAreSealed(t *testing.T) {
	s := newStorage(t, options{tenants: []string{"contoso", "fabrikam"}, listener: Listener{Tenant: "contoso"}, deps: func(d *Deps) { d.Tenants[1].BlobHosts = nil }})
	host := s.host()
	long := strings.Repeat("x", 7000)
	for link, sealed := range map[string]bool{
		s.link:                         true,
		"https://" + host + "/":        true,
		"https://" + host + "/c/f?":    true,
		"https://" + host + "?sig=a":   true,
		"HTTPS://" + host + "/c/f?s=a": true,
		"https://a.blob.example/c/f?sig=a%2Fb&se=2030-01-01": true,
		"https://A.z1.Blob.Example:443/c/f?sig=a":            true,
		"https://a.blob.example/c/f(1)[2]'s;v=1,2?x=;y":      true,
		"":                                     false,
		"nothing":                              false,
		"/c/f?sig=a":                           false,
		"https://blob.example/c/f?sig=a":       false,
		"https://a.blob.example.evil/c":        false,
		"https://ablob.example/c":              false,
		"https://.blob.example/c":              false,
		"https://a.blob.example./c":            false,
		"https://a.blob.example:8443/c":        false,
		"http://a.blob.example/c":              false,
		"http://" + host + "/c":                false,
		"https://u:p@a.blob.example/c":         false,
		"https://a.blob.example@evil/c":        false,
		"https://evil\\@a.blob.example/c":      false,
		"https://evil/https://a.blob.example/": false,
		"https://evil#.blob.example/":          false,
		"https://a.blob.example/c#f":           false,
		"https://a.blob.example/c#":            false,
		"https://a.blob.example/c f":           false,
		"https://a.blob.example/é":             false,
		"https://a.blob.example/%zz":           false,
		"ftp://a.blob.example/c":               false,
		"https://127.0.0.1/c":                  false,
		"https://[::1]:443/c":                  false,
		"https://a.blob.example/c?sig=" + long: false,
	} {
		s.give(link)
		got := s.ask("")
		if home := strings.HasPrefix(got, s.server.URL+blobPrefix); home != sealed || !home && got != link {
			t.Errorf("%.80q becomes %.80q, sealed: want %v", link, got, sealed)
		}
	}
	s.give(s.link)
	if got := s.ask("/t/contoso"); !strings.HasPrefix(got, s.server.URL+"/t/contoso/blob/") {
		t.Errorf("under a tenant's prefix: %s", got)
	} else if got := s.do("GET", strings.TrimPrefix(got, s.server.URL), ""); got.status != 200 {
		t.Errorf("under a tenant's prefix: %d %s", got.status, got.body)
	}
	if got := s.ask("/t/fabrikam"); got != s.link {
		t.Errorf("in a cloud without storage: %s", got)
	}
	// The same link, in the answer of an operation that gives none.
	body := `{"value":[{"title":"` + s.link + `"}]}`
	s.regions[0].answer(jsonAnswer(body))
	if got := s.do("GET", "/t/contoso/api/alerts", ""); got.body != body {
		t.Errorf("among alerts: %s", got.body)
	}
	for _, body := range []string{`{"value":null}`, `{}`, `{"value":[]}`, `{"value":""}`, `{"https://` + host + `/c":"x"}`, `{"value":"see https://` + host + `/c"}`, `not JSON "`} {
		s.regions[0].answer(jsonAnswer(body))
		if got := s.do("GET", "/t/contoso"+packagePath, ""); got.body != body {
			t.Errorf("%s becomes %s", body, got.body)
		}
	}
}

func TestAnExportIsSealedWholeInGzipAndBesideANextLink(t *testing.T) {
	s := newStorage(t, options{})
	const n = 3000
	var b strings.Builder
	b.WriteString(`{"@odata.context":"https://api.security.microsoft.com/api/$metadata#E","exportFiles":[`)
	for i := range n {
		fmt.Fprintf(&b, `"https:\/\/a.blob.example\/e\/part-%05d.json.gz?se=2030-01-01\u0026sig=%s",`, i, signature)
	}
	b.WriteString(`null],"generatedTime":"2026-11-21T00:00:00Z","@odata.nextLink":"https://api.security.microsoft.com/api/machines/SoftwareInventoryExport?$skiptoken=a%2Bb"}`)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, b.String())
	_ = z.Close()
	for name, c := range map[string]struct{ body, encoding string }{"plain": {b.String(), ""}, "gzip": {packed.String(), "gzip"}} {
		header := []string{}
		if c.encoding != "" {
			header = []string{"Content-Encoding", c.encoding}
		}
		s.regions[0].answer(jsonAnswer(c.body, header...))
		got := s.do("GET", exportPath, "", "Accept-Encoding", "gzip")
		body := io.Reader(strings.NewReader(got.body))
		if got.header.Get("Content-Encoding") == "gzip" {
			r, err := gzip.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			body = r
		}
		var doc struct {
			ExportFiles []*string
			Next        string `json:"@odata.nextLink"`
		}
		if err := json.NewDecoder(body).Decode(&doc); err != nil || len(doc.ExportFiles) != n+1 || doc.ExportFiles[n] != nil || doc.Next != s.server.URL+exportPath+"?$skiptoken=a%2Bb" {
			t.Fatalf("%s: %d files, next %s, %v", name, len(doc.ExportFiles), doc.Next, err)
		}
		for i, link := range doc.ExportFiles[:n] {
			d, err := s.proxy.Downloads.Sealer.Open(strings.TrimPrefix(*link, s.server.URL+blobPrefix), time.Now(), "contoso", "local")
			if want := fmt.Sprintf("https://a.blob.example/e/part-%05d.json.gz?se=2030-01-01&sig=%s", i, signature); err != nil || d.URL != want || d.Operation != "machines.softwareInventoryExport" {
				t.Fatalf("%s: link %d stands for %+v, %v", name, i, d, err)
			}
		}
	}
}
