package token

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestClaimsAreReadFromBothVersionsOfTokens(t *testing.T) {
	for name, c := range map[string]struct {
		in   jwt.MapClaims
		want Claims
	}{
		"an application's token of version 1.0": {
			jwt.MapClaims{
				"tid": contosoID, "aud": mde, "appid": clientID, "roles": []string{"Alert.Read.All", "Machine.Isolate"},
				"uti": "abc", "iss": "https://sts.windows.net/" + contosoID + "/", "iat": 1700000000, "exp": 1700003599, "ver": "1.0",
			},
			Claims{
				Tenant: contosoID, Audience: []string{mde}, AppID: clientID, Roles: []string{"Alert.Read.All", "Machine.Isolate"}, Scopes: []string{},
				UTI: "abc", Issuer: "https://sts.windows.net/" + contosoID + "/", IssuedAt: time.Unix(1700000000, 0).UTC(), Expiry: time.Unix(1700003599, 0).UTC(), Version: "1.0",
			},
		},
		"a user's token of version 2.0": {
			jwt.MapClaims{
				"tid": contosoID, "aud": []string{mde}, "azp": clientID, "scp": "Alert.Read  Machine.Read", "name": "Ada", "preferred_username": "ada@contoso.example", "exp": 1700003599, "ver": "2.0",
			},
			Claims{
				Tenant: contosoID, Audience: []string{mde}, AppID: clientID, Scopes: []string{"Alert.Read", "Machine.Read"},
				Name: "Ada", UPN: "ada@contoso.example", Expiry: time.Unix(1700003599, 0).UTC(), Version: "2.0",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readClaims(signed(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, c.want) {
				t.Errorf("got\n%+v, want\n%+v", *got, c.want)
			}
		})
	}
}

// FuzzReadClaims holds the reader to its word: it never panics, and what it
// accepts has a tenant, an audience and a date that JSON can write.
func FuzzReadClaims(f *testing.F) {
	segment := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	header := segment(`{"alg":"RS256","typ":"JWT"}`)
	for _, claims := range []string{
		`{"tid":"` + contosoID + `","aud":"` + mde + `","exp":1700003599,"roles":["A"]}`,
		`{"tid":"` + contosoID + `","aud":["a","b"],"exp":1e300}`,
		`{"tid":"` + contosoID + `","aud":[],"exp":-1}`,
		`{"tid":7,"aud":null,"exp":"x"}`, `null`, `[]`, `{}`, `{"scp":"a b","exp":9e18}`,
	} {
		f.Add(header, segment(claims), "c2ln")
		f.Add(header+"\r\n", segment(claims), "")
	}
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, header, claims, signature string) {
		for _, raw := range []string{
			header + "." + claims + "." + signature,
			segment(`{"alg":"RS256"}`) + "." + segment(claims) + "." + segment(signature),
		} {
			c, err := readClaims(raw)
			if err != nil {
				if c != nil {
					t.Errorf("%q: claims beside an error", raw)
				}
				continue
			}
			if len(c.Tenant) != 36 || len(c.Audience) == 0 || c.Audience[0] == "" || c.Expiry.IsZero() || c.Expiry.Unix() <= 0 {
				t.Errorf("%q was accepted with %+v", raw, c)
			}
			if _, err := json.Marshal(c); err != nil {
				t.Errorf("%q: %v", raw, err)
			}
			for _, b := range []byte(raw) {
				if b <= ' ' || b >= 0x7f {
					t.Errorf("%q was accepted, and would not go into a header", raw)
				}
			}
		}
	})
}
