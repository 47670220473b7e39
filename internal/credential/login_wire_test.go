package credential

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
)

func TestSignInErrorsTellWhatToDo(t *testing.T) {
	for _, test := range []struct {
		code, description, want string
	}{
		{"invalid_client", "AADSTS7000218: The request body must contain client_secret.", "Allow public client flows"},
		{"invalid_client", "AADSTS700025: Client is public.", "take client_secret and certificate out"},
		{"invalid_client", "AADSTS7000222: The provided client secret keys are expired.", "application's own credential"},
		{"invalid_grant", "AADSTS65001: The user or administrator has not consented.", "An administrator of the tenant consents at https://login.example/" + storeTenant + "/adminconsent?client_id=" + storeClient},
		{"unauthorized_client", "AADSTS700016: Application was not found in the directory.", "Check client_id, tenant and audience. If they are right: an administrator"},
		{"invalid_request", "AADSTS50011: The redirect URI does not match.", "Add http://localhost as a redirect URI"},
		{"invalid_grant", "AADSTS50020: User account does not exist in tenant.", "account of this tenant"},
		{"access_denied", "AADSTS53003: Access has been blocked by Conditional Access policies.", "try the flow authorization_code"},
		{"invalid_grant", "AADSTS9999999: Something new.", "https://login.microsoftonline.com/error?code=9999999"},
		{"something_new", "", "Start the sign-in again."},
	} {
		t.Run(test.code+" "+test.description, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeLogin{answers: []func(http.ResponseWriter, url.Values){failing(400, test.code, test.description)}}
				_, _, err := fakeTime(t, f, nil)
				if text := fmt.Sprint(err); !strings.Contains(text, test.want) || test.description != "" && !strings.Contains(text, test.description) {
					t.Errorf("got %q, want Entra's words and %q", text, test.want)
				}
			})
		})
	}
}
