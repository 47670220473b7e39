package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The link that an answer holds is worth as much as the file, and so is the link that
// the proxy makes of it. Whatever becomes of them, and whoever looks, with the log at
// its most talkative: neither the signature of the one nor the other is in any place.
func TestNoPlaceShowsALinkToAFile(t *testing.T) {
	t.Parallel()
	const mark = "canarySIGcanary"
	storage := newOwn(t, nil, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("do") {
		case "redirect":
			http.Redirect(rw, r, "https://evil.example"+r.RequestURI, http.StatusFound)
		case "break":
			rw.Header().Set("Content-Length", "1000000")
			_, _ = rw.Write(make([]byte, 500000))
			panic(http.ErrAbortHandler)
		case "garbage":
			if c, b, err := http.NewResponseController(rw).Hijack(); err == nil {
				fmt.Fprintf(b, "HTTP/1.1 2%s OK\r\nX: %s\r\n\r\n", r.RequestURI, r.RequestURI)
				_ = b.Flush()
				c.Close()
			}
		case "error":
			rw.Header().Set("Content-Type", "application/xml")
			rw.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(rw, "<Error><Code>AuthenticationFailed</Code></Error>")
		default:
			_, _ = io.WriteString(rw, "a file")
		}
	})
	kinds := []string{"", "redirect", "break", "garbage", "error", "nobody", "expired"}
	gone := newOwn(t, nil, nil)
	gone.Close()
	api := newOwn(t, nil, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/SoftwareInventoryExport") {
			_, _ = io.WriteString(rw, `{"value":[]}`)
			return
		}
		links := make([]string, len(kinds))
		for i, kind := range kinds {
			base, expires := storage.URL, time.Now().Add(time.Hour)
			switch kind {
			case "nobody":
				base = gone.URL
			case "expired":
				expires = time.Now().Add(-time.Hour)
			}
			links[i] = base + "/c/file.zip?do=" + kind + "&se=" + expires.UTC().Format(time.RFC3339) + "&sig=" + mark + "%2F" + fmt.Sprint(i)
		}
		_ = json.NewEncoder(rw).Encode(object{"exportFiles": links})
	})
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	syslog, collector := newSink(t), new(output)
	otlp := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(collector, r.Body)
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, "{}")
	}))
	t.Cleanup(otlp.Close)
	w := among(t, setup{level: "debug", config: func(c object) {
		allow(c, "read")
		c["relay"] = object{"downloads": true}
		storedAt(c, strings.TrimPrefix(storage.URL, "https://"), strings.TrimPrefix(gone.URL, "https://"))
		c["audit"] = object{"file": file, "chain": true, "syslog": "tcp://" + syslog.address, "otlp": otlp.URL}
	}}, map[string]*httptest.Server{"eu": api})

	links := w.export()
	want := []int{200, 502, 200, 502, 403, 502, 410}
	var heads bytes.Buffer
	for i, url := range links {
		if strings.Contains(url, mark) {
			t.Fatalf("link %d is not sealed: %s", i, url)
		}
		a := w.get(url, "Referer", url, "User-Agent", "tool")
		if a.status != want[i] {
			t.Errorf("%s: %v, want %d", kinds[i], a, want[i])
		}
		fmt.Fprintln(&heads, a.header, string(a.body))
		if got := w.recordIn(file, a); got.Path != "/blob/{sealed}" {
			t.Errorf("%s: the record's path is %s", kinds[i], got.Path)
		}
		sealed := strings.TrimPrefix(url, w.url)
		for _, request := range []string{
			"GET " + sealed + " HTTP/1.1\r\nHost: rebound.example", "GET " + sealed + "%2f HTTP/1.1\r\nHost: 127.0.0.1", "DELETE " + sealed + " HTTP/1.1\r\nHost: 127.0.0.1",
			"GET " + sealed + " HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://evil.example", "GET /t/fabrikam" + sealed + " HTTP/1.1\r\nHost: 127.0.0.1", "GET " + strings.ToUpper(sealed) + " HTTP/1.1\r\nHost: 127.0.0.1",
			"GET " + sealed + " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6", "GET " + sealed + "?" + url + " HTTP/1.1\r\nHost: 127.0.0.1", "TRACE " + sealed + " HTTP/1.1\r\nHost: 127.0.0.1",
		} {
			heads.WriteString(raw(t, w.address(), request+"\r\nConnection: close\r\n\r\n"))
		}
	}
	seen := map[string][]byte{"answers and refusals": heads.Bytes()}
	for _, path := range []string{"/", "/metrics", "/-/ready", "/-/regions", "/-/tenants", "/-/usage", "/-/audit"} {
		seen["the operator's "+path] = w.get(w.admin + path).body
	}
	w.stop()
	w.wait()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen["the audit file"], seen["the log"], seen["standard output"] = text, w.stderr.bytes(), w.stdout.bytes()
	seen["syslog"], seen["the collector"] = syslog.stop(), collector.bytes()
	for where, text := range seen {
		if at := bytes.Index(text, []byte(mark)); at >= 0 {
			t.Errorf("%s shows a signature: …%s…", where, text[max(0, at-200):min(len(text), at+60)])
		}
		for _, url := range links {
			sealed := url[strings.Index(url, "/blob/")+len("/blob/"):]
			for _, form := range []string{sealed[:40], strings.ToUpper(sealed)[:40], sealed[len(sealed)-40:]} {
				if at := bytes.Index(text, []byte(form)); at >= 0 {
					t.Errorf("%s shows a sealed link: …%s…", where, text[max(0, at-200):min(len(text), at+60)])
				}
			}
		}
	}
	for _, where := range []string{"the audit file", "syslog", "the collector"} {
		for _, what := range []string{"/c/file.zip", "/blob/{sealed}", "LinkExpired", "InvalidAnswer", "RegionUnavailable", "InvalidPath"} {
			if !bytes.Contains(seen[where], []byte(what)) {
				t.Errorf("%s does not hold %s: the story did not go that way", where, what)
			}
		}
	}
}
