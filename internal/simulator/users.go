package simulator

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// identityScopes are those that concern the sign-in and not a resource.
var identityScopes = []string{"openid", "profile", "email", "offline_access"}

// mayJoin tells why somebody cannot sign in for what is wanted, nil if nothing
// stands against it.
func (s *Simulator) mayJoin(w wanted, name string) *aadError {
	t := s.directory.tenant(w.tenantID)
	if t == nil {
		return refuse(90002, w.tenantID)
	}
	a, ok := s.directory.app(t, w.clientID)
	if !ok {
		return refuse(700016, w.clientID, t.name)
	}
	_, refusal := findUser(t, a, name)
	return refusal
}

// findUser finds a user, who may have been disabled since an earlier sign-in.
func findUser(t *tenant, a app, name string) (User, *aadError) {
	at := slices.IndexFunc(a.users, func(u User) bool { return strings.EqualFold(u.Name, name) })
	if at < 0 {
		return User{}, refuse(50034, name, t.name)
	}
	if a.users[at].Disabled {
		return User{}, refuse(50057)
	}
	return a.users[at], nil
}

// passwordGrant is the resource owner's password grant. A user who needs a
// second factor cannot pass here.
func (s *Simulator) passwordGrant(t *tenant, a app, form url.Values, version int) (granted, *aadError) {
	for _, field := range []string{"username", "password"} {
		if form.Get(field) == "" {
			return granted{}, refuse(900144, field)
		}
	}
	user, refusal := findUser(t, a, form.Get("username"))
	if refusal != nil {
		return granted{}, refusal
	}
	if !holds([]string{user.Password}, form.Get("password")) {
		return granted{}, refuse(50126)
	}
	_, audience, _, refusal := resource(t, form, version, true)
	if refusal != nil {
		return granted{}, refusal
	}
	if user.MFA {
		return granted{}, refuse(50076, audience)
	}
	return s.userTokens(t, a, user, form, version, 0)
}

// codeGrant redeems an authorization code. Codes live about ten minutes
// (learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow).
func (s *Simulator) codeGrant(t *tenant, a app, form url.Values, version int, shown proof) (granted, *aadError) {
	for _, field := range []string{"code", "redirect_uri"} {
		if form.Get(field) == "" {
			return granted{}, refuse(900144, field)
		}
	}
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	c := s.sessions.codes.rows[form.Get("code")]
	switch {
	case c == nil, !strings.EqualFold(c.clientID, a.clientID), c.tenantID != t.id:
		return granted{}, refuse(70000)
	case c.redeemed:
		return granted{}, refuse(54005)
	case s.now().Sub(c.issued) > 10*time.Minute:
		return granted{}, refuse(70008)
	case c.redirect != form.Get("redirect_uri"):
		return granted{}, refuse(500112, form.Get("redirect_uri"), c.redirect)
	}
	// The platform Web has a credential to show; a native application may have
	// none.
	if shown == proofNone && !a.public && slices.Contains(a.redirectURIs, c.redirect) {
		return granted{}, refuse(7000218)
	}
	if refusal := c.checkVerifier(form.Get("code_verifier")); refusal != nil {
		return granted{}, refusal
	}
	user, refusal := findUser(t, a, c.user)
	if refusal != nil {
		return granted{}, refusal
	}
	c.redeemed = true
	return s.userTokens(t, a, user, restore(form, c.wanted), version, 0)
}

// checkVerifier is RFC 7636, section 4.6.
func (c *authorizationCode) checkVerifier(verifier string) *aadError {
	if c.challenge == "" {
		return nil
	}
	if verifier == "" {
		return refuse(50148)
	}
	made := verifier
	if c.kind != "plain" {
		sum := sha256.Sum256([]byte(verifier))
		made = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if subtle.ConstantTimeCompare([]byte(made), []byte(c.challenge)) != 1 {
		return refuse(501481)
	}
	return nil
}

// refreshGrant gives new tokens for an old refresh token, for any resource that
// the user's permissions allow: refresh tokens are bound to user and
// application, not to a resource (refresh-tokens).
func (s *Simulator) refreshGrant(t *tenant, a app, form url.Values, version int) (granted, *aadError) {
	if form.Get("refresh_token") == "" {
		return granted{}, refuse(900144, "refresh_token")
	}
	w, family, refusal := s.sessions.useRefresh(form.Get("refresh_token"), a.clientID, s.now())
	if refusal != nil {
		return granted{}, refusal
	}
	if w.tenantID != t.id {
		return granted{}, refuse(50020, w.user, t.name, a.clientID)
	}
	user, refusal := findUser(t, a, w.user)
	if refusal != nil {
		return granted{}, refusal
	}
	return s.userTokens(t, a, user, restore(form, w), version, family)
}

// restore fills in what a request may leave out, since the sign-in had it: the
// scope of one version, the resource of the other.
func restore(form url.Values, w wanted) url.Values {
	out := url.Values{}
	for name, values := range form {
		out[name] = values
	}
	for name, values := range w.form() {
		if out.Get(name) == "" {
			out[name] = values
		}
	}
	return out
}

// userTokens gives a user who has signed in what the form asks for.
func (s *Simulator) userTokens(t *tenant, a app, user User, form url.Values, version int, family uint64) (granted, *aadError) {
	if a.unconsented {
		return granted{}, refuse(65001, a.clientID)
	}
	service, audience, asked, refusal := resource(t, form, version, true)
	if refusal != nil {
		return granted{}, refusal
	}
	held := user.Scopes[service]
	for _, one := range asked {
		if one != ".default" && !slices.Contains(held, one) {
			return granted{}, refuse(65001, a.clientID)
		}
	}
	if len(held) == 0 {
		return granted{}, refuse(65001, a.clientID)
	}
	id := userID(t, user.Name)
	g := granted{resource: audience, user: true, openID: version == 1, claims: claims{
		Audience: audience, AppID: a.clientID, AppIDACR: "0", IDType: "user",
		ObjectID: id, Subject: id, TenantID: t.id,
		Scopes: strings.Join(held, " "), UniqueName: user.Name, UPN: user.Name,
	}}
	scopes := strings.Fields(form.Get("scope"))
	g.openID = g.openID || slices.Contains(scopes, "openid")
	// The older endpoint always gives a refresh token, the newer one for
	// offline_access, and both when an older one was used.
	if version == 1 || family != 0 || slices.Contains(scopes, "offline_access") {
		g.renew = &renewal{family, wanted{
			tenantID: t.id, clientID: a.clientID, user: user.Name, version: version,
			scope: form.Get("scope"), resource: form.Get("resource"),
		}}
	}
	return g, nil
}

func userID(t *tenant, name string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(fmt.Sprint(t.id, name))).String()
}

// renewal is a refresh token that is to be issued.
type renewal struct {
	family uint64
	wanted wanted
}
