package proxy

import (
	"encoding/json"
	"net/url"
	"testing"
)

func TestExplainSaysOfALoginWhatBecomesOfIt(t *testing.T) {
	for _, c := range []struct {
		name, method, path string
		on, allowed        bool
		code               Code
	}{
		{"a login", "POST", "/any/oauth2/token", true, true, ""},
		{"a login behind a tenant that may not exist", "GET", "/t/nobody/oauth2/v2.0/token?a=b", true, true, ""},
		{"a login with another method", "DELETE", "/any/oauth2/token", true, false, UnknownOperation},
		{"a login that is switched off", "POST", "/any/oauth2/token", false, false, UnknownOperation},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{deps: func(d *Deps) { d.PlaceholderToken = c.on }})
			var got Explanation
			body := w.do("GET", "/-/explain?method="+c.method+"&path="+url.QueryEscape(c.path), "").body
			if err := json.Unmarshal([]byte(body), &got); err != nil || got.Allowed != c.allowed || got.Code != c.code || got.Message == "" {
				t.Errorf("%v: got %s, want allowed %v and code %q", err, body, c.allowed, c.code)
			}
		})
	}
}
