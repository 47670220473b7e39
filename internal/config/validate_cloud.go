package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"defender-proxy/policy"
	"defender-proxy/regions"
)

func (v *validator) clouds() {
	v.names(v.known.clouds)
	for i := range v.c.Clouds {
		c, key := &v.c.Clouds[i], fmt.Sprintf("clouds[%d]", i)
		if slices.ContainsFunc(regions.Clouds(), func(b regions.Cloud) bool { return b.Name == c.Name }) {
			v.warn(key+".name", "replaces the built-in cloud of that name")
		}
		v.someOrNone(key+".endpoints", len(c.Endpoints), "give the URLs of at least one service")
		for _, s := range slices.Sorted(maps.Keys(c.Endpoints)) {
			at := join(key+".endpoints", string(s))
			v.service(at, s)
			v.someOrNone(at, len(c.Endpoints[s]), "give a URL for at least one region, or leave the service out")
			for _, name := range slices.Sorted(maps.Keys(c.Endpoints[s])) {
				if !nameForm.MatchString(string(name)) || name == Auto {
					v.fault(join(at, string(name)), "is not the name of a region: a-z, 0-9 and hyphens, and not auto")
				}
			}
			if c.Audiences[s] == "" && v.given(key+".audiences") && v.clean(key+".audiences") && v.clean(at) {
				v.fault(key+".audiences", "has no audience for %s, which has endpoints", s)
			}
		}
		for _, s := range slices.Sorted(maps.Keys(c.Audiences)) {
			v.service(join(key+".audiences", string(s)), s)
		}
		for j, h := range c.BlobHosts {
			c.BlobHosts[j] = v.blobHost(fmt.Sprintf("%s.blob_hosts[%d]", key, j), h)
		}
	}
}

func (v *validator) service(key string, s regions.Service) {
	var known []string
	for _, k := range policy.Services() {
		known = append(known, string(k))
	}
	if !slices.Contains(known, string(s)) {
		v.fault(key, "unknown service; known are %s%s", strings.Join(known, ", "), DidYouMean(string(s), known))
	}
}

// blobHost checks a host that download links may name.
func (v *validator) blobHost(key, text string) string {
	if !v.clean(key) {
		return text
	}
	const wanted = "is not a host such as blobs.lab.example, *.blob.core.windows.net or http://127.0.0.1:10000"
	if strings.Contains(text, "://") {
		url, reason := parseURL(text, secure)
		if reason != "" {
			v.fault(key, "%s %s", v.show(key, text), reason)
		}
		return strings.TrimPrefix(url, "https://")
	}
	stem, wild := strings.CutPrefix(text, "*.")
	host, ok := parseHost(stem)
	if wild && ok {
		// A whole top-level domain is nobody's storage.
		name, _, _ := strings.Cut(host, ":")
		_, err := netip.ParseAddr(name)
		ok = err != nil && strings.Contains(name, ".")
	}
	if !ok {
		v.fault(key, "%s %s", v.show(key, text), wanted)
	}
	if wild {
		return "*." + host
	}
	return cmp.Or(host, text)
}
