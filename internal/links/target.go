package links

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// maxBase bounds the length of a Target's base, in bytes.
const maxBase = 2048

// Target is where rewritten links lead. The zero value leads nowhere: with it
// a Reader changes nothing and Header accepts no link. A Target is immutable
// and may be used concurrently.
type Target struct {
	base   []byte
	prefix string // the path of base, which relative links get as well
}

// NewTarget returns the Target for base, a scheme and authority with an
// optional path prefix and no slash at the end:
//
//	http://127.0.0.1:8080
//	https://defender.corp.example/t/contoso
//
// base is written into JSON strings and headers as it stands. Whoever calls has
// checked it; NewTarget still refuses all but plain letters, digits and the few
// marks a base needs, so that a forged Host can't break out of either.
func NewTarget(base string) (Target, error) {
	if len(base) > maxBase {
		return Target{}, fmt.Errorf("links: base of %d bytes is too long, at most %d are allowed", len(base), maxBase)
	}
	for _, c := range []byte(base) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(":/.-_~[]", c) >= 0) {
			return Target{}, fmt.Errorf("links: base %q contains the character %q, which no base needs", base, c)
		}
	}
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return Target{}, fmt.Errorf("links: base %q is not a URL", base)
	case !strings.HasPrefix(base, "http://") && !strings.HasPrefix(base, "https://"):
		return Target{}, fmt.Errorf("links: base %q does not begin with http:// or https://", base)
	case u.Hostname() == "":
		return Target{}, fmt.Errorf("links: base %q names no host", base)
	case u.Path != "" && (u.Path == "/" || path.Clean(u.Path) != u.Path):
		return Target{}, fmt.Errorf("links: the path of base %q should begin with a slash, not end with one, and hold no empty or dot segment", base)
	}
	return Target{base: []byte(base), prefix: u.Path}, nil
}

// String returns the base, for logs and tests.
func (t Target) String() string { return string(t.base) }
