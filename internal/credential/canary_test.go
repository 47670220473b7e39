package credential

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"software.sslmate.com/src/go-pkcs12"

	"defender-proxy/internal/token"
)

// TestNoSecretIsShown sends canaries through each kind of credential, in success
// and in failure, and looks for them in all that can be printed.
func TestNoSecretIsShown(t *testing.T) {
	noIdentityEnvironment(t)
	t.Setenv("AZURE_SDK_GO_LOGGING", "")
	const canary, password = "c4nary-9e1f7", "passw0rd-c4nary"
	key := keyPEM(t, oneKey())
	keyText := strings.Split(string(key), "\n")
	secrets := []string{canary, password, keyText[1], keyText[9], base64.StdEncoding.EncodeToString([]byte(canary)), vaultToken, theSecret, "env-secret-canary", "body-canary",
		oneKey().D.String()[:60], oneKey().D.Text(16)[:60], oneKey().Primes[0].String()[:60], oneKey().Primes[0].Text(16)[:60]}

	var shown []any
	show := func(c token.Credential, vs ...any) {
		shown = append(shown, c, c.Health())
		shown = append(shown, vs...)
	}
	try := func(c token.Credential) []token.Proof {
		ps, err := c.Proofs(t.Context(), testAsk)
		show(c, err)
		for _, p := range ps {
			secrets = append(secrets, p.Secrets...)
			shown = append(shown, p.Name)
			if p.Rejected != nil {
				p.Rejected(7000215)
			}
			if p.Granted != nil {
				shown = append(shown, p.Granted(token.Grant{RefreshToken: canary}))
			}
		}
		show(c)
		return ps
	}

	plain := func(text string, err error) Value { return Plain(func() (string, error) { return text, err }) }
	try(ClientSecret(plain(canary, nil), plain(canary+"-next", nil)))
	try(ClientSecret(plain(canary+" ", nil), plain(canary+"\n", nil)))
	try(ClientSecret(plain(canary, errors.New("the file f cannot be read")), nil))
	shown = append(shown, Secret{Text: canary}, &Secret{Text: canary})

	leaf := makeCert(t, oneKey(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	p12 := makeP12(t, pkcs12.Modern2023, oneKey(), leaf, nil, password)
	for _, pw := range []string{password, canary, ""} {
		files := CertificateFiles{File: put(t, "app.p12", p12), Password: func() (string, error) { return pw, nil }}
		try(Certificate(files))
		_, err := CheckCertificate(files, time.Now())
		shown = append(shown, err, files)
	}
	// A key in the place of a certificate, a damaged key, a secret in a PEM's place.
	for _, content := range [][]byte{key, join(certPEM(leaf), key[:300]), join(certPEM(leaf), []byte(strings.Replace(string(key), keyText[5], keyText[6], 1))), []byte(canary)} {
		try(Certificate(CertificateFiles{File: put(t, "app.pem", content)}))
	}

	for _, content := range []string{makeJWT(map[string]any{"sub": canary}), makeJWT(map[string]any{"sub": canary, "exp": 1}), canary, "a." + canary + ".b"} {
		if strings.HasPrefix(content, "ey") {
			secrets = append(secrets, content)
		}
		file := put(t, "token", []byte(content))
		try(FederatedToken(file))
		shown = append(shown, CheckFederatedToken(file))
	}

	a := newAzure(t)
	v := NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)})
	for _, answer := range []any{secretBundle(theSecret, "v", nil), vaultFailure{403, vaultError("Forbidden", "ForbiddenByRbac "+canary), ""}, vaultFailure{500, canary, ""}, secretBundle(theSecret, "v", map[string]any{"enabled": false})} {
		a.set("/secrets/app", answer)
		try(ClientSecret(vaultValue(t, NewVault(VaultOptions{Transport: a.transport(), Env: env(envSecret)}), appURL), nil))
		try(ClientSecret(vaultValue(t, v, appURL), nil))
	}

	for _, status := range []int{200, 400, 403, 418} {
		a.setIMDS(func(w http.ResponseWriter, _ *http.Request) {
			body := imdsAnswer(canary, "r", time.Hour)
			body["error"], body["error_description"] = canary+" is the token", canary
			answerJSON(w, status, body)
		})
		c, err := ManagedIdentityAssertion(IdentityOptions{ClientID: uuid.NewString(), Transport: a.transport()}, "commercial")
		if err != nil {
			t.Fatal(err)
		}
		try(c)
		if _, err = c.Proofs(t.Context(), testAsk); err == nil {
			shown = append(shown, struct{ c token.Credential }{c}) // with a token in it
		}
		_, err = mustIssuer(t, IdentityOptions{Transport: a.transport()}).Issue(t.Context(), testAsk)
		shown = append(shown, err)
	}

	shown = append(shown, v, struct{ v *Vault }{v})
	for _, x := range shown {
		mustNotShow(t, secrets, x)
	}
	if len(shown) < 60 {
		t.Errorf("only %d things were looked at", len(shown))
	}
}
