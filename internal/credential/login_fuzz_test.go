package credential

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// Only a GET of / under a name of the listener, with the state of the sign-in
// once, brings anything; and no page repeats what it was asked with.
func FuzzLanding(f *testing.F) {
	const state = "STATESTATESTATESTATESTATE1"
	f.Add("GET", "localhost:4711", "/?code=abc&state="+state)
	f.Add("GET", "127.0.0.1:4711", "/?error=access_denied&error_description=no&state="+state)
	f.Add("GET", "[::1]:4711", "/?code=abc&state="+state)
	f.Add("GET", "localhost:4711", "/?code=abc&state="+state+"&state=x")
	f.Add("GET", "localhost:4711", "/?code=abc;state="+state)
	f.Add("GET", "localhost:4711", "//?code=<b>&state=%53TATESTATESTATESTATESTATE1")
	f.Add("POST", "evil.example:4711", "/?code=abc&state="+state)
	f.Fuzz(func(t *testing.T, method, host, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		l := &landing{port: "4711", state: state, answer: make(chan arrival, 1)}
		w := httptest.NewRecorder()
		l.ServeHTTP(w, &http.Request{Method: method, Host: host, URL: u, Header: http.Header{}})
		text := w.Body.String()
		if !strings.HasPrefix(text, "<!doctype html>") || strings.Contains(text, state) || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("got page %q with %v", text, w.Header())
		}
		select {
		case got := <-l.answer:
			q, err := url.ParseQuery(u.RawQuery)
			right := err == nil && len(q["state"]) == 1 && q.Get("state") == state && u.Path == "/" && method == "GET" &&
				(host == "localhost:4711" || host == "127.0.0.1:4711" || host == "[::1]:4711")
			if !right || (got.code == "") == (got.denial == nil) || got.code != "" && got.code != q.Get("code") {
				t.Fatalf("%s %s of %s brought %+v", method, target, host, got)
			}
		default:
			if w.Code == http.StatusOK {
				t.Fatalf("the page tells of an answer, and there is none")
			}
		}
	})
}

// Whatever the token endpoint answers, a login comes of it only with a refresh
// token and a token of the tenant; and its errors are faults without a token.
func FuzzAnswer(f *testing.F) {
	good := httptest.NewRecorder()
	grantTokens(good, nil)
	f.Add(200, good.Body.String())
	f.Add(200, strings.Replace(good.Body.String(), "refresh_token", "id_token", 1))
	f.Add(200, `{"access_token":"eyJhbGciOiJub25lIn0.e30.","token_type":"Bearer","refresh_token":"x"}`)
	f.Add(400, `{"error":"invalid_grant","error_description":"AADSTS70000: eyJ is here\r\nTrace ID: x"}`)
	f.Add(200, "null")
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		s := &signIn{
			LoginOptions: LoginOptions{Tenant: storeTenant, ClientID: storeClient, Audience: loginAudience, Authority: "https://login.example", Now: time.Now},
			config:       oauth2.Config{ClientID: storeClient, Endpoint: oauth2.Endpoint{TokenURL: "https://login.example/token", AuthStyle: oauth2.AuthStyleInParams}},
		}
		wire := roundTripFunc(func(*http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.WriteString(body)
			return w.Result(), nil
		})
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: &loginWire{ctx: t.Context(), next: wire}})
		answer, err := s.config.Exchange(ctx, "code")
		if err != nil {
			err = s.explain(ctx, err)
		}
		var l Login
		if err == nil {
			l, err = s.judge(answer)
		}
		if err == nil {
			if l.RefreshToken == "" || !strings.Contains(body, "refresh_token") && !strings.Contains(strings.ToLower(body), "refresh_token") {
				t.Fatalf("got a login of %q", body)
			}
			return
		}
		if text := err.Error(); strings.Contains(text, "eyJhbGci") || strings.ContainsAny(text, "\r\n\x1b") || len(text) > 2<<10 {
			t.Fatalf("got the error %q", text)
		}
		if l != (Login{}) {
			t.Fatalf("got a login with the error %v", err)
		}
	})
}
