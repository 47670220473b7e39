package credential

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	loginAudience = "https://api.securitycenter.microsoft.com"
	loginScope    = loginAudience + "/.default offline_access openid profile"
)

// fakeLogin speaks the sign-in endpoints of Entra ID as its pages document them,
// for one tenant and one application. What a client must not do fails the test.
type fakeLogin struct {
	t *testing.T

	// secrets are those that are accepted; none for a public client.
	secrets []string
	// device answers devicecode in place of the usual answer.
	device func(http.ResponseWriter)
	// answers are given by the token endpoint, one a request, the last one for
	// ever; the usual answer where there is none.
	answers []func(http.ResponseWriter, url.Values)
	// authorize answers in place of the redirect with a code.
	authorize func(http.ResponseWriter, *http.Request)

	mu        sync.Mutex
	challenge string
	redirect  string
	redeemed  bool
	forms     []url.Values // of the token endpoint
	asked     []time.Time  // when
}

const (
	fakeCode    = "0.AX-canary-authorization-code"
	fakeDevice  = "canary-device-code"
	fakeRefresh = "0.AX-canary-new-refresh-token"
)

func (f *fakeLogin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store, no-cache")
	prefix := "/" + storeTenant + "/oauth2/v2.0/"
	switch {
	case r.Method == http.MethodGet && r.URL.Path == prefix+"authorize":
		f.onAuthorize(w, r)
	case r.Method == http.MethodPost && r.URL.Path == prefix+"devicecode":
		form := f.form(r)
		if got := form.Encode(); got != (url.Values{"client_id": {storeClient}, "scope": {loginScope}}).Encode() {
			f.t.Errorf("devicecode was asked with %s", got)
		}
		if f.device != nil {
			f.device(w)
			return
		}
		fmt.Fprintf(w, `{"user_code":"ABCD1234","device_code":%q,"verification_uri":"https://microsoft.com/devicelogin","expires_in":900,"interval":5,"message":"To sign in, use a web browser."}`, fakeDevice)
	case r.Method == http.MethodPost && r.URL.Path == prefix+"token":
		f.onToken(w, r)
	default:
		f.t.Errorf("%s %s was asked, which no sign-in needs", r.Method, r.URL.Path)
		http.NotFound(w, r)
	}
}

func (f *fakeLogin) form(r *http.Request) url.Values {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.URL.RawQuery != "" || r.Header.Get("Authorization") != "" {
		f.t.Errorf("the request is no plain form: %v %v %q", err, r.Header, r.URL.RawQuery)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		f.t.Errorf("the form is malformed: %v", err)
	}
	for name, values := range form {
		if len(values) != 1 {
			f.t.Errorf("%s is there %d times", name, len(values))
		}
	}
	return form
}

func (f *fakeLogin) onAuthorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	for name, want := range map[string]string{
		"client_id": storeClient, "response_type": "code", "response_mode": "query", "prompt": "select_account",
		"scope": loginScope, "code_challenge_method": "S256",
	} {
		if got := q.Get(name); got != want {
			f.t.Errorf("authorize: got %s %q, want %q", name, got, want)
		}
	}
	if len(q.Get("state")) < 20 || len(q.Get("code_challenge")) != 43 {
		f.t.Errorf("authorize: got state %q and challenge %q, want long ones", q.Get("state"), q.Get("code_challenge"))
	}
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || redirect.Scheme != "http" || redirect.Hostname() != "localhost" || redirect.Path != "" {
		f.t.Errorf("authorize: got redirect_uri %q, want http://localhost:PORT", q.Get("redirect_uri"))
	}
	f.mu.Lock()
	f.challenge, f.redirect = q.Get("code_challenge"), q.Get("redirect_uri")
	f.mu.Unlock()
	if f.authorize != nil {
		f.authorize(w, r)
		return
	}
	redirectWith(w, r, url.Values{"code": {fakeCode}, "state": {q.Get("state")}, "session_state": {"x"}})
}

// redirectWith leads back to the client. Entra ID adds a slash to a redirect URI
// without a path.
func redirectWith(w http.ResponseWriter, r *http.Request, query url.Values) {
	w.Header().Set("Location", r.URL.Query().Get("redirect_uri")+"/?"+query.Encode())
	w.WriteHeader(http.StatusFound)
}

func (f *fakeLogin) onToken(w http.ResponseWriter, r *http.Request) {
	form := f.form(r)
	f.mu.Lock()
	f.forms = append(f.forms, form)
	f.asked = append(f.asked, time.Now())
	var answer func(http.ResponseWriter, url.Values)
	if len(f.answers) > 0 {
		answer = f.answers[min(len(f.forms), len(f.answers))-1]
	}
	f.mu.Unlock()
	if got := form.Get("client_id"); got != storeClient {
		f.t.Errorf("token: got client_id %q", got)
	}
	switch secret := form.Get("client_secret"); {
	case f.secrets == nil && secret != "":
		entraError(w, 400, "invalid_client", "AADSTS700025: Client is public so neither 'client_assertion' nor 'client_secret' should be presented.")
		return
	case f.secrets != nil && secret == "":
		entraError(w, 401, "invalid_client", "AADSTS7000218: The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
		return
	case f.secrets != nil && !slices.Contains(f.secrets, secret):
		entraError(w, 401, "invalid_client", "AADSTS7000215: Invalid client secret provided. It was "+secret+" and that is wrong.")
		return
	}
	if answer != nil {
		answer(w, form)
		return
	}
	switch form.Get("grant_type") {
	case "urn:ietf:params:oauth:grant-type:device_code":
		if form.Get("device_code") != fakeDevice {
			entraError(w, 400, "bad_verification_code", "AADSTS70018: Invalid verification code.")
			return
		}
	case "authorization_code":
		f.mu.Lock()
		sum := sha256.Sum256([]byte(form.Get("code_verifier")))
		proven := base64.RawURLEncoding.EncodeToString(sum[:]) == f.challenge
		same := form.Get("redirect_uri") == f.redirect
		replayed := f.redeemed
		f.redeemed = true
		f.mu.Unlock()
		switch {
		case form.Get("code") != fakeCode:
			entraError(w, 400, "invalid_grant", "AADSTS9002313: Invalid request. Request is malformed or invalid.")
			return
		case replayed:
			entraError(w, 400, "invalid_grant", "AADSTS54005: OAuth2 Authorization code was already redeemed.")
			return
		case !proven || !same:
			f.t.Errorf("token: verifier proven %v, redirect_uri the same %v", proven, same)
			entraError(w, 400, "invalid_grant", "AADSTS501481: The Code_Verifier does not match the code_challenge.")
			return
		}
		if form.Get("scope") != loginScope {
			f.t.Errorf("token: got scope %q", form.Get("scope"))
		}
	default:
		f.t.Errorf("token: got grant_type %q", form.Get("grant_type"))
	}
	grantTokens(w, nil)
}

// pending, slowDown and others are answers of the token endpoint.
func failing(status int, code, description string) func(http.ResponseWriter, url.Values) {
	return func(w http.ResponseWriter, _ url.Values) { entraError(w, status, code, description) }
}

var (
	pending  = failing(400, "authorization_pending", "AADSTS70016: OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
	slowDown = failing(400, "slow_down", "AADSTS90100: Slow down.")
	granting = func(w http.ResponseWriter, _ url.Values) { grantTokens(w, nil) }
)

func grantTokens(w http.ResponseWriter, change func(answer, access map[string]any)) {
	access := map[string]any{"tid": storeTenant, "aud": loginAudience, "upn": "ana@contoso.example", "scp": "Alert.Read", "exp": 4102444800}
	answer := map[string]any{"token_type": "Bearer", "expires_in": 3599, "scope": "Alert.Read", "refresh_token": fakeRefresh}
	if change != nil {
		change(answer, access)
	}
	if _, set := answer["access_token"]; !set {
		answer["access_token"] = unsigned(access)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(answer)
}

func unsigned(claims map[string]any) string {
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims)).SignedString([]byte("canary-signing-key"))
	if err != nil {
		panic(err)
	}
	return text
}

func entraError(w http.ResponseWriter, status int, code, description string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"error":             code,
		"error_description": description + " Trace ID: 0000aaaa-11bb-cccc-dd22-eeeeee333333 Correlation ID: aaaa0000-bb11-2222-33cc-444444dddddd Timestamp: 2026-11-01 09:02:12Z",
		"error_codes":       []int{1}, "trace_id": "0000aaaa-11bb-cccc-dd22-eeeeee333333",
	})
}

// overTLS serves f over TLS, and gives options that lead there and a browser
// that follows no redirect by itself.
func overTLS(t *testing.T, f *fakeLogin, flow Flow) (LoginOptions, *http.Client) {
	t.Helper()
	f.t = t
	server := httptest.NewTLSServer(f)
	t.Cleanup(server.Close)
	browser := &http.Client{
		Transport:     server.Client().Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return LoginOptions{
		Flow: flow, Authority: server.URL, Tenant: storeTenant, ClientID: storeClient, Audience: loginAudience,
		Transport: server.Client().Transport, Show: func(LoginPrompt) {},
	}, browser
}

// inMemory carries requests straight to a handler, so that fake time passes
// while somebody waits.
type inMemory struct{ http.Handler }

func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return w.Result(), nil
}

// hidden wants that none of the secrets is in the text, as it stands or encoded.
func hidden(t *testing.T, where, text string, secrets ...string) {
	t.Helper()
	for _, s := range append(secrets, "canary") {
		if s != "" && (strings.Contains(text, s) || strings.Contains(text, url.QueryEscape(s))) {
			t.Errorf("%s holds the secret %q: %s", where, s, text)
		}
	}
}
