//go:build clients

package clients

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// programPatience bounds a run of a foreign program, on a busy machine.
const programPatience = 3 * time.Minute

// run runs a program in a folder of this package and gives what it printed. Its
// environment is env and nothing that could lead it elsewhere.
func (l *lab) run(folder string, env []string, name string, args ...string) string {
	l.t.Helper()
	out, err := l.try(folder, env, name, args...)
	if err != nil {
		l.t.Fatalf("%s %.200q: %v\n%s\nthe audit:\n%s", name, args, err, out, tail(l.audit()))
	}
	return out
}

// try is run for a program that may fail; then out is what it complained of.
func (l *lab) try(folder string, env []string, name string, args ...string) (out string, err error) {
	l.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		l.t.Fatalf("%v: see make clients for what has to be installed", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), programPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = folder
	cmd.WaitDelay = time.Second
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.t.TempDir(), "LANG=C.UTF-8", "NO_PROXY=*"}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), err
	}
	return stdout.String(), nil
}

func tail(text []byte) []byte {
	const most = 4 << 10
	return text[max(0, len(text)-most):]
}

// led are the variables that lead Microsoft's names to the TLS listener, for
// hosts.cjs and sitecustomize.py.
func (l *lab) led() []string {
	return []string{"LEAD_NAMES=" + strings.Join(microsoftNames, ","), "LEAD_TO=" + l.host()}
}

// applicationCertificate writes a certificate with its key, as an application has
// one, and gives its path. Nobody knows it.
func (l *lab) applicationCertificate() string {
	l.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // the libraries take no other kind
	if err != nil {
		l.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "application"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		l.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.write("application.pem", slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
	))
}

// same fails unless the program read just these ids, in this order.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s read %d: %.5q…, want %d: %.5q…", what, len(got), got, len(want), want)
	}
}
