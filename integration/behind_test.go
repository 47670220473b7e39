package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// guarded is a network's proxy that wants a user and a password.
func guarded(t *testing.T, c *corporate, user, password string) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A proxy's credential is Basic like any other, in a header of its own.
		given := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
		if u, p, ok := given.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("Proxy-Authenticate", `Basic realm="corp"`)
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
		c.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// hostOf is host:port of a URL.
func hostOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// The network lets nothing out but through its proxy, which wants a password.
// Microsoft's own cloud is configured, by its real names, which only that proxy
// can resolve. Tokens, probes and requests go through it, and the region that is
// nearest through it is the nearest, whatever its delay may be by itself.
func TestBehindAnEgressProxyTheMeasureIsWhatGoesThroughIt(t *testing.T) {
	t.Parallel()
	const password = "pr0xy~canary~password"
	hosts := make(map[string]string)
	network := newCorporate(t, hosts)
	address := guarded(t, network, "svc", password)
	ways := make(map[string]*between)
	config := func(given string) func(object) {
		return func(c object) {
			delete(c, "clouds")
			c["tenants"].([]object)[0]["cloud"] = "commercial"
			inRegions(c, "eu", "uk", "us", "global")
			c["egress"].(object)["proxy"] = "http://svc:" + given + "@" + address
			probing(c)
		}
	}
	w := simulated(t, setup{sim: simulator.Config{Delays: farApart}, config: config("${PROXY_PASSWORD}"), before: func(sim *simulator.Simulator) {
		network.mu.Lock()
		defer network.mu.Unlock()
		for _, name := range []string{"eu", "uk", "us"} {
			ways[name] = newBetween(t, sim.Endpoint(name))
			hosts[name+".api.security.microsoft.com:443"] = ways[name].address
		}
		hosts["graph.microsoft.com:443"] = hostOf(t, sim.Endpoint("au"))
		hosts["login.microsoftonline.com:443"] = hostOf(t, sim.Authority())
	}})
	ways["eu"].toxic("latency", "downstream", object{"latency": 900, "jitter": 0})
	env := []string{secretVariable + "=" + simulator.DefaultSecret, "PROXY_PASSWORD=" + password}
	w.process = start(t, "debug", w.file, env...)
	w.ready()
	w.nearest("uk") // by itself eu is
	for path, hop := range map[string]string{"/api/alerts?$top=1": "uk", "/v1.0/security/alerts_v2?$top=1": "global"} {
		if a := w.get(path); a.status != http.StatusOK || a.hop() != hop {
			t.Errorf("%s: %v", path, a)
		}
	}
	ways["eu"].heal()
	ways["uk"].toxic("latency", "downstream", object{"latency": 900, "jitter": 0})
	w.nearest("eu")
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK || a.hop() != "eu" {
		t.Errorf("when the way to eu is short: %v", a)
	}
	asked := network.tunnelled()
	for _, name := range []string{"login.microsoftonline.com", "eu.api.security.microsoft.com", "uk.api.security.microsoft.com", "graph.microsoft.com"} {
		if !slices.Contains(asked, "CONNECT "+name+":443") {
			t.Errorf("%s was not asked for through the proxy: %v", name, asked)
		}
	}
	for _, a := range asked {
		if strings.Contains(a, "127.0.0.1") || !strings.HasPrefix(a, "CONNECT ") {
			t.Errorf("the network's proxy was asked for %s", a)
		}
	}

	// With a wrong password nothing goes out, and the operator reads what is wrong.
	w.file = w.write("wrong.yaml", []byte(strings.ReplaceAll(readFile(t, w.file), "${PROXY_PASSWORD}", "${WRONG_PASSWORD}")))
	const wrong = "wr0ng~canary~password"
	refused := start(t, "debug", w.file, append(env, "WRONG_PASSWORD="+wrong)...)
	w.eventually("the operator reads that the network's proxy refused", func() error {
		if a := w.get(refused.admin + "/-/ready"); a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "407") || !strings.Contains(string(a.body), "egress.proxy") {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	a := w.get(refused.url + "/api/alerts")
	if code, _ := a.refused(); a.status != http.StatusServiceUnavailable || code != "TokenUnavailable" {
		t.Errorf("with a wrong password callers get %v", a)
	}
	pages := a.String()
	for _, p := range []*process{w.process, refused} {
		for _, path := range []string{"/", "/-/regions", "/-/tenants", "/-/ready", "/metrics"} {
			pages += string(w.do(http.MethodGet, p.admin+path, "").body)
		}
		pages += p.stderr.String() + p.stdout.String()
	}
	check, _ := command(append(env, "WRONG_PASSWORD="+wrong), "check", "--online", "--config", w.file).CombinedOutput()
	pages += string(check)
	for _, secret := range []string{password, wrong, url.QueryEscape(password), url.QueryEscape(wrong), basic("svc", password), basic("svc", wrong)} {
		if i := strings.Index(pages, secret); i >= 0 {
			t.Errorf("a password is told: %.300s", pages[max(0, i-150):])
		}
	}
}

// A firewall knows only the names that Microsoft's regions had before. A cloud
// with these names is built in, and nothing else is asked for.
func TestANetworkThatKnowsTheOldNamesOnlyIsAskedForNoOthers(t *testing.T) {
	t.Parallel()
	network := newCorporate(t, nil)
	w := newWorld(t, setup{unready: true, config: func(c object) {
		delete(c, "clouds")
		c["tenants"].([]object)[0]["cloud"] = "commercial-legacy"
		c["egress"].(object)["proxy"] = network.url
		probing(c)
	}})
	want := []string{"CONNECT graph.microsoft.com:443", "CONNECT login.microsoftonline.com:443"}
	for _, region := range []string{"us", "eu", "uk", "au"} {
		want = append(want, "CONNECT api-"+region+".securitycenter.microsoft.com:443")
		if region != "au" {
			want = append(want, "CONNECT api-"+region+".security.microsoft.com:443")
		}
	}
	slices.Sort(want)
	w.eventually("every region is asked for", func() error {
		got := network.tunnelled()
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
	a := w.get("/api/alerts")
	if code, _ := a.refused(); a.status < 500 || code == "Internal" {
		t.Errorf("while the network lets nothing through: %v", a)
	}
}
