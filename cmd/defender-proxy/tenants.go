package main

import (
	"context"
	"slices"
	"time"

	"defender-proxy/policy"
	"defender-proxy/proxy"
)

// onlinePatience bounds what a command asks of Entra ID and the regions, for so
// many tenants.
func onlinePatience(tenants int) time.Duration {
	return 30*time.Second + time.Duration(tenants)*250*time.Millisecond
}

// online builds the parts of a configuration, runs them while f looks at them,
// and ends them.
func (c *cli) online(ctx context.Context, file string, f func(context.Context, *parts) error) error {
	cfg, err := c.load(file)
	if err != nil {
		return err
	}
	p, err := c.alone(cfg, file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, onlinePatience(len(p.tenants)))
	wait := p.start(ctx)
	defer wait()
	defer cancel()
	return f(ctx, p)
}

// services lists the services that a tenant can reach, in the catalog's order.
func services(t proxy.Tenant) []policy.Service {
	var list []policy.Service
	for _, s := range policy.Services() {
		if t.Upstreams[s] != nil {
			list = append(list, s)
		}
	}
	return list
}

// pick chooses a tenant by name; with an empty one the only tenant there is.
func (p *parts) pick(name string) (proxy.Tenant, error) {
	named, err := tenantNamed(p.config, name)
	if err != nil {
		return proxy.Tenant{}, err
	}
	return p.tenants[slices.IndexFunc(p.tenants, func(t proxy.Tenant) bool { return t.Name == named.Name })], nil
}
