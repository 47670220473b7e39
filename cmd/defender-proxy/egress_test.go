package main

import (
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"defender-proxy/internal/config"
)

// The network's proxy wants another password than the configured one. Every
// output says so, and none holds it.
func TestThePasswordOfTheNetworksProxyIsShownNowhere(t *testing.T) {
	const password = "canary-p@ss/word"
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
	}
	sent := base64.StdEncoding.EncodeToString([]byte("me:" + password))
	var asked atomic.Int32
	network := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect && r.Header.Get("Proxy-Authorization") == "Basic "+sent {
			asked.Add(1)
		}
		w.Header().Set("Proxy-Authenticate", `Basic realm="corp"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	t.Cleanup(network.Close)
	l := newLab(t, func(l *lab) {
		l.config["egress"] = object{"proxy": "http://me:" + url.QueryEscape(password) + "@" + strings.TrimPrefix(network.URL, "http://")}
		l.config["clouds"] = []object{{
			"name": "lab", "authority": "https://login.lab.example",
			"endpoints": object{"mde": object{"eu": "https://eu.lab.example", "uk": "https://uk.lab.example"}},
			"audiences": object{"mde": "https://api.securitycenter.microsoft.com"},
		}}
	})
	hidden := func(what, text string) {
		t.Helper()
		for _, form := range []string{password, url.QueryEscape(password), url.PathEscape(password), sent, "canary-p"} {
			if strings.Contains(text, form) {
				t.Errorf("%s shows the password: %s", what, text)
				return
			}
		}
	}
	for _, path := range []string{"/api/alerts", "/-/whoami", "/", l.admin + "/", l.admin + "/-/regions", l.admin + "/-/tenants", l.admin + "/-/ready", l.admin + "/metrics"} {
		_, body := l.get(path)
		hidden(path, body)
	}
	l.eventually("the log tells of the refusal", func() bool { return strings.Contains(l.stderr.String(), "(407)") })
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"check"}, "warning: "},
		{[]string{"check", "--online"}, "(407)"},
		{[]string{"check", "--online", "--output", "json"}, "(407)"},
		{[]string{"regions"}, ""},
		{[]string{"token"}, "(407)"},
	} {
		_, stdout, stderr := ran(t, append(c.args, "--config", l.path("proxy.yaml"))...)
		hidden(strings.Join(c.args, " "), stdout+stderr)
		if !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%v does not say %q: %s%s", c.args, c.want, stdout, stderr)
		}
	}
	l.config["egress"] = object{"proxy": "http://me:" + url.QueryEscape(password) + "x@proxy.corp:3128"}
	l.save()
	status, body := fetch(t, http.MethodPost, l.admin+"/-/reload", "")
	hidden("a reload", body)
	if status != http.StatusOK || !strings.Contains(body, `"egress.proxy"`) {
		t.Errorf("a reload: %d %s", status, body)
	}
	hidden("the output", l.stdout.String()+l.stderr.String())
	if asked.Load() == 0 {
		t.Error("the proxy was not asked with the password")
	}
}

func TestTheTransportIsTheConfiguredOne(t *testing.T) {
	offers := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	offers.EnableHTTP2 = true
	offers.StartTLS()
	t.Cleanup(offers.Close)
	l := &lab{t: t, dir: t.TempDir()}
	l.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: offers.Certificate().Raw})))
	for text, want := range map[string]string{"": "HTTP/1.1", ", http2: true": "HTTP/2.0", ", http2: false": "HTTP/1.1"} {
		l.write("proxy.yaml", "tenants:\n"+tenantText("contoso", 0, "client_id: "+labApp+", client_secret: {file: ca.pem}")+"egress: {ca_file: ca.pem"+text+"}\n")
		cfg, err := config.Load(l.path("proxy.yaml"), nothing)
		if err != nil {
			t.Fatal(err)
		}
		out, err := outbound(cfg, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(out.CloseIdleConnections)
		r, _ := http.NewRequestWithContext(t.Context(), "GET", offers.URL, nil)
		resp, err := out.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != want {
			t.Errorf("egress {ca_file%s} speaks %s, want %s", text, got, want)
		}
	}
}
