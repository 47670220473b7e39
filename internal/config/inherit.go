package config

import (
	"cmp"
	"slices"
)

// The kinds of proof of a credential. A tenant that names one of them takes none
// of those in tenant_defaults.
var proofs = []string{"client_secret", "certificate", "federated_token", "managed_identity", "user"}

// inherit gives a tenant what it leaves out and tenant_defaults has, and
// remembers where the values stand.
func (v *validator) inherit(key string, t *Tenant) {
	if !v.given(defaultsKey) {
		return
	}
	d := &v.c.TenantDefaults
	from, to := &d.Credential, &t.Credential
	named := slices.ContainsFunc(proofs, func(kind string) bool { return v.given(key + ".credential." + kind) })
	// The identity of a machine has neither an application nor an endpoint of Entra ID.
	identity := to.ManagedIdentity != nil && !to.ManagedIdentity.AsAssertion
	for _, share := range []struct {
		name   string
		passed bool // the tenant does not take it
		take   func()
	}{
		{"cloud", false, func() { t.Cloud = d.Cloud }},
		{"hunting", false, func() { t.Hunting = d.Hunting }},
		{"regions.allow", false, func() { t.Regions.Allow = d.Regions.Allow }},
		{"regions.prefer", false, func() { t.Regions.Prefer = d.Regions.Prefer }},
		{"credential.client_id", identity, func() { to.ClientID = from.ClientID }},
		{"credential.token_version", identity, func() { to.TokenVersion = from.TokenVersion }},
		{"credential.verify_signature", false, func() { to.VerifySignature = from.VerifySignature }},
		{"credential.client_secret", named, func() { to.ClientSecret = from.ClientSecret }},
		{"credential.next_client_secret", named, func() { to.NextClientSecret = from.NextClientSecret }},
		{"credential.certificate", named, func() { to.Certificate = from.Certificate }},
		{"credential.federated_token", named, func() { to.FederatedToken = from.FederatedToken }},
		{"credential.managed_identity", named, func() { to.ManagedIdentity = from.ManagedIdentity }},
		{"credential.user", named, func() { to.User = from.User }},
	} {
		own, shared := key+"."+share.name, defaultsKey+"."+share.name
		if !share.passed && !v.given(own) && v.given(shared) {
			v.from[own] = shared
			share.take()
		}
	}
	v.strangeSecret(key, t)
	if v.given(defaultsKey+".credential") && !v.given(key+".credential") {
		v.from[key+".credential"] = defaultsKey + ".credential"
	}
}

// strangeSecret warns of a tenant that takes a secret from tenant_defaults for
// another application, or sends it to another authority, than the one that it was
// made for there.
func (v *validator) strangeSecret(key string, t *Tenant) {
	i := slices.IndexFunc([]string{"client_secret", "next_client_secret", "certificate", "user"}, func(kind string) bool {
		_, taken := v.from[key+".credential."+kind]
		return taken && (kind != "user" || t.Credential.User != nil && t.Credential.User.Password != Secret{})
	})
	if i < 0 {
		return
	}
	what := []string{"client_secret", "next_client_secret", "certificate", "user.password"}[i]
	d := &v.c.TenantDefaults
	if own := key + ".credential.client_id"; v.given(own) && d.Credential.ClientID != "" && t.Credential.ClientID != d.Credential.ClientID {
		v.warn(own, "is another application than that of %s, whose %s the tenant takes; give the tenant its own", defaultsKey, what)
	}
	if own := key + ".cloud"; v.given(own) {
		theirs, known := v.c.Cloud(cmp.Or(d.Cloud, "commercial"))
		if ours, ok := v.c.Cloud(t.Cloud); ok && known && ours.Authority != theirs.Authority {
			v.warn(own, "has another authority than the cloud of %s, whose %s the tenant takes and sends there; give the tenant its own, or name the cloud there", defaultsKey, what)
		}
	}
}
