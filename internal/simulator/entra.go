package simulator

import (
	"crypto/subtle"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

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
		switch rest := strings.ToLower(strings.Join(segments[1:], "/")); rest {
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
		default:
			http.NotFound(w, r)
		}
	})
}

// anyTenant are the names that stand for no tenant in particular.
var anyTenant = []string{"common", "organizations", "consumers"}

// discovery is the OpenID configuration.
func (s *Simulator) discovery(w http.ResponseWriter, r *http.Request, name string, version int) {
	id := "{tenantid}"
	if !slices.Contains(anyTenant, strings.ToLower(name)) {
		t := s.directory.tenant(name)
		if t == nil {
			refuse(90002, name).write(w, r, s.now())
			return
		}
		id = t.id
	}
	base, oauth := s.Authority()+"/"+name, "/oauth2"
	doc := map[string]any{
		"issuer":   "https://sts.windows.net/" + id + "/",
		"jwks_uri": s.Authority() + "/common/discovery/keys",
	}
	if version == 2 {
		oauth = "/oauth2/v2.0"
		doc["issuer"] = s.Authority() + "/" + id + "/v2.0"
		doc["jwks_uri"] = base + "/discovery/v2.0/keys"
	}
	doc["authorization_endpoint"] = base + oauth + "/authorize"
	doc["token_endpoint"] = base + oauth + "/token"
	doc["device_authorization_endpoint"] = base + oauth + "/devicecode"
	doc["end_session_endpoint"] = base + oauth + "/logout"
	doc["token_endpoint_auth_methods_supported"] = []string{"client_secret_post", "client_secret_basic"}
	doc["response_types_supported"] = []string{"code", "id_token", "code id_token", "id_token token"}
	doc["id_token_signing_alg_values_supported"] = []string{"RS256"}
	doc["subject_types_supported"] = []string{"pairwise"}
	doc["scopes_supported"] = []string{"openid", "profile", "email", "offline_access"}
	doc["tenant_region_scope"] = nil
	doc["cloud_instance_name"] = "microsoftonline.com"
	doc["msgraph_host"] = "graph.microsoft.com"
	writeJSON(w, http.StatusOK, doc)
}

func (s *Simulator) keys(w http.ResponseWriter, r *http.Request, name string) {
	if !slices.Contains(anyTenant, strings.ToLower(name)) && s.directory.tenant(name) == nil {
		refuse(90002, name).write(w, r, s.now())
		return
	}
	writeJSON(w, http.StatusOK, s.signer.jwks(s.Authority()+"/{tenantid}/v2.0"))
}

// instance is the discovery of clouds that Microsoft's own libraries start with.
func (s *Simulator) instance(w http.ResponseWriter, r *http.Request) {
	host := strings.TrimPrefix(s.Authority(), "https://")
	writeJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": s.Authority() + "/common/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []any{map[string]any{
			"preferred_network": host, "preferred_cache": host, "aliases": []string{host},
		}},
	})
}

// maxForm bounds the body of a token request.
const maxForm = 64 << 10

// token is the token endpoint of either version.
func (s *Simulator) token(w http.ResponseWriter, r *http.Request, rec *Request, tenantName string, version int, fault Fault) {
	grant, refusal := s.grant(w, r, tenantName, version)
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
	w.Header().Set("x-ms-request-id", uuid.NewString())
	writeJSON(w, http.StatusOK, body)
}

// granted is what a token request has been found to deserve.
type granted struct {
	claims   claims
	resource string
}

// grant judges a token request, in the order in which Entra ID does: form,
// tenant, application, credential, resource.
func (s *Simulator) grant(w http.ResponseWriter, r *http.Request, tenantName string, version int) (granted, *aadError) {
	if r.Method != http.MethodPost {
		return granted{}, refuse(900561, r.Method)
	}
	form, refusal := tokenForm(w, r)
	if refusal != nil {
		return granted{}, refusal
	}
	t := s.directory.tenant(tenantName)
	if t == nil {
		if slices.Contains(anyTenant, strings.ToLower(tenantName)) {
			return granted{}, refuse(50194, form.Get("client_id"))
		}
		return granted{}, refuse(90002, tenantName)
	}
	if form.Get("grant_type") == "" {
		return granted{}, refuse(900144, "grant_type")
	}
	clientID, secret := form.Get("client_id"), form.Get("client_secret")
	if user, pass, ok := r.BasicAuth(); ok {
		// RFC 6749, section 2.3.1: both halves are form-encoded first.
		id, err1 := url.QueryUnescape(user)
		key, err2 := url.QueryUnescape(pass)
		if err1 != nil || err2 != nil {
			return granted{}, refuse(9002313)
		}
		clientID, secret = id, key
	}
	if clientID == "" {
		return granted{}, refuse(900144, "client_id")
	}
	a, ok := s.directory.app(t, clientID)
	if !ok {
		return granted{}, refuse(700016, clientID, t.name)
	}
	switch form.Get("grant_type") {
	case "client_credentials":
		if secret == "" {
			return granted{}, refuse(7000218)
		}
		if refusal := checkSecret(a, secret); refusal != nil {
			return granted{}, refusal
		}
		return appGrant(t, a, form, version)
	case "password":
		if secret != "" {
			if refusal := checkSecret(a, secret); refusal != nil {
				return granted{}, refusal
			}
		}
		return userGrant(t, a, form, version)
	default:
		return granted{}, refuse(70003, form.Get("grant_type"))
	}
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
	if a.disabled {
		return refuse(7000112, a.clientID)
	}
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
			if forUser && slices.Contains([]string{"openid", "profile", "email", "offline_access"}, one) {
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
		Roles: a.permissions[service],
	}}, nil
}

// userGrant is the resource owner's password grant.
func userGrant(t *tenant, a app, form url.Values, version int) (granted, *aadError) {
	if a.disabled {
		return granted{}, refuse(7000112, a.clientID)
	}
	for _, field := range []string{"username", "password"} {
		if form.Get(field) == "" {
			return granted{}, refuse(900144, field)
		}
	}
	at := slices.IndexFunc(a.users, func(u User) bool { return strings.EqualFold(u.Name, form.Get("username")) })
	if at < 0 {
		return granted{}, refuse(50034, form.Get("username"), t.name)
	}
	user := a.users[at]
	if !holds([]string{user.Password}, form.Get("password")) {
		return granted{}, refuse(50126)
	}
	service, audience, wanted, refusal := resource(t, form, version, true)
	if refusal != nil {
		return granted{}, refusal
	}
	held := user.Scopes[service]
	for _, one := range wanted {
		if one != ".default" && !slices.Contains(held, one) {
			return granted{}, refuse(65001, a.clientID)
		}
	}
	if len(held) == 0 {
		return granted{}, refuse(65001, a.clientID)
	}
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte(fmt.Sprint(t.id, user.Name))).String()
	return granted{resource: audience, claims: claims{
		Audience: audience, AppID: a.clientID, AppIDACR: "0", IDType: "user",
		ObjectID: id, Subject: id, TenantID: t.id,
		Scopes: strings.Join(held, " "), UniqueName: user.Name, UPN: user.Name,
	}}, nil
}
