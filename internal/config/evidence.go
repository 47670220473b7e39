package config

import (
	"fmt"
	"os"
	"strings"
)

// evidence looks whether what a tenant's credential names is there: variables
// and files. What is not there impairs this tenant and nobody else.
func (v *validator) evidence(key string, t *Tenant) {
	if !v.has(key) || !v.clean(key) {
		return
	}
	c := t.Credential
	v.secretEvidence(key+".client_secret", t.Name, c.ClientSecret)
	v.secretEvidence(key+".next_client_secret", t.Name, c.NextClientSecret)
	if cert := c.Certificate; cert != nil {
		v.fileEvidence(key+".certificate.file", t.Name, cert.File, cert.KeyFile == "")
		v.fileEvidence(key+".certificate.key_file", t.Name, cert.KeyFile, true)
		v.secretEvidence(key+".certificate.password", t.Name, cert.Password)
	}
	if c.FederatedToken != nil {
		v.fileEvidence(key+".federated_token.file", t.Name, c.FederatedToken.File, false)
	}
	if u := c.User; u != nil {
		v.secretEvidence(key+".user.password", t.Name, u.Password)
		v.loginEvidence(key+".user", t.Name, *u)
	}
}

// impaired notes that a tenant lacks what stands at key, if problem says why.
// find looks for it, once for all tenants that share the key.
func (v *validator) impaired(key, name string, find func() (problem string)) {
	source := v.source(key)
	problem, known := v.evidenced[source]
	if !known {
		problem = find()
		v.evidenced[source] = problem
	}
	if problem != "" {
		v.c.Impaired = append(v.c.Impaired, Impairment{Tenant: name, Fault: v.made(v.at(source), source, problem)})
	}
}

func (v *validator) fileEvidence(key, name, path string, private bool) {
	if path == "" {
		return
	}
	v.impaired(key, name, func() string {
		_, problem := v.contents(key, path, private)
		return problem
	})
}

func (v *validator) secretEvidence(key, name string, s Secret) {
	switch {
	case s.Env != "":
		v.impaired(key+".env", name, func() string { return v.variableProblem(key+".env", s.Env) })
	case s.File != "":
		v.impaired(key+".file", name, func() string { return v.secretFileProblem(key+".file", s) })
	}
}

func (v *validator) variableProblem(key, name string) string {
	called := "the environment variable " + name
	if v.fromEnv(key) {
		called = "the environment variable that it names"
	}
	switch value, set := v.lookup(name); {
	case !set:
		return called + " is not set"
	case strings.TrimSpace(value) == "":
		return called + " is empty"
	}
	return ""
}

func (v *validator) secretFileProblem(key string, s Secret) string {
	if _, err := s.Resolve(v.lookup); err == nil {
		_, problem := v.contents(key, s.File, true)
		return problem
	} else if !v.fromEnv(key) {
		return err.Error()
	}
	return fmt.Sprintf("the file %s cannot be read or is empty", v.called(key, s.File))
}

// loginEvidence looks for what the command login leaves. The key is made with
// the first login, so that it is missed only where there was one.
func (v *validator) loginEvidence(key, name string, u User) {
	if u.TokenStore == "" {
		return
	}
	if _, err := os.Stat(u.TokenStore); os.IsNotExist(err) {
		v.impaired(key+".token_store", name, func() string {
			return fmt.Sprintf("nobody has signed in yet: the file %s does not exist; run defender-proxy login %s", v.called(key+".token_store", u.TokenStore), name)
		})
		return
	}
	v.fileEvidence(key+".token_store", name, u.TokenStore, true)
	v.fileEvidence(key+".key_file", name, u.KeyFile, true)
}
