package placeholder

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// life is how long a token claims to be good for; what it is good for does not
// change with it.
const life = time.Hour

// early is how long before now a token claims to have begun, for tools whose clock
// is late. Entra ID does the same.
const early = 5 * time.Minute

const nobody = "00000000-0000-0000-0000-000000000000"

// token is what both versions of the endpoint answer, to every kind of login.
//
// The times are numbers where version 2 has numbers, and strings where only version
// 1 has them, as strings. There is no scope: then a client has got what it asked
// for (RFC 6749, section 5.1), and MSAL takes an answer that names others for one
// without. client_info and id_token make the account that MSAL renews a user's
// token for; for an application they only cost the next token another request,
// because MSAL looks for those under no account.
func token(q Question) any {
	from, until := q.Now.Add(-early).Unix(), q.Now.Add(life).Unix()
	answer := struct {
		Type         string `json:"token_type"`
		ExpiresIn    int    `json:"expires_in"`
		ExtExpiresIn int    `json:"ext_expires_in"`
		ExpiresOn    string `json:"expires_on"`
		NotBefore    string `json:"not_before"`
		Access       string `json:"access_token"`
		Refresh      string `json:"refresh_token"`
		ID           string `json:"id_token,omitempty"`
		Client       string `json:"client_info"`
	}{
		Type:      "Bearer",
		ExpiresIn: int(life/time.Second) - 1, ExtExpiresIn: int(life/time.Second) - 1,
		ExpiresOn: strconv.FormatInt(until, 10), NotBefore: strconv.FormatInt(from, 10),
		Access:  accessToken(from, until),
		Refresh: "placeholder",
		Client:  encoded(clientInfo{nobody, nobody}),
	}
	if !q.NoIDToken {
		answer.ID = idToken(from, until)
	}
	return answer
}

type clientInfo struct {
	UID  string `json:"uid"`
	UTID string `json:"utid"`
}

const (
	issuer  = "https://placeholder.invalid/"
	purpose = "A placeholder of defender-proxy: it opens nothing. The proxy drops it and adds a token of its own."
)

// accessToken has the shape of a JWT that is not signed, and claims that say so
// to people who look. Its third part is not empty, although that of an unsigned one
// should be (RFC 7519, section 6.1): scripts split a token at its dots and want
// three parts, and Java's split drops an empty one.
func accessToken(from, until int64) string {
	return encoded(unsigned) + "." + encoded(struct {
		Audience string   `json:"aud"`
		Issuer   string   `json:"iss"`
		Issued   int64    `json:"iat"`
		From     int64    `json:"nbf"`
		Until    int64    `json:"exp"`
		App      string   `json:"appid"`
		Tenant   string   `json:"tid"`
		Roles    []string `json:"roles"`
		Version  string   `json:"ver"`
		Purpose  string   `json:"placeholder"`
	}{"placeholder", issuer, from, from, until, nobody, nobody, []string{}, "1.0", purpose}) + "." + base64.RawURLEncoding.EncodeToString([]byte("not signed"))
}

// idToken is an unsigned JWT to the letter, because libraries and not scripts read
// it: MSAL for Java takes Nimbus' parser, which wants no signature where the header
// says that there is none. It names no tenant: MSAL for Node then stores the token
// under the tenant that it asked for, and finds it again.
func idToken(from, until int64) string {
	return encoded(unsigned) + "." + encoded(struct {
		Audience string `json:"aud"`
		Issuer   string `json:"iss"`
		Issued   int64  `json:"iat"`
		From     int64  `json:"nbf"`
		Until    int64  `json:"exp"`
		Subject  string `json:"sub"`
		Object   string `json:"oid"`
		User     string `json:"preferred_username"`
		Name     string `json:"name"`
		Version  string `json:"ver"`
	}{nobody, issuer, from, from, until, "placeholder", nobody, "placeholder@placeholder.invalid", "placeholder of defender-proxy", "2.0"}) + "."
}

type header struct {
	Type      string `json:"typ"`
	Algorithm string `json:"alg"`
}

var unsigned = header{"JWT", "none"}

// encoded is v as JSON in base64 of the kind that JWT wants.
func encoded(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// Strict reports whether the library that asks, by the name in its header
// x-client-SKU, refuses the whole answer for an ID token that is made out to
// another client id than its own. MSAL for Python does, in all but its newest
// versions and for logins of applications too (IdTokenAudienceError); it manages
// without one. The client id stands in the body, which is not read.
func Strict(sku string) bool { return strings.EqualFold(sku, "MSAL.Python") }
