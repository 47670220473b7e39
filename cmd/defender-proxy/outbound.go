package main

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"defender-proxy/internal/config"
	"defender-proxy/internal/egress"
)

// outbound makes the transport of the configuration. own gives the addresses that no
// call may lead to; told is called when one would have. Both may be nil.
func outbound(cfg *config.Config, own func() []netip.AddrPort, told func(*egress.LoopError)) (*egress.Transport, error) {
	e := cfg.Egress
	return egress.New(egress.Settings{
		Proxy: e.Proxy.URL(), CAFile: e.CAFile, ConnectTimeout: cfg.Regions.ConnectTimeout, HTTP2: e.HTTP2,
		Servers: e.Resolve.Servers, Hosts: e.Resolve.Hosts, Own: own, OnLoop: told,
	})
}

// loops takes note of a host that leads back to the proxy, and tells the log.
func (c *core) loops(e *egress.LoopError) {
	c.own.led.Store(e.Host, e.Error())
	entry := c.log.Warn().Str("host", e.Host)
	if e.Address.IsValid() {
		entry.Stringer("address", e.Address)
	}
	entry.Err(e).Msg("a host that is called leads back to the proxy; nothing is got from there until it does not")
}

// ledBack tells of the hosts that led back to the proxy.
func (c *core) ledBack() (all []string) {
	c.own.led.Range(func(_, words any) bool {
		all = append(all, words.(string))
		return true
	})
	slices.Sort(all)
	return all
}

// own are the addresses of the listeners, the operator's among them.
type own struct {
	now atomic.Pointer[[]netip.AddrPort]
	led sync.Map // by host that led to one of them, or to another proxy: words
}

// ownOf begins with the addresses that a configuration names, so that a command that
// serves nobody sees what the proxy would run into. Port 0 is none yet.
func ownOf(cfg *config.Config) *own {
	var all []netip.AddrPort
	for _, text := range append(listenersOf(cfg), cfg.Admin.Address) {
		if a, ok := addressOf(text); ok && a.Port() != 0 {
			all = append(all, a)
		}
	}
	o := new(own)
	o.now.Store(&all)
	return o
}

func listenersOf(cfg *config.Config) []string {
	var all []string
	for _, l := range cfg.Listeners {
		all = append(all, l.Address)
	}
	return all
}

// addressOf reads the address of a listener. One without a host is every address.
func addressOf(text string) (netip.AddrPort, bool) {
	if host, port, err := net.SplitHostPort(text); err == nil && host == "" {
		text = net.JoinHostPort("::", port)
	}
	a, err := netip.ParseAddrPort(text)
	return a, err == nil
}

// bound takes the addresses that listeners really have in place of those before.
func (o *own) bound(servers []*server) {
	var all []netip.AddrPort
	for _, s := range servers {
		if a, ok := s.listener.Addr().(*net.TCPAddr); ok {
			all = append(all, a.AddrPort())
		}
	}
	o.now.Store(&all)
}

func (o *own) list() []netip.AddrPort { return *o.now.Load() }
