// Package egress makes the one transport through which everything leaves: token
// requests, probes and forwarded requests alike, so that a proxy of the network
// and a certificate authority of one's own hold for all of them.
//
// What it sends goes round no further: where Microsoft's names lead to this proxy for the
// sake of its callers, names are looked up otherwise, and a host that turns out to be
// the proxy itself, or another one like it, is refused. Each request says in CDN-Loop
// who sent it, so that such a proxy refuses it before anything comes of it.
//
// cmd makes it once; token, regions and proxy get it as an http.RoundTripper. proxy and
// admin ask it whose request one is.
package egress

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"
)

// Settings say how calls leave this machine.
type Settings struct {
	// Proxy is the URL of the network's proxy, with the scheme http, https, socks5
	// or socks5h, and with a user and password where it wants them; nil means
	// HTTPS_PROXY of the environment. NO_PROXY of the environment holds for both, and
	// loopback and link-local addresses are always called straight.
	Proxy *url.URL
	// CAFile is a PEM file of certificates to trust beside the system's; empty
	// means none.
	CAFile string
	// ConnectTimeout bounds all that has to happen until a request can be sent: name
	// lookup, dial, the network's proxy, TLS. 0 means no bound.
	ConnectTimeout time.Duration
	// HTTP2 offers HTTP/2 to servers. Without it HTTP/1.1 is spoken: one connection
	// for each request under way costs less processor time here than streams do,
	// and a lost packet, or a caller who reads slowly, holds up one request only.
	HTTP2 bool
	// Servers are DNS servers that are asked, in order, for the names that Hosts does
	// not have, in place of this machine's hosts file and resolver; none: the machine
	// looks them up. Names that a proxy of the network looks up are its business.
	Servers []netip.AddrPort
	// Hosts are the addresses of names, as they are: nobody is asked for those.
	Hosts map[string][]netip.Addr
	// Own gives the addresses that our own listeners are bound to; nil: none. No
	// connection is made to them. It is called concurrently, and must be quick.
	Own func() []netip.AddrPort
	// OnLoop, if there is one, is called once a host and minute, from a request's
	// goroutine, when a host turns out to lead back to this proxy.
	OnLoop func(*LoopError)
	// MaxAge is how long a connection gets new requests, give or take a tenth, while
	// Run runs; 0 means ten minutes.
	MaxAge time.Duration
}

const (
	// idlePerHost is how many warm connections are kept to one endpoint.
	idlePerHost = 64
	// idleTimeout is shorter than the four minutes after which Azure's load
	// balancers drop an idle connection
	// (learn.microsoft.com/azure/load-balancer/load-balancer-tcp-idle-timeout),
	// so that few requests meet a dead one.
	idleTimeout = 90 * time.Second
	// maxAge bounds how long a change in the DNS goes unseen.
	maxAge = 10 * time.Minute
	// maxAnswerHeader bounds the headers of an answer, in bytes.
	maxAnswerHeader = 256 << 10
	// sessions is how many servers' TLS sessions are kept for resumption.
	sessions = 256

	// streamBuffer is what an answer may take up here, in bytes, while its reader
	// does not read. The connection as a whole has no bound of its own, or one slow
	// reader would hold up the others.
	streamBuffer = 1 << 20
	// A ping that stays without an answer ends an HTTP/2 connection within deadPath.
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// New makes the transport. Nothing is dialled. The errors are about CAFile, Proxy
// and the proxies of the environment, and hold no password.
func New(s Settings) (*Transport, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // then ca_file has to hold all there is to trust
	}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read egress.ca_file: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("egress.ca_file %s holds no certificate in PEM form", s.CAFile)
		}
	}
	way, err := wayOut(s.Proxy)
	if err != nil {
		return nil, err
	}
	d := newDialer(s, way, &tls.Config{
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
	})
	if d.alpn = []string{"http/1.1"}; s.HTTP2 {
		d.alpn = []string{"h2", "http/1.1"}
	}
	t := &Transport{dialer: d, http2: s.HTTP2, maxAge: s.MaxAge}
	if t.maxAge <= 0 {
		t.maxAge = maxAge
	}
	t.current.Store(t.generation())
	return t, nil
}

// generation makes a transport without connections. Redirects are not followed,
// for a transport follows none; bodies are not decompressed.
func (t *Transport) generation() *watched {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(t.http2)
	return &watched{loops: t.dialer.loops, Transport: &http.Transport{
		DialContext:            t.dialer.plain,
		DialTLSContext:         t.dialer.secure,
		MaxIdleConns:           16 * idlePerHost,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
		Protocols:              protocols,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: streamBuffer,
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
		},
	}}
}
