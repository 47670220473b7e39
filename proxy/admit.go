package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/redact"
)

// admit finds the client group of the caller: by the address of the socket, or the
// one that a balancer or a trusted proxy names; by the process behind a Unix socket;
// by the client certificate; and by local keys, which end here.
func (p *Proxy) admit(x *Exchange, r *http.Request) error {
	x.Peer = listen.PeerOf(r)
	x.Address, x.Via = x.Peer.Addr, x.Peer.Via
	caller := clients.Caller{Addr: x.Address, Certificate: x.Peer.Certificate(), Header: r.Header}
	if u := x.Peer.Unix; u != nil {
		caller.Unix, caller.UID, caller.GIDs = true, u.UID, u.Groups
	}
	if within(x.Listener.Proxies, x.Address) {
		var err error
		x.Via = x.Address
		x.Address, err = forwardedFor(r.Header["X-Forwarded-For"], x.Listener.Proxies, x.Via)
		if err != nil {
			return &Refusal{
				Code: ClientNotAdmitted,
				Message: fmt.Sprintf("The request comes through %s, one of the listener's trusted_proxies, and does not tell for whom: %s. An operator lets that proxy append the caller's address to X-Forwarded-For; requests that do not come from it go to another listener.",
					x.Via, err),
			}
		}
		// The connection, and with it the certificate, is the proxy's.
		caller.Addr, caller.Certificate = x.Address, nil
	}
	i, ok := x.Listener.groups.Find(caller)
	caller.Header = p.everybody.Strip(r.Header)
	x.Caller = caller
	if !ok {
		return p.notAdmitted(x, caller)
	}
	x.Client = x.Listener.clients[i]
	return nil
}

// whence says where the caller is, for itself to read.
func (x *Exchange) whence() string {
	switch u := x.Peer.Unix; {
	case u != nil:
		return fmt.Sprintf("uid %d on a Unix socket", u.UID)
	case x.Address.IsValid():
		return x.Address.String()
	}
	return "an unknown address"
}

// notAdmitted says who the caller is that no group of the listener has: a caller of
// another group is told which, one that may lack what groups here are known by is
// told that. Of the groups it names no more than that.
func (p *Proxy) notAdmitted(x *Exchange, caller clients.Caller) *Refusal {
	who, entry := x.Address.String(), "the address"
	switch u := x.Peer.Unix; {
	case u != nil:
		who = fmt.Sprintf("The process at the Unix socket, of the user with uid %d and gid %d,", u.UID, u.GID)
		entry = fmt.Sprintf("unix:uid=%d or unix:gid=%d", u.UID, u.GID)
	case !x.Address.IsValid() && x.Via.IsValid():
		who, entry = fmt.Sprintf("The caller, whose address %s does not tell,", x.Via), "an address that it tells"
	case !x.Address.IsValid():
		who = "The caller, whose address is unknown,"
	}
	certified := caller.Certificate != nil
	if certified {
		who += fmt.Sprintf(" with the client certificate of %s", redact.Short(x.Peer.CertificateName()))
		entry += ", or the certificate's name,"
	}
	said := who + " belongs to no client group that may use this listener."
	i, elsewhere := p.everybody.Find(caller)
	if elsewhere {
		said = fmt.Sprintf("%s is client group %s, which may not use this listener (clients of the listener).", who, p.Clients[i].Name)
	}
	var proofs []string
	if !certified && x.Listener.TLS && x.Listener.knownBy(clients.Source.ByCertificate) {
		proofs = append(proofs, "a client certificate")
	}
	if slices.ContainsFunc(x.Listener.clients, func(c *Client) bool { return len(c.Keys) > 0 }) {
		proofs = append(proofs, "a local key in a header of each request")
	}
	switch {
	case len(proofs) > 0:
		said += fmt.Sprintf(" A group that may is known by %s: send one.", strings.Join(proofs, ", another by "))
	case !elsewhere:
		said += fmt.Sprintf(" An operator adds %s under from of a group in the proxy's configuration.", entry)
	}
	return refusal(ClientNotAdmitted, "%s", said)
}

// knownBy reports whether some group of the listener has a member of a kind.
func (l *listener) knownBy(kind func(clients.Source) bool) bool {
	return slices.ContainsFunc(l.clients, func(c *Client) bool { return slices.ContainsFunc(c.From, kind) })
}

// forwardedFor reads X-Forwarded-For as it came through a proxy, by: each proxy
// appends the address that it was called from, so that from the end on the first one
// that is none of the trusted proxies is the caller's, and what stands before it is
// what the caller made up. The values are those of all its lines. Where all are
// trusted, the first is the caller.
func forwardedFor(values []string, trusted []netip.Prefix, by netip.Addr) (netip.Addr, error) {
	if len(values) == 0 {
		return netip.Addr{}, fmt.Errorf("X-Forwarded-For is missing")
	}
	for i := len(values) - 1; i >= 0; i-- {
		rest := values[i]
		for more := true; more; {
			entry := rest
			if at := strings.LastIndexByte(rest, ','); at >= 0 {
				rest, entry = rest[:at], rest[at+1:]
			} else {
				more = false
			}
			a, ok := hop(strings.Trim(entry, " \t"))
			if a = listen.Named(a, by); !ok || !a.IsValid() {
				return netip.Addr{}, fmt.Errorf("X-Forwarded-For has %s in the place of the caller's address", quoted(entry))
			}
			if first := i == 0 && !more; first || !within(trusted, a) {
				return a, nil
			}
			by = a
		}
	}
	return netip.Addr{}, nil // not reached: values has an entry
}

// hop reads one entry: an address, perhaps with a port, as some proxies write it
// (learn.microsoft.com/azure/application-gateway/how-application-gateway-works).
func hop(entry string) (a netip.Addr, ok bool) {
	if a, err := netip.ParseAddr(entry); err == nil {
		return a, true
	}
	if ap, err := netip.ParseAddrPort(entry); err == nil {
		return ap.Addr(), true
	}
	if inside, ok := strings.CutPrefix(entry, "["); ok {
		if inside, ok = strings.CutSuffix(inside, "]"); ok {
			a, err := netip.ParseAddr(inside)
			return a, err == nil && a.Is6()
		}
	}
	return netip.Addr{}, false
}

// quoted gives an entry for a message. What is longer than any address is not shown:
// a part of it would not be known for what it is where secrets are taken out.
func quoted(entry string) string {
	const longest = len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535")
	if len(entry) > longest {
		return fmt.Sprintf("%d bytes that are none", len(entry))
	}
	return strconv.Quote(entry)
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
