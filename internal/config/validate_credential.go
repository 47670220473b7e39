package config

import (
	"fmt"
	"slices"
	"strings"
)

// credential checks what a credential says, of a tenant or in tenant_defaults.
// What it does not say is complete's.
func (v *validator) credential(key string, c Credential) {
	if !v.has(key) || !v.clean(key) {
		return
	}
	v.kinds(key)
	v.secretPlace(key+".client_secret", c.ClientSecret, true)
	v.secretPlace(key+".next_client_secret", c.NextClientSecret, true)
	if c.Certificate != nil {
		v.secretPlace(key+".certificate.password", c.Certificate.Password, false)
	}
	if c.User != nil {
		v.user(key, *c.User, c.TokenVersion)
	}
	if m := c.ManagedIdentity; m != nil && !m.AsAssertion && v.clean(key) {
		if v.has(key + ".client_id") {
			v.fault(key+".client_id", "is the id of an application, and a managed identity that asks for its own tokens has none; leave it out, write that of a user-assigned identity under managed_identity, or set managed_identity.as_assertion to true")
		}
		if v.has(key + ".token_version") {
			v.fault(key+".token_version", "has no effect on a managed identity that asks for its own tokens; leave it out")
		}
	}
}

// kinds checks which kinds of proof stand beside each other.
func (v *validator) kinds(key string) {
	var have []string
	for _, kind := range proofs {
		if v.has(key + "." + kind) {
			have = append(have, kind)
		}
	}
	user := slices.Contains(have, "user")
	switch own := slices.DeleteFunc(slices.Clone(have), func(kind string) bool { return kind == "user" }); {
	case len(own) > 1:
		v.fault(key+"."+v.last(key, own), "stands beside %s; exactly one of client_secret, certificate, federated_token and managed_identity is wanted", strings.Join(without(own, v.last(key, own)), " and "))
	case user && len(own) == 1 && own[0] != "client_secret" && own[0] != "certificate":
		v.fault(key+"."+own[0], "stands beside user; a user stands alone, or beside client_secret or certificate")
	}
	if next := key + ".next_client_secret"; v.has(next) && !v.has(key+".client_secret") {
		v.fault(next, "stands without client_secret; it is the second of two secrets")
	}
}

// last gives the kind that stands last in the file.
func (v *validator) last(key string, kinds []string) string {
	at := func(kind string) mark { return v.marks[key+"."+kind] }
	return slices.MaxFunc(kinds, func(a, b string) int {
		if d := at(a).line - at(b).line; d != 0 {
			return d
		}
		return at(a).column - at(b).column
	})
}

func without(list []string, word string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == word })
}

// complete checks that a tenant's credential has all that it needs, with what it
// took from tenant_defaults.
func (v *validator) complete(key string, c Credential) {
	if !v.has(key) || !v.clean(key) || v.sharedFault("credential") {
		return
	}
	if c.ManagedIdentity == nil || c.ManagedIdentity.AsAssertion {
		v.missing(key+".client_id", "the GUID of the application")
	}
	for _, kind := range proofs {
		if v.has(key+"."+kind) || v.meant[key+"."+kind] {
			return
		}
	}
	v.fault(key, "has no kind of proof; exactly one of client_secret, certificate, federated_token and managed_identity is wanted, or user")
}

// secretForms says where a secret may be.
func secretForms(kind string) string {
	if kind == kindVaulted {
		return "{env: NAME}, {file: PATH} or {key_vault: URL}"
	}
	return "{env: NAME} or {file: PATH}"
}

// secretPlace checks that a secret is in one place.
func (v *validator) secretPlace(key string, s Secret, vaulted bool) {
	if !v.has(key) || !v.clean(key) {
		return
	}
	kind, all := "", "env nor file"
	if vaulted {
		kind, all = kindVaulted, "env nor file nor key_vault"
	}
	var have []string
	for _, place := range []struct{ name, value string }{{"env", s.Env}, {"file", s.File}, {"key_vault", s.KeyVault}} {
		if place.value != "" {
			have = append(have, place.name)
		}
	}
	switch {
	case s.KeyVault != "" && !vaulted:
		v.fault(key+".key_vault", "serves client_secret and next_client_secret only; give env or file")
	case len(have) == 0:
		v.fault(key, "names neither %s; exactly one is wanted", all)
	case len(have) > 1:
		v.fault(key, "names %s; exactly one is wanted: %s", strings.Join(have, " and "), secretForms(kind))
	case s.Env != "" && !variableName(s.Env):
		// It may well be the secret itself.
		v.fault(key+".env", "is not the name of an environment variable: letters, digits and underscores")
	}
}

// user checks that a user has what the flow needs, and nothing that it does not
// use.
func (v *validator) user(credential string, u User, version TokenVersion) {
	key := credential + ".user"
	v.secretPlace(key+".password", u.Password, false)
	if !v.clean(key) {
		return
	}
	if u.Flow == FlowPassword {
		v.missing(key+".username", "the user's name; the flow password sends it")
		v.missing(key+".password", "where the password is: "+secretForms(""))
		for _, name := range []string{"token_store", "key_file"} {
			if v.has(key + "." + name) {
				v.fault(key+"."+name, "has no use with the flow password, which keeps nothing; leave it out")
			}
		}
		return
	}
	v.missing(key+".token_store", fmt.Sprintf("the file that keeps the refresh token of the flow %s", u.Flow))
	if v.has(key + ".password") {
		v.fault(key+".password", "has no use with the flow %s, where the user types it into the browser; leave it out, or choose the flow password", u.Flow)
	}
	if u.TokenStore != "" && u.TokenStore == u.KeyFile {
		v.fault(key+".key_file", "is the file of token_store; the key needs a file of its own")
	}
	if version == TokenV1 {
		v.fault(credential+".token_version", "v1 serves a user with the flow password only; leave it out, or choose that flow")
	}
}

// tokenStore refuses a token store that another tenant has: each would write its
// own refresh token over the other's.
func (v *validator) tokenStore(credential string, c Credential, seen *seen) {
	key := credential + ".user.token_store"
	if c.User == nil || c.User.TokenStore == "" || !v.clean(credential) {
		return
	}
	if first := take(&seen.stores, c.User.TokenStore, key); first != "" {
		v.clash(key, "is that of %s already; each tenant needs a file of its own", v.place(first, key))
	}
}
