package credential

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
	"defender-proxy/internal/token"
)

// The whole way of a user, with the engine and over TLS: somebody signs in, two
// audiences get tokens from the one refresh token, it is replaced, and when it
// is revoked the error says what to do.
func TestUserFromSignInToRevocation(t *testing.T) {
	const ana = "ana@contoso.onmicrosoft.com"
	sim, err := simulator.New(simulator.Config{DeviceInterval: time.Second, Tenants: []simulator.Tenant{{
		ID: storeTenant, Name: "contoso", Apps: []simulator.App{{
			ClientID: storeClient, Public: true,
			Users: []simulator.User{{Name: ana, Password: "canary-password", Scopes: map[string][]string{"mde": {"Alert.Read"}, "graph": {"ThreatHunting.Read.All"}}}},
		}},
	}}})
	noError(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sim.CA())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	engine := token.New(token.Options{Transport: transport})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- sim.Run(ctx) }()
	go func() { ended <- engine.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
		<-ended
		transport.CloseIdleConnections()
	}()

	store, o := fileStore(t)
	login, err := SignIn(ctx, LoginOptions{
		Flow: FlowDeviceCode, Authority: sim.Authority(), Tenant: storeTenant, ClientID: storeClient, Audience: loginAudience, Transport: transport,
		Show: func(p LoginPrompt) {
			if err := sim.ApproveDevice(p.Code, ana); err != nil {
				t.Error(err)
			}
		},
	})
	noError(t, err)
	if login.Username != ana {
		t.Errorf("got user %q, want %q", login.Username, ana)
	}
	noError(t, store.Save(login))

	const hint = "defender-proxy login contoso --config lab.yaml"
	user, err := User(UserOptions{Flow: FlowDeviceCode, Username: ana, Store: OpenStore(o), LoginHint: hint})
	noError(t, err)
	account := token.Account{
		Name: "contoso", Cloud: "lab", Authority: sim.Authority(), Tenant: storeTenant, ClientID: storeClient,
		Subject: "user", Credential: user, Version: token.V2,
	}
	wanted := map[string]string{loginAudience: "Alert.Read", "https://graph.microsoft.com": "ThreatHunting.Read.All"}
	for audience, scope := range wanted {
		b, err := engine.Source(account, audience).Bearer(ctx)
		noError(t, err)
		if claims := b.Claims(); !slices.Contains(claims.Scopes, scope) || claims.UPN != ana {
			t.Errorf("got scopes %v of %s, want %s of %s", claims.Scopes, claims.UPN, scope, ana)
		}
	}
	// The engine hands a token out without waiting for the store.
	kept, err := store.Load()
	for end := time.Now().Add(time.Minute); err == nil && kept.Rotated.IsZero() && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		kept, err = store.Load()
	}
	noError(t, err)
	if kept.RefreshToken == login.RefreshToken || kept.Rotated.IsZero() || !kept.SignedIn.Equal(login.SignedIn) {
		t.Errorf("the refresh token was not replaced: rotated %v, signed in %v", kept.Rotated, kept.SignedIn)
	}

	sim.RevokeRefreshTokens(ana)
	account.Cloud = "another" // so that no kept token serves
	_, err = engine.Source(account, loginAudience).Bearer(ctx)
	e, ok := errors.AsType[*token.Error](err)
	if !ok || e.Kind != token.Rejected || e.AADSTS != 50173 || !strings.Contains(e.Remedy, "sign") {
		t.Errorf("got %v, want the revoked sign-in with its remedy", err)
	}
	if strings.Contains(e.Error(), kept.RefreshToken) {
		t.Error("the error holds the refresh token")
	}
}

// The password grant, of both versions of the endpoint.
func TestUserWithAPasswordGetsATokenOfBothVersions(t *testing.T) {
	const ana = "ana@contoso.onmicrosoft.com"
	sim, err := simulator.New(simulator.Config{Tenants: []simulator.Tenant{{
		ID: storeTenant, Name: "contoso", Apps: []simulator.App{{
			ClientID: storeClient, Secrets: []string{"canary-secret"},
			Users: []simulator.User{{Name: ana, Password: "canary-password", Scopes: map[string][]string{"mde": {"Alert.Read"}}}},
		}},
	}}})
	noError(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sim.CA())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	engine := token.New(token.Options{Transport: transport})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- sim.Run(ctx) }()
	go func() { ended <- engine.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
		<-ended
		transport.CloseIdleConnections()
	}()
	for _, version := range []token.Version{token.V1, token.V2} {
		user, err := User(UserOptions{
			Flow: FlowPassword, Username: ana, Password: func() (string, error) { return "canary-password", nil },
			Client: ClientSecret(Plain(func() (string, error) { return "canary-secret", nil }), nil),
		})
		noError(t, err)
		b, err := engine.Source(token.Account{
			Name: "contoso", Cloud: string(version), Authority: sim.Authority(), Tenant: storeTenant, ClientID: storeClient,
			Subject: "user", Credential: user, Version: version,
		}, loginAudience).Bearer(ctx)
		noError(t, err)
		if got := b.Claims().Scopes; !slices.Equal(got, []string{"Alert.Read"}) {
			t.Errorf("%s: got scopes %v, want Alert.Read", version, got)
		}
	}
}
