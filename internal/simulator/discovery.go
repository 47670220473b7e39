package simulator

import (
	"net/http"
	"slices"
	"strings"
)

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
	doc["token_endpoint_auth_methods_supported"] = []string{"client_secret_post", "private_key_jwt", "client_secret_basic"}
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
