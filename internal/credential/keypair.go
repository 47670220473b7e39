package credential

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"time"

	"defender-proxy/internal/token"
)

// minKeyBits is the shortest key that is taken: NIST SP 800-57 part 1 counts
// anything shorter as broken, and Entra ID's own certificates start there.
const minKeyBits = 2048

// keyPair is a private key and the certificates that were made for it, at least
// one. It is immutable.
type keyPair struct {
	key    *rsa.PrivateKey
	leaves []*x509.Certificate
}

// bundle collects what the files of a certificate hold.
type bundle struct {
	certs []*x509.Certificate
	keys  []crypto.PrivateKey
	// badCert is why a certificate was left out.
	badCert error
}

// parseKeyPair reads a certificate with its key. cert and key are the contents
// of the files that names gives, key nil where there is no file of its own for
// it. password is empty where there is none. It never panics, and every leaf of
// the pair holds the public part of the pair's key.
//
// Whether the certificate is valid now is left to leaf.
func parseKeyPair(names CertificateFiles, cert, key []byte, password string) (pair *keyPair, fault *token.Fault) {
	// The decoders of encrypted keys panic on some broken input, such as a
	// ciphertext that is not whole blocks.
	reading := names.File
	defer func() {
		if recover() != nil {
			pair, fault = nil, misconfigured(fmt.Sprintf("The file %s is damaged: its encryption cannot be undone.", reading), "Put the file there again, whole.")
		}
	}()

	var b bundle
	if f := b.add(names.File, cert, password); f != nil {
		return nil, f
	}
	where := "the file " + names.File
	if names.KeyFile != "" {
		reading = names.KeyFile
		if f := b.add(names.KeyFile, key, password); f != nil {
			return nil, f
		}
		where += " and the key file " + names.KeyFile
	}
	if len(b.certs) == 0 {
		if b.badCert != nil {
			return nil, misconfigured(fmt.Sprintf("The certificate in %s cannot be read: %s.", where, oneLine(b.badCert.Error())), "Put the certificate there again, whole.")
		}
		return nil, misconfigured("There is no certificate in "+where+".", "Put the application's certificate there as PEM (BEGIN CERTIFICATE) or PKCS#12.")
	}
	private, f := b.key(where)
	if f != nil {
		return nil, f
	}
	pair = &keyPair{key: private}
	for _, c := range b.certs {
		if private.PublicKey.Equal(c.PublicKey) {
			pair.leaves = append(pair.leaves, c)
		}
	}
	if len(pair.leaves) == 0 {
		return nil, misconfigured(fmt.Sprintf("The private key does not belong to any of the %d certificates in %s.", len(b.certs), where),
			"Put a certificate and the key that it was made for there. If they are just being exchanged, wait.")
	}
	return pair, nil
}

// key picks the one private key, which must be one that Entra ID takes: the
// assertion is signed with RSA (PS256,
// learn.microsoft.com/entra/identity-platform/certificate-credentials).
func (b *bundle) key(where string) (*rsa.PrivateKey, *token.Fault) {
	var keys []*rsa.PrivateKey
	for _, k := range b.keys {
		r, ok := k.(*rsa.PrivateKey)
		if !ok {
			return nil, misconfigured("The private key in "+where+" is not an RSA key; Entra ID takes signatures by RSA keys only.", "Make a certificate with an RSA key of 2048 bits or more.")
		}
		if len(keys) == 0 || !r.PublicKey.Equal(keys[0].Public()) {
			keys = append(keys, r)
		}
	}
	switch {
	case len(keys) == 0:
		return nil, misconfigured("There is no private key in "+where+".", "Add the certificate's private key as PEM (BEGIN PRIVATE KEY), in the same file or as key_file, or use a PKCS#12 file with the key in it.")
	case len(keys) > 1:
		return nil, misconfigured(fmt.Sprintf("There are %d different private keys in %s.", len(keys), where), "Leave the one that belongs to the certificate.")
	case keys[0].N.BitLen() < minKeyBits:
		return nil, misconfigured(fmt.Sprintf("The private key in %s has %d bits; fewer than %d are not safe.", where, keys[0].N.BitLen(), minKeyBits), "Make a certificate with an RSA key of 2048 bits or more.")
	}
	return keys[0], nil
}

// add reads one file, whose form is told by its content.
func (b *bundle) add(file string, data []byte, password string) *token.Fault {
	switch {
	case bytes.Contains(data, []byte("-----BEGIN")):
		return b.addPEM(file, data, password)
	case len(data) > 0 && data[0] == 0x30: // the SEQUENCE that DER begins with
		return b.addPKCS12(file, data, password)
	}
	return misconfigured(fmt.Sprintf("The file %s is neither PEM nor PKCS#12.", file), "Put the certificate and its key there in one of these forms.")
}

// leaf gives the certificate to use at now: of those for the same key, one that
// is valid, and of these the one that ends last. Its fault says what is wrong
// with the one that comes nearest.
func (p *keyPair) leaf(file string, now time.Time) (*x509.Certificate, *token.Fault) {
	best := p.leaves[0]
	for _, c := range p.leaves[1:] {
		if v, w := validAt(c, now), validAt(best, now); v != w && v || v == w && c.NotAfter.After(best.NotAfter) {
			best = c
		}
	}
	switch {
	case now.After(best.NotAfter):
		return nil, misconfigured(fmt.Sprintf("The certificate in the file %s expired on %s.", file, best.NotAfter.UTC().Format(time.DateOnly)),
			"Make a new one, upload it under App registrations, Certificates & secrets, and put it there with its key.")
	case now.Before(best.NotBefore):
		return nil, misconfigured(fmt.Sprintf("The certificate in the file %s is not valid before %s.", file, best.NotBefore.UTC().Format(time.RFC3339)),
			"Wait until then, or set this machine's clock (NTP) if it is wrong.")
	}
	return best, nil
}

func validAt(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// thumbprint is the x5t#S256 of a certificate (RFC 7515, section 4.1.8).
func thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
