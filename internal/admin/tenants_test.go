package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/token"
	"defender-proxy/policy"
)

// granting gives the view the catalog and two groups.
func granting(t *testing.T, allow ...string) func(*side, *Sources) {
	return func(s *side, _ *Sources) {
		catalog, err := policy.NewCatalog(nil)
		if err != nil {
			t.Fatal(err)
		}
		grants, err := catalog.Grants(policy.Entries(allow...), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.view.Catalog = catalog
		s.view.Groups = []Group{{Name: "soc", Grants: grants, Allow: policy.Entries(allow...)}, {Name: "others", Grants: grants, Allow: policy.Entries(allow...), Tenants: []string{"fabrikam"}}}
	}
}

func (s *side) report(t *testing.T) TenantReport {
	t.Helper()
	var view struct{ Tenants []TenantReport }
	w := s.get("/-/tenants?tenant=contoso")
	if err := json.Unmarshal(w.Body.Bytes(), &view); err != nil || w.Code != 200 || len(view.Tenants) != 1 || len(view.Tenants[0].Services) != 1 {
		t.Fatalf("got %d %s, %v", w.Code, w.Body, err)
	}
	if strings.Contains(w.Body.String(), "canary") || strings.Contains(w.Body.String(), "eyJ") {
		t.Errorf("a secret or a token is in %s", w.Body)
	}
	return view.Tenants[0]
}

func TestTenantsTellConsentPermissionsAndLife(t *testing.T) {
	s := newSide(t, granting(t, "alerts.list", "machines.isolate"))
	ends := time.Now().Add(20*24*time.Hour + time.Hour)
	s.with(func(s *side) {
		s.health = token.Health{Kind: "certificate", Expires: ends, Notice: "The new file is faulty."}
	})

	before := s.report(t)
	if svc := before.Services[0]; svc.Consent != ConsentUnknown || svc.Token.Live || svc.LastError != nil || svc.Missing != nil || !svc.Granted {
		t.Errorf("before the first token: %+v", svc)
	}
	s.warm()
	got := s.report(t)
	if got.Name != "contoso" || got.ID != tenantID || got.ClientID != clientID || got.Cloud != "lab" || got.ConsentURL == "" {
		t.Errorf("the tenant: %+v", got)
	}
	if c := got.Credential; c.Kind != "certificate" || c.DaysLeft == nil || *c.DaysLeft != 20 || !c.Expires.Equal(ends) || c.Notice == "" {
		t.Errorf("the credential: %+v", c)
	}
	svc := got.Services[0]
	if svc.Consent != ConsentGranted || len(svc.Holds) != 1 || svc.Holds[0] != "Alert.Read.All" || svc.Audience != "https://mde.example" {
		t.Errorf("the service: %+v", svc)
	}
	if tok := svc.Token; !tok.Live || tok.LifeSeconds < 3500 || tok.ExpiresInSeconds < 3500 || tok.AgeSeconds > 60 {
		t.Errorf("the token: %+v", tok)
	}
	if len(svc.Missing) != 1 || svc.Missing[0].Operations[0] != "machines.isolate" || len(svc.Missing[0].Clients) != 1 || !strings.Contains(svc.Missing[0].Grant, clientID) {
		t.Errorf("missing: %+v", svc.Missing)
	}
	if svc.NextFetch.IsZero() {
		t.Error("the next fetch is not told")
	}

	w := s.get("/-/tenants")
	if w.Code != 200 || strings.Count(w.Body.String(), `"name":`) != 1 {
		t.Errorf("all: %d %s", w.Code, w.Body)
	}
	if w := s.get("/-/tenants?tenant=nobody"); w.Code != 404 || !strings.Contains(w.Body.String(), "UnknownTenant") {
		t.Errorf("an unknown tenant: %d %s", w.Code, w.Body)
	}
	if w := s.get("/-/tenants?tenant="); w.Code != 404 {
		t.Errorf("an empty name: %d", w.Code)
	}
}

func TestTenantsTellTheLastError(t *testing.T) {
	s := newSide(t, granting(t, "read"))
	s.set(true, false)
	s.warm()
	e := s.report(t).Services[0].LastError
	if e == nil || e.AADSTS != 7000215 || e.Kind != "rejected" || e.Sentence == "" || e.Remedy == "" || e.At.IsZero() {
		t.Errorf("got %+v", e)
	}
}

func TestATokenWithoutPermissionsMeansThatConsentIsMissing(t *testing.T) {
	s := newSide(t, granting(t, "alerts.list"))
	s.with(func(s *side) { s.roles = []string{} })
	s.warm()
	if svc := s.report(t).Services[0]; svc.Consent != ConsentMissing || len(svc.Missing) != 1 {
		t.Errorf("got %+v", svc)
	}
}

func TestTenantsMarkWhatIsAssumedAndLeftOut(t *testing.T) {
	s := newSide(t, func(s *side, sources *Sources) {
		granting(t, "read")(s, sources)
		s.view.Tenants[0].Access[0].Assumed = "the API's own host"
		s.view.Tenants[0].LeftOut = map[policy.Service]string{"graph": "the region is not allowed"}
		s.view.Tenants[0].Impaired = []string{"proxy.yaml:3:4: it is empty"}
	})
	w := s.get("/-/tenants")
	for _, want := range []string{`"audience_assumed":"The audience is assumed (the API's own host)`, `"left_out":"the region is not allowed"`, `"impaired":["proxy.yaml:3:4: it is empty"]`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s is not in %s", want, w.Body)
		}
	}
	s.warm()
	if w := s.get("/-/tenants"); strings.Contains(w.Body.String(), "impaired") {
		t.Errorf("a tenant whose token came is impaired: %s", w.Body)
	}
}

func TestReloadAnswersWhatChangedOrWhatIsWrong(t *testing.T) {
	var next func(context.Context) (*Reloaded, error)
	s := newSide(t, func(_ *side, sources *Sources) {
		sources.Reload = func(ctx context.Context) (*Reloaded, error) { return next(ctx) }
	})
	for _, c := range []struct {
		name   string
		done   *Reloaded
		err    error
		status int
		want   string
	}{
		{"a good one", &Reloaded{Tenants: 2, Added: []string{"a"}, Changed: []string{}, Removed: []string{}, NeedsRestart: []string{"egress.proxy"}}, nil, 200,
			`{"tenants":2,"added":["a"],"changed":[],"removed":[],"needs_restart":["egress.proxy"]}`},
		{"one fault", nil, &FaultyError{[]string{"p.yaml:1:1: x: is missing"}}, 422,
			`{"error":{"code":"InvalidConfiguration","faults":["p.yaml:1:1: x: is missing"],"message":"The configuration has a fault: p.yaml:1:1: x: is missing. The one that was in force serves on."}}`},
		{"two faults", nil, &FaultyError{[]string{"one", "two"}}, 422,
			`{"error":{"code":"InvalidConfiguration","faults":["one","two"],"message":"The configuration has 2 faults, the first being: one. The one that was in force serves on."}}`},
		{"no turn", nil, errors.New("whatever"), 503, `{"error":{"code":"ReloadUnavailable","message":"Another reload is under way, or the proxy is stopping. Nothing was changed."}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			next = func(context.Context) (*Reloaded, error) { return c.done, c.err }
			w := s.get("POST /-/reload")
			if got := strings.TrimSpace(w.Body.String()); w.Code != c.status || got != c.want {
				t.Errorf("got %d %s\nwant %d %s", w.Code, got, c.status, c.want)
			}
		})
	}
	next = func(context.Context) (*Reloaded, error) { t.Error("it was carried out"); return &Reloaded{}, nil }
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
		if w := s.get(method + " /-/reload"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
			t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	if w := s.get("POST /-/ready"); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /-/ready: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	for name, header := range map[string][]string{
		"a page of another origin": {"Origin", "http://evil.example"}, "a cross-site page": {"Sec-Fetch-Site", "cross-site"}, "a rebound name": {"Host", "evil.example"},
	} {
		if w := s.get("POST /-/reload", header...); w.Code == 200 {
			t.Errorf("%s reloads: %d", name, w.Code)
		}
	}
}

func TestMetricsFollowTheView(t *testing.T) {
	s := newSide(t, nil)
	ends := time.Now().Add(time.Hour)
	s.with(func(s *side) { s.health.Expires = ends })
	s.warm()
	s.until("/-/ready", 200)
	s.metrics.ConfigRead(true, time.Unix(1700000000, 0))
	text := s.get("/metrics").Body.String()
	for _, want := range []string{
		`defender_proxy_tenant_ready{tenant="contoso"} 1`, `defender_proxy_credential_expires_in_seconds{tenant="contoso"} 35`,
		`defender_proxy_config_last_reload_successful 1`, `defender_proxy_config_last_reload_success_timestamp_seconds 1.7e+09`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line has %s", want)
		}
	}
	s.metrics.ConfigRead(false, time.Unix(1800000000, 0))
	other := s.tenant("fabrikam")
	s.with(func(s *side) { s.view, s.health.Expires = &View{Tenants: []Tenant{other}}, time.Time{} })
	text = s.get("/metrics").Body.String()
	for _, gone := range []string{`tenant="contoso"`, "defender_proxy_credential_expires_in_seconds{"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	for _, want := range []string{`defender_proxy_tenant_ready{tenant="fabrikam"} 0`, `defender_proxy_config_last_reload_successful 0`, `timestamp_seconds 1.7e+09`} {
		if !strings.Contains(text, want) {
			t.Errorf("no line has %s", want)
		}
	}
}
