package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"defender-proxy/regions"
)

// leastKeyBytes is the length of a key that seals download links.
const leastKeyBytes = 32

// SealingKeys reads the keys of download links, in the order of the configuration;
// nil where there are none. It may be called concurrently if env may.
func (r Relay) SealingKeys(env func(string) (string, bool)) ([][]byte, error) {
	var keys [][]byte
	for i, s := range r.Keys {
		text, err := s.Resolve(env)
		if err != nil {
			return nil, fmt.Errorf("relay.keys[%d]: %w", i, err)
		}
		if len(text) < leastKeyBytes {
			return nil, fmt.Errorf("relay.keys[%d]: the key has less than %d bytes", i, leastKeyBytes)
		}
		keys = append(keys, []byte(text))
	}
	return keys, nil
}

// relay looks whether the keys of download links are there.
func (v *validator) relay() {
	if !v.c.Relay.Downloads && len(v.c.Relay.Keys) > 0 {
		v.warn("relay.keys", "have no effect without downloads: true")
	}
	for i, s := range v.c.Relay.Keys {
		key := fmt.Sprintf("relay.keys[%d]", i)
		switch {
		case !v.clean(key):
		case s.KeyVault != "":
			v.fault(key, "is in Azure Key Vault, from which only client secrets are read; name a variable (env) or a file")
		case (s.Env == "") == (s.File == ""):
			v.fault(key, "names not exactly one of env and file")
		case s.Env != "":
			if problem := v.variableProblem(key+".env", s.Env); problem != "" {
				v.fault(key, "%s", problem)
			} else if text, _ := v.lookup(s.Env); len(text) < leastKeyBytes {
				v.fault(key, "the key, which is not shown, has %d bytes; %d or more are wanted, such as those of openssl rand -hex 32", len(text), leastKeyBytes)
			}
		default:
			data, ok := v.file(key, s.File, true)
			if text := strings.TrimRight(string(data), "\r\n"); ok && len(text) < leastKeyBytes {
				v.fault(key, "the key, which is not shown, has %d bytes; %d or more are wanted, such as those of openssl rand -hex 32", len(text), leastKeyBytes)
			}
		}
	}
}

const (
	// maxPinned bounds the addresses of one name.
	maxPinned = 16
	// maxServers bounds the DNS servers: all of them share egress.connect_timeout.
	maxServers = 8
)

// resolved checks how names are looked up, and those that have addresses of their own.
func (v *validator) resolved() {
	const hosts, servers = "egress.resolve.hosts", "egress.resolve.servers"
	if n := len(v.c.Egress.Resolve.Servers); n > maxServers && v.clean(servers) {
		v.fault(servers, "has %d servers; at most %d are asked", n, maxServers)
	}
	before := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(v.c.Egress.Resolve.Hosts)) {
		addresses, key := v.c.Egress.Resolve.Hosts[name], join(hosts, name)
		host, ok := parseHost(name)
		switch {
		case !v.clean(key):
		case !ok || strings.ContainsAny(host, ":[") || !hostName(host):
			v.fault(key, "is not the name of a host such as login.microsoftonline.com")
		case len(addresses) == 0:
			v.fault(key, "has no address; give one or leave the name out")
		case len(addresses) > maxPinned:
			v.fault(key, "has %d addresses; at most %d are tried", len(addresses), maxPinned)
		case before[host]:
			v.fault(key, "is there more than once, in capital and small letters, which mean the same name; put all addresses under one")
		}
		before[host] = true
	}
}

// bridges looks whether tenants whose hunting goes to Microsoft Graph may reach it.
func (v *validator) bridges() {
	for i, t := range v.c.Tenants {
		key := fmt.Sprintf("tenants[%d]", i)
		if t.Hunting != HuntingGraph && t.Hunting != HuntingAuto || !v.clean(key) {
			continue
		}
		cloud, ok := v.c.Cloud(t.Cloud)
		in := cloud.Regions(regions.Service("graph"))
		var words string
		switch {
		case !ok:
			continue
		case len(in) == 0:
			words = fmt.Sprintf("the cloud %s has no Microsoft Graph (service graph); add its endpoints and audience under clouds, or set hunting to legacy", t.Cloud)
		case t.Regions.Allow == nil || slices.ContainsFunc(in, func(n regions.Name) bool { return slices.Contains(t.Regions.Allow, n) }):
			continue
		default:
			words = fmt.Sprintf("regions.allow leaves out Microsoft Graph, which is in region %s; add it, or set hunting to legacy", listed(in))
		}
		at := v.source(key + ".hunting")
		if t.Hunting == HuntingGraph {
			v.fault(at, "%s", words)
		} else {
			v.warn(at, "%s", words)
		}
	}
}

// The values of Tenant.Hunting.
const (
	HuntingLegacy = "legacy"
	HuntingGraph  = "graph"
	HuntingAuto   = "auto"
)

// listed lists regions for a message.
func listed(names []regions.Name) string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = string(n)
	}
	return strings.Join(all, ", ")
}
