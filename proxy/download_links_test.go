package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/links"
)

// A part of an answer may hold a part of a link, which nobody could seal.
func TestAnAnswerWithLinksComesWhole(t *testing.T) {
	s := newStorage(t, options{})
	body := `{"value":"` + s.link + `"}`
	part := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(body)-1, len(body)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, body)
	}
	s.regions[0].answer(part)
	got := s.do("GET", packagePath, "", "Range", "bytes=0-", "If-Range", `"e"`)
	if got.code() != "InvalidAnswer" || strings.Contains(got.body, "sig=") {
		t.Errorf("a part that nobody asked for: %d %s", got.status, got.body)
	}
	arrived := s.regions[0].requests()
	if h := arrived[len(arrived)-1].header; h["Range"] != nil || h["If-Range"] != nil {
		t.Errorf("arrived with %v", h)
	}
	if got := s.do("GET", "/api/alerts", "", "Range", "bytes=0-", "If-Range", `"e"`); got.status != 206 || got.body != body {
		t.Errorf("a part of other answers: %d %s", got.status, got.body)
	}
	arrived = s.regions[0].requests()
	if h := arrived[len(arrived)-1].header; h.Get("Range") != "bytes=0-" || h.Get("If-Range") != `"e"` {
		t.Errorf("for other answers arrived %v", h)
	}
	s.proxy.Downloads = nil
	if got := s.do("GET", packagePath, "", "Range", "bytes=0-"); got.status != 206 || got.body != body {
		t.Errorf("with downloads off: %d %s", got.status, got.body)
	}
}

func TestALinkInAHeaderIsNotPassedOn(t *testing.T) {
	s := newStorage(t, options{})
	for _, c := range []struct{ path, link, want string }{
		{packagePath, s.link, ""},
		{packagePath, "https://a.blob.example/c?sig=" + signature, ""},
		{packagePath, "https://elsewhere.example/c", "https://elsewhere.example/c"},
		{packagePath, "https://api.security.microsoft.com/api/alerts/1", s.server.URL + "/api/alerts/1"},
		{"/api/alerts", s.link, s.link},
	} {
		s.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) {
			for _, name := range []string{"Location", "Content-Location", "Operation-Location"} {
				w.Header().Set(name, c.link)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{}`)
		})
		got := s.do("GET", c.path, "")
		for _, name := range []string{"Location", "Content-Location", "Operation-Location"} {
			if have := got.header.Get(name); got.status != 200 || have != c.want {
				t.Errorf("%s with %s %s: %d, it is %q, want %q", c.path, name, c.link, got.status, have, c.want)
			}
		}
	}
}

// A link that is cut off within an answer is as good as whole, where only the quote
// behind it is missing.
func TestALinkThatIsCutOffIsNotPassedOn(t *testing.T) {
	s := newStorage(t, options{})
	for _, length := range []int{0, 10} { // beyond what comes: a broken answer, else one that ends
		body := `{"value":"` + s.link
		s.regions[0].answer(written(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%s", len(body), body, []string{"0\r\n\r\n", ""}[min(length, 1)])))
		if got := s.do("GET", packagePath, ""); strings.Contains(got.body, "sig=") || strings.Contains(got.body, s.host()) {
			t.Errorf("got %d %s, %v", got.status, got.body, got.err)
		}
	}
}

// The names of the parts of an export differ at their ends, and a sample of Microsoft's,
// the first here, has 258 characters.
func TestTheRecordNamesAFileWhole(t *testing.T) {
	export := "https://tvmexportexternalstgeus.blob.core.windows.net/temp-1ebd3d09-d06a-4aad-ab80-ebc536cec61c/2021-12-22/0500/SoftwareInventory/json/OrgId=1ebd3d09-d06a-4aad-ab80-ebc536cec61c/_RbacGroupId=1ebd3d09-d06a-4aad-ab80-ebc536cec61c/part-0000"
	long := "https://a.blob.core.windows.net/c/" + strings.Repeat("folder/", 1100)
	for _, link := range []string{
		"https://tvmexportexternalstgeus.blob.core.windows.net/temp-5c080622-f613-42bb-9fee-e17ccdff90d3/2022-03-20/1318/CertificateAssessmentExport/json/OrgId=47d41a0c-188d-46d3-bbea-a93dbc0bfcaa/_RbacGroupId=4226/part-00000-65a62a9d-7a01-4d78-bbdb-6d3e07b34cc9.c000.json.gz",
		export + "0-c09dfd00-2278-4735-b23a-71733751fcbc.c000.json.gz", export + "1-c09dfd00-2278-4735-b23a-71733751fcbc.c000.json.gz", long[:2000] + "/one.zip",
	} {
		u, err := url.Parse(link + "?sv=1&sig=canarySIG")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fileOf(u), strings.TrimPrefix(link, "https://"); got != want {
			t.Errorf("the file is %s\nwant        %s", got, want)
		}
	}
	one, two := long+"one.zip", long+"two.zip"
	for link, end := range map[string]string{one: "/one.zip", two: "/two.zip"} {
		u, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		if got := fileOf(u); len(got) > maxFile+len("…") || !strings.HasPrefix(got, "a.blob.core.windows.net/c/folder/") || !strings.HasSuffix(got, end) || !strings.Contains(got, "…") {
			t.Errorf("the file of %d bytes is %d bytes: %s", len(link), len(got), got)
		}
	}
}

func TestWhatALinkDependedOnIsNamed(t *testing.T) {
	s := newStorage(t, options{})
	for name, c := range map[string]struct {
		url, operation, words, without string
	}{
		"a host that is gone":       {"https://old.example/c/f?sig=" + signature, packageID, "blob_hosts", "machines.gone"},
		"an operation that is gone": {s.link, "machines.gone", "machines.gone", "blob_hosts"},
	} {
		sealed, err := s.proxy.Downloads.Sealer.Seal(links.Download{URL: c.url, Operation: c.operation, Expires: time.Now().Add(time.Hour)}, "contoso", "local")
		if err != nil {
			t.Fatal(err)
		}
		got := s.do("GET", blobPrefix+sealed, "")
		if got.code() != "InvalidLink" || !strings.Contains(got.message(), c.words) || strings.Contains(got.message(), c.without) || !strings.Contains(got.message(), "Ask for the link again") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	for _, rec := range s.lines(2) {
		if reason, _ := rec["reason"].(string); reason == "" || rec["file"] == nil {
			t.Errorf("the record says neither why nor of which file: %v", rec)
		}
	}
	s.secretsAreKept()
}
