package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// ports are those of proxies whose URL names none. A proxy of any other scheme is
// none. Both kinds of SOCKS5 leave names to the proxy, as net/http does: in a
// network that needs one, names of the internet often cannot be looked up.
var ports = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// maxSOCKS is the length that RFC 1929 leaves for a user or a password, in bytes.
const maxSOCKS = 255

// wayOut gives what finds the proxy between here and an address (host:port): the
// configured one or, if that is nil, those of the environment, as it is now.
// Addresses of this machine have none. The link-local ones are this machine's too:
// there Azure gives it its identity
// (learn.microsoft.com/azure/virtual-machines/instance-metadata-service, read
// 2026-11: clients bypass web proxies to reach it).
func wayOut(configured *url.URL) (func(scheme, address string) *url.URL, error) {
	rules := httpproxy.FromEnvironment()
	proxies := map[string]*url.URL{"http": configured, "https": configured}
	if configured != nil {
		if err := check(configured); err != nil {
			return nil, fmt.Errorf("egress.proxy: %w", err)
		}
	} else {
		for _, of := range []struct{ scheme, name, value string }{{"https", "HTTPS_PROXY", rules.HTTPSProxy}, {"http", "HTTP_PROXY", rules.HTTPProxy}} {
			if of.value == "" {
				continue
			}
			u, err := parse(of.value)
			if err != nil {
				return nil, fmt.Errorf("the variable %s of the environment: %w", of.name, err)
			}
			proxies[of.scheme] = u
		}
	}
	// The rules are asked for one thing only, whether an address has a proxy: which
	// one is known here.
	const some = "http://some.invalid"
	rules.HTTPProxy, rules.HTTPSProxy, rules.CGI = some, some, false
	applies := rules.ProxyFunc()
	return func(scheme, address string) *url.URL {
		proxy := proxies[scheme]
		if proxy == nil || ofThisMachine(address) {
			return nil
		}
		if found, err := applies(&url.URL{Scheme: scheme, Host: address}); found == nil || err != nil {
			return nil
		}
		return proxy
	}, nil
}

func ofThisMachine(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return ofLocalhost(strings.TrimSuffix(lower(host), ".")) || err == nil && (a.Unmap().IsLoopback() || a.Unmap().IsLinkLocalUnicast())
}

// parse reads a proxy of the environment: a URL, or a host and port.
func parse(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errNoProxy // the parser's error repeats the text, and with it a password
	}
	return u, check(u)
}

var errNoProxy = errors.New("it is not the URL of a proxy, which begins with http://, https://, socks5:// or socks5h:// and names a host")

// check refuses what is not the URL of a proxy, without repeating it.
func check(u *url.URL) error {
	if ports[u.Scheme] == "" || u.Hostname() == "" {
		return errNoProxy
	}
	password, _ := u.User.Password()
	switch {
	case isSOCKS(u) && (len(u.User.Username()) > maxSOCKS || len(password) > maxSOCKS):
		return fmt.Errorf("its user or password is longer than the %d bytes that SOCKS5 has room for", maxSOCKS)
	case isSOCKS(u) && u.User.Username() == "" && password != "":
		return errors.New("it has a password and no user")
	}
	return nil
}

// proxyAddress is where a proxy is dialled.
func proxyAddress(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = ports[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func isSOCKS(u *url.URL) bool { return u.Scheme == "socks5" || u.Scheme == "socks5h" }
