package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// Requests in flight finish on the snapshot they began with.
func TestARequestInFlightDuringAReloadEndsAsItBegan(t *testing.T) {
	l := newLab(t, func(l *lab) { l.tenants(l.tenant("contoso"), l.tenant("fabrikam")) })
	l.wants("/t/fabrikam/api/alerts", 200)
	if err := l.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultDelay, Delay: 3 * time.Second, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	arrived := func() (n int) {
		for _, r := range l.sim.Requests() {
			if r.Method == http.MethodGet && strings.HasPrefix(r.Target, "/api/alerts") {
				n++
			}
		}
		return n
	}
	before := arrived()
	type answer struct {
		status int
		body   string
	}
	done := make(chan answer, 1)
	go func() {
		resp, err := client.Get(l.url + "/t/fabrikam/api/alerts")
		if err != nil {
			done <- answer{0, err.Error()}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		done <- answer{resp.StatusCode, fmt.Sprint(string(body), err)}
	}()
	l.eventually("the request is on its way", func() bool { return arrived() > before })
	l.tenants(l.tenant("contoso"))
	l.config["clients"] = []object{{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{}}}
	l.save()
	l.reload()
	l.wants("/t/fabrikam/api/alerts", 404)
	l.wants("/t/contoso/api/alerts", 403)
	if a := <-done; a.status != 200 || !strings.Contains(a.body, `/t/fabrikam/`) {
		t.Errorf("the request in flight: %d %.300s", a.status, a.body)
	}
}

// 200 reloads under load: tenants come and go, and one changes its application
// each time, so that its tokens are forgotten while callers want them. No
// request fails that would not have failed before.
func TestTwoHundredReloadsUnderLoadFailNobody(t *testing.T) {
	l := newLab(t, func(l *lab) { l.tenants(l.tenant("contoso"), l.tenant("fabrikam")) })
	l.wants("/t/contoso/api/alerts?$top=1", 200)
	l.wants("/t/fabrikam/api/alerts?$top=1", 200)
	l.eventually("it is ready", func() bool { status, _ := l.get(l.admin + "/-/ready"); return status == 200 })
	client.CloseIdleConnections()
	before := runtime.NumGoroutine()

	stop := make(chan struct{})
	var calling sync.WaitGroup
	var asked atomic.Int64
	for i := range 8 {
		calling.Go(func() {
			url := l.url + "/t/" + labTenants[i%2] + "/api/alerts?$top=1"
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := client.Get(url)
				if err != nil {
					t.Errorf("%s: %v", url, err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 || err != nil {
					t.Errorf("%s: %d %s %v", url, resp.StatusCode, body, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for i := range 200 {
		fabrikam := l.tenant("fabrikam")
		if i%2 == 0 {
			fabrikam["credential"] = object{"client_id": labOtherApp, "client_secret": object{"file": "fabrikam.secret"}}
		}
		tenants := []object{l.tenant("contoso"), fabrikam}
		if i%3 == 0 {
			tenants = append(tenants, l.tenant("tailspin"))
		}
		l.tenants(tenants...)
		l.config["policy"] = object{"unknown_operations": []string{"deny", "read"}[i%2]}
		l.save()
		if done := l.reload(); i > 0 && !slices.Contains(done.Changed, "fabrikam") {
			t.Fatalf("reload %d: %+v", i, done)
		}
	}
	close(stop)
	calling.Wait()
	if asked.Load() < 200 {
		t.Errorf("only %d requests were made", asked.Load())
	}
	client.CloseIdleConnections()
	l.eventually(fmt.Sprintf("the goroutines are the %d that there were", before), func() bool {
		// A few connections of the proxy to the simulator stay warm: two goroutines
		// on each side, and one that reads.
		return runtime.NumGoroutine() <= before+8*8
	})
	if n := strings.Count(l.metrics(), "defender_proxy_region_up{"); n != 2 {
		t.Errorf("%d regions are known", n)
	}
}

// Without a question the change of a file is noticed, of a tenant's own too; a
// faulty one is told once, and mended.
func TestAChangeOfAFileIsNoticed(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.config["tenants_dir"] = "tenants"
		l.write("tenants/README", "one file a tenant")
	})
	l.wants("/t/fabrikam/api/alerts", 404)
	fabrikam := l.tenant("fabrikam")
	fabrikam["credential"].(object)["client_secret"] = object{"file": "../fabrikam.secret"}
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(fabrikam); err != nil {
		t.Fatal(err)
	}
	l.write("fabrikam.secret", "not-the-right-one")
	l.write("tenants/fabrikam.yaml", text.String())
	l.eventually("the tenant has failed", func() bool {
		_, body := l.get(l.admin + "/-/tenants?tenant=fabrikam")
		return strings.Contains(body, `"aadsts":7000215`)
	})
	l.write("fabrikam.secret", labSecret)
	l.eventually("the mended secret is used", func() bool { status, _ := l.get("/t/fabrikam/api/alerts"); return status == 200 })
	l.eventually("the reload is logged", func() bool { return strings.Contains(l.stderr.String(), "change of "+l.path("fabrikam.secret")) })

	l.write("tenants/fabrikam.yaml", text.String()+"\nstor: memory\n")
	l.eventually("the fault is told", func() bool { return strings.Contains(l.stderr.String(), "the configuration is faulty") })
	l.wants("/t/fabrikam/api/alerts", 200)
	l.write("tenants/fabrikam.yaml", text.String())
	l.eventually("it is mended", func() bool { return strings.Contains(l.metrics(), "defender_proxy_config_last_reload_successful 1") })
	if n := strings.Count(l.stderr.String(), "the configuration is faulty"); n != 1 {
		t.Errorf("the fault is told %d times\n%s", n, l.command)
	}
	if err := os.Remove(l.path("tenants/fabrikam.yaml")); err != nil {
		t.Fatal(err)
	}
	l.eventually("the tenant is gone", func() bool { status, _ := l.get("/t/fabrikam/api/alerts"); return status == 404 })
}

// A tenant that is wrong in itself stops nobody else: it is an error in the log
// and on its page.
func TestATenantWithoutItsSecretIsToldAndTheOthersGoOn(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.tenants(l.tenant("contoso"), l.tenant("fabrikam"))
		if err := os.Remove(l.path("fabrikam.secret")); err != nil {
			t.Fatal(err)
		}
	})
	l.wants("/t/contoso/api/alerts", 200)
	l.wants("/t/fabrikam/api/alerts", 503)
	l.eventually("it is ready", func() bool { status, _ := l.get(l.admin + "/-/ready"); return status == 200 })
	var told bool
	for line := range strings.Lines(l.stderr.String()) {
		var entry struct{ Level, Tenant, Place, Message string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "error" && entry.Tenant == "fabrikam" && strings.Contains(entry.Message, "fabrikam.secret") {
			told = strings.HasPrefix(entry.Place, l.path("proxy.yaml")+":")
		}
	}
	if !told {
		t.Errorf("the log does not tell\n%s", l.command)
	}
	_, body := l.get(l.admin + "/-/tenants?tenant=fabrikam")
	if !strings.Contains(body, `"impaired":["`) || !strings.Contains(body, "fabrikam.secret") {
		t.Errorf("its page: %s", body)
	}
	if done := l.reload(); len(done.Impaired) != 1 || !strings.Contains(done.Impaired[0], "tenant fabrikam: ") {
		t.Errorf("the reload: %+v", done)
	}
	if n := strings.Count(l.stderr.String(), `"tenant":"fabrikam","place"`); n != 1 {
		t.Errorf("it is told %d times", n)
	}
	l.write("fabrikam.secret", labSecret)
	if done := l.reload(); len(done.Impaired) != 0 {
		t.Errorf("the mended one: %+v", done)
	}
	l.eventually("it serves", func() bool { status, _ := l.get("/t/fabrikam/api/alerts"); return status == 200 })
}
