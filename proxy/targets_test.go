package proxy

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"defender-proxy/internal/canon"
	"defender-proxy/policy"
)

// oddTargets reads the table of package canon: each raw path with its canonical
// form, which is empty where it is refused.
func oddTargets(t *testing.T) (raw []string, canonical map[string]string) {
	t.Helper()
	file, err := os.Open("../internal/canon/testdata/targets.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	canonical = make(map[string]string)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		if kind != "=" && kind != "!" {
			continue
		}
		quoted, what, _ := strings.Cut(rest, "\t")
		path, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", quoted, err)
		}
		raw = append(raw, path)
		if kind == "=" {
			if canonical[path], err = strconv.Unquote(what); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	if len(raw) < 300 {
		t.Fatalf("the table has only %d paths", len(raw))
	}
	return raw, canonical
}

// openToReads is a policy that lets GET pass nearly wherever it leads, and library
// files be deleted, so that little but the path decides what goes out.
func openToReads() options {
	return options{allow: []string{"read", "libraryfiles.*"}, deps: func(d *Deps) { d.Policy.AllowUnknown, d.Policy.ReportOnly = true, true }}
}

// Every odd path goes over a socket, past a policy that lets all reads pass. What
// arrives is the canonical path that the table promises, and what the table refuses
// does not arrive.
func TestWhatTheTableOfPathsPromisesIsWhatArrives(t *testing.T) {
	w := newWorld(t, openToReads())
	raw, canonical := oddTargets(t)
	arrived, refused := 0, 0
	for _, path := range raw {
		if strings.Contains(path, "?") {
			continue // which begins a query in a target
		}
		before := len(w.regions[0].requests())
		got := w.raw("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
		if got.status == 405 { // the file of a library has no other method
			got = w.raw("DELETE " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
		}
		var sent []string
		for _, a := range w.regions[0].requests()[before:] {
			sent = append(sent, a.target)
		}
		parsed, err := canon.Parse(path)
		if err != nil {
			refused++
			if got.status != 400 || len(sent) > 0 {
				t.Errorf("%q: got %d %.200s, and %q arrived", path, got.status, got.body, sent)
			}
			continue
		}
		_, want, _ := parsed.CutTenant()
		switch {
		case parsed.String() != canonical[path]:
			t.Errorf("%q is %q, the table says %q", path, parsed, canonical[path])
		case got.status != 200 || !policy.Ours(want.String()): // a page, or no path of Microsoft's
			if len(sent) > 0 {
				t.Errorf("%q: got %d, and %q arrived", path, got.status, sent)
			}
		case len(sent) != 1 || sent[0] != want.String():
			t.Errorf("%q: %q arrived, want %q", path, sent, want)
		default:
			arrived++
		}
	}
	if arrived < 80 || refused < 300 {
		t.Errorf("%d paths arrived and %d were refused, which is too few to tell anything", arrived, refused)
	}
}

// Whole targets: what stands before a path and behind it leads nowhere else.
func TestWhatStandsAroundAPathLeadsNowhereElse(t *testing.T) {
	for _, c := range []struct {
		name, target string
		status       int
		sent         string // empty: nothing arrives
	}{
		{"a method in the query", "/api/alerts?_method=DELETE", 200, "/api/alerts?"},
		{"a method in the query, encoded", "/api/alerts?%5Fmethod=DELETE&a=b", 200, "/api/alerts?a=b"},
		{"a method in the query in capitals", "/api/alerts?_METHOD=POST&x", 200, "/api/alerts?x"},
		{"a path in the query", "/api/alerts?/../machines/m1/isolate", 200, "/api/alerts?/../machines/m1/isolate"},
		{"an encoded path in the query", "/api/alerts?%2f..%2fmachines", 200, "/api/alerts?%2f..%2fmachines"},
		{"a second question mark", "/api/alerts??x=1", 200, "/api/alerts??x=1"},
		{"a batch in the query", "/api/alerts?$batch", 200, "/api/alerts?$batch"},
		{"a semicolon and a path in the query", "/api/alerts?;/api/machines/m1/isolate", 200, "/api/alerts?;/api/machines/m1/isolate"},
		{"a backslash in the query", `/api/alerts?\..\machines`, 200, `/api/alerts?\..\machines`},
		{"the doubled slash with a query", "//api/alerts?x", 200, "/api/alerts?x"},
		{"the absolute form", "http://127.0.0.1/api/alerts", 200, "/api/alerts"},
		{"the absolute form in capitals", "HTTP://127.0.0.1/api/alerts", 200, "/api/alerts"},
		{"the absolute form of another scheme of ours", "https://127.0.0.1/api/alerts", 200, "/api/alerts"},
		{"the absolute form with a port", "http://127.0.0.1:80/api/alerts", 200, "/api/alerts"},
		{"the absolute form with a doubled slash", "http://127.0.0.1//api/alerts", 200, "/api/alerts"},
		{"the absolute form with a tenant", "http://127.0.0.1/t/contoso/api/alerts", 200, "/api/alerts"},
		{"the absolute form of a dot segment", "http://127.0.0.1/api/alerts/../machines", 400, ""},
		{"the absolute form of an encoded slash", "http://127.0.0.1/api%2falerts", 400, ""},
		{"the absolute form of another host", "http://evil.example/api/alerts", 421, ""},
		{"the absolute form of another host that begins like ours", "http://127.0.0.1.evil.example/api/alerts", 421, ""},
		{"our host as a user of another", "http://127.0.0.1@evil.example/api/alerts", 421, ""},
		{"our host and port as user and password of another", "http://127.0.0.1:80@evil.example/api/alerts", 421, ""},
		{"the absolute form of Microsoft's host", "https://api.security.microsoft.com/api/alerts", 421, ""},
		{"the absolute form without a path", "http://127.0.0.1", 200, ""},
		{"the absolute form without a path, with a query", "http://127.0.0.1?/api/alerts", 200, ""},
		{"another scheme", "ftp://127.0.0.1/api/alerts", 400, ""},
		{"a file", "file:///api/alerts", 0, ""},
		{"a scheme with one slash", "http:/127.0.0.1/api/alerts", 0, ""},
		{"a URL as a path", "/http://127.0.0.1/api/alerts", 400, ""},
		{"an authority where a path begins", "//127.0.0.1/api/alerts", 404, ""},
		{"an asterisk", "*", 400, ""},
		{"a number sign behind the path", "/api/alerts#/api/machines", 400, ""},
		{"a number sign in the query", "/api/alerts?a=b#c", 400, ""},
		{"a number sign alone", "#", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, openToReads())
			got := w.raw("GET " + c.target + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
			var sent []string
			for _, a := range w.regions[0].requests() {
				sent = append(sent, a.method+" "+a.target)
			}
			want := "[]"
			if c.sent != "" {
				want = "[GET " + c.sent + "]"
			}
			if c.status != 0 && got.status != c.status || c.status == 0 && got.status < 400 || fmt.Sprint(sent) != want {
				t.Errorf("got %d %.300s, and %v arrived; want %d and %s", got.status, got.body, sent, c.status, want)
			}
		})
	}
}
