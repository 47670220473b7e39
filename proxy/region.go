package proxy

import "defender-proxy/regions"

// order gives the endpoints to try, nearest first, within the tenant's allowed
// regions.
func (p *Proxy) order(x *Exchange) ([]regions.Endpoint, error) {
	order := x.upstream().Regions.Order()
	if len(order) == 0 {
		return nil, refusal(RegionUnavailable, "Tenant %s has no region for %s. An operator looks at regions of the tenant in the proxy's configuration.",
			x.Tenant.Name, x.Operation.Service.Application())
	}
	return order, nil
}
