package config

import "slices"

// Files lists the files and folders whose content decides about the
// configuration or a credential, sorted and each once: the configuration file,
// tenants_dir with its files, secrets, certificates and their keys, federated
// tokens, the files of TLS and the egress proxy. Token stores are not among
// them, because the proxy writes those itself. The paths are as the proxy opens
// them: relative ones start at the working directory.
func (c *Config) Files() []string {
	files := slices.Clone(c.sources)
	add := func(paths ...string) {
		for _, p := range paths {
			if p != "" {
				files = append(files, p)
			}
		}
	}
	add(c.Egress.CAFile)
	for _, l := range c.Listeners {
		if l.TLS != nil {
			add(l.TLS.CertFile, l.TLS.KeyFile)
		}
	}
	for _, t := range c.Tenants {
		add(t.Credential.files()...)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// files lists the files that a credential is read from; some may be empty.
func (c Credential) files() []string {
	files := []string{c.ClientSecret.File, c.NextClientSecret.File}
	if cert := c.Certificate; cert != nil {
		files = append(files, cert.File, cert.KeyFile, cert.Password.File)
	}
	if c.FederatedToken != nil {
		files = append(files, c.FederatedToken.File)
	}
	if u := c.User; u != nil {
		files = append(files, u.KeyFile, u.Password.File)
	}
	return files
}
