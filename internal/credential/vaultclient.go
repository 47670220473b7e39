package credential

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"defender-proxy/internal/token"
)

// vaultRetry is one more try; the engine backs off by itself. What bounds a try is
// the bound of the read.
var vaultRetry = policy.RetryOptions{
	MaxRetries:    1,
	RetryDelay:    300 * time.Millisecond,
	MaxRetryDelay: time.Second,
}

// vaultClient reads from vaults with azsecrets.
type vaultClient struct {
	transport http.RoundTripper
	identity  *vaultIdentity
}

// read gets a secret from its vault. A token that the vault refuses is replaced
// once.
func (c *vaultClient) read(ctx context.Context, ref secretRef) (Secret, *token.Fault) {
	s, refused, fault := c.ask(ctx, ref)
	if refused {
		c.identity.forget()
		s, _, fault = c.ask(ctx, ref)
	}
	return s, fault
}

// ask asks the vault once, with a client of its own: azsecrets keeps the tenant
// and the scope of a vault's first challenge for ever, and those who wait for its
// token cannot leave. refused says that the vault did not take the token.
func (c *vaultClient) ask(ctx context.Context, ref secretRef) (s Secret, refused bool, fault *token.Fault) {
	ctx, sight := watch(ctx)
	asker := &vaultAsker{identity: c.identity}
	defer func() {
		if recover() == nil { // its words may hold anything
			return
		}
		c.identity.forget()
		s, refused, fault = Secret{}, false, &token.Fault{Kind: token.Internal,
			Sentence: "Reading the secret " + ref.String() + " failed by a fault in the proxy.", Remedy: "Report it; the proxy tries again."}
		if last := sight.last(); last.status == http.StatusUnauthorized && !asker.asked.Load() {
			// The client's parser of challenges indexes past the end of a short one.
			fault = badChallenge(ref)
		}
	}()
	// The verification of the challenge's resource stays on: no host gets a token
	// for another domain than its own.
	k, err := azsecrets.NewClient(ref.vault, asker, &azsecrets.ClientOptions{ClientOptions: sdkOptions(c.transport, "", vaultRetry)})
	if err != nil {
		return Secret{}, false, misconfigured("The vault "+ref.host+" cannot be asked: "+oneLine(err.Error())+".", "Check the key_vault URL.")
	}
	answer, err := k.GetSecret(ctx, ref.name, ref.version, nil)
	if err != nil {
		last := sight.last()
		return Secret{}, last.status == http.StatusUnauthorized && last.requests > 1, explainVault(ctx, ref, last, err)
	}
	if answer.Value != nil {
		s.Text = *answer.Value
	}
	if answer.ID != nil {
		s.Version = vaultVersion(string(*answer.ID))
	}
	if a := answer.Attributes; a != nil {
		if a.Enabled != nil && !*a.Enabled {
			return Secret{}, false, disabledSecret(ref)
		}
		if a.Expires != nil {
			s.Expires = *a.Expires
		}
	}
	if s.Text == "" {
		return Secret{}, false, misconfigured("The secret "+ref.String()+" is empty.", "Set its value in the vault.")
	}
	return s, false, nil
}

// vaultAsker is the identity for one read.
type vaultAsker struct {
	identity *vaultIdentity
	asked    atomic.Bool
}

// GetToken implements azcore.TokenCredential.
func (a *vaultAsker) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	a.asked.Store(true)
	return a.identity.GetToken(ctx, o)
}

// vaultVersion is the last part of a secret's id, if it looks like a version.
func vaultVersion(id string) string {
	v := id[strings.LastIndexByte(id, '/')+1:]
	if len(v) > 64 || !plainCode.MatchString(v) {
		return ""
	}
	return v
}

func badChallenge(ref secretRef) *token.Fault {
	return misconfigured("The host "+ref.host+" does not ask for a token in the way of a vault of its domain.",
		"Check that the key_vault URL names a vault, and that nothing on the way answers for it.")
}

func disabledSecret(ref secretRef) *token.Fault {
	return misconfigured("The secret "+ref.String()+" is disabled.", "Enable it in the vault, or create a new version of it.")
}

func vaultTimeout(ref secretRef) *token.Fault {
	return &token.Fault{Kind: token.Unreachable, Sentence: "The vault " + ref.host + " did not answer in time.", Remedy: "Wait; the proxy tries again."}
}

// explainVault makes a fault of what was seen, without the SDK's words: they
// quote bodies. The codes are from
// learn.microsoft.com/azure/key-vault/general/rest-error-codes.
func explainVault(ctx context.Context, ref secretRef, s seen, err error) *token.Fault {
	if f, ok := errors.AsType[*token.Fault](err); ok { // the identity's
		told := *f
		told.Sentence = "The secret " + ref.String() + " cannot be read. " + f.Sentence
		return &told
	}
	rejected := func(sentence, remedy string) *token.Fault {
		return &token.Fault{Kind: token.Rejected, Sentence: sentence, Remedy: remedy}
	}
	switch {
	case s.err != nil || ctx.Err() != nil:
		return &token.Fault{Kind: token.Unreachable,
			Sentence: "The vault " + ref.host + " cannot be reached: " + noAnswer(ctx, s) + ".",
			Remedy:   "Check the vault's name, the network, and egress.proxy and egress.ca_file of the configuration."}
	case s.requests == 0:
		return misconfigured("The vault "+ref.host+" cannot be asked.", "Check the key_vault URL.")
	case s.status == http.StatusUnauthorized && s.requests < 2:
		// It was asked for its challenge, and no request with a token followed.
		return badChallenge(ref)
	case s.status == http.StatusUnauthorized:
		return rejected("The vault "+ref.host+" does not accept the token of the proxy's identity"+s.code()+".",
			"Check that the identity belongs to the vault's tenant (AZURE_TENANT_ID), and this machine's clock (NTP).")
	case s.status == http.StatusForbidden && s.is("SecretDisabled"):
		return disabledSecret(ref)
	case s.status == http.StatusForbidden && s.is("SecretExpired"):
		return misconfigured("The secret "+ref.String()+" ended by its own date.", "Create a new version of it in the vault.")
	case s.status == http.StatusForbidden && (s.is("ForbiddenByFirewall") || s.is("ForbiddenByConnection")):
		// Not a no to the identity: it is the way to the vault that is closed.
		return &token.Fault{Kind: token.Unreachable, Sentence: "The vault " + ref.host + " does not let this network in" + s.code() + ".", Remedy: "Add the network to the vault's firewall, or use its private endpoint."}
	case s.status == http.StatusForbidden:
		return rejected("The proxy's identity may not read the secret "+ref.String()+s.code()+".",
			"Give it the role Key Vault Secrets User on the vault; in a vault with access policies, the secret permission Get. A new role takes some minutes.")
	case s.status == http.StatusNotFound:
		return misconfigured("There is no secret "+ref.String()+s.code()+".", "Check its name and version, and that it was not deleted.")
	case s.status == http.StatusTooManyRequests:
		return &token.Fault{Kind: token.Unavailable, RetryAfter: s.retryAfter, Sentence: "The vault " + ref.host + " gets too many requests.", Remedy: "Wait; the proxy tries again."}
	case s.status >= 500:
		return &token.Fault{Kind: token.Unavailable, RetryAfter: s.retryAfter, Sentence: fmt.Sprintf("The vault %s has a passing fault (%d)%s.", ref.host, s.status, s.code()), Remedy: "Wait; the proxy tries again."}
	case s.status == http.StatusOK:
		return &token.Fault{Kind: token.Unavailable, Sentence: "The host " + ref.host + " answered, but not with a secret.", Remedy: "Check that the key_vault URL names a vault, and that nothing on the way answers for it."}
	}
	return rejected(fmt.Sprintf("The vault %s refuses the secret %s with %d%s.", ref.host, ref, s.status, s.code()), "Check the key_vault URL.")
}
