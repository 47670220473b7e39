package simulator

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// assertionType is the only client_assertion_type there is (RFC 7523).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// proof is how an application proved itself.
type proof string

const (
	proofNone        proof = "none"
	proofSecret      proof = "secret"
	proofCertificate proof = "certificate"
	proofFederated   proof = "federated"
)

// acr is the claim appidacr (learn.microsoft.com/entra/identity-platform/access-token-claims-reference).
func (p proof) acr() string {
	switch p {
	case proofSecret:
		return "1"
	case proofCertificate, proofFederated:
		return "2"
	}
	return "0"
}

// proveClient judges what the request shows for the application. need tells
// that nothing is not enough.
func (s *Simulator) proveClient(t *tenant, a app, form url.Values, secret string, asked endpoint, need bool) (proof, *aadError) {
	if a.disabled {
		return proofNone, refuse(7000112, a.clientID)
	}
	assertion := form.Get("client_assertion")
	switch {
	case a.public && (secret != "" || assertion != ""):
		return proofNone, refuse(700025)
	case secret != "" && assertion != "":
		// RFC 6749, section 2.3: one method in each request. What Entra ID
		// says to two is not documented.
		return proofNone, refuse(9002313)
	case assertion != "":
		if form.Get("client_assertion_type") == "" {
			return proofNone, refuse(900144, "client_assertion_type")
		}
		if form.Get("client_assertion_type") != assertionType {
			return proofNone, refuse(9002313)
		}
		return s.proveAssertion(t, a, assertion, asked)
	case secret != "":
		return proofSecret, checkSecret(a, secret)
	case need:
		return proofNone, refuse(7000218)
	}
	return proofNone, nil
}

// endpoint is the token endpoint that was asked.
type endpoint struct {
	tenant  string // as it stands in the path
	version int
}

// audiences are what an assertion may be for: the endpoint that was asked
// (learn.microsoft.com/entra/identity-platform/certificate-credentials), or the
// issuer of the tenant's tokens, which MSAL's pages show. The tenant may go by
// any of its names.
func (e endpoint) audiences(authority string, t *tenant) []string {
	path := "/oauth2/token"
	if e.version == 2 {
		path = "/oauth2/v2.0/token"
	}
	var out []string
	for _, name := range []string{e.tenant, t.id, t.name + ".onmicrosoft.com"} {
		out = append(out, authority+"/"+name+path, authority+"/"+name+"/v2.0")
	}
	return out
}

// proveAssertion judges a signed assertion: the application's own, which a
// registered certificate signs, or somebody else's token that is registered as
// a federated identity.
func (s *Simulator) proveAssertion(t *tenant, a app, assertion string, asked endpoint) (proof, *aadError) {
	said := jwt.MapClaims{}
	unverified, _, err := jwt.NewParser().ParseUnverified(assertion, said)
	if err != nil {
		return proofNone, refuse(50027, "The assertion is no JSON web token.")
	}
	issuer, _ := said.GetIssuer()
	subject, _ := said.GetSubject()
	if strings.Contains(issuer, "://") {
		return proofFederated, s.proveFederated(a, assertion, issuer, subject)
	}
	if !strings.EqualFold(issuer, a.clientID) || !strings.EqualFold(subject, a.clientID) {
		return proofNone, refuse(700021)
	}
	audience, _ := said.GetAudience()
	if !slices.ContainsFunc(audience, func(one string) bool { return slices.Contains(asked.audiences(s.Authority(), t), one) }) {
		return proofNone, refuse(700023)
	}
	if id, _ := said["jti"].(string); id == "" {
		return proofNone, refuse(50027, "It has no claim 'jti'.")
	}
	certificate, shown, refusal := findCertificate(a, unverified.Header)
	if refusal != nil {
		return proofNone, refusal
	}
	if refusal := s.checkSigned(assertion, said, certificate.PublicKey.(*rsa.PublicKey), shown); refusal != nil {
		return proofNone, refusal
	}
	if now := s.now(); now.After(certificate.NotAfter) || now.Before(certificate.NotBefore) {
		return proofNone, refuse(700027, "The key used is expired.", shown, a.clientID)
	}
	return proofCertificate, nil
}

// findCertificate finds the certificate that a header names by the hash of its
// DER, with SHA-256 (x5t#S256) or SHA-1 (x5t). Documented is base64url;
// Microsoft's library for Go writes ordinary base64 with padding, and is
// understood.
func findCertificate(a app, header map[string]any) (*x509.Certificate, string, *aadError) {
	hash, want := crypto.SHA256, ""
	if v, ok := header["x5t#S256"].(string); ok {
		want = v
	} else if v, ok := header["x5t"].(string); ok {
		hash, want = crypto.SHA1, v
	}
	if want == "" {
		return nil, "", refuse(50027, "No certificate thumbprint specified in token header.")
	}
	plain := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(want), "=")
	for _, c := range a.certificates {
		if thumbprint(hash, c.Raw) == plain {
			return c, want, nil
		}
	}
	return nil, "", refuse(700027, "The key was not found.", want, a.clientID)
}

// checkSigned checks signature and times of an assertion. Microsoft sets no
// limit to exp ("Microsoft Entra ID doesn't place restrictions on the exp time
// currently", certificate-credentials).
func (s *Simulator) checkSigned(assertion string, said jwt.MapClaims, key *rsa.PublicKey, shown string) *aadError {
	_, err := jwt.ParseWithClaims(assertion, jwt.MapClaims{}, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{"RS256", "PS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(s.now), jwt.WithLeeway(clockAllowance))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired), errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued),
		errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		from, until := time.Unix(0, 0), time.Time{}
		if d, _ := said.GetNotBefore(); d != nil {
			from = d.Time
		}
		if d, _ := said.GetExpirationTime(); d != nil {
			until = d.Time
		}
		const form = "2006-01-02T15:04:05.0000000Z"
		return refuse(700024, s.now().UTC().Format(form), from.UTC().Format(form), until.UTC().Format(form))
	case err != nil:
		return refuse(700027, "The provided signature value did not match the expected signature value.", shown, "")
	}
	return nil
}

// proveFederated judges a token of another issuer. Issuer, audience and subject
// have to be in one record, to the letter
// (learn.microsoft.com/entra/identity-platform/reference-breaking-changes, August 2024).
func (s *Simulator) proveFederated(a app, assertion, issuer, subject string) *aadError {
	if len(a.federated) == 0 {
		return refuse(70025, a.clientID)
	}
	records := slices.Clone(a.federated)
	keep := func(is func(Federated) bool) bool {
		records = slices.DeleteFunc(records, func(f Federated) bool { return !is(f) })
		return len(records) > 0
	}
	if !keep(func(f Federated) bool { return f.Issuer == issuer }) {
		return refuse(700211, issuer)
	}
	said := jwt.MapClaims{}
	unverified, _, err := jwt.NewParser().ParseUnverified(assertion, said)
	if err != nil {
		return refuse(50027, "The assertion is no JSON web token.")
	}
	var key *rsa.PublicKey
	switch {
	case issuer == s.WorkloadIssuer():
		k, err := s.workload()
		if err != nil || unverified.Header["kid"] != k.kid {
			return refuse(700027, "The key was not found.", "", a.clientID)
		}
		key = &k.key.PublicKey
	case strings.HasPrefix(issuer, s.Authority()+"/") && strings.HasSuffix(issuer, "/v2.0"):
		if key = s.signer.published(unverified.Header["kid"]); key == nil {
			return refuse(700027, "The key was not found.", "", a.clientID)
		}
	default:
		// No issuer but these two can be asked for its keys.
		return refuse(90061)
	}
	if refusal := s.checkSigned(assertion, said, key, ""); refusal != nil {
		return refusal
	}
	audience, _ := said.GetAudience()
	if !keep(func(f Federated) bool { return slices.Contains(audience, f.Audience) }) {
		return refuse(700212, strings.Join(audience, " "))
	}
	if slices.ContainsFunc(records, func(f Federated) bool { return f.Subject == subject }) {
		return nil
	}
	if slices.ContainsFunc(records, func(f Federated) bool { return strings.EqualFold(f.Subject, subject) }) {
		return refuse(7002138, subject)
	}
	return refuse(700213, subject)
}
