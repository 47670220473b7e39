package credential

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/youmark/pkcs8"
	"software.sslmate.com/src/go-pkcs12"

	"defender-proxy/internal/token"
)

// verifyAssertion reads a proof as Entra ID would: with the certificate that the
// thumbprint names, and PS256 only.
func verifyAssertion(t testing.TB, p token.Proof, c *x509.Certificate, ask token.Ask) jwt.MapClaims {
	t.Helper()
	if got := p.Form.Get("client_assertion_type"); got != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		t.Errorf("client_assertion_type is %q", got)
	}
	if len(p.Form) != 2 {
		t.Errorf("the form has the fields %v, want two", p.Form)
	}
	assertion := p.Form.Get("client_assertion")
	if len(p.Secrets) != 1 || p.Secrets[0] != assertion {
		t.Error("the assertion is not among the secrets")
	}
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"PS256"}), jwt.WithTimeFunc(func() time.Time { return ask.Now }),
		jwt.WithAudience(ask.TokenURL), jwt.WithIssuer(ask.ClientID), jwt.WithSubject(ask.ClientID), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	parsed, err := parser.ParseWithClaims(assertion, claims, func(*jwt.Token) (any, error) { return c.PublicKey, nil })
	if err != nil {
		t.Fatalf("the assertion is not valid: %v", err)
	}
	sum := sha256.Sum256(c.Raw)
	if got, want := parsed.Header["x5t#S256"], base64.RawURLEncoding.EncodeToString(sum[:]); got != want {
		t.Errorf("x5t#S256 is %v, want %v", got, want)
	}
	if got := parsed.Header["typ"]; got != "JWT" {
		t.Errorf("typ is %v", got)
	}
	return claims
}

func TestTheAssertionIsWhatEntraDocuments(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	leaf := makeCert(t, oneKey(), now.Add(-time.Hour), now.Add(90*24*time.Hour))
	c := Certificate(CertificateFiles{File: put(t, "app.pem", join(certPEM(leaf), keyPEM(t, oneKey())))})
	seen := map[string]bool{}
	for _, url := range []string{testAsk.TokenURL, "https://login.microsoftonline.us/11111111-1111-1111-1111-111111111111/oauth2/token"} {
		ask := testAsk
		ask.Now, ask.TokenURL = now, url
		claims := verifyAssertion(t, proofsOf(t, c, ask)[0], leaf, ask)
		for name, want := range map[string]time.Time{"nbf": now.Add(-5 * time.Minute), "iat": now.Add(-5 * time.Minute), "exp": now.Add(10 * time.Minute)} {
			if got, _ := claims[name].(float64); int64(got) != want.Unix() {
				t.Errorf("%s is %v, want %v", name, claims[name], want.Unix())
			}
		}
		id, _ := claims["jti"].(string)
		if _, err := uuid.Parse(id); err != nil || seen[id] {
			t.Errorf("jti is %q: %v, seen before: %v", id, err, seen[id])
		}
		seen[id] = true
		if len(claims) != 7 {
			t.Errorf("the claims are %v, want seven", claims)
		}
	}
	if h := c.Health(); h.Kind != "certificate" || !h.Expires.Equal(leaf.NotAfter) || h.Notice != "" {
		t.Errorf("health is %+v, want the end %v", h, leaf.NotAfter)
	}
}

func TestAnAssertionIsDatedByEntrasClock(t *testing.T) {
	// This machine is 20 minutes ahead of Entra ID; the ask carries Entra's time.
	entra := time.Now().Add(-20 * time.Minute).Truncate(time.Second)
	leaf := makeCert(t, oneKey(), entra.Add(-time.Hour), entra.Add(time.Hour))
	ask := testAsk
	ask.Now = entra
	c := Certificate(CertificateFiles{File: put(t, "app.pem", join(certPEM(leaf), keyPEM(t, oneKey())))})
	verifyAssertion(t, proofsOf(t, c, ask)[0], leaf, ask)
}

func encryptedKey(t testing.TB, key *rsa.PrivateKey, password string, o *pkcs8.Opts) []byte {
	t.Helper()
	der, err := pkcs8.MarshalPrivateKey(key, []byte(password), o)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
}

func makeP12(t testing.TB, e *pkcs12.Encoder, key any, c *x509.Certificate, others []*x509.Certificate, password string) []byte {
	t.Helper()
	b, err := e.Encode(key, c, others, password)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestACertificateIsReadInEachOfItsForms(t *testing.T) {
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	leaf, issuer := makeCert(t, oneKey(), from, to), makeCert(t, otherKey(), from, to.Add(time.Hour))
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(oneKey())})
	plain := keyPEM(t, oneKey())
	params := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("something else")})
	scrypt := &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 16, CostParameter: 16384, BlockSize: 8, ParallelizationParameter: 1}}
	const password = "pässword"
	for name, c := range map[string]struct {
		file, key []byte
		password  string
	}{
		"PEM, certificate first":         {file: join(certPEM(leaf), plain)},
		"PEM, key first":                 {file: join(plain, certPEM(leaf))},
		"PEM with PKCS#1":                {file: join(certPEM(leaf), pkcs1)},
		"PEM, leaf behind its issuer":    {file: join(certPEM(issuer, leaf), plain)},
		"PEM with other blocks":          {file: join(params, certPEM(leaf), params, plain)},
		"PEM with text around":           {file: join([]byte("Bag Attributes\n  friendlyName: app\n"), certPEM(leaf), []byte("\n\n"), plain, []byte("\n"))},
		"PEM with Windows line ends":     {file: []byte(strings.ReplaceAll(string(join(certPEM(leaf), plain)), "\n", "\r\n"))},
		"two files":                      {file: certPEM(leaf, issuer), key: plain},
		"the same key in both files":     {file: join(certPEM(leaf), plain), key: pkcs1},
		"encrypted PKCS#8":               {file: certPEM(leaf), key: encryptedKey(t, oneKey(), password, nil), password: password},
		"encrypted PKCS#8 with scrypt":   {file: join(certPEM(leaf), encryptedKey(t, oneKey(), password, scrypt)), password: password},
		"a password that is not needed":  {file: join(certPEM(leaf), plain), password: password},
		"PKCS#12, modern":                {file: makeP12(t, pkcs12.Modern2023, oneKey(), leaf, []*x509.Certificate{issuer}, password), password: password},
		"PKCS#12, 3DES":                  {file: makeP12(t, pkcs12.LegacyDES, oneKey(), leaf, nil, password), password: password},
		"PKCS#12, RC2":                   {file: makeP12(t, pkcs12.LegacyRC2, oneKey(), leaf, nil, password), password: password},
		"PKCS#12, leaf behind its chain": {file: makeP12(t, pkcs12.Modern2023, oneKey(), issuer, []*x509.Certificate{leaf}, password), password: password},
		"PKCS#12 with an empty password": {file: makeP12(t, pkcs12.Modern2023, oneKey(), leaf, nil, "")},
		"PKCS#12 without password":       {file: makeP12(t, pkcs12.Passwordless, oneKey(), leaf, nil, "")},
	} {
		t.Run(name, func(t *testing.T) {
			files := CertificateFiles{File: put(t, "app", c.file)}
			if c.key != nil {
				files.KeyFile = put(t, "key", c.key)
			}
			if c.password != "" {
				files.Password = func() (string, error) { return c.password, nil }
			}
			ask := testAsk
			ask.Now = time.Now()
			verifyAssertion(t, proofsOf(t, Certificate(files), ask)[0], leaf, ask)
			end, err := CheckCertificate(files, time.Now())
			if err != nil || !end.Equal(leaf.NotAfter) {
				t.Errorf("CheckCertificate gives %v, %v; want %v", end, err, leaf.NotAfter)
			}
		})
	}
}

func TestOfCertificatesForOneKeyTheOneThatIsValidLongestIsUsed(t *testing.T) {
	now := time.Now()
	old := makeCert(t, oneKey(), now.Add(-48*time.Hour), now.Add(-time.Hour))
	short := makeCert(t, oneKey(), now.Add(-time.Hour), now.Add(time.Hour))
	long := makeCert(t, oneKey(), now.Add(-time.Hour), now.Add(9*time.Hour))
	future := makeCert(t, oneKey(), now.Add(time.Hour), now.Add(99*time.Hour))
	ask := testAsk
	ask.Now = now
	for _, cs := range [][]*x509.Certificate{{old, short, long, future}, {future, long, short, old}} {
		verifyAssertion(t, proofsOf(t, Certificate(CertificateFiles{File: put(t, "app.pem", join(certPEM(cs...), keyPEM(t, oneKey())))}), ask)[0], long, ask)
	}
}

func TestAFaultyCertificateNamesTheFileAndTheRemedy(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	from, to := now.Add(-time.Hour), now.Add(time.Hour)
	leaf := makeCert(t, oneKey(), from, to)
	plain := keyPEM(t, oneKey())
	small := makeRSA(1024)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ecDER})
	legacy := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00112233445566778899AABBCCDDEEFF"}, Bytes: []byte("ciphertext")})
	trust, err := pkcs12.Modern2023.EncodeTrustStore([]*x509.Certificate{leaf}, "right")
	if err != nil {
		t.Fatal(err)
	}
	costlyOpts := &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 1000, HMACHash: pkcs8.DefaultOpts.KDFOpts.(pkcs8.PBKDF2Opts).HMACHash}}
	costly := encryptedKey(t, oneKey(), "right", costlyOpts)
	block, _ := pem.Decode(costly)
	// 1000 is 02 02 03 E8; one of four bytes takes the place of it and what follows.
	at := strings.Index(string(block.Bytes), "\x02\x02\x03\xe8")
	if at < 0 {
		t.Fatal("the count is not where it was expected")
	}
	copy(block.Bytes[at:], "\x02\x04\x7f\xff\xff\xff")
	costly = pem.EncodeToMemory(block)

	for name, c := range map[string]struct {
		file, key []byte
		password  string
		says      []string
	}{
		"no certificate":                       {file: plain, says: []string{"There is no certificate in the file"}},
		"no key":                               {file: certPEM(leaf), says: []string{"There is no private key in the file", "key_file"}},
		"no key in either file":                {file: certPEM(leaf), key: certPEM(leaf), says: []string{"There is no private key", "and the key file"}},
		"a key of another certificate":         {file: join(certPEM(leaf), keyPEM(t, otherKey())), says: []string{"does not belong to any of the 1 certificates"}},
		"two keys":                             {file: join(certPEM(leaf), plain, keyPEM(t, otherKey())), says: []string{"2 different private keys"}},
		"encrypted without password":           {file: join(certPEM(leaf), encryptedKey(t, oneKey(), "right", nil)), says: []string{"is encrypted, and no password"}},
		"a wrong password":                     {file: join(certPEM(leaf), encryptedKey(t, oneKey(), "right", nil)), password: "wrong-canary", says: []string{"The password does not open the private key"}},
		"PKCS#12 without password":             {file: makeP12(t, pkcs12.Modern2023, oneKey(), leaf, nil, "right"), says: []string{"is encrypted, and no password"}},
		"PKCS#12, a wrong password":            {file: makeP12(t, pkcs12.Modern2023, oneKey(), leaf, nil, "right"), password: "wrong-canary", says: []string{"The password does not open the PKCS#12"}},
		"PKCS#12 of the old kind, wrong one":   {file: makeP12(t, pkcs12.LegacyDES, oneKey(), leaf, nil, "right"), password: "wrong-canary", says: []string{"The password does not open the PKCS#12"}},
		"PKCS#12 without key":                  {file: trust, password: "right", says: []string{"There is no private key in the PKCS#12"}},
		"half a PKCS#12":                       {file: makeP12(t, pkcs12.Modern2023, oneKey(), leaf, nil, "right")[:900], password: "right", says: []string{"damaged"}},
		"a certificate in DER":                 {file: leaf.Raw, says: []string{"certificate in DER form", "openssl x509"}},
		"an expired certificate":               {file: join(certPEM(makeCert(t, oneKey(), from.Add(-48*time.Hour), now.Add(-24*time.Hour))), plain), says: []string{"expired on 2026-11-20", "upload it"}},
		"a certificate of the future":          {file: join(certPEM(makeCert(t, oneKey(), now.Add(time.Hour), to.Add(time.Hour))), plain), says: []string{"not valid before 2026-11-21T13:00:00Z", "clock"}},
		"a short key":                          {file: join(certPEM(makeCert(t, small, from, to)), keyPEM(t, small)), says: []string{"1024 bits", "2048"}},
		"an EC key":                            {file: join(certPEM(makeCert(t, ec, from, to)), keyPEM(t, ec)), says: []string{"not an RSA key", "RSA"}},
		"an EC key of the old kind":            {file: join(certPEM(makeCert(t, ec, from, to)), sec1), says: []string{"not an RSA key"}},
		"an empty file":                        {file: []byte{}, says: []string{"is empty"}},
		"a file that is too large":             {file: make([]byte, 1<<20+1), says: []string{"more than 1024 KiB"}},
		"half a certificate":                   {file: certPEM(leaf)[:400], says: []string{"not whole: 1 blocks begin and 0 are complete"}},
		"half a key":                           {file: join(certPEM(leaf), plain[:len(plain)/2]), says: []string{"not whole: 2 blocks begin and 1 are complete"}},
		"half a key in its file":               {file: certPEM(leaf), key: plain[:len(plain)/2], says: []string{"not whole", "key"}},
		"a damaged key":                        {file: join(certPEM(leaf), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("nothing")})), says: []string{"is damaged"}},
		"a damaged certificate":                {file: join(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("nothing")}), plain), says: []string{"cannot be read"}},
		"a key encrypted in OpenSSL's old way": {file: join(certPEM(leaf), legacy), password: "x", says: []string{"Proc-Type: 4,ENCRYPTED", "openssl pkcs8 -topk8"}},
		"a count of rounds without sense":      {file: join(certPEM(leaf), costly), password: "right", says: []string{"more rounds of key derivation"}},
		"neither form":                         {file: []byte("Dear Sir or Madam"), says: []string{"neither PEM nor PKCS#12"}},
	} {
		t.Run(name, func(t *testing.T) {
			files := CertificateFiles{File: put(t, "app", c.file)}
			if c.key != nil {
				files.KeyFile = put(t, "key", c.key)
			}
			if c.password != "" {
				files.Password = func() (string, error) { return c.password, nil }
			}
			ask := testAsk
			ask.Now = now
			cred := Certificate(files)
			_, err := cred.Proofs(t.Context(), ask)
			f := mustFault(t, err, token.Misconfigured, c.says...)
			if !strings.Contains(f.Sentence, filepath.Dir(files.File)) && !strings.Contains(f.Sentence, files.KeyFile) {
				t.Errorf("the sentence names no file: %s", f.Sentence)
			}
			_, err = CheckCertificate(files, now)
			mustFault(t, err, token.Misconfigured, c.says...)
			mustNotShow(t, []string{"wrong-canary", string(plain[40:100])}, f, err, cred.Health())
		})
	}

	missing := CertificateFiles{File: put(t, "app", certPEM(leaf)), KeyFile: "/nowhere/app.key"}
	_, err = CheckCertificate(missing, now)
	mustFault(t, err, token.Misconfigured, "key file /nowhere/app.key cannot be read", "correct the path")
	missing = CertificateFiles{File: put(t, "app", certPEM(leaf)), Password: func() (string, error) { return "", errors.New("the environment variable P is not set") }}
	_, err = CheckCertificate(missing, now)
	mustFault(t, err, token.Misconfigured, "password of the certificate", "variable P is not set")
}

func TestARotatedCertificateIsUsedAtTheNextFetch(t *testing.T) {
	now := time.Now()
	first, second := makeCert(t, oneKey(), now.Add(-time.Hour), now.Add(time.Hour)), makeCert(t, otherKey(), now.Add(-time.Hour), now.Add(2*time.Hour))
	ask := testAsk
	ask.Now = now
	dir := kubernetesDir(t, map[string]string{"tls.crt": string(certPEM(first)), "tls.key": string(keyPEM(t, oneKey()))})
	c := Certificate(CertificateFiles{File: dir + "/tls.crt", KeyFile: dir + "/tls.key"})
	verifyAssertion(t, proofsOf(t, c, ask)[0], first, ask)

	// Half way: the certificate is the new one, the key still the old.
	kubernetesSwap(t, dir, map[string]string{"tls.crt": string(certPEM(second)), "tls.key": string(keyPEM(t, oneKey()))})
	verifyAssertion(t, proofsOf(t, c, ask)[0], first, ask)
	if h := c.Health(); !strings.Contains(h.Notice, "does not belong") || !h.Expires.Equal(first.NotAfter) {
		t.Errorf("half way, health is %+v", h)
	}
	// Gone for a moment.
	kubernetesSwap(t, dir, map[string]string{})
	verifyAssertion(t, proofsOf(t, c, ask)[0], first, ask)

	kubernetesSwap(t, dir, map[string]string{"tls.crt": string(certPEM(second)), "tls.key": string(keyPEM(t, otherKey()))})
	verifyAssertion(t, proofsOf(t, c, ask)[0], second, ask)
	if h := c.Health(); h.Notice != "" || !h.Expires.Equal(second.NotAfter) {
		t.Errorf("afterwards, health is %+v", h)
	}

	// The last good one does not outlive its own end.
	kubernetesSwap(t, dir, map[string]string{"tls.crt": "nothing", "tls.key": "nothing"})
	ask.Now = second.NotAfter.Add(-time.Second)
	verifyAssertion(t, proofsOf(t, c, ask)[0], second, ask)
	ask.Now = second.NotAfter.Add(time.Second)
	_, err := c.Proofs(t.Context(), ask)
	mustFault(t, err, token.Misconfigured, "neither PEM nor PKCS#12")
}

func TestACertificateThatWasTakenAwayIsUsedForAWeekAtMost(t *testing.T) {
	now := time.Now()
	leaf := makeCert(t, oneKey(), now.Add(-time.Hour), now.Add(700*24*time.Hour))
	file := put(t, "app.pem", join(certPEM(leaf), keyPEM(t, oneKey())))
	c := Certificate(CertificateFiles{File: file})
	ask := testAsk
	ask.Now = now
	proofsOf(t, c, ask)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	end := now.Add(7 * 24 * time.Hour)
	for _, ask.Now = range []time.Time{now.Add(time.Hour), end.Add(-time.Second)} {
		verifyAssertion(t, proofsOf(t, c, ask)[0], leaf, ask)
	}
	if n := c.Health().Notice; !strings.Contains(n, "in use until "+end.UTC().Format(time.DateOnly)) || !strings.Contains(n, "cannot be read") {
		t.Errorf("the notice is %q, want it to name %v", n, end)
	}
	ask.Now = end
	_, err := c.Proofs(t.Context(), ask)
	mustFault(t, err, token.Misconfigured, "cannot be read")
	if n := c.Health().Notice; n != "" {
		t.Errorf("the notice stays: %q", n)
	}
}

func TestAByteThatMovesFromOneFileToTheOtherIsAChange(t *testing.T) {
	if contentSum([]byte("ab"), []byte("c")) == contentSum([]byte("a"), []byte("bc")) {
		t.Error("contents that are divided in another way have the same sum")
	}
}

func TestACertificateIsParsedOnlyWhenItsContentOrPasswordChanges(t *testing.T) {
	leaf := makeCert(t, oneKey(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	password := "wrong"
	file := put(t, "app.p12", makeP12(t, pkcs12.Modern2023, oneKey(), leaf, nil, "right"))
	c := Certificate(CertificateFiles{File: file, Password: func() (string, error) { return password, nil }}).(*certificate)
	if _, err := c.Proofs(t.Context(), testAsk); err == nil {
		t.Fatal("a wrong password opens the file")
	}
	password = "right"
	proofsOf(t, c, testAsk)
	pair := c.seenPair
	if err := os.Chtimes(file, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	proofsOf(t, c, testAsk)
	if c.seenPair != pair {
		t.Error("the same content was parsed again")
	}
}

// FuzzKeyPair: the loader never panics or hangs, and what it accepts is a pair.
func FuzzKeyPair(f *testing.F) {
	leaf := makeCert(f, oneKey(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	plain := join(certPEM(leaf), keyPEM(f, oneKey()))
	f.Add(plain, []byte(nil), "")
	f.Add(certPEM(leaf), keyPEM(f, otherKey()), "")
	f.Add(join(certPEM(leaf), encryptedKey(f, oneKey(), "p", nil)), []byte(nil), "p")
	f.Add(makeP12(f, pkcs12.LegacyDES, oneKey(), leaf, nil, "p"), []byte(nil), "p")
	f.Add(makeP12(f, pkcs12.Modern2023, oneKey(), leaf, nil, "p"), []byte(nil), "p")
	f.Add(makeP12(f, pkcs12.Passwordless, oneKey(), leaf, nil, ""), []byte(nil), "")
	f.Fuzz(func(t *testing.T, cert, key []byte, password string) {
		names := CertificateFiles{File: "app.pem"}
		if len(key) > 0 {
			names.KeyFile = "app.key"
		}
		pair, fault := parseKeyPair(names, cert, key, password)
		if (pair == nil) == (fault == nil) {
			t.Fatalf("got pair %v and fault %v", pair, fault)
		}
		if pair == nil {
			return
		}
		if len(pair.leaves) == 0 || pair.key.N.BitLen() < 2048 {
			t.Errorf("accepted a key of %d bits with %d certificates", pair.key.N.BitLen(), len(pair.leaves))
		}
		for _, c := range pair.leaves {
			public, ok := c.PublicKey.(*rsa.PublicKey)
			if !ok || public.N.Cmp(pair.key.N) != 0 || public.E != pair.key.E {
				t.Error("accepted a certificate of another key")
			}
		}
	})
}
