package credential

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"defender-proxy/internal/token"
)

const kindCertificate = "certificate"

// maxCertificateFile bounds each file of a certificate, in bytes.
const maxCertificateFile = 1 << 20

// The life of an assertion. Entra's page says that the present is right for nbf
// and that exp should be 5 to 10 minutes after it at most, but that Entra ID
// sets no limit on exp
// (learn.microsoft.com/entra/identity-platform/certificate-credentials, stored
// copy of MicrosoftDocs/entra-docs read 2026-11). Clocks that are minutes ahead
// made assertions that were not valid yet, so nbf and iat are set back.
const (
	assertionBackdate = 5 * time.Minute
	assertionLife     = 10 * time.Minute
)

// CertificateFiles says where a certificate and its private key are.
type CertificateFiles struct {
	// File is a PEM file of the certificate, its chain and, if KeyFile is empty,
	// the private key, in any order; or a PKCS#12 file. The content tells which.
	File string
	// KeyFile is a PEM file of the private key; empty where File holds it.
	KeyFile string
	// Password opens the key or the PKCS#12 file; nil where it needs none. It is
	// called for each fetch. Its error must not hold the password.
	Password func() (string, error)
}

// certificate implements token.Credential.
type certificate struct {
	files CertificateFiles

	// reading is held while the files are read, since deriving a key from a
	// password is slow and need not be done twice.
	reading sync.Mutex

	mu sync.Mutex
	// seen is the sum of the contents that were parsed last, with what came of it.
	seen      [sha256.Size]byte
	seenPair  *keyPair
	seenFault *token.Fault
	// good is the last pair that was whole, to go on with while its files are
	// being exchanged, and goodAt when its files were there.
	good   *keyPair
	goodAt time.Time
	health token.Health
}

// certificateGrace is how long the last good certificate is used after it was last
// in its files: long enough to notice that an exchange went wrong, and not for as
// long as a certificate lives that somebody took away.
const certificateGrace = 7 * 24 * time.Hour

// Certificate is a credential of a certificate that was uploaded to the
// application, and its RSA key. The files are read for each fetch and parsed
// when their content has changed. While they hold something faulty, or are
// gone, the last certificate that was good is used for a week, unless it ends
// before, and Health says so.
func Certificate(files CertificateFiles) token.Credential {
	return &certificate{files: files, health: token.Health{Kind: kindCertificate}}
}

// CheckCertificate reads the files once and tells when the certificate ends, or
// what is wrong with it at now, as a *token.Fault. It asks nobody.
func CheckCertificate(files CertificateFiles, now time.Time) (notAfter time.Time, err error) {
	c := certificate{files: files}
	pair, f := c.read()
	if f != nil {
		return time.Time{}, f
	}
	leaf, f := pair.leaf(files.File, now)
	if f != nil {
		return time.Time{}, f
	}
	return leaf.NotAfter, nil
}

// Proofs implements token.Credential.
func (c *certificate) Proofs(_ context.Context, ask token.Ask) ([]token.Proof, error) {
	now := entraTime(ask)
	pair, leaf, fault := c.current(now)
	if fault != nil {
		return nil, fault
	}
	assertion, err := signAssertion(pair, leaf, ask, now)
	if err != nil {
		// Its words are those of crypto/rsa about the key's size or a broken key.
		return nil, misconfigured(fmt.Sprintf("Signing with the private key of the certificate in the file %s failed.", c.files.File), "Put the certificate and its key there again, whole.")
	}
	return []token.Proof{assertionProof("certificate", assertion)}, nil
}

// Health implements token.Credential.
func (c *certificate) Health() token.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health
}

// current gives the pair to sign with at now.
func (c *certificate) current(now time.Time) (*keyPair, *x509.Certificate, *token.Fault) {
	pair, fault := c.read()
	var leaf *x509.Certificate
	if fault == nil {
		leaf, fault = pair.leaf(c.files.File, now)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if fault == nil {
		c.good, c.goodAt = pair, now
		c.health.Expires, c.health.Notice = leaf.NotAfter, ""
		return pair, leaf, nil
	}
	if c.good != nil && now.Before(c.goodAt.Add(certificateGrace)) {
		if old, f := c.good.leaf(c.files.File, now); f == nil {
			until := c.goodAt.Add(certificateGrace)
			if old.NotAfter.Before(until) {
				until = old.NotAfter
			}
			c.health.Expires = old.NotAfter
			c.health.Notice = fmt.Sprintf("The certificate that was read before is in use until %s, because what is in its place now cannot be used: %s %s",
				until.UTC().Format(time.DateOnly), fault.Sentence, fault.Remedy)
			return c.good, old, nil
		}
	}
	c.good = nil
	c.health.Notice = ""
	return nil, nil, fault
}

// read gives the pair in the files as they are now.
func (c *certificate) read() (*keyPair, *token.Fault) {
	c.reading.Lock()
	defer c.reading.Unlock()
	cert, _, f := readCredentialFile("certificate file", c.files.File, maxCertificateFile)
	if f != nil {
		return nil, f
	}
	var key []byte
	if c.files.KeyFile != "" {
		if key, _, f = readCredentialFile("key file", c.files.KeyFile, maxCertificateFile); f != nil {
			return nil, f
		}
	}
	password := ""
	if c.files.Password != nil {
		var err error
		if password, err = c.files.Password(); err != nil {
			return nil, asFault(err, "The password of the certificate in the file "+c.files.File+" cannot be read", "Make it readable for the proxy, or correct where the configuration looks for it.")
		}
	}
	sum := contentSum(cert, key, []byte(password))

	c.mu.Lock()
	pair, fault, known := c.seenPair, c.seenFault, c.seen == sum
	c.mu.Unlock()
	if known {
		return pair, fault
	}
	pair, fault = parseKeyPair(c.files, cert, key, password)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.seenPair, c.seenFault = sum, pair, fault
	return pair, fault
}

// contentSum is one sum of several contents, each with its own: a byte that
// moves from one to the next changes it.
func contentSum(contents ...[]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, c := range contents {
		one := sha256.Sum256(c)
		h.Write(one[:])
	}
	h.Sum(sum[:0])
	return sum
}

// signAssertion makes the JWT by which an application proves that it has the
// key. The audience is the URL that is asked, of either version of the
// endpoint.
func signAssertion(pair *keyPair, leaf *x509.Certificate, ask token.Ask, now time.Time) (string, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return "", err
	}
	dated := jwt.NewNumericDate(now.Add(-assertionBackdate))
	t := jwt.NewWithClaims(jwt.SigningMethodPS256, jwt.MapClaims{
		"aud": ask.TokenURL,
		"iss": ask.ClientID,
		"sub": ask.ClientID,
		"jti": id.String(),
		"iat": dated,
		"nbf": dated,
		"exp": jwt.NewNumericDate(now.Add(assertionLife)),
	})
	t.Header["x5t#S256"] = thumbprint(leaf)
	return t.SignedString(pair.key)
}
