package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// A service provider starts the proxy with a thousand customers. It listens
// before the first token has come, it asks Entra ID for no more tokens at once
// than it is told to, and when the last has come it is ready. Then any customer
// can be asked for, each with a token of its own.
func TestAThousandTenantsStartWithoutAStampede(t *testing.T) {
	t.Parallel()
	const (
		n          = 1000
		concurrent = 40
		delay      = 100 * time.Millisecond // of each answer of Entra ID's
	)
	var tenants []simulator.Tenant
	for i := range n {
		tenants = append(tenants, customer(i+1))
	}
	w := simulated(t, setup{sim: simulator.Config{Tenants: tenants, Delays: quick, Machines: 5, Alerts: 5, Vulnerabilities: 5}, config: func(c object) {
		delete(c, "tenants")
		c["tenants_dir"] = "tenants"
		c["tenant_defaults"] = object{"cloud": "lab", "regions": object{"allow": []string{"eu"}}, "credential": object{
			"client_id": simulator.DefaultClientID, "client_secret": object{"env": secretVariable},
		}}
		c["limits"] = object{"token_concurrency": concurrent}
	}})
	w.mkdir("tenants")
	for _, tenant := range tenants {
		w.write(filepath.Join("tenants", tenant.Name+".yaml"), []byte("id: "+tenant.ID+"\n"))
	}
	if err := w.sim.SetEntra(simulator.Fault{Kind: simulator.FaultDelay, Delay: delay}); err != nil {
		t.Fatal(err)
	}
	arrived := make(map[uint64]time.Time)
	look := func() {
		for _, r := range w.sim.Requests() {
			if r.Listener == "entra" {
				arrived[r.Number] = r.Time
			}
		}
	}
	w.process = start(t, "", w.file, secretVariable+"="+simulator.DefaultSecret)
	look()
	if len(arrived) == n {
		t.Error("all tokens had come before it listened: the story shows nothing")
	}
	w.eventually("it is ready", func() error {
		look()
		if a := w.get(w.admin + "/-/ready"); a.status != http.StatusOK {
			return fmt.Errorf("%d", a.status)
		}
		return nil
	})
	look()
	if len(arrived) != n {
		t.Errorf("%d questions for a token, want one for each of %d tenants", len(arrived), n)
	}
	var times []time.Time
	for _, at := range arrived {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 0; i+concurrent < len(times); i++ {
		// While a question waits for its answer, no more than those at once can come.
		if gap := times[i+concurrent].Sub(times[i]); gap < delay {
			t.Fatalf("%d questions came within %v, and each takes %v: more than %d were under way", concurrent+1, gap, delay, concurrent)
		}
	}
	if err := w.sim.SetEntra(simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, 499, 999} {
		if a := w.inTenant(tenants[i].Name); a.status != http.StatusOK {
			t.Errorf("tenant %s: %v", tenants[i].Name, a)
		}
		at := w.arrivals(http.MethodGet, "/api/alerts")
		if last := at[len(at)-1]; last.Tenant != tenants[i].ID {
			t.Errorf("a request for %s went out with a token of %s", tenants[i].ID, last.Tenant)
		}
	}
	var one struct {
		Tenants []struct{ Name string }
	}
	if a := w.get(w.admin + "/-/tenants?tenant=" + tenants[499].Name); json.Unmarshal(a.body, &one) != nil || len(one.Tenants) != 1 || one.Tenants[0].Name != tenants[499].Name {
		t.Errorf("the page of one tenant: %v", a)
	}
}
