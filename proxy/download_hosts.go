package proxy

import (
	"net/netip"
	"net/url"
	"strings"
)

// blobHosts are the hosts that download links may name.
type blobHosts []blobHost

// blobHost is one of them, or a family of them.
type blobHost struct {
	scheme, name, port string // name without a trailing dot, in small letters
	wild               bool   // one or more labels stand before name
}

// newBlobHosts reads what the configuration has: blobs.lab.example,
// *.blob.core.windows.net, either with a port, or http:// and a loopback address.
// What cannot be read matches nothing.
func newBlobHosts(patterns []string) (all blobHosts) {
	for _, p := range patterns {
		h := blobHost{scheme: "https"}
		if rest, ok := strings.CutPrefix(p, "http://"); ok {
			h.scheme, p = "http", rest
		}
		p, h.wild = strings.CutPrefix(strings.TrimPrefix(p, "https://"), "*.")
		u, err := url.Parse(h.scheme + "://" + p)
		if err != nil || u.Host == "" || u.User != nil || h.scheme == "http" && (h.wild || !loopback(u.Hostname())) {
			continue
		}
		h.name, h.port = asciiLower(u.Hostname()), portOf(u)
		all = append(all, h)
	}
	return all
}

// link reads a link that leads to one of the hosts. It reports false for any other,
// and for one that would not go out byte for byte as it is written.
func (all blobHosts) link(text string) (*url.URL, bool) {
	if len(all) == 0 {
		return nil, false
	}
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.Opaque != "" || u.Fragment != "" || strings.HasSuffix(text, "#") {
		return nil, false
	}
	// Nobody shall read another host or path here than net/http sends it to.
	if rest, ok := cutFold(text, u.Scheme+"://"+u.Host); !ok || rest != "" && rest != u.RequestURI() && "/"+rest != u.RequestURI() {
		return nil, false
	}
	name := asciiLower(u.Hostname())
	for _, h := range all {
		if u.Scheme != h.scheme || portOf(u) != h.port {
			continue
		}
		stem, labels := strings.CutSuffix(name, "."+h.name)
		if !h.wild && name == h.name || h.wild && labels && stem != "" && stem[0] != '.' {
			return u, true
		}
	}
	return nil, false
}

func cutFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || asciiLower(s[:len(prefix)]) != asciiLower(prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// portOf is the port that a URL leads to; one that is written without digits is the
// scheme's too.
func portOf(u *url.URL) string {
	switch port := u.Port(); {
	case port != "":
		return port
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}
