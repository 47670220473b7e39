package links

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Download is what a sealed link stands for.
type Download struct {
	// URL is the signed link as the answer had it, Operation the id of the operation
	// that gave it.
	URL, Operation string
	// Expires is the moment from which on the sealed link is worth nothing, to the
	// second.
	Expires time.Time
}

// The errors of Sealer.Open.
var (
	// ErrSeal says that a sealed link is none of ours, was altered, or was made for
	// another tenant or client group.
	ErrSeal = errors.New("links: not a sealed link of ours, or not for whom it was made")
	// ErrExpired says that it is one, but that its time is over.
	ErrExpired = errors.New("links: the sealed link has expired")
)

// sealVersion is the first byte of what is sealed. It is in the key's derivation as
// well, so another form cannot be taken for this one.
const sealVersion = 1

// sealInfo separates these keys from others that may be derived of the same secret.
const sealInfo = "defender-proxy download link, version 1"

// Sealer seals download links and opens them again. A sealed link holds all that is
// needed, so nothing is kept between the two, and whoever has the key can open it:
// another replica, or the same one after a restart.
//
// It is AES-256-GCM with random nonces, which is safe for some four thousand million
// links with one key (NIST SP 800-38D, section 8.3). A Sealer is immutable and may be
// used concurrently.
type Sealer struct{ keys []cipher.AEAD }

// NewSealer makes a Sealer of secrets of 32 random bytes or more each. The first one
// seals, all of them open, so a secret is changed by putting the new one in front of
// the old. Without any, nothing is sealed or opened.
func NewSealer(keys [][]byte) *Sealer {
	s := new(Sealer)
	for _, secret := range keys {
		key, err := hkdf.Key(sha256.New, secret, nil, sealInfo, 32)
		if err != nil {
			panic(fmt.Sprintf("links: derive a key of %d bytes: %v", len(secret), err)) // FIPS mode, and a secret of less than 14 bytes
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			panic("links: " + err.Error()) // 32 bytes are a key
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			panic("links: " + err.Error()) // AES has blocks of the right size
		}
		s.keys = append(s.keys, aead)
	}
	return s
}

// Seal gives a link that only Open of a Sealer with the same key makes sense of, and
// only with the same bound values in the same order: the names of the tenant and of
// the client group that it is for. It is base64url without padding. No two calls give
// the same. The error is that there is no key.
func (s *Sealer) Seal(d Download, bound ...string) (string, error) {
	if len(s.keys) == 0 {
		return "", errors.New("links: there is no key to seal with")
	}
	plain := make([]byte, 0, 1+8+binary.MaxVarintLen64+len(d.Operation)+len(d.URL))
	plain = append(plain, sealVersion)
	plain = binary.BigEndian.AppendUint64(plain, uint64(d.Expires.Unix()))
	plain = binary.AppendUvarint(plain, uint64(len(d.Operation)))
	plain = append(append(plain, d.Operation...), d.URL...)
	return base64.RawURLEncoding.EncodeToString(s.keys[0].Seal(nil, nil, plain, associated(bound))), nil
}

// sealedEncoding takes only what Seal writes: no other last character stands for the
// same bytes.
var sealedEncoding = base64.RawURLEncoding.Strict()

// Open gives back what was sealed. Its errors are ErrSeal and, from d.Expires on,
// ErrExpired; with the latter d is filled in all the same, for records.
func (s *Sealer) Open(sealed string, now time.Time, bound ...string) (Download, error) {
	if strings.ContainsAny(sealed, "\r\n") { // which encoding/base64 overlooks
		return Download{}, ErrSeal
	}
	data, err := sealedEncoding.DecodeString(sealed)
	if err != nil {
		return Download{}, ErrSeal
	}
	for _, key := range s.keys {
		plain, err := key.Open(nil, nil, data, associated(bound))
		if err != nil {
			continue
		}
		d, ok := parseDownload(plain)
		switch {
		case !ok:
			return Download{}, ErrSeal
		case !now.Before(d.Expires):
			return d, ErrExpired
		}
		return d, nil
	}
	return Download{}, ErrSeal
}

// parseDownload reads what Seal wrote.
func parseDownload(plain []byte) (d Download, ok bool) {
	if len(plain) < 1+8 || plain[0] != sealVersion {
		return d, false
	}
	d.Expires = time.Unix(int64(binary.BigEndian.Uint64(plain[1:])), 0)
	rest := plain[1+8:]
	n, used := binary.Uvarint(rest)
	if used <= 0 || n > uint64(len(rest)-used) {
		return d, false
	}
	rest = rest[used:]
	d.Operation, d.URL = string(rest[:n]), string(rest[n:])
	return d, true
}

// associated joins the bound values so that no two lists of them give the same bytes.
func associated(bound []string) []byte {
	b := []byte{sealVersion}
	for _, s := range bound {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}
