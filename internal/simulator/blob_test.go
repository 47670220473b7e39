package simulator

import (
	"crypto/md5"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What Azure documents for a read of a blob: its sum, ranges in two headers, and errors
// in XML.
func TestABlobComesWithItsSumAndInRanges(t *testing.T) {
	p, _ := timed(t, quick())
	link := p.blobLink("exports/"+DefaultTenantID+"/machines.softwareInventoryExport/part-00000.json.gz", p.now(), time.Hour)
	ask := func(header ...string) answer {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, link, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		a, err := p.send(r)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	whole := ask()
	digest := md5.Sum(whole.body)
	sum := base64.StdEncoding.EncodeToString(digest[:])
	if whole.status != 200 || whole.header.Get("Content-MD5") != sum || whole.header.Get("Content-Type") != "application/x-gzip" || whole.header.Get("Content-Encoding") != "" {
		t.Fatalf("whole: %d %v", whole.status, whole.header)
	}
	for _, c := range []struct {
		name   string
		header []string
		status int
		body   string
	}{
		{"from one byte to another", []string{"Range", "bytes=3-6"}, 206, string(whole.body[3:7])},
		{"from a byte on", []string{"Range", "bytes=10-"}, 206, string(whole.body[10:])},
		{"in Azure's own header", []string{"x-ms-range", "bytes=3-6"}, 206, string(whole.body[3:7])},
		{"in both headers", []string{"x-ms-range", "bytes=3-6", "Range", "bytes=0-1"}, 206, string(whole.body[3:7])},
		{"in a form that is not documented", []string{"Range", "bytes=-5"}, 200, string(whole.body)},
	} {
		a := ask(c.header...)
		if a.status != c.status || string(a.body) != c.body {
			t.Errorf("%s: %d with %d bytes", c.name, a.status, len(a.body))
		}
		if c.status == 206 && (a.header.Get("x-ms-blob-content-md5") != sum || a.header.Get("Content-MD5") != "") {
			t.Errorf("%s: %v", c.name, a.header)
		}
	}
	if a := ask("Range", "bytes=99999999-"); a.status != 416 || !strings.Contains(string(a.body), "<Code>InvalidRange</Code>") || !strings.HasPrefix(a.header.Get("Content-Range"), "bytes */") || a.header.Get("x-ms-error-code") != "InvalidRange" {
		t.Errorf("beyond the end: %d %v %s", a.status, a.header, a.body)
	}
}
