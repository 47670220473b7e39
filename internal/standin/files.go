package standin

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The files of a folder.
const (
	caFile      = "ca.pem"
	caKeyFile   = "ca.key"
	leafFile    = "stand-in.pem"
	leafKeyFile = "stand-in.key"
)

// Files are the paths of what Renew made. The keys are readable by their owner alone.
type Files struct {
	CA    string `json:"ca"`       // the authority, for callers to trust
	CAKey string `json:"ca_key"`   // its key, which nothing but Renew needs
	Cert  string `json:"cert"`     // what a listener serves with
	Key   string `json:"cert_key"` // its key
}

// Made is what became of a folder.
type Made struct {
	Files
	// NewCA says that the authority is new, and callers have to be given it.
	NewCA bool `json:"new_ca"`
	// CASHA256 is the authority's fingerprint, in hexadecimal digits.
	CASHA256 string `json:"ca_sha256"`
	// CAUntil and Until are when authority and certificate end.
	CAUntil time.Time `json:"ca_until"`
	Until   time.Time `json:"until"`
}

// In names the files of a folder, whether they are there or not.
func In(dir string) Files {
	return Files{filepath.Join(dir, caFile), filepath.Join(dir, caKeyFile), filepath.Join(dir, leafFile), filepath.Join(dir, leafKeyFile)}
}

// Renew makes a certificate for names, which are those of hosts and at least one, in
// a folder that it makes too if it is not there. The authority of the folder is kept
// while it is valid for a month more, and made where there is none. The names that it
// had before stay: a listener may serve them.
//
// Files that it did not make are never overwritten: they are an error, and so are an
// authority that may not certify all names, or may certify others than these and
// Microsoft's, and a folder that others can write. Nothing is changed then, nor where a
// file cannot be put into its place. A certificate of ours whose key is another one's is
// made anew. It must not run twice at once for one folder.
func Renew(dir string, names []string, now time.Time) (Made, error) {
	if len(names) == 0 {
		return Made{}, errors.New("there is no name to certify")
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	files := In(dir)
	if err := private(dir); err != nil {
		return Made{}, err
	}
	ca, err := read(files.CA, files.CAKey, caName)
	if err == nil && ca != nil && !ca.constrained(names) {
		err = fmt.Errorf("%s and %s are not used: the authority may certify more than names of Microsoft's, which none that was made here may; take another folder", files.CA, files.CAKey)
	}
	if err != nil {
		return Made{}, err
	}
	keep := ca != nil && ca.cert.NotAfter.Sub(now) > caSpare
	old, err := read(files.Cert, files.Key, leafName)
	broken := errors.Is(err, errOtherKey) // as a renewal leaves them that was killed
	switch {
	case err != nil && !broken:
		return Made{}, err
	case (old != nil || broken) && ca == nil:
		return Made{}, fmt.Errorf("%s is there, and the authority that made it is not; take another folder, or remove the file", files.Cert)
	case keep && !ca.permits(names):
		return Made{}, fmt.Errorf("the authority %s may certify %s, and not all that is wanted now; take another folder, or remove the four files there to begin with a new one, which callers then have to trust anew",
			files.CA, strings.Join(ca.cert.PermittedDNSDomains, ", "))
	}
	if ca != nil {
		names = slices.Compact(slices.Sorted(slices.Values(slices.Concat(names, ca.cert.PermittedDNSDomains))))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Made{}, err
	}
	made := Made{Files: files}
	var put []file
	if !keep {
		if ca, err = newAuthority(names, now); err != nil {
			return Made{}, err
		}
		made.NewCA = true
		if put, err = ca.files(put, files.CA, files.CAKey); err != nil {
			return Made{}, err
		}
	} else if err := os.Chmod(files.CAKey, 0o600); err != nil {
		return Made{}, err
	}
	leaf, err := ca.leaf(names, now)
	if err != nil {
		return Made{}, err
	}
	if put, err = leaf.files(put, files.Cert, files.Key); err != nil {
		return Made{}, err
	}
	made.CAUntil, made.Until = ca.cert.NotAfter, leaf.cert.NotAfter
	made.CASHA256 = fmt.Sprintf("%x", sha256.Sum256(ca.cert.Raw))
	return made, write(put, os.Rename)
}

// private refuses a folder in which others than its owner can put files: an authority
// that somebody else laid there would be given to callers to trust. Windows tells
// nothing about that in a mode.
func private(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // it is made
	case err != nil:
		return err
	case info.IsDir() && info.Mode().Perm()&0o022 != 0 && runtime.GOOS != "windows":
		return fmt.Errorf("others than its owner can write in %s (mode %04o); take that away with chmod go-w, or take another folder", dir, info.Mode().Perm())
	}
	return nil
}

// read reads a certificate and its key; nil where neither is there.
func read(certFile, keyFile, subject string) (*pair, error) {
	cert, certErr := os.ReadFile(certFile)
	key, keyErr := os.ReadFile(keyFile)
	gone := func(err error) bool { return errors.Is(err, fs.ErrNotExist) }
	switch {
	case gone(certErr) && gone(keyErr):
		return nil, nil
	case gone(certErr):
		return nil, fmt.Errorf("%s is there without %s; it is not overwritten: take another folder, or remove it", keyFile, certFile)
	case gone(keyErr):
		return nil, fmt.Errorf("%s is there without %s; it is not overwritten: take another folder, or remove it", certFile, keyFile)
	case certErr != nil || keyErr != nil:
		return nil, errors.Join(certErr, keyErr)
	}
	p, err := decode(cert, key, subject)
	if err != nil {
		return nil, fmt.Errorf("%s and %s are not overwritten: %w; take another folder", certFile, keyFile, err)
	}
	return p, nil
}

// file is one that is to be written.
type file struct {
	path string
	mode fs.FileMode
	data []byte
}

// files adds those of a pair.
func (p *pair) files(all []file, certFile, keyFile string) ([]file, error) {
	cert, key, err := p.encode()
	return append(all, file{keyFile, 0o600, key}, file{certFile, 0o644, cert}), err
}

// write puts all files into their places with rename, when each has been written
// beside it. Where one cannot be put there, those before it are as they were.
func write(all []file, rename func(from, to string) error) error {
	var beside []string
	defer func() {
		for _, name := range beside {
			_ = os.Remove(name) // what is in its place has gone from here
		}
	}()
	spare := func(f file) (string, error) {
		t, err := os.CreateTemp(filepath.Dir(f.path), filepath.Base(f.path)+".*.tmp") // for its owner alone
		if err != nil {
			return "", err
		}
		beside = append(beside, t.Name())
		_, err = t.Write(f.data)
		if err := errors.Join(err, t.Sync(), t.Close()); err != nil {
			return "", err
		}
		return t.Name(), os.Chmod(t.Name(), f.mode)
	}
	next, before := make([]string, len(all)), make([]string, len(all))
	for i, f := range all {
		old, err := os.ReadFile(f.path)
		switch {
		case err == nil:
			before[i], err = spare(file{f.path, f.mode, old})
		case errors.Is(err, fs.ErrNotExist):
			err = nil
		}
		if err == nil {
			next[i], err = spare(f)
		}
		if err != nil {
			return err
		}
	}
	for i, f := range all {
		err := rename(next[i], f.path)
		if err == nil {
			continue
		}
		for j, done := range all[:i] {
			if before[j] == "" {
				err = errors.Join(err, os.Remove(done.path))
			} else {
				err = errors.Join(err, os.Rename(before[j], done.path))
			}
		}
		return err
	}
	return nil
}
