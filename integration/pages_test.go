package integration

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Somebody who was given nothing but a URL asks the proxy itself: what it is, who
// they are to it, what they may do, and why something was refused. All of it
// agrees with what happens when they try.
func TestAStrangerFindsOutWhatTheyMayDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	text := w.get("/", "User-Agent", "curl/8.0", "Accept", "*/*")
	if text.status != http.StatusOK || !strings.HasPrefix(text.header.Get("Content-Type"), "text/plain") || !strings.Contains(string(text.body), w.url+"/api/alerts") {
		t.Errorf("help for curl: %v", text)
	}
	html := w.get("/", "Accept", "text/html,application/xhtml+xml;q=0.9")
	if html.status != http.StatusOK || !strings.HasPrefix(html.header.Get("Content-Type"), "text/html") || html.header.Get("Content-Security-Policy") == "" {
		t.Errorf("help for a browser: %v", html)
	}

	var who struct {
		Client, Address string
		Tenant          struct {
			Name, ID string
			Tokens   []struct {
				Service, Audience, Tid, UTI string
				Roles                       []string
				ExpiresIn                   int `json:"expires_in"`
			}
		}
	}
	a := w.get("/-/whoami")
	if err := json.Unmarshal(a.body, &who); err != nil || who.Client != "local" || who.Address != "127.0.0.1" || who.Tenant.Name != "contoso" || len(who.Tenant.Tokens) != 3 {
		t.Fatalf("whoami: %v", a)
	}
	for _, token := range who.Tenant.Tokens {
		if token.Tid != who.Tenant.ID || len(token.Roles) == 0 || token.UTI == "" || token.ExpiresIn < 3000 {
			t.Errorf("whoami of %s: %+v", token.Service, token)
		}
	}

	var list struct {
		Operations []struct {
			ID        string
			Granted   bool
			Permitted *bool
		}
	}
	a = w.get("/-/operations")
	if err := json.Unmarshal(a.body, &list); err != nil || len(list.Operations) < 117 {
		t.Fatalf("operations: %d of them, %v", len(list.Operations), err)
	}
	for _, o := range list.Operations {
		permitted := o.Permitted != nil && *o.Permitted
		switch o.ID {
		case "alerts.list":
			if !o.Granted || !permitted {
				t.Errorf("%+v", o)
			}
		case "machines.isolate", "indicators.list":
			if o.Granted != (o.ID == "indicators.list") || permitted {
				t.Errorf("%+v", o)
			}
		}
	}

	for _, tc := range []struct{ method, path string }{
		{"GET", "/api/alerts?$top=1"}, {"POST", "/api/machines/1/isolate"}, {"GET", "/api/indicators"}, {"GET", "/api/secrets"},
		{"DELETE", "/api/alerts"}, {"GET", "/t/fabrikam/api/alerts"}, {"GET", "/api/alerts/%2e%2e"},
	} {
		done := w.do(tc.method, tc.path, "")
		var why struct {
			Allowed bool
			Code    string
			Status  int
			Message string
		}
		a := w.get("/-/explain?method=" + tc.method + "&path=" + url.QueryEscape(tc.path))
		if err := json.Unmarshal(a.body, &why); err != nil || a.status != http.StatusOK {
			t.Fatalf("explain %s %s: %v", tc.method, tc.path, a)
		}
		code, _ := done.refused()
		if why.Allowed != (done.status == http.StatusOK) || why.Code != code || why.Message == "" || code != "" && why.Status != done.status {
			t.Errorf("%s %s is explained as %+v, and done it is %v", tc.method, tc.path, why, done)
		}
	}
	if n := len(w.upstream()); n != 1 {
		t.Errorf("%d requests arrived, want the one that is allowed", n)
	}
}
