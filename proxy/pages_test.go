package proxy

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/tenant"
)

func TestHelpSaysWhatTheCallerMayDo(t *testing.T) {
	w := newWorld(t, options{allow: []string{"read"}})
	text := w.do("GET", "/", "")
	for _, want := range []string{"client group local (127.0.0.1)", "tenant contoso", "curl '" + w.server.URL + "/api/alerts?$top=5'", "respond     0 of  11", "read       90 of  90"} {
		if !strings.Contains(text.body, want) {
			t.Errorf("%q is not in\n%s", want, text.body)
		}
	}
	if ct := text.header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") {
		t.Errorf("curl gets %s", ct)
	}
	html := w.do("GET", "/", "", "Accept", "text/html,application/xhtml+xml")
	if ct := html.header.Get("Content-Type"); !strings.HasPrefix(ct, "text/html") || !strings.Contains(html.body, "<title>defender-proxy</title>") || !strings.Contains(html.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("a browser gets %s, %v", ct, html.header)
	}
	tenant := w.do("GET", "/t/contoso/", "")
	if !strings.Contains(tenant.body, w.server.URL+"/t/contoso/api/alerts") {
		t.Errorf("under a tenant:\n%s", tenant.body)
	}
	if got := w.do("GET", "/t/nobody/", ""); got.code() != "UnknownTenant" {
		t.Errorf("a tenant of nobody gives %d %s", got.status, got.body)
	}
}

func TestHelpWithoutATenantSaysHowToNameOne(t *testing.T) {
	w := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}})
	if got := w.do("GET", "/", ""); got.status != 200 || !strings.Contains(got.body, "/t/contoso/") || !strings.Contains(got.body, "fabrikam") {
		t.Errorf("got %d\n%s", got.status, got.body)
	}
}

func TestWhoamiTellsTheClaimsAndNeverTheToken(t *testing.T) {
	w := newWorld(t, options{})
	got := w.do("GET", "/-/whoami", "")
	var view struct {
		Client, Address string
		Tenant          struct {
			Name, ID string
			Tokens   []struct {
				Service, Audience, UTI string
				Roles                  []string
				ExpiresIn              int `json:"expires_in"`
			}
		}
	}
	if err := json.Unmarshal([]byte(got.body), &view); err != nil {
		t.Fatal(err)
	}
	if view.Client != "local" || view.Address != "127.0.0.1" || view.Tenant.Name != "contoso" || len(view.Tenant.Tokens) != 2 {
		t.Fatalf("got %s", got.body)
	}
	if tok := view.Tenant.Tokens[0]; tok.Service != "mde" || len(tok.Roles) != len(allRoles) || tok.UTI != "uti-0" || tok.ExpiresIn < 3000 {
		t.Errorf("got %+v", tok)
	}
	for _, issued := range w.entra.tokens() {
		if parts := strings.Split(issued, "."); strings.Contains(got.body, parts[1]) || strings.Contains(got.body, parts[2]) {
			t.Error("the token is in the page")
		}
	}
}

func TestWhoamiTellsWhyThereIsNoToken(t *testing.T) {
	w := newWorld(t, options{})
	w.entra.set(func(e *entra) { e.refuses = true })
	if got := w.do("GET", "/-/whoami", ""); got.status != 200 || !strings.Contains(got.body, `"problem":"There is no token for tenant contoso`) {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestOperationsListsWhatIsGrantedAndPermitted(t *testing.T) {
	w := newWorld(t, options{allow: []string{"read", "machines.isolate"}})
	w.do("GET", "/api/alerts", "") // so that there is a token to ask
	type row struct {
		ID, Method, Path, Class string
		Granted                 bool
		Permitted               *bool
		Needs                   []string
	}
	list := func(query string) map[string]row {
		var view struct{ Operations []row }
		got := w.do("GET", "/-/operations"+query, "")
		if err := json.Unmarshal([]byte(got.body), &view); err != nil {
			t.Fatalf("%s: %v in %s", query, err, got.body)
		}
		m := map[string]row{}
		for _, r := range view.Operations {
			m[r.ID] = r
		}
		return m
	}
	all := list("")
	if len(all) != 126 {
		t.Errorf("%d operations, want 126", len(all))
	}
	if r := all["machines.isolate"]; !r.Granted || r.Permitted == nil || !*r.Permitted || r.Path != "/api/machines/{id}/isolate" {
		t.Errorf("isolate is %+v", r)
	}
	if r := all["machines.offboard"]; r.Granted || r.Permitted == nil || *r.Permitted || r.Needs[0] != "Machine.Offboard" {
		t.Errorf("offboard is %+v", r)
	}
	if r := all["incidents.list"]; r.Permitted != nil {
		t.Errorf("a service without a token yet says permitted: %v", *r.Permitted)
	}
	if respond := list("?class=respond"); len(respond) != 11 {
		t.Errorf("%d operations of class respond, want 11", len(respond))
	}
	if granted := list("?granted=true&class=respond"); len(granted) != 1 {
		t.Errorf("%d granted operations of class respond, want 1", len(granted))
	}
	if got := w.do("GET", "/-/operations?class=nothing", ""); got.code() != "InvalidRequest" {
		t.Errorf("an unknown class gives %d %s", got.status, got.body)
	}
}

func TestExplainTellsTheDecisionAndItsReason(t *testing.T) {
	w := newWorld(t, options{allow: []string{"read", "machines.*"}, deny: []string{"machines.runliveresponse"}})
	for _, c := range []struct {
		name, query string
		allowed     bool
		code        string
		words       []string
	}{
		{"a read", "?path=/api/alerts", true, "", []string{`"operation":"alerts.list"`, `"rule":"read"`, `"holds":["Alert.Read.All"`, `"regions":["us","eu"]`, `"sent":"/api/alerts"`}},
		{"an action", "?method=POST&path=/api/machines/1/isolate", true, "", []string{`"rule":"machines.*"`}},
		{"a permission that is missing", "?method=POST&path=/api/machines/1/offboard", false, "MissingPermission", []string{`"granted":true`, `"permitted":false`, `"needs":["Machine.Offboard"]`}},
		{"what was denied", "?method=POST&path=/api/machines/1/runliveresponse", false, "NotGranted", []string{`"granted":false`, `"rule":"machines.runliveresponse"`}},
		{"what was not granted", "?method=POST&path=/api/indicators", false, "NotGranted", nil},
		{"a path of nobody", "?path=/api/nothing", false, "UnknownOperation", nil},
		{"a path of two readings", "?path=/api/..%252fx", false, "InvalidPath", nil},
		{"a wrong method", "?method=PUT&path=/api/alerts", false, "MethodNotAllowed", nil},
		{"a tenant of nobody", "?path=/t/nobody/api/alerts", false, "UnknownTenant", nil},
		{"a path that is repaired", "?path=//api/alerts/", true, "", []string{`"sent":"/api/alerts"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.do("GET", "/-/explain"+c.query, "")
			var e Explanation
			if err := json.Unmarshal([]byte(got.body), &e); err != nil || got.status != 200 {
				t.Fatalf("%d %s, %v", got.status, got.body, err)
			}
			if e.Allowed != c.allowed || string(e.Code) != c.code || e.Message == "" {
				t.Errorf("got %s", got.body)
			}
			for _, word := range c.words {
				if !strings.Contains(got.body, word) {
					t.Errorf("%s is not in %s", word, got.body)
				}
			}
		})
	}
	for _, r := range w.regions {
		if up := r.requests(); len(up) > 0 {
			t.Errorf("an explanation sent %+v", up)
		}
	}
}

func TestAnExplanationIsWhatHappens(t *testing.T) {
	w := newWorld(t, options{allow: []string{"read", "machines.isolate", "manage"}})
	for _, op := range w.proxy.Policy.Catalog.Operations() {
		path := strings.NewReplacer("{", "", "}", "").Replace(op.Path)
		got := w.do("GET", "/-/explain?method="+op.Method+"&path="+strings.ReplaceAll(path, "'", "%27"), "")
		var e Explanation
		if err := json.Unmarshal([]byte(got.body), &e); err != nil {
			t.Fatal(err)
		}
		real := w.do(op.Method, path, "")
		if real.code() != string(e.Code) || e.Allowed != (real.code() == "") {
			t.Errorf("%s: explained as %q %v, happens as %d %q", op.ID, e.Code, e.Allowed, real.status, real.code())
		}
	}
}

func TestUpstreamsOfTenantsAreApart(t *testing.T) {
	w := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}, deps: func(d *Deps) {
		d.Clients[0].From = []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.1/32"))}
	}})
	w.do("GET", "/t/contoso/api/alerts", "")
	w.do("GET", "/t/fabrikam/api/alerts", "")
	up := w.regions[0].requests()
	ids := map[string]tenant.ID{}
	for _, tn := range w.proxy.Tenants {
		b, ok := tn.Upstreams["mde"].Token.Current()
		if !ok {
			t.Fatalf("%s has no token", tn.Name)
		}
		ids[b.Authorization()] = b.Claims().Tenant
	}
	if ids[up[0].header.Get("Authorization")] != w.proxy.Tenants[0].ID || ids[up[1].header.Get("Authorization")] != w.proxy.Tenants[1].ID {
		t.Error("a tenant's request carried another tenant's token")
	}
}
