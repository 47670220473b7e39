package simulator

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

func isAuthorize(r *http.Request) bool {
	return strings.HasSuffix(strings.ToLower(r.URL.Path), "/authorize")
}

// authorize is the authorization endpoint, with a browser at it whose user has
// signed in long ago and consents to everything: the code comes at once
// (learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow). Of the
// response modes it knows query alone. With a code of an error, the answer is
// that error.
func (s *Simulator) authorize(w http.ResponseWriter, r *http.Request, failure int) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		refuse(900561, r.Method).write(w, r, s.now())
		return
	}
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	}
	if err := r.ParseForm(); err != nil {
		errorPage(w, refuse(9002313))
		return
	}
	q := r.Form
	name, rest, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	version := 1
	if strings.EqualFold(rest, "oauth2/v2.0/authorize") {
		version = 2
	}
	t, refusal := s.namedTenant(name, q.Get("client_id"))
	if refusal != nil {
		errorPage(w, refusal)
		return
	}
	if q.Get("client_id") == "" {
		errorPage(w, refuse(900144, "client_id"))
		return
	}
	a, ok := s.directory.app(t, q.Get("client_id"))
	if !ok {
		errorPage(w, refuse(700016, q.Get("client_id"), t.name))
		return
	}
	// Until the address is known to be the application's, nothing is sent there.
	back, refusal := replyAddress(a, q.Get("redirect_uri"))
	if refusal != nil {
		errorPage(w, refusal)
		return
	}
	if failure != 0 {
		redirectError(w, back, q.Get("state"), refuse(failure))
		return
	}
	user, refusal := s.authorizeUser(t, a, q, version)
	switch {
	case refusal != nil:
		redirectError(w, back, q.Get("state"), refusal)
		return
	case user == "":
		htmlPage(w, http.StatusOK, "Sign in to your account", "Nobody is signed in. Name somebody with login_hint, or through the simulator's control port.")
		return
	}
	code := opaque("1.", 64)
	s.sessions.mu.Lock()
	s.sessions.codes.add(code, &authorizationCode{
		wanted: wanted{tenantID: t.id, clientID: a.clientID, user: user, version: version, scope: q.Get("scope"), resource: q.Get("resource")},
		issued: s.now(), redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), kind: q.Get("code_challenge_method"),
	})
	s.sessions.mu.Unlock()
	redirect(w, back, url.Values{"code": {code}, "state": {q.Get("state")}, "session_state": {userID(t, user)}})
}

// authorizeUser judges the rest of a request, and finds who signs in; nobody is
// no error.
func (s *Simulator) authorizeUser(t *tenant, a app, q url.Values, version int) (string, *aadError) {
	switch {
	case a.disabled:
		return "", refuse(7000112, a.clientID)
	case q.Get("response_type") == "":
		return "", refuse(900144, "response_type")
	case q.Get("response_type") != "code":
		return "", refuse(700054, q.Get("response_type"))
	case q.Get("response_mode") != "" && q.Get("response_mode") != "query":
		return "", refuse(90023, "the simulator knows response_mode query only")
	case !slices.Contains([]string{"", "plain", "S256"}, q.Get("code_challenge_method")):
		return "", refuse(90023, "unsupported code_challenge_method")
	case q.Get("code_challenge") != "" && (len(q.Get("code_challenge")) < 43 || len(q.Get("code_challenge")) > 128):
		return "", refuse(501491)
	case a.unconsented:
		return "", refuse(65001, a.clientID)
	}
	// A request of the older version may leave the resource to the redemption.
	if version == 2 || q.Get("resource") != "" {
		if _, _, _, refusal := resource(t, q, version, true); refusal != nil {
			return "", refusal
		}
	}
	user := q.Get("login_hint")
	if user == "" {
		s.sessions.mu.Lock()
		user = s.sessions.signedIn
		s.sessions.mu.Unlock()
	}
	if user == "" {
		if q.Get("prompt") == "none" {
			return "", refuse(50058)
		}
		return "", nil
	}
	u, refusal := findUser(t, a, user)
	return u.Name, refusal
}

// replyAddress accepts a registered address, or one of a native application at
// localhost. For loopback the port does not count, and 127.0.0.1 has to be
// registered like any other
// (learn.microsoft.com/entra/identity-platform/reply-url, "Localhost exceptions").
func replyAddress(a app, text string) (*url.URL, *aadError) {
	if text == "" {
		return nil, refuse(900971)
	}
	u, err := url.Parse(text)
	if err != nil || u.Fragment != "" || u.User != nil {
		return nil, refuse(50011, text, a.clientID)
	}
	known := u.Scheme == "http" && u.Hostname() == "localhost" ||
		slices.ContainsFunc(a.redirectURIs, func(registered string) bool {
			r, err := url.Parse(registered)
			return registered == text || err == nil && r.Scheme == "http" && r.Hostname() == "127.0.0.1" && withoutPort(r) == withoutPort(u)
		})
	if !known {
		return nil, refuse(50011, text, a.clientID)
	}
	return u, nil
}

func withoutPort(u *url.URL) string {
	c := *u
	c.Host = u.Hostname()
	return c.String()
}

// redirect sends the browser back, keeping what the address had for a query.
func redirect(w http.ResponseWriter, back *url.URL, add url.Values) {
	q := back.Query()
	for name, values := range add {
		if values[0] != "" {
			q[name] = values
		}
	}
	to := *back
	to.RawQuery = q.Encode()
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusFound)
}

func redirectError(w http.ResponseWriter, back *url.URL, state string, e *aadError) {
	row := aadErrors[e.code]
	oauth := row.oauth
	switch e.code {
	case 65004: // the same refusal has another name in the device flow
		oauth = "access_denied"
	case 65001:
		oauth = "consent_required"
	case 50034, 50057, 7000112:
		oauth = "access_denied"
	case 0:
		oauth = "server_error"
	}
	if oauth == "" {
		oauth = "server_error"
	}
	redirect(w, back, url.Values{
		"error": {oauth}, "error_description": {fmt.Sprintf("AADSTS%d: %s", e.code, e.sentence())}, "state": {state},
		"error_uri": {fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", e.code)},
	})
}

// htmlPage answers with a page for a browser.
func htmlPage(w http.ResponseWriter, status int, title, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.WriteHeader(status)
	io.WriteString(w, "<!DOCTYPE html><html><head><title>"+html.EscapeString(title)+"</title></head><body><p>"+html.EscapeString(text)+"</p></body></html>")
}

// errorPage is for what must not be sent to a redirect URI.
func errorPage(w http.ResponseWriter, e *aadError) {
	htmlPage(w, http.StatusBadRequest, "Sign in to your account", fmt.Sprintf("Sorry, but we're having trouble signing you in. AADSTS%d: %s", e.code, e.sentence()))
}

// adminConsent is the page at which an administrator lets an application into
// the tenant, with an administrator who says yes at once
// (learn.microsoft.com/entra/identity-platform/v2-admin-consent). The names that
// stand for no tenant mean the one of the user who is signed in, else the only
// one.
func (s *Simulator) adminConsent(w http.ResponseWriter, r *http.Request, name string) {
	q := r.URL.Query()
	t, refusal := s.namedTenant(name, q.Get("client_id"))
	if refusal != nil && refusal.code == 50194 {
		t, refusal = s.homeTenant()
	}
	if refusal != nil {
		errorPage(w, refusal)
		return
	}
	a, ok := s.directory.app(t, q.Get("client_id"))
	if !ok {
		errorPage(w, refuse(700016, q.Get("client_id"), t.name))
		return
	}
	var back *url.URL
	if q.Get("redirect_uri") != "" {
		if back, refusal = replyAddress(a, q.Get("redirect_uri")); refusal != nil {
			errorPage(w, refusal)
			return
		}
	}
	if err := s.SetConsented(t.id, a.clientID, true); err != nil {
		htmlPage(w, http.StatusInternalServerError, "Consent", err.Error())
		return
	}
	if back == nil {
		htmlPage(w, http.StatusOK, "Permissions requested", "The application "+a.clientID+" has the consent of tenant "+t.name+" now.")
		return
	}
	redirect(w, back, url.Values{"admin_consent": {"True"}, "tenant": {t.id}, "state": {q.Get("state")}, "scope": {q.Get("scope")}})
}

// homeTenant is that of the user who is signed in, else the only one.
func (s *Simulator) homeTenant() (*tenant, *aadError) {
	s.sessions.mu.Lock()
	_, domain, _ := strings.Cut(s.sessions.signedIn, "@")
	s.sessions.mu.Unlock()
	if t := s.directory.tenant(domain); t != nil {
		return t, nil
	}
	if len(s.cfg.Tenants) == 1 {
		return s.namedTenant(s.cfg.Tenants[0].ID, "")
	}
	return nil, refuse(50058)
}
