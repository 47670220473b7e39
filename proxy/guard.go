package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"defender-proxy/internal/canon"
	"defender-proxy/internal/listen"
)

// guard admits a request or refuses it: who calls, under which name for us, as
// which page, and for which path. What it finds goes into the exchange at once,
// because a refusal's record wants it too.
func (p *Proxy) guard(x *Exchange, r *http.Request) error {
	if err := p.admit(x, r); err != nil {
		return err
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return &Refusal{
			Code:    MethodNotAllowed,
			Message: r.Method + " is never forwarded. The proxy is asked for its own URLs, as http://HOST:PORT/api/alerts, not as a tunnel: take it out of the client's proxy settings.",
			Allow:   "GET, HEAD, POST, PATCH, PUT, DELETE",
		}
	}
	if err := checkNames(x.Listener, r); err != nil {
		return err
	}
	if r.ContentLength > p.Limits.RequestBytes {
		return tooLarge(p.Limits.RequestBytes)
	}
	if n := fields(r.Header); n > maxFields {
		return refusal(InvalidRequest, "The request has %d header fields; at most %d are taken.", n, maxFields)
	}
	if err := readTarget(x, r); err != nil {
		return err
	}
	var err error
	if x.Target, err = x.linkTarget(r.Host); err != nil {
		return &Refusal{Code: InvalidRequest, Message: fmt.Sprintf("The Host %q cannot stand in a link: it is a name or an address, and perhaps a port.", shortened(r.Host)), Err: err}
	}
	return nil
}

// maxFields is how many header fields a request may have. Browsers send some
// twenty.
const maxFields = 128

func fields(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// admit finds the client group by the address of the socket.
func (p *Proxy) admit(x *Exchange, r *http.Request) error {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return &Refusal{Code: ClientNotAdmitted, Message: "The address of the connection is unknown.", Err: err}
	}
	x.Address = from.Addr().Unmap()
	i, ok := x.Listener.groups.Find(x.Address)
	if !ok {
		return refusal(ClientNotAdmitted, "%s belongs to no client group that may use this listener. An operator adds the address under from of a group in the proxy's configuration.", x.Address)
	}
	x.Client = x.Listener.clients[i]
	return nil
}

// checkNames words what package listen finds wrong with Host and Origin.
func checkNames(l *listener, r *http.Request) error {
	err := l.names.Check(r)
	var host *listen.HostError
	var origin *listen.OriginError
	switch {
	case errors.As(err, &host):
		return &Refusal{
			Code:    HostNotAllowed,
			Message: fmt.Sprintf("The proxy does not answer to the name %q. Call it by its address, or by localhost on the same machine, or let an operator add the name under hosts of the listener in the proxy's configuration.", shortened(host.Host)),
			Err:     err,
		}
	case errors.As(err, &origin):
		return &Refusal{
			Code:    CrossSiteRequest,
			Message: fmt.Sprintf("The request comes from a web page of another origin (%s: %s), and such pages may not use the proxy. Type the address into the browser instead.", origin.Header, shortened(origin.Value)),
			Err:     err,
		}
	}
	return err
}

// readTarget turns the raw request target into the exchange's path and query.
// It reads RequestURI and never r.URL, which holds two readings of a path.
func readTarget(x *Exchange, r *http.Request) error {
	target := r.RequestURI
	if strings.IndexByte(target, '#') >= 0 {
		return refusal(InvalidPath, "The request target holds a number sign (#), which belongs to no request. Write %%23 in a query.")
	}
	raw, query, has := strings.Cut(withoutAuthority(target), "?")
	path, err := canon.Parse(raw)
	if err != nil {
		return &Refusal{Code: InvalidPath, Message: "The " + err.Error() + ". Send it in its plain form.", Err: err}
	}
	x.Named, x.Path, _ = path.CutTenant()
	x.Query, x.HasQuery = canon.Query(query), has
	return nil
}

// withoutAuthority takes scheme and authority off a target in absolute form
// (RFC 9112, section 3.2.2), as clients send it that take us for a forward
// proxy. net/http has put the authority into Host, which was checked.
func withoutAuthority(target string) string {
	for _, scheme := range [...]string{"http://", "https://"} {
		if len(target) >= len(scheme) && asciiLower(target[:len(scheme)]) == scheme {
			if i := strings.IndexAny(target[len(scheme):], "/?"); i >= 0 && target[len(scheme)+i] == '/' {
				return target[len(scheme)+i:]
			}
			return "/"
		}
	}
	return target
}

// rawPath is the path of a target for records, without query, fragment and
// authority, any of which may hold a credential.
func rawPath(target string) string {
	path := withoutAuthority(target)
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	if !strings.HasPrefix(path, "/") && path != "*" {
		return "" // an authority, or nothing that anybody knows
	}
	return path
}
