//go:build services

package audit

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The real server that most have, as Debian ships it (rsyslog, rsyslog-openssl): it
// understands every header and every member, whichever way a record comes.
func TestServiceRsyslogUnderstandsEachRecord(t *testing.T) {
	dir := shortDir(t)
	_, pool, cert, key := identity(t)
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, content, 0o600))
		return path
	}
	udp, tcp, secure := freePort(t), freePort(t), freePort(t)
	socket, out := filepath.Join(dir, "log"), filepath.Join(dir, "out")
	config := file("rsyslog.conf", fmt.Appendf(nil, `
global(workDirectory="%[1]s" maxMessageSize="64k" net.enableDNS="off"
  defaultNetstreamDriverCAFile="%[2]s" defaultNetstreamDriverCertFile="%[2]s" defaultNetstreamDriverKeyFile="%[3]s")
module(load="imudp")
module(load="imtcp")
module(load="imuxsock" sysSock.use="off")
module(load="mmjsonparse")
template(name="fields" type="string"
  string="%%protocol-version%% %%pri%% %%app-name%% %%procid%% %%msgid%% %%structured-data%% %%$!request_id%% %%$!path%% %%parsesuccess%%|%%msg%%\n")
ruleset(name="audit") {
  action(type="mmjsonparse" cookie="")
  action(type="omfile" file="%[4]s" template="fields")
}
input(type="imudp" address="127.0.0.1" port="%[5]d" ruleset="audit")
input(type="imtcp" address="127.0.0.1" port="%[6]d" ruleset="audit")
input(type="imtcp" address="127.0.0.1" port="%[7]d" ruleset="audit"
  streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imuxsock" socket="%[8]s" useSpecialParser="off" ruleset="audit")
`, dir, file("cert.pem", cert), file("key.pem", key), out, udp, tcp, secure, socket))

	var said lockedBuffer
	server := exec.Command("rsyslogd", "-n", "-f", config, "-i", filepath.Join(dir, "pid"))
	server.Stdout, server.Stderr = &said, &said
	must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
		if t.Failed() {
			t.Logf("rsyslogd says: %s", said.String())
		}
	})
	eventually(t, "rsyslogd listens", func() bool {
		c, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", secure), time.Second)
		if err != nil {
			return false
		}
		_, err = os.Stat(socket)
		return c.Close() == nil && err == nil
	})

	seen := 0
	for _, s := range []Settings{
		{Syslog: fmt.Sprintf("udp://127.0.0.1:%d", udp)},
		{Syslog: fmt.Sprintf("tcp://127.0.0.1:%d", tcp)},
		{Syslog: fmt.Sprintf("tls://127.0.0.1:%d", secure), TLS: &tls.Config{RootCAs: pool}},
		{Syslog: "unix:" + socket},
	} {
		scheme, _, _ := strings.Cut(s.Syslog, ":")
		t.Run(scheme, func(t *testing.T) {
			s.Version, s.Chain = `v1 "]\ x`, true
			path, log := fileLog(t, s)
			stop := running(t, log)
			long := fullRecord()
			long.Path = "/api/machines/" + strings.Repeat("x", 6000)
			for i := range 50 {
				r := fullRecord()
				if i == 40 {
					r = long
				}
				r.ID = fmt.Sprint(scheme, i)
				must(t, log.Write(r))
			}
			eventually(t, "all are there", func() bool {
				text, _ := os.ReadFile(out)
				return bytes.Count(text, []byte("\n")) == seen+50
			})
			stop()
			got := linesOf(t, out)[seen:]
			seen += 50
			for i, line := range linesOf(t, path) {
				var r struct{ Path string }
				must(t, json.Unmarshal([]byte(line), &r))
				// Of a quoted value rsyslog prints what came.
				want := fmt.Sprintf(`1 110 defender-proxy %d request [meta sequenceId="%d"][origin software="defender-proxy" swVersion="v1\"\]\\x"] %s%d %s OK|%s`,
					os.Getpid(), i+1, scheme, i, r.Path, line)
				if got[i] != want {
					t.Fatalf("rsyslogd understood\n%s\nwant\n%s", got[i], want)
				}
			}
		})
	}
}

// freePort gives a port that is free for TCP and UDP.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l := listenOn(t, "tcp", "127.0.0.1:0")
		port := l.Addr().(*net.TCPAddr).Port
		c, err := net.ListenPacket("udp", l.Addr().String())
		_ = l.Close()
		if err == nil {
			_ = c.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
