package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// Secret says where a secret is: in an environment variable, in a file or in
// Azure Key Vault, exactly one of them. It is a reference and holds no secret.
// The zero value names nothing and does not resolve.
type Secret struct {
	// The environment variable that holds the secret.
	Env string `yaml:"env"`

	// The file that holds the secret and nothing else. One line end behind it is
	// not part of it.
	File string `yaml:"file" kind:"path"`

	// The secret in Azure Key Vault, https://NAME.vault.azure.net/secrets/NAME, with
	// or without /VERSION. Without, the newest version is used. For client_secret
	// and next_client_secret alone.
	KeyVault string `yaml:"key_vault" kind:"vault"`
}

// maxSecretBytes bounds what is read of a secret's file. Entra's client secrets
// have some forty bytes.
const maxSecretBytes = 64 << 10

// Resolve reads the secret as it is now, without one line end at its end. The
// error tells what was tried and never what was read. A file is read anew each
// time, so that a rotated secret is seen. A secret in Azure Key Vault is an
// error: fetching it is the caller's business. It may be called concurrently if
// env may.
func (s Secret) Resolve(env func(string) (string, bool)) (string, error) {
	var value string
	switch {
	case s.KeyVault != "":
		return "", fmt.Errorf("%s is not read from here", s)
	case s.Env != "" && s.File != "":
		return "", errors.New("a secret names both env and file; exactly one is wanted")
	case s.Env != "":
		v, set := env(s.Env)
		if !set {
			return "", fmt.Errorf("the environment variable %s is not set", s.Env)
		}
		value = v
	case s.File != "":
		data, _, err := readFile(s.File, maxSecretBytes)
		if err != nil {
			return "", err
		}
		value = string(data)
	default:
		return "", errors.New("a secret names neither env nor file")
	}
	if v, found := strings.CutSuffix(value, "\n"); found {
		value = strings.TrimSuffix(v, "\r")
	}
	if value == "" {
		return "", fmt.Errorf("%s is empty", s)
	}
	return value, nil
}

// String names the place of the secret.
func (s Secret) String() string {
	switch {
	case s.Env != "":
		return "the environment variable " + s.Env
	case s.KeyVault != "":
		return "the Key Vault secret " + s.KeyVault
	case s.File != "":
		return "the file " + s.File
	}
	return "no secret"
}

// errNoFile is about what is there and is no file.
var errNoFile = errors.New("it is not a regular file")

// openFile opens a regular file. Its errors do not name the path.
func openFile(path string) (*os.File, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, reason(err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errNoFile // a pipe would block and a device never end
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, reason(err)
	}
	return f, info.Mode(), nil
}

// readFile reads a regular file of at most limit bytes. Its errors name the
// path and nothing of the content.
func readFile(path string, limit int64) ([]byte, fs.FileMode, error) {
	f, mode, err := openFile(path)
	switch {
	case errors.Is(err, errNoFile):
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	case err != nil:
		return nil, 0, fmt.Errorf("the file %s cannot be read: %w", path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, fmt.Errorf("the file %s cannot be read: %w", path, reason(err))
	}
	if int64(len(data)) > limit {
		return nil, 0, fmt.Errorf("the file %s has more than %d bytes", path, limit)
	}
	return data, mode, nil
}

// reason says why a file cannot be read, without the path that the system's
// text repeats.
func reason(err error) error {
	switch pe, ok := errors.AsType[*fs.PathError](err); {
	case errors.Is(err, fs.ErrNotExist):
		return fs.ErrNotExist
	case ok:
		return pe.Err
	}
	return err
}

// openToOthers reports whether any user of the machine can read a file with the
// mode. On Windows the mode says nothing about that.
func openToOthers(mode fs.FileMode) bool {
	return runtime.GOOS != "windows" && mode.Perm()&0o004 != 0
}
