package credential

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

const (
	storeVersion = 1
	keyBytes     = 32 // AES-256
	// maxStore bounds what is read of a store. Refresh tokens have one or two KiB.
	maxStore = 64 << 10
	// maxRefreshToken bounds what is stored, so that the store stays below
	// maxStore after two encodings.
	maxRefreshToken = 16 << 10
	maxUsername     = 1 << 10
)

// sealedStore is the content of a store's file, one line of JSON.
type sealedStore struct {
	Version  int    `json:"version"`
	Cloud    string `json:"cloud"`
	Tenant   string `json:"tenant"`
	ClientID string `json:"client_id"`
	// Sealed is nonce, ciphertext and tag of storedLogin.
	Sealed []byte `json:"sealed"`
}

// storedLogin is Login as it is encrypted.
type storedLogin struct {
	RefreshToken string    `json:"refresh_token"`
	Username     string    `json:"username"`
	SignedIn     time.Time `json:"signed_in"`
	Rotated      time.Time `json:"rotated"`
}

// marshalPlain is json.Marshal without the escapes for HTML.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// bound is what the encryption binds: data that is not stored but has to be the
// same when the store is opened.
func (s *Store) bound() []byte {
	b, _ := json.Marshal([]any{"defender-proxy token store", storeVersion, s.o.Cloud, strings.ToLower(string(s.o.Tenant)), strings.ToLower(s.o.ClientID)}) // strings and a number always encode
	return b
}

// cipherFor gives AES-256-GCM, which puts its own random nonce before what it
// seals: the sign-ins of one key stay far below the 2³² seals that permits.
func cipherFor(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal gives the content of the file.
func (s *Store) seal(l Login, key []byte) ([]byte, error) {
	switch {
	case l.RefreshToken == "":
		return nil, storeFault("There is no refresh token to keep.", "Sign in again.")
	case len(l.RefreshToken) > maxRefreshToken || len(l.Username) > maxUsername:
		return nil, storeFault("What Entra ID gave is too long to be a sign-in.", "Check that nothing on the way answers for Entra ID.")
	}
	plain, err := marshalPlain(storedLogin(l))
	if err != nil {
		return nil, storeFault("The sign-in cannot be encoded.", "Check this machine's clock.") // only a year past 9999 does not encode
	}
	aead, err := cipherFor(key)
	if err != nil {
		return nil, storeFault("The key of token store "+s.o.File+" cannot be used.", "Remove the key and sign in again.")
	}
	return marshalPlain(sealedStore{
		Version:  storeVersion,
		Cloud:    s.o.Cloud,
		Tenant:   string(s.o.Tenant),
		ClientID: s.o.ClientID,
		Sealed:   aead.Seal(nil, nil, plain, s.bound()),
	})
}

// readSealed reads the file, and refuses one that this program has not written
// for this store. Only the very bytes that seal gives are accepted: encoding/json
// itself takes other letter case, space and unknown keys.
func (s *Store) readSealed(login string) (sealedStore, error) {
	s.lock.file.RLock()
	data, err := readPrivate(s.o.File, "token store", maxStore)
	s.lock.file.RUnlock()
	if err != nil {
		return sealedStore{}, err
	}
	var f sealedStore
	if err := json.Unmarshal(data, &f); err != nil {
		return sealedStore{}, s.broken(login)
	}
	if f.Version > storeVersion {
		return sealedStore{}, storeFault(fmt.Sprintf("The token store %s has version %d, and this program knows %d.", s.o.File, f.Version, storeVersion),
			"Run the version that wrote it, or remove the file and sign in again: "+login)
	}
	if canonical, err := marshalPlain(f); err != nil || f.Version != storeVersion || !bytes.Equal(canonical, data) {
		return sealedStore{}, s.broken(login)
	}
	var whose []string
	if !strings.EqualFold(f.Tenant, string(s.o.Tenant)) {
		whose = append(whose, "tenant "+quoteShort(f.Tenant))
	}
	if !strings.EqualFold(f.ClientID, s.o.ClientID) {
		whose = append(whose, "application "+quoteShort(f.ClientID))
	}
	if f.Cloud != s.o.Cloud {
		whose = append(whose, "cloud "+quoteShort(f.Cloud))
	}
	if len(whose) > 0 {
		return sealedStore{}, storeFault("The token store "+s.o.File+" holds a sign-in for "+strings.Join(whose, ", ")+".",
			"Give each tenant and application a token_store of its own, or sign in again: "+login)
	}
	return f, nil
}

// open decrypts what readSealed gave.
func (s *Store) open(f sealedStore, key []byte, login string) (Login, error) {
	aead, err := cipherFor(key)
	if err != nil {
		return Login{}, s.broken(login)
	}
	plain, err := aead.Open(nil, nil, f.Sealed, s.bound())
	if err != nil {
		return Login{}, storeFault("The token store "+s.o.File+" cannot be decrypted: it was changed, or its key is another one than it was written with.",
			"Put the right key back, or sign in again: "+login)
	}
	var l storedLogin
	if err := json.Unmarshal(plain, &l); err != nil || l.RefreshToken == "" {
		return Login{}, s.broken(login)
	}
	return Login(l), nil
}

func (s *Store) broken(login string) error {
	return storeFault("The token store "+s.o.File+" is damaged, or is not a token store.", "Sign in again: "+login)
}

// quoteShort quotes a few of somebody else's words.
func quoteShort(text string) string {
	const most = 64
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}
