package simulator

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// vault is a key vault with its secrets. Its names, codes and answers are those
// of "Get Secret" (learn.microsoft.com/rest/api/keyvault/secrets/get-secret) and
// "Azure Key Vault REST API Error Codes"
// (learn.microsoft.com/azure/key-vault/general/rest-error-codes).
type vault struct {
	tenant string // ID
	gate   *gate
	faults *faultBox

	mu      sync.Mutex
	secrets map[string][]*vaultSecret // by name in lower case, oldest version first
}

// Bounds of what the vault keeps.
const (
	maxSecrets        = 1000
	maxSecretVersions = 100
	maxSecretValue    = 25 << 10 // Azure's own limit
)

// vaultSecret is one version of a secret.
type vaultSecret struct {
	version  string
	value    string
	disabled bool
	created  time.Time
	updated  time.Time
	expires  time.Time // zero for never
}

func newVault(s *Simulator, tenantID string) (*vault, error) {
	if tenantID == "" {
		tenantID = s.cfg.Tenants[0].ID
	}
	t := s.directory.tenant(tenantID)
	if t == nil {
		return nil, fmt.Errorf("vault tenant %q is none of the tenants", tenantID)
	}
	v := &vault{tenant: t.id, faults: newFaultBox(0)}
	v.reset()
	return v, nil
}

func (v *vault) reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secrets = map[string][]*vaultSecret{}
}

var (
	secretName    = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	secretVersion = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// SetVaultSecret adds a version of a secret, which is then the one that is
// given without asking for a version, and returns the version's name. The zero
// expires means never; Key Vault gives a secret whose time is over all the same
// and leaves the judgement to the caller.
func (s *Simulator) SetVaultSecret(name, value string, expires time.Time) (version string, err error) {
	if !secretName.MatchString(name) {
		return "", fmt.Errorf("simulator: secret name %q: use letters, digits and dashes, 127 at most", name)
	}
	if len(value) > maxSecretValue {
		return "", fmt.Errorf("simulator: the value of secret %s is longer than %d bytes", name, maxSecretValue)
	}
	raw := make([]byte, 16)
	rand.Read(raw)
	now := s.now()
	one := &vaultSecret{version: hex.EncodeToString(raw), value: value, created: now, updated: now, expires: expires}
	v, key := s.vault, strings.ToLower(name)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.secrets[key] == nil && len(v.secrets) == maxSecrets {
		return "", fmt.Errorf("simulator: the vault holds %d secrets already", maxSecrets)
	}
	versions := append(v.secrets[key], one)
	v.secrets[key] = versions[max(0, len(versions)-maxSecretVersions):]
	return one.version, nil
}

// SetVaultSecretEnabled switches the newest version of a secret on or off.
func (s *Simulator) SetVaultSecretEnabled(name string, enabled bool) error {
	s.vault.mu.Lock()
	defer s.vault.mu.Unlock()
	versions := s.vault.secrets[strings.ToLower(name)]
	if len(versions) == 0 {
		return fmt.Errorf("simulator: the vault has no secret %q", name)
	}
	newest := versions[len(versions)-1]
	newest.disabled, newest.updated = !enabled, s.now()
	return nil
}

// DeleteVaultSecret deletes a secret with all its versions.
func (s *Simulator) DeleteVaultSecret(name string) {
	s.vault.mu.Lock()
	defer s.vault.mu.Unlock()
	delete(s.vault.secrets, strings.ToLower(name))
}

// find copies a version, the newest for an empty one.
func (v *vault) find(name, version string) (vaultSecret, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	versions := v.secrets[strings.ToLower(name)]
	if version == "" && len(versions) > 0 {
		return *versions[len(versions)-1], true
	}
	at := slices.IndexFunc(versions, func(o *vaultSecret) bool { return o.version == version })
	if at < 0 {
		return vaultSecret{}, false
	}
	return *versions[at], true
}

// vaultError is a refusal of the vault's.
type vaultError struct {
	status               int
	code, message, inner string
}

// vaultHandler answers for NAME.vault.azure.net.
func (s *Simulator) vaultHandler() http.Handler {
	return s.recorded("vault", "", func(w http.ResponseWriter, r *http.Request, rec *Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("x-ms-request-id", uuid.NewString())
		h.Set("x-ms-keyvault-service-version", "1.9.2300.1")
		if id := r.Header.Get("x-ms-client-request-id"); id != "" {
			h.Set("x-ms-client-request-id", id)
		}
		if fault, struck := s.vault.faults.take(r.URL.Path); struck {
			if s.commonFault(w, r, fault) {
				return
			}
			if fault.Kind == FaultThrottle {
				if fault.RetryAfter == "" {
					fault.RetryAfter = "1"
				}
				h.Set("Retry-After", fault.RetryAfter)
				writeVaultError(w, vaultError{http.StatusTooManyRequests, "Throttled", "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached", ""})
				return
			}
		}
		if e := s.answerVault(w, r, rec); e != nil {
			if e.status == http.StatusUnauthorized {
				h.Set("WWW-Authenticate", `Bearer authorization="`+s.Authority()+"/"+s.vault.tenant+`", resource="https://vault.azure.net"`)
			}
			writeVaultError(w, *e)
		}
	})
}

func writeVaultError(w http.ResponseWriter, e vaultError) {
	row := map[string]any{"code": e.code, "message": e.message}
	if e.inner != "" {
		row["innererror"] = map[string]string{"code": e.inner}
	}
	writeJSON(w, e.status, map[string]any{"error": row})
}

// answerVault judges a request as the vault does: token, rights, then what is
// asked for, so that a stranger does not learn which secrets there are.
func (s *Simulator) answerVault(w http.ResponseWriter, r *http.Request, rec *Request) *vaultError {
	c, reason := s.present(r, rec)
	switch {
	case reason == RefusedMissing:
		return &vaultError{401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.", ""}
	case reason == RefusedExpired:
		return &vaultError{401, "Unauthorized", "[TokenExpired] Error validating token: 'S2S12086: The token is expired'.", ""}
	case reason != refusedNot:
		return &vaultError{401, "Unauthorized", "[BearerReadAccessTokenFailed] Error validating token: 'S2S12005'.", ""}
	case serviceOf(c.Audience) != "vault":
		s.wrongAudience(rec)
		return &vaultError{401, "Unauthorized", "AKV10022: Invalid audience. Expected https://vault.azure.net, found: " + c.Audience + ".", ""}
	case c.TenantID != s.vault.tenant:
		return &vaultError{401, "Unauthorized", "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/" + s.vault.tenant + "/, found " + c.Issuer + ".", ""}
	}
	s.ring.update(rec, func(q *Request) { q.Tenant, q.App = c.TenantID, c.AppID })
	if r.URL.Query().Get("api-version") == "" {
		return &vaultError{400, "BadParameter", "api-version must be specified", ""}
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "secrets" {
		return &vaultError{404, "NotFound", "The simulator has secrets only, at /secrets/NAME and /secrets/NAME/VERSION.", ""}
	}
	if r.Method != http.MethodGet {
		return &vaultError{405, "HttpMethodNotAllowed", "The request method is not allowed.", ""}
	}
	name, version := parts[1], ""
	if len(parts) == 3 {
		version = parts[2]
	}
	if !secretName.MatchString(name) || version != "" && !secretVersion.MatchString(version) {
		return &vaultError{400, "BadParameter", "The request URI contains an invalid name: " + name, ""}
	}
	if !s.directory.mayReadSecrets(c) {
		return &vaultError{403, "Forbidden", fmt.Sprintf("Caller is not authorized to perform action on resource.\r\n"+
			"If role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\n"+
			"Caller: appid=%s;oid=%s;iss=%s\r\nAction: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\nResource: '/secrets/%s'", c.AppID, c.ObjectID, c.Issuer, name), "ForbiddenByRbac"}
	}
	secret, ok := s.vault.find(name, version)
	if !ok {
		return &vaultError{404, "SecretNotFound", "A secret with (name/id) " + strings.TrimSuffix(name+"/"+version, "/") + " was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182", ""}
	}
	if secret.disabled {
		return &vaultError{403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled"}
	}
	attributes := map[string]any{
		"enabled": true, "created": secret.created.Unix(), "updated": secret.updated.Unix(),
		"recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90,
	}
	if !secret.expires.IsZero() {
		attributes["exp"] = secret.expires.Unix()
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"value": secret.value, "contentType": "text/plain", "id": "https://" + r.Host + "/secrets/" + name + "/" + secret.version,
		"attributes": attributes, "tags": map[string]string{},
	})
	return nil
}

// mayReadSecrets tells whether the bearer of a token has any role on the vault.
// Roles count as they are now, whatever the token's age.
func (d *directory) mayReadSecrets(c claims) bool {
	t := d.tenant(c.TenantID)
	if t == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := t.apps[strings.ToLower(c.AppID)]; a != nil && len(a.permissions["vault"]) > 0 {
		return true
	}
	return slices.ContainsFunc(d.identities, func(i Identity) bool {
		return strings.EqualFold(i.ObjectID, c.ObjectID) && len(i.Permissions["vault"]) > 0
	})
}
