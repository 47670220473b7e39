package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// The operator watches the process: whether it lives, whether it is ready and if
// not why, which regions it goes to, and figures that agree with what callers
// did.
func TestTheOperatorSeesWhatCallersDid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{unready: true, config: probing, before: func(sim *simulator.Simulator) {
		if err := sim.SetEntra(simulator.Fault{Kind: simulator.FaultAADSTS, Code: 7000222}); err != nil {
			t.Fatal(err)
		}
	}})
	if a := w.get(w.admin + "/-/healthy"); a.status != http.StatusOK || strings.TrimSpace(string(a.body)) != `{"healthy":true}` {
		t.Errorf("healthy: %v", a)
	}
	var ready struct {
		Ready   bool
		Tenants []struct {
			Tenant, Service, Region, Reason string
			Ready                           bool
		}
	}
	w.eventually("readiness tells why there is no token", func() error {
		a := w.get(w.admin + "/-/ready")
		if err := json.Unmarshal(a.body, &ready); err != nil || a.status != http.StatusServiceUnavailable || ready.Ready || len(ready.Tenants) != 1 ||
			ready.Tenants[0].Tenant != "contoso" || !strings.Contains(ready.Tenants[0].Reason, "AADSTS7000222") {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if err := w.sim.SetEntra(simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	w.ready()
	w.nearest("eu")
	a := w.get(w.admin + "/-/ready")
	if err := json.Unmarshal(a.body, &ready); err != nil || !ready.Ready || len(ready.Tenants) != 1 || !ready.Tenants[0].Ready || ready.Tenants[0].Region != "eu" {
		t.Errorf("ready: %v", a)
	}

	before := w.metrics()
	const reads, refusals, unknown = 7, 4, 3
	bytes := 0
	for range reads {
		bytes += len(w.get("/api/alerts?$top=2").body)
	}
	for range refusals {
		bytes += len(w.do(http.MethodPost, "/api/machines/1/isolate", "").body)
	}
	for range unknown {
		bytes += len(w.get("/api/secrets").body)
	}
	w.eventually("the figures agree with the traffic", func() error {
		after := w.metrics()
		for _, f := range []struct {
			what string
			want float64
		}{
			{`defender_proxy_requests_total{code="200",operation="alerts.list"}`, reads},
			{`defender_proxy_requests_total{code="403",operation="machines.isolate"}`, refusals},
			{`defender_proxy_requests_total{code="404",operation="none"}`, unknown},
			{`defender_proxy_refusals_total{reason="NotGranted"}`, refusals},
			{`defender_proxy_refusals_total{reason="UnknownOperation"}`, unknown},
			{`defender_proxy_attempts_total{region="eu"}`, reads},
			{`defender_proxy_request_duration_seconds_count{class="read"}`, reads},
			{`defender_proxy_first_byte_seconds_count{region="eu"}`, reads},
			{`defender_proxy_bytes_total{direction="out"}`, float64(bytes)},
		} {
			if got := after[f.what] - before[f.what]; got != f.want {
				return fmt.Errorf("%s grew by %v, not %v", f.what, got, f.want)
			}
		}
		return nil
	})
	m := w.metrics()
	if v := m[`defender_proxy_token_expires_in_seconds{service="mde",tenant="contoso"}`]; v < 3000 || v > 3600 {
		t.Errorf("the token expires in %v s", v)
	}
	if v := sum(m, "defender_proxy_token_fetches_total", `outcome="ok"`, `service="mde"`); v != 1 {
		t.Errorf("%v tokens were fetched", v)
	}
	if v := sum(m, "defender_proxy_token_fetches_total", `outcome="failed"`, `service="mde"`); v < 1 {
		t.Errorf("%v fetches failed", v)
	}
	if v := sum(m, "defender_proxy_region_up"); v != 21 {
		t.Errorf("%v of 21 regions are up", v)
	}
}

// A thousand callers ask for a thousand things that there are not: paths,
// methods, tenants, hosts. The memory of the operator's database does not pay
// for it: no series is added after the first of each kind.
func TestNothingThatACallerChoosesBecomesASeries(t *testing.T) {
	t.Parallel()
	// One region, because the nearest of several may change on a busy machine.
	w := newWorld(t, setup{config: func(c object) { inRegions(c, "eu") }})
	rng := rand.New(rand.NewPCG(1, 2))
	word := func() string { return fmt.Sprintf("w%x", rng.Uint64()) }
	round := func() {
		w.get("/api/" + word())
		w.get("/t/" + word() + "/api/alerts")
		w.get("/api/machines/" + word())
		w.get("/api/alerts?" + word() + "=" + word())
		w.get("/" + word() + "/" + word())
		w.get("/api/alerts", "Host", word()+".example")
		w.get("/api/alerts", "User-Agent", word(), "Origin", "https://"+word()+".example")
		w.do(strings.ToUpper(word()), "/api/alerts", "")
	}
	round()
	w.get("/api/machines/1") // 404 of Microsoft's
	before := w.metrics()
	for range 130 {
		round()
	}
	w.eventually("all have been counted", func() error {
		if n := sum(w.metrics(), "defender_proxy_requests_total") - sum(before, "defender_proxy_requests_total"); n < 130*8 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	for series := range w.metrics() {
		if _, known := before[series]; !known && strings.HasPrefix(series, "defender_proxy_") {
			t.Errorf("a new series: %s", series)
		}
	}
}

// The operator's pages are for the operator: not for a web page whose name was
// made to resolve to loopback, not for one of another origin, and not through
// the callers' listener.
func TestTheOperatorsPagesAreNotForWebPagesOrCallers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	for _, path := range []string{"/", "/-/healthy", "/-/ready", "/-/regions", "/-/tenants", "/metrics"} {
		if a := w.get(w.admin + path); a.status != http.StatusOK || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, a)
		}
		if a := w.get(w.admin+path, "Host", "rebound.example"); a.status != http.StatusMisdirectedRequest {
			t.Errorf("%s under another name: %v", path, a)
		}
		if a := w.get(w.admin+path, "Origin", "https://evil.example"); a.status != http.StatusForbidden {
			t.Errorf("%s for a page of another origin: %v", path, a)
		}
		if a := w.get(w.admin+path, "Sec-Fetch-Site", "cross-site"); a.status != http.StatusForbidden {
			t.Errorf("%s for a cross-site read: %v", path, a)
		}
		if a := w.do(http.MethodPost, w.admin+path, ""); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: %v", path, a)
		}
		if path == "/" {
			continue
		}
		if a := w.get(path); a.status != http.StatusNotFound {
			t.Errorf("%s through the callers' listener: %v", path, a)
		}
	}
	for _, path := range []string{"/api/alerts", "/t/contoso/api/alerts", "/debug/pprof/", "/-/whoami", "/-/../metrics"} {
		if a := w.get(w.admin + path); a.status != http.StatusNotFound {
			t.Errorf("%s through the operator's listener: %v", path, a)
		}
	}
}
