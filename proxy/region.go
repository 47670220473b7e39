package proxy

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"defender-proxy/policy"
	"defender-proxy/regions"
)

// order gives the endpoints to try, nearest first, within the tenant's allowed
// regions, and why the first is the first. A page of a query is asked for where
// the page before it came from, while that region can be reached.
func (p *Proxy) order(ctx context.Context, x *Exchange) ([]regions.Endpoint, string, error) {
	pool := x.upstream().Regions
	pool.Begin()
	// Nothing is known only when the proxy has just started. The first region that
	// answers its probe is the nearest, and has a warm connection then.
	pool.Measured(ctx, p.Limits.ConnectTimeout)
	order, choice := pool.Choice()
	if len(order) == 0 {
		return nil, "", refusal(RegionUnavailable, "Tenant %s has no region for %s. An operator looks at regions of the tenant in the proxy's configuration.",
			x.Tenant.Name, x.sent().Service.Application())
	}
	if before, ok := p.before(x); ok && order[0].Region != before {
		i := slices.IndexFunc(order, func(e regions.Endpoint) bool { return e.Region == before })
		if i > 0 && order[i].Up() {
			first := order[i]
			order = slices.Insert(slices.Delete(slices.Clone(order), i, i+1), 0, first)
			choice = "the page before this one came from there"
		}
	}
	return order, choice, nil
}

// before gives the region that the page before the one asked for came from, where
// it is known.
func (p *Proxy) before(x *Exchange) (regions.Name, bool) {
	if x.Method != http.MethodGet || !hasParameter(x.Query, "$skip") && !hasParameter(x.Query, "$skiptoken") {
		return "", false
	}
	if name, ok := p.Pages.Region(p.linkKey(x, x.Query)); ok {
		return name, true
	}
	rest, skips := withoutSkip(x.Query)
	if !skips {
		return "", false
	}
	return p.Pages.Region(p.skipKey(x, rest))
}

// noteLink remembers where the page came from that holds the link to the next.
// What is remembered decides nothing but the order of regions that the tenant may
// use anyway, and for pages behind the first alone.
func (p *Proxy) noteLink(x *Exchange, link string) {
	_, query, _ := strings.Cut(link, "?")
	if hasParameter(query, "$skip") || hasParameter(query, "$skiptoken") {
		p.Pages.Put(p.linkKey(x, query), x.region())
	}
}

// notePage remembers where a page came from whose caller counts pages by itself,
// with $top and $skip.
func (p *Proxy) notePage(x *Exchange, status int) {
	if x.Method != http.MethodGet || status != http.StatusOK || x.Operation.Class != policy.ClassRead {
		return
	}
	rest, skips := withoutSkip(x.Query)
	if skips || hasParameter(x.Query, "$top") {
		p.Pages.Put(p.skipKey(x, rest), x.region())
	}
}

// linkKey names a page by the query of the link to it. The link may come back by
// way of anybody.
func (p *Proxy) linkKey(x *Exchange, query string) uint64 {
	return p.Pages.Key(x.Tenant.Name, string(x.Operation.Service)+"?"+query)
}

// skipKey names a query of one caller's by what all its pages have in common.
func (p *Proxy) skipKey(x *Exchange, rest string) uint64 {
	return p.Pages.Key(x.Tenant.Name, x.Address.String()+x.Path.String()+"?"+rest)
}

// withoutSkip cuts the parameters $skip out of a raw query, and reports whether
// there was one.
func withoutSkip(query string) (rest string, skips bool) {
	if !hasParameter(query, "$skip") {
		return query, false
	}
	var kept []string
	for parameter := range strings.SplitSeq(query, "&") {
		if !hasParameter(parameter, "$skip") {
			kept = append(kept, parameter)
		}
	}
	return strings.Join(kept, "&"), true
}

// hasParameter reports whether a raw query has a parameter, however its name is
// written.
func hasParameter(query, name string) bool {
	_, ok := parameter(query, name)
	return ok
}

// parameter gives the first value of a parameter in a raw query, however its name is
// written, decoded where it can be. A semicolon belongs to the value.
func parameter(query, name string) (value string, ok bool) {
	for parameter := range strings.SplitSeq(query, "&") {
		written, value, _ := strings.Cut(parameter, "=")
		if len(written) < len(name) || len(written) > 3*len(name) {
			continue
		}
		if plain, err := url.QueryUnescape(written); err != nil || asciiLower(plain) != name {
			continue
		}
		if plain, err := url.QueryUnescape(value); err == nil {
			value = plain
		}
		return value, true
	}
	return "", false
}
