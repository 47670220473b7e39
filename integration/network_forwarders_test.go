//go:build network

package integration

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	corpUser = "soc"
	// Full of what means something in a URL.
	corpPassword = "canary-p:ss@w/rd #1%"
	corpVariable = "CORP_PROXY_PASSWORD"

	plainPort  = "3128"
	securePort = "3129"
	socksPort  = "1080"
)

// inURL is a password as a URL holds it.
func inURL(password string) string {
	_, p, _ := strings.Cut(url.UserPassword("u", password).String(), ":")
	return p
}

// restricted leaves the office the way to the proxies of the network and to the
// names alone, and to what else is named.
func (w *wide) restricted(more ...string) {
	w.t.Helper()
	w.net.ip("office", "route del default")
	for _, a := range append([]string{corpAddress, namesAddress}, more...) {
		w.net.ip("office", "route add "+a+"/32 via "+address("office", 1))
	}
}

// through sets egress.proxy to one of the network's proxies, with the user and
// the password of the environment.
func through(scheme, port string) func(object) {
	return func(c object) {
		c["egress"].(object)["proxy"] = fmt.Sprintf("%s://%s:${%s}@%s:%s", scheme, corpUser, corpVariable, corpHost, port)
	}
}

// forwarder is a proxy of the network that runs in the place egress.
type forwarder struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string
	log   *output // what it writes to its standard outputs
	ended chan struct{}
}

func (w *wide) forwarder(dir string, cmd *exec.Cmd, ports ...string) *forwarder {
	w.t.Helper()
	f := &forwarder{t: w.t, cmd: w.net.command("egress", cmd), dir: dir, log: new(output), ended: make(chan struct{})}
	f.cmd.Stdout, f.cmd.Stderr = f.log, f.log
	if err := f.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = f.cmd.Wait() // it was told to end, or eventually says that it did
		close(f.ended)
	}()
	w.t.Cleanup(f.stop)
	for _, port := range ports {
		w.eventually("the network's proxy listens", func() error {
			select {
			case <-f.ended:
				w.t.Fatalf("it ended:\n%s\n%s", f.log, f.read("cache.log"))
			default:
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			c, err := w.net.dial(ctx, "egress", corpAddress+":"+port)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	return f
}

// stop ends the proxy with its helpers.
func (f *forwarder) stop() {
	_ = f.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-f.ended:
	case <-time.After(patience):
		_ = f.cmd.Process.Kill()
		<-f.ended
		f.t.Errorf("the network's proxy did not end within %v", patience)
	}
	if f.t.Failed() {
		f.t.Logf("the network's proxy:\n%s\n%s", f.log, f.read("access.log"))
	}
}

func (f *forwarder) read(name string) string {
	text, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		f.t.Error(err)
	}
	return string(text)
}

// squidUser is who Debian's squid becomes when root starts it.
const squidUser = "proxy"

// squid starts Debian's squid with Basic authentication, in plain and with TLS.
// It does not connect to the names that are closed.
func (w *wide) squid(closed ...string) *forwarder {
	w.t.Helper()
	// Not below a folder that is root's alone.
	dir, err := os.MkdirTemp("", "defender-proxy-squid-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { os.RemoveAll(dir) })
	cert, key := certificate(w.t, corpHost)
	// Squid calls an unsalted MD5 a password, and it is the one form that needs no
	// other program to make.
	sum := md5.Sum([]byte(corpPassword))
	rule := ""
	if len(closed) > 0 {
		rule = "acl closed dstdomain " + strings.Join(closed, " ") + "\nhttp_access deny closed\n"
	}
	conf := strings.NewReplacer("DIR", dir, "ADDRESS", corpAddress, "NAMES", namesAddress, "RULE", rule).Replace(`
visible_hostname proxy.corp.example
http_port ADDRESS:` + plainPort + `
https_port ADDRESS:` + securePort + ` tls-cert=DIR/cert.pem tls-key=DIR/key.pem
dns_nameservers NAMES
hosts_file /etc/hosts
auth_param basic program /usr/lib/squid/basic_ncsa_auth DIR/users
auth_param basic realm corp
auth_param basic children 1 startup=1
acl known proxy_auth REQUIRED
http_access deny !known
RULE
http_access allow known
http_access deny all
cache deny all
pinger_enable off
max_filedescriptors 1024
shutdown_lifetime 0 seconds
pid_filename none
coredump_dir DIR
cache_log DIR/cache.log
logformat corp %rm %ru %un %>Hs
access_log stdio:DIR/access.log corp
`)
	owner, err := user.Lookup(squidUser)
	if err != nil {
		w.t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		w.t.Fatal(err)
	}
	for name, text := range map[string]string{
		"squid.conf": conf, "users": corpUser + ":" + hex.EncodeToString(sum[:]) + "\n", "cert.pem": string(cert), "key.pem": string(key),
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chown(path, uid, -1)); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.Chown(dir, uid, -1); err != nil {
		w.t.Fatal(err)
	}
	w.trust(cert)
	return w.forwarder(dir, exec.Command("/usr/sbin/squid", "-N", "-f", filepath.Join(dir, "squid.conf")), plainPort, securePort)
}

// trust adds a certificate to those of egress.ca_file.
func (w *wide) trust(cert []byte) {
	w.t.Helper()
	w.write("ca.pem", slices.Concat(w.sim.CA(), cert))
}

// microsocks starts Debian's microsocks, a SOCKS5 proxy with user and password.
func (w *wide) microsocks() *forwarder {
	w.t.Helper()
	return w.forwarder(w.t.TempDir(), exec.Command("/usr/bin/microsocks", "-i", corpAddress, "-p", socksPort, "-u", corpUser, "-P", corpPassword), socksPort)
}

// tunnels lists the destinations that the proxy was asked for, each once. Squid
// writes them down when they end.
func (f *forwarder) tunnels() []string {
	seen := make(map[string]bool)
	for line := range strings.Lines(f.read("access.log")) {
		var method, target, who string
		var status int
		if strings.Contains(line, "error:transaction-end-before-headers") {
			continue // somebody looked whether it listens
		}
		if _, err := fmt.Sscan(line, &method, &target, &who, &status); err != nil || method != http.MethodConnect || who != corpUser {
			f.t.Errorf("the proxy's log has a line that is no CONNECT of %s: %q", corpUser, line)
			continue
		}
		seen[target] = true
	}
	for line := range strings.Lines(f.log.String()) {
		if _, target, ok := strings.Cut(strings.TrimSpace(line), ": connected to "); ok {
			seen[target] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
