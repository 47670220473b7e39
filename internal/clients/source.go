package clients

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Source is one entry of from: an address or prefix, unix:uid=N, unix:gid=N,
// unix:* for whoever may open the socket, tls:CN=NAME, tls:DNS=NAME, or tls:URI=ID.
// The zero value is nobody. Sources can be compared.
type Source struct {
	kind   kind
	prefix netip.Prefix
	number uint32
	name   string
}

type kind uint8

const (
	nobody kind = iota
	address
	unixUID
	unixGID
	unixAny
	certCN
	certDNS
	certURI
)

// words are how the kinds are written, but for addresses.
var words = [...]string{unixUID: "unix:uid=", unixGID: "unix:gid=", unixAny: "unix:*", certCN: "tls:CN=", certDNS: "tls:DNS=", certURI: "tls:URI="}

// ParseSource reads an entry of from. Its error says what is wrong in words that
// follow the text, which it does not repeat: "has a zone; leave it out …".
func ParseSource(text string) (Source, error) {
	for k, word := range words {
		rest, ok := strings.CutPrefix(text, word)
		if word == "" || !ok {
			continue
		}
		s := Source{kind: kind(k), name: rest}
		var err error
		switch s.kind {
		case unixAny:
			if rest != "" {
				err = errors.New("has something behind the asterisk; write unix:* alone")
			}
		case unixUID, unixGID:
			s.name = ""
			s.number, err = parseNumber(rest)
		case certCN:
			err = checkCN(rest)
		case certDNS:
			s.name, err = parseDNS(rest)
		case certURI:
			err = checkURI(rest)
		}
		if err != nil {
			return Source{}, err
		}
		return s, nil
	}
	switch {
	case strings.HasPrefix(text, "unix:"):
		return Source{}, errors.New("is none of unix:uid=NUMBER, unix:gid=NUMBER and unix:*")
	case strings.HasPrefix(text, "tls:"):
		return Source{}, errors.New("is none of tls:CN=NAME, tls:DNS=NAME and tls:URI=ID")
	}
	p, err := parsePrefix(text)
	if err != nil {
		return Source{}, err
	}
	return Addresses(p), nil
}

// Addresses gives the Source of a prefix, nobody for an invalid one.
func Addresses(p netip.Prefix) Source {
	if !p.IsValid() {
		return Source{}
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return Source{prefix: p.Masked(), kind: address}
}

// UnmarshalText is ParseSource.
func (s *Source) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSource(string(text))
	return err
}

// String gives the entry as ParseSource reads it; "nobody" for the zero value.
func (s Source) String() string {
	switch s.kind {
	case nobody:
		return "nobody"
	case address:
		return s.prefix.String()
	case unixUID, unixGID:
		return words[s.kind] + strconv.FormatUint(uint64(s.number), 10)
	}
	return words[s.kind] + s.name
}

// MarshalText gives String.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Prefix gives the addresses of a Source; invalid for one of another kind.
func (s Source) Prefix() netip.Prefix { return s.prefix }

// OnUnixSocket reports whether the Source is of callers of a Unix socket.
func (s Source) OnUnixSocket() bool {
	return s.kind == unixUID || s.kind == unixGID || s.kind == unixAny
}

// ByCertificate reports whether the Source is of callers with a client certificate.
func (s Source) ByCertificate() bool {
	return s.kind == certCN || s.kind == certDNS || s.kind == certURI
}

// parsePrefix reads a prefix or a single address. IPv4 in IPv6 notation becomes
// IPv4, which is how callers' addresses are compared.
func parsePrefix(text string) (netip.Prefix, error) {
	wanted := errors.New("is neither an address such as 10.1.2.3, nor a prefix such as 10.1.2.0/24, nor unix:… or tls:…")
	alone, bits, slash := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(alone)
	if err != nil {
		return netip.Prefix{}, wanted
	}
	if addr.Zone() != "" {
		return netip.Prefix{}, errors.New("has a zone; leave it out, prefixes hold on every interface")
	}
	if !slash {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, wanted
	}
	if addr.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("spans more than the IPv4 addresses; /%s is shorter than /96", bits)
		}
		p = netip.PrefixFrom(addr.Unmap(), p.Bits()-96)
	}
	if p.Masked() != p {
		return netip.Prefix{}, errors.New("has bits set behind the prefix; set them to 0, or write the address alone")
	}
	return p, nil
}

// parseNumber reads a user or group id. A name is not taken: what it means can
// change while the proxy runs. The highest number is what the kernel says when it
// does not know (unix(7), chown(2)).
func parseNumber(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == math.MaxUint32 || strconv.FormatUint(n, 10) != text {
		return 0, errors.New("has no number of a user or group behind the equals sign; the command id tells it")
	}
	return uint32(n), nil
}

func checkCN(name string) error {
	if name == "" || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("has no common name behind the equals sign, or one with control characters or spaces around it")
	}
	return nil
}

// parseDNS reads a DNS name of a certificate, and gives it in lower case.
func parseDNS(name string) (string, error) {
	name = lower(name)
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
		}) {
			return "", errors.New("has no DNS name behind the equals sign, such as soc-1.corp.example; wildcards are not taken, because they name nobody")
		}
	}
	return name, nil
}

// checkURI takes a URI that is compared character by character: with a scheme, in
// one spelling, and without a query or fragment. A SPIFFE ID is one
// (github.com/spiffe/spiffe, standards/SPIFFE-ID.md, section 2).
func checkURI(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "":
		return errors.New("has no URI behind the equals sign, such as spiffe://corp.example/soc/export")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return errors.New("has a URI with a user, query or fragment; the identity in a certificate has none")
	case uriText(u) != text || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '%' }):
		return errors.New("has a URI that can be spelled in several ways; write scheme and host in lower case and no percent sign")
	case u.Scheme != "spiffe":
		return nil
	case u.Port() != "" || u.Path == "" || strings.HasSuffix(u.Path, "/") || strings.Contains(u.Path, "//") || strings.Contains(u.Path+"/", "/./") || strings.Contains(u.Path+"/", "/../"):
		return errors.New("is no SPIFFE ID of a workload, such as spiffe://corp.example/soc/export: a trust domain, a path of segments, and nothing else")
	}
	return nil
}

// uriText writes a URI that has no user, query or fragment.
func uriText(u *url.URL) string {
	if u.Opaque != "" {
		return u.Scheme + ":" + u.Opaque
	}
	return u.Scheme + "://" + lower(u.Host) + u.Path
}

// peer reports whether the Source has the process at the other end of a Unix
// socket.
func (s *Source) peer(c *Caller) bool {
	switch s.kind {
	case unixAny:
		return true
	case unixUID:
		return c.UID == s.number
	case unixGID:
		for _, g := range c.GIDs {
			if g == s.number {
				return true
			}
		}
	}
	return false
}

// certifies reports whether a certificate has the Source's name.
func (s *Source) certifies(c *x509.Certificate) bool {
	switch s.kind {
	case certCN:
		// Of several common names package x509 keeps the last; other software reads
		// the first.
		return c.Subject.CommonName == s.name && commonNames(c) == 1
	case certDNS:
		for _, name := range c.DNSNames {
			if equalFold(name, s.name) {
				return true
			}
		}
	case certURI:
		// "An X.509 SVID MUST contain exactly one URI SAN" (github.com/spiffe/spiffe,
		// standards/X509-SVID.md, section 2).
		if strings.HasPrefix(s.name, "spiffe:") && len(c.URIs) != 1 {
			return false
		}
		for _, u := range c.URIs {
			if is(u, s.name) {
				return true
			}
		}
	}
	return false
}

// commonNames counts the common names of a certificate's subject: its attributes
// with the object identifier 2.5.4.3 (RFC 5280, appendix A).
func commonNames(c *x509.Certificate) (n int) {
	for i := range c.Subject.Names {
		if t := c.Subject.Names[i].Type; len(t) == 4 && t[0] == 2 && t[1] == 5 && t[2] == 4 && t[3] == 3 {
			n++
		}
	}
	return n
}

// is reports whether a URI reads as text, without writing it out.
func is(u *url.URL, text string) bool {
	// The path first: it is what sets the many names of one authority apart.
	if !strings.HasSuffix(text, u.Path) || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "" {
		return false
	}
	rest, ok := strings.CutPrefix(text, u.Scheme)
	if !ok {
		return false
	}
	if u.Opaque != "" {
		return len(rest) > 0 && rest[0] == ':' && rest[1:] == u.Opaque
	}
	if rest, ok = strings.CutPrefix(rest, "://"); !ok || len(rest) < len(u.Host) || !equalFold(u.Host, rest[:len(u.Host)]) {
		return false
	}
	return rest[len(u.Host):] == u.Path
}

// equalFold compares a name with one in lower case, folding ASCII alone: DNS names
// have no other letters, and other letters have no business to become ones.
func equalFold(name, lowered string) bool {
	if len(name) != len(lowered) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lowered[i] {
			return false
		}
	}
	return true
}

func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
