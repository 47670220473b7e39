package clients

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// from makes the sources of a group.
func from(t testing.TB, entries ...string) (all []Source) {
	t.Helper()
	for _, e := range entries {
		s, err := ParseSource(e)
		if err != nil {
			t.Fatalf("%q %v", e, err)
		}
		all = append(all, s)
	}
	return all
}

// certificate is one with the given names, each as CN=, DNS= or URI=, as package
// x509 parses it.
func certificate(t testing.TB, names ...string) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{}
	var subject pkix.RDNSequence
	for _, n := range names {
		kind, name, _ := strings.Cut(n, "=")
		switch kind {
		case "CN":
			subject = append(subject, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name}})
		case "DNS":
			c.DNSNames = append(c.DNSNames, name)
		case "URI":
			u, err := url.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
	c.Subject.FillFromRDNSequence(&subject)
	return c
}

const (
	goodKey  = "0123456789abcdef-good"
	otherKey = "0123456789abcdef-other"
)

func key(t testing.TB, header, text string) Key {
	t.Helper()
	k, err := NewKey(header, text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestFind(t *testing.T) {
	groups := []Group{
		{Name: "empty"},
		{Name: "one", From: from(t, "10.0.0.7")},
		{Name: "keyed", From: from(t, "10.9.0.0/16", "unix:uid=900"), Keys: []Key{key(t, "X-Api-Key", goodKey)}},
		{Name: "keyed twice", From: from(t, "10.9.0.0/16"), Keys: []Key{key(t, "X-Api-Key", otherKey), key(t, "X-Second", goodKey)}},
		{Name: "net", From: from(t, "192.0.2.0/24", "10.0.0.0/8")},
		{Name: "six", From: from(t, "2001:db8::/32", "fe80::/10")},
		{Name: "soc", From: from(t, "tls:CN=soc-1", "tls:DNS=Soc-2.Corp.example", "tls:URI=spiffe://corp.example/soc/export")},
		{Name: "urn", From: from(t, "tls:URI=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "tls:URI=https://corp.example/id")},
		{Name: "user", From: from(t, "unix:uid=1000")},
		{Name: "members", From: from(t, "unix:gid=50")},
		{Name: "behind", From: from(t, "198.51.100.0/24")},
	}
	found := New(groups)
	address := func(a string) Caller { return Caller{Addr: netip.MustParseAddr(a)} }
	unix := func(uid uint32, gids ...uint32) Caller { return Caller{Unix: true, UID: uid, GIDs: gids} }
	cert := func(names ...string) Caller {
		return Caller{Addr: netip.MustParseAddr("198.51.100.1"), Certificate: certificate(t, names...)}
	}
	sending := func(c Caller, headers ...string) Caller {
		c.Header = http.Header{}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			c.Header.Add(name, value)
		}
		return c
	}
	for _, c := range []struct {
		name   string
		caller Caller
		want   string
	}{
		{"the first group that matches wins", address("10.0.0.7"), "one"},
		{"a later one takes the rest", address("10.0.0.8"), "net"},
		{"any prefix of a group will do", address("192.0.2.255"), "net"},
		{"IPv4 written as IPv6 is IPv4", address("::ffff:10.0.0.7"), "one"},
		{"IPv6", address("2001:db8::1"), "six"},
		{"a zone does not count", address("fe80::1%eth0"), "six"},
		{"an address of nobody", address("127.0.0.1"), ""},
		{"an IPv6 address of nobody", address("::1"), ""},
		{"no address at all", Caller{}, ""},

		{"a user of the Unix socket", unix(1000, 1000), "user"},
		{"the effective group", unix(7, 50), "members"},
		{"a supplementary group", unix(7, 7, 8, 50), "members"},
		{"the user's group comes first in the order of groups", unix(1000, 50), "user"},
		{"another user", unix(1001, 1001), ""},
		{"root is not everybody", unix(0, 0), ""},
		{"a group's number is no user's", unix(50, 1), ""},
		{"an address does not count on a Unix socket", Caller{Unix: true, UID: 5, Addr: netip.MustParseAddr("10.0.0.7")}, ""},
		{"a user id does not count without a Unix socket", Caller{UID: 1000, GIDs: []uint32{50}}, ""},

		{"a common name", cert("CN=soc-1"), "soc"},
		{"letters of a common name count", cert("CN=Soc-1"), "behind"},
		{"a second common name spoils the first", cert("CN=someone", "CN=soc-1"), "behind"},
		{"a DNS name in any letters", cert("DNS=other.example", "DNS=SOC-2.corp.EXAMPLE"), "soc"},
		{"a DNS name below the one meant", cert("DNS=x.soc-2.corp.example"), "behind"},
		{"a wildcard in a certificate", cert("DNS=*.corp.example"), "behind"},
		{"a DNS name in the place of a common name", cert("CN=soc-2.corp.example"), "behind"},
		{"a common name in the place of a DNS name", cert("DNS=soc-1"), "behind"},
		{"a SPIFFE ID", cert("URI=spiffe://corp.example/soc/export"), "soc"},
		{"a SPIFFE ID below the one meant", cert("URI=spiffe://corp.example/soc/export/x"), "behind"},
		{"a SPIFFE ID of another trust domain", cert("URI=spiffe://evil.example/soc/export"), "behind"},
		{"a SPIFFE ID in other letters", cert("URI=spiffe://corp.example/SOC/export"), "behind"},
		{"a SPIFFE ID in other spelling", cert("URI=spiffe://corp.example/soc/%65xport"), "behind"},
		{"a SPIFFE ID with a query", cert("URI=spiffe://corp.example/soc/export?x"), "behind"},
		{"a SPIFFE ID with a user", cert("URI=spiffe://me@corp.example/soc/export"), "behind"},
		{"two SPIFFE IDs are none", cert("URI=spiffe://corp.example/soc/export", "URI=spiffe://corp.example/other"), "behind"},
		{"a SPIFFE ID among other names", cert("CN=x", "DNS=x.example", "URI=spiffe://corp.example/soc/export"), "soc"},
		{"a URI without an authority", cert("URI=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), "urn"},
		{"one of several URIs that are no SPIFFE IDs", cert("URI=https://x.example/", "URI=https://corp.example/id"), "urn"},
		{"a certificate of nobody leaves the address", cert("CN=nobody"), "behind"},
		{"an address of an earlier group goes before the certificate", Caller{Addr: netip.MustParseAddr("10.0.0.7"), Certificate: certificate(t, "CN=soc-1")}, "one"},

		{"the key of a group", sending(address("10.9.0.1"), "X-Api-Key: "+goodKey), "keyed"},
		{"a key counts on a Unix socket too", sending(unix(900), "X-Api-Key: "+goodKey), "keyed"},
		{"no key on a Unix socket", unix(900), ""},
		{"the keys of the next group", sending(address("10.9.0.1"), "X-Api-Key: "+otherKey, "X-Second: "+goodKey), "keyed twice"},
		{"one key of two", sending(address("10.9.0.1"), "X-Api-Key: "+otherKey), "net"},
		{"a wrong key", sending(address("10.9.0.1"), "X-Api-Key: "+goodKey+"x"), "net"},
		{"no key", address("10.9.0.1"), "net"},
		{"an empty key", sending(address("10.9.0.1"), "X-Api-Key: "), "net"},
		{"a key twice", sending(address("10.9.0.1"), "X-Api-Key: "+goodKey, "X-Api-Key: "+goodKey), "net"},
		{"the right key behind a wrong one", sending(address("10.9.0.1"), "X-Api-Key: "+otherKey, "X-Api-Key: "+goodKey), "net"},
		{"a key that is longer than any", sending(address("10.9.0.1"), "X-Api-Key: "+strings.Repeat("x", 100_000)), "net"},
		{"a key from elsewhere", sending(address("203.0.113.1"), "X-Api-Key: "+goodKey), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, ok := found.Find(c.caller)
			got := ""
			if ok {
				got = groups[i].Name
			}
			if got != c.want {
				t.Errorf("the caller belongs to %q, want %q", got, c.want)
			}
		})
	}
}

func TestNobodyIsAdmittedByZeroValues(t *testing.T) {
	local := Caller{Addr: netip.MustParseAddr("127.0.0.1"), Certificate: certificate(t, "CN=")}
	var none *Groups
	if _, ok := none.Find(local); ok {
		t.Error("the nil Groups admits")
	}
	none.Strip(http.Header{})
	if _, ok := New(nil).Find(local); ok {
		t.Error("Groups without a group admit")
	}
	all := New([]Group{{Name: "all", From: from(t, "0.0.0.0/0", "::/0", "unix:*")}})
	if _, ok := all.Find(Caller{}); ok {
		t.Error("a caller of whom nothing is known is admitted")
	}
	zero := New([]Group{{Name: "zero", From: []Source{{}, Addresses(netip.Prefix{})}}})
	for _, c := range []Caller{{}, local, {Unix: true}} {
		if _, ok := zero.Find(c); ok {
			t.Errorf("the zero Source admits %+v", c)
		}
	}
	keyed := New([]Group{{Name: "keyed", From: from(t, "0.0.0.0/0"), Keys: []Key{{}}}})
	for _, h := range []http.Header{nil, {}, {"": {""}}} {
		local.Header = h
		if _, ok := keyed.Find(local); ok {
			t.Errorf("the zero Key is sent by %v", h)
		}
	}
}

func TestWhoeverMayOpenTheSocketIsMeantByTheAsterisk(t *testing.T) {
	g := New([]Group{{Name: "all", From: from(t, "unix:*")}})
	if _, ok := g.Find(Caller{Unix: true, UID: 4711}); !ok {
		t.Error("a caller of the socket is not admitted")
	}
	if _, ok := g.Find(Caller{Addr: netip.MustParseAddr("127.0.0.1")}); ok {
		t.Error("a caller of an address is admitted")
	}
}

func TestStripTakesAllKeysOut(t *testing.T) {
	g := New([]Group{{Keys: []Key{key(t, "x-one", goodKey)}}, {Keys: []Key{key(t, "X-Two", goodKey), key(t, "Authorization", goodKey)}}})
	h := http.Header{"X-One": {"a"}, "X-Two": {"b", "c"}, "Authorization": {"d"}, "Accept": {"e"}}
	g.Strip(h)
	if len(h) != 1 || h.Get("Accept") != "e" {
		t.Errorf("left are %v, want Accept alone", h)
	}
}

// many is a configuration of 50 groups with four entries each, the last of which is
// the caller's.
func many(t testing.TB) (*Groups, map[string]Caller) {
	var groups []Group
	for i := range 49 {
		groups = append(groups, Group{Name: fmt.Sprint("group", i), From: from(t,
			fmt.Sprintf("10.%d.0.0/16", i), fmt.Sprintf("2001:db8:%x::/48", i), fmt.Sprintf("unix:uid=%d", 2000+i), fmt.Sprintf("tls:URI=spiffe://corp.example/group/%d", i))})
	}
	last := from(t, "10.200.0.0/16", "2001:db8:ffff::/48", "unix:gid=50", "tls:URI=spiffe://corp.example/last")
	groups = append(groups, Group{Name: "last", From: last}, Group{Name: "keyed", From: from(t, "192.0.2.0/24"), Keys: []Key{key(t, "X-Api-Key", goodKey)}})
	return New(groups), map[string]Caller{
		"address":     {Addr: netip.MustParseAddr("10.200.1.1")},
		"IPv6":        {Addr: netip.MustParseAddr("2001:db8:ffff::1")},
		"unix":        {Unix: true, UID: 1, GIDs: []uint32{1, 2, 3, 4, 50}},
		"certificate": {Addr: netip.MustParseAddr("203.0.113.1"), Certificate: certificate(t, "CN=x", "URI=spiffe://corp.example/last")},
		"key":         {Addr: netip.MustParseAddr("192.0.2.1"), Header: http.Header{"X-Api-Key": {goodKey}}},
		"nobody":      {Addr: netip.MustParseAddr("203.0.113.1")},
	}
}

func TestFindAllocatesNothing(t *testing.T) {
	groups, callers := many(t)
	for name, c := range callers {
		i, ok := groups.Find(c)
		if ok != (name != "nobody") {
			t.Errorf("%s: found is %t in place %d", name, ok, i)
		}
		if n := testing.AllocsPerRun(100, func() { groups.Find(c) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

// BenchmarkFind finds the last of 50 groups.
func BenchmarkFind(b *testing.B) {
	groups, callers := many(b)
	for _, name := range []string{"address", "IPv6", "unix", "certificate", "key", "nobody"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				groups.Find(callers[name])
			}
		})
	}
}

func TestCouldBe(t *testing.T) {
	near, wide, named := from(t, "127.0.0.2"), from(t, "127.0.0.0/8"), from(t, "tls:DNS=soc-lead-1.example")
	key := func(text string) []Key {
		k, err := NewKey("X-Key", text)
		if err != nil {
			t.Fatal(err)
		}
		return []Key{k}
	}
	const lead, other = "key-of-the-soc-leads", "key-of-another-group"
	at := func(address, sent string) Caller {
		c := Caller{Addr: netip.MustParseAddr(address), Header: http.Header{}}
		if sent != "" {
			c.Header.Set("X-Key", sent)
		}
		return c
	}
	for _, c := range []struct {
		name   string
		groups []Group
		place  int
		caller Caller
		want   bool
	}{
		{"the own group", []Group{{From: wide}}, 0, at("127.0.0.2", ""), true},
		{"a group elsewhere", []Group{{From: near}}, 0, at("127.0.0.1", ""), false},
		{"a later one, where the address alone makes it the first", []Group{{From: near}, {From: wide}}, 1, at("127.0.0.2", ""), false},
		{"a later one, by leaving out the key", []Group{{From: near, Keys: key(lead)}, {From: wide}}, 1, at("127.0.0.2", lead), true},
		{"a later one, with one between that nobody can avoid", []Group{{From: near, Keys: key(lead)}, {From: near}, {From: wide}}, 2, at("127.0.0.2", lead), false},
		{"one between that has a key", []Group{{From: near}, {From: wide, Keys: key(lead)}, {From: wide}}, 2, at("127.0.0.1", lead), true},
		{"one whose key is not sent", []Group{{From: wide, Keys: key(lead)}, {From: wide, Keys: key(other)}}, 1, at("127.0.0.1", lead), false},
		{"one whose key is sent", []Group{{From: wide, Keys: key(lead)}, {From: wide, Keys: key(lead)}}, 1, at("127.0.0.1", lead), true},
		{"an earlier one", []Group{{From: wide, Keys: key(lead)}, {From: wide}}, 0, at("127.0.0.1", ""), false},
		{"no group", []Group{{From: wide}}, 1, at("127.0.0.1", ""), false},
		{"no place", []Group{{From: wide}}, -1, at("127.0.0.1", ""), false},
	} {
		if got := New(c.groups).CouldBe(c.place, c.caller); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
	certified := at("127.0.0.1", "")
	certified.Certificate = &x509.Certificate{DNSNames: []string{"soc-lead-1.example"}}
	if groups := New([]Group{{From: named}, {From: wide}}); !groups.CouldBe(1, certified) || !groups.CouldBe(0, certified) {
		t.Error("a certificate can be left out")
	}
	if (*Groups)(nil).CouldBe(0, certified) {
		t.Error("nobody is in no groups")
	}
}

func TestStripGivesTheKeys(t *testing.T) {
	k, err := NewKey("X-Key", "key-of-the-soc-leads")
	if err != nil {
		t.Fatal(err)
	}
	g := New([]Group{{Keys: []Key{k}}, {Keys: []Key{k}}})
	h := http.Header{"X-Key": {"a", "b"}, "Accept": {"x"}}
	if taken := g.Strip(h); len(taken) != 1 || len(taken["X-Key"]) != 2 || len(h) != 1 {
		t.Errorf("got %v and %v", taken, h)
	}
	if taken := g.Strip(h); taken != nil || len(h) != 1 {
		t.Errorf("got %v and %v", taken, h)
	}
}
