package credential

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"defender-proxy/internal/token"
)

// Flow is how a user signs in, under the names of the configuration.
type Flow string

// The flows. The first two are carried out by SignIn, in the presence of a
// person; FlowPassword needs nobody, and works only for accounts without
// multifactor authentication.
const (
	FlowDeviceCode        Flow = "device_code"
	FlowAuthorizationCode Flow = "authorization_code"
	FlowPassword          Flow = "password"
)

// interactive reports whether a person has to sign in.
func (f Flow) interactive() bool { return f == FlowDeviceCode || f == FlowAuthorizationCode }

// UserOptions describe a user whose tokens are used.
type UserOptions struct {
	Flow Flow
	// Username is the account's sign-in name. The password flow needs it; for the
	// others it may be empty; where it is not, a store with another user's sign-in,
	// or with that of a user without a name, is refused.
	Username string
	// Password reads the password anew for each fetch. Only for the password flow,
	// which needs it. Its error may name a file or a variable, never the password.
	Password func() (string, error)
	// Store holds the refresh token. The other flows need it.
	Store *Store
	// Client is how the application itself proves who it is, where it is
	// registered as a confidential client; nil for a public one.
	Client token.Credential
	// LoginHint is the command that signs in again, for remedies, such as
	// "defender-proxy login contoso --config proxy.yaml".
	LoginHint string
}

// User is the credential of a person: its tokens are the user's, with delegated
// permissions. The refresh token is read from the store for each fetch, so that
// a new sign-in counts at once, and the new one that comes with each answer
// replaces it there.
//
// Its error means that the options do not fit together.
func User(o UserOptions) (token.Credential, error) {
	if _, issues := o.Client.(token.Issuer); issues {
		return nil, errors.New("a managed identity cannot stand beside a user: it gets tokens of its own, unless it is used as an assertion")
	}
	if o.LoginHint == "" {
		o.LoginHint = again
	}
	switch {
	case o.Flow == FlowPassword && (o.Username == "" || o.Password == nil):
		return nil, errors.New("a user with the flow password needs a username and a password")
	case o.Flow.interactive() && o.Store == nil:
		return nil, fmt.Errorf("a user with the flow %s needs a token store", o.Flow)
	case o.Flow != FlowPassword && !o.Flow.interactive():
		return nil, fmt.Errorf("there is no flow %q; there are %s, %s and %s", o.Flow, FlowDeviceCode, FlowAuthorizationCode, FlowPassword)
	}
	return &user{o: o}, nil
}

type user struct {
	o UserOptions
	// unsaved is why the last new refresh token is not in the store; nil when it
	// is.
	unsaved atomic.Pointer[string]
}

// Health implements token.Credential. A refresh token's own end is not known
// outside Entra ID.
func (u *user) Health() token.Health {
	h := token.Health{Kind: "user"}
	if u.o.Client != nil {
		// The user's tokens end with the application's proof.
		client := u.o.Client.Health()
		h.Expires, h.Notice = client.Expires, client.Notice
	}
	if why := u.unsaved.Load(); why != nil {
		// learn.microsoft.com/entra/identity-platform/refresh-tokens
		h.Notice = "The new refresh token of the user could not be kept, and the stored one ends 90 days after Entra ID gave it: " + *why
	}
	return h
}

// Proofs implements token.Credential.
func (u *user) Proofs(ctx context.Context, ask token.Ask) ([]token.Proof, error) {
	proof, err := u.own(ctx, ask)
	if err != nil {
		return nil, err
	}
	if u.o.Client == nil {
		return []token.Proof{proof}, nil
	}
	clients, err := u.o.Client.Proofs(ctx, ask)
	if err != nil {
		return nil, err
	}
	proofs := make([]token.Proof, 0, len(clients))
	for _, c := range clients {
		proofs = append(proofs, joinProofs(proof, c))
	}
	return proofs, nil
}

// own is what the user alone brings.
func (u *user) own(ctx context.Context, ask token.Ask) (token.Proof, error) {
	if u.o.Flow == FlowPassword {
		return u.password()
	}
	l, err := u.o.Store.load(ctx, u.o.LoginHint)
	if errors.Is(err, errNotSignedIn) {
		err = notSignedIn(ask.Tenant, u.o.LoginHint)
	}
	if err != nil {
		return token.Proof{}, err
	}
	if u.o.Username != "" && !strings.EqualFold(l.Username, u.o.Username) {
		who := quoteShort(l.Username)
		if l.Username == "" {
			who = "a user without a name"
		}
		return token.Proof{}, storeFault(fmt.Sprintf("The token store %s holds the sign-in of %s, and the configuration wants %s.", u.o.Store.o.File, who, quoteShort(u.o.Username)),
			"Sign in as that user: "+u.o.LoginHint)
	}
	now := ask.Now
	if now.IsZero() {
		now = time.Now()
	}
	return token.Proof{
		Name:    "refresh token",
		Form:    url.Values{"grant_type": {"refresh_token"}, "refresh_token": {l.RefreshToken}},
		Secrets: []string{l.RefreshToken},
		Granted: func(g token.Grant) error { return u.keep(l.RefreshToken, g, now) },
	}, nil
}

// keep stores a new refresh token.
func (u *user) keep(used string, g token.Grant, now time.Time) error {
	if g.RefreshToken == "" {
		return nil
	}
	// g.Subject is not kept: it may be a display name, and the store has the name
	// that the sign-in was judged by.
	err := u.o.Store.rotate(used, g.RefreshToken, u.o.LoginHint, now.UTC())
	if errors.Is(err, errNotSignedIn) {
		err = storeFault("The token store "+u.o.Store.o.File+" was removed meanwhile.", "Sign in again: "+u.o.LoginHint)
	}
	if err != nil {
		why := err.Error()
		u.unsaved.Store(&why)
		return err
	}
	u.unsaved.Store(nil)
	return nil
}

func (u *user) password() (token.Proof, error) {
	password, err := u.o.Password()
	switch {
	case err != nil:
		return token.Proof{}, storeFault("The password of user "+u.o.Username+" cannot be read: "+err.Error()+".", "Make it readable for the proxy, or correct where the configuration looks for it.")
	case password == "":
		return token.Proof{}, storeFault("The password of user "+u.o.Username+" is empty.", "Put it into the file or variable that the configuration names.")
	}
	return token.Proof{
		Name:    "password",
		Form:    url.Values{"grant_type": {"password"}, "username": {u.o.Username}, "password": {password}},
		Secrets: []string{password},
	}, nil
}

// joinProofs puts the application's proof beside the user's. The user's
// grant_type wins: an assertion proves the client here and is no grant.
func joinProofs(user, client token.Proof) token.Proof {
	form := maps.Clone(client.Form)
	if form == nil {
		form = make(url.Values)
	}
	maps.Copy(form, user.Form)
	return token.Proof{
		Name:    user.Name + " with " + client.Name,
		Form:    form,
		Secrets: append(append([]string(nil), user.Secrets...), client.Secrets...),
		Granted: func(g token.Grant) error {
			var errs []error
			if user.Granted != nil {
				errs = append(errs, user.Granted(g))
			}
			if client.Granted != nil {
				errs = append(errs, client.Granted(g))
			}
			return errors.Join(errs...)
		},
		Rejected: client.Rejected,
	}
}
