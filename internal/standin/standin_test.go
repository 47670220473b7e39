package standin

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	names = []string{"login.microsoftonline.com", "api.securitycenter.microsoft.com"}
	now   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

func renewed(t *testing.T, dir string, names []string, now time.Time) Made {
	t.Helper()
	made, err := Renew(dir, names, now)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// folder is one that Renew makes, whatever the mode of the test's own is.
func folder(t *testing.T) string { return filepath.Join(t.TempDir(), "stand-in") }

func content(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// trusting is a client that trusts the authority of a folder alone.
func trusting(t *testing.T, f Files) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content(t, f.CA)) {
		t.Fatal("the authority is no certificate")
	}
	return pool
}

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(content(t, path))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAClientThatTrustsTheAuthorityFindsMicrosoftsNames(t *testing.T) {
	made := renewed(t, filepath.Join(t.TempDir(), "new", "folder"), names, now)
	if _, err := tls.LoadX509KeyPair(made.Cert, made.Key); err != nil {
		t.Error(err)
	}
	leaf, pool := certificate(t, made.Cert), trusting(t, made.Files)
	for _, c := range []struct {
		name string
		at   time.Time
		ok   bool
	}{
		{names[0], now, true}, {names[1], now, true}, {"LOGIN.microsoftonline.com", now, true},
		{names[0], now.Add(-30 * time.Minute), true}, // whose clock is behind
		{names[0], now.Add(364 * 24 * time.Hour), true},
		{names[0], now.Add(366 * 24 * time.Hour), false},
		{"graph.microsoft.com", now, false}, {"a.login.microsoftonline.com", now, false}, {"127.0.0.1", now, false},
	} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: c.name, Roots: pool, CurrentTime: c.at}); (err == nil) != c.ok {
			t.Errorf("%s at %v: %v", c.name, c.at, err)
		}
	}
	if !made.NewCA || !made.Until.Equal(leaf.NotAfter) || !made.CAUntil.Equal(certificate(t, made.CA).NotAfter) {
		t.Errorf("%+v", made)
	}
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || leaf.IsCA {
		t.Errorf("usages %v, authority %v", leaf.ExtKeyUsage, leaf.IsCA)
	}
}

// Whoever gets hold of the authority's key can certify nothing but the names.
func TestTheAuthorityCanCertifyNothingElse(t *testing.T) {
	made := renewed(t, folder(t), names, now)
	ca, err := read(made.CA, made.CAKey, caName)
	if err != nil {
		t.Fatal(err)
	}
	pool := trusting(t, made.Files)
	good := func(c *x509.Certificate) *x509.Certificate {
		c.NotBefore, c.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
		c.BasicConstraintsValid = true
		if c.ExtKeyUsage == nil {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}
		return c
	}
	for _, c := range []struct {
		name, host string
		cert       *x509.Certificate
		usage      x509.ExtKeyUsage
		ok         bool
	}{
		{"a name of its own", names[0], &x509.Certificate{DNSNames: names[:1]}, x509.ExtKeyUsageServerAuth, true},
		{"another name", "www.example.com", &x509.Certificate{DNSNames: []string{"www.example.com"}}, x509.ExtKeyUsageServerAuth, false},
		{"another name beside its own", names[0], &x509.Certificate{DNSNames: []string{names[0], "www.example.com"}}, x509.ExtKeyUsageServerAuth, false},
		{"a name that ends like its own", "evillogin.microsoftonline.com", &x509.Certificate{DNSNames: []string{"evillogin.microsoftonline.com"}}, x509.ExtKeyUsageServerAuth, false},
		{"the domain of its own", "microsoftonline.com", &x509.Certificate{DNSNames: []string{"microsoftonline.com", "*.microsoftonline.com"}}, x509.ExtKeyUsageServerAuth, false},
		{"an address", "10.0.0.1", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}, x509.ExtKeyUsageServerAuth, false},
		{"an address of IPv6", "2001:db8::1", &x509.Certificate{IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}}, x509.ExtKeyUsageServerAuth, false},
		{"a client", "", &x509.Certificate{DNSNames: names[:1], ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, x509.ExtKeyUsageClientAuth, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaf, err := sign(good(c.cert), ca)
			if err != nil {
				t.Fatal(err)
			}
			_, err = leaf.cert.Verify(x509.VerifyOptions{DNSName: c.host, Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{c.usage}})
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("an authority below it", func(t *testing.T) {
		below, err := sign(good(&x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign}), ca)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := below.leaf(names, now)
		if err != nil {
			t.Fatal(err)
		}
		between := x509.NewCertPool()
		between.AddCert(below.cert)
		if _, err := leaf.cert.Verify(x509.VerifyOptions{DNSName: names[0], Roots: pool, Intermediates: between, CurrentTime: now}); err == nil {
			t.Error("it is trusted")
		}
	})
	if c := ca.cert; !c.PermittedDNSDomainsCritical || len(c.PermittedDNSDomains) != len(names) || !c.MaxPathLenZero || c.NotAfter.Sub(now) != 2*365*24*time.Hour {
		t.Errorf("got %+v", c)
	}
}

// A listener may serve with the certificate for all of them.
func TestRenewingForFewerNamesKeepsTheOthers(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	all := []string{"api.security.microsoft.com", "graph.microsoft.com", "login.microsoftonline.com"}
	if _, err := Renew(dir, all, now); err != nil {
		t.Fatal(err)
	}
	for _, later := range []time.Duration{time.Hour, caLife} {
		made, err := Renew(dir, all[:1], now.Add(later))
		if err != nil || made.NewCA != (later == caLife) {
			t.Fatalf("%s later: %v, a new authority: %v", later, err, made.NewCA)
		}
		kept, err := read(made.Cert, made.Key, leafName)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(kept.cert.DNSNames, all) {
			t.Errorf("%s later the certificate is for %v, want %v", later, kept.cert.DNSNames, all)
		}
	}
}

func TestRenewingKeepsTheAuthorityWhileItHasAMonth(t *testing.T) {
	dir := folder(t)
	first := renewed(t, dir, names, now)
	ca, key, leaf := content(t, first.CA), content(t, first.CAKey), content(t, first.Cert)
	later := now.Add(300 * 24 * time.Hour)
	if runtime.GOOS != "windows" {
		if err := os.Chmod(first.CAKey, 0o644); err != nil { // as a careless copy leaves it
			t.Fatal(err)
		}
	}
	second := renewed(t, dir, names[:1], later)
	if second.NewCA || string(content(t, second.CA)) != string(ca) || string(content(t, second.CAKey)) != string(key) || string(content(t, second.Cert)) == string(leaf) {
		t.Errorf("%+v; the authority is the same: %v", second, string(content(t, second.CA)) == string(ca))
	}
	if got := certificate(t, second.Cert); len(got.DNSNames) != len(names) || !got.NotAfter.Equal(later.Add(leafLife)) {
		t.Errorf("%v until %v", got.DNSNames, got.NotAfter)
	}
	// Not longer than the authority.
	late := now.Add(caLife - caSpare - time.Hour)
	if third := renewed(t, dir, names, late); third.NewCA || !third.Until.Equal(first.CAUntil) {
		t.Errorf("%+v", third)
	}
	modes(t, dir)
	fourth := renewed(t, dir, append(names, "graph.microsoft.com"), now.Add(caLife-caSpare))
	if !fourth.NewCA || string(content(t, fourth.CA)) == string(ca) {
		t.Errorf("%+v", fourth)
	}
	leafThere := certificate(t, fourth.Cert)
	if _, err := leafThere.Verify(x509.VerifyOptions{DNSName: "graph.microsoft.com", Roots: trusting(t, fourth.Files), CurrentTime: now.Add(caLife)}); err != nil {
		t.Error(err)
	}
	modes(t, dir)
}

// modes looks at the files, and that there are no others.
func modes(t *testing.T, dir string) {
	t.Helper()
	want := map[string]fs.FileMode{caFile: 0o644, caKeyFile: 0o600, leafFile: 0o644, leafKeyFile: 0o600}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("there is %v", entries)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != want[e.Name()] {
			t.Errorf("%s has the mode %v", e.Name(), info.Mode())
		}
	}
}

func TestFilesOfOthersAreNotOverwritten(t *testing.T) {
	foreign := renewed(t, folder(t), names, now)
	other := func(t *testing.T, c *x509.Certificate) (cert, key string) {
		c.NotBefore, c.NotAfter = now, now.Add(time.Hour)
		p, err := sign(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		certPEM, keyPEM, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(certPEM), string(keyPEM)
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, f Files)
		want   string
	}{
		{"a key of another authority", func(t *testing.T, f Files) { put(t, f.CAKey, content(t, foreign.CAKey)) }, "another certificate"},
		{"an authority of another key", func(t *testing.T, f Files) { put(t, f.CA, content(t, foreign.CA)) }, "another certificate"},
		{"an authority that was not made here", func(t *testing.T, f Files) {
			cert, key := other(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true})
			put(t, f.CA, []byte(cert))
			put(t, f.CAKey, []byte(key))
		}, "not made here"},
		{"a certificate of a server that was not made here", func(t *testing.T, f Files) {
			cert, key := other(t, &x509.Certificate{DNSNames: names})
			put(t, f.Cert, []byte(cert))
			put(t, f.Key, []byte(key))
		}, "not made here"},
		{"a key that is none", func(t *testing.T, f Files) { put(t, f.CAKey, []byte("secret")) }, "its key"},
		{"two certificates in a file", func(t *testing.T, f Files) { put(t, f.CA, append(content(t, f.CA), content(t, f.CA)...)) }, "not made here"},
		{"an authority without a key", func(t *testing.T, f Files) { os.Remove(f.CAKey) }, "without"},
		{"a key without an authority", func(t *testing.T, f Files) { os.Remove(f.CA) }, "without"},
		{"a certificate without an authority", func(t *testing.T, f Files) {
			os.Remove(f.CA)
			os.Remove(f.CAKey)
		}, "the authority that made it is not"},
		{"a certificate without a key", func(t *testing.T, f Files) { os.Remove(f.Key) }, "without"},
		{"an authority for other names", func(t *testing.T, f Files) {
			for _, file := range []string{f.CA, f.CAKey, f.Cert, f.Key} {
				os.Remove(file)
			}
			renewed(t, filepath.Dir(f.CA), []string{"graph.microsoft.com"}, now)
		}, "may certify graph.microsoft.com"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t)
			c.change(t, renewed(t, dir, names, now).Files)
			before := snapshot(t, dir)
			_, err := Renew(dir, names, now)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v", err)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("the files have changed:\n%s\n%s", before, after)
			}
		})
	}
	if _, err := Renew(folder(t), nil, now); err == nil {
		t.Error("no name is certified")
	}
	if _, err := Renew(filepath.Join(foreign.CA, "below"), names, now); err == nil {
		t.Error("a folder is made below a file")
	}
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func snapshot(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Name() + "\n" + string(content(t, filepath.Join(dir, e.Name()))))
	}
	return b.String()
}
