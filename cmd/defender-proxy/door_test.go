package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// caller is an HTTP client that connects in its own way.
func caller(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: dial}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// from connects from an address of this machine.
func from(address string) func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
}

// ask sends a request and gives status, headers and body of the answer.
func ask(t *testing.T, c *http.Client, method, url, body string, header ...string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

// A socket in the file system, whose callers the kernel names.
func TestAUnixSocketServesThoseThatItsGroupsName(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Logf("on %s no peer of a socket is named", runtime.GOOS)
		return
	}
	l := newLab(t, func(l *lab) {
		l.config["listeners"] = []object{
			{"address": "127.0.0.1:0", "clients": []string{"local"}},
			{"address": "unix:proxy.sock", "socket": object{"mode": "0600"}, "clients": []string{"me"}},
		}
		l.config["clients"] = []object{
			{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{"read"}},
			{"name": "me", "from": []string{fmt.Sprintf("unix:uid=%d", os.Getuid())}, "allow": []string{"alerts.*"}},
		}
	})
	info, err := os.Stat(l.path("proxy.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket is %v, %v", info, err)
	}
	c := caller(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.path("proxy.sock"))
	})
	if status, _, body := ask(t, c, http.MethodGet, "http://localhost/api/alerts", ""); status != http.StatusOK {
		t.Errorf("alerts: %d %s", status, body)
	}
	if status, _, body := ask(t, c, http.MethodGet, "http://localhost/api/machines", ""); status != http.StatusForbidden || !strings.Contains(body, "NotGranted") {
		t.Errorf("machines: %d %s", status, body)
	}
	l.wants("/api/machines", http.StatusOK)
	// Who the groups are changes with a reload, the file does not.
	l.config["clients"].([]object)[1]["from"] = []string{"unix:uid=4000000000"}
	l.config["listeners"].([]object)[1]["socket"] = object{"mode": "0660"}
	l.save()
	if done := l.reload(); !slices.Equal(done.NeedsRestart, []string{"listeners[1].socket"}) {
		t.Errorf("needs a restart: %q", done.NeedsRestart)
	}
	if status, _, body := ask(t, c, http.MethodGet, "http://localhost/api/alerts", ""); status != http.StatusForbidden || !strings.Contains(body, "ClientNotAdmitted") {
		t.Errorf("another's socket: %d %s", status, body)
	}
}

func TestALocalKeyOpensItsGroupAlone(t *testing.T) {
	const key = "canary-local-key-4f9a17c2"
	l := newLab(t, func(l *lab) {
		l.config["clients"] = []object{
			{"name": "keyed", "from": []string{"127.0.0.0/8"}, "headers": object{"x-api-key": fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(key)))}, "allow": []string{"read"}},
			{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{"alerts.*"}},
		}
	})
	for _, tc := range []struct {
		name, key string
		want      int
	}{{"the key", key, 200}, {"another key", key + "x", 403}, {"no key", "", 403}} {
		var header []string
		if tc.key != "" {
			header = []string{"X-Api-Key", tc.key}
		}
		if status, _, body := ask(t, client, http.MethodGet, l.url+"/api/machines", "", header...); status != tc.want {
			t.Errorf("%s: %d %s, want %d", tc.name, status, body, tc.want)
		}
	}
	for _, r := range l.sim.Requests() {
		if strings.Contains(fmt.Sprint(r), key) {
			t.Errorf("the key went to Microsoft: %v", r)
		}
	}
	if strings.Contains(l.stdout.String()+l.stderr.String(), key) {
		t.Error("the key is in the output")
	}
}

func TestACallerBehindAProxyOrABalancerIsWhoTheySay(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.config["listeners"] = []object{
			{"address": "127.0.0.1:0", "trusted_proxies": []string{"127.0.0.1"}},
			{"address": "127.0.0.4:0", "balancers": []string{"127.0.0.1"}},
		}
		l.config["clients"] = []object{{"name": "remote", "from": []string{"10.9.8.0/24"}, "allow": []string{"read"}}}
	})
	url := l.url + "/api/alerts"
	if status, _, body := ask(t, client, http.MethodGet, url, "", "X-Forwarded-For", "10.9.8.7"); status != http.StatusOK {
		t.Errorf("named by the proxy: %d %s", status, body)
	}
	if status, _, body := ask(t, client, http.MethodGet, url, "", "X-Forwarded-For", "10.9.8.7, 192.0.2.1"); status != http.StatusForbidden {
		t.Errorf("named by the caller: %d %s", status, body)
	}
	direct := caller(t, from("127.0.0.5"))
	if status, _, body := ask(t, direct, http.MethodGet, url, "", "X-Forwarded-For", "10.9.8.7"); status != http.StatusForbidden {
		t.Errorf("from elsewhere: %d %s", status, body)
	}

	var second string
	for line := range strings.Lines(l.stderr.String()) {
		var entry struct{ Message, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "listening" && strings.HasPrefix(entry.Address, "127.0.0.4:") {
			second = entry.Address
		}
	}
	balanced := caller(t, func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := from("127.0.0.1")(ctx, network, address)
		if err != nil {
			return nil, err
		}
		_, err = c.Write(proxyV2(netip.MustParseAddrPort("10.9.8.7:4711"), netip.MustParseAddrPort(address)))
		return c, err
	})
	if status, _, body := ask(t, balanced, http.MethodGet, "http://"+second+"/api/alerts", ""); status != http.StatusOK {
		t.Errorf("named by the balancer: %d %s", status, body)
	}
	plain := caller(t, func(ctx context.Context, network, _ string) (net.Conn, error) {
		return from("127.0.0.1")(ctx, network, second)
	})
	if answer, err := plain.Get("http://" + second + "/api/alerts"); err == nil {
		t.Errorf("without a header: %s", answer.Status)
	}
	if want := "closed a connection from 127.0.0.1: no header of PROXY protocol came first"; !strings.Contains(l.stderr.String(), want) {
		t.Errorf("the log does not say %q:\n%s", want, l.stderr.String())
	}
	for _, via := range []string{`"address":"10.9.8.7"`, `"via":"127.0.0.1"`} {
		if !strings.Contains(l.stdout.String(), via) {
			t.Errorf("no record has %s\n%s", via, l.stdout.String())
		}
	}
}

// proxyV2 is a header of PROXY protocol version 2 for TCP over IPv4
// (haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2).
func proxyV2(from, to netip.AddrPort) []byte {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from.Port()), to.Port())
}

func TestTwoPeopleAreNeededWhereTheConfigurationSaysSo(t *testing.T) {
	l := newLab(t, func(l *lab) {
		if err := l.sim.SetPermissions(labID(0), labApp, "mde", "Machine.Read.All", "Machine.Isolate", "Alert.Read.All"); err != nil {
			l.t.Fatal(err)
		}
		l.config["clients"] = []object{
			{"name": "soc", "from": []string{"127.0.0.1"}, "allow": []string{"read", "respond"}},
			{"name": "soc-leads", "from": []string{"127.0.0.2"}, "allow": []string{"read"}},
		}
		l.config["approval"] = object{"operations": []string{"machines.isolate"}, "by": []string{"soc-leads"}, "within": "5m"}
		l.config["audit"] = object{"file": "audit.jsonl", "chain": true, "annotate": true}
	})
	lead := caller(t, from("127.0.0.2"))
	isolated := func() (n int) {
		for _, r := range l.sim.Requests() {
			if r.Method == http.MethodPost && strings.HasSuffix(r.Target, "/isolate") {
				n++
			}
		}
		return n
	}
	url := l.url + "/api/machines/" + l.sim.MachineID() + "/isolate"
	const body = `{"Comment":"Isolate","IsolationType":"Full"}`
	status, header, text := ask(t, client, http.MethodPost, url, body)
	id := header.Get("X-Approval-Id")
	if status != http.StatusAccepted || id == "" {
		t.Fatalf("got %d %s, want 202 and an id", status, text)
	}
	decide := l.admin + "/-/approvals/" + id + "/approve"
	if status, _, text := ask(t, client, http.MethodPost, decide, ""); status != http.StatusForbidden {
		t.Errorf("whoever asked approves: %d %s", status, text)
	}
	// What waits outlives a reload.
	l.config["policy"] = object{"unknown_operations": "read"}
	l.save()
	l.reload()
	if status, _, text := ask(t, lead, http.MethodPost, decide, ""); status != http.StatusOK {
		t.Errorf("the lead approves: %d %s", status, text)
	}
	if isolated() != 0 {
		t.Error("it was sent before it was repeated")
	}
	if status, _, text := ask(t, client, http.MethodPost, url, body, "X-Approval-Id", id); status != http.StatusCreated {
		t.Errorf("the approved call: %d %s", status, text)
	}
	if status, _, text := ask(t, client, http.MethodPost, url, body, "X-Approval-Id", id); status != http.StatusForbidden {
		t.Errorf("the approved call again: %d %s", status, text)
	}
	if n := isolated(); n != 1 {
		t.Errorf("it was sent %d times, want once", n)
	}

	data, err := os.ReadFile(l.path("audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"approval":"` + id, `"approved_by":"soc-leads"`, `"annotated":true`, `"prev":"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("the records lack %s\n%s", want, data)
		}
	}
	if status, text := l.get(l.admin + "/-/usage"); status != http.StatusOK || !strings.Contains(text, "machines.isolate") {
		t.Errorf("usage: %d %s", status, text)
	}

	// Without approval nothing waits.
	delete(l.config, "approval")
	l.save()
	l.reload()
	if status, _, text := ask(t, client, http.MethodPost, url, body); isolated() != 2 {
		t.Errorf("after approval was taken out: %d %s", status, text)
	}
}

// An entry holds for its tenants, until its end, on its condition.
func TestEntriesAreBoundAsTheConfigurationSays(t *testing.T) {
	l := newLab(t, func(l *lab) {
		if err := l.sim.SetPermissions(labID(0), labApp, "mde", "Machine.Read.All", "Machine.Isolate", "Alert.Read.All"); err != nil {
			l.t.Fatal(err)
		}
		l.config["clients"] = []object{{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []any{
			"alerts.*",
			object{"operations": []string{"machines.list"}, "until": time.Now().Add(-time.Minute).Format(time.RFC3339)},
			object{"operations": []string{"machines.isolate"}, "tenants": []string{"contoso"}, "when": `request.body.IsolationType == "Selective"`},
		}}}
	})
	l.wants("/api/alerts", http.StatusOK)
	l.wants("/api/machines", http.StatusForbidden)
	url := l.url + "/api/machines/" + l.sim.MachineID() + "/isolate"
	for kind, want := range map[string]int{"Selective": http.StatusCreated, "Full": http.StatusForbidden} {
		if status, _, text := ask(t, client, http.MethodPost, url, `{"Comment":"x","IsolationType":"`+kind+`"}`); status != want {
			t.Errorf("%s: %d %s, want %d", kind, status, text, want)
		}
	}
	l.config["clients"].([]object)[0]["grants"] = "report"
	l.save()
	l.reload()
	l.wants("/api/machines", http.StatusOK)
	if !strings.Contains(l.stdout.String(), `"reported":["NotGranted"]`) {
		t.Errorf("no record tells what would have been refused\n%s", l.stdout.String())
	}
}
