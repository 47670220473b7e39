package credential

import (
	"context"
	"net/http"
	"sync"
	"time"

	"defender-proxy/internal/token"
)

const (
	kindManagedIdentity          = "managed_identity"
	kindManagedIdentityAssertion = "managed_identity_assertion"
)

// IdentityOptions say which identity of the machine is meant.
type IdentityOptions struct {
	// ClientID is the client ID of a user-assigned identity, a GUID; empty for the
	// system-assigned one.
	ClientID string
	// Transport carries the requests, without its proxy where it is an
	// *http.Transport or has a method Direct, which gives it without; nil means
	// http.DefaultTransport.
	Transport http.RoundTripper
}

// managedIdentity implements token.Issuer.
type managedIdentity struct{ machine *machine }

// ManagedIdentity is the identity of the machine that the proxy runs on. It is a
// token.Issuer: the machine's endpoint gives tokens itself, for the identity's
// own tenant. The error is about the options; what the machine has is seen at
// the first Issue.
func ManagedIdentity(o IdentityOptions) (token.Credential, error) {
	m, err := newMachine(o)
	if err != nil {
		return nil, err
	}
	return managedIdentity{m}, nil
}

// Issue implements token.Issuer. The token is new as far as this process goes;
// IMDS hands out the same one again until it is near its end.
func (c managedIdentity) Issue(ctx context.Context, ask token.Ask) (token.Issued, error) {
	text, life, f := c.machine.token(ctx, ask.Audience, entraTime(ask), true)
	if f != nil {
		return token.Issued{}, f
	}
	return token.Issued{AccessToken: text, ExpiresIn: life}, nil
}

// Proofs implements token.Credential. It is not called, since the credential is
// an Issuer.
func (managedIdentity) Proofs(context.Context, token.Ask) ([]token.Proof, error) {
	return nil, misconfigured("A managed identity has no proof to give to Entra ID; it gets tokens itself.", "Report it: this is a fault in the proxy.")
}

// Health implements token.Credential.
func (managedIdentity) Health() token.Health { return token.Health{Kind: kindManagedIdentity} }

// exchangeAudience is the audience of a token that Entra ID takes as an
// assertion, for a cloud
// (learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity,
// stored copy of MicrosoftDocs/entra-docs read 2026-11). Any cloud that is not
// one of the two of the US government has the global service's.
func exchangeAudience(cloud string) string {
	switch cloud {
	case "gcc-high", "dod":
		return "api://AzureADTokenExchangeUSGov"
	}
	return "api://AzureADTokenExchange"
}

// assertionMargin is how long before its end an identity's token is no longer
// given as an assertion.
const assertionMargin = 5 * time.Minute

// identityAssertion implements token.Credential.
type identityAssertion struct {
	machine  *machine
	audience string
	// turn is held by the one that asks for a token; a channel, so that a waiter
	// can leave.
	turn chan struct{}

	mu    sync.Mutex
	given *lentToken // the identity's token; nil for none
	// refused is set when Entra ID rejected the token: the next one must not come
	// from a cache.
	refused bool
}

// lentToken is a token that is given until a time; vaultIdentity keeps those
// for vaults in the same way.
type lentToken struct {
	token veiled
	until time.Time // when it is no longer given
}

// dead reports whether the token has ended by either clock: the monotonic
// one stands still while the machine sleeps.
func (g *lentToken) dead(now time.Time) bool {
	return !now.Before(g.until) || !now.Round(0).Before(g.until.Round(0))
}

// ManagedIdentityAssertion is a credential of an application, possibly in
// another tenant, that trusts the machine's identity by a federated credential:
// the identity's token is the client assertion, and there is no secret at all.
// cloud is the tenant's: commercial, gcc, gcc-high or dod; it must be the
// identity's too. Microsoft takes user-assigned identities for this, and the
// application has to be registered in the identity's own tenant
// (workload-identity-federation-config-app-trust-managed-identity).
//
// All credentials of a process with the same identity and audience share the
// identity's token, whatever their transport, until Entra ID rejects it. The
// error is about the options.
func ManagedIdentityAssertion(o IdentityOptions, cloud string) (token.Credential, error) {
	m, err := newMachine(o)
	if err != nil {
		return nil, err
	}
	return &identityAssertion{machine: m, audience: exchangeAudience(cloud), turn: make(chan struct{}, 1)}, nil
}

// Proofs implements token.Credential.
func (c *identityAssertion) Proofs(ctx context.Context, ask token.Ask) ([]token.Proof, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, &token.Fault{Kind: token.Unreachable, Sentence: "The identity endpoint of this machine did not answer in time.", Remedy: "Wait; the proxy tries again."}
	}
	c.mu.Lock()
	given, refused := c.given, c.refused
	c.mu.Unlock()
	if given == nil || given.dead(time.Now()) {
		text, life, f := c.machine.token(ctx, c.audience, entraTime(ask), refused)
		if f != nil {
			return nil, f
		}
		given = &lentToken{veil(text), time.Now().Add(life - assertionMargin)}
		c.mu.Lock()
		c.given, c.refused = given, false
		c.mu.Unlock()
	}
	p := assertionProof("managed identity's token", given.token.text())
	p.Rejected = func(int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.given == given {
			c.given, c.refused = nil, true
		}
	}
	return []token.Proof{p}, nil
}

// Health implements token.Credential. The identity's token is renewed by itself.
func (*identityAssertion) Health() token.Health {
	return token.Health{Kind: kindManagedIdentityAssertion}
}
