package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

// Key is a local key that a caller has to send in a header. The zero value is a key
// that nobody can send.
//
// It holds the key's hash. SHA-256 without salt or stretching is enough for a key
// that was drawn at random and cannot be guessed; it is computed for each request.
// How a Key prints does not show the hash.
type Key struct {
	Header string // in canonical form
	Sum    [sha256.Size]byte
}

const (
	// shortestKey is how long a key has to be: 16 characters of base64 hold 96 bits.
	shortestKey = 16
	longestKey  = 256
)

// NewKey makes a Key of its header's name and of the key: the key itself, or its
// hash as "sha256:" and 64 hexadecimal digits, which is what a configuration should
// hold. Its errors do not repeat the key.
func NewKey(header, text string) (Key, error) {
	k := Key{Header: textproto.CanonicalMIMEHeaderKey(header)}
	if err := keyHeader(header); err != nil {
		return Key{}, err
	}
	if digits, ok := strings.CutPrefix(text, "sha256:"); ok {
		sum, err := hex.DecodeString(digits)
		if err != nil || len(sum) != len(k.Sum) {
			return Key{}, errors.New("is sha256: without the 64 hexadecimal digits of a hash; write what this prints: printf %s KEY | sha256sum")
		}
		copy(k.Sum[:], sum)
		return k, nil
	}
	switch {
	case len(text) < shortestKey:
		return Key{}, fmt.Errorf("is a key of %d characters, which can be guessed; draw one of at least %d, as openssl rand -hex 32 does", len(text), shortestKey)
	case len(text) > longestKey:
		return Key{}, fmt.Errorf("is a key of %d characters; at most %d are looked at", len(text), longestKey)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return Key{}, errors.New("is a key with a space or a character outside ASCII, which a header cannot hold as it is")
	}
	k.Sum = sha256.Sum256([]byte(text))
	return k, nil
}

// meant are headers that net/http, the proxy or a browser give a meaning of their
// own, or that Microsoft does and that therefore go out: a key there would be sent
// on, or a client's ordinary value be taken for one.
var meant = map[string]bool{
	"Accept": true, "Cookie": true, "X-Approval-Id": true, "Consistencylevel": true, "Mime-Version": true, "Prefer": true,
	"Client-Request-Id": true, "X-Ms-Client-Request-Id": true, "Return-Client-Request-Id": true,
	"Date": true, "Expect": true, "Forwarded": true, "Host": true, "Keep-Alive": true, "Max-Forwards": true, "Origin": true,
	"Range": true, "Referer": true, "Te": true, "Trailer": true, "Upgrade": true, "User-Agent": true, "Via": true,
}

// keyHeader says why a header cannot carry a key.
func keyHeader(name string) error {
	if !token(name) {
		return errors.New("is not the name of a header, such as X-Api-Key: letters, digits and hyphens")
	}
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	for _, prefix := range [...]string{"Sec-", "Proxy-", "X-Forwarded-", "Connection", "Content-", "Transfer-", "If-", "Accept-", "Access-Control-", "Odata-"} {
		if strings.HasPrefix(canonical, prefix) {
			return errors.New("is a header with a meaning of its own; take another, such as X-Api-Key")
		}
	}
	if meant[canonical] {
		return errors.New("is a header with a meaning of its own; take another, such as X-Api-Key")
	}
	return nil
}

// token reports whether a name has only letters, digits and hyphens. HTTP knows
// more (RFC 9110, section 5.6.2), but what stands in front of us may rewrite an
// underscore or a dot.
func token(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// String names the header and hides the hash.
func (k Key) String() string { return k.Header + ": [redacted]" }

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// MarshalJSON gives String.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// Strip takes the keys' headers out of a request's, once they were looked at, and
// gives them; nil where there are none.
func (g *Groups) Strip(h http.Header) (taken http.Header) {
	if g == nil {
		return nil
	}
	for _, keys := range g.keys {
		for i := range keys {
			name := keys[i].Header
			values, there := h[name]
			if !there {
				continue
			}
			if taken == nil {
				taken = make(http.Header, 1)
			}
			taken[name] = values
			delete(h, name)
		}
	}
	return taken
}
