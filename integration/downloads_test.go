package integration

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// relaying is a setup whose download links lead through the proxy, to the simulator's
// storage.
func relaying(relay object, more func(object)) setup {
	relay["downloads"] = true
	var sim *simulator.Simulator
	return setup{
		sim:         simulator.Config{ActionTime: 1},
		permissions: map[string][]string{"mde": {"Machine.CollectForensics", "Machine.LiveResponse"}},
		before:      func(s *simulator.Simulator) { sim = s },
		config: func(c object) {
			allow(c, "read", "download", "machines.collectInvestigationPackage", "machines.runliveresponse")
			c["relay"] = relay
			if sim != nil {
				storedAt(c, strings.TrimPrefix(sim.BlobURL(), "https://"))
			}
			if more != nil {
				more(c)
			}
		},
	}
}

// storedAt names the hosts of storage.
func storedAt(c object, hosts ...string) { c["clouds"].([]object)[0]["blob_hosts"] = hosts }

// inside is a client in a network from which nothing but the proxy can be reached.
func (w *world) inside() func(method, url string, header ...string) answer {
	transport := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != w.address() {
			return nil, fmt.Errorf("there is no way to %s from here", address)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	w.t.Cleanup(transport.CloseIdleConnections)
	return func(method, url string, header ...string) answer {
		w.t.Helper()
		if strings.HasPrefix(url, "/") {
			url = w.url + url
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, url, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			w.t.Fatalf("%s %s: %v", method, url, err)
		}
		defer resp.Body.Close()
		a := answer{status: resp.StatusCode, proto: resp.Proto, header: resp.Header}
		a.body, a.err = io.ReadAll(resp.Body)
		return a
	}
}

// fileOf gives the member file of a request's record.
func (w *world) fileOf(a answer) (record, string) {
	w.t.Helper()
	all := w.recordsOf(a)
	var with struct{ File string }
	for line := range bytes.Lines(w.stdout.bytes()) {
		if bytes.Contains(line, []byte(a.header.Get("X-Request-Id"))) && json.Unmarshal(line, &with) != nil {
			w.t.Fatalf("a record is not JSON: %s", line)
		}
	}
	return all[len(all)-1], with.File
}

// link gives the string value of an answer.
func (a answer) link(t *testing.T) string {
	t.Helper()
	var body struct{ Value string }
	if err := json.Unmarshal(a.body, &body); err != nil || a.status != http.StatusOK || body.Value == "" {
		t.Fatalf("there is no link: %v", a)
	}
	return body.Value
}

// export asks for the files of an export.
func (w *world) export() []string {
	w.t.Helper()
	a := w.get("/api/machines/SoftwareInventoryExport")
	var body struct{ ExportFiles []string }
	if err := json.Unmarshal(a.body, &body); err != nil || len(body.ExportFiles) == 0 {
		w.t.Fatalf("there is no export: %v", a)
	}
	return body.ExportFiles
}

// An analyst works in a network from which only the proxy can be reached. She collects
// a package from a machine, runs a script on it, and exports the inventory; what she
// gets are links that lead through the proxy. She downloads all of it, a part again
// after her line broke, with a token of her own on every request, as her tools do. At
// storage nothing arrives but what the links say, and the audit tells who fetched
// which file.
func TestFilesAreFetchedFromWhereStorageCannotBeReached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, relaying(object{}, nil))
	client := w.inside()
	mine := []string{"Authorization", "Bearer of-the-tool", "Cookie", "s=1"}
	machine := w.sim.MachineID()
	act := func(path, body string) string {
		t.Helper()
		a := w.do(http.MethodPost, "/api/machines/"+machine+path, body, "Content-Type", "application/json")
		var action struct{ ID string }
		if err := json.Unmarshal(a.body, &action); err != nil || a.status != http.StatusCreated {
			t.Fatalf("%s: %v", path, a)
		}
		return action.ID
	}
	link := func(path string) (url string) {
		t.Helper()
		w.eventually(path+" is there", func() error {
			a := w.get(path)
			if a.status != http.StatusOK {
				return fmt.Errorf("%v", a)
			}
			url = a.link(t)
			return nil
		})
		if !strings.HasPrefix(url, w.url+"/blob/") || strings.Contains(url, "sig") {
			t.Fatalf("the link leads to %s", url)
		}
		return url
	}
	blob := strings.TrimPrefix(w.sim.BlobURL(), "https://")

	collected := act("/collectInvestigationPackage", `{"Comment":"forensics"}`)
	pack := link("/api/machineactions/" + collected + "/getPackageUri")
	a := client(http.MethodGet, pack, mine...)
	sum := md5.Sum(a.body)
	if a.status != http.StatusOK || !bytes.HasPrefix(a.body, []byte("PK\x03\x04")) || a.header.Get("Content-Type") != "application/zip" ||
		a.header.Get("Content-Disposition") != `attachment; filename="`+collected+`.zip"` || a.header.Get("Content-MD5") != base64.StdEncoding.EncodeToString(sum[:]) || a.header.Get("Proxy-Status") != "defender-proxy; next-hop=storage" {
		t.Errorf("the package: %d %v", a.status, a.header)
	}
	rec, file := w.fileOf(a)
	if rec.Path != "/blob/{sealed}" || rec.Operation != "machineactions.getPackageUri" || rec.Class != "download" || rec.Client != "local" || rec.Tenant != "contoso" || rec.Decision != "allowed" ||
		rec.Rule != "download" || rec.BytesOut != int64(len(a.body)) || file != blob+"/packages/"+simulator.DefaultTenantID+"/"+collected+".zip" {
		t.Errorf("its record is %+v of file %q", rec, file)
	}
	half := client(http.MethodGet, pack, "Range", fmt.Sprintf("bytes=0-%d", len(a.body)/2-1))
	rest := client(http.MethodGet, pack, "Range", fmt.Sprintf("bytes=%d-", len(half.body)), "If-Match", half.header.Get("ETag"))
	if half.status != http.StatusPartialContent || rest.status != http.StatusPartialContent || !bytes.Equal(slices.Concat(half.body, rest.body), a.body) {
		t.Errorf("in two halves: %d with %d bytes, %d with %d bytes", half.status, len(half.body), rest.status, len(rest.body))
	}
	if got := client(http.MethodHead, pack); got.status != http.StatusOK || len(got.body) != 0 || got.header.Get("Content-Length") != fmt.Sprint(len(a.body)) {
		t.Errorf("its head: %v", got)
	}
	if got := client(http.MethodGet, pack, "Range", "bytes=99999999-"); got.status != http.StatusRequestedRangeNotSatisfiable || !strings.Contains(string(got.body), "<Code>InvalidRange</Code>") || got.ours() {
		t.Errorf("beyond its end: %v", got)
	}
	if got := client(http.MethodGet, pack, "If-None-Match", a.header.Get("ETag")); got.status != http.StatusNotModified || len(got.body) != 0 {
		t.Errorf("as it is known: %v", got)
	}

	session := act("/runliveresponse", `{"Comment":"x","Commands":[{"type":"RunScript","params":[{"key":"ScriptName","value":"triage.sh"}]}]}`)
	transcript := client(http.MethodGet, link("/api/machineactions/"+session+"/GetLiveResponseResultDownloadLink(index=0)"))
	if transcript.status != http.StatusOK || !strings.Contains(string(transcript.body), `"script_name":"triage.sh"`) {
		t.Errorf("the transcript: %v", transcript)
	}
	if rec, file := w.fileOf(transcript); rec.Operation != "machineactions.getLiveResponseResultDownloadLink" || !strings.HasPrefix(file, blob+"/liveresponse/") {
		t.Errorf("its record is %+v of file %q", rec, file)
	}

	files := w.export()
	for _, url := range files {
		got := client(http.MethodGet, url, "Accept-Encoding", "gzip, deflate, br")
		z, err := gzip.NewReader(bytes.NewReader(got.body))
		if err != nil {
			t.Fatalf("a file of the export is not in gzip: %v: %v", err, got)
		}
		text, err := io.ReadAll(z)
		if err != nil || !json.Valid(text[:bytes.IndexByte(text, '\n')]) || got.header.Get("Content-Encoding") != "" || got.header.Get("Content-Type") != "application/x-gzip" {
			t.Errorf("a file of the export: %v, %.200q, %v", err, text, got.header)
		}
		if rec, file := w.fileOf(got); rec.Operation != "machines.softwareInventoryExport" || rec.Class != "read" || !strings.HasPrefix(file, blob+"/exports/") {
			t.Errorf("its record is %+v of file %q", rec, file)
		}
	}

	stored := 0
	for _, r := range w.sim.Requests() {
		if r.Listener != "blob" {
			continue
		}
		stored++
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || !strings.Contains(r.Target, "&sig=sha256:") || r.Status >= 400 && r.Status != 416 {
			t.Errorf("at storage arrived %+v", r)
		}
	}
	if want := 6 + 1 + len(files); stored != want {
		t.Errorf("%d requests came to storage, want %d", stored, want)
	}
	if got := w.do(http.MethodPost, pack, "x"); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("a POST: %v", got)
	}
	for where, text := range map[string][]byte{"the audit": w.stdout.bytes(), "the log": w.stderr.bytes(), "the metrics": w.get(w.admin + "/metrics").body, "the report": w.get(w.admin + "/-/usage").body} {
		for _, url := range append(files, pack) {
			if bytes.Contains(text, []byte(url[len(w.url+"/blob/"):][:32])) {
				t.Errorf("%s shows a sealed link", where)
			}
		}
		if bytes.Contains(text, []byte("sig=")) {
			t.Errorf("%s shows a signature", where)
		}
	}
}
