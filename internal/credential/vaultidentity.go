package credential

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"defender-proxy/internal/token"
)

// vaultIdentity is who the proxy is to vaults; it implements
// azcore.TokenCredential. The credential is made at the first use, kept, and
// made anew after a failure, so that a rotated file is read again.
//
// azidentity asks Entra ID for the tenant's openid-configuration before its
// first token, from the authority itself. That cannot be left out; the discovery
// of the authority at login.microsoft.com is.
type vaultIdentity struct {
	options VaultOptions

	mu      sync.Mutex
	current azcore.TokenCredential
	who     vaultWho
}

// vaultWho is what the environment says.
type vaultWho struct {
	clientID, tenantID    string
	secret, cert, file    string
	certPassword          string
	workload, application bool // neither: the machine's identity
}

// words name the identity in sentences.
func (w vaultWho) words() string {
	switch {
	case w.workload, w.application:
		return "application " + w.clientID + " (AZURE_CLIENT_ID)"
	case w.clientID != "":
		return "managed identity " + w.clientID + " (AZURE_CLIENT_ID)"
	}
	return "machine's system-assigned identity"
}

func (i *vaultIdentity) look() vaultWho {
	env := func(name string) string {
		if i.options.Env == nil {
			return ""
		}
		v, _ := i.options.Env(name)
		return v
	}
	w := vaultWho{
		clientID: env("AZURE_CLIENT_ID"), tenantID: env("AZURE_TENANT_ID"),
		secret: env("AZURE_CLIENT_SECRET"), cert: env("AZURE_CLIENT_CERTIFICATE_PATH"), certPassword: env("AZURE_CLIENT_CERTIFICATE_PASSWORD"),
		file: env("AZURE_FEDERATED_TOKEN_FILE"),
	}
	known := w.clientID != "" && w.tenantID != ""
	w.workload = known && w.file != ""
	w.application = known && !w.workload && (w.secret != "" || w.cert != "")
	return w
}

// get gives the credential, made now if need be.
func (i *vaultIdentity) get() (azcore.TokenCredential, vaultWho, *token.Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.current == nil {
		w := i.look()
		c, f := i.make(w)
		if f != nil {
			return nil, w, f
		}
		i.current, i.who = c, w
	}
	return i.current, i.who, nil
}

// forget lets the next use make the credential anew, and with it its tokens.
func (i *vaultIdentity) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.current = nil
}

func (i *vaultIdentity) make(w vaultWho) (azcore.TokenCredential, *token.Fault) {
	authority := i.options.AuthorityHost
	if authority == "" && i.options.Env != nil {
		authority, _ = i.options.Env("AZURE_AUTHORITY_HOST")
	}
	o := sdkOptions(i.options.Transport, authority, vaultRetry)
	var c azcore.TokenCredential
	var err error
	switch {
	case w.workload:
		c, err = azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: o, ClientID: w.clientID, TenantID: w.tenantID, TokenFilePath: w.file, DisableInstanceDiscovery: true,
		})
	case w.application && w.secret == "":
		pair, leaf, f := i.certificate(w)
		if f != nil {
			return nil, f
		}
		c, err = azidentity.NewClientCertificateCredential(w.tenantID, w.clientID, pair.leaves[leaf:leaf+1], pair.key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
	case w.application:
		c, err = azidentity.NewClientSecretCredential(w.tenantID, w.clientID, w.secret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
	default:
		m, bad := newMachine(IdentityOptions{ClientID: w.clientID, Transport: i.options.Transport})
		if bad != nil {
			return nil, misconfigured("AZURE_CLIENT_ID is not a GUID.", "Set the client ID of the identity that may read the vault.")
		}
		m.setting = "AZURE_CLIENT_ID"
		return vaultMachine{m}, nil
	}
	if err != nil {
		return nil, misconfigured("The "+w.words()+" cannot be used for Key Vault: "+oneLine(err.Error())+".", "Check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_AUTHORITY_HOST.")
	}
	return c, nil
}

// certificate loads AZURE_CLIENT_CERTIFICATE_PATH, and gives the place of the
// leaf to use.
func (i *vaultIdentity) certificate(w vaultWho) (*keyPair, int, *token.Fault) {
	c := certificate{files: CertificateFiles{File: w.cert, Password: func() (string, error) { return w.certPassword, nil }}}
	pair, leaf, f := c.current(time.Now())
	if f != nil {
		return nil, 0, f
	}
	for n, l := range pair.leaves {
		if l.Equal(leaf) {
			return pair, n, nil
		}
	}
	return pair, 0, nil
}

// GetToken implements azcore.TokenCredential. Its error is a *token.Fault.
func (i *vaultIdentity) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c, w, f := i.get()
	if f != nil {
		return azcore.AccessToken{}, f
	}
	if w.workload {
		// azidentity's own words about the file are few.
		if _, f := readFederatedToken(w.file, time.Now()); f != nil {
			return azcore.AccessToken{}, f
		}
	}
	if guid.MatchString(o.TenantID) && guid.MatchString(w.tenantID) && !strings.EqualFold(o.TenantID, w.tenantID) {
		return azcore.AccessToken{}, misconfigured(fmt.Sprintf("The vault belongs to tenant %s, and the %s to tenant %s (AZURE_TENANT_ID).", o.TenantID, w.words(), w.tenantID),
			"Use an identity of the vault's own tenant.")
	}
	// The identity has one tenant; AZURE_TENANT_ID may give it by a domain's name,
	// which azidentity would take for another.
	o.TenantID = ""
	ctx, sight := watch(ctx)
	t, err := c.GetToken(ctx, o)
	if err == nil {
		return t, nil
	}
	i.mu.Lock()
	if i.current == c {
		i.current = nil
	}
	i.mu.Unlock()
	return azcore.AccessToken{}, w.explain(ctx, sight.last(), err)
}

// explain makes a fault of what was seen at Entra ID.
func (w vaultWho) explain(ctx context.Context, s seen, err error) *token.Fault {
	if f, ok := err.(*token.Fault); ok { // the machine's
		return f
	}
	code := s.code()
	if s.aadsts != 0 {
		code = fmt.Sprintf(" (AADSTS%d)", s.aadsts)
	}
	switch {
	case s.err != nil || ctx.Err() != nil:
		return &token.Fault{Kind: token.Unreachable,
			Sentence: "Entra ID at " + s.host + " cannot be reached for a token for the vault: " + noAnswer(ctx, s) + ".",
			Remedy:   "Check the network, AZURE_AUTHORITY_HOST, and egress.proxy and egress.ca_file of the configuration."}
	case s.requests == 0:
		return misconfigured("The "+w.words()+" cannot be used for Key Vault.", "Check AZURE_TENANT_ID, AZURE_CLIENT_ID and what proves the identity.")
	case s.status == http.StatusTooManyRequests || s.status >= 500:
		return &token.Fault{Kind: token.Unavailable, RetryAfter: s.retryAfter, Sentence: fmt.Sprintf("Entra ID gives no token for the vault now: %d%s.", s.status, code), Remedy: "Wait; the proxy tries again."}
	}
	what := "AZURE_CLIENT_SECRET"
	switch {
	case w.workload:
		what = "the federated credential of the application (issuer, subject, audience)"
	case w.secret == "":
		what = "that the certificate of AZURE_CLIENT_CERTIFICATE_PATH was uploaded to the application"
	}
	return &token.Fault{Kind: token.Rejected,
		Sentence: fmt.Sprintf("Entra ID gives the %s no token for the vault: %d%s.", w.words(), s.status, code),
		Remedy:   "Check AZURE_TENANT_ID, AZURE_CLIENT_ID and " + what + "."}
}

// vaultMachine is a machine as an azcore.TokenCredential.
type vaultMachine struct{ machine *machine }

// GetToken implements azcore.TokenCredential.
func (v vaultMachine) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now := time.Now()
	// azsecrets keeps the token, and asks again only when it wants another one.
	text, life, f := v.machine.token(ctx, strings.TrimSuffix(o.Scopes[0], "/.default"), now, true)
	if f != nil {
		return azcore.AccessToken{}, f
	}
	return azcore.AccessToken{Token: text, ExpiresOn: now.Add(life)}, nil
}
