package proxy

import "context"

// spend takes the request from the documented budget of its operation. No
// budget is kept yet: Microsoft's own 429 and its Retry-After reach the caller.
func (p *Proxy) spend(context.Context, *Exchange) error { return nil }
