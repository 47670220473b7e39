package egress

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// ProxyError tells that the network's proxy let no connection through. Not a byte
// of a request has been sent then. It holds neither user nor password.
type ProxyError struct {
	// Status is what the proxy answered to CONNECT: 407 when it wants another user
	// and password or none were set, often 403 for a destination that it does not
	// allow, 502 to 504 for one that it cannot reach. 407 stands too for a SOCKS5
	// proxy that refuses user and password, or their absence. 0: it cannot be
	// reached itself, or gave no such answer; then Err tells why.
	Status int
	// Wants are the ways of logging in that came with a 407, such as Negotiate.
	// Basic is the only one known here.
	Wants []string
	Err   error
}

// Error is for people. It names no host unless Err does.
func (e *ProxyError) Error() string {
	switch {
	case e.Status == http.StatusProxyAuthRequired && len(e.Wants) > 0 && !slices.ContainsFunc(e.Wants, func(s string) bool { return strings.EqualFold(s, "Basic") }):
		return fmt.Sprintf("the network's proxy refused (407): it wants %s, and only Basic is known here", strings.Join(e.Wants, " or "))
	case e.Status == http.StatusProxyAuthRequired:
		return "the network's proxy refused (407): set its user and password in egress.proxy"
	case e.Status != 0:
		return strings.TrimSpace(fmt.Sprintf("the network's proxy refused (%d %s)", e.Status, http.StatusText(e.Status))) // 470 has no text
	}
	return fmt.Sprintf("the network's proxy: %v", e.Err)
}

// Unwrap gives Err.
func (e *ProxyError) Unwrap() error { return e.Err }

// maxConnectHeader bounds a proxy's answer to CONNECT, in bytes.
const maxConnectHeader = 64 << 10

// tunnel connects to an address through a proxy. All of its errors are of
// *ProxyError.
func (d *dialer) tunnel(ctx context.Context, proxy *url.URL, address string) (net.Conn, error) {
	c, err := d.dial(ctx, proxyAddress(proxy))
	if err == nil && proxy.Scheme == "https" {
		c, err = d.handshake(ctx, c, proxyAddress(proxy), []string{"http/1.1"})
	}
	if err != nil {
		return nil, &ProxyError{Err: err}
	}
	ask := connect
	if isSOCKS(proxy) {
		ask = socks
	}
	// The proxy talks to its own end of the world meanwhile, and may take for ever.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err = ask(ctx, c, proxy.User, address)
	stop()
	if ctx.Err() != nil { // else no deadline is set, nor will one be
		err = outOfTime("proxy handshake", c, ctx.Err())
	}
	if err == nil {
		return c, nil
	}
	c.Close()
	if _, refused := errors.AsType[*ProxyError](err); !refused {
		err = &ProxyError{Err: err}
	}
	return nil, err
}

// connect asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6). User and
// password are sent at once as Basic (RFC 7617): a proxy that wants them says so
// only by ending the connection.
func connect(_ context.Context, c net.Conn, user *url.Userinfo, address string) error {
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{"User-Agent": {"defender-proxy"}}}
	if user != nil {
		password, _ := user.Password()
		r.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := r.Write(c); err != nil {
		return err
	}
	answer := bufio.NewReader(io.LimitReader(c, maxConnectHeader))
	resp, err := http.ReadResponse(answer, r)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ended the connection instead of an answer to CONNECT")
	case err != nil:
		if _, network := errors.AsType[net.Error](err); network {
			return err
		}
		return errors.New("its answer to CONNECT is not HTTP") // the parser's error repeats bytes of it
	case resp.StatusCode/100 != 2:
		return &ProxyError{Status: resp.StatusCode, Wants: schemes(resp.Header)}
	case answer.Buffered() > 0:
		return errors.New("it sent something before it was asked for anything")
	}
	return nil
}

// schemes are the names of the ways of logging in that a proxy offers.
func schemes(h http.Header) []string {
	var all []string
	for _, challenge := range h.Values("Proxy-Authenticate") {
		name, _, _ := strings.Cut(strings.TrimSpace(challenge), " ")
		plain := name != "" && len(name) <= 20 && strings.Trim(name, "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
		if plain && len(all) < 8 && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}
