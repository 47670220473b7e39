package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// A cloud that gets another authority and other hosts under its old name gets
// other tokens: the new host never sees one of the old authority.
func TestANewHostNeverGetsATokenOfTheOldAuthority(t *testing.T) {
	l := newLab(t, nil)
	l.wants("/api/alerts", 200)
	var asked, bearers atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "oauth2") {
			asked.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Header.Get("Authorization") != "" {
			bearers.Add(1)
		}
		_, _ = io.WriteString(w, "{}")
	}))
	defer other.Close()
	l.config["clouds"] = []object{{
		"name": "lab", "authority": other.URL,
		"endpoints": object{"mde": object{"eu": other.URL}, "xdr": object{"eu": other.URL}},
		"audiences": object{"mde": "https://api.securitycenter.microsoft.com", "xdr": "https://api.security.microsoft.com"},
	}}
	l.save()
	if done := l.reload(); !slices.Equal(done.Changed, []string{"contoso"}) {
		t.Errorf("got %+v", done)
	}
	l.wants("/api/alerts", 503)
	if asked.Load() == 0 || bearers.Load() > 0 {
		t.Errorf("the new authority was asked %d times, the new host got %d tokens", asked.Load(), bearers.Load())
	}
}

// A request in flight goes on to another region with the token that it has, though
// a reload forgot where that came from.
func TestARequestInFlightKeepsItsTokenOverAReload(t *testing.T) {
	endpoints := func(l *lab, tenants ...object) {
		for _, x := range tenants {
			x["regions"] = object{"prefer": "eu"}
		}
		l.tenants(tenants...)
	}
	l := newLab(t, func(l *lab) {
		endpoints(l, l.tenant("contoso"), l.tenant("fabrikam"))
		l.config["clouds"].([]object)[0]["endpoints"] = object{"mde": object{"eu": l.sim.Endpoint("eu"), "uk": l.sim.Endpoint("uk")}, "xdr": object{"eu": l.sim.Endpoint("eu")}}
		l.config["regions"] = object{"first_byte_timeout": "5s"}
	})
	l.wants("/t/fabrikam/api/alerts", 200)
	if err := l.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultHang, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	arrived := func() (n int) {
		for _, r := range l.sim.Requests() {
			if r.Region == "eu" && strings.HasPrefix(r.Target, "/api/alerts") {
				n++
			}
		}
		return n
	}
	before := arrived()
	done := make(chan string, 1)
	go func() {
		resp, err := client.Get(l.url + "/t/fabrikam/api/alerts")
		if err != nil {
			done <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		done <- fmt.Sprintf("%d %.300s", resp.StatusCode, body)
	}()
	l.eventually("the request is on its way", func() bool { return arrived() > before })
	changed := l.tenant("fabrikam")
	changed["credential"].(object)["client_id"] = labOtherApp
	endpoints(l, l.tenant("contoso"), changed)
	l.save()
	l.reload()
	if got := <-done; !strings.HasPrefix(got, "200 ") {
		t.Errorf("the request in flight: %s", got)
	}
}

// nextFetch is when the first service of a tenant that fails is asked for again,
// and how often it failed so far.
func (l *lab) nextFetch(tenant string) (at time.Time, failed bool) {
	l.t.Helper()
	var page struct {
		Tenants []struct {
			Services []struct {
				NextFetch time.Time `json:"next_fetch"`
				LastError *struct{} `json:"last_error"`
			}
		}
	}
	_, body := l.get(l.admin + "/-/tenants?tenant=" + tenant)
	if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Tenants) != 1 || len(page.Tenants[0].Services) == 0 {
		l.t.Fatalf("%v: %s", err, body)
	}
	s := page.Tenants[0].Services[0]
	return s.NextFetch, s.LastError != nil
}

// Reloads that have nothing to do with a tenant that fails do not make the proxy
// ask for it more often.
func TestAReloadShortensNoPauseThatItHasNothingToDoWith(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.tenants(l.tenant("contoso"), l.tenant("fabrikam"))
		l.write("fabrikam.secret", "wrong")
	})
	var before time.Time
	l.eventually("the pause is long", func() bool {
		at, failed := l.nextFetch("fabrikam")
		before = at
		return failed && time.Until(at) > 4*time.Second
	})
	for i := range 5 {
		l.config["policy"] = object{"unknown_operations": []string{"read", "deny"}[i%2]}
		l.save()
		l.reload()
		l.reload()
	}
	// Later, if it was asked meanwhile; sooner by more than rounding, never.
	if after, _ := l.nextFetch("fabrikam"); after.Before(before.Add(-500 * time.Millisecond)) {
		t.Errorf("the next fetch was to be at %v and is at %v", before, after)
	}
	l.write("fabrikam.secret", labSecret)
	l.reload()
	l.eventually("the mended secret is used", func() bool { status, _ := l.get("/t/fabrikam/api/alerts"); return status == 200 })
}

// Each run of first tokens ends the one before: reloads while Entra ID hangs pile
// up neither goroutines nor snapshots.
func TestReloadsWhileEntraHangsDoNotPileUp(t *testing.T) {
	old := labTenants
	labTenants = nil
	for i := range 100 {
		labTenants = append(labTenants, fmt.Sprintf("t%04d", i))
	}
	defer func() { labTenants = old }()
	l := newLab(t, func(l *lab) {
		var all []object
		for _, name := range labTenants {
			all = append(all, l.tenant(name))
		}
		l.tenants(all...)
		if err := l.sim.SetEntra(simulator.Fault{Kind: simulator.FaultHang}); err != nil {
			t.Fatal(err)
		}
	})
	again := func(i int) {
		l.config["policy"] = object{"unknown_operations": []string{"read", "deny"}[i%2]}
		l.save()
		l.reload()
	}
	again(0)
	before := runtime.NumGoroutine()
	for i := range 20 {
		again(i + 1)
	}
	client.CloseIdleConnections()
	// One run has 64 goroutines; twenty would have twenty times as many.
	l.eventually(fmt.Sprintf("the goroutines are the %d that there were", before), func() bool { return runtime.NumGoroutine() < before+64 })
	if err := l.sim.SetEntra(simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
}

// That the start is over is found without anybody's asking for it.
func TestATenantThatComesLaterMakesNobodyUnreadyThoughNobodyAsked(t *testing.T) {
	l := newLab(t, nil)
	l.wants("/api/alerts", 200)
	l.eventually("a region answers", func() bool { return strings.Contains(l.metrics(), `defender_proxy_tenant_ready{tenant="contoso"} 1`) })
	if err := l.sim.SetEntra(simulator.Fault{Kind: simulator.FaultHang}); err != nil {
		t.Fatal(err)
	}
	l.tenants(l.tenant("contoso"), l.tenant("fabrikam"))
	l.save()
	l.reload()
	if status, body := l.get(l.admin + "/-/ready"); status != 200 || !strings.Contains(body, `"waiting":1`) {
		t.Errorf("got %d %s", status, body)
	}
	if err := l.sim.SetEntra(simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
}

// One bad file stops nobody at the start, and nothing of a reload is in force
// before all files are good.
func TestAFaultyFileOfATenantKeepsNobodyFromStarting(t *testing.T) {
	file := fmt.Sprintf("{name: fabrikam, id: %s, cloud: lab, credential: {client_id: %s, client_secret: {file: ../fabrikam.secret}}}", labID(1), labApp)
	l := newLab(t, func(l *lab) {
		l.config["tenants_dir"] = "tenants"
		l.write("tenants/fabrikam.yaml", "id: oops\n")
		l.config["clients"] = []object{
			{"name": "local", "from": []string{"127.0.0.1"}, "allow": []string{"read"}, "tenants": []string{"contoso", "fabrikam"}},
			{"name": "lonely", "from": []string{"127.0.0.2"}, "allow": []string{"read"}, "tenants": []string{"fabrikam"}},
		}
	})
	l.wants("/t/contoso/api/alerts", 200)
	l.wants("/t/fabrikam/api/alerts", 404)
	if !strings.Contains(l.stderr.String(), `"level":"error","tenant":"fabrikam"`) {
		t.Errorf("the log does not tell\n%s", l.command)
	}
	for _, page := range []string{"/-/tenants?tenant=fabrikam", "/-/ready"} {
		if _, body := l.get(l.admin + page); !strings.Contains(body, "fabrikam.yaml:1:1: ") {
			t.Errorf("%s does not tell: %s", page, body)
		}
	}
	l.eventually("it is ready", func() bool { status, _ := l.get(l.admin + "/-/ready"); return status == 200 })
	// The group that has no tenant left asks for none: not for all.
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	from2 := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	if runtime.GOOS == "linux" { // where all of 127.0.0.0/8 is this machine
		if resp, err := from2.Get(l.url + "/t/contoso/api/alerts"); err != nil || resp.StatusCode != 404 {
			t.Errorf("a group without a tenant: %v %v", resp, err)
		} else {
			resp.Body.Close()
		}
	}
	l.config["policy"] = object{"claims": "report"}
	l.save()
	if status, body := fetch(t, http.MethodPost, l.admin+"/-/reload", ""); status != http.StatusUnprocessableEntity || !strings.Contains(body, "fabrikam.yaml") {
		t.Errorf("a reload: %d %s", status, body)
	}
	l.wants("/t/contoso/api/alerts", 200)
	l.write("tenants/fabrikam.yaml", file)
	l.eventually("the mended file is noticed", func() bool { status, _ := l.get("/t/fabrikam/api/alerts"); return status == 200 })
	if _, body := l.get(l.admin + "/-/tenants?tenant=fabrikam"); strings.Contains(body, "oops") || strings.Contains(body, "impaired") {
		t.Errorf("the mended tenant: %s", body)
	}
	if err := os.Remove(l.path("tenants/fabrikam.yaml")); err != nil {
		t.Fatal(err)
	}
	// By contract: a group names it still, so that the whole is faulty.
	if status, _ := fetch(t, http.MethodPost, l.admin+"/-/reload", ""); status != http.StatusUnprocessableEntity {
		t.Errorf("a removal that leaves the configuration faulty: %d", status)
	}
	l.wants("/t/fabrikam/api/alerts", 200)
}
