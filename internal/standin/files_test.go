package standin

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestAFolderThatCannotBeReadIsLeftAsItIs(t *testing.T) {
	dir := folder(t)
	if err := os.MkdirAll(filepath.Join(dir, leafFile), 0o700); err != nil { // where a file belongs
		t.Fatal(err)
	}
	if _, err := Renew(dir, names, now); err == nil {
		t.Error("a folder is overwritten")
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("there is %v", entries)
	}
}

// Wherever putting files into their places breaks off, there is what was there before:
// keys beside the certificates that they belong to.
func TestFilesThatCannotBePutIntoTheirPlacesAreAsBefore(t *testing.T) {
	for _, first := range []bool{true, false} {
		for broken := range 4 {
			dir := folder(t)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if !first {
				renewed(t, dir, names, now)
			}
			before := snapshot(t, dir)
			ca, err := newAuthority(names, now)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := ca.leaf(names, now)
			if err != nil {
				t.Fatal(err)
			}
			f := In(dir)
			all, err := ca.files(nil, f.CA, f.CAKey)
			if err == nil {
				all, err = leaf.files(all, f.Cert, f.Key)
			}
			if err != nil {
				t.Fatal(err)
			}
			errImmutable := errors.New("operation not permitted") // as after chattr +i
			n := 0
			err = write(all, func(from, to string) error {
				if n++; n == broken+1 {
					return errImmutable
				}
				return os.Rename(from, to)
			})
			if !errors.Is(err, errImmutable) {
				t.Errorf("got %v", err)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("at the file %d, begun anew %v, the folder has become\n%s\nfrom\n%s", broken, first, after, before)
			}
			if !first {
				modes(t, dir)
				renewed(t, dir, names, now)
			}
		}
	}
}

// A renewal that was killed between two files leaves a certificate of ours beside the
// key of another one. Nobody needs that key any more.
func TestACertificateOfOursWithAnotherKeyIsMadeAnew(t *testing.T) {
	dir := folder(t)
	f := renewed(t, dir, names, now).Files
	put(t, f.Key, content(t, renewed(t, folder(t), names, now).Key))
	ca := content(t, f.CA)
	if made := renewed(t, dir, names, now); made.NewCA || string(content(t, f.CA)) != string(ca) {
		t.Errorf("%+v", made)
	}
	modes(t, dir)
	leaf := certificate(t, f.Cert)
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: names[0], Roots: trusting(t, f), CurrentTime: now}); err != nil {
		t.Error(err)
	}
	// Not where the authority is gone.
	put(t, f.Key, content(t, f.CAKey))
	os.Remove(f.CA)
	os.Remove(f.CAKey)
	if _, err := Renew(dir, names, now); err == nil || !strings.Contains(err.Error(), "the authority that made it is not") {
		t.Errorf("got %v", err)
	}
}

func TestWhatMayCertifyMoreIsNoAuthorityOfOurs(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
	}{
		{"everything, but for the name", func(c *x509.Certificate) {
			*c = x509.Certificate{Subject: pkix.Name{CommonName: caName}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		}},
		{"a whole domain", func(c *x509.Certificate) { c.PermittedDNSDomains = append(c.PermittedDNSDomains, "com") }},
		{"another name", func(c *x509.Certificate) { c.PermittedDNSDomains = append(c.PermittedDNSDomains, "mail.corp.example") }},
		{"all below a name of nobody's", func(c *x509.Certificate) { c.PermittedDNSDomains = append(c.PermittedDNSDomains, ".microsoft.com") }},
		{"addresses", func(c *x509.Certificate) { c.ExcludedIPRanges = nil }},
		{"addresses of IPv6", func(c *x509.Certificate) { c.ExcludedIPRanges = c.ExcludedIPRanges[:1] }},
		{"an address", func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 1).To4(), Mask: net.CIDRMask(32, 32)}}
		}},
		{"others for those who do not know constraints", func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false }},
		{"authorities", func(c *x509.Certificate) { c.MaxPathLenZero = false }},
		{"authorities below it", func(c *x509.Certificate) { c.MaxPathLenZero, c.MaxPathLen = false, 1 }},
		{"clients", func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) }},
		{"everybody's purposes", func(c *x509.Certificate) { c.ExtKeyUsage = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t)
			f := renewed(t, dir, names, now).Files
			forged := certificate(t, f.CA)
			template := &x509.Certificate{
				Subject: forged.Subject, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: forged.KeyUsage, ExtKeyUsage: forged.ExtKeyUsage,
				PermittedDNSDomainsCritical: true, PermittedDNSDomains: forged.PermittedDNSDomains, ExcludedIPRanges: forged.ExcludedIPRanges,
			}
			c.change(template)
			template.NotBefore, template.NotAfter = now, now.Add(365*24*time.Hour)
			p, err := sign(template, nil)
			if err != nil {
				t.Fatal(err)
			}
			cert, key, err := p.encode()
			if err != nil {
				t.Fatal(err)
			}
			put(t, f.CA, cert)
			put(t, f.CAKey, key)
			before := snapshot(t, dir)
			if _, err := Renew(dir, names, now); err == nil || !strings.Contains(err.Error(), "more than names of Microsoft's") || !strings.Contains(err.Error(), f.CA) {
				t.Errorf("got %v", err)
			}
			if snapshot(t, dir) != before {
				t.Error("the files have changed")
			}
		})
	}
}

// Where others can put files, they can put an authority of theirs.
func TestAFolderThatOthersCanWriteIsNotUsed(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // where modes say nothing of it
	}
	dir := folder(t)
	renewed(t, dir, names, now)
	before := snapshot(t, dir)
	for mode, refused := range map[os.FileMode]bool{0o777: true, 0o775: true, 0o757: true, 0o777 | os.ModeSticky: true, 0o755: false, 0o700: false} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Renew(dir, names, now)
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("%v: got %v", mode, err)
		}
		if refused && snapshot(t, dir) != before {
			t.Errorf("%v: the files have changed", mode)
		}
		before = snapshot(t, dir)
	}
}
