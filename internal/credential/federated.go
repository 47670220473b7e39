package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"

	"defender-proxy/internal/token"
)

const kindFederatedToken = "federated_token"

// maxFederatedToken bounds the file, in bytes. Kubernetes' tokens have about one
// KiB.
const maxFederatedToken = 64 << 10

// assertionType is the client_assertion_type of every assertion (RFC 7523,
// section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertionProof is the proof by a JWT, whoever signed it.
func assertionProof(name, assertion string) token.Proof {
	return token.Proof{
		Name:    name,
		Form:    url.Values{"client_assertion_type": {assertionType}, "client_assertion": {assertion}},
		Secrets: []string{assertion},
	}
}

// federatedToken implements token.Credential.
type federatedToken struct{ file string }

// FederatedToken is a credential of a token that another issuer, trusted by the
// application's federated credential, writes into a file and renews there
// (learn.microsoft.com/entra/workload-id/workload-identity-federation). The
// file is read for each fetch.
func FederatedToken(file string) token.Credential { return federatedToken{file} }

// CheckFederatedToken tells what is wrong with the file as it is now, as a
// *token.Fault, or nil. It asks nobody.
func CheckFederatedToken(file string) error {
	if _, f := readFederatedToken(file, time.Now()); f != nil {
		return f
	}
	return nil
}

// Proofs implements token.Credential.
func (c federatedToken) Proofs(_ context.Context, ask token.Ask) ([]token.Proof, error) {
	text, f := readFederatedToken(c.file, entraTime(ask))
	if f != nil {
		return nil, f
	}
	return []token.Proof{assertionProof("federated token", text)}, nil
}

// Health implements token.Credential. It tells no end: the file's writer renews
// the token long before.
func (federatedToken) Health() token.Health { return token.Health{Kind: kindFederatedToken} }

// entraTime is the time to date and to judge by.
func entraTime(ask token.Ask) time.Time {
	if ask.Now.IsZero() {
		return time.Now()
	}
	return ask.Now
}

func readFederatedToken(file string, now time.Time) (string, *token.Fault) {
	data, written, f := readCredentialFile("federated token file", file, maxFederatedToken)
	if f != nil {
		return "", f
	}
	text := strings.TrimRight(string(data), "\r\n")
	exp, ok := federatedExpiry(text)
	if !ok {
		return "", misconfigured(
			fmt.Sprintf("The federated token file %s does not hold a JWT: three parts of base64url with dots between them, and nothing else.", file),
			"Check that the configuration names the token file itself, such as /var/run/secrets/azure/tokens/azure-identity-token.")
	}
	if !exp.IsZero() && !now.Before(exp) {
		return "", misconfigured(
			fmt.Sprintf("The token in the federated token file %s ended at %s, %s ago; the file was written %s ago and is not being renewed.",
				file, exp.UTC().Format(time.RFC3339), age(now.Sub(exp)), age(time.Since(written))),
			"Look at what renews it: the projected volume of the pod, the workload identity webhook, or the job that writes the file.")
	}
	return text, nil
}

// federatedExpiry reads exp out of a JWT, zero where it has none. ok is false
// where text does not look like a JWT. The signature is Entra's to judge.
func federatedExpiry(text string) (exp time.Time, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	var payload []byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		// DecodeString skips line ends inside, which a form would carry on.
		if err != nil || len(b) == 0 || strings.ContainsAny(p, "\r\n") {
			return time.Time{}, false
		}
		if i == 1 {
			payload = b
		}
	}
	var claims struct {
		Exp *float64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return time.Time{}, false
	}
	if claims.Exp == nil {
		return time.Time{}, true
	}
	if s := *claims.Exp; s > 0 && s < math.MaxInt32*100 {
		return time.Unix(int64(s), 0), true
	}
	return time.Time{}, false
}

// age is a duration for people, in its largest unit.
func age(d time.Duration) string {
	switch d = d.Abs(); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
