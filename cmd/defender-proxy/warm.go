package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/proxy"
)

// warmers is how many tenants of one authority wait for their first token at
// once, for each token request that may be under way. The others wait in a list:
// a thousand tenants are no thousand goroutines.
const warmers = 4

// warm asks for the first token of each tenant before its first caller does, and
// again for one that failed, since what was wrong may be mended. What goes wrong
// is told by the engine's log and by readiness.
//
// The tenants of each authority have goroutines of their own, so that one that
// hangs keeps no other waiting. The run before ends: whom it still waited for this
// one asks again, and what it held of its snapshot is let go. The turn is held, or
// nobody reloads yet.
func (s *service) warm(p *parts) {
	if s.cool != nil {
		s.cool()
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.cool = cancel
	cold := make(map[string][]func())
	for _, t := range p.tenants {
		if !usable(t) {
			authority := p.accounts[t.Name].Authority
			cold[authority] = append(cold[authority], func() { p.first(ctx, t) })
		}
	}
	var asking sync.WaitGroup
	for _, jobs := range cold {
		var next atomic.Int64
		for range min(len(jobs), warmers*max(1, p.config.Limits.TokenConcurrency)) {
			asking.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(jobs)) && ctx.Err() == nil; i = next.Add(1) - 1 {
					jobs[i]()
				}
			})
		}
	}
	s.warming.Go(func() {
		asking.Wait()
		if ctx.Err() == nil || p.answered() {
			s.begun.Store(true)
		}
		cancel()
	})
}

// answered reports whether each tenant's first token has come or failed.
func (p *parts) answered() bool {
	return !slices.ContainsFunc(p.tenants, func(t proxy.Tenant) bool {
		return !slices.ContainsFunc(services(t), func(s policy.Service) bool { return t.Upstreams[s].Token.State().Fetches > 0 })
	})
}

// usable reports whether a token came for any service of the tenant and the last
// fetch did not fail.
func usable(t proxy.Tenant) bool {
	for _, s := range services(t) {
		if st := t.Upstreams[s].Token.State(); st.Live || st.Fetches > 0 && st.Error == nil {
			return true
		}
	}
	return false
}

// first asks for a tenant's first token: that of the first service that anybody
// is granted, and of the next one while Entra ID says only that this service is
// not consented to.
func (p *parts) first(ctx context.Context, t proxy.Tenant) {
	for _, service := range p.wanted(t) {
		_, err := t.Upstreams[service].Token.Bearer(ctx)
		var failure *token.Error
		if !errors.As(err, &failure) || !ofOneService(failure.AADSTS) {
			return
		}
	}
}

// ofOneService reports whether an error code of Entra ID is about the service
// that was asked for, which the directory may not know or not have consented to,
// so that another one's token may come.
func ofOneService(aadsts int) bool {
	return aadsts == 65001 || aadsts == 500011 || aadsts == 650052
}

// wanted lists the services of a tenant to which something is sent that client
// groups are granted, or all where that is none.
func (p *parts) wanted(t proxy.Tenant) []policy.Service {
	var list []policy.Service
	for _, s := range services(t) {
		if p.catalog.Uses(s, p.view.Grantees(t.Name), policy.Situation{Tenant: t.Name, Now: time.Now()}, p.proxy.Sends(t.Name)) {
			list = append(list, s)
		}
	}
	if list == nil {
		return services(t)
	}
	return list
}
