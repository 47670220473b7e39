package token

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"defender-proxy/internal/tenant"
)

// Version is the endpoint of Entra ID that is asked. The zero value is V2.
type Version string

// The endpoints. V1 names the audience as resource=, V2 as scope= with
// "/.default" behind it (learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow).
const (
	V1 Version = "v1"
	V2 Version = "v2"
)

// Account is an application in a tenant, or a user or a machine through it, and
// how it proves itself to Entra ID.
type Account struct {
	// Name is what the configuration calls the tenant, for messages.
	Name string
	// Cloud names the cloud; two clouds share no token.
	Cloud string
	// Authority is the base URL of Entra ID, such as
	// https://login.microsoftonline.com. Plain http is accepted for a loopback
	// address only.
	Authority string
	Tenant    tenant.ID
	// ClientID is the application's id, a GUID. Empty for the identity of a
	// machine, whose application is known to the machine alone.
	ClientID string
	// Subject tells apart who gets tokens through one application: empty for the
	// application itself, else a word of the configuration's, such as "user". Two
	// subjects share no token.
	Subject    string
	Credential Credential
	Version    Version
	// VerifySignature holds each token against the authority's published keys.
	// Microsoft signs the tokens of some APIs, Graph among them, so that only the
	// API can verify them; those are then refused.
	VerifySignature bool
}

// tokenURL is the endpoint that the account's token requests go to. It errs
// where a secret would leave the machine in the clear.
//
// The authority is used as configured, without discovery, which closed networks
// do not let through.
func (a Account) tokenURL() (string, error) {
	base, err := a.endpointBase()
	switch {
	case err != nil:
		return "", err
	case a.ClientID == "":
		return "", fmt.Errorf("the credential has no client_id")
	case a.Version == V1:
		return base + "/oauth2/token", nil
	case a.Version == V2, a.Version == "":
		return base + "/oauth2/v2.0/token", nil
	}
	return "", fmt.Errorf("token version %q is not known: it is v1 or v2", a.Version)
}

// request is what one exchange sends. The grant is the proof's, that of client
// credentials where it names none.
//
// The auth style is fixed, because x/oauth2 otherwise sends the secret twice
// to find out which the server takes.
func (a Account) request(tokenURL, audience, claims string, proof Proof) *clientcredentials.Config {
	c := &clientcredentials.Config{
		ClientID:       a.ClientID,
		AuthStyle:      oauth2.AuthStyleInParams,
		TokenURL:       tokenURL,
		EndpointParams: maps.Clone(proof.Form),
	}
	if c.EndpointParams == nil {
		c.EndpointParams = url.Values{}
	}
	if a.Version == V1 {
		c.EndpointParams.Set("resource", audience)
	} else {
		// An audience with a trailing slash gives two of them, and has to: Entra
		// takes off "/.default" and compares the rest.
		c.Scopes = []string{audience + "/.default"}
		if proof.Form.Get("grant_type") == "refresh_token" {
			// Without it no new refresh token comes
			// (learn.microsoft.com/entra/identity-platform/scopes-oidc, offline_access).
			c.Scopes = append(c.Scopes, "offline_access")
		}
	}
	if claims != "" {
		c.EndpointParams.Set("claims", claims)
	}
	return c
}

// endpointBase is the authority with the tenant, the part that all endpoints of
// Entra ID share. It errs where a secret would leave the machine in the clear.
func (a Account) endpointBase() (string, error) {
	u, err := url.Parse(a.Authority)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("the authority is not the base URL of an Entra ID, such as https://login.microsoftonline.com")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return "", fmt.Errorf("the authority %s would get the secret in the clear: use https, or a loopback address", a.Authority)
	case u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("the authority %s is neither https nor http", a.Authority)
	case a.Tenant == "":
		return "", fmt.Errorf("the tenant has no id")
	}
	return strings.TrimRight(a.Authority, "/") + "/" + url.PathEscape(string(a.Tenant)), nil
}

// ConsentURL is where an administrator of the tenant grants what the
// application asks for (learn.microsoft.com/entra/identity-platform/v2-admin-consent).
func (a Account) ConsentURL() string {
	return strings.TrimRight(a.Authority, "/") + "/" + string(a.Tenant) + "/adminconsent?client_id=" + url.QueryEscape(a.ClientID)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
