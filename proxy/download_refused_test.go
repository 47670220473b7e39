package proxy

import (
	"bytes"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/links"
	"defender-proxy/policy"
)

// twoGroups adds a client group that is told by a key, and may do the same.
func twoGroups(d *Deps) {
	guests := d.Clients[0]
	guests.Name = "guests"
	key, err := clients.NewKey("X-Key", "guest-key-guest-key")
	if err != nil {
		panic(err)
	}
	guests.Keys = []clients.Key{key}
	d.Clients = append([]Client{guests}, d.Clients...)
}

func TestALinkIsForWhomItWasMade(t *testing.T) {
	s := newStorage(t, options{tenants: []string{"contoso", "fabrikam"}, listener: Listener{Tenant: "contoso"}, deps: twoGroups})
	sealed := s.sealed()
	altered := func(at int) string {
		b := []byte(sealed)
		if b[at]++; b[at] == '{' || b[at] == '[' || b[at] == '`' || b[at] == ':' || b[at] == '.' {
			b[at] = '0'
		}
		return string(b)
	}
	other := NewDownloads([][]byte{bytes.Repeat([]byte("o"), 32)}).Sealer
	foreign, err := other.Seal(links.Download{URL: s.link, Operation: packageID, Expires: time.Now().Add(time.Hour)}, "contoso", "local")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path   string
		header []string
	}{
		"another tenant":            {"/t/fabrikam" + sealed, nil},
		"another group":             {sealed, []string{"X-Key", "guest-key-guest-key"}},
		"an altered start":          {altered(len(blobPrefix)), nil},
		"an altered middle":         {altered(len(sealed) / 2), nil},
		"an altered end":            {altered(len(sealed) - 3), nil},
		"the end cut off":           {sealed[:len(sealed)-4], nil},
		"the start cut off":         {blobPrefix + sealed[len(blobPrefix)+4:], nil},
		"something behind":          {sealed + "AAAA", nil},
		"a segment more":            {sealed + "/x", nil},
		"another key":               {blobPrefix + foreign, nil},
		"a word":                    {"/blob/x", nil},
		"another letter case":       {strings.ToUpper(sealed), nil},
		"the link as it is":         {blobPrefix + url.QueryEscape("a.blob.example"), nil},
		"what is long":              {blobPrefix + strings.Repeat("A", 8000), nil},
		"percent-encoded otherwise": {blobPrefix + "%41" + sealed[len(blobPrefix):], nil},
	} {
		got := s.do("GET", c.path, "", c.header...)
		if got.code() != "InvalidLink" || got.status != 404 || !strings.Contains(got.message(), "Ask for the link again") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if strings.Contains(got.body, sealed[len(blobPrefix):][:20]) {
			t.Errorf("%s: the refusal shows the link: %s", name, got.body)
		}
	}
	if got := s.do("GET", "/t/contoso"+sealed+"?a=b", ""); got.status != 200 {
		t.Errorf("with the tenant's name, and a query: %d %s", got.status, got.body)
	}
	if got := s.do("GET", "/t/nobody"+sealed, ""); got.code() != "UnknownTenant" {
		t.Errorf("with nobody's name: %d %s", got.status, got.body)
	}
	if n := len(s.place.requests()); n != 1 {
		t.Errorf("%d requests came to storage", n)
	}
	for _, rec := range s.lines(10) {
		if path, _ := rec["path"].(string); path != packagePath && path != sealedPath {
			t.Errorf("a record has the path %v", path)
		}
	}
	s.secretsAreKept(sealed, strings.ToUpper(sealed))
}

func TestALinkEndsWithWhatItDependsOn(t *testing.T) {
	s := newStorage(t, options{})
	seal := func(d links.Download) string {
		sealed, err := s.proxy.Downloads.Sealer.Seal(d, "contoso", "local")
		if err != nil {
			t.Fatal(err)
		}
		return blobPrefix + sealed
	}
	good := links.Download{URL: s.link, Operation: packageID, Expires: time.Now().Add(time.Hour)}
	change := func(f func(*links.Download)) string {
		d := good
		f(&d)
		return seal(d)
	}
	for name, c := range map[string]struct {
		path, code string
		status     int
		words      string
	}{
		"as it is":                {seal(good), "", 200, ""},
		"its time over":           {change(func(d *links.Download) { d.Expires = time.Now().Add(-time.Minute) }), "LinkExpired", 410, "Ask for the link again"},
		"a host of before":        {change(func(d *links.Download) { d.URL = "https://old.example/c/f?sig=" + signature }), "InvalidLink", 404, "blob_hosts"},
		"a scheme of before":      {change(func(d *links.Download) { d.URL = "http://" + s.host() + "/c/f" }), "InvalidLink", 404, "blob_hosts"},
		"an operation of before":  {change(func(d *links.Download) { d.Operation = "machines.nothing" }), "InvalidLink", 404, ""},
		"a grant that is no more": {change(func(d *links.Download) { d.Operation = "machines.isolate" }), "NotGranted", 403, "machines.isolate"},
		"over, at a host of before": {change(func(d *links.Download) {
			d.URL, d.Expires = "https://old.example/c", time.Now().Add(-time.Minute)
		}), "LinkExpired", 410, ""},
	} {
		got := s.do("GET", c.path, "")
		if got.status != c.status || got.code() != c.code || !strings.Contains(got.message(), c.words) {
			t.Errorf("%s: got %d %s, want %d %s", name, got.status, got.body, c.status, c.code)
		}
	}
	if n := len(s.place.requests()); n != 1 {
		t.Errorf("%d requests came to storage", n)
	}
	for _, rec := range s.lines(7) {
		if rec["code"] == "LinkExpired" && rec["operation"] != packageID {
			t.Errorf("the record of an expired link is %v", rec)
		}
	}
	s.secretsAreKept()
}

func TestAGrantThatIsTakenAwayEndsItsLinks(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	grants, err := s.proxy.Policy.Catalog.Grants(policy.Entries("read"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.proxy.Clients[0].Grants = grants
	if got := s.do("GET", sealed, ""); got.code() != "NotGranted" || !strings.Contains(got.message(), packageID) {
		t.Errorf("got %d %s", got.status, got.body)
	}
	s.proxy.Clients[0].Grants = grants.Reporting()
	if got := s.do("GET", sealed, ""); got.status != 200 {
		t.Errorf("in report mode: %d %s", got.status, got.body)
	}
	lines := s.lines(3)
	if rec := lines[1]; rec["decision"] != "refused" || rec["file"] == nil {
		t.Errorf("the record is %v", rec)
	}
	if rec := lines[2]; fmt.Sprint(rec["reported"]) != "[NotGranted]" || rec["decision"] != "allowed" {
		t.Errorf("the record in report mode is %v", rec)
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		if got := s.do(method, sealed, ""); got.code() != "MethodNotAllowed" || got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %s", method, got.status, got.body)
		}
	}
	if n := len(s.place.requests()); n != 0 {
		t.Errorf("%d requests came to storage", n)
	}
	if got := s.do("GET", sealed, "", "Range", "bytes=0-", "Connection", "x-ms-range, close", "X-Ms-Range", "bytes=1-"); got.status != 200 {
		t.Errorf("with a header of its own hop: %d %s", got.status, got.body)
	}
	if a := s.place.requests()[0]; a.header["X-Ms-Range"] != nil {
		t.Errorf("arrived with %v", a.header)
	}
}

func TestDownloadsThatAreOffLeaveLinksAlone(t *testing.T) {
	s := newStorage(t, options{})
	sealed := s.sealed()
	s.proxy.Downloads = nil
	if got := s.ask(""); got != s.link {
		t.Errorf("the link becomes %s", got)
	}
	got := s.do("GET", sealed, "")
	if got.code() != "UnknownOperation" || got.status != 404 || !strings.Contains(got.message(), "relay.downloads") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if rec := s.lines(3)[2]; rec["path"] != sealedPath {
		t.Errorf("the record is %v", rec)
	}
	s.secretsAreKept(sealed)
}

// Whatever else is wrong with a request for a sealed link, the link is not written
// down.
func TestASealedLinkIsInNoRecordOfARefusal(t *testing.T) {
	s := newStorage(t, options{deps: func(d *Deps) {
		d.Clients[0].From = []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.0/8"))}
	}})
	sealed := s.sealed()
	seal := sealed[len(blobPrefix):]
	lines := []string{
		"GET @ HTTP/1.1\r\nHost: evil.example", "GET @ HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: null", "GET @%2f HTTP/1.1\r\nHost: 127.0.0.1", "GET @;a=b HTTP/1.1\r\nHost: 127.0.0.1",
		"GET @/../x HTTP/1.1\r\nHost: 127.0.0.1", "GET /t/contoso/@ HTTP/1.1\r\nHost: 127.0.0.1", "GET /@ HTTP/1.1\r\nHost: evil.example", "GET @#a HTTP/1.1\r\nHost: 127.0.0.1",
		"GET /%62lob/$ HTTP/1.1\r\nHost: evil.example", "GET /%62lob/$ HTTP/1.1\r\nHost: 127.0.0.1", "GET /prefix@ HTTP/1.1\r\nHost: 127.0.0.1", "GET /t/nobody@ HTTP/1.1\r\nHost: 127.0.0.1",
		"GET http://127.0.0.1@ HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: cross-site", "TRACE @ HTTP/1.1\r\nHost: 127.0.0.1", "POST @ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999",
		"GET @ HTTP/1.1\r\nHost: 127.0.0.1\r\nX_Request_Id: a\r\nTransfer_Encoding: x", "GET @/oauth2/token HTTP/1.1\r\nHost: 127.0.0.1",
		"GET /Blob/$ HTTP/1.1\r\nHost: 127.0.0.1", "GET //blob/$/ HTTP/1.1\r\nHost: 127.0.0.1", "GET /blob//$ HTTP/1.1\r\nHost: 127.0.0.1",
	}
	for _, line := range lines {
		got := s.raw(strings.NewReplacer("@", sealed, "$", seal).Replace(line) + "\r\nConnection: close\r\n\r\n")
		if got.status == 500 {
			t.Errorf("%s: %d %s", line, got.status, got.body)
		}
	}
	s.lines(1 + len(lines))
	s.secretsAreKept(sealed)
}
