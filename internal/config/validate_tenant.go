package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"defender-proxy/regions"
)

// defaultsKey is the key that tenants take from what they leave out.
const defaultsKey = "tenant_defaults"

// tenantKey is the key of a tenant, those with a file of their own counted on.
func tenantKey(i int) string { return fmt.Sprintf("tenants[%d]", i) }

// tenants checks what tenants have in common, and then each of them with what
// it took from there.
func (v *validator) tenants() {
	if len(v.c.Tenants) == 0 {
		v.noTenants()
	}
	d := &v.c.TenantDefaults
	if v.given(defaultsKey + ".cloud") {
		v.refer(defaultsKey+".cloud", d.Cloud, "cloud", v.known.clouds)
	}
	v.sharedRegions(d)
	v.credential(defaultsKey+".credential", d.Credential)
	for i := range v.c.Tenants {
		v.inherit(tenantKey(i), &v.c.Tenants[i])
	}
	v.tenantNames()
	var seen seen
	for i := range v.c.Tenants {
		t, key := &v.c.Tenants[i], tenantKey(i)
		if !v.sharedFault("credential") {
			v.missing(key+".credential", "client_id and a kind of proof, such as client_secret")
		}
		v.account(key, *t, &seen)
		v.refer(key+".cloud", t.Cloud, "cloud", v.known.clouds)
		v.tenantRegions(key+".regions", t.Cloud, &t.Regions)
		v.credential(key+".credential", t.Credential)
		v.complete(key+".credential", t.Credential)
		v.tokenStore(key+".credential", t.Credential, &seen)
		v.evidence(key+".credential", t)
	}
}

// sharedFault reports whether a fault in tenant_defaults may be why tenants lack
// a key, so that it is told once and not of each tenant.
func (v *validator) sharedFault(key string) bool {
	shared := defaultsKey + "." + key
	return !v.clean(shared) || !v.clean(defaultsKey) && !v.given(shared)
}

// noTenants tells that a configuration has no tenant, if no other fault is why.
func (v *validator) noTenants() {
	switch {
	case !v.clean("tenants") || !v.clean("tenants_dir") || len(v.c.sources) > 2:
		// They could not be read; the first two sources are the configuration and
		// the folder.
	case v.given("tenants_dir"):
		v.fault("tenants_dir", "the folder has no file that ends with .yaml or .yml, and no tenant stands under tenants; at least one is needed")
	case v.given("tenants"):
		v.fault("tenants", "is empty; at least one tenant is needed, here or in tenants_dir")
	default:
		v.missing("tenants", "at least one tenant with name, id and credential, or tenants_dir")
	}
}

// tenantNames checks the names of the tenants, where those of files may be the
// files'.
func (v *validator) tenantNames() {
	for i, t := range v.c.Tenants {
		key := tenantKey(i) + ".name"
		switch {
		case v.given(key) || v.meant[key]:
		case t.Name == "":
			v.missing(key, "a name such as contoso")
		case !nameForm.MatchString(t.Name):
			v.fault(key, "is left out, and the file's name %s cannot be the tenant's: one has a-z, 0-9 and hyphens, does not begin with a hyphen and is at most 63 long; give the name or call the file otherwise", v.show(key, t.Name))
		}
	}
	v.names(v.known.tenants)
}

// seen remembers what only one tenant may have, and whose it is.
type seen struct {
	accounts map[string]string
	stores   map[string]string
}

// take gives the key that had a value first, or "" and remembers this one.
func take(taken *map[string]string, value, key string) (first string) {
	if *taken == nil {
		*taken = make(map[string]string)
	}
	if first = (*taken)[value]; first == "" {
		(*taken)[value] = key
	}
	return first
}

// account refuses a second name for the same identity in the same directory:
// they would share their tokens, and the secret of one would be the other's.
// The application itself and a user of it have tokens of their own.
func (v *validator) account(key string, t Tenant, seen *seen) {
	id, subject, what := t.Credential.ClientID, "application", "application"
	switch m := t.Credential.ManagedIdentity; {
	case t.Credential.User != nil:
		subject, what = "user", "user's application"
	case m != nil && !m.AsAssertion:
		id, subject, what = m.ClientID, "identity", "managed identity"
	}
	if t.ID == "" || id == "" && subject != "identity" || !v.clean(key+".id") || !v.clean(key+".credential") {
		return
	}
	if first := take(&seen.accounts, strings.Join([]string{t.Cloud, string(t.ID), subject, id}, " "), key); first != "" {
		v.clash(key+".id", "is the directory and %s of %s already; one tenant has one name", what, v.place(first, key))
	}
}

// sharedRegions checks the regions that tenants have in common, so far as it can
// be done without a tenant: its cloud may be another one.
func (v *validator) sharedRegions(d *TenantDefaults) {
	if v.given(defaultsKey + ".cloud") {
		v.tenantRegions(defaultsKey+".regions", d.Cloud, &d.Regions)
		return
	}
	all := make(map[regions.Name]bool)
	for _, c := range v.known.clouds.all {
		for _, name := range v.cloudRegions(c.name) {
			all[name] = true
		}
	}
	v.regionsAmong(defaultsKey+".regions", &d.Regions, slices.Sorted(maps.Keys(all)), "any cloud, which are")
}

func (v *validator) tenantRegions(key, cloudName string, t *TenantRegions) {
	v.regionsAmong(key, t, v.cloudRegions(cloudName), "the cloud, which has")
}

// regionsAmong checks regions against all that there are.
func (v *validator) regionsAmong(key string, t *TenantRegions, all []regions.Name, whose string) {
	allow, prefer := key+".allow", key+".prefer"
	if t.Prefer == Auto && v.clean(prefer) {
		t.Prefer = ""
	}
	v.someOrNone(allow, len(t.Allow), "name regions, or leave it out for all of the cloud")
	if len(all) == 0 {
		return // the cloud is not known
	}
	for i, name := range t.Allow {
		v.region(fmt.Sprintf("%s[%d]", allow, i), name, all, "is no region of "+whose)
	}
	switch {
	case t.Prefer == "":
	case len(t.Allow) == 0:
		v.region(prefer, t.Prefer, all, "is neither auto nor a region of "+whose)
	case v.env[v.source(allow)]:
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
	v.fault(key, "%s%s %s %s", v.show(key, string(name)), v.inherited(key), verdict, few(words))
}

// inherited says in a fault that a value stands in tenant_defaults.
func (v *validator) inherited(key string) string {
	if source := v.source(key); source != key {
		return ", from " + source + ","
	}
	return ""
}

// cloudRegions lists the regions that any service of a cloud has. It is nil for
// a cloud that is not known.
func (v *validator) cloudRegions(cloudName string) []regions.Name {
	if list, ok := v.regionsOf[cloudName]; ok {
		return list
	}
	cloud, _ := v.c.Cloud(cloudName)
	set := make(map[regions.Name]bool)
	for _, urls := range cloud.Endpoints {
		for name := range urls {
			set[name] = true
		}
	}
	list := slices.Sorted(maps.Keys(set))
	v.regionsOf[cloudName] = list
	return list
}
