package credential

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/token"
)

// Keys are slow to make, so the tests share a few.
var (
	oneKey   = sync.OnceValue(func() *rsa.PrivateKey { return makeRSA(2048) })
	otherKey = sync.OnceValue(func() *rsa.PrivateKey { return makeRSA(2048) })
)

func makeRSA(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

// makeCert makes a self-signed certificate.
func makeCert(t testing.TB, key crypto.Signer, from, to time.Time) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "app"}, NotBefore: from, NotAfter: to},
		&x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "app"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func certPEM(cs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range cs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.Bytes()
}

func keyPEM(t testing.TB, key crypto.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func put(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// makeJWT makes an unsigned token that looks like a signed one.
func makeJWT(claims map[string]any) string {
	c, _ := json.Marshal(claims)
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + e.EncodeToString(c) + "." + e.EncodeToString([]byte("a signature that nobody checks here"))
}

var testAsk = token.Ask{
	Tenant: "contoso", TenantID: "11111111-1111-1111-1111-111111111111", ClientID: "22222222-2222-2222-2222-222222222222",
	Authority: "https://login.microsoftonline.com", TokenURL: "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/oauth2/v2.0/token",
	Audience: "https://api.securitycenter.microsoft.com",
}

// mustFault checks that err is a fault of the kind that says each of the words,
// and gives it.
func mustFault(t testing.TB, err error, kind token.Kind, words ...string) *token.Fault {
	t.Helper()
	f, ok := errors.AsType[*token.Fault](err)
	if !ok {
		t.Fatalf("got error %v (%T), want a *token.Fault that says %q", err, err, words)
	}
	if f.Kind != kind {
		t.Errorf("the fault is %v: %v; want %v", f.Kind, f, kind)
	}
	for _, w := range words {
		if !strings.Contains(f.Error(), w) {
			t.Errorf("the fault says %q, want it to say %q", f, w)
		}
	}
	for part, text := range map[string]string{"sentence": f.Sentence, "remedy": f.Remedy} {
		if text == "" || strings.ContainsAny(text, "\n\r") || len(text) > 900 {
			t.Errorf("the %s is not for people: %q", part, text)
		}
	}
	return f
}

func proofsOf(t testing.TB, c token.Credential, ask token.Ask) []token.Proof {
	t.Helper()
	p, err := c.Proofs(context.Background(), ask)
	if err != nil {
		t.Fatalf("Proofs failed: %v", err)
	}
	if len(p) == 0 {
		t.Fatal("Proofs gave none")
	}
	return p
}

// mustNotShow fails where one of the secrets is in any printed form of the
// values.
func mustNotShow(t testing.TB, secrets []string, values ...any) {
	t.Helper()
	for _, v := range values {
		texts := []string{fmt.Sprintf("%v", v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%s", v), fmt.Sprintf("%q", v), fmt.Sprintf("%d", v), fmt.Sprintf("%x", v)}
		if j, err := json.Marshal(v); err == nil {
			texts = append(texts, string(j))
		}
		for _, text := range texts {
			for _, s := range secrets {
				if s != "" && (strings.Contains(text, s) || strings.Contains(text, fmt.Sprintf("%x", s))) {
					t.Errorf("%T shows a secret: %.300s", v, text)
				}
			}
		}
	}
}
