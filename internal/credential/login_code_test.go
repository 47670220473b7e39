package credential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/token"
)

// visit gets a page and gives its status, headers and text.
func visit(t *testing.T, browser *http.Client, method, address, host string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, address, nil)
	if err != nil {
		t.Error(err)
		return 0, nil, ""
	}
	r.Host = host
	resp, err := browser.Do(r)
	if err != nil {
		t.Error(err)
		return 0, nil, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// follow opens the page of a prompt, and the address that it redirects to.
func follow(t *testing.T, browser *http.Client, p LoginPrompt) (int, http.Header, string) {
	t.Helper()
	return visit(t, browser, http.MethodGet, redirected(t, browser, p), "")
}

// redirected is where the page of a prompt leads.
func redirected(t *testing.T, browser *http.Client, p LoginPrompt) string {
	t.Helper()
	status, header, text := visit(t, browser, http.MethodGet, p.URL, "")
	if status != http.StatusFound {
		t.Errorf("the sign-in page answered %d %s", status, text)
	}
	return header.Get("Location")
}

// signInBy signs in while person acts in a browser.
func signInBy(t *testing.T, f *fakeLogin, change func(*LoginOptions), person func(*http.Client, LoginPrompt)) (Login, error) {
	t.Helper()
	o, browser := overTLS(t, f, FlowAuthorizationCode)
	var acting sync.WaitGroup
	defer acting.Wait()
	o.Show = func(p LoginPrompt) { acting.Go(func() { person(browser, p) }) }
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return SignIn(ctx, o)
}

func TestAuthorizationCode(t *testing.T) {
	var prompt LoginPrompt
	l, err := signInBy(t, &fakeLogin{}, func(o *LoginOptions) { o.Username = "ana@contoso.example" }, func(b *http.Client, p LoginPrompt) {
		prompt = p
		status, header, text := follow(t, b, p)
		if status != http.StatusOK || !strings.Contains(text, "answer has arrived") {
			t.Errorf("the browser got %d %s", status, text)
		}
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
			"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("got %s %q, want %q", name, got, want)
			}
		}
		hidden(t, "the page", text)
	})
	noError(t, err)
	if l.RefreshToken != fakeRefresh || l.Username != "ana@contoso.example" {
		t.Errorf("got token %q of %v, want Ana's", l.RefreshToken, l)
	}
	u, err := url.Parse(prompt.URL)
	noError(t, err)
	if got := u.Query().Get("login_hint"); got != "ana@contoso.example" || prompt.Code != "" || prompt.Expires.IsZero() {
		t.Errorf("got hint %q, code %q, expiry %v", got, prompt.Code, prompt.Expires)
	}
	redirect, err := url.Parse(u.Query().Get("redirect_uri"))
	noError(t, err)
	if c, err := net.Dial("tcp4", "127.0.0.1:"+redirect.Port()); err == nil {
		c.Close()
		t.Error("the listener is still there")
	}
}

func TestAuthorizationCodeOfAConfidentialClient(t *testing.T) {
	proof := func(secret string) token.Proof {
		return token.Proof{Name: secret, Secrets: []string{secret}, Form: url.Values{"client_secret": {secret}, "grant_type": {"client_credentials"}}}
	}
	person := func(b *http.Client, p LoginPrompt) { follow(t, b, p) }
	t.Run("the next secret is tried", func(t *testing.T) {
		rejected := 0
		first := proof("canary-one")
		first.Rejected = func(code int) { rejected = code }
		l, err := signInBy(t, &fakeLogin{secrets: []string{"canary-two"}}, func(o *LoginOptions) {
			o.Client = &fakeClient{proofs: []token.Proof{first, proof("canary-two")}}
		}, person)
		noError(t, err)
		if l.RefreshToken != fakeRefresh || rejected != 7000215 {
			t.Errorf("got %q, rejected with %d", l.RefreshToken, rejected)
		}
	})
	t.Run("no secret is right", func(t *testing.T) {
		_, err := signInBy(t, &fakeLogin{secrets: []string{"three"}}, func(o *LoginOptions) {
			o.Client = &fakeClient{proofs: []token.Proof{proof("canary-one"), proof("canary-two")}}
		}, person)
		f, ok := errors.AsType[*token.Fault](err)
		if !ok || f.Kind != token.Rejected || !strings.Contains(f.Error(), "AADSTS7000215") || !strings.Contains(f.Remedy, "own credential") {
			t.Errorf("got %v, want the rejected secret", err)
		}
		hidden(t, "the error", fmt.Sprint(err))
	})
	t.Run("a secret that cannot be read is told before anybody signs in", func(t *testing.T) {
		o, _ := overTLS(t, &fakeLogin{}, FlowAuthorizationCode)
		o.Show = func(LoginPrompt) { t.Error("somebody was asked to sign in") }
		o.Client = &fakeClient{err: storeFault("The secret is gone.", "Bring it back.")}
		_, err := SignIn(t.Context(), o)
		wantFault(t, err, "The secret is gone.")
	})
}

func TestAuthorizationCodeLetsNobodyElseAnswer(t *testing.T) {
	l, err := signInBy(t, &fakeLogin{}, nil, func(b *http.Client, p LoginPrompt) {
		right := redirected(t, b, p)
		u, err := url.Parse(right)
		if err != nil {
			t.Error(err)
			return
		}
		state, home := u.Query().Get("state"), "http://"+u.Host+"/"
		with := func(query string) string { return home + "?" + query }
		for _, test := range []struct {
			name, method, address, host string
			want                        int
		}{
			{"another state", "GET", with("code=x&state=" + strings.Repeat("x", len(state))), "", 400},
			{"no state", "GET", with("code=x"), "", 400},
			{"an error without a state", "GET", with("error=access_denied"), "", 400},
			{"two states", "GET", with("code=x&state=" + state + "&state=" + state), "", 400},
			{"two codes", "GET", with("code=x&code=y&state=" + state), "", 400},
			{"a query that cannot be read", "GET", with("code=%zz&state=" + state), "", 400},
			{"another path", "GET", home + "callback?code=x&state=" + state, "", 404},
			{"no query", "GET", home, "", 404},
			{"a form", "POST", with("code=x&state=" + state), "", 405},
			{"a question for the headers", "HEAD", with("code=x&state=" + state), "", 405},
			{"a rebound name", "GET", with("code=x&state=" + state), "evil.example:" + u.Port(), 421},
			{"another port", "GET", with("code=x&state=" + state), "localhost:1", 421},
			{"no port", "GET", with("code=x&state=" + state), "localhost", 421},
			{"markup", "GET", with("code=<script>alert(1)</script>&state=<script>"), "", 400},
		} {
			status, _, text := visit(t, b, test.method, test.address, test.host)
			if status != test.want {
				t.Errorf("%s: got %d, want %d", test.name, status, test.want)
			}
			if strings.Contains(text, "script") || strings.Contains(text, state) {
				t.Errorf("%s: the page repeats the query: %s", test.name, text)
			}
		}
		if status, _, text := visit(t, b, "GET", right, "127.0.0.1:"+u.Port()); status != http.StatusOK {
			t.Errorf("the right answer: got %d %s", status, text)
		}
	})
	noError(t, err)
	if l.RefreshToken != fakeRefresh {
		t.Errorf("got %q", l.RefreshToken)
	}
}

func TestAuthorizationCodeTakesOneAnswer(t *testing.T) {
	answered := make(chan struct{})
	f := &fakeLogin{}
	f.answers = []func(http.ResponseWriter, url.Values){func(w http.ResponseWriter, form url.Values) {
		<-answered // the listener is there until the code is redeemed
		if form.Get("code") != fakeCode {
			t.Errorf("got code %q", form.Get("code"))
		}
		grantTokens(w, nil)
	}}
	_, err := signInBy(t, f, nil, func(b *http.Client, p LoginPrompt) {
		defer close(answered)
		right := redirected(t, b, p)
		if status, _, _ := visit(t, b, "GET", right, ""); status != http.StatusOK {
			t.Errorf("the first: got %d, want 200", status)
		}
		for _, again := range []string{right, strings.Replace(right, url.QueryEscape(fakeCode), "another", 1), right + "&error=access_denied"} {
			if status, _, text := visit(t, b, "GET", again, ""); status != http.StatusGone {
				t.Errorf("another one: got %d %s, want 410", status, text)
			}
		}
	})
	noError(t, err)
	if len(f.forms) != 1 {
		t.Errorf("the code was redeemed %d times, want once", len(f.forms))
	}
}

func TestAuthorizationCodeThatComesToNothing(t *testing.T) {
	back := func(query url.Values) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			query.Set("state", r.URL.Query().Get("state"))
			redirectWith(w, r, query)
		}
	}
	answer := func(a func(http.ResponseWriter, url.Values)) *fakeLogin {
		return &fakeLogin{answers: []func(http.ResponseWriter, url.Values){a}}
	}
	grant := func(change func(answer, access map[string]any)) *fakeLogin {
		return answer(func(w http.ResponseWriter, _ url.Values) { grantTokens(w, change) })
	}
	for _, test := range []struct {
		name string
		f    *fakeLogin
		kind token.Kind
		want string
	}{
		{"the person cancels", &fakeLogin{authorize: back(url.Values{"error": {"access_denied"}, "error_description": {"the user canceled the authentication"}})}, token.Rejected, "the user canceled the authentication"},
		{"consent is missing", &fakeLogin{authorize: back(url.Values{"error": {"consent_required"}, "error_description": {"AADSTS65001: The user or administrator has not consented.\r\nTrace ID: x"}})}, token.Rejected, "/adminconsent?client_id=" + storeClient},
		{"Entra ID is away", &fakeLogin{authorize: back(url.Values{"error": {"temporarily_unavailable"}})}, token.Unavailable, "Wait a little"},
		{"an answer without code and error", &fakeLogin{authorize: back(url.Values{})}, token.Rejected, "without a reason"},
		{"markup for an error", &fakeLogin{authorize: back(url.Values{"error": {"<script>\x1b[2J"}})}, token.Rejected, `"<script>\x1b[2J"`},
		{"the code was redeemed already", &fakeLogin{redeemed: true}, token.Rejected, "AADSTS54005: OAuth2 Authorization code was already redeemed."},
		{"there is no refresh token", grant(func(answer, _ map[string]any) { delete(answer, "refresh_token") }), token.BadAnswer, "no refresh token"},
		{"the token is of another tenant", grant(func(_, access map[string]any) { access["tid"] = "33333333-3333-3333-3333-333333333333" }), token.BadAnswer, `for tenant "33333333-3333-3333-3333-333333333333"`},
		{"the token names no tenant", grant(func(_, access map[string]any) { delete(access, "tid") }), token.BadAnswer, `for tenant ""`},
		{"the token is for another audience", grant(func(_, access map[string]any) { access["aud"] = "https://graph.microsoft.com" }), token.BadAnswer, `for audience "https://graph.microsoft.com"`},
		{"the token is for two audiences", grant(func(_, access map[string]any) { access["aud"] = []string{loginAudience, "https://graph.microsoft.com"} }), token.BadAnswer, "for audience"},
		{"the token is of another application", grant(func(_, access map[string]any) { access["appid"] = storeTenant }), token.BadAnswer, `for application "` + storeTenant + `"`},
		{"the token of version 2.0 is of another application", grant(func(_, access map[string]any) { access["azp"] = storeTenant }), token.BadAnswer, `for application "` + storeTenant + `"`},
		{"a user without a name signs in", grant(func(_, access map[string]any) { delete(access, "upn") }), token.Rejected, `A user whose name Entra ID does not tell has signed in, and the configuration wants "ana@contoso.example"`},
		{"another user signs in", grant(func(_, access map[string]any) { access["upn"] = "bob@contoso.example" }), token.Rejected, `"bob@contoso.example" has signed in`},
		{"the token is none", grant(func(answer, _ map[string]any) { answer["access_token"] = "canary" }), token.BadAnswer, "not with a token that can be read"},
		{"the token is no bearer", grant(func(answer, _ map[string]any) { answer["token_type"] = "pop" }), token.BadAnswer, "not with a token that can be read"},
		{"the answer is a page", answer(func(w http.ResponseWriter, _ url.Values) { fmt.Fprint(w, "<html>") }), token.BadAnswer, "is not Entra ID"},
		{"the answer is of another type", answer(func(w http.ResponseWriter, _ url.Values) { fmt.Fprint(w, `{"access_token":7}`) }), token.BadAnswer, "cannot be used"},
		{"the answer is a bare 502", answer(func(w http.ResponseWriter, _ url.Values) { w.WriteHeader(502) }), token.Unavailable, "answered 502"},
		{"the answer leads elsewhere", answer(func(w http.ResponseWriter, _ url.Values) {
			w.Header().Set("Location", "https://evil.example/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}), token.Rejected, "answered 307"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := signInBy(t, test.f, func(o *LoginOptions) { o.Username = "ana@contoso.example" }, func(b *http.Client, p LoginPrompt) {
				if _, _, text := follow(t, b, p); strings.Contains(text, "script") {
					t.Errorf("the page repeats the query: %s", text)
				}
			})
			f, ok := errors.AsType[*token.Fault](err)
			if !ok || f.Kind != test.kind || !strings.Contains(f.Error(), test.want) || f.Remedy == "" {
				t.Errorf("got %T %v, want a fault of kind %v with %q", err, err, test.kind, test.want)
			}
			if l != (Login{}) {
				t.Error("got a login with the error")
			}
			if text := fmt.Sprint(err); strings.Contains(text, "Trace ID") || strings.ContainsAny(text, "\r\n\x1b") {
				t.Errorf("got %q, want one clean line", text)
			}
			hidden(t, "the error", fmt.Sprint(err))
		})
	}
}

// The case of a name and of an id, and one slash, make no difference.
func TestAuthorizationCodeOfTheSameUserInOtherLetters(t *testing.T) {
	f := &fakeLogin{answers: []func(http.ResponseWriter, url.Values){func(w http.ResponseWriter, _ url.Values) {
		grantTokens(w, func(_, access map[string]any) {
			access["upn"], access["aud"], access["appid"] = "Ana@Contoso.example", loginAudience+"/", strings.ToUpper(storeClient)
		})
	}}}
	l, err := signInBy(t, f, func(o *LoginOptions) { o.Username = "ana@contoso.example" }, func(b *http.Client, p LoginPrompt) { follow(t, b, p) })
	noError(t, err)
	if l.Username != "Ana@Contoso.example" {
		t.Errorf("got %q, want the name as Entra ID has it", l.Username)
	}
}

func TestAuthorizationCodeWithoutAnAnswerEnds(t *testing.T) {
	t.Run("when the time is over", func(t *testing.T) {
		o, _ := overTLS(t, &fakeLogin{}, FlowAuthorizationCode)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := SignIn(ctx, o)
		wantFault(t, err, "Nobody signed in in time.")
	})
	t.Run("when only an answer to another sign-in came", func(t *testing.T) {
		o, browser := overTLS(t, &fakeLogin{}, FlowAuthorizationCode)
		o.Show = func(p LoginPrompt) {
			u, _ := url.Parse(p.URL)
			visit(t, browser, "GET", u.Query().Get("redirect_uri")+"/?code=x&state=y", "")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := SignIn(ctx, o)
		wantFault(t, err, "belonged to another sign-in")
	})
	t.Run("when it is interrupted", func(t *testing.T) {
		o, _ := overTLS(t, &fakeLogin{}, FlowAuthorizationCode)
		ctx, cancel := context.WithCancel(t.Context())
		o.Show = func(LoginPrompt) { cancel() }
		_, err := SignIn(ctx, o)
		if f, ok := errors.AsType[*token.Fault](err); !ok || f.Kind != token.Stopped {
			t.Errorf("got %v, want an interrupted sign-in", err)
		}
	})
}

func TestSignInOptionsThatDoNotFitAreRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*LoginOptions)
		want   string
	}{
		{"a flow without a person", func(o *LoginOptions) { o.Flow = FlowPassword }, `flow is "password"`},
		{"an authority in the clear", func(o *LoginOptions) { o.Authority = "http://login.example" }, "in the clear"},
		{"an authority with a password", func(o *LoginOptions) { o.Authority = "https://a:canary@login.example" }, "base URL"},
		{"an authority that is none", func(o *LoginOptions) { o.Authority = "login.example" }, "base URL"},
		{"no tenant", func(o *LoginOptions) { o.Tenant = "" }, "missing"},
		{"no transport", func(o *LoginOptions) { o.Transport = nil }, "no transport"},
		{"nobody to show the page to", func(o *LoginOptions) { o.Show = nil }, "nobody to show"},
		{"an identity that gets its own tokens", func(o *LoginOptions) { o.Client = &fakeIssuer{} }, "managed identity"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, _ := overTLS(t, &fakeLogin{}, FlowDeviceCode)
			test.change(&o)
			_, err := SignIn(t.Context(), o)
			wantFault(t, err, test.want)
			hidden(t, "the error", fmt.Sprint(err))
		})
	}
}

func TestSignInWithoutANetwork(t *testing.T) {
	o, _ := overTLS(t, &fakeLogin{}, FlowDeviceCode)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	o.Authority = "https://" + listener.Addr().String()
	listener.Close()
	_, err = SignIn(t.Context(), o)
	if f, ok := errors.AsType[*token.Fault](err); !ok || f.Kind != token.Unreachable || !strings.Contains(f.Error(), o.Authority) {
		t.Errorf("got %v, want an unreachable authority", err)
	}
}
