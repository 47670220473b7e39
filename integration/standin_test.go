package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// port is a free one of loopback, for a listener that has to be known before it is
// bound. It is none of those that systems give to whoever asks for any, as the other
// stories do, so that none of them takes it meanwhile.
func port(t *testing.T) string {
	t.Helper()
	for range 100 {
		p := strconv.Itoa(12_000 + rand.IntN(18_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+p); err == nil {
			l.Close()
			return p
		}
	}
	t.Fatal("no port is free")
	return ""
}

// named gives a URL another host and keeps its port.
func named(t *testing.T, address, host string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = net.JoinHostPort(host, u.Port())
	return u.String()
}

// microsoft has the lab's cloud go by Microsoft's names, which lead to the simulator
// because egress.resolve pins them.
func microsoft(t *testing.T, sim *simulator.Simulator, c object) {
	t.Helper()
	cloud := c["clouds"].([]object)[0]
	cloud["authority"] = named(t, sim.Authority(), "login.microsoftonline.com")
	hosts := object{"login.microsoftonline.com": []string{"127.0.0.1"}}
	endpoints := object{}
	for _, r := range []string{"eu", "uk"} {
		name := r + ".api.security.microsoft.com"
		endpoints[r] = named(t, sim.Endpoint(r), name)
		hosts[name] = []string{"127.0.0.1"}
	}
	cloud["endpoints"] = object{"mde": endpoints}
	c["egress"].(object)["resolve"] = object{"hosts": hosts}
}

// A tool knows api.securitycenter.microsoft.com and login.microsoftonline.com and
// nothing else. The operator has stand-in make a certificate for these names and gives
// it to a listener; the tool's machine has them lead there and trusts the authority.
// The tool logs in and reads its alerts as ever. The proxy itself finds the real ones
// under the same names, because egress.resolve says where they are.
func TestAToolWithFixedHostsWorksUnmodified(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var made struct {
		Names []string
		Made  struct {
			CA   string `json:"ca"`
			Cert string `json:"cert"`
			Key  string `json:"cert_key"`
		}
	}
	out, err := command(nil, "stand-in", "--dir", filepath.Join(dir, "stand-in"), "--output", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	var sim *simulator.Simulator
	w := newWorld(t, setup{
		before: func(s *simulator.Simulator) { sim = s },
		config: func(c object) {
			microsoft(t, sim, c)
			l := c["listeners"].([]object)[0]
			l["hosts"] = made.Names
			l["tls"] = object{"cert_file": made.Made.Cert, "key_file": made.Made.Key}
		},
	})
	ca, err := os.ReadFile(made.Made.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	// As a hosts file does it: whatever the name, the connection leads to the proxy.
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, w.address())
		},
	}
	tool := &http.Client{Transport: transport, Timeout: patience}
	defer transport.CloseIdleConnections()

	resp, err := tool.PostForm("https://login.microsoftonline.com/"+simulator.DefaultTenantID+"/oauth2/token",
		url.Values{"resource": {"https://api.securitycenter.microsoft.com"}, "client_id": {"an id"}, "client_secret": {"a secret"}, "grant_type": {"client_credentials"}})
	if err != nil {
		t.Fatal(err)
	}
	var login struct {
		AccessToken string `json:"access_token"`
	}
	if body := read(t, resp); resp.StatusCode != http.StatusOK || json.Unmarshal([]byte(body), &login) != nil || login.AccessToken == "" {
		t.Fatalf("the login: %d %s", resp.StatusCode, body)
	}
	next, count := "https://api.securitycenter.microsoft.com/api/alerts", 0
	for next != "" && count < 10 {
		r, _ := http.NewRequest(http.MethodGet, next, nil)
		r.Header.Set("Authorization", "Bearer "+login.AccessToken)
		resp, err := tool.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var p page
		if body := read(t, resp); resp.StatusCode != http.StatusOK || json.Unmarshal([]byte(body), &p) != nil || len(p.Value) == 0 {
			t.Fatalf("%s: %d %.300s", next, resp.StatusCode, body)
		}
		if next = p.Next; next != "" && !strings.HasPrefix(next, "https://api.securitycenter.microsoft.com/api/") {
			t.Fatalf("the link to the next page leads to %s, which the tool does not know", next)
		}
		count++
	}
	if count < 2 {
		t.Error("there was no second page")
	}
	for _, r := range w.upstream() {
		if strings.Contains(r.Header.Get("Authorization"), login.AccessToken) {
			t.Error("the placeholder reached Microsoft's side")
		}
	}
	if err := w.logged("leads back"); err == nil {
		t.Error("the proxy takes the simulator for itself")
	}
	// A name that the certificate is not for is none of the stand-in's.
	if _, err := tool.Get("https://outlook.office.com/api/alerts"); err == nil {
		t.Error("the certificate is good for any name")
	}
}

// tells wants every place where an operator looks to name egress.resolve.
func (w *world) tells(places ...string) {
	w.t.Helper()
	for _, place := range places {
		w.eventually(place+" tells of the loop", func() error {
			if a := w.get(w.admin + place); !strings.Contains(string(a.body), "egress.resolve") {
				return fmt.Errorf("%s", a.body)
			}
			return nil
		})
	}
	w.eventually("the log tells of the loop", func() error { return w.logged("egress.resolve") })
	check, err := command([]string{secretVariable + "=" + simulator.DefaultSecret}, "check", "--online", "--config", w.file).CombinedOutput()
	if err == nil || !strings.Contains(string(check), "egress.resolve") {
		w.t.Errorf("check --online: %v\n%s", err, check)
	}
}

// Somebody had the names lead to the proxy on its own machine, too, and did not think
// of egress.resolve: here localhost stands for them, which every hosts file has lead
// to loopback. The proxy says so wherever an operator looks, and sends itself nothing.
func TestAProxyThatItsOwnNamesLeadToSaysSoAndSendsItselfNothing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		logins bool // lead back as well
		places []string
		code   string
	}{
		{"all names lead to it", true, []string{"/-/tenants", "/-/regions", "/-/ready"}, "TokenUnavailable"},
		{"the names of the APIs do", false, []string{"/-/regions"}, "RegionUnavailable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			own := "https://localhost:" + port(t)
			cert, key := certificate(t, "proxy.test")
			dir := t.TempDir()
			certFile, keyFile := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
			for file, data := range map[string][]byte{certFile: cert, keyFile: key} {
				if err := os.WriteFile(file, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w := newWorld(t, setup{unready: true, config: func(c object) {
				_, p, _ := strings.Cut(strings.TrimPrefix(own, "https://"), ":")
				c["listeners"] = []object{
					{"address": "127.0.0.1:0"},
					{"address": "127.0.0.1:" + p, "hosts": []string{"login.microsoftonline.com", "localhost"}, "tls": object{"cert_file": certFile, "key_file": keyFile}},
				}
				cloud := c["clouds"].([]object)[0]
				cloud["endpoints"] = object{"mde": object{"eu": own}}
				if tc.logins {
					cloud["authority"] = own
				}
			}})
			// The log names both listeners; the first is the tool's.
			for line := range strings.Lines(w.stderr.String()) {
				if strings.Contains(line, `"callers"`) && !strings.Contains(line, strings.TrimPrefix(own, "https://localhost")+`"`) {
					var entry struct{ Address string }
					_ = json.Unmarshal([]byte(line), &entry)
					w.url = "http://" + entry.Address
				}
			}
			for range 5 {
				a := w.get("/api/alerts")
				code, message := a.refused()
				if code != tc.code || strings.Contains(message, "127.0.0.1") {
					t.Errorf("a caller is told %v", a)
				}
				if !strings.Contains(message, "leads back to the proxy") {
					t.Errorf("a caller is told %q", message)
				}
			}
			w.tells(tc.places...)
			for _, r := range records(t, w.stdout.bytes()) {
				if r.Path != "/api/alerts" || r.Status == http.StatusOK {
					t.Errorf("this arrived: %+v", r)
				}
			}
			if n := len(records(t, w.stdout.bytes())); n != 5 {
				t.Errorf("%d requests arrived, 5 of them the tool's", n)
			}
		})
	}
}

// Two proxies lead to each other, each on its own machine: neither sees that an
// address is its own. Each knows the other by its answers, and what a caller asks
// for does not go round.
func TestTwoProxiesThatLeadToEachOtherDoNotMultiplyARequest(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "localhost")
	ports := [2]string{port(t), port(t)}
	var both [2]*world
	for i := range both {
		other := "https://localhost:" + ports[1-i]
		w := simulated(t, setup{config: func(c object) {
			c["listeners"] = []object{{
				"address": "127.0.0.1:" + ports[i], "hosts": []string{"localhost"},
				"tls": object{"cert_file": "server.pem", "key_file": "server.key"},
			}}
			cloud := c["clouds"].([]object)[0]
			cloud["endpoints"] = object{"mde": object{"eu": other}}
		}})
		w.write("server.pem", cert)
		w.write("server.key", key)
		w.write("ca.pem", slices.Concat(w.sim.CA(), cert))
		both[i] = w
	}
	for _, w := range both {
		w.process = start(t, "", w.file, secretVariable+"="+simulator.DefaultSecret)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
	defer transport.CloseIdleConnections()
	tool := &http.Client{Transport: transport, Timeout: patience}
	begun := time.Now()
	const calls = 50
	for range calls {
		resp, err := tool.Get("https://" + both[0].address() + "/api/alerts")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK || !strings.Contains(string(body), `"error"`) {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	for i, w := range both {
		if i == 0 {
			w.tells("/-/regions")
		}
		own := 0
		if i == 0 {
			own = calls
		}
		// A probe and a request now and then, and one more of each that were under way
		// when the first answer came.
		most := own + 10 + 2*int(time.Since(begun)/(5*time.Second)+1)
		if n := len(records(t, w.stdout.bytes())); n > most {
			t.Errorf("proxy %d got %d requests, %d of them the tool's; at most %d were expected", i, n, own, most)
		}
	}
}
