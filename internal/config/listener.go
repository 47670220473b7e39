package config

import (
	"io/fs"
	"net/netip"
	"strings"
)

// Listener is one address that callers connect to.
type Listener struct {
	// Where to listen: an address and port, where port 0 takes a free one;
	// unix:PATH, a Unix socket; or systemd:NAME, the socket that systemd passes under
	// that FileDescriptorName. On an address other than loopback, and on one of
	// systemd, clients must be named.
	Address string `yaml:"address" required:"an address and port such as 127.0.0.1:8080"`

	// What file a Unix socket is.
	Socket Socket `yaml:"socket"`

	// The tenant of requests that name none with /t/NAME. Default none, or the
	// only tenant there is.
	Tenant string `yaml:"tenant"`

	// Names and addresses that requests may carry as Host, with or without a
	// port, beside the address itself. Default none. A loopback listener accepts
	// loopback names too.
	Hosts []string `yaml:"hosts"`

	// The client groups that may use the listener. Default all.
	Clients []string `yaml:"clients"`

	// Proxies whose X-Forwarded-For is believed: the caller is then the last address
	// there that is none of theirs. Prefixes or single addresses. Default none.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`

	// Load balancers whose connections begin with a header of PROXY protocol version
	// 2, which names the caller. Prefixes or single addresses. Default none.
	Balancers []netip.Prefix `yaml:"balancers"`

	// The base of links in answers. Default: the scheme and the accepted Host of
	// the request.
	PublicURL string `yaml:"public_url" kind:"base"`

	// The certificate to serve with. Default none: plain HTTP.
	TLS *TLS `yaml:"tls"`
}

// Loopback reports whether only this machine can connect to the listener.
func (l Listener) Loopback() bool { return loopback(l.Address) }

// Unix reports whether the listener is a Unix socket that the proxy makes.
func (l Listener) Unix() bool { return strings.HasPrefix(l.Address, unixScheme) }

// Socket is what file a Unix socket is.
type Socket struct {
	// The mode of the file: whoever may write to it may connect. Default 0660.
	Mode fs.FileMode `yaml:"mode" default:"0660"`

	// The user that the file belongs to, a name or a number. Default: the user of
	// the process.
	Owner string `yaml:"owner" kind:"account"`

	// The group that the file belongs to, a name or a number. Default: the group of
	// the process.
	Group string `yaml:"group" kind:"account"`
}

// TLS is a certificate with its key.
type TLS struct {
	// The certificate chain, a PEM file.
	CertFile string `yaml:"cert_file" kind:"path" required:"a PEM file"`

	// The key of the certificate, a PEM file that others cannot read.
	KeyFile string `yaml:"key_file" kind:"path" required:"a PEM file"`

	// The authorities of client certificates, a PEM file. Callers are asked for a
	// certificate then, and one that they present must be valid. Default none.
	ClientCAFile string `yaml:"client_ca_file" kind:"path"`
}

// Admin is the operator's listener.
type Admin struct {
	// Where the operator's listener is, as in listeners. Default 127.0.0.1:8081.
	// On an address other than loopback, clients must be named.
	Address string `yaml:"address" default:"127.0.0.1:8081"`

	// What file a Unix socket is, as in listeners.
	Socket Socket `yaml:"socket"`

	// The client groups that may use the operator's listener. Default: whoever
	// can reach it on loopback or as a Unix socket.
	Clients []string `yaml:"clients"`
}

// Loopback reports whether only this machine can connect to the listener.
func (a Admin) Loopback() bool { return loopback(a.Address) }
