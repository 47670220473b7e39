package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"defender-proxy/internal/standin"
)

// words are for a person with a terminal and an editor. Whatever is not to be pasted
// begins with #, so that nothing happens when a piece too much is.
func (s *standIn) words() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	say("# 1. NAMES. They have to lead to %s for the tools that are to reach the", s.Address)
	say("# proxy. These lines do that on one machine, in its hosts file:")
	say("#   Linux, macOS   /etc/hosts")
	say(`#   Windows        C:\Windows\System32\drivers\etc\hosts   (as administrator)`)
	say("# The DNS server of a network can give the same answers to all of its machines.")
	say("# Whatever else calls these names there finds the proxy too: nobody can sign in at")
	say("# Microsoft any more, in a browser or a program. Leave out what the tools do not use.")
	say("")
	for _, line := range s.Hosts {
		say("%s", line)
	}
	say("")
	s.trust(say)
	s.listener(say)
	s.resolve(say)
	return b.String()
}

// trust says how tools come to trust the authority. Two are easily got wrong:
// update-ca-certificates(8) takes files whose names end in .crt alone, and
// REQUESTS_CA_BUNDLE of Python's requests replaces what is trusted, while
// NODE_EXTRA_CA_CERTS of Node.js adds to it (manpages.ubuntu.com,
// requests.readthedocs.io and nodejs.org/api/cli.html, read 2026-11).
func (s *standIn) trust(say func(string, ...any)) {
	ca := standin.In("").CA
	switch m := s.Made; {
	case m == nil:
		say("# 2. TRUST. The tools have to trust the authority of the listener's certificate.")
		say("# defender-proxy stand-in --dir DIR makes both, for exactly these names.")
	case m.NewCA:
		ca = m.CA
		say("# 2. TRUST. A new authority was made, which can certify these names and no others")
		say("# until %s, and a certificate until %s. Tools have to trust", m.CAUntil.Format("2006-01-02"), m.Until.Format("2006-01-02"))
		say("# the authority; its key, %s, is for making certificates alone.", filepath.Base(m.CAKey))
	default:
		ca = m.CA
		say("# 2. TRUST. The certificate was renewed until %s. Tools that trust the", m.Until.Format("2006-01-02"))
		say("# authority, which is the one from before (until %s), need nothing new.", m.CAUntil.Format("2006-01-02"))
	}
	q, id := shellWord(ca), "defender-proxy-stand-in"
	if s.Made != nil {
		id += "-" + s.Made.CASHA256[:8] // another authority does not take this one's place
	}
	say("# On another machine, copy %s there first.", filepath.Base(ca))
	say("")
	say("# Debian, Ubuntu")
	say("sudo cp %s /usr/local/share/ca-certificates/%s.crt && sudo update-ca-certificates", q, id)
	say("# Red Hat, Fedora")
	say("sudo cp %s /etc/pki/ca-trust/source/anchors/%s.pem && sudo update-ca-trust", q, id)
	say("# macOS")
	say("sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain %s", q)
	say("# Windows, as administrator, with the file copied as ca.crt: PowerShell, or any prompt")
	say(`Import-Certificate -FilePath ca.crt -CertStoreLocation Cert:\LocalMachine\Root`)
	say("certutil -addstore Root ca.crt")
	say("# Node.js has a list of its own, and adds this file to it")
	say("export NODE_EXTRA_CA_CERTS=%s", q)
	say("# Python with requests has one too; this gives it the system's, after the above")
	say("export REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt   # Red Hat: /etc/pki/tls/certs/ca-bundle.crt")
	say("# Java has one for each installation")
	say("keytool -importcert -cacerts -storepass changeit -noprompt -alias %s -file %s", id, q)
	say("")
}

// listener gives the listener in YAML, or what those lack that are there.
func (s *standIn) listener(say func(string, ...any)) {
	l := s.Listener
	tls := fmt.Sprintf("    tls: {cert_file: %s, key_file: %s}", yamlWord(l.TLS.CertFile), yamlWord(l.TLS.KeyFile))
	if s.have != nil {
		say("# 3. LISTENER. The configuration has these names under hosts of %s.", strings.Join(s.have, " and "))
		say("# Add this to each listener there that has no tls, and change nothing else:")
		say("")
		say("%s", tls)
		say("")
		return
	}
	say("# 3. LISTENER. In the configuration of the proxy, under listeners. Put the groups")
	say("# that may use it under clients. To a listener that is there add hosts and tls alone.")
	if port := l.Address[strings.LastIndexByte(l.Address, ':')+1:]; port == "443" && runtime.GOOS == "linux" {
		say("# On Linux a port below 1024 takes CAP_NET_BIND_SERVICE, or a socket of systemd.")
	}
	say("")
	say("listeners:")
	say("  - address: %q", l.Address)
	say("    hosts:")
	for _, name := range l.Hosts {
		say("      - %s", name)
	}
	say("%s", tls)
	groups := make([]string, len(l.Clients))
	for i, name := range l.Clients {
		groups[i] = yamlWord(name) // which may mean something else in YAML, such as null
	}
	say("    clients: [%s]", strings.Join(groups, ", "))
	say("")
}

// resolve says when the proxy needs another way to Microsoft.
func (s *standIn) resolve(say func(string, ...any)) {
	say("# 4. THE PROXY'S OWN WAY OUT. Where the names lead to the proxy on its own machine")
	say("# too, by its hosts file or its DNS server, the proxy would call itself. It notices,")
	say("# and says so. Give it a DNS server that knows the real addresses, none of this")
	say("# machine, for those answer from the hosts file:")
	say("")
	say("#egress:")
	say("#  resolve: {servers: [10.0.0.53]}")
}

// shellWord quotes a path for a shell where it needs that.
func shellWord(path string) string {
	if strings.Trim(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// yamlWord quotes a path or a name for YAML, where backslashes mean themselves between single
// quotes.
func yamlWord(path string) string { return "'" + strings.ReplaceAll(path, "'", "''") + "'" }
