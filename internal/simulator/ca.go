package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// authority is a certificate authority that lives as long as the process, with
// the one certificate that all listeners show.
type authority struct {
	pem  []byte
	leaf tls.Certificate
}

// certifiedNames are those of Microsoft's under which callers come who look names up
// elsewhere, such as behind a proxy of the network.
var certifiedNames = []string{
	"localhost", "*.vault.azure.net",
	"api.security.microsoft.com", "*.api.security.microsoft.com", "graph.microsoft.com", "login.microsoftonline.com",
}

// newAuthority uses the real clock: the certificates are judged by the peers'
// clocks, not by the simulated one.
func newAuthority(address string) (*authority, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	from := time.Now().Add(-time.Hour)
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "defender-proxy simulator CA"},
		NotBefore:             from,
		NotAfter:              from.Add(365 * 24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "defender-proxy simulator"},
		NotBefore:    from,
		NotAfter:     ca.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     certifiedNames,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	// Another address of 127.0.0.0/8 has to be named as well.
	if ip := net.ParseIP(address); ip != nil && !ip.Equal(leaf.IPAddresses[0]) && !ip.Equal(leaf.IPAddresses[1]) {
		leaf.IPAddresses = append(leaf.IPAddresses, ip)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	return &authority{
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		leaf: tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: leafKey},
	}, nil
}

// config is the TLS of a listener that speaks the given protocols, by their names
// in ALPN; nil for a plain one.
func (a *authority) config(protocols []string) *tls.Config {
	if protocols == nil {
		return nil
	}
	return &tls.Config{
		Certificates: []tls.Certificate{a.leaf},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   protocols,
	}
}
