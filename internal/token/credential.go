package token

import (
	"context"
	"net/url"
	"time"

	"defender-proxy/internal/tenant"
)

// Credential is how an application proves itself to Entra ID. Package
// credential has one type for each kind; the engine asks it anew for each
// fetch, so that what was rotated is used. Its methods are called concurrently,
// by the fetches for several audiences.
type Credential interface {
	// Proofs gives what a token request carries beside the audience: at least one
	// proof, in the order in which they are to be tried. The next one is tried
	// only when Entra ID rejects the one before it as a credential.
	//
	// It returns soon after ctx ends, whatever it waits for. An error is a *Fault
	// where it can tell what to do; any other error becomes a failure of kind
	// Misconfigured in its own words, which must hold no secret.
	Proofs(ctx context.Context, ask Ask) ([]Proof, error)

	// Health tells what is known of the credential from the last time it was
	// read. It returns at once.
	Health() Health
}

// Issuer is a Credential that gets the token itself instead of a proof for
// Entra ID: the identity of a machine, whose tokens come from the machine's own
// endpoint. Of an Issuer the engine calls Issue and never Proofs.
type Issuer interface {
	Credential
	// Issue gets a new token for the audience, past any cache. Its errors are as
	// those of Proofs.
	Issue(ctx context.Context, ask Ask) (Issued, error)
}

// Ask says what a proof is wanted for.
type Ask struct {
	// Tenant is the tenant's configured name, for messages.
	Tenant   string
	TenantID tenant.ID
	// ClientID is the application's id; empty for the identity of a machine.
	ClientID string
	// Authority is the base URL of Entra ID, and TokenURL its token endpoint that
	// is going to be asked: the audience of an assertion.
	Authority string
	TokenURL  string
	// Audience is the resource URI of the token, such as
	// https://api.securitycenter.microsoft.com, without "/.default".
	Audience string
	Version  Version
	// Now is Entra's time as far as it is known: this machine's clock, corrected
	// by the difference that the last answer's Date showed. Assertions are dated
	// by it.
	Now time.Time
}

// Proof is what one token request carries beside the audience and client_id.
type Proof struct {
	// Name is what messages call it, such as "client secret" or "next client
	// secret".
	Name string
	// Form holds the fields: client_secret; client_assertion with its type;
	// grant_type, where it is not client_credentials, with what the grant needs.
	// It never holds client_id, scope, resource or claims.
	Form url.Values
	// Secrets are the values of Form that must not be shown; the engine takes
	// them out of others' words.
	Secrets []string
	// Granted, if there is one, is called with Entra's answer once that was judged
	// good and callers have the token: to keep a new refresh token, or to begin with
	// this proof the next time. The next fetch may begin before it returns. Its
	// error is logged; the token is used all the same.
	Granted func(Grant) error
	// Rejected, if there is one, is called when Entra ID refused this proof.
	Rejected func(aadsts int)
}

// Grant is what an answer holds beside the access token.
type Grant struct {
	// RefreshToken is the new one, empty where none came. It is a secret.
	RefreshToken string
	// Subject is the user's name in the token (upn or name), empty for an
	// application's.
	Subject string
}

// Issued is a token that an Issuer got.
type Issued struct {
	// AccessToken is a secret.
	AccessToken string
	// ExpiresIn is what is left of its life.
	ExpiresIn time.Duration
}

// Health is what is known of a credential beside the tokens that it brings.
type Health struct {
	// Kind is a word for logs, pages and metrics: client_secret, key_vault,
	// certificate, federated_token, managed_identity, managed_identity_assertion,
	// user.
	Kind string `json:"kind"`
	// Expires is when the credential ends by its own date: a certificate's, or
	// that of a secret in Key Vault. Zero where it has none or is not known yet.
	Expires time.Time `json:"expires,omitzero"`
	// Notice is one sentence for the operator about what works now and will not
	// for ever, such as that the first of two secrets is rejected. Empty when there
	// is nothing to say.
	Notice string `json:"notice,omitempty"`
}

// Fault is why a credential gives no proof.
type Fault struct {
	// Kind is Misconfigured where somebody has to mend something, Unreachable or
	// Unavailable where a vault or an identity endpoint may answer later, Rejected
	// where it said no.
	Kind Kind
	// Sentence and Remedy are whole sentences: what is wrong, with the file or the
	// address, and what to do about it. They hold no secret.
	Sentence, Remedy string
	// RetryAfter is what the other side asked for, 0 where it did not.
	RetryAfter time.Duration
}

// Error gives sentence and remedy.
func (f *Fault) Error() string { return f.Sentence + " " + f.Remedy }
