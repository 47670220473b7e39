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
	storeKind = "defender-proxy token store"
	// storeMark begins every store, and no other file.
	storeMark    = `{"kind":"` + storeKind + `",`
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
	Kind     string `json:"kind"` // storeKind
	Version  int    `json:"version"`
	Name     string `json:"name"`
	Cloud    string `json:"cloud"`
	Tenant   string `json:"tenant"`    // in lower case
	ClientID string `json:"client_id"` // in lower case
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

// header is all of the file but what is sealed.
func (s *Store) header() sealedStore {
	return sealedStore{
		Kind: storeKind, Version: storeVersion, Name: s.o.Name, Cloud: s.o.Cloud,
		Tenant: strings.ToLower(string(s.o.Tenant)), ClientID: strings.ToLower(s.o.ClientID),
	}
}

// bound is what the encryption binds: data that has to be the same when the
// store is opened.
func (s *Store) bound() []byte {
	h := s.header()
	b, _ := json.Marshal([]any{h.Kind, h.Version, h.Name, h.Cloud, h.Tenant, h.ClientID}) // strings and a number always encode
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
	tooLong := storeFault("What Entra ID gave is too long to be a sign-in.", "Check that nothing on the way answers for Entra ID.")
	switch {
	case l.RefreshToken == "":
		return nil, storeFault("There is no refresh token to keep.", "Sign in again.")
	case len(l.RefreshToken) > maxRefreshToken || len(l.Username) > maxUsername:
		return nil, tooLong
	}
	plain, err := marshalPlain(storedLogin(l))
	if err != nil {
		return nil, storeFault("The sign-in cannot be encoded.", "Check this machine's clock.") // only a year past 9999 does not encode
	}
	aead, err := cipherFor(key)
	if err != nil {
		return nil, storeFault("The key of token store "+s.o.File+" cannot be used.", "Remove the key and sign in again.")
	}
	file := s.header()
	file.Sealed = aead.Seal(nil, nil, plain, s.bound())
	data, err := marshalPlain(file)
	if err == nil && len(data) > maxStore {
		err = tooLong // control characters take six bytes each
	}
	return data, err
}

// readSealed reads the file, and refuses one that this program has not written
// for this store. Only the very bytes that seal gives are accepted: encoding/json
// itself takes other letter case, space and unknown keys.
func (s *Store) readSealed(login string) (sealedStore, error) {
	data, err := storeGuard.read(s.o.File)
	if err != nil {
		return sealedStore{}, err
	}
	if !bytes.HasPrefix(data, []byte(storeMark)) {
		return sealedStore{}, notAStore(s.o.File)
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
	own := s.header()
	for _, part := range []struct{ what, got, want string }{
		{"the tenant called", f.Name, own.Name},
		{"tenant", f.Tenant, own.Tenant},
		{"application", f.ClientID, own.ClientID},
		{"cloud", f.Cloud, own.Cloud},
	} {
		if part.got != part.want {
			whose = append(whose, part.what+" "+quoteShort(part.got))
		}
	}
	if len(whose) > 0 {
		return sealedStore{}, storeFault("The token store "+s.o.File+" holds a sign-in for "+strings.Join(whose, ", ")+".",
			"Give each tenant of the configuration a token_store of its own, or sign in again: "+login)
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
	return storeFault("The token store "+s.o.File+" is damaged.", "Sign in again: "+login)
}

func notAStore(path string) error {
	return storeFault("The file "+path+" is not a token store.", "Correct token_store in the configuration; or, if nobody needs that file, remove it and sign in again.")
}

// quoteShort quotes a few of somebody else's words.
func quoteShort(text string) string {
	const most = 64
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}
