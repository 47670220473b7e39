package credential

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"defender-proxy/internal/token"
)

// machine gets tokens of a machine's identity from the machine's own endpoint:
// IMDS of a virtual machine, App Service, Azure Arc and what else azidentity
// finds in the environment, but not Service Fabric, which pins a certificate.
type machine struct {
	// clientID picks a user-assigned identity; empty for the system's.
	clientID  string
	transport http.RoundTripper
	// setting is where clientID is set, for messages.
	setting string

	once   sync.Once
	direct http.RoundTripper
}

// machineRetry is short: IMDS asks for 404, 410, 429 and 5xx to be tried again
// (learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token,
// stored copy of MicrosoftDocs/entra-docs read 2026-11), azidentity knows these
// codes, and the engine goes on where this ends. An answer that does not come is
// not waited for twice: off Azure, nobody is there.
var machineRetry = policy.RetryOptions{
	MaxRetries:    2,
	RetryDelay:    400 * time.Millisecond,
	MaxRetryDelay: 2 * time.Second,
	TryTimeout:    10 * time.Second,
	ShouldRetry: func(resp *http.Response, err error) bool {
		if err != nil {
			return false
		}
		switch resp.StatusCode {
		case http.StatusNotFound, http.StatusGone, http.StatusTooManyRequests:
			return true
		}
		return resp.StatusCode >= 500
	},
}

var guid = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

func newMachine(o IdentityOptions) (*machine, error) {
	if o.ClientID != "" && !guid.MatchString(o.ClientID) {
		return nil, misconfigured(fmt.Sprintf("The managed identity's client_id %q is not a GUID.", o.ClientID), "Set the client ID of the user-assigned identity, as its page in the Azure portal shows it, or leave it out for the system's.")
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	return &machine{clientID: o.ClientID, transport: o.Transport, setting: "managed_identity.client_id"}, nil
}

// straight is the transport without the network's proxy. The endpoint belongs to
// this machine, and a proxy would ask its own machine's: "IMDS isn't intended to
// be used behind a proxy" (the page above). Connections are not kept, for the
// next request comes in an hour.
func (m *machine) straight() http.RoundTripper {
	m.once.Do(func() {
		switch t := m.transport.(type) {
		case interface{ Direct() http.RoundTripper }:
			m.direct = t.Direct()
		case *http.Transport:
			own := t.Clone()
			own.Proxy = nil
			own.DisableKeepAlives = true
			m.direct = own
		default:
			m.direct = t
		}
	})
	return m.direct
}

// token asks for a token for the audience. Unless fresh, MSAL's cache, which the
// whole process shares, may give one: a thousand tenants with one identity would
// else ask an endpoint that answers some requests a second.
//
// The SDK's client is made for each call, because it looks at the environment
// only then, and making it is cheap.
func (m *machine) token(ctx context.Context, audience string, now time.Time, fresh bool) (text string, life time.Duration, fault *token.Fault) {
	ctx, sight := watch(ctx)
	o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: sdkOptions(m.straight(), "", machineRetry)}
	if m.clientID != "" {
		o.ID = azidentity.ClientID(m.clientID)
	}
	c, err := azidentity.NewManagedIdentityCredential(o)
	if err != nil {
		return "", 0, misconfigured("The managed identity cannot be used here: "+oneLine(err.Error())+".", "Check the variables IDENTITY_ENDPOINT, IDENTITY_HEADER, MSI_ENDPOINT and "+m.setting+".")
	}
	ask := policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}}
	if fresh {
		// Claims that are not empty make MSAL pass over its cache, and go no further
		// than that: the endpoint is not sent them (Client.AcquireToken in
		// apps/managedidentity of microsoft-authentication-library-for-go v1.10.1).
		// IMDS has a cache of its own, which nothing passes over.
		ask.Claims = "{}"
	}
	t, err := c.GetToken(ctx, ask)
	s := sight.last()
	if err != nil {
		return "", 0, m.explain(ctx, audience, s, err)
	}
	if s.requests == 0 {
		s.expiresOn = t.ExpiresOn
	}
	if life = s.life(now); t.Token == "" || life <= 0 {
		return "", 0, &token.Fault{Kind: token.Unavailable,
			Sentence: "The identity endpoint of this machine answered, but not with a token that is still valid.",
			Remedy:   "Check that nothing else answers in its place, and this machine's clock (NTP)."}
	}
	return t.Token, life, nil
}

// life is what is left of a token's life. IMDS counts expires_in from when the
// token was issued (the page above), which may be long ago since it caches;
// expires_on is by the clock, so the answer's own Date is the one to compare.
func (s seen) life(now time.Time) time.Duration {
	life := s.expiresIn
	if !s.expiresOn.IsZero() {
		if !s.date.IsZero() {
			now = s.date
		}
		left := s.expiresOn.Sub(now)
		if life == 0 || left < life {
			life = left
		}
	}
	return life
}

// explain makes a fault of what was seen. The SDK's words stay out of it: they
// quote bodies.
func (m *machine) explain(ctx context.Context, audience string, s seen, err error) *token.Fault {
	endpoint := "The identity endpoint of this machine"
	if s.host != "" {
		endpoint += ", " + s.host + ","
	}
	which := "system-assigned identity"
	if m.clientID != "" {
		which = "identity " + m.clientID
	}
	switch {
	case s.requests == 0 && ctx.Err() == nil:
		return misconfigured("The managed identity cannot be used here: "+oneLine(err.Error())+".", "Check the variables IDENTITY_ENDPOINT and IDENTITY_HEADER.")
	case s.err != nil || s.requests == 0:
		return &token.Fault{Kind: token.Unreachable,
			Sentence: endpoint + " cannot be reached: " + noAnswer(ctx, s) + ".",
			Remedy:   "Managed identity works on Azure and on machines with the Azure Arc agent; elsewhere use another credential. In a container, check that it may reach the address."}
	case s.status == http.StatusNotFound || s.status == http.StatusGone:
		return &token.Fault{Kind: token.Unavailable, RetryAfter: s.retryAfter,
			Sentence: fmt.Sprintf("%s answers %d: there is no managed identity on this machine, or the endpoint is being updated.", endpoint, s.status),
			Remedy:   "Assign an identity to the machine in the Azure portal (Identity). An update takes about a minute."}
	case s.status == http.StatusUnauthorized && strings.HasPrefix(s.challenge, "Basic realm="):
		return arcFault(s)
	case s.status == http.StatusBadRequest && s.is("invalid_resource"):
		return &token.Fault{Kind: token.Rejected,
			Sentence: fmt.Sprintf("The API %s is not known in the tenant of the %s.", audience, which),
			Remedy:   "Check that this tenant has the Defender product, and the audience for its cloud."}
	case s.status == http.StatusBadRequest && m.clientID != "":
		return &token.Fault{Kind: token.Rejected,
			Sentence: fmt.Sprintf("The identity %s is not assigned to this machine%s.", m.clientID, s.code()),
			Remedy:   "Assign it in the Azure portal (Identity, User assigned), or correct " + m.setting + ": it is the identity's client ID, not its object ID."}
	case s.status == http.StatusBadRequest:
		return &token.Fault{Kind: token.Rejected,
			Sentence: "This machine has no system-assigned identity, or has several others to choose from" + s.code() + ".",
			Remedy:   "Switch the system-assigned identity on in the Azure portal (Identity), or set " + m.setting + "."}
	case s.status == http.StatusTooManyRequests:
		return &token.Fault{Kind: token.Unavailable, RetryAfter: s.retryAfter, Sentence: endpoint + " gets too many requests.", Remedy: "Wait; the proxy tries again."}
	case s.status >= 500:
		return &token.Fault{Kind: token.Unavailable, RetryAfter: s.retryAfter, Sentence: fmt.Sprintf("%s has a passing fault (%d)%s.", endpoint, s.status, s.code()), Remedy: "Wait; the proxy tries again. If it stays, look at the machine's Identity page in the Azure portal."}
	case s.status == http.StatusOK:
		return &token.Fault{Kind: token.Unavailable, Sentence: endpoint + " answered, but not with a token for the " + which + ".", Remedy: "Check that nothing else answers in its place, and on Azure Arc that the agent supports the identity."}
	}
	return &token.Fault{Kind: token.Rejected,
		Sentence: fmt.Sprintf("%s refuses a token for the %s with %d%s.", endpoint, which, s.status, s.code()),
		Remedy:   "Check the machine's Identity page in the Azure portal, and that nothing else answers in the endpoint's place."}
}

// arcFault explains a 401 of the Azure Arc agent, which asks for the content of a
// file that only members of the group himds can read
// (learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication).
func arcFault(s seen) *token.Fault {
	path := strconv.Quote(oneLine(strings.TrimPrefix(s.challenge, "Basic realm=")))
	if s.requests > 1 {
		return &token.Fault{Kind: token.Rejected, Sentence: "The Azure Arc agent does not accept the content of its own key file " + path + ".", Remedy: "Restart the agent (azcmagent)."}
	}
	return misconfigured("The key file "+path+" of the Azure Arc agent cannot be read.",
		"Add the user that the proxy runs as to the group himds (on Windows: Hybrid Agent Extension Applications), and start the proxy again.")
}
