package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"defender-proxy/internal/clients"
	"defender-proxy/policy"
)

func TestForwardedFor(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:aaaa::/48")}
	for _, c := range []struct {
		name   string
		values []string
		want   string
		fault  string // part of the error, empty for none
	}{
		{name: "one address", values: []string{"203.0.113.9"}, want: "203.0.113.9"},
		{name: "what the caller made up stands before its own", values: []string{"127.0.0.1, 10.9.9.9, 203.0.113.9"}, want: "203.0.113.9"},
		{name: "what the caller made up in a line of its own", values: []string{"127.0.0.1", "203.0.113.9"}, want: "203.0.113.9"},
		{name: "a second proxy of ours", values: []string{"203.0.113.9, 10.1.1.1"}, want: "203.0.113.9"},
		{name: "a second proxy in a line of its own", values: []string{"198.51.100.1, 203.0.113.9", "10.1.1.1,10.1.1.2"}, want: "203.0.113.9"},
		{name: "a trusted address alone is the caller", values: []string{"10.1.1.1"}, want: "10.1.1.1"},
		{name: "the first of trusted ones is the caller", values: []string{"10.1.1.1, 10.1.1.2"}, want: "10.1.1.1"},
		{name: "IPv6", values: []string{"2001:db8::9, 2001:db8:aaaa::1"}, want: "2001:db8::9"},
		{name: "IPv4 written as IPv6", values: []string{"::ffff:203.0.113.9, ::ffff:10.1.1.1"}, want: "203.0.113.9"},
		{name: "a port, as of Azure's gateways", values: []string{"203.0.113.9:51234"}, want: "203.0.113.9"},
		{name: "IPv6 with a port", values: []string{"[2001:db8::9]:51234"}, want: "2001:db8::9"},
		{name: "IPv6 in brackets", values: []string{"[2001:db8::9]"}, want: "2001:db8::9"},
		{name: "spaces and tabs", values: []string{" \t203.0.113.9 , 10.1.1.1\t"}, want: "203.0.113.9"},
		{name: "nonsense before the caller's address", values: []string{"unknown, <script>, 203.0.113.9"}, want: "203.0.113.9"},

		{name: "no header", fault: "missing"},
		{name: "an empty header", values: []string{""}, fault: `""`},
		{name: "an empty line behind", values: []string{"203.0.113.9", ""}, fault: `""`},
		{name: "a comma at the end", values: []string{"203.0.113.9,"}, fault: `""`},
		{name: "a name", values: []string{"203.0.113.9, client.example"}, fault: "client.example"},
		{name: "a proxy that does not know", values: []string{"unknown"}, fault: "unknown"},
		{name: "a name behind a proxy of ours", values: []string{"_hidden, 10.1.1.1"}, fault: "_hidden"},
		{name: "loopback of another machine", values: []string{"127.0.0.1"}, fault: "127.0.0.1"},
		{name: "loopback of IPv6", values: []string{"::1, 10.1.1.1"}, fault: "::1"},
		{name: "loopback written as IPv6", values: []string{"::ffff:7f00:1"}, fault: "::ffff:7f00:1"},
		{name: "all addresses", values: []string{"0.0.0.0"}, fault: "0.0.0.0"},
		{name: "an octet in other notation", values: []string{"127.1"}, fault: "127.1"},
		{name: "an octet with zeros", values: []string{"010.1.1.1"}, fault: "010"},
		{name: "IPv4 in brackets", values: []string{"[203.0.113.9]"}, fault: "203"},
		{name: "in quotes", values: []string{`"203.0.113.9"`}, fault: "203"},
		{name: "what is longer than any address is not repeated", values: []string{strings.Repeat("x", 54)}, fault: "54 bytes that are none"},
		{name: "separated by spaces", values: []string{"127.0.0.1 203.0.113.9"}, fault: "127"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := forwardedFor(c.values, trusted, netip.MustParseAddr("10.0.0.1"))
			switch {
			case c.fault != "":
				if err == nil || !strings.Contains(err.Error(), c.fault) || got.IsValid() {
					t.Errorf("got %s and %v, want an error with %q", got, err, c.fault)
				}
			case err != nil || got.String() != c.want:
				t.Errorf("got %s and %v, want %s", got, err, c.want)
			}
		})
	}
}

// FuzzForwardedFor: whatever a caller writes itself, what our proxy appends is what
// counts.
func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"", "127.0.0.1", "10.0.0.1, 10.0.0.2", "a,,b", "[::1]:1", "\t"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	const appended = "203.0.113.9"
	f.Fuzz(func(t *testing.T, sent string, line bool) {
		values := []string{sent + ", " + appended}
		if line {
			values = []string{sent, appended}
		}
		got, err := forwardedFor(values, trusted, netip.MustParseAddr("10.0.0.1"))
		if err != nil || got.String() != appended {
			t.Fatalf("%q: got %s and %v, want %s", values, got, err, appended)
		}
		if got, err = forwardedFor([]string{sent}, trusted, netip.MustParseAddr("10.0.0.1")); err != nil && got.IsValid() || err == nil && (!got.IsValid() || got.IsLoopback()) {
			t.Fatalf("%q: got %s and %v", sent, got, err)
		}
	})
}

const localKey = "0123456789abcdef-key"

// doors is a proxy with several groups, behind a proxy on loopback where o says so.
func doors(t *testing.T, trusted bool) *world {
	t.Helper()
	key, err := clients.NewKey("X-Api-Key", localKey)
	if err != nil {
		t.Fatal(err)
	}
	o := options{deps: func(d *Deps) {
		all := d.Clients[0].Grants
		read, err := d.Policy.Catalog.Grants(policy.Entries("read"), nil)
		if err != nil {
			t.Fatal(err)
		}
		some := func(p string) []clients.Source {
			return []clients.Source{clients.Addresses(netip.MustParsePrefix(p))}
		}
		d.Clients = []Client{
			{Name: "keyed", From: some("127.0.0.0/8"), Keys: []clients.Key{key}, Grants: all},
			{Name: "office", From: some("203.0.113.0/24"), Grants: read},
		}
		d.ForwardHeaders = []string{"X-Api-Key"}
	}}
	if trusted {
		o.listener.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	}
	return newWorld(t, o)
}

func TestWhoIsAdmitted(t *testing.T) {
	for _, c := range []struct {
		name    string
		trusted bool // 127.0.0.1 is one of trusted_proxies
		header  []string
		status  int
		client  string // of the record
		address string
		via     string
		words   string // part of a refusal's message
	}{
		{name: "a key", header: []string{"X-Api-Key", localKey}, status: 200, client: "keyed", address: "127.0.0.1"},
		{name: "no key", status: 403, address: "127.0.0.1", words: "127.0.0.1 belongs to no client group that may use this listener. A group that may is known by a local key in a header of each request: send one."},
		{name: "another key", header: []string{"X-Api-Key", localKey + "x"}, status: 403, address: "127.0.0.1", words: "a local key in a header of each request: send one"},
		{name: "a key twice", header: []string{"X-Api-Key", localKey, "X-Api-Key", localKey}, status: 403, address: "127.0.0.1"},
		{name: "an address that the caller made up", header: []string{"X-Forwarded-For", "203.0.113.9"}, status: 403, address: "127.0.0.1", words: "127.0.0.1 belongs"},
		{name: "a made-up address beside a key", header: []string{"X-Forwarded-For", "203.0.113.9", "X-Api-Key", localKey}, status: 200, client: "keyed", address: "127.0.0.1"},

		{name: "an address that a trusted proxy tells", trusted: true, header: []string{"X-Forwarded-For", "127.0.0.1, 203.0.113.9"}, status: 200, client: "office", address: "203.0.113.9", via: "127.0.0.1"},
		{name: "an address of nobody", trusted: true, header: []string{"X-Forwarded-For", "198.51.100.1"}, status: 403, address: "198.51.100.1", via: "127.0.0.1", words: "198.51.100.1 belongs"},
		{name: "the key of a group elsewhere", trusted: true, header: []string{"X-Forwarded-For", "198.51.100.1", "X-Api-Key", localKey}, status: 403, address: "198.51.100.1", via: "127.0.0.1"},
		{name: "a trusted proxy that tells nothing", trusted: true, header: []string{"X-Api-Key", localKey}, status: 403, via: "127.0.0.1", words: "X-Forwarded-For is missing"},
		{name: "a trusted proxy that tells nonsense", trusted: true, header: []string{"X-Forwarded-For", "203.0.113.9, nonsense"}, status: 403, via: "127.0.0.1", words: "nonsense"},
		{name: "a trusted proxy that tells it elsewhere", trusted: true, header: []string{"Forwarded", "for=203.0.113.9", "X-Real-Ip", "203.0.113.9"}, status: 403, via: "127.0.0.1", words: "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := doors(t, c.trusted)
			got := w.do("GET", "/api/alerts", "", c.header...)
			if got.status != c.status || c.status != 200 && (got.code() != string(ClientNotAdmitted) || !strings.Contains(got.message(), c.words)) {
				t.Fatalf("got %d %s, want %d with %q", got.status, got.body, c.status, c.words)
			}
			if strings.Contains(got.body, localKey) {
				t.Errorf("the answer holds the key: %s", got.body)
			}
			rec := w.lines(1)[0]
			for key, want := range map[string]string{"client": c.client, "address": c.address, "via": c.via} {
				if is, _ := rec[key].(string); is != want {
					t.Errorf("the record has %s %q, want %q: %v", key, is, want, rec)
				}
			}
			for _, r := range w.regions {
				for _, a := range r.requests() {
					for _, name := range []string{"X-Api-Key", "X-Forwarded-For"} {
						if _, ok := a.header[http.CanonicalHeaderKey(name)]; ok {
							t.Errorf("upstream got %s: %v", name, a.header)
						}
					}
				}
			}
		})
	}
}

// The advice is what the caller can do, and never opens a door that stands ajar for
// whoever has a key or a certificate.
func TestWhoIsNotAdmittedIsToldWhatTheListenerAsksFor(t *testing.T) {
	source := func(text string) []clients.Source {
		s, err := clients.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		return []clients.Source{s}
	}
	key, err := clients.NewKey("X-Api-Key", localKey)
	if err != nil {
		t.Fatal(err)
	}
	everybody := Client{Name: "everybody", From: source("192.0.2.1")}
	leads := Client{Name: "leads", From: source("tls:CN=lead")}
	keyed := Client{Name: "keyed", From: source("192.0.2.1"), Keys: []clients.Key{key}}
	office := Client{Name: "office", From: source("10.0.0.0/8")}
	for _, c := range []struct {
		name string
		all  []Client
		here []int // those of the listener
		want string
	}{
		{"an address of nobody", []Client{office}, []int{0},
			"192.0.2.1 belongs to no client group that may use this listener. An operator adds the address under from of a group in the proxy's configuration."},
		{"certificates are asked for", []Client{leads}, []int{0},
			"192.0.2.1 belongs to no client group that may use this listener. A group that may is known by a client certificate: send one."},
		{"certificates and keys", []Client{leads, keyed}, []int{0, 1},
			"192.0.2.1 belongs to no client group that may use this listener. A group that may is known by a client certificate, another by a local key in a header of each request: send one."},
		{"a group of another listener", []Client{office, everybody}, []int{0},
			"192.0.2.1 is client group everybody, which may not use this listener (clients of the listener)."},
		{"a group of another listener, where certificates are asked for", []Client{leads, everybody}, []int{0},
			"192.0.2.1 is client group everybody, which may not use this listener (clients of the listener). A group that may is known by a client certificate: send one."},
	} {
		t.Run(c.name, func(t *testing.T) {
			named := func(all []Client) (groups []clients.Group) {
				for _, g := range all {
					groups = append(groups, clients.Group{Name: g.Name, From: g.From, Keys: g.Keys})
				}
				return groups
			}
			p := &Proxy{Deps: Deps{Clients: c.all}, everybody: clients.New(named(c.all))}
			l := &listener{Listener: Listener{TLS: true}}
			var here []Client
			for _, i := range c.here {
				here, l.clients = append(here, c.all[i]), append(l.clients, &c.all[i])
			}
			l.groups = clients.New(named(here))
			err := p.admit(&Exchange{Listener: l}, httptest.NewRequest(http.MethodGet, "/", nil)) // from 192.0.2.1
			if err == nil || asRefusal(err).Message != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestTheCertificateOfATrustedProxyIsNotItsCallers(t *testing.T) {
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: "front", Names: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "front"}}},
		// Nothing else is looked at.
	}
	front, err := clients.ParseSource("tls:CN=front")
	if err != nil {
		t.Fatal(err)
	}
	group := &Client{Name: "front", From: []clients.Source{front}}
	for _, c := range []struct {
		name    string
		proxies []netip.Prefix
		want    bool
	}{
		{"a caller with a certificate", nil, true},
		{"a proxy with a certificate", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, false},
	} {
		l := &listener{Listener: Listener{Proxies: c.proxies}, groups: clients.New([]clients.Group{{From: group.From}}), clients: []*Client{group}}
		r := httptest.NewRequest(http.MethodGet, "/", nil) // from 192.0.2.1
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
		x := &Exchange{Listener: l}
		if err := new(Proxy).admit(x, r); (err == nil) != c.want {
			t.Errorf("%s: got %v, want admitted %t", c.name, err, c.want)
		}
		if got := x.record("request", r).Certificate; got != "front" {
			t.Errorf("%s: the record has the certificate %q, want front", c.name, got)
		}
	}
}
