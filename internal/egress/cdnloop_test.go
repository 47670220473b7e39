package egress

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// Whatever way a request goes out, it says who sent it, and the request of who asked
// for it stays as it was.
func TestEachRequestSaysWhoSentIt(t *testing.T) {
	noProxies(t)
	var mu sync.Mutex
	var came []http.Header
	server := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		came = append(came, r.Header.Clone())
		io.WriteString(w, "hello")
	}, func(s *httptest.Server) { s.EnableHTTP2 = true })
	for _, http2 := range []bool{false, true} {
		tr := transport(t, Settings{HTTP2: http2, CAFile: trust(t, server.Certificate().Raw)})
		next := tr.generation()
		t.Cleanup(next.CloseIdleConnections)
		for name, rt := range map[string]http.RoundTripper{"a request": tr, "one of the next generation": next, "one past the proxy of the network": tr.Direct()} {
			for _, header := range []http.Header{{"Accept": {"*/*"}}, {"Cdn-Loop": {"other; x=y"}}, nil} {
				u, _ := url.Parse(server.URL)
				r := (&http.Request{Method: "POST", URL: u, Header: header, Body: io.NopCloser(strings.NewReader("body"))}).WithContext(t.Context())
				before := header.Clone()
				resp, err := rt.RoundTrip(r)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				got := came[len(came)-1]
				if want := append(before["Cdn-Loop"], "defender-proxy"); !reflect.DeepEqual(got["Cdn-Loop"], want) || !FromProxy(got) {
					t.Errorf("%s with %v arrived with CDN-Loop %q, want %q", name, header, got["Cdn-Loop"], want)
				}
				if got["Via"] != nil {
					t.Errorf("%s arrived with Via", name)
				}
				if !reflect.DeepEqual(r.Header, before) {
					t.Errorf("%s: its header has become %v", name, r.Header)
				}
			}
		}
	}
}

func TestWhoseRequestsAreOurs(t *testing.T) {
	for value, want := range map[string]bool{
		"defender-proxy":                   true,
		"cdn.example:8080, defender-proxy": true,
		`cdn; a="b, c" , defender-proxy;x`: true,
		"":                                 false,
		"cdn.example":                      false,
		"defender-proxy-2":                 false,
		"cdn; by=defender-proxy":           false,
		`cdn; by=", defender-proxy"`:       false,
	} {
		if got := FromProxy(http.Header{"Cdn-Loop": {value}}); got != want {
			t.Errorf("%s: %v", value, got)
		}
		if got := FromProxy(http.Header{"Cdn-Loop": {"cdn", value}}); got != want {
			t.Errorf("%s in the second line: %v", value, got)
		}
		if FromProxy(http.Header{"Via": {value}}) {
			t.Errorf("%s in another header counts", value)
		}
	}
}
