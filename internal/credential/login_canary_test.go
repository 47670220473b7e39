package credential

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"defender-proxy/internal/token"
)

// An authority that repeats whatever it was told: nothing of it gets out.
func TestSignInShowsNoSecret(t *testing.T) {
	var seen []string
	repeat := func(w http.ResponseWriter, form url.Values) {
		for _, name := range []string{"code", "code_verifier", "device_code", "client_secret"} {
			if v := form.Get(name); v != "" {
				seen = append(seen, v)
			}
		}
		entraError(w, 400, "invalid_grant", "AADSTS1: You sent "+fmt.Sprint(form)+" and "+form.Encode())
	}
	client := &fakeClient{proofs: []token.Proof{{Form: url.Values{"client_secret": {"canary secret ~1"}}, Secrets: []string{"canary secret ~1"}}}}
	secrets := []string{"canary secret ~1"}
	check := func(err error, prompt LoginPrompt) {
		t.Helper()
		if err == nil {
			t.Fatal("got no error")
		}
		encoded, _ := json.Marshal(err)
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err), string(encoded), fmt.Sprintf("%+v", prompt)} {
			hidden(t, "an error or a prompt", text, seen...)
		}
	}
	var prompt LoginPrompt
	_, err := signInBy(t, &fakeLogin{secrets: secrets, answers: []func(http.ResponseWriter, url.Values){repeat}}, func(o *LoginOptions) { o.Client = client }, func(b *http.Client, p LoginPrompt) {
		prompt = p
		follow(t, b, p)
	})
	check(err, prompt)
	if len(seen) != 3 {
		t.Fatalf("got %d secrets, want code, verifier and client secret", len(seen))
	}
	synctest.Test(t, func(t *testing.T) {
		_, prompt, err := fakeTime(t, &fakeLogin{secrets: secrets, answers: []func(http.ResponseWriter, url.Values){repeat}}, func(o *LoginOptions) { o.Client = client })
		check(err, prompt)
	})
	if len(seen) != 5 {
		t.Fatalf("got %d secrets, want the device code too", len(seen))
	}
}

// A token that nobody knew of gets into Entra's words.
func TestSignInShowsNoTokenInTheWordsOfOthers(t *testing.T) {
	raw := unsigned(map[string]any{"upn": "canary"})
	synctest.Test(t, func(t *testing.T) {
		f := &fakeLogin{answers: []func(http.ResponseWriter, url.Values){failing(400, "invalid_grant", "AADSTS1: The assertion "+raw+" is wrong.")}}
		_, _, err := fakeTime(t, f, nil)
		if err == nil || !strings.Contains(err.Error(), "The assertion "+hiddenToken) {
			t.Errorf("got %v, want Entra's words up to the token", err)
		}
		for _, part := range strings.Split(raw, ".") {
			hidden(t, "an error", fmt.Sprint(err), part)
		}
	})
}

// Faults of the store and of the user name files, never what is in them.
func TestUserShowsNoSecret(t *testing.T) {
	u, s, o := storedUser(t, nil)
	p := oneProof(t, u)
	for _, v := range []any{u, s, o, u.Health(), p.Name} {
		hidden(t, fmt.Sprintf("a print of %T", v), fmt.Sprintf("%v %+v %#v", v, v, v), storeLogin.RefreshToken)
	}
	s.remember([]byte("canary key"))
	hidden(t, "a print of the store", fmt.Sprintf("%v %+v %#v", s, s, s), fmt.Sprint([]byte("canary key")))
	other := o
	other.ClientID = "44444444-4444-4444-4444-444444444444"
	_, err := OpenStore(other).Load()
	hidden(t, "a fault", fmt.Sprint(err), storeLogin.RefreshToken)
	hidden(t, "a fault", fmt.Sprint(OpenStore(other).rotate(storeLogin.RefreshToken, "canary fresh", again, userAsk.Now)), storeLogin.RefreshToken)
}

func TestLoginPrintsNoToken(t *testing.T) {
	l := storeLogin
	encoded, err := json.Marshal(map[string]any{"l": l, "p": &l, "in": []any{l}})
	noError(t, err)
	for _, text := range []string{
		fmt.Sprint(l), fmt.Sprintf("%v %+v %#v %s %q %x %d", l, l, l, l, l, l, l), fmt.Sprintf("%v %+v %#v", &l, &l, &l),
		fmt.Sprintf("%+v %#v", struct{ L Login }{l}, []Login{l}), string(encoded),
	} {
		if strings.Contains(text, "canary") || strings.Contains(text, fmt.Sprintf("%x", "canary")) {
			t.Errorf("got %q, want no token in it", text)
		}
		if !strings.Contains(text, hiddenToken) && text != "" {
			t.Errorf("got %q, want it to say that something is hidden", text)
		}
	}
}
