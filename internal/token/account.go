package token

import (
	"fmt"
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

// Account is an application in a tenant, and how it proves itself to Entra ID.
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
	// ClientID is the application's id, a GUID.
	ClientID string
	// Secret yields the client secret. It is called for each fetch, so that a
	// changed file is used, and must return soon: it holds one of the places
	// for fetches meanwhile. Its error may name a file or a variable, never a
	// secret.
	Secret  func() (string, error)
	Version Version
}

// request is what one fetch sends: the client secret grant of either endpoint.
// Another kind of credential sets other EndpointParams here.
//
// The auth style is fixed, because x/oauth2 otherwise sends the secret twice
// to find out which the server takes. The authority is used as configured,
// without discovery, which closed networks do not let through.
func (a Account) request(audience, secret string) (*clientcredentials.Config, error) {
	base, err := a.endpointBase()
	if err != nil {
		return nil, err
	}
	c := &clientcredentials.Config{
		ClientID:     a.ClientID,
		ClientSecret: secret,
		AuthStyle:    oauth2.AuthStyleInParams,
	}
	switch a.Version {
	case V1:
		c.TokenURL = base + "/oauth2/token"
		c.EndpointParams = url.Values{"resource": {audience}}
	case V2, "":
		// An audience with a trailing slash gives two of them, and has to: Entra
		// takes off "/.default" and compares the rest.
		c.TokenURL = base + "/oauth2/v2.0/token"
		c.Scopes = []string{audience + "/.default"}
	default:
		return nil, fmt.Errorf("token version %q is not known: it is v1 or v2", a.Version)
	}
	return c, nil
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
	case a.ClientID == "":
		return "", fmt.Errorf("the credential has no client_id")
	}
	return strings.TrimRight(a.Authority, "/") + "/" + url.PathEscape(string(a.Tenant)), nil
}

// consentURL is where an administrator of the tenant grants what the
// application asks for (learn.microsoft.com/entra/identity-platform/v2-admin-consent).
func (a Account) consentURL() string {
	return strings.TrimRight(a.Authority, "/") + "/" + string(a.Tenant) + "/adminconsent?client_id=" + url.QueryEscape(a.ClientID)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
