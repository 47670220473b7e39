package token

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const wantedClaims = `{"access_token":{"nbf":{"essential":true,"value":"1763722800"}}}`

func TestClaimsChallenge(t *testing.T) {
	std := base64.StdEncoding.EncodeToString([]byte(wantedClaims))
	raw := base64.RawURLEncoding.EncodeToString([]byte(wantedClaims))
	for _, c := range []struct {
		name   string
		header []string
		want   string
	}{
		{"as Microsoft's pages show it", []string{`Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003", error="insufficient_claims", claims="` + std + `"`}, wantedClaims},
		{"without quotes", []string{`Bearer error=insufficient_claims, claims=` + raw}, wantedClaims},
		{"without spaces", []string{`Bearer error="insufficient_claims",claims="` + raw + `"`}, wantedClaims},
		{"in another letter case", []string{`bearer Claims="` + std + `"`}, wantedClaims},
		{"in the second header", []string{`Negotiate`, `Bearer claims="` + std + `"`}, wantedClaims},
		{"with a comma in another value", []string{`Bearer error_description="a, b=c", claims="` + std + `"`}, wantedClaims},
		{"none", nil, ""},
		{"a plain refusal", []string{`Bearer error="invalid_token", error_description="expired"`}, ""},
		{"another scheme", []string{`Basic claims="` + std + `"`}, ""},
		{"no base64", []string{`Bearer claims="{}"`}, ""},
		{"no JSON", []string{`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte("hello")) + `"`}, ""},
		{"an empty object", []string{`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte("{}")) + `"`}, ""},
		{"a list", []string{`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte("[1]")) + `"`}, ""},
		{"an end that is missing", []string{`Bearer claims="` + std}, ""},
		{"more than any has", []string{`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte(`{"a":"`+strings.Repeat("x", maxClaims)+`"}`)) + `"`}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ClaimsChallenge(http.Header{"Www-Authenticate": c.header}); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Whatever an API sends, what comes out is a JSON object of bounded size, and
// nothing that was quoted can end up in the form of the request.
func FuzzClaimsChallenge(f *testing.F) {
	f.Add(`Bearer realm="", error="insufficient_claims", claims="eyJhIjp7fX0="`)
	f.Add(`Bearer a=b,claims=eyJhIjp7fX0`)
	f.Add(`Bearer ,,,=,claims`)
	f.Fuzz(func(t *testing.T, value string) {
		got := ClaimsChallenge(http.Header{"Www-Authenticate": {value}})
		if got == "" {
			return
		}
		var object map[string]any
		if len(got) > maxClaims || json.Unmarshal([]byte(got), &object) != nil || len(object) == 0 {
			t.Fatalf("%q gives %q", value, got)
		}
	})
}

// entraOfClaims answers the requests after the first in turn, and notes the
// claims of each.
type entraOfClaims struct {
	entra
	sent []string
}

func newEntraOfClaims(t *testing.T, answers ...func() *http.Response) *entraOfClaims {
	f := &entraOfClaims{}
	f.respond = func(n int, form map[string]string) (*http.Response, error) {
		if n == 1 {
			if form["claims"] != "" {
				t.Error("the first request carried claims")
			}
			return answer(200, granted(contoso(), mde, time.Hour)), nil
		}
		f.sent = append(f.sent, form["claims"])
		if n-2 < len(answers) && answers[n-2] != nil {
			return answers[n-2](), nil
		}
		return answer(200, granted(contoso(), mde, time.Hour)), nil
	}
	return f
}

// CAE claims challenges were not answered (msgraph-sdk-java#2306).
func TestAClaimsChallengeIsAnsweredWithATokenAskedForWithThoseClaims(t *testing.T) {
	outage := func() *http.Response { return answer(503, "down") }
	for _, c := range []struct {
		name string
		// answers are Entra's to the requests after the first token.
		answers []func() *http.Response
		// claims says which of the requests after the first token carry claims.
		claims []bool
	}{
		{"granted: the one after is asked for without", nil, []bool{true, false}},
		{"refused: they are given up", []func() *http.Response{func() *http.Response { return refusal(400, "50079", "Register.") }}, []bool{true, false}},
		{"nonsense: they are given up", []func() *http.Response{func() *http.Response { return answer(200, "a page") }}, []bool{true, false}},
		{"an outage: they are kept", []func() *http.Response{outage}, []bool{true, true, false}},
		{"a long outage: they are given up", []func() *http.Response{outage, outage, outage, outage}, []bool{true, true, true, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := newEntraOfClaims(t, c.answers...)
				s := running(t, Options{Transport: f, Log: quiet}).Source(contoso(), mde)
				b := mustBearer(t, s)
				claims := wantedClaims
				for range c.claims {
					if next, err := s.Replace(t.Context(), b, claims); err == nil {
						b = next
					}
					claims = ""
					time.Sleep(2 * time.Minute)
				}
				for i, want := range c.claims {
					if got := f.sent[i] == wantedClaims; got != want || !want && f.sent[i] != "" {
						t.Errorf("request %d carried %q", i+2, f.sent[i])
					}
				}
			})
		})
	}
}

// The renewal that is under way when the challenge comes was asked for without
// the claims; its token would be refused again.
func TestAChallengeDuringARenewalIsNotAnsweredWithTheRenewalsToken(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newEntraOfClaims(t)
		f.delay = time.Minute
		s := running(t, Options{Transport: f, Log: quiet, FetchTimeout: time.Hour}).Source(contoso(), mde)
		b := mustBearer(t, s)
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Second)
				claims := ""
				if i > 0 {
					claims = wantedClaims
				}
				next, err := s.Replace(t.Context(), b, claims)
				if err != nil || next == b {
					t.Errorf("caller %d: %v", i, err)
				}
				if took := time.Since(b.acquired.time()); i > 0 && took < 3*time.Minute-time.Second {
					t.Errorf("caller %d got the token of the renewal", i)
				}
			})
		}
		wg.Wait()
		if len(f.sent) != 2 || f.sent[0] != "" || f.sent[1] != wantedClaims {
			t.Errorf("the requests carried %q", f.sent)
		}
	})
}
