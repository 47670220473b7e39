package credential

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"

	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
)

// LoginOptions say who is to sign in, and to what. All fields are needed but
// those that say otherwise.
type LoginOptions struct {
	// Flow is FlowDeviceCode or FlowAuthorizationCode.
	Flow Flow
	// Authority is the base URL of Entra ID; plain http for a loopback address
	// only.
	Authority string
	Tenant    tenant.ID
	ClientID  string
	// Client is the application's own proof; nil for a public client.
	Client token.Credential
	// Audience is the resource URI of the first token. The refresh token serves
	// the application's other audiences too.
	Audience string
	// Username fills in the sign-in page, and another user is then refused. May be
	// empty.
	Username string
	// Transport carries the requests to Entra ID, none of them redirected.
	Transport http.RoundTripper
	// Show tells the person what to do. It is called once, and returns soon.
	Show func(LoginPrompt)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// LoginPrompt is what a person has to know to sign in. It holds no secret.
type LoginPrompt struct {
	// URL is the page to open.
	URL string
	// Code is to be typed there; empty for FlowAuthorizationCode, whose page is
	// to be opened on this machine.
	Code string
	// Expires is when the page stops waiting.
	Expires time.Time
}

// Bounds of a sign-in: how long a person may take, where Entra ID does not say,
// and at most. A device code lives 15 minutes, an authorization code ten
// (learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code and
// v2-oauth2-auth-code-flow, read 2026-11).
const (
	codePatience   = 10 * time.Minute
	devicePatience = 15 * time.Minute
	// requestPatience bounds one request to Entra ID.
	requestPatience = 30 * time.Second
)

// SignIn lets a person sign in and gives the login, which is for that tenant and
// that user, and has a refresh token. It asks no endpoint but authorize,
// devicecode and token of the tenant, and returns soon after ctx ends. Errors
// are *token.Fault and hold no code, verifier or token.
func SignIn(ctx context.Context, o LoginOptions) (Login, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	base, err := o.base()
	if err != nil {
		return Login{}, storeFault("Nobody can sign in: "+err.Error()+".", "Correct the tenant's credential in the configuration.")
	}
	s := &signIn{
		LoginOptions: o,
		base:         base,
		config: oauth2.Config{
			ClientID: o.ClientID,
			Scopes:   []string{o.Audience + "/.default", "offline_access", "openid", "profile"},
			Endpoint: oauth2.Endpoint{
				AuthURL:       base + "/authorize",
				DeviceAuthURL: base + "/devicecode",
				TokenURL:      base + "/token",
				// x/oauth2 otherwise sends a secret twice to find out.
				AuthStyle: oauth2.AuthStyleInParams,
			},
		},
	}
	// The proofs are read first: a person should not sign in for nothing.
	if err := s.readProofs(ctx); err != nil {
		return Login{}, err
	}
	flow, patience := s.byDevice, devicePatience
	if o.Flow == FlowAuthorizationCode {
		flow, patience = s.byCode, codePatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.wire = &loginWire{ctx: ctx, next: o.Transport}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Transport: s.wire,
		// A 307 or 308 would carry the code to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	answer, err := flow(ctx)
	if err != nil {
		return Login{}, s.explain(ctx, err)
	}
	return s.judge(answer)
}

// signIn is one sign-in under way. It is used by one goroutine.
type signIn struct {
	LoginOptions
	base   string // of the v2.0 endpoints
	config oauth2.Config
	wire   *loginWire

	proofs   []token.Proof // of the application; one empty one for a public client
	readAt   time.Time     // when proofs were made
	strayed  bool          // an answer came that was not to this sign-in
	quieting []string      // what must not be shown
}

// base checks the options and gives the base URL of the v2.0 endpoints.
func (o LoginOptions) base() (string, error) {
	u, err := url.Parse(o.Authority)
	host := ""
	if err == nil {
		host = u.Hostname()
	}
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	_, issues := o.Client.(token.Issuer)
	switch {
	case !o.Flow.interactive():
		return "", fmt.Errorf("the flow is %q, and there are %s and %s to sign in with", o.Flow, FlowDeviceCode, FlowAuthorizationCode)
	case err != nil || host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("the authority is not the base URL of an Entra ID, such as https://login.microsoftonline.com")
	case u.Scheme == "http" && !loopback:
		return "", fmt.Errorf("the authority %s would get the sign-in in the clear: use https, or a loopback address", o.Authority)
	case o.Tenant == "" || o.ClientID == "" || o.Audience == "":
		return "", fmt.Errorf("tenant, client_id or audience is missing")
	case o.Transport == nil || o.Show == nil:
		return "", fmt.Errorf("there is no transport or nobody to show the page to")
	case issues:
		return "", fmt.Errorf("a managed identity cannot stand beside a user, unless it is used as an assertion")
	}
	return strings.TrimRight(o.Authority, "/") + "/" + url.PathEscape(string(o.Tenant)) + "/oauth2/v2.0", nil
}

// readProofs reads the application's own proofs.
func (s *signIn) readProofs(ctx context.Context) error {
	s.readAt = s.Now()
	if s.Client == nil {
		s.proofs = []token.Proof{{}}
		return nil
	}
	proofs, err := s.Client.Proofs(ctx, token.Ask{
		Tenant: string(s.Tenant), TenantID: s.Tenant, ClientID: s.ClientID,
		Authority: s.Authority, TokenURL: s.config.Endpoint.TokenURL,
		Audience: s.Audience, Version: token.V2, Now: s.readAt,
	})
	switch {
	case err != nil:
		return err
	case len(proofs) == 0:
		return storeFault("The application's own credential gives no proof.", "Correct the credential beside the user in the configuration.")
	}
	s.proofs = proofs
	for _, p := range proofs {
		s.quieting = append(s.quieting, p.Secrets...)
	}
	return nil
}

// proofLife is how long an assertion is good for, with a margin: they are made
// for ten minutes.
const proofLife = 8 * time.Minute

// redeem calls ask with the application's proofs, one after another as long as
// Entra ID rejects them, and anew where they have become too old meanwhile.
func (s *signIn) redeem(ctx context.Context, ask func(...oauth2.AuthCodeOption) (*oauth2.Token, error)) (*oauth2.Token, error) {
	for renewed := false; ; renewed = true {
		if s.Client != nil && s.Now().Sub(s.readAt) > proofLife {
			if err := s.readProofs(ctx); err != nil {
				return nil, err
			}
		}
		var answer *oauth2.Token
		var err error
		for _, p := range s.proofs {
			var options []oauth2.AuthCodeOption
			for name, values := range p.Form {
				if len(values) > 0 && name != "grant_type" {
					options = append(options, oauth2.SetAuthURLParam(name, values[0]))
				}
			}
			if answer, err = ask(options...); !rejectsClient(err) {
				return answer, err
			}
			if p.Rejected != nil {
				p.Rejected(aadstsOf(err))
			}
		}
		if renewed || s.Client == nil || s.Now().Sub(s.readAt) <= proofLife {
			return answer, err
		}
	}
}

// judge decides whether the answer is the login that was asked for.
func (s *signIn) judge(answer *oauth2.Token) (Login, error) {
	const remedy = "Sign in again, as a user of the tenant."
	var access, id loginClaims
	parser := jwt.NewParser()
	// The answer came over TLS from the authority, to our own request: the claims
	// are read as what it says, not as a proof.
	if _, _, err := parser.ParseUnverified(answer.AccessToken, &access); err != nil || !strings.EqualFold(answer.TokenType, "Bearer") {
		return Login{}, &token.Fault{Kind: token.BadAnswer, Sentence: "Entra ID answered, but not with a token that can be read.", Remedy: "Check that the authority is Entra ID and that nothing on the way answers for it."}
	}
	if raw, ok := answer.Extra("id_token").(string); ok {
		if _, _, err := parser.ParseUnverified(raw, &id); err != nil {
			id = loginClaims{} // it only names the user
		}
	}
	if got, err := tenant.ParseID(access.TenantID); err != nil || got != s.Tenant {
		return Login{}, &token.Fault{Kind: token.BadAnswer, Sentence: fmt.Sprintf("The sign-in is for tenant %s, and %s was asked for.", quoteShort(access.TenantID), s.Tenant), Remedy: remedy}
	}
	if wrong := s.otherToken(access); wrong != "" {
		return Login{}, &token.Fault{Kind: token.BadAnswer, Sentence: wrong, Remedy: "Check that the authority is Entra ID and that nothing on the way answers for it."}
	}
	if answer.RefreshToken == "" || len(answer.RefreshToken) > maxRefreshToken {
		return Login{}, &token.Fault{Kind: token.BadAnswer, Sentence: "Entra ID gave no refresh token that can be kept.",
			Remedy: "Check that a Conditional Access policy of the tenant lets application " + s.ClientID + " stay signed in, and that offline_access is consented to."}
	}
	name := ""
	for _, candidate := range []string{access.UPN, access.PreferredUsername, id.PreferredUsername, id.UPN, access.UniqueName} {
		if name == "" && len(candidate) <= maxUsername {
			name = candidate
		}
	}
	if s.Username != "" && !strings.EqualFold(name, s.Username) {
		who := quoteShort(name)
		if name == "" {
			who = "A user whose name Entra ID does not tell"
		}
		return Login{}, &token.Fault{Kind: token.Rejected, Sentence: fmt.Sprintf("%s has signed in, and the configuration wants %s.", who, quoteShort(s.Username)), Remedy: "Sign in as that user, or correct username in the configuration, or leave it out."}
	}
	return Login{RefreshToken: answer.RefreshToken, Username: name, SignedIn: s.Now().UTC()}, nil
}

// otherToken tells how the token is another one than was asked for, by the rules
// that the engine has for later ones; empty where it is not.
func (s *signIn) otherToken(access loginClaims) string {
	// Entra ID keeps or drops one slash at the end, as the API was registered.
	bare := func(audience string) string { return strings.TrimSuffix(audience, "/") }
	if len(access.Audience) != 1 || bare(access.Audience[0]) != bare(s.Audience) {
		return fmt.Sprintf("The token is for audience %s, and %s was asked for.", quoteShort(strings.Join(access.Audience, " ")), s.Audience)
	}
	if app := cmp.Or(access.AppID, access.AuthorizedParty); app != "" && !strings.EqualFold(app, s.ClientID) {
		return fmt.Sprintf("The token is for application %s, and %s asked for it.", quoteShort(app), s.ClientID)
	}
	return ""
}

// loginClaims are the claims that tell who signed in
// (learn.microsoft.com/entra/identity-platform/access-token-claims-reference).
type loginClaims struct {
	jwt.RegisteredClaims
	TenantID          string `json:"tid"`
	AppID             string `json:"appid"` // of version 1.0
	AuthorizedParty   string `json:"azp"`   // of version 2.0
	UPN               string `json:"upn"`
	PreferredUsername string `json:"preferred_username"`
	UniqueName        string `json:"unique_name"`
}
