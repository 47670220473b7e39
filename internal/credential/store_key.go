package credential

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// key gives the key of the store, and whether it is the one remembered.
func (s *Store) key(ctx context.Context, login string) (key []byte, cached bool, err error) {
	if s.o.KeyFile != "" {
		key, err := within(ctx, s, s.keyFromFile)
		if errors.Is(err, errNotSignedIn) {
			err = storeFault("The key file "+s.o.KeyFile+" of token store "+s.o.File+" does not exist.", "Put it back, or sign in again, which makes a new one: "+login)
		}
		return key, false, err
	}
	s.mu.Lock()
	key = s.ringKey
	s.mu.Unlock()
	if key != nil {
		return key, true, nil
	}
	key, err = s.keyFromRing(ctx, patienceForKeyring)
	if errors.Is(err, errNoKey) {
		err = storeFault("The keyring holds no key for token store "+s.o.File+".", "Sign in again as the user that runs the proxy, which makes a new one: "+login)
	}
	return key, false, err
}

// makeKey gives the key of the store, made if there is none.
func (s *Store) makeKey(ctx context.Context, patience time.Duration) ([]byte, error) {
	if s.o.KeyFile != "" {
		key, err := within(ctx, s, s.keyFromFile)
		if !errors.Is(err, errNotSignedIn) {
			return key, err
		}
		if err := createKeyFile(s.o.KeyFile, newKeyLine()); err != nil {
			return nil, err
		}
		// Read back: another process may have been first.
		key, err = within(ctx, s, s.keyFromFile)
		if errors.Is(err, errNotSignedIn) {
			err = storeFault("The key file "+s.o.KeyFile+" was removed as soon as it was made.", "Find out what removes it, and sign in again.")
		}
		return key, err
	}
	key, err := s.keyFromRing(ctx, patience)
	if !errors.Is(err, errNoKey) {
		return key, err
	}
	if err := setKeyring(ctx, patience, s.keyringUser(), newKeyLine()); err != nil {
		return nil, err
	}
	return s.keyFromRing(ctx, patience)
}

func newKeyLine() string {
	key := make([]byte, keyBytes)
	rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key)
}

// parseKey reads what newKeyLine gave.
func parseKey(line string) ([]byte, bool) {
	key, err := base64.StdEncoding.Strict().DecodeString(line)
	return key, err == nil && len(key) == keyBytes && base64.StdEncoding.EncodeToString(key) == line
}

// keyFromFile gives errNotSignedIn where there is no file.
func (s *Store) keyFromFile() ([]byte, error) {
	data, err := keyGuard.read(s.o.KeyFile)
	if err != nil {
		return nil, err
	}
	line, _ := bytes.CutSuffix(data, []byte("\n"))
	line, _ = bytes.CutSuffix(line, []byte("\r"))
	key, ok := parseKey(string(line))
	if !ok {
		return nil, storeFault(fmt.Sprintf("The key file %s does not hold a key: one line with %d bytes in base64.", s.o.KeyFile, keyBytes),
			"Put the right file back, or remove it and sign in again.")
	}
	return key, nil
}

// createKeyFile writes a key file unless there is one. It appears as a whole:
// several stores may have one key, and each reads what the first has made.
func createKeyFile(path, line string) error {
	guard := keyGuard
	guard.sticky = false // anybody could be first there
	target, err := guard.follow(path)
	if err != nil {
		return err
	}
	temp, err := writeTemp(target, []byte(line+"\n"))
	if err == nil {
		err = os.Link(temp, target)
		os.Remove(temp)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return storeFault("The key file "+path+" cannot be written: "+storeReason(err)+".",
			"Make its folder writable for the user that runs the proxy while you sign in, or make the file yourself: openssl rand -base64 32")
	}
	syncFolder(filepath.Dir(target))
	removeLeftovers(target)
	return nil
}

// keyringUser is the name under which the keyring holds the key.
func (s *Store) keyringUser() string {
	h := s.header()
	return h.Tenant + " " + h.ClientID + " " + h.Name
}

// keyFromRing gives errNoKey where the keyring has none.
func (s *Store) keyFromRing(ctx context.Context, patience time.Duration) ([]byte, error) {
	line, err := getKeyring(ctx, patience, s.keyringUser())
	if err != nil {
		return nil, err
	}
	key, ok := parseKey(line)
	if !ok {
		return nil, storeFault("What the keyring holds for "+keyringService+", "+s.keyringUser()+" is not a key of a token store.", "Remove that entry from the keyring and sign in again.")
	}
	return key, nil
}
