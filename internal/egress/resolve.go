package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// resolver looks names up otherwise than this machine does.
//
// net.Resolver cannot be had to do that: it looks into the hosts file first, whether
// PreferGo is set or not (goLookupIPCNAMEOrder and lookupStaticHost of Go's package
// net), and a dot behind the name makes no difference to it. Where the hosts file is
// what leads Microsoft's names to the proxy, that would be the one answer. So the
// questions are asked with a library for DNS.
type resolver struct {
	hosts   map[string][]netip.Addr // by name in lower case
	servers []netip.AddrPort
}

// newResolver gives nil where the machine's way is good enough for all names.
func newResolver(s Settings) *resolver {
	if len(s.Servers) == 0 && len(s.Hosts) == 0 {
		return nil
	}
	n := &resolver{hosts: make(map[string][]netip.Addr, len(s.Hosts)), servers: s.Servers}
	for name, addresses := range s.Hosts {
		n.hosts[strings.TrimSuffix(lower(name), ".")] = addresses
	}
	return n
}

// found is what one question brought: addresses, or the reason why there are none.
type found struct {
	addresses []netip.Addr
	err       error
}

const (
	// maxAddresses bounds the addresses that one lookup gives, and that are tried.
	maxAddresses = 16
	// rounds is how often each server is asked.
	rounds = 2
	// maxAsk is how long one server may take to answer a question. All of them share
	// what is left for the connection.
	maxAsk = 2 * time.Second
	// udpSize is what fits into one packet nearly everywhere
	// (www.dnsflagday.net/2020, read 2026-11).
	udpSize = 1232
	// maxAliases bounds a chain of CNAMEs.
	maxAliases = 16
)

// localhost is where it and all names below it are. No server is asked for them (RFC
// 6761, section 6.3): what is sent there, such as the secret that a managed identity
// is asked for with, is meant for this machine alone.
var localhost = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// ofLocalhost wants a name in lower case, without a dot at its end.
func ofLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// look begins to look a name up. What it returns gives the outcome of each question
// and is closed behind the last; it is nil where the machine is to look the name up,
// or host is an address.
func (n *resolver) look(ctx context.Context, host string) <-chan found {
	if n == nil {
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	name := strings.TrimSuffix(lower(host), ".")
	known, ok := n.hosts[name]
	switch {
	case ok:
	case len(n.servers) == 0:
		return nil
	case ofLocalhost(name):
		known, ok = localhost, true
	}
	if ok {
		out := make(chan found, 1)
		out <- found{addresses: known}
		close(out)
		return out
	}
	kinds := [...]uint16{dns.TypeAAAA, dns.TypeA}
	each, out := make(chan found, len(kinds)), make(chan found, len(kinds))
	for _, kind := range kinds {
		go func() {
			addresses, err := n.ask(ctx, name, kind)
			each <- found{addresses, err}
		}()
	}
	go func() {
		defer close(out)
		for range kinds {
			out <- <-each
		}
	}()
	return out
}

// ask puts one question to the servers in order, until one of them answers it. The
// error is a *net.DNSError; a name without addresses of the kind is none.
func (n *resolver) ask(ctx context.Context, name string, kind uint16) ([]netip.Addr, error) {
	full := dns.Fqdn(name)
	if _, ok := dns.IsDomainName(full); !ok || name == "" {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	last := &net.DNSError{Err: "no answer", Name: name, IsTimeout: true}
	left := rounds * len(n.servers)
	for range rounds {
		for _, server := range n.servers {
			if ctx.Err() != nil {
				return nil, last
			}
			answer, err := n.exchange(ctx, server, full, kind, left)
			left--
			switch {
			case err != nil:
				var timeout net.Error
				last = &net.DNSError{Err: err.Error(), Name: name, Server: server.String(), IsTimeout: errors.As(err, &timeout) && timeout.Timeout(), IsTemporary: true}
			case answer.Rcode == dns.RcodeNameError:
				return nil, &net.DNSError{Err: "no such host", Name: name, Server: server.String(), IsNotFound: true}
			case answer.Rcode != dns.RcodeSuccess:
				last = &net.DNSError{Err: "the server answered " + rcode(answer.Rcode), Name: name, Server: server.String(), IsTemporary: true}
			case lame(answer):
				last = &net.DNSError{Err: "the server knows only its own zones", Name: name, Server: server.String(), IsTemporary: true}
			default:
				return addressesIn(answer, full, kind), nil
			}
		}
	}
	return nil, last
}

// exchange asks a server over UDP, and over TCP what does not fit. left is how many
// exchanges share the rest of the time, this one among them.
func (n *resolver) exchange(ctx context.Context, server netip.AddrPort, name string, kind uint16, left int) (*dns.Msg, error) {
	most := maxAsk
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)/time.Duration(left))
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	question := new(dns.Msg)
	question.SetQuestion(name, kind)
	question.SetEdns0(udpSize, false)
	answer, err := talk(ctx, "udp", server, question)
	if err == nil && answer.Truncated {
		answer, err = talk(ctx, "tcp", server, question)
	}
	if err == nil && answer.Truncated {
		err = errNoDNS
	}
	return answer, err
}

var errNoDNS = errors.New("what came is no answer to the question")

// talk sends a question and waits for its answer. Each goes from a port of its own,
// by a random id, and whatever comes that does not answer it is passed over, so that
// who cannot see the question cannot answer in the server's place, nor keep its
// answer away.
func talk(ctx context.Context, network string, server netip.AddrPort, question *dns.Msg) (*dns.Msg, error) {
	raw, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })()
	c := &dns.Conn{Conn: raw, UDPSize: 4 * udpSize} // some send more than was asked for
	if err := c.WriteMsg(question); err != nil {
		return nil, err
	}
	for {
		answer, err := c.ReadMsg()
		var malformed *dns.Error
		switch {
		case err != nil && !errors.As(err, &malformed):
			return nil, err
		case answers(answer, question) && (err == nil || answer.Truncated): // which may be cut in a record
			return answer, nil
		case network == "tcp":
			return nil, errNoDNS
		}
	}
}

// answers reports whether a message is the answer to a question.
func answers(m, question *dns.Msg) bool {
	if m == nil || !m.Response || m.Opcode != dns.OpcodeQuery || m.Id != question.Id || len(m.Question) != 1 {
		return false
	}
	got, want := m.Question[0], question.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass && lower(got.Name) == lower(want.Name)
}

// lame reports whether a server knows nothing of the name and would not find out.
func lame(m *dns.Msg) bool {
	return !m.Authoritative && !m.RecursionAvailable && len(m.Answer) == 0
}

// addressesIn reads the addresses of a name out of an answer: those of its own, or of
// the one at the end of its chain of aliases. Others that the answer holds are none of
// its business. At most maxAddresses are read.
func addressesIn(m *dns.Msg, name string, kind uint16) []netip.Addr {
	aliases := make(map[string]string)
	for _, r := range m.Answer {
		if c, ok := r.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET {
			aliases[lower(c.Hdr.Name)] = lower(c.Target)
		}
	}
	owner := lower(name)
	for range maxAliases {
		next, ok := aliases[owner]
		if !ok {
			break
		}
		owner = next
	}
	var all []netip.Addr
	for _, r := range m.Answer {
		if h := r.Header(); len(all) == maxAddresses || h.Class != dns.ClassINET || h.Rrtype != kind || lower(h.Name) != owner {
			continue
		}
		var ip net.IP
		switch r := r.(type) {
		case *dns.A:
			ip = r.A
		case *dns.AAAA:
			ip = r.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, a.Unmap())
		}
	}
	return all
}

func rcode(code int) string {
	if text, ok := dns.RcodeToString[code]; ok {
		return text
	}
	return fmt.Sprintf("code %d", code)
}
