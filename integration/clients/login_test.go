package clients

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Tools in Go log in with x/oauth2, with MSAL or with the Azure SDK before they ask
// for anything, and will not be changed. Their settings name Microsoft's hosts, which
// lead to the proxy, or the proxy itself as the authority. Each gets a token in every
// way that its library has, and with it the alerts.

func context20(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestToolsWithOAuth2LogIn(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ctx := context.WithValue(context20(t), oauth2.HTTPClient, d.client)
	for _, base := range []string{login, d.secure, d.plain, d.plain + "/t/contoso", d.plain + "/any/prefix"} {
		v1, v2 := base+"/"+toolTenant+"/oauth2/token", base+"/"+toolTenant+"/oauth2/v2.0/token"
		for name, config := range map[string]clientcredentials.Config{
			"version 2":                         {TokenURL: v2, Scopes: []string{scope}},
			"version 2 with Basic":              {TokenURL: v2, Scopes: []string{scope}, AuthStyle: oauth2.AuthStyleInHeader},
			"version 2 with the secret as form": {TokenURL: v2, Scopes: []string{scope}, AuthStyle: oauth2.AuthStyleInParams},
			"version 1":                         {TokenURL: v1, EndpointParams: url.Values{"resource": {resource}}},
		} {
			t.Run(base+" as an application, "+name, func(t *testing.T) {
				config.ClientID, config.ClientSecret = toolID, toolSecret
				token, err := config.Token(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if token.Type() != "Bearer" || !token.Valid() {
					t.Errorf("got a token of type %s until %v", token.Type(), token.Expiry)
				}
				d.use(t, token.AccessToken)
			})
		}
		user := oauth2.Config{ClientID: toolID, Scopes: []string{scope, "offline_access"}, Endpoint: oauth2.Endpoint{TokenURL: v2, DeviceAuthURL: base + "/" + toolTenant + "/oauth2/v2.0/devicecode"}}
		t.Run(base+" as a user, and a renewal", func(t *testing.T) {
			token, err := user.PasswordCredentialsToken(ctx, toolUser, toolPassword)
			if err != nil {
				t.Fatal(err)
			}
			d.use(t, token.AccessToken)
			token.Expiry = time.Now().Add(-time.Hour)
			if token, err = user.TokenSource(ctx, token).Token(); err != nil {
				t.Fatalf("renew: %v", err)
			}
			d.use(t, token.AccessToken)
		})
		t.Run(base+" with a device code", func(t *testing.T) {
			code, err := user.DeviceAuth(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if code.UserCode == "" || code.VerificationURI == "" {
				t.Errorf("nothing to show: %+v", code)
			}
			token, err := user.DeviceAccessToken(ctx, code)
			if err != nil {
				t.Fatal(err)
			}
			d.use(t, token.AccessToken)
		})
	}
}

// authorities are what MSAL and the SDK have as their authority: Microsoft's name,
// and the proxy's own, with and without asking Microsoft's name about it first.
func (d *desk) authorities() map[string]struct {
	host      string
	discovers bool
} {
	return map[string]struct {
		host      string
		discovers bool
	}{
		"by Microsoft's name":                        {login, true},
		"by the proxy's name":                        {d.secure, false},
		"by the proxy's name, looked up as instance": {d.secure, true},
	}
}

// ask for a token with these, and MSAL takes no stored one.
const claims = `{"access_token":{"nbf":{"essential":true}}}`

func TestToolsWithMSALLogIn(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	secret, err := confidential.NewCredFromSecret(toolSecret)
	if err != nil {
		t.Fatal(err)
	}
	chain, key := toolCertificate(t)
	certificate, err := confidential.NewCredFromCert(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	scopes := []string{scope}
	for name, at := range d.authorities() {
		authority := at.host + "/" + toolTenant
		for kind, credential := range map[string]confidential.Credential{"a secret": secret, "a certificate": certificate} {
			t.Run(name+" with "+kind, func(t *testing.T) {
				ctx := context20(t)
				app, err := confidential.New(authority, toolID, credential, confidential.WithHTTPClient(d.client), confidential.WithInstanceDiscovery(at.discovers))
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					result, err := app.AcquireTokenByCredential(ctx, scopes)
					if err != nil {
						t.Fatal(err)
					}
					d.use(t, result.AccessToken)
				}
			})
		}
		for kind, acquire := range map[string]func(context.Context, public.Client) (public.AuthResult, error){
			"a device code": func(ctx context.Context, app public.Client) (public.AuthResult, error) {
				code, err := app.AcquireTokenByDeviceCode(ctx, scopes)
				if err != nil {
					return public.AuthResult{}, err
				}
				if code.Result.Message == "" {
					t.Error("nothing to show to the user")
				}
				return code.AuthenticationResult(ctx)
			},
			"a user's password": func(ctx context.Context, app public.Client) (public.AuthResult, error) {
				//lint:ignore SA1019 tools use it
				return app.AcquireTokenByUsernamePassword(ctx, scopes, toolUser, toolPassword)
			},
		} {
			t.Run(name+" with "+kind, func(t *testing.T) {
				ctx := context20(t)
				app, err := public.New(toolID, public.WithAuthority(authority), public.WithHTTPClient(d.client), public.WithInstanceDiscovery(at.discovers))
				if err != nil {
					t.Fatal(err)
				}
				result, err := acquire(ctx, app)
				if err != nil {
					t.Fatal(err)
				}
				d.use(t, result.AccessToken)
				accounts, err := app.Accounts(ctx)
				if err != nil || len(accounts) != 1 {
					t.Fatalf("%d accounts, %v, want 1", len(accounts), err)
				}
				stored, err := app.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(accounts[0]))
				if at.host == login || !at.discovers { // MSAL finds nothing again under a name that the instance does not list
					if err != nil || stored.AccessToken != result.AccessToken || stored.Metadata.TokenSource != public.TokenSourceCache {
						t.Errorf("the stored token is not found again: %v", err)
					}
					renewed, err := app.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(accounts[0]), public.WithClaims(claims))
					if err != nil || renewed.Metadata.TokenSource != public.TokenSourceIdentityProvider {
						t.Fatalf("renew: %v, from %v", err, renewed.Metadata.TokenSource)
					}
					d.use(t, renewed.AccessToken)
				}
			})
		}
	}
}

func TestToolsWithTheAzureSDKLogIn(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	chain, key := toolCertificate(t)
	for name, at := range d.authorities() {
		options := azcore.ClientOptions{Transport: d.client, Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: at.host}}
		prompts := 0
		for kind, make := range map[string]func() (azcore.TokenCredential, error){
			"a secret": func() (azcore.TokenCredential, error) {
				return azidentity.NewClientSecretCredential(toolTenant, toolID, toolSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: !at.discovers})
			},
			"a certificate": func() (azcore.TokenCredential, error) {
				return azidentity.NewClientCertificateCredential(toolTenant, toolID, chain, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: !at.discovers})
			},
			"a device code": func() (azcore.TokenCredential, error) {
				return azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{
					ClientOptions: options, DisableInstanceDiscovery: !at.discovers, TenantID: toolTenant, ClientID: toolID,
					UserPrompt: func(_ context.Context, m azidentity.DeviceCodeMessage) error {
						prompts++
						return nil
					},
				})
			},
			"a user's password": func() (azcore.TokenCredential, error) {
				//lint:ignore SA1019 tools use it
				return azidentity.NewUsernamePasswordCredential(toolTenant, toolID, toolUser, toolPassword, &azidentity.UsernamePasswordCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: !at.discovers})
			},
		} {
			t.Run(name+" with "+kind, func(t *testing.T) {
				credential, err := make()
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					token, err := credential.GetToken(context20(t), policy.TokenRequestOptions{Scopes: []string{scope}})
					if err != nil {
						t.Fatal(err)
					}
					if time.Until(token.ExpiresOn) < 30*time.Minute {
						t.Errorf("the token is good until %v", token.ExpiresOn)
					}
					d.use(t, token.Token)
				}
			})
		}
		if at.host == login && prompts != 1 {
			t.Errorf("%s: a user was asked %d times to log in elsewhere, want once", name, prompts)
		}
	}
}

// toolCertificate is what a tool proves itself with in place of a secret.
func toolCertificate(t *testing.T) ([]*x509.Certificate, *rsa.PrivateKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "tool"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{certificate}, key
}
