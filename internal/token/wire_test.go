package token

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// overTLS gives a Source whose Entra ID is a real server over TLS, and what the
// server was sent.
func overTLS(t *testing.T, change func(*Account), handler http.HandlerFunc) (*Source, func() []url.Values) {
	t.Helper()
	var mu sync.Mutex
	var forms []url.Values
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, err := url.ParseQuery(string(body))
		if err != nil {
			t.Errorf("Entra was sent %q: %v", body, err)
		}
		form.Set(":", r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("Authorization"))
		mu.Lock()
		forms = append(forms, form)
		mu.Unlock()
		handler(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	transport := srv.Client().Transport.(*http.Transport)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		transport.CloseIdleConnections()
		srv.Close()
	})
	a := contoso()
	a.Authority = srv.URL
	if change != nil {
		change(&a)
	}
	e := running(t, Options{Transport: transport, Log: quiet, FetchTimeout: 2 * time.Second})
	return e.Source(a, mde), func() []url.Values {
		mu.Lock()
		defer mu.Unlock()
		return forms
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func TestTheFormIsThatOfTheEndpoint(t *testing.T) {
	for _, c := range []struct {
		name     string
		version  Version
		audience string
		path     string
		param    string
		value    string
	}{
		{"v1 names the audience as the resource", V1, mde, "/oauth2/token", "resource", mde},
		{"v2 names it as a scope", V2, mde, "/oauth2/v2.0/token", "scope", mde + "/.default"},
		{"v2 is the default", "", mde, "/oauth2/v2.0/token", "scope", mde + "/.default"},
		{"v2 keeps a trailing slash", V2, mde + "/", "/oauth2/v2.0/token", "scope", mde + "//.default"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, sent := overTLS(t, func(a *Account) { a.Version = c.version; a.Authority += "/" }, func(w http.ResponseWriter, _ *http.Request) {
				writeJSON(w, 200, granted(contoso(), c.audience, time.Hour))
			})
			s.audience = c.audience
			b := mustBearer(t, s)
			if got := b.Authorization(); !strings.HasPrefix(got, "Bearer eyJ") {
				t.Error("Authorization is no bearer token")
			}
			want := url.Values{
				"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {canary}, c.param: {c.value},
				":": {"POST /" + contosoID + c.path + " application/x-www-form-urlencoded "},
			}
			if got := sent(); len(got) != 1 || got[0].Encode() != want.Encode() {
				t.Errorf("Entra was sent\n%v, want once\n%v", got, want)
			}
		})
	}
}

func TestAnswersThatAreNoToken(t *testing.T) {
	good := func() map[string]any { return granted(contoso(), mde, time.Hour) }
	with := func(k string, v any) func() (int, any) {
		return func() (int, any) {
			a := good()
			if v == nil {
				delete(a, k)
			} else {
				a[k] = v
			}
			return 200, a
		}
	}
	claim := func(k string, v any) func() (int, any) {
		return func() (int, any) {
			c := claimsFor(contoso(), mde, time.Hour)
			if v == nil {
				delete(c, k)
			} else {
				c[k] = v
			}
			a := good()
			a["access_token"] = signed(c)
			return 200, a
		}
	}
	raw := func(status int, body string) func() (int, any) { return func() (int, any) { return status, body } }
	old := time.Now().Add(-3 * time.Hour).Unix()

	for _, c := range []struct {
		name   string
		answer func() (int, any) // a string is sent as HTML
		want   string            // in the sentence
	}{
		{"200 with HTML", raw(200, "<html>Sign in</html>"), "not a token answer"},
		{"200 with nothing", raw(200, ""), "not a token answer"},
		{"404 with HTML", raw(404, "<html>not here</html>"), "answered 404"},
		{"200 with a JSON null", func() (int, any) { return 200, nil }, "not a token answer"},
		{"200 with an empty object", func() (int, any) { return 200, map[string]any{} }, "not a token answer"},
		{"no access_token", with("access_token", nil), "not a token answer"},
		{"an empty access_token", with("access_token", ""), "not a token answer"},
		{"an access_token that is no JWT", with("access_token", "opaque"), "not a JWT"},
		{"an access_token with a line end in it", with("access_token", signed(claimsFor(contoso(), mde, time.Hour))+"\r\n"), "characters"},
		{"no token_type", with("token_type", nil), "token_type"},
		{"another token_type", with("token_type", "pop"), "token_type"},
		{"no expires_in", with("expires_in", nil), "no expires_in"},
		{"expires_in 0", with("expires_in", 0), "not above zero"},
		{"expires_in 0 as a string", with("expires_in", "0"), "not above zero"},
		{"a negative expires_in", with("expires_in", -1), "not above zero"},
		{"an expires_in that is no number", with("expires_in", "soon"), "not a token answer"},
		{"no exp", claim("exp", nil), "no exp"},
		{"exp 0", claim("exp", 0), "not a date"},
		{"an exp beyond every calendar", claim("exp", 1e300), "not a date"},
		{"an exp that is a word", claim("exp", "tomorrow"), "not a JWT that can be read"},
		{"an exp before iat", claim("iat", time.Now().Add(2*time.Hour).Unix()), "expired already"},
		{"a token of three hours ago with a fresh expires_in", func() (int, any) {
			_, a := claim("exp", old)()
			return 200, a
		}, "expired already"},
		{"no tid", claim("tid", nil), "tid"},
		{"the tid of another tenant", claim("tid", fabrikamID), "for tenant " + fabrikamID},
		{"the issuer of another tenant", claim("iss", "https://sts.windows.net/"+fabrikamID+"/"), "is not that of its tenant"},
		{"an issuer without a tenant", claim("iss", "https://login.example.com/"), "is not that of its tenant"},
		{"no aud", claim("aud", nil), "no aud"},
		{"another aud", claim("aud", "https://graph.microsoft.com"), `for audience "https://graph.microsoft.com"`},
		{"an aud that only begins alike", claim("aud", mde+".evil.example"), "for audience"},
		{"an aud with two slashes at the end", claim("aud", mde+"//"), "for audience"},
		{"several audiences, one of them ours", claim("aud", []string{mde, "https://graph.microsoft.com"}), "for audience"},
		{"the token of another application", claim("appid", "44444444-4444-4444-4444-444444444444"), "for application"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := overTLS(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				status, body := c.answer()
				if html, ok := body.(string); ok {
					w.Header().Set("Content-Type", "text/html")
					w.WriteHeader(status)
					_, _ = io.WriteString(w, html)
					return
				}
				writeJSON(w, status, body)
			})
			err := mustFail(t, s, BadAnswer)
			if !strings.Contains(err.Sentence, c.want) {
				t.Errorf("got %q, want %q in it", err.Sentence, c.want)
			}
			if _, ok := s.Current(); ok {
				t.Error("the token is handed out all the same")
			}
		})
	}
}

func TestAnswersThatAreATokenInAnUnusualForm(t *testing.T) {
	for name, change := range map[string]func(a, c map[string]any){
		"expires_in as a string, as v1 sends it":    func(a, _ map[string]any) { a["expires_in"] = "3599" },
		"token_type in lower case":                  func(a, _ map[string]any) { a["token_type"] = "bearer" },
		"aud with a trailing slash that none asked": func(_, c map[string]any) { c["aud"] = mde + "/" },
		"aud as a list of one":                      func(_, c map[string]any) { c["aud"] = []string{mde} },
		"azp in place of appid, as in version 2.0":  func(_, c map[string]any) { delete(c, "appid"); c["azp"] = clientID },
		"tid in capitals":                           func(_, c map[string]any) { c["tid"] = strings.ToUpper(contosoID) },
		"the issuer of version 2.0":                 func(_, c map[string]any) { c["iss"] = "https://login.example.com/" + contosoID + "/v2.0" },
		"no iat":                                    func(_, c map[string]any) { delete(c, "iat") },
		"iat five minutes ago, as Entra back-dates": func(_, c map[string]any) { c["iat"] = time.Now().Add(-5 * time.Minute).Unix() },
		"an expires_in of a year, which is cut short": func(a, c map[string]any) {
			a["expires_in"] = 366 * 86400
			c["exp"] = time.Now().Add(9000 * time.Hour).Unix()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := overTLS(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				a, c := granted(contoso(), mde, time.Hour), claimsFor(contoso(), mde, time.Hour)
				change(a, c)
				a["access_token"] = signed(c)
				writeJSON(w, 200, a)
			})
			b := mustBearer(t, s)
			if b.Claims().Tenant != contosoID || b.Claims().AppID != clientID {
				t.Errorf("claims %+v", b.Claims())
			}
			if left := time.Until(b.Expires()); left > longestLife || left < 59*time.Minute {
				t.Errorf("the token lives %v", left)
			}
		})
	}
}

func TestLifeIsTheShortestThatTheAnswerStates(t *testing.T) {
	for name, c := range map[string]struct {
		expiresIn int
		iat, exp  time.Duration // from now
		want      time.Duration
	}{
		"expires_in":        {1000, -300 * time.Second, 3600 * time.Second, 1000 * time.Second},
		"exp less iat":      {3599, 0, 600 * time.Second, 600 * time.Second},
		"exp less the date": {3599, -3000 * time.Second, 600 * time.Second, 600 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
					claims := claimsFor(contoso(), mde, 0)
					claims["iat"], claims["exp"] = time.Now().Add(c.iat).Unix(), time.Now().Add(c.exp).Unix()
					return answer(200, map[string]any{"token_type": "Bearer", "expires_in": c.expiresIn, "access_token": signed(claims)}), nil
				}}
				s := running(t, Options{Transport: f}).Source(contoso(), mde)
				if got := time.Until(mustBearer(t, s).Expires()); got != c.want {
					t.Errorf("the token lives %v, want %v", got, c.want)
				}
			})
		})
	}
}

func TestARedirectIsRefusedAndTheSecretGoesNowhereElse(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				t.Errorf("the redirect was followed: %s %s", r.Method, r.URL)
			}))
			defer elsewhere.Close()
			s, sent := overTLS(t, nil, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.URL+"/steal", status)
			})
			err := mustFail(t, s, BadAnswer)
			if err.Status != status || !strings.Contains(err.Sentence, "redirect") {
				t.Errorf("got status %d, %q", err.Status, err.Sentence)
			}
			if got := sent(); len(got) != 1 {
				t.Errorf("%d requests, want 1", len(got))
			}
		})
	}
}

func TestAnAnswerWithoutEndIsNotReadToTheEnd(t *testing.T) {
	s, _ := overTLS(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"`)
		block := strings.Repeat("A", 64<<10)
		for range 1024 { // 64 MiB, had anybody the patience
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
	})
	err := mustFail(t, s, BadAnswer)
	if want := "more than 256 KiB"; !strings.Contains(err.Sentence, want) {
		t.Errorf("got %q, want %q in it", err.Sentence, want)
	}
}

func TestAnEntraThatHangsIsGivenUp(t *testing.T) {
	for name, begin := range map[string]bool{"before the answer": false, "within the answer": true} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			s, _ := overTLS(t, nil, func(w http.ResponseWriter, r *http.Request) {
				if begin {
					w.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(w, `{"access_token":"`)
					w.(http.Flusher).Flush()
				}
				<-release
			})
			defer close(release)
			s.engine.timeout = 100 * time.Millisecond // before the first fetch
			err := mustFail(t, s, Unreachable)
			if want := "within 100ms"; !strings.Contains(err.Sentence, want) {
				t.Errorf("got %q, want %q in it", err.Sentence, want)
			}
		})
	}
}

func TestAnAnswerThatIsCutOffIsNoToken(t *testing.T) {
	s, _ := overTLS(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "5000")
		_, _ = io.WriteString(w, `{"token_type":"Bearer"`)
	})
	err := mustFail(t, s, Unreachable)
	if want := "did not end it"; !strings.Contains(err.Sentence, want) {
		t.Errorf("got %q, want %q in it", err.Sentence, want)
	}
}

func TestAnAuthorityWithAStrangeCertificateGetsNoSecret(t *testing.T) {
	s, sent := overTLS(t, nil, func(http.ResponseWriter, *http.Request) {})
	transport := &http.Transport{} // trusts the machine's roots only
	defer transport.CloseIdleConnections()
	s.engine.transport = transport // before the first fetch
	err := mustFail(t, s, Unreachable)
	if !strings.Contains(err.Sentence, "certificate") {
		t.Errorf("got %q, want the certificate named", err.Sentence)
	}
	if len(sent()) != 0 {
		t.Error("the request was sent")
	}
}

func TestAnAccountThatCannotBeUsedSendsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Account)
		want   string
	}{
		"no credential":   {func(a *Account) { a.Credential = nil }, "no credential"},
		"an empty secret": {func(a *Account) { a.Credential = secret(func() (string, error) { return "", nil }) }, "is empty"},
		"a secret that cannot be read": {func(a *Account) {
			a.Credential = secret(func() (string, error) { return "", fmt.Errorf("open /run/s: permission denied") })
		}, "open /run/s: permission denied"},
		"plain http to another machine":     {func(a *Account) { a.Authority = "http://login.example.com" }, "in the clear"},
		"another scheme":                    {func(a *Account) { a.Authority = "ftp://login.example.com" }, "neither https nor http"},
		"an authority without a host":       {func(a *Account) { a.Authority = "login.example.com" }, "base URL"},
		"an authority with a password":      {func(a *Account) { a.Authority = "https://u:p@login.example.com" }, "base URL"},
		"an authority with a query":         {func(a *Account) { a.Authority = "https://login.example.com/?x=" }, "base URL"},
		"no tenant":                         {func(a *Account) { a.Tenant = "" }, "no id"},
		"no client id":                      {func(a *Account) { a.ClientID = "" }, "no client_id"},
		"a token version that is not known": {func(a *Account) { a.Version = "v3" }, `"v3" is not known`},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := &entra{}
				a := contoso()
				c.change(&a)
				err := mustFail(t, running(t, Options{Transport: f, Log: quiet}).Source(a, mde), Misconfigured)
				if !strings.Contains(err.Sentence, c.want) {
					t.Errorf("got %q, want %q in it", err.Sentence, c.want)
				}
				if got := f.requests.Load(); got != 0 {
					t.Errorf("%d requests were sent", got)
				}
			})
		})
	}
}

func TestPlainHTTPIsAcceptedOnALoopbackAddress(t *testing.T) {
	for _, host := range []string{"127.0.0.1:8443", "[::1]:8443", "localhost:8443", "127.1.2.3"} {
		inBubble(t, func(t *testing.T) {
			a := contoso()
			a.Authority = "http://" + host
			mustBearer(t, running(t, Options{Transport: &entra{}}).Source(a, mde))
		})
	}
}

func TestAnAnswersRetryAfterIsBounded(t *testing.T) {
	date := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"17": 17 * time.Second, "-1": 0, "x": 0, "": 0,
		"301": 5 * time.Minute, "9223372036854775807": 5 * time.Minute, "99999999999999999999": 5 * time.Minute,
		"Sat, 21 Nov 2026 12:01:00 GMT": time.Minute, "Sat, 21 Nov 2026 11:00:00 GMT": 0, "Sat, 21 Nov 2099 12:00:00 GMT": 5 * time.Minute,
	} {
		if got := RetryAfter(value, date); got != want {
			t.Errorf("Retry-After %q gives %v, want %v", value, got, want)
		}
	}
}
