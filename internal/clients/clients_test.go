package clients

import (
	"net/netip"
	"testing"
)

func TestFind(t *testing.T) {
	groups := New([]Group{
		{Name: "empty"},
		{Name: "one", From: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32")}},
		{Name: "net", From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("10.0.0.0/8")}},
		{Name: "six", From: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fe80::/10")}},
	})
	for _, c := range []struct{ name, address, want string }{
		{"the first group that matches wins", "10.0.0.7", "one"},
		{"a later one takes the rest", "10.0.0.8", "net"},
		{"any prefix of a group will do", "192.0.2.255", "net"},
		{"IPv4 written as IPv6 is IPv4", "::ffff:10.0.0.7", "one"},
		{"IPv6", "2001:db8::1", "six"},
		{"a zone does not count", "fe80::1%eth0", "six"},
		{"an address of nobody", "127.0.0.1", ""},
		{"an IPv6 address of nobody", "::1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, ok := groups.Find(netip.MustParseAddr(c.address))
			got := ""
			if ok {
				got = groups.groups[i].Name
			}
			if got != c.want {
				t.Errorf("%s belongs to %q, want %q", c.address, got, c.want)
			}
		})
	}
}

func TestNobodyIsAdmittedByZeroValues(t *testing.T) {
	var none *Groups
	if _, ok := none.Find(netip.MustParseAddr("127.0.0.1")); ok {
		t.Error("the nil Groups admits")
	}
	if _, ok := New(nil).Find(netip.MustParseAddr("127.0.0.1")); ok {
		t.Error("Groups without a group admit")
	}
	all := New([]Group{{Name: "all", From: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}})
	if _, ok := all.Find(netip.Addr{}); ok {
		t.Error("an invalid address is admitted")
	}
}
