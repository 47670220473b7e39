package config

import (
	"maps"
	"slices"

	"defender-proxy/regions"
)

// Cloud is a cloud of the operator's own.
type Cloud struct {
	// What tenants call the cloud: a-z, 0-9 and hyphens.
	Name string `yaml:"name" required:"a name such as lab"`

	// The base URL of Entra ID there, without a path. Plain http:// on a loopback
	// address only.
	Authority string `yaml:"authority" kind:"endpoint" required:"a URL such as https://login.lab.example"`

	// The base URLs of the APIs, by service (mde, xdr, graph) and region, without
	// a path. Plain http:// on a loopback address only.
	Endpoints map[regions.Service]map[regions.Name]string `yaml:"endpoints" kind:"endpoint" required:"the URLs of at least one service"`

	// The resource URIs that tokens are asked for, by service.
	Audiences map[regions.Service]string `yaml:"audiences" kind:"audience" required:"the audience of each service with endpoints"`

	// The hosts that download links may name; *. at the start stands for one or
	// more labels. Default none. Plain http:// on a loopback address only.
	BlobHosts []string `yaml:"blob_hosts"`
}

// Cloud finds a cloud by its name, the operator's own before those that are
// built in. The value is the caller's.
func (c *Config) Cloud(name string) (regions.Cloud, bool) {
	for _, own := range c.Clouds {
		if own.Name == name {
			return own.cloud(), true
		}
	}
	for _, known := range regions.Clouds() {
		if known.Name == name {
			return known, true
		}
	}
	return regions.Cloud{}, false
}

func (c Cloud) cloud() regions.Cloud {
	endpoints := make(map[regions.Service]map[regions.Name]string, len(c.Endpoints))
	for s, urls := range c.Endpoints {
		endpoints[s] = maps.Clone(urls)
	}
	return regions.Cloud{
		Name:      c.Name,
		Authority: c.Authority,
		Endpoints: endpoints,
		Audiences: maps.Clone(c.Audiences),
		BlobHosts: slices.Clone(c.BlobHosts),
	}
}
