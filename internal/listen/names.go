package listen

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// Names are what a listener may be called. It is immutable and safe for
// concurrent use; the zero value knows only the address that a connection came
// to: that itself, or localhost where it is on loopback or a Unix socket.
type Names struct {
	hosts     map[string]bool // in lower case
	scheme    string
	publicURL string // in lower case
}

// NewNames makes Names of the configured hosts, each with or without a port, of
// whether the listener has TLS, and of its public URL, which may be empty.
func NewNames(hosts []string, hasTLS bool, publicURL string) *Names {
	n := &Names{hosts: make(map[string]bool, len(hosts)), scheme: "http", publicURL: lower(strings.TrimSuffix(publicURL, "/"))}
	if hasTLS {
		n.scheme = "https"
	}
	for _, h := range hosts {
		n.hosts[lower(h)] = true
	}
	return n
}

// Scheme is http or https.
func (n *Names) Scheme() string { return n.scheme }

// HostError means that a request called us by a name that is not ours.
type HostError struct{ Host string }

func (e *HostError) Error() string {
	return fmt.Sprintf("host %q is not one of the listener's", e.Host)
}

// OriginError means that a request comes from a web page of another origin.
type OriginError struct{ Header, Value string }

func (e *OriginError) Error() string {
	return fmt.Sprintf("the request comes from a web page of another origin (%s: %q)", e.Header, e.Value)
}

// Check refuses a request that names another host or comes from a page of
// another origin. Its errors are *HostError and *OriginError.
func (n *Names) Check(r *http.Request) error {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !n.admits(r.Host, local) {
		return &HostError{r.Host}
	}
	// Browsers say where a request comes from in Origin, and newer ones in
	// Sec-Fetch-Site on a GET too (W3C Fetch Metadata); programs send neither.
	for _, o := range r.Header["Origin"] {
		if o := lower(o); o != n.scheme+"://"+lower(r.Host) && (n.publicURL == "" || o != n.publicURL) {
			return &OriginError{"Origin", o}
		}
	}
	for _, s := range r.Header["Sec-Fetch-Site"] {
		if s != "none" && s != "same-origin" {
			return &OriginError{"Sec-Fetch-Site", s}
		}
	}
	return nil
}

// admits is the guard against DNS rebinding: a page whose name was made to
// resolve to us is same-origin to its browser and sends no Origin with a GET,
// but cannot keep its own name out of Host. The port does not matter, because a
// page chooses it only together with its name, and it differs behind port
// forwarding.
func (n *Names) admits(host string, local net.Addr) bool {
	host = lower(host)
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if !isPort(port) {
			return false
		}
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	if n.hosts[host] || n.hosts[name] {
		return true
	}
	to := addressOf(local)
	_, here := local.(*net.UnixAddr) // no browser opens one, but a forwarder may stand before it
	here = here || to.IsLoopback()
	if name == "localhost" {
		return here
	}
	a, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	a = a.Unmap()
	// An address as Host was typed, not rebound.
	return to.IsValid() && a == to || here && a.IsLoopback()
}

// isPort reports whether what stands behind the colon of a Host is a port, or nothing,
// which stands for the scheme's (RFC 3986, section 3.2.3).
func isPort(s string) bool {
	if s == "" {
		return true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// lower is strings.ToLower for ASCII alone: names of hosts have no other
// letters, and other letters have no business to become ones.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
