package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"defender-proxy/policy"
	"defender-proxy/proxy"
)

// onlinePatience bounds what a command asks of Entra ID and the regions.
const onlinePatience = 30 * time.Second

// online builds the parts of a configuration, runs them while f looks at them,
// and ends them.
func (c *cli) online(ctx context.Context, file string, f func(context.Context, *parts) error) error {
	cfg, err := c.load(file)
	if err != nil {
		return err
	}
	p, err := assemble(cfg, c.env, zerolog.Nop())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, onlinePatience)
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
	var all []string
	for _, t := range p.tenants {
		if t.Name == name || name == "" && len(p.tenants) == 1 {
			return t, nil
		}
		all = append(all, t.Name)
	}
	if name == "" {
		return proxy.Tenant{}, &usageError{fmt.Errorf("there are several tenants; say --tenant NAME, one of %s", strings.Join(all, ", "))}
	}
	return proxy.Tenant{}, &usageError{fmt.Errorf("no tenant is called %s; there are %s", name, strings.Join(all, ", "))}
}
