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

// vaultIdentity is who the proxy is to vaults. It keeps the tokens, one for each
// domain of vaults, and makes the credential anew for each token, so that a
// rotated file or variable is seen and nothing of a failure stays.
//
// azidentity asks Entra ID for the tenant's openid-configuration before its
// first token, from the authority itself. That cannot be left out; the discovery
// of the authority at login.microsoftonline.com is.
type vaultIdentity struct {
	options VaultOptions
	// turn is held by the one that gets a token; a channel, so that a waiter can
	// leave.
	turn chan struct{}

	mu     sync.Mutex
	tokens map[string]*lentToken // by scope, at most maxVaultScopes
}

const (
	// vaultTokenMargin is how long before its end a token is no longer used.
	vaultTokenMargin = 5 * time.Minute
	// maxVaultScopes bounds the tokens kept: the scope is the vault's word.
	maxVaultScopes = 16
)

func newVaultIdentity(o VaultOptions) *vaultIdentity {
	return &vaultIdentity{options: o, turn: make(chan struct{}, 1), tokens: map[string]*lentToken{}}
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

func (i *vaultIdentity) env(name string) string {
	if i.options.Env == nil {
		return ""
	}
	v, _ := i.options.Env(name)
	return v
}

// look reads the environment. What proves an application, without saying which,
// is a fault: another identity would be asked with it.
func (i *vaultIdentity) look() (vaultWho, *token.Fault) {
	w := vaultWho{
		clientID: i.env("AZURE_CLIENT_ID"), tenantID: i.env("AZURE_TENANT_ID"),
		secret: i.env("AZURE_CLIENT_SECRET"), cert: i.env("AZURE_CLIENT_CERTIFICATE_PATH"), certPassword: i.env("AZURE_CLIENT_CERTIFICATE_PASSWORD"),
		file: i.env("AZURE_FEDERATED_TOKEN_FILE"),
	}
	w.workload = w.file != ""
	w.application = !w.workload && (w.secret != "" || w.cert != "")
	if !w.workload && !w.application {
		return w, nil
	}
	var missing []string
	if w.clientID == "" {
		missing = append(missing, "AZURE_CLIENT_ID")
	}
	if w.tenantID == "" {
		missing = append(missing, "AZURE_TENANT_ID")
	}
	if len(missing) == 0 {
		return w, nil
	}
	verb := " is not set."
	if len(missing) > 1 {
		verb = " are not set."
	}
	return w, misconfigured("The environment has "+w.proof()+" for Key Vault, but "+strings.Join(missing, " and ")+verb,
		"Set it, or take "+w.proof()+" away to use the machine's identity.")
}

// proof names the variable that proves the identity.
func (w vaultWho) proof() string {
	switch {
	case w.workload:
		return "AZURE_FEDERATED_TOKEN_FILE"
	case w.secret != "":
		return "AZURE_CLIENT_SECRET"
	}
	return "AZURE_CLIENT_CERTIFICATE_PATH"
}

// forget drops the tokens: a vault refused one.
func (i *vaultIdentity) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.tokens)
}

// kept gives the token for a scope, if there is one that lives.
func (i *vaultIdentity) kept(scope string) (azcore.AccessToken, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	t := i.tokens[scope]
	if t == nil || t.dead(time.Now()) {
		return azcore.AccessToken{}, false
	}
	return azcore.AccessToken{Token: t.token.text(), ExpiresOn: t.until.Add(vaultTokenMargin)}, true
}

func (i *vaultIdentity) keep(scope string, t azcore.AccessToken) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.tokens) >= maxVaultScopes {
		clear(i.tokens)
	}
	now := time.Now() // with the monotonic clock, which the token's date has not
	i.tokens[scope] = &lentToken{veil(t.Token), now.Add(t.ExpiresOn.Sub(now) - vaultTokenMargin)}
}

func (i *vaultIdentity) make(w vaultWho) (azcore.TokenCredential, *token.Fault) {
	authority := i.options.AuthorityHost
	if authority == "" {
		authority = i.env("AZURE_AUTHORITY_HOST")
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

// GetToken is azcore.TokenCredential's. Its error is a *token.Fault.
func (i *vaultIdentity) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	w, f := i.look()
	if f != nil {
		return azcore.AccessToken{}, f
	}
	// A machine's identity knows its tenant by itself, whatever AZURE_TENANT_ID is
	// left over from.
	if (w.workload || w.application) && guid.MatchString(o.TenantID) && guid.MatchString(w.tenantID) && !strings.EqualFold(o.TenantID, w.tenantID) {
		return azcore.AccessToken{}, misconfigured(fmt.Sprintf("The vault belongs to tenant %s, and the %s to tenant %s (AZURE_TENANT_ID).", o.TenantID, w.words(), w.tenantID),
			"Use an identity of the vault's own tenant.")
	}
	select {
	case i.turn <- struct{}{}:
		defer func() { <-i.turn }()
	case <-ctx.Done():
		return azcore.AccessToken{}, &token.Fault{Kind: token.Unreachable, Sentence: "The token for the vault did not come in time.", Remedy: "Wait; the proxy tries again."}
	}
	// Claims say what the vault misses in the token that it got.
	if t, ok := i.kept(o.Scopes[0]); ok && o.Claims == "" {
		return t, nil
	}
	t, f := i.acquire(ctx, w, o)
	if f != nil {
		return azcore.AccessToken{}, f
	}
	i.keep(o.Scopes[0], t)
	return t, nil
}

func (i *vaultIdentity) acquire(ctx context.Context, w vaultWho, o policy.TokenRequestOptions) (azcore.AccessToken, *token.Fault) {
	if w.workload {
		// azidentity's own words about the file are few.
		if _, f := readFederatedToken(w.file, time.Now()); f != nil {
			return azcore.AccessToken{}, f
		}
	}
	c, f := i.make(w)
	if f != nil {
		return azcore.AccessToken{}, f
	}
	// The identity has one tenant; AZURE_TENANT_ID may give it by a domain's name,
	// which azidentity would take for another.
	o.TenantID = ""
	ctx, sight := watch(ctx)
	t, err := c.GetToken(ctx, o)
	if err != nil {
		return azcore.AccessToken{}, w.explain(ctx, sight.last(), err)
	}
	return t, nil
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
	// vaultIdentity keeps the token, and asks again only when it wants another one.
	text, life, f := v.machine.token(ctx, strings.TrimSuffix(o.Scopes[0], "/.default"), now, true)
	if f != nil {
		return azcore.AccessToken{}, f
	}
	return azcore.AccessToken{Token: text, ExpiresOn: now.Add(life)}, nil
}
