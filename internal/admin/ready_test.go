package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defender-proxy/internal/audit"
)

type readyView struct {
	Ready   bool
	Reason  string
	Counts  struct{ Tenants, Ready, Waiting, Failed int }
	Tenants []struct {
		Tenant, Service, Region, Reason string
		Ready                           bool
	}
}

func (s *side) readiness(status int) readyView {
	s.t.Helper()
	var view readyView
	if err := json.Unmarshal([]byte(s.until("/-/ready", status)), &view); err != nil {
		s.t.Fatal(err)
	}
	return view
}

func TestReadyNeedsATokenAndARegionThatAnswers(t *testing.T) {
	s := newSide(t, nil)
	if v := s.readiness(503); v.Ready || v.Counts.Waiting != 1 || !strings.Contains(v.Reason, "1 of 1") || !strings.Contains(v.Tenants[0].Reason, "has not come yet") {
		t.Errorf("before the first token: %+v", v)
	}
	s.warm()
	if v := s.readiness(200); !v.Ready || len(v.Tenants) != 1 || v.Tenants[0].Region != "eu" || v.Counts.Ready != 1 {
		t.Errorf("ready: %+v", v)
	}
	s.set(false, true)
	if v := s.readiness(503); !strings.Contains(v.Tenants[0].Reason, "no region has answered") || v.Counts.Failed != 1 {
		t.Errorf("a region that is out: %+v", v)
	}
	s.set(false, false)
	s.until("/-/ready", 200)
}

func TestReadyTellsWhyThereIsNoToken(t *testing.T) {
	s := newSide(t, nil)
	s.set(true, false)
	s.warm()
	w := s.get("/-/ready")
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), `"tenant":"contoso"`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if w := s.get("/-/healthy"); w.Code != 200 {
		t.Errorf("the process is not healthy: %d", w.Code)
	}
}

// One bad tenant stopped the whole process (cloud-sql-proxy#2451).
func TestATenantThatFailsStopsNobodyElse(t *testing.T) {
	s := newSide(t, func(s *side, _ *Sources) { s.view.Tenants = append(s.view.Tenants, s.tenant("fabrikam")) })
	s.set(true, false)
	_, _ = s.view.Tenants[0].Access[0].Token.Bearer(t.Context())
	if v := s.readiness(503); v.Counts.Waiting != 1 || v.Counts.Failed != 1 {
		t.Errorf("one failed, one waits: %+v", v)
	}
	s.set(false, false)
	_, _ = s.view.Tenants[1].Access[0].Token.Bearer(t.Context())
	v := s.readiness(200)
	for _, row := range v.Tenants {
		if row.Ready && row.Tenant == "contoso" && row.Reason == "" {
			return // the engine tried again by itself
		}
		if row.Tenant == "contoso" && !strings.Contains(row.Reason, "AADSTS7000215") {
			t.Errorf("the failed tenant: %+v", row)
		}
	}
}

// That the start is over is serve's to say: it does not depend on whether anybody
// asked in the meantime.
func TestATenantThatCameWithAReloadMakesNobodyUnready(t *testing.T) {
	s := newSide(t, nil)
	s.warm()
	s.readiness(200)
	more := s.tenant("fabrikam")
	s.with(func(s *side) { s.view = &View{Tenants: append([]Tenant{more}, s.view.Tenants...)} })
	if v := s.readiness(503); v.Counts.Waiting != 1 || v.Counts.Ready != 1 {
		t.Errorf("before the start is over: %+v", v)
	}
	s.with(func(s *side) { s.begun = true })
	if v := s.readiness(200); v.Counts.Waiting != 1 || v.Counts.Ready != 1 || v.Tenants[0].Ready {
		t.Errorf("got %+v", v)
	}
}

// A question of a load balancer every second is no use of a token.
func TestReadinessAsksForNoToken(t *testing.T) {
	s := newSide(t, nil)
	for range 20 {
		s.get("/-/ready")
		s.get("/-/tenants")
		s.get("/metrics")
	}
	s.with(func(s *side) {
		if s.asked != 0 {
			t.Errorf("%d tokens were asked for", s.asked)
		}
	})
}

func TestAProxyWithoutTenantsIsNotReady(t *testing.T) {
	s := newSide(t, func(s *side, _ *Sources) { s.view = &View{} })
	if w := s.get("/-/ready"); w.Code != 503 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	s = newSide(t, func(s *side, _ *Sources) {
		s.view = &View{Tenants: []Tenant{{Name: "lost", Impaired: []string{"lost.yaml:1:1: id: is missing"}}}}
	})
	if w := s.get("/-/ready"); w.Code != 503 || !strings.Contains(w.Body.String(), "left out, because its file is faulty: lost.yaml:1:1: id: is missing") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if w := s.get("/-/tenants?tenant=lost"); w.Code != 200 || !strings.Contains(w.Body.String(), `"impaired":["lost.yaml:1:1: id: is missing"]`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	s = newSide(t, func(s *side, _ *Sources) { s.view = &View{Tenants: []Tenant{{Name: "lonely"}}} })
	if w := s.get("/-/ready"); w.Code != 503 || !strings.Contains(w.Body.String(), "no service") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestOfManyTenantsOnlyThoseThatAreNotReadyAreListed(t *testing.T) {
	s := newSide(t, func(s *side, _ *Sources) {
		for i := range 120 {
			s.view.Tenants = append(s.view.Tenants, s.tenant(fmt.Sprint("t", i)))
		}
		s.view.Tenants = append(s.view.Tenants, Tenant{Name: "lonely"})
	})
	s.warm()
	v := s.readiness(200)
	if v.Counts.Tenants != 122 || v.Counts.Ready != 121 || len(v.Tenants) != 1 || v.Tenants[0].Tenant != "lonely" {
		t.Errorf("got %+v", v)
	}
}

// stuck is a pipe that nobody reads until it is closed.
type stuck chan struct{}

func (s stuck) Write(b []byte) (int, error) {
	<-s
	return len(b), nil
}

// No request ends while its record does not get through.
func TestAProxyWhoseAuditRecordsDoNotGetThroughIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(stuck)
		p := &pages{Sources{Audit: audit.New(out), View: func() *View { return &View{} }}}
		ask := func(page http.HandlerFunc) (int, string) {
			w := httptest.NewRecorder()
			page(w, httptest.NewRequest(http.MethodGet, "/", nil))
			return w.Code, w.Body.String()
		}
		wants := func(when string, stalled bool) {
			t.Helper()
			if code, body := ask(p.ready); code != 503 || strings.Contains(body, "do not get through") != stalled {
				t.Errorf("%s /-/ready: %d %s, want the reason to be the audit: %v", when, code, body, stalled)
			}
			if code, body := ask(p.audit); code != 200 || strings.Contains(body, `"stalled":true`) != stalled || strings.Contains(body, `"failing"`) != stalled {
				t.Errorf("%s /-/audit: %d %s, want stalled: %v", when, code, body, stalled)
			}
			if code, body := ask(healthy); code != 200 {
				t.Errorf("%s /-/healthy: %d %s; a restart mends nothing", when, code, body)
			}
		}
		wants("at the start", false)
		ended := make(chan error)
		go func() { ended <- p.Audit.Write(&audit.Record{}) }()
		time.Sleep(audit.StallTime)
		wants("for a while", false)
		time.Sleep(time.Second)
		wants("then", true)
		close(out)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		wants("after that", false)
	})
}
