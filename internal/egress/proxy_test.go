package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// noProxies takes the proxies of the environment away.
func noProxies(t *testing.T) {
	t.Helper()
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} {
		t.Setenv(name, "")
		t.Setenv(strings.ToLower(name), "")
	}
}

func TestProxiesLeadToTheServer(t *testing.T) {
	noProxies(t)
	server := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("the server got the proxy's password")
		}
		io.WriteString(w, "hello from "+r.Host)
	}, nil)
	own := selfSigned(t)
	ca := trust(t, server.Certificate().Raw, own.Certificate[0])
	for _, c := range []struct {
		name, scheme string
		serve        func(*network, net.Conn)
		cert         *tls.Certificate
		user         string
		want         string
	}{
		{"HTTP", "http", serveCONNECT, nil, "", "CONNECT example.com:443"},
		{"HTTP with Basic", "http", serveCONNECT, nil, "corp\\me", "CONNECT example.com:443"},
		{"HTTPS with a certificate of its own", "https", serveCONNECT, &own, "", "CONNECT example.com:443"},
		{"HTTPS with Basic", "https", serveCONNECT, &own, "me", "CONNECT example.com:443"},
		{"SOCKS5", "socks5", serveSOCKS, nil, "", "example.com:443"},
		{"SOCKS5 with user and password", "socks5", serveSOCKS, nil, "me", "example.com:443"},
		{"SOCKS5 under its other name", "socks5h", serveSOCKS, nil, "me", "example.com:443"},
	} {
		for _, http2 := range []bool{false, true} {
			n := &network{target: server.Listener.Addr().String(), user: c.user, password: secret}
			n.start(t, c.serve, c.cert)
			tr := transport(t, Settings{Proxy: n.url(c.scheme), CAFile: ca, HTTP2: http2})
			for range 2 { // the second goes through the same tunnel
				_, got, err := get(t, tr, "https://example.com/api/alerts")
				if err != nil || got != "hello from example.com" {
					t.Errorf("%s: %q, %v", c.name, got, err)
				}
			}
			if got := n.notes(); got != c.want {
				t.Errorf("%s: the proxy was asked for %q, want %q", c.name, got, c.want)
			}
		}
	}
}

func TestAddressesGoThroughSOCKSAsTheyAre(t *testing.T) {
	noProxies(t)
	for address, want := range map[string]string{"192.0.2.7:443": "192.0.2.7:443", "[2001:db8::7]:8443": "[2001:db8::7]:8443"} {
		n := (&network{status: 4}).start(t, serveSOCKS, nil)
		if _, _, err := get(t, transport(t, Settings{Proxy: n.url("socks5")}), "https://"+address+"/"); err == nil || n.notes() != want {
			t.Errorf("%s: the proxy was asked for %q, %v", address, n.notes(), err)
		}
	}
}

func TestAddressesWithAZoneGoThroughNoSOCKS(t *testing.T) {
	noProxies(t)
	n := new(network).start(t, serveSOCKS, nil)
	_, err := transport(t, Settings{Proxy: n.url("socks5")}).dialer.reach(t.Context(), "https", "[2001:db8::7%eth0]:443")
	if refused, ok := errors.AsType[*ProxyError](err); !ok || !strings.Contains(refused.Error(), "zone") {
		t.Errorf("got %v", err)
	}
}

// silent takes whatever comes and says nothing.
func silent(n *network, c net.Conn) { io.Copy(io.Discard, c) }

func answering(text string) func(*network, net.Conn) {
	return func(_ *network, c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, text)
	}
}

func TestProxiesThatFailSaySoWithoutThePassword(t *testing.T) {
	noProxies(t)
	server := upstream(t, func(http.ResponseWriter, *http.Request) {}, nil)
	foreign := selfSigned(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	wrong := func(n *network, scheme string) *url.URL {
		u := n.url(scheme)
		u.User = url.UserPassword("someone-else", secret)
		return u
	}
	without := func(n *network, scheme string) *url.URL {
		u := n.url(scheme)
		u.User = nil
		return u
	}
	with := (*network).url
	for _, c := range []struct {
		name   string
		n      *network
		serve  func(*network, net.Conn)
		cert   *tls.Certificate
		scheme string
		url    func(*network, string) *url.URL
		status int
		want   string
	}{
		{"HTTP without the password that it wants", &network{user: "me"}, serveCONNECT, nil, "http", without, 407, "the network's proxy refused (407): set its user and password in egress.proxy"},
		{"HTTP with another user", &network{user: "me"}, serveCONNECT, nil, "http", wrong, 407, "set its user and password"},
		{"HTTP that wants what is not known", &network{status: 407, challenge: []string{"Negotiate", "NTLM TlRM", "N<b>O"}}, serveCONNECT, nil, "http", with, 407, "it wants Negotiate or NTLM, and only Basic is known here"},
		{"HTTP that forbids the destination", &network{status: 403}, serveCONNECT, nil, "http", with, 403, "the network's proxy refused (403 Forbidden)"},
		{"HTTP that cannot reach it", &network{status: 502}, serveCONNECT, nil, "http", with, 502, "(502 Bad Gateway)"},
		{"HTTP with a status of its own", &network{status: 470}, serveCONNECT, nil, "http", with, 470, "refused (470"},
		{"HTTP that hangs up", &network{}, func(*network, net.Conn) {}, nil, "http", with, 0, "the network's proxy: "},
		{"HTTP that is none", &network{}, answering("SSH-2.0-OpenSSH_9.9\r\n"), nil, "http", with, 0, "its answer to CONNECT is not HTTP"},
		{"HTTP that talks too early", &network{}, answering("HTTP/1.1 200 OK\r\n\r\nhello"), nil, "http", with, 0, "before it was asked"},
		{"HTTP that is silent", &network{}, silent, nil, "http", with, 0, "timeout"},
		{"HTTP where there is HTTPS", &network{}, serveCONNECT, &foreign, "http", with, 0, "the network's proxy: "},
		{"HTTPS with a certificate that is not trusted", &network{}, serveCONNECT, &foreign, "https", with, 0, "certificate"},
		{"HTTPS where there is HTTP", &network{}, serveCONNECT, nil, "https", with, 0, "the network's proxy: "},
		{"HTTPS that is silent", &network{}, silent, nil, "https", with, 0, "timeout"},
		{"SOCKS5 without the password that it wants", &network{user: "me"}, serveSOCKS, nil, "socks5", without, 407, "set its user and password"},
		{"SOCKS5 with another user", &network{user: "me"}, serveSOCKS, nil, "socks5", wrong, 407, "set its user and password"},
		{"SOCKS5 that forbids the destination", &network{status: 2}, serveSOCKS, nil, "socks5", with, 0, "the network's proxy: SOCKS5: connection not allowed by ruleset"},
		{"SOCKS5 with a reply of its own", &network{status: 99}, serveSOCKS, nil, "socks5", with, 0, "SOCKS5: unknown code: 99"},
		{"SOCKS5 that is none", &network{}, answering("HTTP/1.1 400 Bad Request\r\n\r\n"), nil, "socks5", with, 0, "SOCKS5: unexpected protocol version"},
		{"SOCKS5 that hangs up", &network{}, func(*network, net.Conn) {}, nil, "socks5", with, 0, "the network's proxy: "},
		{"SOCKS5 that hangs up in the middle", &network{}, answering("\x05\x00"), nil, "socks5", with, 0, "the network's proxy: "},
		{"SOCKS5 that is silent", &network{}, silent, nil, "socks5", with, 0, "timeout"},
		{"no proxy at all", &network{user: "me"}, serveCONNECT, nil, "http", func(*network, string) *url.URL {
			return &url.URL{Scheme: "http", User: url.UserPassword("me", secret), Host: gone.Addr().String()}
		}, 0, "connection refused"},
	} {
		n := c.n
		n.target, n.password = server.Listener.Addr().String(), secret
		n.start(t, c.serve, c.cert)
		timeout := 10 * time.Second
		if strings.HasSuffix(c.name, "silent") {
			timeout = 150 * time.Millisecond
		}
		tr := transport(t, Settings{Proxy: c.url(n, c.scheme), CAFile: trust(t, server.Certificate().Raw), ConnectTimeout: timeout})
		_, _, err := get(t, tr, "https://example.com/")
		refused, ok := errors.AsType[*ProxyError](err)
		if !ok || refused.Status != c.status || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (%+v), want status %d and %q", c.name, err, refused, c.status, c.want)
		}
		if errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v looks like the end of the request", c.name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), url.QueryEscape(secret))) {
			t.Errorf("%s: the error holds the password: %v", c.name, err)
		}
	}
}

func TestWhatIsNoProxyIsRefusedWithoutThePassword(t *testing.T) {
	noProxies(t)
	for _, text := range []string{
		"ftp://me:canary@proxy.corp:21", "socks4://me:canary@proxy.corp", "http://me:canary@", "http://me:canary@proxy corp", "http://me:canary@proxy:port",
		"socks5://me:canary" + strings.Repeat("x", 255) + "@proxy.corp", "socks5://:canary@proxy.corp",
	} {
		var tried []error
		if u, err := url.Parse(text); err == nil {
			_, err := New(Settings{Proxy: u})
			tried = append(tried, err)
		}
		for _, name := range []string{"HTTPS_PROXY", "http_proxy"} {
			t.Setenv(name, text)
			_, err := New(Settings{})
			tried = append(tried, err)
			t.Setenv(name, "")
		}
		for _, err := range tried {
			if err == nil || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s gives %v", text, err)
			}
		}
	}
}

func TestTheWayOut(t *testing.T) {
	corp := &url.URL{Scheme: "http", Host: "proxy.corp.example:3128"}
	for _, c := range []struct {
		name     string
		env      map[string]string
		proxy    *url.URL
		scheme   string
		address  string
		want     string
		wantAuth string
	}{
		{"the configured proxy is for everything beyond", nil, corp, "https", "api.security.microsoft.com:443", "http://proxy.corp.example:3128", ""},
		{"for addresses too", nil, corp, "https", "10.0.0.1:443", "http://proxy.corp.example:3128", ""},
		{"for plain http too", nil, corp, "http", "169.255.0.1:80", "http://proxy.corp.example:3128", ""},
		{"loopback is called straight", nil, corp, "https", "127.0.0.1:8443", "", ""},
		{"loopback of IPv6 too", nil, corp, "https", "[::1]:443", "", ""},
		{"localhost too", nil, corp, "http", "localhost:1", "", ""},
		{"and names below it", nil, corp, "http", "App.Localhost:1", "", ""},
		{"loopback in the notation of IPv6 too", nil, corp, "https", "[::ffff:127.0.0.1]:443", "", ""},
		{"Azure's metadata service too", nil, corp, "http", "169.254.169.254:80", "", ""},
		{"link-local IPv6 too", nil, corp, "http", "[fe80::1]:80", "", ""},
		{"NO_PROXY holds for the configured proxy", map[string]string{"NO_PROXY": "example.com,.microsoft.com"}, corp, "https", "api.security.microsoft.com:443", "", ""},
		{"no_proxy too", map[string]string{"no_proxy": "10.0.0.0/8"}, corp, "https", "10.1.2.3:443", "", ""},
		{"with a port", map[string]string{"NO_PROXY": "graph.microsoft.com:8443"}, corp, "https", "graph.microsoft.com:443", "http://proxy.corp.example:3128", ""},
		{"that port itself", map[string]string{"NO_PROXY": "graph.microsoft.com:8443"}, corp, "https", "graph.microsoft.com:8443", "", ""},
		{"NO_PROXY of everything", map[string]string{"NO_PROXY": "*"}, corp, "https", "graph.microsoft.com:443", "", ""},
		{"the configured proxy goes before the environment's", map[string]string{"HTTPS_PROXY": "http://other:1"}, corp, "https", "a.example:443", "http://proxy.corp.example:3128", ""},
		{"the environment's is used when none is configured", map[string]string{"HTTPS_PROXY": "socks5h://me:pw@other:1"}, nil, "https", "a.example:443", "socks5h://other:1", "me:pw"},
		{"a host and port of the environment is HTTP", map[string]string{"https_proxy": "other:3128"}, nil, "https", "a.example:443", "http://other:3128", ""},
		{"plain http has a variable of its own", map[string]string{"HTTPS_PROXY": "http://other:1"}, nil, "http", "a.example:80", "", ""},
		{"that one", map[string]string{"HTTP_PROXY": "http://other:2"}, nil, "http", "a.example:80", "http://other:2", ""},
		{"NO_PROXY holds for the environment's", map[string]string{"HTTPS_PROXY": "http://other:1", "NO_PROXY": "a.example"}, nil, "https", "a.example:443", "", ""},
		{"loopback is called straight there too", map[string]string{"HTTPS_PROXY": "http://other:1"}, nil, "https", "127.0.0.1:443", "", ""},
		{"without either there is no proxy", nil, nil, "https", "a.example:443", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			noProxies(t)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			got, auth := "", ""
			if u := transport(t, Settings{Proxy: c.proxy}).dialer.way(c.scheme, c.address); u != nil {
				auth = u.User.String()
				plain := *u
				plain.User = nil
				got = plain.String()
			}
			if got != c.want || auth != c.wantAuth {
				t.Errorf("%s to %s goes through %q as %q, want %q as %q", c.scheme, c.address, got, auth, c.want, c.wantAuth)
			}
		})
	}
}

func TestDirectGoesPastTheProxyAndKeepsNothing(t *testing.T) {
	noProxies(t)
	n := (&network{status: 502}).start(t, serveCONNECT, nil)
	tr := transport(t, Settings{Proxy: n.url("http")})
	tr.Direct()
	if _, _, err := get(t, tr, "https://example.com/"); err == nil || n.notes() != "CONNECT example.com:443" {
		t.Errorf("%v; the proxy was asked for %q", err, n.notes())
	}
	direct, ok := tr.Direct().(*watched)
	if !ok || !direct.DisableKeepAlives || direct.Proxy != nil {
		t.Errorf("got %+v", direct)
	}
	// example.com as this machine's own name: nothing may be looked up on the internet.
	names(t, tr.dialer, map[string][]string{"example.com.": {"127.0.0.1"}})
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "straight") })}
	go server.Serve(plain)
	defer server.Close()
	_, port, _ := net.SplitHostPort(plain.Addr().String())
	if _, got, err := get(t, tr.Direct(), "http://example.com:"+port+"/"); err != nil || got != "straight" {
		t.Errorf("%q, %v", got, err)
	}
	if got := n.notes(); got != "CONNECT example.com:443" {
		t.Errorf("the proxy was asked for %q", got)
	}
}

func TestDirectSpeaksToServersThatOfferHTTP2(t *testing.T) {
	noProxies(t)
	server := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }, func(s *httptest.Server) { s.EnableHTTP2 = true })
	for _, http2 := range []bool{false, true} {
		tr := transport(t, Settings{HTTP2: http2, CAFile: trust(t, server.Certificate().Raw)})
		if _, got, err := get(t, tr.Direct(), server.URL); err != nil || got != "HTTP/1.1" {
			t.Errorf("with egress.http2 %v: %q, %v", http2, got, err)
		}
	}
}
