package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestATakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	base, _ := strconv.Atoi(port)
	base = min(base, 65535-4-len(regionNames))
	_, err = New(Config{BasePort: base})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v, want an error with %s", err, l.Addr())
	}
}

func TestFaultySettingsAreRefused(t *testing.T) {
	for name, c := range map[string]Config{
		"an address that is not loopback": {Address: "0.0.0.0"},
		"a host name":                     {Address: "example.com"},
		"ports past the end":              {BasePort: 65530},
		"a negative port":                 {BasePort: -1},
		"a share above one":               {Misbehave: 1.5},
		"a delay for nowhere":             {Delays: map[string]time.Duration{"mars": 1}},
		"a negative delay":                {Delays: map[string]time.Duration{"eu": -1}},
		"a negative fleet":                {Machines: -1},
		"a huge fleet":                    {Alerts: 100_001},
		"a negative lifetime":             {TokenLifetime: -1},
		"a tenant without a GUID":         {Tenants: []Tenant{{ID: "x", Name: "x"}}},
		"a tenant without a name":         {Tenants: []Tenant{{ID: DefaultTenantID}}},
		"two tenants of one name":         {Tenants: []Tenant{DefaultTenant(), {ID: "99999999-9999-9999-9999-999999999999", Name: "Contoso"}}},
		"an application twice":            {Tenants: []Tenant{{ID: DefaultTenantID, Name: "x", Apps: []App{{ClientID: "a"}, {ClientID: "A"}}}}},
	} {
		if s, err := New(c); err == nil {
			t.Errorf("%s was accepted", name)
			s.Close()
		}
	}
}

func TestRunEndsWithEverythingThatItStarted(t *testing.T) {
	s, err := New(quick())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if err := s.SetRegion("eu", Fault{Kind: FaultHang}); err != nil {
		t.Fatal(err)
	}
	p := &peer{Simulator: s, t: t, client: trusting(s)}
	defer p.client.CloseIdleConnections()
	hung := make(chan error, 1)
	go func() {
		_, err := p.try("GET", s.Endpoint("eu")+"/api/alerts", "x", "")
		hung <- err
	}()
	for len(s.Requests()) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v", err)
	}
	if err := <-hung; err == nil {
		t.Error("the request that hung was answered")
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run ran twice")
	}
	if err := s.SetRegion("eu", Fault{Kind: FaultTLS}); err == nil {
		t.Error("a fault was set after the end")
	}
	if c, err := net.DialTimeout("tcp", strings.TrimPrefix(s.Endpoint("uk"), "https://"), time.Second); err == nil {
		c.Close()
		t.Error("a port is still open")
	}
}

func TestASimulatorThatNeverRanCanBeClosed(t *testing.T) {
	s, err := New(quick())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestOneSeedGivesOneFleet(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	make := func(seed uint64, at time.Time, tenant string) *fleet {
		return newFleet(Config{Seed: seed, Machines: 50, Alerts: 80, Vulnerabilities: 40, Now: func() time.Time { return at }}, tenant, "contoso")
	}
	a := make(1, now, DefaultTenantID)
	b := make(1, now.Add(5*time.Hour), DefaultTenantID)
	if !reflect.DeepEqual(a.machines, b.machines) || !reflect.DeepEqual(a.alerts, b.alerts) || !reflect.DeepEqual(a.indicators, b.indicators) ||
		!reflect.DeepEqual(a.incidents, b.incidents) || !reflect.DeepEqual(a.vulns, b.vulns) {
		t.Error("the same seed on the same day gave another fleet")
	}
	if c := make(2, now, DefaultTenantID); reflect.DeepEqual(a.machines, c.machines) {
		t.Error("another seed gave the same machines")
	}
	if c := make(1, now, "99999999-9999-9999-9999-999999999999"); a.machines[0].ID == c.machines[0].ID {
		t.Error("another tenant has the same machines")
	}
	for _, al := range a.alerts {
		if i, ok := a.machineAt[al.MachineID]; !ok || a.machines[i].ComputerDNSName != al.ComputerDNSName {
			t.Fatalf("alert %s is on machine %s, which is not there", al.ID, al.MachineID)
		}
	}
}

func TestTenantsSeeTheirOwn(t *testing.T) {
	cfg := quick()
	other := Tenant{ID: "99999999-9999-9999-9999-999999999999", Name: "fabrikam", Apps: []App{{ClientID: DefaultClientID, Secrets: []string{"s"}, Permissions: map[string][]string{"mde": {"Machine.Read.All"}}}}}
	cfg.Tenants = append(cfg.Tenants, other)
	p := start(t, cfg)
	token := p.form("/fabrikam.onmicrosoft.com/oauth2/token", secretForm(1, "client_secret", "s")).object(t)["access_token"].(string)
	theirs := p.do("GET", p.Endpoint("eu")+"/api/machines", token, "").rows(t)
	ours := p.get("mde", "/api/machines").rows(t)
	if p.MachineID() != ours[0]["id"] {
		t.Errorf("MachineID is %s, the first tenant's first machine %s", p.MachineID(), ours[0]["id"])
	}
	if theirs[0]["id"] == ours[0]["id"] || !strings.Contains(theirs[0]["computerDnsName"].(string), "fabrikam") {
		t.Errorf("fabrikam sees %v", theirs[0])
	}
	if a := p.do("GET", p.Endpoint("eu")+"/api/machines/"+ours[0]["id"].(string), token, ""); a.status != 404 {
		t.Errorf("fabrikam reads contoso's machine: got %d", a.status)
	}
}

func TestRequestsAreRememberedWithoutSecrets(t *testing.T) {
	p := start(t, quick())
	token := p.token("mde")
	p.ResetRequests()
	target := "/API/alerts?$filter=id%20eq%20'a;b'&x=%2B+&"
	p.do("GET", p.Endpoint("uk")+target, token, "")
	p.do("POST", p.Endpoint("uk")+"/api/advancedqueries/run", token, `{"Query":"DeviceInfo | count"}`)
	p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2))
	link := p.get("mde", "/api/machines/SoftwareInventoryExport").object(t)["exportFiles"].([]any)[0].(string)
	p.do("GET", link, "", "")
	all := p.Requests()
	if len(all) != 6 {
		t.Fatalf("%d requests were remembered, want 6", len(all))
	}
	r := all[0]
	if r.Target != target || r.Region != "uk" || r.Listener != "api" || r.Status != 200 || r.Operation != "alerts.list" || r.Tenant != DefaultTenantID || r.Conn == 0 {
		t.Errorf("got %+v", r)
	}
	if r.Header.Get("Authorization") != fingerprint("Bearer "+token) {
		t.Errorf("the header says %s", r.Header.Get("Authorization"))
	}
	if r := all[1]; r.BodyBytes != 30 || len(r.BodySHA256) != 64 || r.Conn != all[0].Conn {
		t.Errorf("got %+v", r)
	}
	if all[2].Listener != "entra" || all[5].Listener != "blob" {
		t.Errorf("listeners %s and %s", all[2].Listener, all[5].Listener)
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	_, sig, _ := strings.Cut(link, "sig=")
	for what, secret := range map[string]string{"the token": token, "the secret": DefaultSecret, "the signature": sig} {
		if strings.Contains(string(text), secret) {
			t.Errorf("the records hold %s", what)
		}
	}
	for range ringSize + 5 {
		p.ring.add(&http.Request{Header: http.Header{}}, "api", "eu", time.Now())
	}
	if all := p.Requests(); len(all) != ringSize || all[ringSize-1].Number-all[0].Number != ringSize-1 {
		t.Errorf("%d requests are kept, want %d", len(all), ringSize)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	tenant := DefaultTenant()
	text, err := json.Marshal(tenant)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{string(text), fmt.Sprint(tenant), fmt.Sprintf("%+v", tenant), fmt.Sprintf("%#v", tenant), fmt.Sprint(tenant.Apps[0].Users)} {
		if strings.Contains(printed, DefaultSecret) || strings.Contains(printed, "simulated-Password") {
			t.Errorf("a secret is in %s", printed)
		}
		if !strings.Contains(printed, "[redacted]") {
			t.Errorf("nothing tells that something was left out: %s", printed)
		}
	}
}

func TestTheControlPortSetsWhatTheMethodsSet(t *testing.T) {
	p := start(t, quick())
	token := p.token("mde")
	control := func(method, path, body string) answer { return p.do(method, p.ControlURL()+path, "", body) }
	alerts := func(region string) int { return p.do("GET", p.Endpoint(region)+"/api/alerts?$top=1", token, "").status }
	ok := func(method, path, body string) {
		t.Helper()
		if a := control(method, path, body); a.status != 204 {
			t.Errorf("%s %s: got %d %s", method, path, a.status, a.body)
		}
	}
	if a := control("GET", "/", ""); !strings.Contains(string(a.body), "curl -X PUT "+p.ControlURL()+"/regions/eu/fault") || !strings.Contains(string(a.body), p.Endpoint("aea")) {
		t.Errorf("the help says %s", a.body)
	}
	ok("PUT", "/regions/eu/fault", `{"kind":"status","status":500,"count":5}`)
	if got := alerts("eu"); got != 500 {
		t.Errorf("with the fault: %d", got)
	}
	state := control("GET", "/state", "")
	if !strings.Contains(string(state.body), `"count":4`) || strings.Contains(string(state.body), DefaultSecret) || !strings.Contains(string(state.body), `"secrets":1`) {
		t.Errorf("the state says %s", state.body)
	}
	ok("DELETE", "/regions/eu/fault", "")
	if got := alerts("eu"); got != 200 {
		t.Errorf("mended: %d", got)
	}
	ok("PUT", "/regions/us/delay", `{"delay":"70ms"}`)
	begun := time.Now()
	alerts("us")
	if took := time.Since(begun); took < 70*time.Millisecond {
		t.Errorf("with a delay of 70ms it took %v", took)
	}
	ok("POST", "/entra/fault", `{"kind":"aadsts","code":53003}`)
	if a := p.form(tenantPath+"/oauth2/token", secretForm(1)); !strings.Contains(string(a.body), "AADSTS53003") {
		t.Errorf("Entra says %d", a.status)
	}
	ok("DELETE", "/entra/fault", "")
	ok("PUT", "/apps/contoso.onmicrosoft.com/"+DefaultClientID, `{"permissions":{"mde":["Machine.Isolate"]},"secrets":["new"],"expired_secrets":["`+DefaultSecret+`"]}`)
	if a := p.form(tenantPath+"/oauth2/token", secretForm(1)); !strings.Contains(string(a.body), "AADSTS7000222") {
		t.Errorf("with an expired secret Entra says %d", a.status)
	}
	fresh := p.form(tenantPath+"/oauth2/token", secretForm(1, "client_secret", "new")).object(t)["access_token"].(string)
	if a := p.do("GET", p.Endpoint("eu")+"/api/alerts", fresh, ""); a.status != 403 {
		t.Errorf("without Alert.Read.All: %d", a.status)
	}
	ok("POST", "/tokens/revoke", "")
	if got := alerts("eu"); got != 401 {
		t.Errorf("revoked: %d", got)
	}
	ok("PUT", "/tokens/lifetime", `{"lifetime":"30s"}`)
	ok("POST", "/reset", "")
	if got := p.form(tenantPath+"/oauth2/v2.0/token", secretForm(2)).object(t)["expires_in"]; got != 3599.0 {
		t.Errorf("after a reset tokens live %v", got)
	}
	if a := control("GET", "/tokens/issued", ""); !strings.Contains(string(a.body), `"count":1`) {
		t.Errorf("issued: %s", a.body)
	}
	if a := control("GET", "/requests", ""); !strings.Contains(string(a.body), `"listener":"entra"`) {
		t.Errorf("requests: %s", a.body)
	}
	ok("DELETE", "/requests", "")
	if a := control("GET", "/requests", ""); strings.TrimSpace(string(a.body)) != "[]" {
		t.Errorf("requests after forgetting: %s", a.body)
	}
	for path, body := range map[string]string{
		"/regions/eu/fault": `{"kind":"explode"}`, "/regions/mars/fault": `{"kind":"reset"}`, "/regions/eu/delay": `{"delay":"soon"}`, "/entra/fault": `{"kind":"html","x":1}`,
		"/tokens/lifetime": `{"lifetime":"-1s"}`, "/apps/nobody/x": `{"secrets":[]}`, "/apps/" + DefaultTenantID + "/" + DefaultClientID: `{"permissions":{"mars":[]}}`,
	} {
		if a := control("PUT", path, body); a.status != 400 || !strings.Contains(string(a.body), `"error":"`) {
			t.Errorf("%s %s: got %d %s", path, body, a.status, a.body)
		}
	}
	if a := control("GET", "/nothing", ""); a.status != 404 {
		t.Errorf("an unknown path: %d", a.status)
	}
	for name, change := range map[string]func(*http.Request){
		"another host":         func(r *http.Request) { r.Host = "rebound.example" },
		"a page's origin":      func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"a cross-site browser": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
	} {
		r, err := http.NewRequest("GET", p.ControlURL()+"/state", nil)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		if a, err := p.send(r); err != nil || a.status != 403 {
			t.Errorf("%s: got %d, %v", name, a.status, err)
		}
	}
}

// BenchmarkStart is the time from nothing to a first answer with the default
// fleet.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s, err := New(Config{})
		if err != nil {
			b.Fatal(err)
		}
		s.directory.tenant(DefaultTenantID).fleet()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
