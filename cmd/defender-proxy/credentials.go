package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"defender-proxy/internal/config"
	"defender-proxy/internal/credential"
	"defender-proxy/internal/token"
)

// accountOf is who a tenant's tokens are for, but for its proof.
//
// Subject holds all that decides whose tokens an application gets, since two
// accounts with the same one share their tokens over a reload.
func accountOf(t config.Tenant, authority string) token.Account {
	a := token.Account{
		Name:            t.Name,
		Cloud:           t.Cloud,
		Authority:       authority,
		Tenant:          t.ID,
		ClientID:        t.Credential.ClientID,
		Version:         token.Version(t.Credential.TokenVersion),
		VerifySignature: t.Credential.VerifySignature,
	}
	switch cr := t.Credential; {
	case cr.User != nil:
		a.Subject = strings.Join([]string{"user", strings.ToLower(cr.User.Username), cr.User.TokenStore}, " ")
	case cr.ManagedIdentity != nil && !cr.ManagedIdentity.AsAssertion:
		a.ClientID = ""
		a.Subject = "identity " + cr.ManagedIdentity.ClientID
	}
	return a
}

// credential makes a tenant's proof. It reads nothing. One that cannot be made
// gives its reason whenever a token is wanted, so that the other tenants go on.
func (c *core) credential(t config.Tenant) token.Credential {
	made, err := c.proof(t)
	if err != nil {
		return unusable{err}
	}
	return made
}

// proof makes a tenant's proof; nil where it names none.
func (c *core) proof(t config.Tenant) (token.Credential, error) {
	cr := t.Credential
	switch {
	case cr.User != nil:
		client, err := c.application(t)
		if err != nil {
			return nil, err
		}
		o := credential.UserOptions{
			Flow: credential.Flow(cr.User.Flow), Username: cr.User.Username, Client: client, LoginHint: c.loginHint(t),
		}
		if cr.User.Flow == config.FlowPassword {
			o.Password = c.resolve(cr.User.Password)
		} else {
			o.Store = userStore(t)
		}
		return credential.User(o)
	case cr.ManagedIdentity != nil:
		o := credential.IdentityOptions{ClientID: cr.ManagedIdentity.ClientID, Transport: c.transport}
		if cr.ManagedIdentity.AsAssertion {
			return credential.ManagedIdentityAssertion(o, t.Cloud)
		}
		return credential.ManagedIdentity(o)
	}
	return c.application(t)
}

// application makes the proof of a tenant's application by itself, which may
// stand beside a user's; nil where it names none.
func (c *core) application(t config.Tenant) (token.Credential, error) {
	cr := t.Credential
	switch {
	case cr.ClientSecret != config.Secret{}:
		first, err := c.value(cr.ClientSecret)
		if err != nil {
			return nil, err
		}
		var next credential.Value
		if (cr.NextClientSecret != config.Secret{}) {
			if next, err = c.value(cr.NextClientSecret); err != nil {
				return nil, err
			}
		}
		return credential.ClientSecret(first, next), nil
	case cr.Certificate != nil:
		return credential.Certificate(c.certificateFiles(cr.Certificate)), nil
	case cr.FederatedToken != nil:
		return credential.FederatedToken(cr.FederatedToken.File), nil
	}
	return nil, nil
}

func (c *core) certificateFiles(cert *config.Certificate) credential.CertificateFiles {
	files := credential.CertificateFiles{File: cert.File, KeyFile: cert.KeyFile}
	if (cert.Password != config.Secret{}) {
		files.Password = c.resolve(cert.Password)
	}
	return files
}

// value reads a secret from wherever it is.
func (c *core) value(s config.Secret) (credential.Value, error) {
	if s.KeyVault != "" {
		return c.vault.Value(s.KeyVault)
	}
	return credential.Plain(c.resolve(s)), nil
}

func (c *core) resolve(s config.Secret) func() (string, error) {
	return func() (string, error) { return s.Resolve(c.env) }
}

// loginHint is the command that signs a tenant's user in again.
func (c *core) loginHint(t config.Tenant) string {
	if c.file == "" {
		return "defender-proxy login " + t.Name
	}
	return loginCommand(t.Name, c.file)
}

// checkFiles looks at what a tenant's credential is read from, as far as that
// goes without a request. Its error is for the operator and holds no secret;
// notice is what works now and will not for long.
func (c *core) checkFiles(t config.Tenant) (notice string, err error) {
	cr := t.Credential
	switch {
	case cr.Certificate != nil:
		now := time.Now()
		ends, err := credential.CheckCertificate(c.certificateFiles(cr.Certificate), now)
		if err != nil {
			return "", err
		}
		if left := token.DaysLeft(ends, now); left <= daysToWarn {
			notice = fmt.Sprintf("the certificate in %s ends in %d days, on %s", cr.Certificate.File, left, ends.UTC().Format("2006-01-02"))
		}
	case cr.FederatedToken != nil:
		if err := credential.CheckFederatedToken(cr.FederatedToken.File); err != nil {
			return "", err
		}
	}
	if u := cr.User; u != nil && u.Flow != config.FlowPassword {
		return notice, userStore(t).Check()
	}
	return notice, nil
}

// daysToWarn is how many days before its end a credential is warned of.
const daysToWarn = 30

// unusable is a credential that could not be made.
type unusable struct{ err error }

func (u unusable) Proofs(context.Context, token.Ask) ([]token.Proof, error) { return nil, u.err }

func (u unusable) Health() token.Health { return token.Health{Kind: "unusable"} }
