package main

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/config"
)

// twoGroups are a group with the test in it and one without.
func twoGroups() []object {
	return []object{
		{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{"read"}},
		{"name": "other", "from": []string{"10.0.0.0/8"}, "allow": []string{"read"}},
	}
}

// What a reload narrowed is not widened again by one that takes the listener out
// or moves it.
func TestAListenerThatWasNarrowedStaysSoWhenItIsTakenOut(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.config["clients"] = twoGroups()
		l.config["listeners"] = []object{{"address": "127.0.0.1:0", "clients": []string{"local"}, "hosts": []string{"old.example"}}, {"address": "127.0.0.2:0"}}
	})
	named := func(host string) int {
		t.Helper()
		r, _ := http.NewRequest(http.MethodGet, l.url+"/api/alerts", nil)
		r.Host = host
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode
	}
	put := func(listeners ...object) {
		t.Helper()
		l.config["listeners"] = listeners
		l.save()
		l.reload()
	}
	l.wants("/api/alerts", 200)
	if got := named("old.example"); got != 200 {
		t.Errorf("its name: %d", got)
	}
	// In one step with its move it is narrowed to what both say.
	put(object{"address": "127.0.0.3:0", "clients": []string{"local"}}, object{"address": "127.0.0.2:0"})
	l.wants("/api/alerts", 200)
	if got := named("old.example"); got != 421 {
		t.Errorf("a name that was taken out: %d", got)
	}
	put(object{"address": "127.0.0.3:0", "clients": []string{"other"}}, object{"address": "127.0.0.2:0"})
	l.wants("/api/alerts", 403)
	put(object{"address": "127.0.0.2:0"})
	l.wants("/api/alerts", 403)
	if got := named("old.example"); got == 200 {
		t.Error("the name of the start is back")
	}
	// Whoever puts it back says who may use it.
	put(object{"address": "127.0.0.1:0", "clients": []string{"local"}}, object{"address": "127.0.0.2:0"})
	l.wants("/api/alerts", 200)
}

func TestTheOperatorsListenerIsForTheGroupsThatAreNamed(t *testing.T) {
	l := newLab(t, func(l *lab) { l.config["clients"] = twoGroups() })
	put := func(admin object, status int) {
		t.Helper()
		l.config["admin"] = admin
		l.save()
		l.eventually("the change is noticed", func() bool { got, _ := l.get(l.admin + "/-/tenants"); return got == status })
	}
	l.wants(l.admin+"/-/tenants", 200)
	put(object{"address": "127.0.0.1:0", "clients": []string{"local"}}, 200)
	l.reload() // it is in force
	l.wants(l.admin+"/-/tenants", 200)
	put(object{"address": "127.0.0.1:0", "clients": []string{"other"}}, 403)
	// Its move opens it to nobody.
	l.config["admin"] = object{"address": "127.0.0.3:0", "clients": []string{"other"}}
	l.save()
	l.eventually("the move is noticed", func() bool { return strings.Contains(l.stderr.String(), `"needs_restart":["admin.address"`) })
	l.wants(l.admin+"/-/tenants", 403)
	put(object{"address": "127.0.0.1:0"}, 200)
}

func TestWhatCannotChangeIsHeldAgainstWhatIsInForce(t *testing.T) {
	bind := func(address string, clients ...string) config.Listener {
		return config.Listener{Address: address, Clients: clients}
	}
	tls := &config.TLS{CertFile: "no-such.pem", KeyFile: "no-such.key"}
	groups := func(names ...string) (all []config.ClientGroup) {
		for _, n := range names {
			all = append(all, config.ClientGroup{Name: n})
		}
		return all
	}
	tenants := func(names ...string) (all []config.Tenant) {
		for _, n := range names {
			all = append(all, config.Tenant{Name: n})
		}
		return all
	}
	started := config.Config{
		Listeners: []config.Listener{bind("127.0.0.1:1", "a", "b"), bind("127.0.0.1:2")},
		Admin:     config.Admin{Address: "127.0.0.1:9"}, Clients: groups("a", "b"), Tenants: tenants("x", "y"),
	}
	started.Listeners[1].TLS = tls
	for _, tc := range []struct {
		name        string
		force, next func(*config.Config)
		want        []string // of each listener and of admin
		keys        []string
	}{
		{"nothing", nil, nil, []string{"[a b]", "all", "all"}, nil},
		{"fewer groups", nil, func(c *config.Config) { c.Listeners[0].Clients = []string{"b"} }, []string{"[b]", "all", "all"}, nil},
		{"taken out", nil, func(c *config.Config) { c.Listeners = c.Listeners[1:] }, []string{"[a b]", "all", "all"}, []string{"listeners"}},
		{"narrowed before and taken out", func(c *config.Config) { c.Listeners[0].Clients = []string{"b"} }, func(c *config.Config) { c.Listeners = c.Listeners[1:] }, []string{"[b]", "all", "all"}, []string{"listeners"}},
		{"moved and narrowed", nil, func(c *config.Config) {
			c.Listeners[0] = bind("127.0.0.1:3", "b", "c")
			c.Clients = groups("a", "b", "c")
		}, []string{"[b]", "all", "all"}, []string{"listeners[0].address"}},
		{"moved and widened", func(c *config.Config) { c.Listeners[0].Clients = []string{"b"} }, func(c *config.Config) { c.Listeners[0] = bind("127.0.0.1:3") }, []string{"[b]", "all", "all"}, []string{"listeners[0].address"}},
		{"moved to groups that have nothing in common", nil, func(c *config.Config) { c.Listeners[0] = bind("127.0.0.1:3", "c"); c.Clients = groups("a", "b", "c") }, []string{"[]", "all", "all"}, []string{"listeners[0].address"}},
		{"taken out, and a group is gone", nil, func(c *config.Config) { c.Listeners = c.Listeners[1:]; c.Clients = groups("a") }, []string{"[a]", "all", "all"}, []string{"listeners"}},
		{"one for all taken out, and a group comes", nil, func(c *config.Config) { c.Listeners = c.Listeners[:1]; c.Clients = groups("a", "b", "c") }, []string{"[a b]", "[a b]", "all"}, []string{"listeners"}},
		{"taken out, and its tenant is gone", func(c *config.Config) { c.Listeners[0].Tenant = "x" }, func(c *config.Config) { c.Listeners = c.Listeners[1:]; c.Tenants = tenants("y") }, []string{"[]", "all", "all"}, []string{"listeners"}},
		{"taken out, and the only tenant is another", func(c *config.Config) { c.Tenants = tenants("x") }, func(c *config.Config) { c.Listeners = c.Listeners[1:]; c.Tenants = tenants("y") }, []string{"[]", "all", "all"}, []string{"listeners"}},
		{"in another order", nil, func(c *config.Config) { slices.Reverse(c.Listeners) }, []string{"[a b]", "all", "all"}, nil},
		{"another certificate", nil, func(c *config.Config) { c.Listeners[1].TLS = &config.TLS{CertFile: "other.pem"} }, []string{"[a b]", "all", "all"}, []string{"listeners[1].tls"}},
		{"no certificate", nil, func(c *config.Config) { c.Listeners[1].TLS = nil }, []string{"[a b]", "all", "all"}, []string{"listeners[1].tls"}},
		{"other authorities of clients", nil, func(c *config.Config) {
			c.Listeners[1].TLS = &config.TLS{CertFile: tls.CertFile, KeyFile: tls.KeyFile, ClientCAFile: "other.pem"}
		}, []string{"[a b]", "all", "all"}, []string{"listeners[1].tls"}},
		{"other balancers", nil, func(c *config.Config) {
			c.Listeners[1].Balancers = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
		}, []string{"[a b]", "all", "all"}, []string{"listeners[1].balancers"}},
		{"another file for a socket", nil, func(c *config.Config) {
			c.Listeners[1].Socket.Mode, c.Admin.Socket.Group = 0o600, "soc"
		}, []string{"[a b]", "all", "all"}, []string{"listeners[1].socket", "admin.socket"}},
		{"other proxies, which change at once", nil, func(c *config.Config) {
			c.Listeners[1].TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
		}, []string{"[a b]", "all", "all"}, nil},
		{"other places of records", nil, func(c *config.Config) {
			c.Audit = config.Audit{File: "a", MaxBytes: 1 << 20, Keep: 3, Chain: true, Syslog: "unix:/dev/log", OTLP: "https://c/v1/logs", Annotate: true}
		}, []string{"[a b]", "all", "all"}, []string{"audit.file", "audit.max_bytes", "audit.keep", "audit.chain", "audit.syslog", "audit.otlp"}},
		{"the operator's groups", nil, func(c *config.Config) { c.Admin.Clients = []string{"a"} }, []string{"[a b]", "all", "[a]"}, nil},
		{"the operator's move", func(c *config.Config) { c.Admin.Clients = []string{"b"} }, func(c *config.Config) { c.Admin = config.Admin{Address: "127.0.0.1:8"} }, []string{"[a b]", "all", "[b]"}, []string{"admin.address"}},
		{"the operator's move and narrowing", nil, func(c *config.Config) { c.Admin = config.Admin{Address: "127.0.0.1:8", Clients: []string{"a"}} }, []string{"[a b]", "all", "[a]"}, []string{"admin.address"}},
		{"the operator's move to others", func(c *config.Config) { c.Admin.Clients = []string{"b"} }, func(c *config.Config) { c.Admin = config.Admin{Address: "127.0.0.1:8", Clients: []string{"a"}} }, []string{"[a b]", "all", "[]"}, []string{"admin.address"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			changed := func(change func(*config.Config)) *config.Config {
				c := started
				c.Listeners = slices.Clone(c.Listeners)
				if change != nil {
					change(&c)
				}
				return &c
			}
			inForce, next := changed(tc.force), changed(tc.next)
			before := fmt.Sprintf("%+v %+v", *inForce, *next)
			held, keys := initialOf(&started).hold(next, inForce)
			show := func(groups []string) string {
				if groups == nil {
					return "all"
				}
				return fmt.Sprint(groups)
			}
			var got []string
			for _, l := range held.Listeners {
				got = append(got, show(l.Clients))
			}
			got = append(got, show(held.Admin.Clients))
			if !slices.Equal(got, tc.want) || !slices.Equal(keys, tc.keys) {
				t.Errorf("got %q, %q\nwant %q, %q", got, keys, tc.want, tc.keys)
			}
			if held.Listeners[1].Balancers != nil || held.Listeners[1].Socket != (config.Socket{}) || held.Admin.Socket != (config.Socket{}) || held.Audit.File != "" {
				t.Errorf("what is bound changed: %+v %+v %+v", held.Listeners, held.Admin, held.Audit)
			}
			if held.Listeners[0].Address != "127.0.0.1:1" || held.Admin.Address != "127.0.0.1:9" || !reflect.DeepEqual(held.Listeners[1].TLS, tls) {
				t.Errorf("what is bound changed: %+v %+v", held.Listeners, held.Admin)
			}
			if after := fmt.Sprintf("%+v %+v", *inForce, *next); after != before {
				t.Errorf("what was given changed: %s\nbefore %s", after, before)
			}
		})
	}
}

// Callers come through the proxy that stands before a listener until the process is
// started anew, wherever the listener is to be then: believed no more, that proxy
// would count as each of them.
func TestAListenerThatIsTakenOutBelievesWhomItBelieved(t *testing.T) {
	prefix := netip.MustParsePrefix
	before, balancer := []netip.Prefix{prefix("10.0.0.5/32")}, []netip.Prefix{prefix("10.0.0.7/32")}
	old := &config.Config{Listeners: []config.Listener{{Address: ":8080", TrustedProxies: before, Balancers: balancer}}}
	for name, next := range map[string][]config.Listener{
		"moved, behind another proxy": {{Address: ":9090", TrustedProxies: []netip.Prefix{prefix("10.0.0.6/32")}}},
		"moved, behind none":          {{Address: ":9090"}},
		"taken out":                   nil,
	} {
		held, _ := initialOf(old).hold(&config.Config{Listeners: next}, old)
		if l := held.Listeners[0]; !slices.Equal(l.TrustedProxies, before) || !slices.Equal(l.Balancers, balancer) {
			t.Errorf("%s: believes %v and %v, want %v and %v", name, l.TrustedProxies, l.Balancers, before, balancer)
		}
	}
}
