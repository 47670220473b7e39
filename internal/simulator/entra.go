package simulator

import (
	"crypto/subtle"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// entraHandler answers for login.microsoftonline.com.
func (s *Simulator) entraHandler() http.Handler {
	return s.recorded("entra", "", func(w http.ResponseWriter, r *http.Request, rec *Request) {
		w.Header().Set("Cache-Control", "no-store, no-cache")
		w.Header().Set("Pragma", "no-cache")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
		if id := r.Header.Get("client-request-id"); id != "" && r.Header.Get("return-client-request-id") != "" {
			w.Header().Set("client-request-id", id)
		}
		fault, struck := s.entra.take(r.URL.Path)
		if struck && fault.Kind == FaultAADSTS && isAuthorize(r) {
			s.authorize(w, r, fault.Code)
			return
		}
		if struck && s.entraFault(w, r, fault) {
			return
		}
		if m := s.mischief.entra(); m != nil {
			m.strike(w, r, s.now())
			return
		}
		segments := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if len(segments) < 2 {
			http.NotFound(w, r)
			return
		}
		rest := strings.ToLower(strings.Join(segments[1:], "/"))
		if segments[0] == workloadPath {
			s.workloadDocuments(w, r, rest)
			return
		}
		switch rest {
		case "oauth2/token":
			s.token(w, r, rec, segments[0], 1, fault)
		case "oauth2/v2.0/token":
			s.token(w, r, rec, segments[0], 2, fault)
		case ".well-known/openid-configuration":
			s.discovery(w, r, segments[0], 1)
		case "v2.0/.well-known/openid-configuration":
			s.discovery(w, r, segments[0], 2)
		case "discovery/keys", "discovery/v2.0/keys":
			s.keys(w, r, segments[0])
		case "discovery/instance":
			s.instance(w, r)
		case "oauth2/authorize", "oauth2/v2.0/authorize":
			s.authorize(w, r, 0)
		case "oauth2/devicecode":
			s.deviceCode(w, r, rec, segments[0], 1)
		case "oauth2/v2.0/devicecode":
			s.deviceCode(w, r, rec, segments[0], 2)
		case "oauth2/deviceauth":
			s.devicePage(w)
		case "adminconsent", "v2.0/adminconsent":
			s.adminConsent(w, r, segments[0])
		default:
			http.NotFound(w, r)
		}
	})
}

// maxForm bounds the body of a token request.
const maxForm = 64 << 10

// token is the token endpoint of either version.
func (s *Simulator) token(w http.ResponseWriter, r *http.Request, rec *Request, tenantName string, version int, fault Fault) {
	grant, refusal := s.grant(w, r, rec, endpoint{tenantName, version})
	if refusal != nil {
		refusal.write(w, r, s.now())
		return
	}
	s.ring.update(rec, func(q *Request) { q.Tenant, q.App = grant.claims.TenantID, grant.claims.AppID })
	now, life := s.now(), time.Duration(s.signer.lifetime.Load())
	signed, shown := life, life
	switch fault.Kind {
	case FaultExpired:
		signed = -time.Minute
	case FaultExpiresInZero:
		shown = 0
	case FaultExpiresInNegative:
		shown = -life
	case FaultWrongTID:
		grant.claims.TenantID = "99999999-9999-9999-9999-999999999999"
	case FaultWrongAudience:
		grant.claims.Audience = "https://management.azure.com"
	}
	access, err := s.signer.sign(grant.claims, now, signed)
	if fault.Kind == FaultWrongKey {
		var stray signingKey
		if stray, err = s.signer.stray(); err == nil {
			access, err = s.signer.signWith(stray, grant.claims, now, signed)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if fault.Kind == FaultNotJWT {
		access = "this-is-no-web-token"
	}
	s.directory.countIssued(Issued{grant.claims.TenantID, grant.claims.AppID, grant.claims.Audience})

	seconds := int64(shown / time.Second)
	body := map[string]any{"token_type": "Bearer", "access_token": access}
	if version == 1 {
		// The older endpoint writes its numbers as strings.
		body["expires_in"] = strconv.FormatInt(seconds, 10)
		body["ext_expires_in"] = strconv.FormatInt(seconds, 10)
		body["expires_on"] = strconv.FormatInt(now.Add(shown).Unix(), 10)
		body["not_before"] = strconv.FormatInt(now.Add(-clockAllowance).Unix(), 10)
		body["resource"] = grant.resource
	} else {
		body["expires_in"] = seconds
		body["ext_expires_in"] = seconds
	}
	if grant.claims.Scopes != "" {
		body["scope"] = grant.claims.Scopes
	}
	if fault.Kind == FaultNoToken {
		delete(body, "access_token")
	}
	if grant.renew != nil {
		body["refresh_token"] = s.sessions.newRefresh(grant.renew.wanted, grant.renew.family, now)
	}
	if grant.openID {
		if body["id_token"], err = s.idToken(grant.claims, now, life); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("x-ms-request-id", uuid.NewString())
	writeJSON(w, http.StatusOK, body)
}

// granted is what a token request has been found to deserve.
type granted struct {
	claims   claims
	resource string
	user     bool // for a user, not for the application itself
	openID   bool // with an ID token
	renew    *renewal
}

// idToken tells the application who signed in.
func (s *Simulator) idToken(c claims, now time.Time, life time.Duration) (string, error) {
	s.signer.mu.RLock()
	k := signingKey{s.signer.key, s.signer.kid}
	s.signer.mu.RUnlock()
	return k.token(jwt.MapClaims{
		"aud": c.AppID, "iss": s.Authority() + "/" + c.TenantID + "/v2.0", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(life).Unix(),
		"name": c.UPN, "preferred_username": c.UPN, "oid": c.ObjectID, "sub": c.Subject, "tid": c.TenantID, "ver": "2.0",
	}, false)
}

// grant judges a token request, in the order in which Entra ID does: form,
// tenant, application, credential, resource.
func (s *Simulator) grant(w http.ResponseWriter, r *http.Request, rec *Request, asked endpoint) (granted, *aadError) {
	t, a, form, secret, refusal := s.tokenRequest(w, r, asked)
	if form != nil {
		s.ring.update(rec, func(q *Request) {
			q.Grant, q.Claims = clip(form.Get("grant_type")), clip(form.Get("claims"))
		})
	}
	if refusal != nil {
		return granted{}, refusal
	}
	wish, refusal := readClaims(form.Get("claims"))
	if refusal != nil {
		return granted{}, refusal
	}
	kind := form.Get("grant_type")
	shown, refusal := s.proveClient(t, a, form, secret, asked, kind == "client_credentials")
	s.ring.update(rec, func(q *Request) { q.Proof = string(shown) })
	if refusal != nil {
		return granted{}, refusal
	}
	var g granted
	switch kind {
	case "client_credentials":
		g, refusal = appGrant(t, a, form, asked.version)
	case "password":
		g, refusal = s.passwordGrant(t, a, form, asked.version)
	case "authorization_code":
		g, refusal = s.codeGrant(t, a, form, asked.version, shown)
	case "refresh_token":
		g, refusal = s.refreshGrant(t, a, form, asked.version)
	case "urn:ietf:params:oauth:grant-type:device_code", "device_code":
		g, refusal = s.deviceGrant(t, a, form, asked.version)
	default:
		return granted{}, refuse(70003, kind)
	}
	g.claims.AppIDACR = shown.acr()
	g.claims.Capabilities, g.claims.answersChallenge = wish.capabilities, wish.notBefore
	if serviceOf(g.claims.Audience) == "exchange" {
		g.claims.issuer = s.Authority() + "/" + t.id + "/v2.0"
	}
	return g, refusal
}

// tokenRequest reads a token request as far as the application. The form is
// there beside a refusal too, once it could be read.
func (s *Simulator) tokenRequest(w http.ResponseWriter, r *http.Request, asked endpoint) (t *tenant, a app, form url.Values, secret string, refusal *aadError) {
	if r.Method != http.MethodPost {
		return nil, app{}, nil, "", refuse(900561, r.Method)
	}
	if form, refusal = tokenForm(w, r); refusal != nil {
		return nil, app{}, nil, "", refusal
	}
	if t, refusal = s.namedTenant(asked.tenant, form.Get("client_id")); refusal != nil {
		return nil, app{}, form, "", refusal
	}
	if form.Get("grant_type") == "" {
		return nil, app{}, form, "", refuse(900144, "grant_type")
	}
	clientID, secret := form.Get("client_id"), form.Get("client_secret")
	if user, pass, ok := r.BasicAuth(); ok {
		// RFC 6749, section 2.3.1: both halves are form-encoded first.
		id, err1 := url.QueryUnescape(user)
		key, err2 := url.QueryUnescape(pass)
		if err1 != nil || err2 != nil {
			return nil, app{}, form, "", refuse(9002313)
		}
		clientID, secret = id, key
	}
	if clientID == "" {
		return nil, app{}, form, "", refuse(900144, "client_id")
	}
	a, ok := s.directory.app(t, clientID)
	if !ok || a.unconsented && form.Get("grant_type") == "client_credentials" {
		return nil, app{}, form, "", refuse(700016, clientID, t.name)
	}
	return t, a, form, secret, nil
}

// namedTenant finds the tenant of a path.
func (s *Simulator) namedTenant(name, clientID string) (*tenant, *aadError) {
	if t := s.directory.tenant(name); t != nil {
		return t, nil
	}
	if slices.Contains(anyTenant, strings.ToLower(name)) {
		return nil, refuse(50194, clientID)
	}
	return nil, refuse(90002, name)
}

// tokenForm reads the form of a token request. A field that is there twice is
// refused, as Entra ID does.
func tokenForm(w http.ResponseWriter, r *http.Request) (url.Values, *aadError) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, refuse(900144, "grant_type")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, refuse(9002313)
	}
	for _, values := range r.PostForm {
		if len(values) > 1 {
			return nil, refuse(9002313)
		}
	}
	return r.PostForm, nil
}

func checkSecret(a app, secret string) *aadError {
	if holds(a.expired, secret) {
		return refuse(7000222, a.clientID)
	}
	if !holds(a.secrets, secret) {
		return refuse(7000215, a.clientID)
	}
	return nil
}

func holds(secrets []string, secret string) bool {
	found := 0
	for _, s := range secrets {
		found |= subtle.ConstantTimeCompare([]byte(s), []byte(secret))
	}
	return found == 1
}

// resource finds what a token is asked for: the service, the audience as it
// was written, and the single scopes, if any, of a user's request.
func resource(t *tenant, form url.Values, version int, forUser bool) (service, audience string, scopes []string, refusal *aadError) {
	if version == 1 {
		audience = form.Get("resource")
		if audience == "" {
			return "", "", nil, refuse(900144, "resource")
		}
	} else {
		scope := form.Get("scope")
		if scope == "" {
			return "", "", nil, refuse(900144, "scope")
		}
		for _, one := range strings.Fields(scope) {
			// Microsoft's own library sends them for applications as well.
			if slices.Contains(identityScopes, one) {
				continue
			}
			at := strings.LastIndexByte(one, '/')
			if at < 0 {
				if forUser {
					return "", "", nil, refuse(70011, one)
				}
				return "", "", nil, refuse(1002012, scope)
			}
			base, name := one[:at], one[at+1:]
			if !forUser && name != ".default" {
				return "", "", nil, refuse(1002012, scope)
			}
			if audience != "" && audience != base || slices.Contains(scopes, ".default") {
				return "", "", nil, refuse(70011, scope)
			}
			audience = base
			scopes = append(scopes, name)
		}
		if audience == "" {
			return "", "", nil, refuse(70011, scope)
		}
	}
	if service = serviceOf(audience); service == "" {
		return "", "", nil, refuse(500011, audience, t.name)
	}
	return service, audience, scopes, nil
}

// appGrant gives an application its roles. One without any for the service
// still gets a token, without the claim.
func appGrant(t *tenant, a app, form url.Values, version int) (granted, *aadError) {
	service, audience, _, refusal := resource(t, form, version, false)
	if refusal != nil {
		return granted{}, refusal
	}
	return granted{resource: audience, claims: claims{
		Audience: audience, AppID: a.clientID, AppIDACR: "1", IDType: "app",
		Provider: "https://sts.windows.net/" + t.id + "/",
		ObjectID: a.objectID, Subject: a.objectID, TenantID: t.id,
		Roles: rolesFor(service, a.permissions),
	}}, nil
}

// rolesFor are the application roles in a token. Roles on a key vault are
// Azure's and not the directory's: no token shows them.
func rolesFor(service string, permissions map[string][]string) []string {
	if service == "vault" || service == "exchange" {
		return nil
	}
	return permissions[service]
}
