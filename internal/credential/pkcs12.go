package credential

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"defender-proxy/internal/token"
)

// addPKCS12 reads a PKCS#12 file (RFC 7292), or tells which other form of DER it
// is.
func (b *bundle) addPKCS12(file string, data []byte, password string) *token.Fault {
	if _, _, rest, ok := derElement(data); ok && len(bytes.TrimSpace(rest)) == 0 {
		data = data[:len(data)-len(rest)] // an editor's line end
	}
	if tooCostly(data) {
		return costly(file)
	}
	key, first, others, err := pkcs12.DecodeChain(data, password)
	if err != nil && password != "" {
		// A file without password takes the empty one only.
		if k, c, o, e := pkcs12.DecodeChain(data, ""); e == nil {
			key, first, others, err = k, c, o, nil
		}
	}
	switch {
	case err == nil:
		b.keys = append(b.keys, key)
		b.certs = append(append(b.certs, first), others...)
		return nil
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && password == "":
		return misconfigured(fmt.Sprintf("The PKCS#12 file %s is encrypted, and no password is configured.", file), "Set the certificate's password: in the configuration.")
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return misconfigured(fmt.Sprintf("The password does not open the PKCS#12 file %s.", file), "Set the right password, without spaces or line ends around it.")
	case strings.HasSuffix(err.Error(), "cannot be encoded in UCS-2"):
		return misconfigured(fmt.Sprintf("The password of the PKCS#12 file %s holds a character that PKCS#12 cannot have in one.", file), "Set the right password, or export the file again with another one.")
	case strings.HasSuffix(err.Error(), "private key missing"):
		return misconfigured(fmt.Sprintf("There is no private key in the PKCS#12 file %s.", file), "Export the certificate together with its private key.")
	case strings.HasSuffix(err.Error(), "certificate missing"):
		return misconfigured(fmt.Sprintf("There is no certificate in the PKCS#12 file %s.", file), "Export the key together with its certificate.")
	}
	if _, notCert := x509.ParseCertificate(data); notCert == nil {
		return misconfigured(fmt.Sprintf("The file %s is a certificate in DER form, without its key.", file), "Convert it (openssl x509 -inform der), and add the private key as PEM.")
	}
	if _, notKey := x509.ParsePKCS8PrivateKey(data); notKey == nil {
		return misconfigured(fmt.Sprintf("The file %s is a private key in DER form.", file), "Convert it to PEM (openssl pkey -inform der).")
	}
	// Without the library's words: they may come from a key that it parsed.
	return misconfigured(fmt.Sprintf("The file %s is damaged, or not a PKCS#12 file of a kind that is read.", file), "Put it there again, whole; or convert it to PEM (openssl pkcs12 -nodes).")
}

// Bounds of the work that opening a file may cost. Tools write 2,048 to some
// hundred thousand rounds; OpenSSL's scrypt needs 16 MiB. A damaged count would
// else hold up a tenant for hours.
const (
	maxRounds     = 5_000_000
	maxScryptCost = 1 << 21 // N·r·p, of 128 bytes each: 256 MiB
)

func costly(file string) *token.Fault {
	return misconfigured(fmt.Sprintf("The file %s asks for more rounds of key derivation than any tool writes: it is damaged.", file), "Put it there again, whole.")
}

// tooCostly looks through DER for the parameters of key derivation: in PBES1,
// PBKDF2, scrypt and the MAC of PKCS#12 alike, the counts follow the salt. An
// octet string is looked into where it is one whole SEQUENCE, as PKCS#12 nests
// its contents; the ciphertext of a key is that by chance once in 2^32. What is
// encrypted is not seen: damaged, it does not decrypt to a count.
func tooCostly(der []byte) bool { return tooCostlyAt(der, 0) }

func tooCostlyAt(der []byte, depth int) bool {
	const (
		tagInteger     = 0x02
		tagOctetString = 0x04
		tagSequence    = 0x30
		constructed    = 0x20
	)
	if depth > 24 {
		return false // the decoders give up before that
	}
	afterSalt := false
	cost, counts := uint64(1), 0
	for len(der) > 0 {
		tag, content, rest, ok := derElement(der)
		if !ok {
			return false
		}
		switch {
		case tag == tagInteger && afterSalt:
			n, small := smallNumber(content)
			if !small || n > maxRounds {
				return true
			}
			// Three numbers are scrypt's; PBKDF2 has two at most.
			if counts++; counts <= 3 {
				cost *= max(n, 1)
			}
			if counts == 3 && cost > maxScryptCost {
				return true
			}
		case tag == tagOctetString:
			afterSalt, cost, counts = true, 1, 0
			if inner, _, behind, ok := derElement(content); ok && inner == tagSequence && len(behind) == 0 && tooCostlyAt(content, depth+1) {
				return true
			}
		default:
			afterSalt = false
			if tag&constructed != 0 && tooCostlyAt(content, depth+1) {
				return true
			}
		}
		der = rest
	}
	return false
}

// derElement takes one element off der. An indefinite length is BER, which the
// decoders do not read either.
func derElement(der []byte) (tag byte, content, rest []byte, ok bool) {
	if len(der) < 2 || der[0]&0x1f == 0x1f {
		return 0, nil, nil, false
	}
	tag, n, der := der[0], int(der[1]), der[2:]
	if n >= 0x80 {
		size := n - 0x80
		if size == 0 || size > 4 || size > len(der) {
			return 0, nil, nil, false
		}
		n = 0
		for _, b := range der[:size] {
			n = n<<8 | int(b)
		}
		der = der[size:]
	}
	if n < 0 || n > len(der) {
		return 0, nil, nil, false
	}
	return tag, der[:n], der[n:], true
}

// smallNumber reads an INTEGER that fits 63 bits and is not negative.
func smallNumber(content []byte) (uint64, bool) {
	if len(content) == 0 || len(content) > 8 || content[0]&0x80 != 0 {
		return 0, false
	}
	n := uint64(0)
	for _, b := range content {
		n = n<<8 | uint64(b)
	}
	return n, true
}
