package clients

import (
	"crypto/x509"
	"encoding"
	"net/url"
	"strings"
	"testing"
)

var (
	_ encoding.TextUnmarshaler = (*Source)(nil)
	_ encoding.TextMarshaler   = Source{}
)

func TestParseSource(t *testing.T) {
	for _, c := range []struct {
		text, want string // want is the text that it is written as
		fault      string // part of the error, empty for none
	}{
		{text: "10.0.0.7", want: "10.0.0.7/32"},
		{text: "10.0.0.0/8", want: "10.0.0.0/8"},
		{text: "::1", want: "::1/128"},
		{text: "2001:db8::/32", want: "2001:db8::/32"},
		{text: "::ffff:10.0.0.7", want: "10.0.0.7/32"},
		{text: "::ffff:10.0.0.0/104", want: "10.0.0.0/8"},
		{text: "0.0.0.0/0", want: "0.0.0.0/0"},
		{text: "unix:uid=0", want: "unix:uid=0"},
		{text: "unix:uid=1000", want: "unix:uid=1000"},
		{text: "unix:gid=4294967294", want: "unix:gid=4294967294"},
		{text: "unix:*", want: "unix:*"},
		{text: "tls:CN=soc-1", want: "tls:CN=soc-1"},
		{text: "tls:CN=Security Operations, shift=2", want: "tls:CN=Security Operations, shift=2"},
		{text: "tls:DNS=Soc.Corp.example", want: "tls:DNS=soc.corp.example"},
		{text: "tls:URI=spiffe://corp.example/ns/soc/sa/export", want: "tls:URI=spiffe://corp.example/ns/soc/sa/export"},
		{text: "tls:URI=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", want: "tls:URI=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"},

		{text: "", fault: "neither an address"},
		{text: "localhost", fault: "neither an address"},
		{text: "*", fault: "neither an address"},
		{text: "10.0.0", fault: "neither an address"},
		{text: "10.0.0.0/33", fault: "neither an address"},
		{text: "10.0.0.1/8", fault: "bits set behind"},
		{text: "fe80::1%eth0", fault: "zone"},
		{text: "::ffff:10.0.0.0/95", fault: "shorter than /96"},
		{text: " 10.0.0.7", fault: "neither an address"},
		{text: "unix:", fault: "none of unix:uid"},
		{text: "unix:1000", fault: "none of unix:uid"},
		{text: "unix:UID=1000", fault: "none of unix:uid"},
		{text: "unix:uid=", fault: "number"},
		{text: "unix:uid=alice", fault: "number"},
		{text: "unix:uid=-1", fault: "number"},
		{text: "unix:uid=+1", fault: "number"},
		{text: "unix:uid=01", fault: "number"},
		{text: "unix:uid=4294967295", fault: "number"},
		{text: "unix:gid=4294967296", fault: "number"},
		{text: "unix:**", fault: "asterisk"},
		{text: "tls:", fault: "none of tls:CN"},
		{text: "tls:cn=soc-1", fault: "none of tls:CN"},
		{text: "tls:OU=soc", fault: "none of tls:CN"},
		{text: "tls:CN=", fault: "common name"},
		{text: "tls:CN= soc", fault: "common name"},
		{text: "tls:CN=a\x00b", fault: "common name"},
		{text: "tls:DNS=", fault: "DNS name"},
		{text: "tls:DNS=*.corp.example", fault: "wildcards"},
		{text: "tls:DNS=soc.example.", fault: "DNS name"},
		{text: "tls:DNS=soc_1/x", fault: "DNS name"},
		{text: "tls:DNS=sof\u212A.example", fault: "DNS name"},
		{text: "tls:URI=", fault: "no URI"},
		{text: "tls:URI=corp.example/x", fault: "no URI"},
		{text: "tls:URI=spiffe://corp.example", fault: "no SPIFFE ID"},
		{text: "tls:URI=spiffe://corp.example/", fault: "no SPIFFE ID"},
		{text: "tls:URI=spiffe://corp.example/a//b", fault: "no SPIFFE ID"},
		{text: "tls:URI=spiffe://corp.example/a/../b", fault: "no SPIFFE ID"},
		{text: "tls:URI=spiffe://corp.example/a/.", fault: "no SPIFFE ID"},
		{text: "tls:URI=spiffe://corp.example:8443/a", fault: "no SPIFFE ID"},
		{text: "tls:URI=spiffe://corp.example/*", want: "tls:URI=spiffe://corp.example/*"}, // a name like any other
		{text: "tls:URI=spiffe://Corp.example/a", fault: "several ways"},
		{text: "tls:URI=SPIFFE://corp.example/a", fault: "several ways"},
		{text: "tls:URI=spiffe://corp.example/%61", fault: "several ways"},
		{text: "tls:URI=spiffe://corp.example/a?b", fault: "query"},
		{text: "tls:URI=spiffe://corp.example/a#", fault: "fragment"},
		{text: "tls:URI=spiffe://me@corp.example/a", fault: "user"},
	} {
		s, err := ParseSource(c.text)
		switch {
		case c.fault != "":
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%q: got %v and %v, want an error with %q", c.text, s, err, c.fault)
			}
			if s != (Source{}) {
				t.Errorf("%q: got %v with an error, want nobody", c.text, s)
			}
		case err != nil || s.String() != c.want:
			t.Errorf("%q: got %v and %v, want %s", c.text, s, err, c.want)
		}
	}
}

func TestASourceTellsWhatItNeeds(t *testing.T) {
	for text, want := range map[string][3]bool{ // addresses, Unix socket, certificate
		"10.0.0.0/8": {true, false, false}, "unix:uid=1": {false, true, false}, "unix:gid=1": {false, true, false}, "unix:*": {false, true, false},
		"tls:CN=a": {false, false, true}, "tls:DNS=a": {false, false, true}, "tls:URI=urn:a": {false, false, true},
	} {
		s := from(t, text)[0]
		if got := [3]bool{s.Prefix().IsValid(), s.OnUnixSocket(), s.ByCertificate()}; got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

// FuzzParseSource: what is taken reads the same when it is written out.
func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "::ffff:10.0.0.7", "unix:uid=1000", "unix:*", "tls:CN=a b", "tls:DNS=a.Example", "tls:URI=spiffe://td/a/b", "tls:URI=urn:a:b", "fe80::%1/64", "tls:URI=a:/b", "tls:URI=a://b:/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSource(text)
		if err != nil {
			if s != (Source{}) {
				t.Fatalf("%q: got %v with the error %v", text, s, err)
			}
			return
		}
		again, err := ParseSource(s.String())
		if err != nil || again != s {
			t.Fatalf("%q is written as %q, which reads as %v, %v", text, s, again, err)
		}
	})
}

// FuzzURI: a certificate's URI is the one meant when, and only when, it is written
// so, but for the letters of scheme and host.
func FuzzURI(f *testing.F) {
	for _, s := range [][2]string{
		{"spiffe://td/a", "spiffe://td/a"}, {"spiffe://td/a", "SPIFFE://TD/a"}, {"spiffe://td/a", "spiffe://td/%61"}, {"urn:a:b", "urn:a:b"},
		{"a://b", "a://b/"}, {"spiffe://td/a", "spiffe://td/a?"}, {"a:b", "a:b"}, {"spiffe://td/a", "spiffe:///td/a"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, meant, presented string) {
		s, err := ParseSource("tls:URI=" + meant)
		if err != nil {
			return
		}
		u, err := url.Parse(presented)
		if err != nil {
			return
		}
		got := s.certifies(&x509.Certificate{URIs: []*url.URL{u}})
		want := strings.TrimSuffix(presented, "#") == meant // the mark of an empty fragment is lost on parsing
		if i := strings.Index(presented, "//"); !want && i > 0 {
			// Scheme and host again in lower case.
			end := len(presented)
			if j := strings.IndexByte(presented[i+2:], '/'); j >= 0 {
				end = i + 2 + j
			}
			want = lower(presented[:end])+strings.TrimSuffix(presented[end:], "#") == meant && u.Host != ""
		} else if i := strings.IndexByte(presented, ':'); !want && i > 0 {
			want = lower(presented[:i])+strings.TrimSuffix(presented[i:], "#") == meant
		}
		if got != want {
			t.Fatalf("%q for %q: got %t, want %t", presented, meant, got, want)
		}
	})
}
