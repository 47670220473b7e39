package simulator

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// identityService is what a machine asks for the token of a managed identity:
// the instance metadata service of a virtual machine, App Service, or the agent
// of Azure Arc.
type identityService struct {
	gate     *gate
	faults   *faultBox
	header   string // X-IDENTITY-HEADER
	arc      *arcAgent
	start    time.Duration
	lifetime atomic.Int64 // nanoseconds

	mu    sync.Mutex
	cache bounded[identityToken] // by object id and resource
}

// identityToken is a token that is handed out until it is near its end.
type identityToken struct {
	access    string
	notBefore time.Time
	expires   time.Time
}

// maxIdentityTokens bounds the cache.
const maxIdentityTokens = 1000

func newIdentityService(cfg Config) *identityService {
	i := &identityService{faults: newFaultBox(0), header: cfg.IdentityHeader, start: cfg.IdentityTokenLifetime}
	if i.header == "" {
		i.header = uuid.NewString()
	}
	if cfg.ArcKeyDir != "" {
		i.arc = newArcAgent(cfg.ArcKeyDir)
	}
	i.reset()
	return i
}

func (i *identityService) reset() {
	i.lifetime.Store(int64(i.start))
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cache = newBounded[identityToken](maxIdentityTokens)
}

// SetIdentityTokenLifetime sets the life of tokens that the machine's identity
// endpoints fetch from now on; those at hand are handed out further.
func (s *Simulator) SetIdentityTokenLifetime(d time.Duration) { s.identity.lifetime.Store(int64(d)) }

// ForgetIdentityTokens empties the cache of the machine's identity endpoints.
func (s *Simulator) ForgetIdentityTokens() {
	s.identity.mu.Lock()
	defer s.identity.mu.Unlock()
	s.identity.cache = newBounded[identityToken](maxIdentityTokens)
}

// IdentityHeader is what App Service would put into the variable
// IDENTITY_HEADER.
func (s *Simulator) IdentityHeader() string { return s.identity.header }

// identityRefusal is an answer other than 200.
type identityRefusal struct {
	status            int
	code, description string
}

func (e identityRefusal) write(w http.ResponseWriter) {
	writeJSON(w, e.status, map[string]any{"error": e.code, "error_description": e.description})
}

// identityHandler answers at 169.254.169.254 and at the addresses of
// IDENTITY_ENDPOINT.
func (s *Simulator) identityHandler() http.Handler {
	return s.recorded("identity", "", func(w http.ResponseWriter, r *http.Request, rec *Request) {
		if fault, struck := s.identity.faults.take(r.URL.Path); struck {
			if fault.Kind == FaultStatus {
				if fault.RetryAfter != "" {
					w.Header().Set("Retry-After", fault.RetryAfter)
				}
				identityRefusal{fault.Status, strings.ToLower(statusCode(fault.Status)), fmt.Sprintf("The simulator was told to answer %d.", fault.Status)}.write(w)
				return
			}
			if s.commonFault(w, r, fault) {
				return
			}
		}
		q := r.URL.Query()
		var refusal *identityRefusal
		switch version := q.Get("api-version"); {
		case r.Method != http.MethodGet:
			refusal = &identityRefusal{http.StatusMethodNotAllowed, "invalid_request", "Only GET is allowed."}
		case r.URL.Path == "/metadata/identity/oauth2/token" && slices.Contains(arcVersions, version):
			refusal = s.arcToken(w, r, rec, q)
		case r.URL.Path == "/metadata/identity/oauth2/token":
			refusal = s.imdsToken(w, r, rec, q)
		case r.URL.Path == "/msi/token":
			refusal = s.appServiceToken(w, r, rec, q)
		default:
			refusal = &identityRefusal{http.StatusNotFound, "not_found", "There is nothing at " + r.URL.Path + "."}
		}
		if refusal != nil {
			refusal.write(w)
		}
	})
}

// imdsToken is the endpoint of a virtual machine
// (learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
func (s *Simulator) imdsToken(w http.ResponseWriter, r *http.Request, rec *Request, q url.Values) *identityRefusal {
	switch {
	case r.Header.Get("Metadata") != "true":
		return &identityRefusal{http.StatusBadRequest, "bad_request_102", "Required metadata header not specified"}
	case len(r.Header.Values("X-Forwarded-For")) > 0:
		// learn.microsoft.com/azure/virtual-machines/instance-metadata-service, "Security and authentication".
		return &identityRefusal{http.StatusBadRequest, "invalid_request", "Requests with the header X-Forwarded-For are rejected."}
	case q.Get("api-version") == "":
		return &identityRefusal{http.StatusBadRequest, "invalid_request", "Required query variable 'api-version' is missing"}
	}
	who, token, refusal := s.identityToken(rec, q)
	if refusal != nil {
		return refusal
	}
	left := token.expires.Sub(s.now())
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token.access, "client_id": who.ClientID, "token_type": "Bearer", "resource": q.Get("resource"),
		"expires_in": strconv.FormatInt(int64(left/time.Second), 10), "ext_expires_in": strconv.FormatInt(int64(left/time.Second), 10),
		"expires_on": strconv.FormatInt(token.expires.Unix(), 10), "not_before": strconv.FormatInt(token.notBefore.Unix(), 10),
	})
	return nil
}

// appServiceToken is the endpoint of App Service and Functions
// (learn.microsoft.com/azure/app-service/overview-managed-identity, "REST
// endpoint reference"). The status for a wrong header is not documented.
func (s *Simulator) appServiceToken(w http.ResponseWriter, r *http.Request, rec *Request, q url.Values) *identityRefusal {
	switch {
	case r.Header.Get("X-Identity-Header") != s.identity.header:
		return &identityRefusal{http.StatusUnauthorized, "unauthorized", "The header X-IDENTITY-HEADER is missing or wrong."}
	case q.Get("api-version") != "2019-08-01":
		return &identityRefusal{http.StatusBadRequest, "invalid_request", "The simulator knows api-version 2019-08-01."}
	}
	who, token, refusal := s.identityToken(rec, q)
	if refusal != nil {
		return refusal
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token.access, "client_id": who.ClientID, "token_type": "Bearer", "resource": q.Get("resource"),
		"expires_on": strconv.FormatInt(token.expires.Unix(), 10),
	})
	return nil
}

// identityToken finds the identity and gives its token, the same one until it
// is near its end.
func (s *Simulator) identityToken(rec *Request, q url.Values) (Identity, identityToken, *identityRefusal) {
	name := q.Get("resource")
	if name == "" {
		return Identity{}, identityToken{}, &identityRefusal{http.StatusBadRequest, "invalid_request", "Required query variable 'resource' is missing"}
	}
	who, refusal := s.directory.findIdentity(q)
	if refusal != nil {
		return Identity{}, identityToken{}, refusal
	}
	s.ring.update(rec, func(r *Request) { r.Tenant, r.App = who.TenantID, who.ClientID })
	service := serviceOf(name)
	if service == "" {
		return Identity{}, identityToken{}, &identityRefusal{http.StatusBadRequest, "invalid_resource",
			fmt.Sprintf("AADSTS500011: The resource principal named %s was not found in the tenant named %s.", name, who.TenantID)}
	}
	i, now := s.identity, s.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	key := who.ObjectID + " " + strings.ToLower(name)
	if t, ok := i.cache.rows[key]; ok {
		life := t.expires.Sub(t.notBefore)
		if t.expires.Sub(now) > min(5*time.Minute, life/10) {
			return who, t, nil
		}
	}
	life := time.Duration(i.lifetime.Load())
	c := claims{
		Audience: strings.TrimSuffix(name, "/"), AppID: who.ClientID, AppIDACR: "2", IDType: "app",
		Provider: "https://sts.windows.net/" + who.TenantID + "/",
		ObjectID: who.ObjectID, Subject: who.ObjectID, TenantID: who.TenantID,
		Roles: rolesFor(service, who.Permissions),
	}
	if service == "exchange" {
		c.issuer = s.Authority() + "/" + who.TenantID + "/v2.0"
	}
	access, err := s.signer.sign(c, now, life)
	if err != nil {
		return Identity{}, identityToken{}, &identityRefusal{http.StatusInternalServerError, "unknown", "Failed to retrieve token from the Active directory."}
	}
	s.directory.countIssued(Issued{c.TenantID, c.AppID, c.Audience})
	t := identityToken{access, now, now.Add(life)}
	i.cache.add(key, t)
	return who, t, nil
}

// findIdentity finds the identity that a request names, by client_id or
// object_id; without a name the machine's own, else the only one.
func (d *directory) findIdentity(q url.Values) (Identity, *identityRefusal) {
	notFound := &identityRefusal{http.StatusBadRequest, "invalid_request", "Identity not found"}
	d.mu.Lock()
	defer d.mu.Unlock()
	client, object := q.Get("client_id"), q.Get("object_id")
	var found []Identity
	for _, i := range d.identities {
		switch {
		case client != "" && !strings.EqualFold(i.ClientID, client), object != "" && !strings.EqualFold(i.ObjectID, object):
			continue
		case client == "" && object == "" && i.System:
			return i, nil
		}
		found = append(found, i)
	}
	switch {
	case len(found) == 0, q.Get("mi_res_id") != "", q.Get("msi_res_id") != "":
		return Identity{}, notFound
	case len(found) > 1:
		return Identity{}, &identityRefusal{http.StatusBadRequest, "invalid_request",
			"Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"}
	}
	return found[0], nil
}
