package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
)

func (v *validator) egress() {
	if v.passwordInFile() {
		v.warn("egress.proxy", "the password stands in the file; take it from an environment variable, as in http://user:${NAME}@host")
	}
	v.authorities("egress.ca_file", v.c.Egress.CAFile)
	v.resolved()
}

// authorities reads a file of certificates that are trusted.
func (v *validator) authorities(key, path string) {
	if path == "" || !v.clean(key) {
		return
	}
	data, ok := v.file(key, path, false)
	if ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
		v.fault(key, "the file holds no certificate in PEM form")
	}
}

// maxPEMBytes bounds a file of certificates or keys; the bundle of all public
// authorities has a quarter of it.
const maxPEMBytes = 1 << 20

// file reads a file that everything depends on. private says that others should
// not be able to.
func (v *validator) file(key, path string, private bool) ([]byte, bool) {
	data, problem := v.contents(key, path, private)
	if problem != "" {
		v.fault(key, "%s", problem)
	}
	return data, problem == ""
}

// contents reads a file that the configuration names. problem says why it is of
// no use, or is empty.
func (v *validator) contents(key, path string, private bool) (data []byte, problem string) {
	data, mode, err := readFile(path, maxPEMBytes)
	switch {
	case err != nil && v.fromEnv(key):
		return nil, fmt.Sprintf("the file %s cannot be read", v.called(key, path))
	case err != nil:
		return nil, err.Error()
	case len(bytes.TrimSpace(data)) == 0:
		return nil, fmt.Sprintf("the file %s is empty", v.called(key, path))
	}
	if private && openToOthers(mode) {
		v.warn(v.source(key), "mode %#o: others can read it; chmod 600", mode.Perm())
	}
	return data, ""
}

// called names a file. Where the environment says which, it shows what the
// configuration says.
func (v *validator) called(key, path string) string {
	if v.fromEnv(key) {
		return v.show(key, path)
	}
	return path
}

// keyPair checks the certificate of a listener that answers to the given hosts.
func (v *validator) keyPair(key string, t *TLS, hosts []string) {
	if t == nil || !v.certified || !v.clean(key) {
		return
	}
	v.authorities(key+".client_ca_file", t.ClientCAFile)
	cert, haveCert := v.file(key+".cert_file", t.CertFile, false)
	private, haveKey := v.file(key+".key_file", t.KeyFile, true)
	if !haveCert || !haveKey {
		return
	}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		v.fault(key, "%v", err)
		return
	}
	var strangers []string
	for i, host := range hosts {
		name, ok := parseHost(host)
		if bare, _, err := net.SplitHostPort(name); err == nil {
			name = bare
		}
		if ok && pair.Leaf.VerifyHostname(strings.Trim(name, "[]")) != nil {
			strangers = append(strangers, v.show(fmt.Sprintf("%s.hosts[%d]", strings.TrimSuffix(key, ".tls"), i), name))
		}
	}
	if len(strangers) > 0 {
		v.warn(key+".cert_file", "the certificate is not for %s, among hosts of the listener: callers that use such a name will not trust it", strings.Join(strangers, ", "))
	}
}
