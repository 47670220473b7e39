package proxy

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"defender-proxy/internal/placeholder"
	"defender-proxy/policy"
)

// microsofts are names of Microsoft's that a listener answers for.
var microsofts = []string{"login.microsoftonline.com", "login.windows.net", "api.securitycenter.microsoft.com", "us.api.security.microsoft.com", "graph.microsoft.com"}

// A tool that knows only a name of Microsoft's trusts only that: what it is given
// stays on the name, whatever public_url says, and links do as well. Names alternate
// on one listener, so none may have the other's links.
func TestLinksStayOnTheNameOfMicrosoftsThatWasCalled(t *testing.T) {
	t.Parallel()
	for _, public := range []string{"", "https://front.example/mde"} {
		w := newWorld(t, loggingIn(options{tenants: []string{"contoso", "fabrikam"}, listener: Listener{Hosts: append([]string{"own.example"}, microsofts...), PublicURL: public, Tenant: "contoso"}}))
		for _, r := range w.regions {
			r.answer(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(rw, `{"@odata.nextLink":"https://api.security.microsoft.com/api/alerts?$skip=1"}`)
			})
		}
		own := "http://own.example"
		if public != "" {
			own = public
		}
		for range 2 {
			for host, base := range map[string]string{
				"own.example":                           own,
				"api.securitycenter.microsoft.com":      "http://api.securitycenter.microsoft.com",
				"us.api.security.microsoft.com:8443":    "http://us.api.security.microsoft.com:8443",
				"GRAPH.microsoft.com":                   "http://GRAPH.microsoft.com",
				"127.0.0.1":                             map[bool]string{true: "http://127.0.0.1", false: public}[public == ""],
				w.server.Listener.Addr().String():       map[bool]string{true: w.server.URL, false: public}[public == ""],
				"api.securitycenter.microsoft.com:8080": "http://api.securitycenter.microsoft.com:8080",
			} {
				for prefix, tenant := range map[string]string{"": "", "/t/fabrikam": "/t/fabrikam"} {
					got := w.do("GET", prefix+"/api/alerts", "", "Host", host)
					if want := `{"@odata.nextLink":"` + base + tenant + `/api/alerts?$skip=1"}`; got.body != want {
						t.Errorf("public URL %q, Host %s: got %s, want %s", public, host, got.body, want)
					}
					var doc struct {
						Issuer string
						Token  string `json:"token_endpoint"`
					}
					got = w.do("GET", prefix+"/x/v2.0/.well-known/openid-configuration", "", "Host", host)
					if err := json.Unmarshal([]byte(got.body), &doc); err != nil || doc.Issuer != base+tenant+"/x/v2.0" || doc.Token != base+tenant+"/x/oauth2/v2.0/token" {
						t.Errorf("public URL %q, Host %s: got %+v, %v, want them under %s", public, host, doc, err, base+tenant)
					}
				}
			}
		}
	}
}

// Names for logging in are for nothing else; names of the API answer all.
func TestNamesForLoggingInAnswerNothingElse(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{true, false} {
		w := newWorld(t, options{listener: Listener{Hosts: microsofts}, deps: func(d *Deps) { d.PlaceholderToken = with }})
		token := 200
		if !with {
			token = 404
		}
		for range 2 {
			for _, c := range []struct {
				host, path string
				status     int
				says       string
			}{
				{"login.microsoftonline.com", "/contoso/oauth2/v2.0/token", token, ""},
				{"login.microsoftonline.com", "/t/contoso/oauth2/v2.0/token", token, ""},
				{"LOGIN.windows.net:443", "/contoso/oauth2/token", token, ""},
				{"login.microsoftonline.com", "/common/discovery/instance", token, ""},
				{"login.microsoftonline.com", "/api/alerts", 404, "a name of Microsoft's for logging in"},
				{"Login.microsoftonline.com:8443", "/api/alerts", 404, "a name of Microsoft's for logging in"},
				{"login.windows.net", "/", 404, "/TENANT/oauth2/v2.0/token"},
				{"login.windows.net", "/-/whoami", 404, "api.securitycenter.microsoft.com"},
				{"login.windows.net", "/t/contoso/api/alerts", 404, "for logging in"},
				{"login.microsoftonline.com", "/common/oauth2/v2.0/authorize", 404, "with a browser"},
				{"api.securitycenter.microsoft.com", "/api/alerts", 200, ""},
				{"us.api.security.microsoft.com", "/-/whoami", 200, ""},
				{"graph.microsoft.com", "/contoso/oauth2/token", token, ""},
				{"127.0.0.1", "/api/alerts", 200, ""},
			} {
				got := w.do("GET", c.path, "", "Host", c.host)
				if got.status != c.status || !strings.Contains(got.message(), c.says) || c.status == 404 && got.code() != "UnknownOperation" {
					t.Errorf("%s%s: %d %s\nwant %d with %q", c.host, c.path, got.status, got.body, c.status, c.says)
				}
			}
		}
		for _, r := range w.regions {
			for _, a := range r.requests() {
				if a.target != "/api/alerts" {
					t.Errorf("%s arrived at a region", a.target)
				}
			}
		}
	}
}

func TestALoginOverHTTP2(t *testing.T) {
	t.Parallel()
	w := newWorld(t, loggingIn(options{tls: true, listener: Listener{TLS: true}}))
	client := w.server.Client()
	for _, body := range []io.Reader{strings.NewReader("client_secret=x"), strings.NewReader(strings.Repeat("x", 1<<20)), io.MultiReader(strings.NewReader("of no length"))} {
		resp, err := client.Post(w.server.URL+"/contoso/oauth2/v2.0/token", "application/x-www-form-urlencoded", body)
		if err != nil {
			t.Fatal(err)
		}
		if got := readReply(t, resp); resp.ProtoMajor != 2 || got.status != 200 || got.err != nil {
			t.Errorf("%s: %d %s %v", resp.Proto, got.status, got.body, got.err)
		}
	}
	resp, err := client.Get(w.server.URL + "/contoso/v2.0/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	if got := readReply(t, resp); !strings.Contains(got.body, `"issuer":"`+w.server.URL+`/contoso/v2.0"`) {
		t.Errorf("the issuer is not under %s: %s", w.server.URL, got.body)
	}
}

// The pages tell of the placeholder where there is one.
func TestPagesTellOfThePlaceholder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		with          bool
		help, explain string
	}{
		{true, "/oauth2/token, any id, any secret", "the proxy answers it with a placeholder token"},
		{false, "", "switched off"},
	} {
		w := newWorld(t, options{deps: func(d *Deps) { d.PlaceholderToken = c.with }})
		for _, accept := range []string{"*/*", "text/html"} {
			body := strings.NewReplacer("<code>", "", "</code>", "").Replace(w.do("GET", "/", "", "Accept", accept).body)
			if has := strings.Contains(body, "/oauth2/token"); has != c.with || !strings.Contains(body, c.help) {
				t.Errorf("with %v, the help page as %s: %s", c.with, accept, body)
			}
		}
		if got := w.do("GET", "/-/explain?method=POST&path=/contoso/oauth2/token", "").body; !strings.Contains(got, c.explain) {
			t.Errorf("with %v, explain says %s, want %q", c.with, got, c.explain)
		}
	}
}

// No operation of the catalog is where tools log in: none is hidden by it.
func TestNoOperationIsALogin(t *testing.T) {
	catalog, err := policy.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range catalog.Operations() {
		if _, _, ok := placeholder.Find(op.Path); ok {
			t.Errorf("%s %s (%s) is answered with a placeholder", op.Method, op.Path, op.ID)
		}
	}
}
