// Package standin makes the certificates with which a listener stands in for names of
// Microsoft's: an authority that can certify nothing else, and a certificate of it.
//
// It is for a laboratory or a network of one's own. The command stand-in calls it;
// listen serves with what it made.
package standin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	"defender-proxy/regions"
)

const (
	// caLife and leafLife are how long certificates are valid. Apple's systems take
	// none of a server's that is valid for more than 825 days
	// (support.apple.com/103769, read 2026-11).
	caLife   = 2 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// caSpare is what an authority must have left to be kept.
	caSpare = 30 * 24 * time.Hour
	// early is how far clocks may differ.
	early = time.Hour
)

// The subjects tell our own certificates from others.
const (
	caName   = "defender-proxy stand-in CA"
	leafName = "defender-proxy stand-in"
)

// pair is a certificate and its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes an authority for names and what is below them. The constraints
// are critical, so that whoever does not understand them does not trust it; addresses
// are left out as a whole, since a constraint on names alone leaves them free (RFC
// 5280, section 4.2.1.10).
func newAuthority(names []string, now time.Time) (*pair, error) {
	return sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: caName},
		NotBefore:             now.Add(-early),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         names,
		ExcludedIPRanges:            everyAddress,
	}, nil)
}

var everyAddress = []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}

// constrained reports whether the authority can certify servers of Microsoft's names,
// and of names, and nothing else: whatever it is called, no other is one of ours.
func (ca *pair) constrained(names []string) bool {
	c := ca.cert
	return c.PermittedDNSDomainsCritical && len(c.PermittedDNSDomains) > 0 && len(c.PermittedIPRanges) == 0 &&
		!slices.ContainsFunc(c.PermittedDNSDomains, func(d string) bool {
			_, theirs := regions.MicrosoftHost(d)
			return strings.Contains(d, ":") || !theirs && !slices.Contains(names, d)
		}) &&
		!slices.ContainsFunc(everyAddress, func(all *net.IPNet) bool {
			return !slices.ContainsFunc(c.ExcludedIPRanges, func(n *net.IPNet) bool { return n.String() == all.String() })
		}) &&
		c.MaxPathLenZero && slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) && len(c.UnknownExtKeyUsage) == 0
}

// leaf makes a certificate of the authority for names.
func (ca *pair) leaf(names []string, now time.Time) (*pair, error) {
	end := now.Add(leafLife)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	return sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: leafName},
		NotBefore:             now.Add(-early),
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              names,
	}, ca)
}

// sign makes a key and the certificate for it, of an authority or, without one, of
// its own.
func sign(template *x509.Certificate, ca *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	if ca == nil {
		ca = &pair{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &pair{cert, key}, nil
}

// permits reports whether the authority may certify all names.
func (ca *pair) permits(names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		return !slices.ContainsFunc(ca.cert.PermittedDNSDomains, func(d string) bool { return strings.EqualFold(d, name) })
	})
}

// encode gives certificate and key as PEM.
func (p *pair) encode() (cert, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

var (
	errForeign  = errors.New("it was not made here")
	errOtherKey = errors.New("its key belongs to another certificate")
)

// decode reads what encode gave, for the subject of one of our own. Nothing else may
// stand in the files.
func decode(certPEM, keyPEM []byte, subject string) (*pair, error) {
	der, err := only(certPEM, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil || cert.Subject.CommonName != subject || cert.Issuer.CommonName != caName || cert.IsCA != (subject == caName) {
		return nil, errForeign
	}
	if der, err = only(keyPEM, "PRIVATE KEY"); err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("its key: %w", errForeign)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errOtherKey
	}
	return &pair{cert, key}, nil
}

// only gives the one block of a PEM file.
func only(data []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != kind || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errForeign
	}
	return block.Bytes, nil
}
