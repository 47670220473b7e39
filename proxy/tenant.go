package proxy

import (
	"defender-proxy/internal/redact"
	"fmt"
	"slices"
	"strings"
)

// tenant picks whose data is meant: the tenant that the path names, else the
// listener's default, else the only one that the client group may ask for.
//
// A tenant that exists but is not for this client group is refused in the same
// words as one that does not, so that nobody learns who the others are.
func (p *Proxy) tenant(x *Exchange) (*Tenant, error) {
	name := x.Named
	if name == "" {
		name = x.Listener.Tenant
	}
	mine := p.tenantsOf(x.Client)
	if name == "" && len(mine) == 1 {
		name = mine[0]
	}
	if slices.Contains(mine, name) {
		return p.tenants[name], nil
	}
	choice := "An operator names its tenants under tenants of the group in the proxy's configuration."
	if len(mine) > 0 {
		choice = fmt.Sprintf("Put one before the path, as in /t/%s%s; there are: %s.", mine[0], concealed(x.Path.String()), redact.Short(strings.Join(mine, ", ")))
	}
	switch {
	case x.Named != "":
		return nil, refusal(UnknownTenant, "Client group %s has no tenant %q. %s", x.Client.Name, redact.Short(x.Named), choice)
	case name != "":
		return nil, refusal(UnknownTenant, "The tenant of this listener is not for client group %s. %s", x.Client.Name, choice)
	}
	return nil, refusal(UnknownTenant, "The path names no tenant, and this listener has none of its own. %s", choice)
}

// tenantsOf lists the tenants that a client group may ask for, in the order of
// the configuration.
func (p *Proxy) tenantsOf(c *Client) []string {
	if c.Tenants != nil {
		return c.Tenants
	}
	names := make([]string, len(p.Tenants))
	for i := range p.Tenants {
		names[i] = p.Tenants[i].Name
	}
	return names
}
