package config

import (
	"net/url"
	"strings"
	"unicode"
)

// ProxyURL is the URL of the network's proxy, with user and password where it
// wants them. Printed, it shows neither: [redacted] stands for them.
type ProxyURL string

// URL gives the whole of it; nil when there is no proxy.
func (p ProxyURL) URL() *url.URL {
	u, err := url.Parse(string(p))
	if p == "" || err != nil { // what Load gives has been parsed before
		return nil
	}
	return u
}

// String keeps user and password out of output.
func (p ProxyURL) String() string {
	if i := strings.LastIndexByte(string(p), '@'); i >= 0 {
		scheme, _, _ := strings.Cut(string(p), "://")
		return scheme + "://[redacted]@" + string(p[i+1:])
	}
	return string(p)
}

// GoString is String.
func (p ProxyURL) GoString() string { return p.String() }

// MarshalText is String.
func (p ProxyURL) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// The length that SOCKS5 leaves for a user or a password (RFC 1929), in bytes.
const maxSOCKS = 255

// parseProxyURL reads the URL of a proxy.
func parseProxyURL(text string) (value, reason string) {
	u, err := url.Parse(text)
	switch bad := err != nil || u.Host == "" || u.Opaque != ""; {
	case bad && strings.Contains(text, "@"):
		return "", "is not the URL of a proxy such as http://user:password@proxy.corp:3128; in a user or password write %25 for a %, %2F for a / and so on"
	case bad:
		return "", "is not the URL of a proxy such as http://proxy.corp:3128"
	}
	host, ok := parseHost(u.Host)
	user := u.User.Username()
	password, _ := u.User.Password()
	socks := u.Scheme == "socks5" || u.Scheme == "socks5h"
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && !socks:
		return "", "begins with neither http:// nor https:// nor socks5:// nor socks5h://"
	case !ok:
		return "", "has a host that is neither a name nor an address, or a port that is none"
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", "has a query or fragment; leave it out, or write %3F and %23 in a password"
	case u.Path != "" && u.Path != "/":
		return "", "has a path; leave it out, or write %2F in a password"
	case strings.Contains(user, ":"):
		return "", "has a user with a colon, which no proxy can tell from the password's" // RFC 7617, section 2
	case strings.ContainsFunc(user+password, unicode.IsControl):
		return "", "has a user or password with a control character, such as a line end"
	case socks && (len(user) > maxSOCKS || len(password) > maxSOCKS):
		return "", "has a user or password of more than 255 bytes, for which SOCKS5 has no room"
	case socks && user == "" && password != "":
		return "", "has a password without a user"
	}
	plain := &url.URL{Scheme: u.Scheme, Host: host}
	if user != "" || password != "" {
		plain.User = url.UserPassword(user, password)
	}
	return plain.String(), ""
}

// expandProxy is expand for the URL of a proxy. A variable in front of an @ holds
// a user or a password as it is; there it may have characters that would mean
// something in a URL.
func expandProxy(s string, env func(string) (string, bool)) (expanded string, used bool, err error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return expand(s, env)
	}
	_, login, _ := strings.Cut(s[:at], "://")
	both := !strings.Contains(login, ":") // then one variable may hold user:password
	login, used, err = expand(s[:at], func(name string) (string, bool) {
		value, set := env(name)
		if user, password, found := strings.Cut(value, ":"); found && both {
			return escaped(user) + ":" + escaped(password), set
		}
		return escaped(value), set
	})
	if err != nil {
		return "", true, err
	}
	rest, more, err := expand(s[at:], env)
	return login + rest, used || more, err
}

// escaped writes text so that it means itself in a URL.
func escaped(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// passwordInFile reports whether the password of egress.proxy stands in the file.
func (v *validator) passwordInFile() bool {
	const key = "egress.proxy"
	u := v.c.Egress.Proxy.URL()
	if u == nil || !v.clean(key) {
		return false
	}
	if password, _ := u.User.Password(); password == "" {
		return false
	}
	raw := v.marks[key].raw // empty without a variable
	before := raw[:strings.LastIndexByte(raw, '@')+1]
	return raw == "" || before != "" && !strings.Contains(before, "${")
}
