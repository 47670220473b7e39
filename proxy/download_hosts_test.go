package proxy

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// FuzzBlobHosts: what is accepted leads to one of the hosts, and stands on the wire as
// it was written.
func FuzzBlobHosts(f *testing.F) {
	all := newBlobHosts([]string{"*.blob.example", "files.example:8443", "http://127.0.0.1:10000", "nonsense host", "http://evil.example", "*."})
	for _, s := range []string{"https://a.blob.example/c?sig=a", "https://files.example:8443", "http://127.0.0.1:10000/a?b#", "https://a.blob.example:443?x", "https://x@a.blob.example/", "https://a.blob.example\\.evil/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, link string) {
		u, ok := all.link(link)
		if !ok {
			return
		}
		var wire bytes.Buffer
		if err := (&http.Request{Method: "GET", URL: u, Host: u.Host, Header: http.Header{}}).Write(&wire); err != nil {
			return // net/http does not send it
		}
		line, rest, _ := strings.Cut(wire.String(), "\r\n")
		target := strings.TrimSuffix(strings.TrimPrefix(line, "GET "), " HTTP/1.1")
		host, _, _ := strings.Cut(strings.TrimPrefix(rest, "Host: "), "\r\n")
		host = strings.ToLower(host)
		low := strings.ToLower(link)
		_, after, _ := strings.Cut(low, "://")
		if !strings.HasPrefix(after, host) {
			t.Fatalf("%q goes to %q", link, host)
		}
		name, port, _ := strings.Cut(host, ":")
		good := strings.HasSuffix(name, ".blob.example") && len(name) > len(".blob.example") && (port == "" || port == "443") && strings.HasPrefix(low, "https://") ||
			host == "files.example:8443" && strings.HasPrefix(low, "https://") || host == "127.0.0.1:10000" && strings.HasPrefix(low, "http://")
		if !good {
			t.Fatalf("%q goes to %q", link, host)
		}
		if i := strings.IndexAny(after, "/?"); i >= 0 {
			_, written, _ := strings.Cut(link, "://")
			if written = written[i:]; target != written && target != "/"+written {
				t.Fatalf("%q is asked for as %q", link, target)
			}
		}
	})
}

func TestHostsThatAreNoneMatchNothing(t *testing.T) {
	for _, patterns := range [][]string{nil, {""}, {"*."}, {"http://files.example"}, {"http://*.127.0.0.1"}, {"https://u:p@files.example"}, {"a b"}} {
		all := newBlobHosts(patterns)
		for _, link := range []string{"https://files.example/", "http://files.example/", "https://a.example/", "https:///", "http://127.0.0.1/"} {
			if u, ok := all.link(link); ok {
				t.Errorf("%q takes %s as %v", patterns, link, u)
			}
		}
	}
	all := newBlobHosts([]string{"http://127.0.0.1:10000", "http://localhost", "http://[::1]:81", "https://files.example", "a.example:8443"})
	var taken []string
	for _, link := range []string{
		"http://127.0.0.1:10000/a", "http://127.0.0.1/a", "http://localhost/a", "http://localhost:80/a", "http://[::1]:81/a", "https://files.example/a", "http://files.example/a",
		"https://a.example:8443/a", "https://a.example/a", "https://127.0.0.1:10000/a",
	} {
		if _, ok := all.link(link); ok {
			taken = append(taken, link)
		}
	}
	want := []string{"http://127.0.0.1:10000/a", "http://localhost/a", "http://localhost:80/a", "http://[::1]:81/a", "https://files.example/a", "https://a.example:8443/a"}
	if !slices.Equal(taken, want) {
		t.Errorf("taken are %q, want %q", taken, want)
	}
}
