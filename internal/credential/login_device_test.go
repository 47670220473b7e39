package credential

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defender-proxy/internal/token"
)

// fakeTime is a sign-in with a device code in a bubble of fake time.
func fakeTime(t *testing.T, f *fakeLogin, change func(*LoginOptions)) (Login, LoginPrompt, error) {
	t.Helper()
	f.t = t
	var prompt LoginPrompt
	o := LoginOptions{
		Flow: FlowDeviceCode, Authority: "https://login.example", Tenant: storeTenant, ClientID: storeClient,
		Audience: loginAudience, Transport: inMemory{f}, Show: func(p LoginPrompt) { prompt = p },
	}
	if change != nil {
		change(&o)
	}
	l, err := SignIn(t.Context(), o)
	return l, prompt, err
}

func TestDeviceCodeOverTLS(t *testing.T) {
	f := &fakeLogin{
		answers: []func(http.ResponseWriter, url.Values){pending, granting},
		device: func(w http.ResponseWriter) {
			fmt.Fprintf(w, `{"user_code":"ABCD1234","device_code":%q,"verification_uri":"https://microsoft.com/devicelogin","expires_in":900,"interval":1}`, fakeDevice)
		},
	}
	o, _ := overTLS(t, f, FlowDeviceCode)
	var prompt LoginPrompt
	o.Show = func(p LoginPrompt) { prompt = p }
	l, err := SignIn(t.Context(), o)
	noError(t, err)
	if l.RefreshToken != fakeRefresh || l.Username != "ana@contoso.example" || l.SignedIn.IsZero() || !l.Rotated.IsZero() {
		t.Errorf("got token %q of %v, want Ana's", l.RefreshToken, l)
	}
	if prompt.URL != "https://microsoft.com/devicelogin" || prompt.Code != "ABCD1234" || time.Until(prompt.Expires) > devicePatience {
		t.Errorf("got prompt %+v", prompt)
	}
	want := url.Values{"client_id": {storeClient}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {fakeDevice}, "scope": {loginScope}}
	if got := f.forms[0].Encode(); got != want.Encode() {
		t.Errorf("got form %s, want %s", got, want.Encode())
	}
}

func TestDeviceCodeKeepsToTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		f := &fakeLogin{answers: []func(http.ResponseWriter, url.Values){pending, pending, slowDown, pending, failing(503, "", ""), pending, granting}}
		_, prompt, err := fakeTime(t, f, nil)
		noError(t, err)
		var got []string
		for _, at := range f.asked {
			got = append(got, at.Sub(begun).String())
		}
		// From slow_down on five seconds more. The question that got no answer is
		// asked again with the server's interval and five seconds more.
		if want := "5s 10s 15s 25s 35s 45s 55s"; strings.Join(got, " ") != want {
			t.Errorf("it asked at %v, want %s", got, want)
		}
		if want := begun.Add(devicePatience); !prompt.Expires.Equal(want) {
			t.Errorf("got expiry %v, want %v", prompt.Expires, want)
		}
	})
}

func TestDeviceCodeGoesOnAfterALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeLogin{answers: []func(http.ResponseWriter, url.Values){granting}}
		lost := 3
		l, _, err := fakeTime(t, f, func(o *LoginOptions) {
			o.Transport = roundTripFunc(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/token") && lost > 0 {
					lost--
					return nil, errors.New("connection reset by peer")
				}
				return inMemory{f}.RoundTrip(r)
			})
		})
		noError(t, err)
		if l.RefreshToken != fakeRefresh {
			t.Errorf("got %q", l.RefreshToken)
		}
	})
}

// Entra ID could not be asked from some time on until the code expired: it is not
// said that nobody signed in.
func TestDeviceCodeDuringAnOutage(t *testing.T) {
	for _, test := range []struct {
		name string
		lost func(*http.Request) error
	}{
		{"when the connection is refused", func(*http.Request) error { return errors.New("connection refused") }},
		{"when nothing answers", func(r *http.Request) error { <-r.Context().Done(); return r.Context().Err() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeLogin{answers: []func(http.ResponseWriter, url.Values){pending}}
				_, _, err := fakeTime(t, f, func(o *LoginOptions) {
					o.Transport = roundTripFunc(func(r *http.Request) (*http.Response, error) {
						if strings.HasSuffix(r.URL.Path, "/token") && len(f.forms) > 3 {
							return nil, test.lost(r)
						}
						return inMemory{f}.RoundTrip(r)
					})
				})
				if f, ok := errors.AsType[*token.Fault](err); !ok || f.Kind != token.Unreachable || !strings.Contains(f.Error(), "cannot be reached") {
					t.Errorf("got %v, want that Entra ID cannot be reached", err)
				}
			})
		})
	}
}

// x/oauth2 asks for the code without a context.
func TestDeviceCodeEndpointThatHangsIsGivenUp(t *testing.T) {
	hang := func(o *LoginOptions) {
		o.Transport = roundTripFunc(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
	}
	t.Run("after half a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			_, _, err := fakeTime(t, &fakeLogin{}, hang)
			if f, ok := errors.AsType[*token.Fault](err); !ok || f.Kind != token.Unreachable || time.Since(begun) != requestPatience {
				t.Errorf("got %v after %v, want an unreachable Entra ID after %v", err, time.Since(begun), requestPatience)
			}
		})
	})
	t.Run("when it is interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := LoginOptions{
				Flow: FlowDeviceCode, Authority: "https://login.example", Tenant: storeTenant, ClientID: storeClient,
				Audience: loginAudience, Show: func(LoginPrompt) {},
			}
			hang(&o)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			begun := time.Now()
			_, err := SignIn(ctx, o)
			if f, ok := errors.AsType[*token.Fault](err); !ok || f.Kind != token.Stopped || time.Since(begun) != time.Second {
				t.Errorf("got %v after %v, want an interrupted sign-in after 1s", err, time.Since(begun))
			}
		})
	})
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestDeviceCodeThatComesToNothing(t *testing.T) {
	answers := func(a ...func(http.ResponseWriter, url.Values)) *fakeLogin { return &fakeLogin{answers: a} }
	device := func(body string) *fakeLogin {
		return &fakeLogin{device: func(w http.ResponseWriter) { fmt.Fprint(w, body) }}
	}
	for _, test := range []struct {
		name string
		f    *fakeLogin
		kind token.Kind
		want string
	}{
		{"the person declines", answers(pending, failing(400, "authorization_declined", "AADSTS65004: User declined to consent.")), token.Rejected, "declined"},
		{"the code expires", answers(pending, failing(400, "expired_token", "AADSTS70020: The provided value for the input parameter 'device_code' is not valid.")), token.Rejected, "expired before anybody"},
		{"the code is not known", answers(failing(400, "bad_verification_code", "AADSTS70018: Invalid verification code.")), token.Rejected, "AADSTS70018"},
		{"nobody ever signs in", answers(pending), token.Misconfigured, "Nobody signed in in time"},
		{"Entra ID is away until the code expires", answers(failing(503, "", "")), token.Unavailable, "answered 503"},
		{"Entra ID comes back and nobody signs in", answers(failing(503, "", ""), pending), token.Misconfigured, "Nobody signed in in time"},
		{"Entra ID goes away and nobody could sign in", answers(pending, failing(503, "", "")), token.Unavailable, "answered 503"},
		{"consent is missing", answers(failing(400, "invalid_grant", "AADSTS65001: The user or administrator has not consented.")), token.Rejected, "/" + storeTenant + "/adminconsent?client_id=" + storeClient},
		{"the application is no public client", answers(failing(401, "invalid_client", "AADSTS7000218: The request body must contain client_secret.")), token.Rejected, "Allow public client flows"},
		{"the codes are missing", device(`{}`), token.BadAnswer, "is not Entra ID"},
		{"the answer is null", device(`null`), token.BadAnswer, "is not Entra ID"},
		{"the answer is a page", device(`<html>Sign in to the guest network</html>`), token.BadAnswer, "is not Entra ID"},
		{"the answer is empty", device(``), token.BadAnswer, "is not Entra ID"},
		{"the answer never ends", device(`{"user_code":"` + strings.Repeat("x", maxLoginAnswer) + `"}`), token.BadAnswer, "too long"},
		{"the page is a script", device(`{"user_code":"A","device_code":"d","verification_uri":"javascript:alert(1)"}`), token.BadAnswer, "is not Entra ID"},
		{"the page is not encrypted", device(`{"user_code":"A","device_code":"d","verification_uri":"http://evil.example"}`), token.BadAnswer, "is not Entra ID"},
		{"the code would move the cursor", device(`{"user_code":"A\u001b[2J","device_code":"d","verification_uri":"https://microsoft.com/devicelogin"}`), token.BadAnswer, "is not Entra ID"},
		{"the code has expired already", device(`{"user_code":"A","device_code":"d","verification_uri":"https://microsoft.com/devicelogin","expires_in":-5}`), token.Misconfigured, "Nobody signed in in time"},
		{"the interval is longer than any life", device(`{"user_code":"A","device_code":"d","verification_uri":"https://microsoft.com/devicelogin","interval":9223372036854775807,"expires_in":20}`), token.Misconfigured, "Nobody signed in in time"},
		{"the interval is below zero", device(`{"user_code":"A","device_code":"d","verification_uri":"https://microsoft.com/devicelogin","interval":-7,"expires_in":3}`), token.Misconfigured, "Nobody signed in in time"},
		{"the tenant does not exist", &fakeLogin{device: func(w http.ResponseWriter) {
			entraError(w, 400, "invalid_request", "AADSTS90002: Tenant not found.")
		}}, token.Rejected, "AADSTS90002: Tenant not found."},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				l, _, err := fakeTime(t, test.f, nil)
				f, ok := errors.AsType[*token.Fault](err)
				if !ok || f.Kind != test.kind || !strings.Contains(f.Error(), test.want) || f.Sentence == "" || f.Remedy == "" {
					t.Errorf("got %T %v, want a fault of kind %v with %q", err, err, test.kind, test.want)
				}
				if l != (Login{}) {
					t.Errorf("got a login with the error")
				}
				if strings.Contains(fmt.Sprint(err), "Trace ID") {
					t.Errorf("got %v, want no ids of the trace", err)
				}
				if took := time.Since(begun); took > devicePatience {
					t.Errorf("it took %v, want at most %v", took, devicePatience)
				}
			})
		})
	}
}

// An assertion lives ten minutes, a device code fifteen.
func TestDeviceCodeWithAnAssertionThatEndsMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		client := &assertingClient{}
		f := &fakeLogin{answers: []func(http.ResponseWriter, url.Values){func(w http.ResponseWriter, form url.Values) {
			made, err := time.Parse(time.RFC3339, form.Get("client_assertion"))
			switch {
			case err != nil || time.Since(made) > 10*time.Minute:
				entraError(w, 401, "invalid_client", "AADSTS700024: Client assertion is not within its valid time range.")
			case time.Since(begun) < 12*time.Minute:
				pending(w, form)
			default:
				granting(w, form)
			}
		}}}
		l, _, err := fakeTime(t, f, func(o *LoginOptions) { o.Client = client })
		noError(t, err)
		if l.RefreshToken != fakeRefresh || client.made != 2 {
			t.Errorf("got %q with %d assertions, want a login with two", l.RefreshToken, client.made)
		}
	})
}

type assertingClient struct{ made int }

func (c *assertingClient) Proofs(_ context.Context, ask token.Ask) ([]token.Proof, error) {
	c.made++
	return []token.Proof{{Name: "certificate", Form: url.Values{"client_assertion": {ask.Now.UTC().Format(time.RFC3339)}}}}, nil
}
func (c *assertingClient) Health() token.Health { return token.Health{} }
