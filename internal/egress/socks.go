package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/proxy"
)

// What the library says when the proxy refuses user and password, or wants them.
// Its errors have no types.
const (
	refusedLogin   = "username/password authentication failed"
	refusedMethods = "no acceptable authentication methods"
)

// socks asks a SOCKS5 proxy (RFC 1928, and RFC 1929 for user and password) for a
// connection to an address. Names are looked up by the proxy. It reads not a byte
// more than the proxy's answers, and leaves no deadline on c.
func socks(ctx context.Context, c net.Conn, user *url.Userinfo, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() != "" {
		return errors.New("an address with a zone means nothing beyond this machine") // the library would call it a name
	}
	var login *proxy.Auth
	if user.Username() != "" {
		password, _ := user.Password()
		login = &proxy.Auth{User: user.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", c.RemoteAddr().String(), login, made{c})
	if err != nil {
		return err
	}
	_, err = d.(proxy.ContextDialer).DialContext(ctx, "tcp", address)
	failed, ok := errors.AsType[*net.OpError](err)
	if !ok {
		return err
	}
	_, network := errors.AsType[net.Error](failed.Err)
	switch said := failed.Err.Error(); {
	case network:
		return err
	case said == refusedLogin, said == refusedMethods:
		return &ProxyError{Status: http.StatusProxyAuthRequired}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ended the connection in the middle of SOCKS5")
	default:
		// Its words for a refusal begin with "unknown error", whatever the reason.
		return errors.New("SOCKS5: " + strings.TrimPrefix(said, "unknown error "))
	}
}

// made is the connection to a proxy, for the library to dial with.
type made struct{ net.Conn }

func (m made) Dial(_, _ string) (net.Conn, error) { return m.Conn, nil }

// DialContext is the one that the library calls.
func (m made) DialContext(context.Context, string, string) (net.Conn, error) { return m.Conn, nil }
