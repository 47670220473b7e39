// Package egress makes the one transport through which everything leaves: token
// requests, probes and forwarded requests alike, so that a proxy of the network
// and a certificate authority of one's own hold for all of them.
//
// cmd makes it once; token, regions and proxy get it as an http.RoundTripper.
package egress

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"
)

// Settings say how calls leave this machine.
type Settings struct {
	// Proxy is the URL of the network's proxy; nil means HTTPS_PROXY and NO_PROXY
	// of the environment. Loopback and link-local addresses are always called
	// straight.
	Proxy *url.URL
	// CAFile is a PEM file of certificates to trust beside the system's; empty
	// means none.
	CAFile string
	// ConnectTimeout bounds name lookup and dial, and again the TLS handshake.
	ConnectTimeout time.Duration
}

const (
	// idlePerHost is how many warm connections are kept to one endpoint.
	idlePerHost = 64
	// idleTimeout is shorter than the four minutes after which Azure's load
	// balancers drop an idle connection
	// (learn.microsoft.com/azure/load-balancer/load-balancer-tcp-idle-timeout),
	// so that few requests meet a dead one.
	idleTimeout = 90 * time.Second
	// maxAnswerHeader bounds the headers of an answer, in bytes.
	maxAnswerHeader = 256 << 10
)

// New makes the transport. Redirects are not followed, for a transport follows
// none; bodies are not decompressed.
//
// It speaks HTTP/1.1: one connection for each request under way costs less
// processor time here than streams of HTTP/2 do, and a lost packet holds up one
// request only.
func New(s Settings) (*http.Transport, error) {
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
	dialer := &net.Dialer{Timeout: s.ConnectTimeout, KeepAlive: 15 * time.Second}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:       proxyFor(s.Proxy),
		DialContext: dialer.DialContext,
		TLSClientConfig: &tls.Config{
			RootCAs:            roots,
			MinVersion:         tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(64),
		},
		TLSHandshakeTimeout:    s.ConnectTimeout,
		MaxIdleConns:           16 * idlePerHost,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
		Protocols:              protocols,
	}, nil
}

// proxyFor gives the network's proxy for all that is beyond this machine. The
// link-local addresses are this machine's too: there Azure gives it its identity
// (learn.microsoft.com/azure/virtual-machines/instance-metadata-service, read
// 2026-11: clients bypass web proxies to reach it).
func proxyFor(proxy *url.URL) func(*http.Request) (*url.URL, error) {
	beyond := http.ProxyFromEnvironment
	if proxy != nil {
		beyond = http.ProxyURL(proxy)
	}
	return func(r *http.Request) (*url.URL, error) {
		host := r.URL.Hostname()
		if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && (a.Unmap().IsLoopback() || a.Unmap().IsLinkLocalUnicast()) {
			return nil, nil
		}
		return beyond(r)
	}
}
