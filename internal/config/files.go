package config

import "slices"

// Files lists the files and folders whose content decides about the
// configuration or a credential, each once: first the configuration file,
// tenants_dir and its files, then, sorted, secrets, certificates and their keys,
// the files of TLS and the egress proxy. Token stores are not among them, because
// the proxy writes those itself, nor are federated tokens, which change often and
// are read for each exchange. The paths are as the proxy opens them: relative ones
// start at the working directory.
func (c *Config) Files() []string {
	var files []string
	add := func(paths ...string) {
		for _, p := range paths {
			if p != "" {
				files = append(files, p)
			}
		}
	}
	add(c.Egress.CAFile)
	for _, k := range c.Relay.Keys {
		add(k.File)
	}
	for _, l := range c.Listeners {
		if l.TLS != nil {
			add(l.TLS.CertFile, l.TLS.KeyFile, l.TLS.ClientCAFile)
		}
	}
	for _, t := range c.Tenants {
		add(t.Credential.files()...)
	}
	slices.Sort(files)
	known := make(map[string]bool)
	return slices.DeleteFunc(append(slices.Clone(c.sources), files...), func(f string) bool {
		again := known[f]
		known[f] = true
		return again
	})
}

// Files lists all files that the credential is read from, token store and
// federated token too.
func (c Credential) Files() []string {
	files := c.files()
	if c.FederatedToken != nil {
		files = append(files, c.FederatedToken.File)
	}
	if c.User != nil {
		files = append(files, c.User.TokenStore)
	}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// files lists those of them whose change brings a reload; some may be empty.
func (c Credential) files() []string {
	files := []string{c.ClientSecret.File, c.NextClientSecret.File}
	if cert := c.Certificate; cert != nil {
		files = append(files, cert.File, cert.KeyFile, cert.Password.File)
	}
	if u := c.User; u != nil {
		files = append(files, u.KeyFile, u.Password.File)
	}
	return files
}
