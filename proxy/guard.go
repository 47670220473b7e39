package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"defender-proxy/internal/canon"
	"defender-proxy/internal/egress"
	"defender-proxy/internal/links"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/redact"
)

// guard admits a request or refuses it: who calls, under which name for us, as
// which page, and for which path. What it finds goes into the exchange at once,
// because a refusal's record wants it too.
func (p *Proxy) guard(x *Exchange, r *http.Request) error {
	if err := p.admit(x, r); err != nil {
		return err
	}
	if egress.FromProxy(r.Header) {
		return cameRound()
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
	if a, b := lookAlikes(r.Header); a != "" {
		return refusal(InvalidRequest, "The header %q could be read as %s, which the request has or which decides how it is read. Leave it out, or write it with hyphens.", redact.Short(a), redact.Short(b))
	}
	if name := p.headers.named(r.Header); name != "" {
		return refusal(InvalidRequest, "The header Connection names %s, which would be taken out on the way although the request is judged with it. Leave it out of Connection.", redact.Short(name))
	}
	if err := readTarget(x, r); err != nil {
		return err
	}
	target, login, err := x.linkTarget(r.Host)
	if err != nil && x.Named != "" {
		if _, plain := links.NewTarget(x.origin(r.Host)); plain == nil { // it is no tenant's name, then
			if _, unknown := p.tenant(x); unknown != nil {
				return unknown
			}
		}
	}
	if err != nil {
		return &Refusal{Code: InvalidRequest, Message: fmt.Sprintf("The Host %q cannot stand in a link: it is a name or an address, and perhaps a port.", redact.Short(r.Host)), Err: err}
	}
	x.Target = target
	if login && !p.isPlaceholder(x.Path) {
		return notALogin(x, r)
	}
	return nil
}

// cameRound refuses what a proxy like this one sent, whatever is asked, before anything
// can be sent on: where two lead to each other, one request would become as many as
// there is room for.
func cameRound() *Refusal {
	return &Refusal{
		Code:    InvalidRequest,
		Message: "The request was sent by a defender-proxy, this one or another (CDN-Loop), and would go round, so it is not sent on. Microsoft's name leads to a proxy where it was sent from: an operator sets its real address or a DNS server there, in egress.resolve, or corrects the endpoints under clouds.",
		As:      http.StatusLoopDetected,
	}
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

// meaningful are headers that say how a request is read, who sends it, or what
// another program on the way made of it. A look-alike of one has no honest use.
var meaningful = map[string]bool{
	"host": true, "content-length": true, "transfer-encoding": true, "te": true, "trailer": true, "connection": true,
	"keep-alive": true, "upgrade": true, "expect": true, "proxy-connection": true, "proxy-authorization": true,
	"authorization": true, "cookie": true, "content-type": true, "content-encoding": true,
	"x-forwarded-for": true, "x-forwarded-host": true, "x-forwarded-proto": true, "forwarded": true,
	"x-http-method": true, "x-http-method-override": true, "x-method-override": true,
	"x-original-url": true, "x-rewrite-url": true, "x-approval-id": true,
}

// lookAlikes finds a header whose name CGI and its heirs take for another one, for
// they know no hyphens: with an underscore or a dot in a hyphen's place
// (oauth2-proxy CVE-2025-64484, Traefik CVE-2026-39858).
func lookAlikes(h http.Header) (name, of string) {
	for name := range h {
		if strings.IndexByte(name, '_') < 0 && strings.IndexByte(name, '.') < 0 {
			continue
		}
		plain := hyphens(name)
		if meaningful[plain] {
			return name, textproto.CanonicalMIMEHeaderKey(plain)
		}
		for other := range h {
			if other != name && hyphens(other) == plain {
				return name, other
			}
		}
	}
	return "", ""
}

func hyphens(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '.' {
			return '-'
		}
		return r
	}, asciiLower(name))
}

// violated refuses what stands in for a request that could be read in more than
// one way. Who sent it comes first, as for any other.
func (p *Proxy) violated(x *Exchange, r *http.Request, v *listen.Violation) error {
	x.Method, x.RawPath = v.Method, cmp.Or(rawPath(v.Path), "?")
	malformed := &Refusal{Code: InvalidRequest, Message: v.Reason, As: v.Status}
	if err := p.admit(x, r); err != nil {
		// Its headers were not read, and so who sent it may only be known by them.
		if refused := asRefusal(err); refused.Code == ClientNotAdmitted {
			refused.Err = errors.Join(refused.Err, malformed)
		}
		return err
	}
	return malformed
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
			Message: fmt.Sprintf("The proxy does not answer to the name %q. Call it by its address, or by localhost on the same machine, or let an operator add the name under hosts of the listener in the proxy's configuration.", redact.Short(host.Host)),
			Err:     err,
		}
	case errors.As(err, &origin):
		return &Refusal{
			Code:    CrossSiteRequest,
			Message: fmt.Sprintf("The request comes from a web page of another origin (%s: %s), and such pages may not use the proxy. Type the address into the browser instead.", origin.Header, redact.Short(origin.Value)),
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
	var faulty *canon.Error
	if kept := concealed(raw); kept != raw && errors.As(err, &faulty) {
		err = &canon.Error{Path: strconv.Quote(kept), Why: faulty.Why}
	}
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
