package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"defender-proxy/internal/listen"
)

func from(address string) source { return sourceOf(&Exchange{Address: netip.MustParseAddr(address)}) }

func user(uid uint32) source {
	return sourceOf(&Exchange{Peer: listen.Peer{Unix: &listen.Process{UID: uid}}})
}

func TestOneSourceGetsAtMostHalfOfThePlaces(t *testing.T) {
	type attempt struct {
		from source
		want bool
	}
	for _, c := range []struct {
		name     string
		attempts []attempt
	}{
		{"an address leaves half of the places to others", []attempt{
			{from("10.0.0.1"), true}, {from("10.0.0.1"), true}, {from("10.0.0.1"), false}, {from("10.0.0.2"), true}, {from("127.0.0.1"), true}, {from("127.0.0.1"), false},
		}},
		{"loopback is everybody", []attempt{{from("127.0.0.1"), true}, {from("127.0.0.1"), true}, {from("::1"), true}, {from("::1"), true}, {from("::1"), false}}},
		{"a network of IPv6 is one address", []attempt{{from("2001:db8::1"), true}, {from("2001:db8::2"), true}, {from("2001:db8::3"), false}, {from("2001:db8:0:1::1"), true}, {from("::1"), true}}},
		{"a user of a Unix socket leaves half to others", []attempt{{user(1000), true}, {user(1000), true}, {user(1000), false}, {user(1001), true}, {from("127.0.0.1"), true}}},
		{"root is a user like any other", []attempt{{user(0), true}, {user(0), true}, {user(0), false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l load
			var leave []func()
			for i, a := range c.attempts {
				f, err := l.enter(a.from, 4)
				if (err == nil) != a.want {
					t.Fatalf("attempt %d, %s: got %v with %d under way, want ok %t", i, a.from, err, l.total, a.want)
				}
				if f != nil {
					leave = append(leave, f)
				}
			}
			for _, f := range leave {
				f()
			}
			if l.total != 0 || len(l.by) != 0 {
				t.Errorf("afterwards %d count, by source %v, want none", l.total, l.by)
			}
		})
	}
}

func TestOverloadNamesWhoHasTooMany(t *testing.T) {
	for want, s := range map[string]source{"10.0.0.1": from("10.0.0.1"), "uid 1000": user(1000)} {
		l := load{total: 1, by: map[source]int{s: 1}}
		if _, err := l.enter(s, 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
