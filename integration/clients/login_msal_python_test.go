//go:build clients

package clients

import (
	"encoding/json"
	"strings"
	"testing"
)

// msalInPython logs in as an application and as a user in each way that MSAL for
// Python has, renews what it got, and prints the tokens.
const msalInPython = `
import json, sys, msal
s = json.loads(sys.argv[1])
scopes = ["https://api.securitycenter.microsoft.com/.default"]
kept = dict(authority=s["authority"], validate_authority=s["validate"])
out = {}

def got(name, answer):
    if "access_token" not in answer:
        raise SystemExit(name + ": " + json.dumps(answer))
    out[name] = answer["access_token"]

app = msal.ConfidentialClientApplication(s["id"], client_credential=s["secret"], **kept)
got("a secret", app.acquire_token_for_client(scopes))
got("a secret again", app.acquire_token_for_client(scopes))

for name in s["users"]:
    user = msal.PublicClientApplication(s["id"], **kept)
    if name == "a password":
        got(name, user.acquire_token_by_username_password(s["user"], s["password"], scopes))
    else:
        flow = user.initiate_device_flow(scopes)
        if "user_code" not in flow:
            raise SystemExit(json.dumps(flow))
        got(name, user.acquire_token_by_device_flow(flow))
    account, = user.get_accounts()
    got(name + ", stored", user.acquire_token_silent(scopes, account))
    got(name + ", renewed", user.acquire_token_silent(scopes, account, force_refresh=True))
print(json.dumps(out))
`

// MSAL for Python, of the version that Debian has, judges an ID token by its own
// client id and refuses the whole answer for another one.
func TestToolsWithMSALForPythonLogIn(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for name, at := range d.authorities() {
		t.Run(name, func(t *testing.T) {
			users := []string{"a device code"}
			if at.host == login { // for a password MSAL asks the authority without its port
				users = append(users, "a password")
			}
			settings, err := json.Marshal(object{
				"users":     users,
				"authority": at.host + "/" + toolTenant, "validate": at.discovers,
				"id": toolID, "secret": toolSecret, "user": toolUser, "password": toolPassword,
			})
			if err != nil {
				t.Fatal(err)
			}
			env := append(d.led(), "PYTHONPATH=.", "PYTHONDONTWRITEBYTECODE=1", "REQUESTS_CA_BUNDLE="+d.caFile)
			var tokens map[string]string
			if err := json.Unmarshal([]byte(d.run("python", env, interpreter, "-c", msalInPython, string(settings))), &tokens); err != nil {
				t.Fatal(err)
			}
			if want := 2 + 3*len(users); len(tokens) != want {
				t.Errorf("%d tokens, want %d", len(tokens), want)
			}
			for way, token := range tokens {
				if strings.Count(token, ".") != 2 {
					t.Errorf("%s: the token is %q", way, token)
					continue
				}
				d.use(t, token)
			}
		})
	}
}
