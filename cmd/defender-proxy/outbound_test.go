package main

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"defender-proxy/internal/config"
)

func TestNamesAreAskedOfTheConfiguredServer(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l := &lab{t: t, dir: t.TempDir()}
	l.write("secret", "a secret")
	l.write("proxy.yaml", "tenants:\n"+tenantText("contoso", 0, "client_id: "+labApp+", client_secret: {file: secret}")+
		"egress: {resolve: {servers: [\""+server.LocalAddr().String()+"\"], hosts: {pinned.example: [192.0.2.1]}}}\n")
	cfg, err := config.Load(l.path("proxy.yaml"), nothing)
	if err != nil {
		t.Fatal(err)
	}
	out, err := outbound(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.CloseIdleConnections)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://api.example:1/", nil)
		if resp, err := out.RoundTrip(r); err == nil {
			resp.Body.Close()
		}
	}()
	question := make([]byte, 600)
	n, _, err := server.ReadFrom(question)
	if err != nil || !strings.Contains(string(question[:n]), "\x03api\x07example\x00") {
		t.Errorf("it was asked %q, %v", question[:n], err)
	}
	server.Close() // nobody answers any more
	<-done
}

// By Proxy-Status a proxy knows that it called one like itself.
func TestEveryAnswerOfOurOwnSaysSo(t *testing.T) {
	l := newLab(t, func(*lab) {})
	for _, target := range []string{
		l.url + "/", l.url + "/api/nothing", l.url + "/-/whoami", l.url + "/-/operations", l.url + "/api/../x", l.url + "/nothing", l.url + "/api/", l.url + "/common/oauth2/token", l.url + "/t/contoso/oauth2/v2.0/token",
		l.admin + "/", l.admin + "/-/healthy", l.admin + "/-/ready", l.admin + "/-/regions", l.admin + "/metrics", l.admin + "/nothing", l.admin + "/debug/pprof/cmdline",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions} {
			r, err := http.NewRequestWithContext(t.Context(), method, target, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := resp.Header.Get("Proxy-Status"); !strings.HasPrefix(got, "defender-proxy") {
				t.Errorf("%s %s: %d with Proxy-Status %q", method, target, resp.StatusCode, got)
			}
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
