//go:build network

package integration

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// passwordNowhere looks for a password in everything that the proxy gave away.
func (w *wide) passwordNowhere(password string, more map[string][]byte) {
	w.t.Helper()
	given := map[string][]byte{"log": w.stderr.bytes(), "records": w.stdout.bytes()}
	maps.Copy(given, more)
	for _, form := range []string{
		password, inURL(password), url.QueryEscape(password), "canary-p",
		base64.StdEncoding.EncodeToString([]byte(corpUser + ":" + password)),
	} {
		for what, text := range given {
			if bytes.Contains(text, []byte(form)) {
				w.t.Errorf("%s holds the password of the network's proxy (%q):\n%s", what, form, text)
			}
		}
	}
	for _, r := range w.sim.Requests() {
		if r.Header.Get("Proxy-Authorization") != "" {
			w.t.Errorf("Microsoft was sent what is the network's proxy's: %+v", r)
		}
	}
}

// pages reads everything that the operator and a caller can look at.
func (w *wide) pages() map[string][]byte {
	w.t.Helper()
	given := make(map[string][]byte)
	for _, path := range []string{"/", "/metrics", "/-/ready", "/-/regions", "/-/tenants", "/-/usage"} {
		given["admin "+path] = w.get(w.admin + path).body
	}
	for _, path := range []string{"/", "/-/whoami", "/-/operations", "/-/explain?method=GET&path=/api/alerts"} {
		given["callers "+path] = w.get(path).body
	}
	return given
}

// told runs a command in the office and gives all that it prints.
func (w *wide) told(env []string, args ...string) []byte {
	w.t.Helper()
	var out bytes.Buffer
	cmd := w.office(env, args...)
	cmd.Stdout, cmd.Stderr = io.Writer(&out), &out
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		w.t.Fatal(err)
	}
	return out.Bytes()
}

// saysWhatToDo checks that texts and the log name what refused and the setting
// that mends it.
func (w *wide) saysWhatToDo(texts map[string][]byte) {
	w.t.Helper()
	const refused = "the network's proxy refused (407): set its user and password in egress.proxy"
	for what, text := range texts {
		if !bytes.Contains(text, []byte(refused)) {
			w.t.Errorf("%s does not say %q:\n%s", what, refused, text)
		}
	}
	w.eventually("the log says what to do", func() error { return w.logged(refused) })
}

// The office reaches nothing but the network's proxy. With its user and password
// everything goes through it: tokens, probes, requests. It finds the names; the
// office cannot. What NO_PROXY names goes straight. When the way behind the proxy
// falls into a black hole, whoever waits is answered by another region.
func TestNetworkEverythingGoesThroughTheProxyOfTheNetwork(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, scheme, port string
		start              func(*wide) *forwarder
	}{
		{"squid with Basic", "http", plainPort, func(w *wide) *forwarder { return w.squid() }},
		{"squid that the environment names", "", plainPort, func(w *wide) *forwarder { return w.squid() }},
		{"squid with Basic, over TLS", "https", securePort, func(w *wide) *forwarder { return w.squid() }},
		{"microsocks with user and password", "socks5", socksPort, (*wide).microsocks},
		{"microsocks, told to find the names", "socks5h", socksPort, (*wide).microsocks},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			env := []string{corpVariable + "=" + corpPassword, "NO_PROXY=" + graphHost}
			config := through(tc.scheme, tc.port)
			if tc.scheme == "" {
				env = append(env, fmt.Sprintf("HTTPS_PROXY=http://%s:%s@%s:%s", corpUser, inURL(corpPassword), corpHost, tc.port))
				config = nil
			}
			w := newWide(t, setup{config: config})
			w.restricted(graphAddress)
			f := tc.start(w)
			given := map[string][]byte{"check": w.told(env, "check", "--config", w.file, "--online")}
			if check := given["check"]; !bytes.Contains(check, []byte("eu")) || bytes.Contains(check, []byte("cannot be reached")) || bytes.Contains(check, []byte("No region answers")) {
				t.Errorf("check --online says %s", check)
			}
			w.serve(env...)
			w.ready()
			w.nearest("eu")
			w.reads(3, "eu")
			if a := w.get("/v1.0/security/alerts_v2?$top=1"); a.status != http.StatusOK {
				t.Errorf("Graph, past the proxy: %v", a)
			}
			if a := w.do(http.MethodPost, "/api/advancedqueries/run", `{"Query":"DeviceInfo | take 1"}`); a.status != http.StatusOK || a.hop() != "eu" {
				t.Errorf("a hunting query: %v", a)
			}
			w.strike("eu", simulator.Fault{Kind: simulator.FaultHang, Match: "/api/machines"})
			waiting := w.later(http.MethodGet, "/api/machines?$top=1", "")
			w.arrived(http.MethodGet, "/api/machines")
			w.net.swallow(address("eu", 2))
			w.answered("the read that was waiting", waiting, detection+slack, "uk", "us")
			w.reads(10, "uk", "us")
			w.strike("eu", noFault)
			w.healed("eu", func() { w.net.pass(address("eu", 2)) })
			maps.Copy(given, w.pages())

			w.finish()
			var want []string
			for _, name := range []string{regionHost("eu"), loginHost, regionHost("uk"), regionHost("us")} {
				want = append(want, name+":443")
			}
			slices.Sort(want)
			w.eventually("the proxy has written down its tunnels", func() error {
				if got := f.tunnels(); !slices.Equal(got, want) {
					return fmt.Errorf("it was asked for %q, want %q", got, want)
				}
				return nil
			})
			if asked := w.names.askedBy(address("office", 2)); !slices.Equal(asked, []string{graphHost, corpHost}) {
				t.Errorf("the office looked up %q, want what it calls itself: %q", asked, []string{graphHost, corpHost})
			}
			w.passwordNowhere(corpPassword, given)
		})
	}
}

// The password is wrong. Callers are told that the network's proxy refuses and
// where its user and password are set; so are the log, the page of the regions
// and the command for them. None of these tells the password.
func TestNetworkWrongPasswordOfTheProxyIsSaidAndNotShown(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, scheme, port string
		start              func(*wide) *forwarder
	}{
		{"squid", "http", plainPort, func(w *wide) *forwarder { return w.squid() }},
		{"squid over TLS", "https", securePort, func(w *wide) *forwarder { return w.squid() }},
		{"microsocks", "socks5", socksPort, (*wide).microsocks},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			const wrong = "canary-p:wr@ng"
			// Entra ID is called straight, or there would be no token, and no request
			// would come as far as the regions.
			w := newWide(t, setup{unready: true, config: through(tc.scheme, tc.port)})
			w.restricted(entraAddress)
			tc.start(w)
			env := []string{corpVariable + "=" + wrong, "NO_PROXY=" + loginHost}
			given := map[string][]byte{
				"check":   w.told(env, "check", "--config", w.file, "--online"),
				"regions": w.told(env, "regions", "--config", w.file),
			}
			w.serve(env...)
			var a answer
			w.eventually("a read is refused for want of a region", func() error {
				a = w.get("/api/alerts?$top=1")
				if code, _ := a.refused(); code != "RegionUnavailable" {
					return fmt.Errorf("got %v", a)
				}
				return nil
			})
			_, message := a.refused()
			given["refusal"] = a.body
			maps.Copy(given, w.pages())
			w.saysWhatToDo(map[string][]byte{"the refusal": []byte(message), "regions": given["regions"], "/-/regions": given["admin /-/regions"]})
			t.Logf("%d: %s", a.status, message)
			if a.status != http.StatusBadGateway || strings.Contains(message, corpHost) {
				t.Errorf("got %v", a)
			}
			if n := len(w.upstream()); n != 0 {
				t.Errorf("%d requests arrived", n)
			}
			w.finish()
			w.passwordNowhere(wrong, given)
		})
	}
}

// Without the right password there is no token either: the page of readiness says
// that the network's proxy refused, and callers are told that Entra ID cannot be
// reached.
func TestNetworkWrongPasswordOfTheProxyLeavesNoToken(t *testing.T) {
	t.Parallel()
	const wrong = "canary-p:wr@ng"
	w := newWide(t, setup{unready: true, config: through("http", plainPort)})
	w.restricted()
	w.squid()
	w.serve(corpVariable + "=" + wrong)
	a := w.get("/api/alerts?$top=1")
	code, message := a.refused()
	if a.status != http.StatusServiceUnavailable || code != "TokenUnavailable" {
		t.Errorf("got %v", a)
	}
	t.Logf("%d: %s", a.status, message)
	given := w.pages()
	given["refusal"] = a.body
	w.saysWhatToDo(map[string][]byte{"/-/ready": given["admin /-/ready"]})
	w.finish()
	w.passwordNowhere(wrong, given)
}

// The network's proxy does not connect to one of the regions. That one is out,
// and the page of the regions says who refused; the others serve. Then the proxy
// itself ends, and callers are told that it is what cannot be reached.
func TestNetworkProxyThatClosesOneRegion(t *testing.T) {
	t.Parallel()
	w := newWide(t, setup{config: through("http", plainPort)})
	w.restricted()
	f := w.squid(regionHost("eu"))
	w.serve(corpVariable + "=" + corpPassword)
	w.ready()
	w.nearest("uk")
	w.reads(5, "uk")
	if page := w.get(w.admin + "/-/regions").body; !bytes.Contains(page, []byte("the network's proxy refused (403")) {
		t.Errorf("/-/regions does not say who refused: %s", page)
	}
	if n := w.relays["eu"].accepted.Load(); n != 0 {
		t.Errorf("%d connections went to eu", n)
	}
	f.stop()
	w.eventually("a read is refused for want of the network's proxy", func() error {
		a := w.get("/api/alerts?$top=1")
		if code, message := a.refused(); code != "RegionUnavailable" || !strings.Contains(message, "the network's proxy (egress.proxy)") {
			return fmt.Errorf("got %v", a)
		}
		return nil
	})
}
