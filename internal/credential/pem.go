package credential

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/youmark/pkcs8"

	"defender-proxy/internal/token"
)

// addPEM reads all blocks of a PEM file. Blocks of other kinds, such as
// parameters, are passed over.
func (b *bundle) addPEM(file string, data []byte, password string) *token.Fault {
	whole := 0
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		whole++
		if f := b.addBlock(file, block, password); f != nil {
			return f
		}
	}
	// pem.Decode passes over what is not whole, and knows only what begins a line.
	begun := bytes.Count(data, []byte("\n-----BEGIN "))
	if bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		begun++
	}
	switch {
	case whole >= begun && whole > 0:
		return nil
	case bytes.Count(data, []byte("-----END ")) < begun:
		return misconfigured(fmt.Sprintf("The PEM file %s is not whole: %d blocks begin and %d are complete.", file, begun, whole),
			"If it is just being written, wait; else put it there again.")
	}
	return misconfigured(fmt.Sprintf("The PEM file %s has the wrong form: of the blocks in it, %d can be read.", file, whole),
		"Put each line of BEGIN and END on a line of its own, with nothing in front or behind, and base64 between them.")
}

func (b *bundle) addBlock(file string, block *pem.Block, password string) *token.Fault {
	switch block.Type {
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			b.badCert = err // of use to nobody, unless it is the one that is wanted
			return nil
		}
		b.certs = append(b.certs, c)
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		// RFC 1421's headers; the scheme has no authentication and one round of MD5.
		if block.Headers["DEK-Info"] != "" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return misconfigured(fmt.Sprintf("The private key in the file %s is encrypted in the old way of OpenSSL (Proc-Type: 4,ENCRYPTED), which is not safe and not read.", file),
				"Convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD.pem -out NEW.pem")
		}
		k, err := plainKey(block)
		if err != nil {
			// Without its words: nobody knows what they quote.
			return misconfigured(fmt.Sprintf("The private key in the file %s (BEGIN %s) is damaged or of an unknown kind.", file, block.Type), "Put an RSA key there, whole.")
		}
		b.keys = append(b.keys, k)
	case "ENCRYPTED PRIVATE KEY":
		k, f := decryptKey(file, block.Bytes, password)
		if f != nil {
			return f
		}
		b.keys = append(b.keys, k)
	}
	return nil
}

func plainKey(block *pem.Block) (crypto.PrivateKey, error) {
	switch block.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}

// decryptKey opens an encrypted PKCS#8 key (RFC 5958 with PBES2 of RFC 8018).
func decryptKey(file string, der []byte, password string) (crypto.PrivateKey, *token.Fault) {
	if password == "" {
		return nil, misconfigured(fmt.Sprintf("The private key in the file %s is encrypted, and no password is configured.", file), "Set the certificate's password: in the configuration.")
	}
	if tooCostly(der) {
		return nil, costly(file)
	}
	k, _, err := pkcs8.ParsePrivateKey(der, []byte(password))
	switch {
	case err == nil:
		return k, nil
	case strings.Contains(err.Error(), "incorrect password"):
		return nil, misconfigured(fmt.Sprintf("The password does not open the private key in the file %s.", file), "Set the right password, without spaces or line ends around it.")
	}
	return nil, misconfigured(fmt.Sprintf("The encryption of the private key in the file %s is not read: %s.", file, oneLine(err.Error())),
		"Convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -in OLD.pem -out NEW.pem")
}
