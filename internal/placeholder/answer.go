package placeholder

import (
	"encoding/json"
	"strings"
	"time"
)

// Question is what an answer depends on.
type Question struct {
	Kind Kind
	// Base is the proxy's URL as the tool calls it, with the prefix of a tenant of the
	// proxy's if it has one and without a slash at its end; Prefix is what Find gave.
	Base, Prefix string
	// Tenant is the one that an instance is asked for: see TenantOf.
	Tenant string
	// NoIDToken leaves the ID token out: see Strict.
	NoIDToken bool
	Now       time.Time
}

// Answer is the JSON document that answers q, at most some ten times as long as
// its URLs.
func Answer(q Question) []byte {
	var v any
	switch q.Kind {
	case Token:
		v = token(q)
	case DeviceCode:
		v = deviceCode(q)
	case DiscoveryV1, DiscoveryV2:
		v = discovery(q)
	case Instance:
		v = instance(q)
	case UserRealm:
		v = managed
	default:
		v = noKeys
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	return b
}

// deviceCode is answered as if somebody had logged in on another device already, so
// that the first poll gets its token. Version 1 called the address verification_url
// (x/oauth2 reads either).
func deviceCode(q Question) any {
	return struct {
		DeviceCode      string `json:"device_code"`
		UserCode        string `json:"user_code"`
		VerificationURI string `json:"verification_uri"`
		VerificationURL string `json:"verification_url"`
		ExpiresIn       int    `json:"expires_in"`
		Interval        int    `json:"interval"`
		Message         string `json:"message"`
	}{
		DeviceCode: "placeholder", UserCode: "NOT-NEEDED",
		VerificationURI: q.Base + "/", VerificationURL: q.Base + "/",
		ExpiresIn: 900, Interval: 1,
		// Some tools look for the address in here.
		Message: "No sign-in is needed: defender-proxy answers without one. The program goes on by itself; " + q.Base + "/ tells more.",
	}
}

// discovery has the members that OpenID Connect Discovery 1.0 requires (section 3)
// and those that MSAL reads. Its issuer is what the document was asked of, as that
// standard demands (section 4.3) and MSAL compares by host. There are no keys:
// whoever verifies a signature shall not take a placeholder for a token.
func discovery(q Question) any {
	at, version, issuer := q.Base+q.Prefix, "", ""
	if q.Kind == DiscoveryV2 {
		version, issuer = "/v2.0", "/v2.0"
	}
	return struct {
		Issuer        string   `json:"issuer"`
		Authorization string   `json:"authorization_endpoint"`
		Token         string   `json:"token_endpoint"`
		DeviceCode    string   `json:"device_authorization_endpoint"`
		Keys          string   `json:"jwks_uri"`
		Proofs        []string `json:"token_endpoint_auth_methods_supported"`
		Scopes        []string `json:"scopes_supported"`
		Responses     []string `json:"response_types_supported"`
		Subjects      []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{
		Issuer:        at + issuer,
		Authorization: at + "/oauth2" + version + "/authorize",
		Token:         at + "/oauth2" + version + "/token",
		DeviceCode:    at + "/oauth2" + version + "/devicecode",
		Keys:          at + "/discovery" + version + "/keys",
		Proofs:        []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		Scopes:        []string{"openid", "profile", "email", "offline_access"},
		Responses:     []string{"code"},
		Subjects:      []string{"pairwise"},
		Algorithms:    []string{"RS256"},
	}
}

// instance says that an authority is one, under the name that it was called by and
// no other: MSAL for Node goes on with the preferred name, and only this one is
// known to lead here.
func instance(q Question) any {
	type names struct {
		Network string   `json:"preferred_network"`
		Cache   string   `json:"preferred_cache"`
		Aliases []string `json:"aliases"`
	}
	_, host, _ := strings.Cut(q.Base, "://")
	host, _, _ = strings.Cut(host, "/")
	return struct {
		Endpoint string  `json:"tenant_discovery_endpoint"`
		Version  string  `json:"api-version"`
		Metadata []names `json:"metadata"`
	}{
		Endpoint: q.Base + q.Prefix + "/" + q.Tenant + "/v2.0/.well-known/openid-configuration",
		Version:  "1.1",
		Metadata: []names{{host, host, []string{host}}},
	}
}

// managed says that users log in here and not with a federation server, which a
// tool would ask next.
var managed = struct {
	Version  string `json:"ver"`
	Account  string `json:"account_type"`
	Domain   string `json:"domain_name"`
	Instance string `json:"cloud_instance_name"`
	Audience string `json:"cloud_audience_urn"`
}{"1.0", "Managed", "placeholder.invalid", "microsoftonline.com", "urn:federation:MicrosoftOnline"}

var noKeys = struct {
	Keys []string `json:"keys"`
}{[]string{}}
