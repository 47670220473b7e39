package credential

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"
	"software.sslmate.com/src/go-pkcs12"

	"defender-proxy/internal/token"
)

func TestWhatEditorsAndWindowsMakeOfACertificateIsReadOrNamed(t *testing.T) {
	now := time.Now()
	leaf := makeCert(t, oneKey(), now.Add(-time.Hour), now.Add(time.Hour))
	whole := string(join(certPEM(leaf), keyPEM(t, oneKey())))
	p12, open := makeP12(t, pkcs12.Modern2023, oneKey(), leaf, nil, "right"), makeP12(t, pkcs12.Passwordless, oneKey(), leaf, nil, "")
	utf16 := []byte{0xff, 0xfe}
	for _, b := range []byte(whole) {
		utf16 = append(utf16, b, 0)
	}
	for name, c := range map[string]struct {
		file     []byte
		password string
		says     []string // none: it is read
	}{
		"a mark of UTF-8 in front":             {file: []byte("\xef\xbb\xbf" + whole)},
		"white space behind each line":         {file: []byte(strings.ReplaceAll(whole, "\n", " \n"))},
		"the word BEGIN in a comment":          {file: []byte("# put the -----BEGIN CERTIFICATE----- here\n" + whole)},
		"a line end behind PKCS#12":            {file: append(bytes.Clone(p12), '\r', '\n'), password: "right"},
		"a password for a PKCS#12 without one": {file: open, password: "not needed"},
		"UTF-16":                               {file: utf16, says: []string{"is text in UTF-16", "UTF-8"}},
		"lines that are set in":                {file: []byte(strings.ReplaceAll("\n"+whole, "\n", "\n  ")), says: []string{"has the wrong form", "0 can be read", "on a line of its own"}},
		"no line end between two blocks":       {file: join(bytes.TrimSpace(certPEM(leaf)), keyPEM(t, oneKey())), says: []string{"has the wrong form", "on a line of its own"}},
		"line ends of carriage returns alone":  {file: []byte(strings.ReplaceAll(whole, "\n", "\r")), says: []string{"has the wrong form"}},
		"a certificate of which half is there": {file: certPEM(leaf)[:300], says: []string{"is not whole", "wait"}},
		"something behind PKCS#12":             {file: append(bytes.Clone(p12), "\nmore"...), password: "right", says: []string{"damaged"}},
		"a password that PKCS#12 cannot have":  {file: p12, password: "p\U0001F600", says: []string{"holds a character that PKCS#12 cannot have"}},
	} {
		t.Run(name, func(t *testing.T) {
			end, err := CheckCertificate(CertificateFiles{File: put(t, "app", c.file), Password: func() (string, error) { return c.password, nil }}, now)
			if len(c.says) > 0 {
				mustFault(t, err, token.Misconfigured, c.says...)
			} else if err != nil || !end.Equal(leaf.NotAfter) {
				t.Errorf("got %v, %v; want it to be read", end, err)
			}
		})
	}
}

// The library's decoder indexes past a ciphertext that is not whole blocks.
func TestAnEncryptedKeyThatIsShortOfAByteIsAFault(t *testing.T) {
	leaf := makeCert(t, oneKey(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	block, _ := pem.Decode(encryptedKey(t, oneKey(), "p", nil))
	var info struct {
		Algorithm  asn1.RawValue
		Ciphertext []byte
	}
	if _, err := asn1.Unmarshal(block.Bytes, &info); err != nil {
		t.Fatal(err)
	}
	info.Ciphertext = info.Ciphertext[:len(info.Ciphertext)-1]
	der, err := asn1.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	file := put(t, "app.pem", join(certPEM(leaf), pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})))
	_, err = CheckCertificate(CertificateFiles{File: file, Password: func() (string, error) { return "p", nil }}, time.Now())
	mustFault(t, err, token.Misconfigured, file, "its encryption cannot be undone")
}

// swapped gives data with the one place of old in it replaced, of the same length.
func swapped(t *testing.T, data []byte, old, with string) []byte {
	t.Helper()
	if len(old) != len(with) || bytes.Count(data, []byte(old)) < 1 {
		t.Fatalf("%x is not there to be replaced", old)
	}
	return bytes.ReplaceAll(data, []byte(old), []byte(with))
}

func TestAFileWhoseKeyDerivationWouldTakeHoursIsAFault(t *testing.T) {
	leaf := makeCert(t, oneKey(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	scrypt := &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 16, CostParameter: 16384, BlockSize: 8, ParallelizationParameter: 1}}
	key, _ := pem.Decode(encryptedKey(t, oneKey(), "p", scrypt))
	// 16384 is 02 02 40 00, the block size 02 01 08; 2^14 by 127 by 2 is too much.
	costlyKey := swapped(t, key.Bytes, "\x02\x02\x40\x00\x02\x01\x08\x02\x01\x01", "\x02\x02\x40\x00\x02\x01\x7f\x02\x01\x02")

	made, err := pkcs12.Modern2023.WithIterations(0x012345).Encode(oneKey(), leaf, nil, "p")
	if err != nil {
		t.Fatal(err)
	}
	// The count stands in the MAC and in the safes, which are within octet strings.
	const count, more = "\x02\x03\x01\x23\x45", "\x02\x03\x7f\x23\x45"
	last := bytes.LastIndex(made, []byte(count))
	mac := bytes.Clone(made)
	copy(mac[last:], more)
	safes := append(swapped(t, made[:last], count, more), made[last:]...)
	for name, file := range map[string][]byte{
		"scrypt":                                pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: costlyKey}),
		"the MAC of PKCS#12":                    mac,
		"PBKDF2 within the contents of PKCS#12": safes,
	} {
		_, err := CheckCertificate(CertificateFiles{File: put(t, "app", file), Password: func() (string, error) { return "p", nil }}, time.Now())
		f := mustFault(t, err, token.Misconfigured)
		if !strings.Contains(f.Sentence, "more rounds of key derivation") {
			t.Errorf("%s: the fault is %v", name, f)
		}
	}
	if tooCostly(key.Bytes) || tooCostly(made) {
		t.Error("what tools write is called too costly")
	}
}

func TestACiphertextIsNotTakenForCounts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const size = 1232
	der := append([]byte{0x04, 0x82, size >> 8, size & 0xff}, make([]byte, size)...)
	for n := range 300_000 {
		for i := 4; i+8 <= len(der); i += 8 {
			for b, v := 0, random.Uint64(); b < 8; b++ {
				der[i+b] = byte(v >> (8 * b))
			}
		}
		if tooCostly(der) {
			t.Fatalf("random ciphertext number %d is called too costly", n)
		}
	}
}
