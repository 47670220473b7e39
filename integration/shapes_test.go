package integration

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
)

// Not every request is a GET of a list. A script is uploaded as a form, machines
// are found by an OData function with quotes and commas in its path, an export
// gives signed links. Each arrives as it was sent, and the links are left to be
// fetched straight from storage, where no token belongs.
func TestFormsFunctionsAndExportsPassAsTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{
		permissions: map[string][]string{"mde": {"Library.Manage"}},
		config:      func(c object) { allow(c, "read", "hunt", "libraryfiles.*") },
	})

	form := new(bytes.Buffer)
	parts := multipart.NewWriter(form)
	file, err := parts.CreateFormFile("File", "collect logs.ps1")
	if err != nil {
		t.Fatal(err)
	}
	script := "Get-Date\r\n--not-a-boundary\r\n\x00\xff"
	fmt.Fprint(file, script)
	_ = parts.WriteField("Description", "Collects logs")
	parts.Close()
	w.sim.ResetRequests()
	a := w.do(http.MethodPost, "/api/libraryfiles", form.String(), "Content-Type", parts.FormDataContentType())
	var made struct{ FileName, SHA256 string }
	sum := sha256.Sum256([]byte(script))
	if err := json.Unmarshal(a.body, &made); err != nil || a.status != http.StatusOK || made.FileName != "collect logs.ps1" || made.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("upload: %v", a)
	}
	if got := w.arrivals(http.MethodPost, "/api/libraryfiles"); len(got) != 1 || got[0].Header.Get("Content-Type") != parts.FormDataContentType() {
		t.Errorf("the upload arrived as %+v", got)
	}
	if a := w.do(http.MethodDelete, "/api/libraryfiles/collect%20logs.ps1", ""); a.status != http.StatusNoContent || len(a.body) != 0 {
		t.Errorf("delete: %v", a)
	}
	if got := w.arrivals(http.MethodDelete, "/api/libraryfiles/collect%20logs.ps1"); len(got) != 1 {
		t.Errorf("the deletion arrived as %+v", w.upstream())
	}

	m := newFinder(w).first("/api/machines", "?$top=1")
	path := "/api/machines/findbyip(ip='" + m["lastIpAddress"].(string) + "',timestamp=" + m["lastSeen"].(string) + ")"
	w.sim.ResetRequests()
	found := w.get(path).page(t)
	if len(found.Value) == 0 {
		t.Errorf("%s finds nothing", path)
	}
	if got := w.upstream(); len(got) != 1 || got[0].Target != path {
		t.Errorf("%s arrived as %+v", path, got)
	}

	const query = `{"Query":"DeviceInfo | where OSPlatform startswith 'Windows' | take 2"}`
	for _, path := range []string{"/api/advancedqueries/run", "/api/advancedhunting/run", "/v1.0/security/runHuntingQuery"} {
		w.sim.ResetRequests()
		a := w.do(http.MethodPost, path, query, "Content-Type", "application/json")
		if a.status != http.StatusOK || !strings.Contains(strings.ToLower(string(a.body)), `"results":[{`) {
			t.Errorf("%s: %v", path, a)
		}
		if got := w.arrivals(http.MethodPost, path); len(got) != 1 || got[0].BodySHA256 != sha256Hex(query) {
			t.Errorf("%s arrived as %+v", path, got)
		}
	}
	// Three services, three audiences, a token for each.
	if n := len(w.sim.Issued()); n != 3 {
		t.Errorf("tokens were issued for %v", w.sim.Issued())
	}

	var export struct{ ExportFiles []string }
	a = w.get("/api/machines/SoftwareInventoryExport")
	if err := json.Unmarshal(a.body, &export); err != nil || a.status != http.StatusOK || len(export.ExportFiles) == 0 {
		t.Fatalf("export: %v", a)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.sim.CA())
	storage := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer storage.CloseIdleConnections()
	rows := 0
	for _, link := range export.ExportFiles {
		if !strings.HasPrefix(link, w.sim.BlobURL()+"/") || !strings.Contains(link, "&sig=") {
			t.Fatalf("a download link was changed: it begins with %.40s", link)
		}
		resp, err := storage.Get(link)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("storage answers %d to a link", resp.StatusCode)
		}
		plain, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(plain)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var row struct{ DeviceID, SoftwareName string }
			if err := json.Unmarshal(lines.Bytes(), &row); err != nil || row.DeviceID == "" {
				t.Fatalf("a row of the export: %v", err)
			}
			rows++
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if rows == 0 {
		t.Errorf("the export is empty")
	}
	// Once more, as the same link would be asked for through the proxy.
	if a := w.get("/blob/x"); a.status != http.StatusNotFound {
		t.Errorf("the relay that is not built answers %v", a)
	}
}
