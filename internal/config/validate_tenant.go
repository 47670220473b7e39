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

func (v *validator) tenants() {
	v.someOrNone("tenants", len(v.c.Tenants), "at least one tenant is needed")
	v.names(v.tenantNames())
	var clouds []named
	for _, c := range regions.Clouds() {
		clouds = append(clouds, named{name: c.Name})
	}
	clouds = append(clouds, v.cloudNames()...)
	accounts := make(map[string]string)
	for i := range v.c.Tenants {
		key := fmt.Sprintf("tenants[%d]", i)
		v.account(key, v.c.Tenants[i], accounts)
		v.credential(key+".credential", v.c.Tenants[i].Credential)
		v.refer(key+".cloud", v.c.Tenants[i].Cloud, "cloud", clouds)
		v.tenantRegions(key+".regions", v.c.Tenants[i].Cloud, &v.c.Tenants[i].Regions)
	}
}

// account refuses a second name for the same application in the same directory:
// they would share their tokens, and the secret of one would be the other's.
func (v *validator) account(key string, t Tenant, known map[string]string) {
	if t.ID == "" || t.Credential.ClientID == "" || !v.clean(key+".id") || !v.clean(key+".credential.client_id") {
		return
	}
	account := t.Cloud + " " + string(t.ID) + " " + t.Credential.ClientID
	if first, ok := known[account]; ok {
		v.fault(key+".id", "is the directory and application of %s already; one tenant has one name", first)
		return
	}
	known[account] = key
}

func (v *validator) credential(key string, c Credential) {
	if !v.given(key) || !v.clean(key) {
		return
	}
	secret := key + ".client_secret"
	switch s := c.ClientSecret; {
	case !v.given(secret):
		v.fault(secret, "is missing; a credential needs {env: NAME} or {file: PATH}")
	case s.Env != "" && s.File != "":
		v.fault(secret, "names both env and file; exactly one is wanted")
	case s.Env == "" && s.File == "":
		v.fault(secret, "names neither env nor file; exactly one is wanted")
	case s.Env != "":
		v.secretVariable(secret+".env", s)
	default:
		v.secretFile(secret+".file", s)
	}
}

func (v *validator) secretVariable(key string, s Secret) {
	switch value, set := v.lookup(s.Env); {
	case !variableName(s.Env):
		// It may well be the secret itself.
		v.fault(key, "is not the name of an environment variable: letters, digits and underscores")
	case !set && v.marks[key].env:
		v.fault(key, "the environment variable that it names is not set")
	case !set:
		v.fault(key, "the environment variable %s is not set", s.Env)
	case strings.TrimSpace(value) == "" && v.marks[key].env:
		v.fault(key, "the environment variable that it names is empty")
	case strings.TrimSpace(value) == "":
		v.fault(key, "the environment variable %s is empty", s.Env)
	}
}

func (v *validator) secretFile(key string, s Secret) {
	if _, err := s.Resolve(v.lookup); err == nil {
		v.file(key, s.File, true)
		return
	} else if v.marks[key].env {
		v.fault(key, "the file %s cannot be read or is empty", v.show(key, s.File))
	} else {
		v.fault(key, "%s", oneLine(err))
	}
}

func (v *validator) tenantRegions(key, cloudName string, t *TenantRegions) {
	allow, prefer := key+".allow", key+".prefer"
	if t.Prefer == Auto && v.clean(prefer) {
		t.Prefer = ""
	}
	v.someOrNone(allow, len(t.Allow), "name regions, or leave it out for all of the cloud")
	cloud, known := v.c.Cloud(cloudName)
	if !known {
		return
	}
	all := cloudRegions(cloud)
	for i, name := range t.Allow {
		v.region(fmt.Sprintf("%s[%d]", allow, i), name, all, "is no region of the cloud, which has")
	}
	switch {
	case t.Prefer == "":
	case len(t.Allow) == 0:
		v.region(prefer, t.Prefer, all, "is neither auto nor a region of the cloud, which has")
	case v.env[allow]:
		if v.clean(allow) && !slices.Contains(t.Allow, t.Prefer) {
			v.fault(prefer, "%s is neither auto nor among the allowed regions", v.show(prefer, string(t.Prefer)))
		}
	case v.clean(allow):
		v.region(prefer, t.Prefer, t.Allow, "is neither auto nor among the allowed regions, which are")
	}
}

// region checks a name against those that may stand there.
func (v *validator) region(key string, name regions.Name, known []regions.Name, verdict string) {
	if !v.clean(key) || slices.Contains(known, name) {
		return
	}
	words := make([]string, len(known))
	for i, n := range known {
		words[i] = string(n)
	}
	v.fault(key, "%s %s %s", v.show(key, string(name)), verdict, few(words))
}

// cloudRegions lists the regions that any service of a cloud has.
func cloudRegions(c regions.Cloud) []regions.Name {
	set := make(map[regions.Name]bool)
	for _, urls := range c.Endpoints {
		for name := range urls {
			set[name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func (v *validator) clouds() {
	v.names(v.cloudNames())
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
		v.fault(key, "unknown service; known are %s%s", strings.Join(known, ", "), didYouMean(string(s), known))
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
