package integration

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// A tool that knows one base URL asks for alerts. It has no token, no secret and
// no library for either; it follows @odata.nextLink until there is none, and has
// every alert of the tenant once. What Microsoft's side sees is a well-formed
// request with a bearer, and nothing that the tool sent for authentication.
func TestACallerWithoutACredentialGetsItsAlerts(t *testing.T) {
	t.Parallel()
	const alerts, pageSize = 137, 20
	w := newWorld(t, setup{sim: simulator.Config{Alerts: alerts, PageSize: pageSize}, config: probing})
	w.nearest("eu")
	w.sim.ResetRequests()

	seen := make(map[string]bool)
	pages := 0
	for next := w.url + "/api/alerts"; next != ""; {
		a := w.get(next, "Authorization", "Basic YW5hbHlzdDpndWVzcw==", "Cookie", "session=1", "X-Forwarded-For", "192.0.2.1")
		p := a.page(t)
		pages++
		for _, row := range p.Value {
			if seen[row.ID] {
				t.Fatalf("page %d repeats alert %s", pages, row.ID)
			}
			seen[row.ID] = true
		}
		if got := a.header.Get("Proxy-Status"); got != "defender-proxy; next-hop=eu" {
			t.Errorf("Proxy-Status is %q", got)
		}
		if strings.Contains(string(a.body), "securitycenter.microsoft.com") {
			t.Errorf("page %d still leads to Microsoft: %v", pages, a)
		}
		if rs := w.recordsOf(a); len(rs) != 1 || rs[0].Status != 200 || rs[0].Operation != "alerts.list" || rs[0].Decision != "allowed" ||
			rs[0].TokenUTI == "" || rs[0].BytesOut != int64(len(a.body)) || rs[0].Region != "eu" || rs[0].Attempts != 1 {
			t.Errorf("the records of page %d are %+v", pages, rs)
		}
		if p.Next != "" && !strings.HasPrefix(p.Next, w.url+"/api/alerts?") {
			t.Fatalf("the next link of page %d leads to %s", pages, p.Next)
		}
		next = p.Next
	}
	if want := (alerts + pageSize - 1) / pageSize; len(seen) != alerts || pages != want {
		t.Errorf("got %d alerts on %d pages, want %d on %d", len(seen), pages, alerts, want)
	}

	arrived := w.upstream()
	if len(arrived) != pages {
		t.Errorf("%d requests arrived for %d pages", len(arrived), pages)
	}
	bearer := ""
	for _, r := range arrived {
		if r.Region != "eu" || r.Status != http.StatusOK || r.Tenant != simulator.DefaultTenantID {
			t.Errorf("arrived: %+v", r)
		}
		for _, name := range []string{"Cookie", "X-Forwarded-For", "Forwarded", "Via"} {
			if r.Header.Get(name) != "" {
				t.Errorf("the header %s arrived", name)
			}
		}
		// The simulator records its fingerprint only.
		if got := r.Header.Get("Authorization"); bearer == "" {
			bearer = got
		} else if got != bearer {
			t.Errorf("two tokens for one tenant and audience")
		}
	}
	if n := w.sim.Issued()[simulator.Issued{Tenant: simulator.DefaultTenantID, App: simulator.DefaultClientID, Audience: "https://api.securitycenter.microsoft.com"}]; n != 1 {
		t.Errorf("%d tokens were issued", n)
	}
}

// A filter with what OData and careless scripts put into one goes out byte for
// byte: a filter that is lost returns the whole fleet. What carries a credential
// is cut out, and nothing else.
func TestTheQueryArrivesByteForByteButForCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	for _, tc := range []struct{ name, sent, arrives string }{
		{"a semicolon, plus signs and encoded ones", "/api/machines?$filter=healthStatus+eq+'Active';x&$top=1", ""},
		{"an encoded plus", "/api/alerts?$filter=title%20eq%20'a%2Bb'&$top=3", ""},
		{"lower-case escapes and a lone ampersand", "/api/alerts?$top=2&&$skip=%31&", ""},
		{"nested OData options", "/api/alerts?$expand=evidence($select=sha1;$top=1)", ""},
		{"a bare question mark", "/api/machines?", ""},
		{"a trailing slash before the query", "/api/machines/?$top=1", "/api/machines?$top=1"},
		{"a doubled slash of a naive join", "//api/machines?$top=1", "/api/machines?$top=1"},
		{"letter case and version as written", "/API/v1.0/Machines?$TOP=1", ""},
		{"a credential in the query", "/api/alerts?$top=1&client_secret=hunter2&access_token=eyJh&$skip=1", "/api/alerts?$top=1&$skip=1"},
		{"an override of the method", "/api/alerts?_method=DELETE&$top=1", "/api/alerts?$top=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := w.in(t)
			w.sim.ResetRequests()
			request := "GET " + tc.sent + " HTTP/1.1\r\nHost: " + w.address() + "\r\nConnection: close\r\n\r\n"
			if got := raw(t, w.address(), request); strings.Contains(got, "Proxy-Status: defender-proxy; error=") {
				t.Fatalf("refused: %s", got)
			}
			want := tc.arrives
			if want == "" {
				want = tc.sent
			}
			if got := w.upstream(); len(got) != 1 || got[0].Target != want {
				t.Errorf("sent %s, arrived %+v, want %s", tc.sent, got, want)
			}
		})
	}
}

// Filters work: what comes back is what was asked for, not the fleet.
func TestAFilterReturnsWhatItAsksFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{PageSize: 1000}})
	all := w.get("/api/machines?$count=true").page(t)
	some := w.get("/api/machines?$filter=" + url.QueryEscape("healthStatus eq 'Active'") + "&$count=true").page(t)
	if all.Count == nil || some.Count == nil || *all.Count != len(all.Value) || *some.Count != len(some.Value) ||
		*some.Count == 0 || *some.Count >= *all.Count {
		t.Errorf("%d of %d machines, @odata.count %v and %v", len(some.Value), len(all.Value), some.Count, all.Count)
	}
	number := w.get("/api/machines/$count")
	if string(number.body) != "240" {
		t.Errorf("/$count answers %v", number)
	}
}
