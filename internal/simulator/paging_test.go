package simulator

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestAlertsArriveWithAToken(t *testing.T) {
	p := start(t, quick())
	a := p.get("mde", "/api/alerts?$top=2&$count=true")
	if a.status != 200 || len(a.rows(t)) != 2 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	if got := a.object(t)["@odata.count"]; got != 60.0 {
		t.Errorf("@odata.count is %v, want 60", got)
	}
	if got := a.object(t)["@odata.context"]; got != "https://api.securitycenter.microsoft.com/api/$metadata#Alerts" {
		t.Errorf("@odata.context is %v", got)
	}
	if strings.Contains(string(a.body), "nextLink") {
		t.Error("an answer with $top has a next link")
	}
}

// follow reads a list to its end by its next links, sent to the simulator in
// place of the host that they name.
func (p *peer) follow(path, token string) (ids []string, pages int) {
	p.t.Helper()
	next := p.Endpoint("eu") + path
	for next != "" {
		a := p.do("GET", next, token, "")
		if a.status != 200 {
			p.t.Fatalf("page %d at %s: %d %s", pages, next, a.status, a.body)
		}
		pages++
		for _, row := range a.rows(p.t) {
			ids = append(ids, row["id"].(string))
		}
		link, _ := a.object(p.t)["@odata.nextLink"].(string)
		if next = link; link != "" {
			u, err := url.Parse(link)
			if err != nil {
				p.t.Fatal(err)
			}
			if u.Scheme != "https" || !strings.HasSuffix(u.Host, ".microsoft.com") {
				p.t.Fatalf("next link %s is not one of Microsoft's", link)
			}
			next = p.Endpoint("uk") + strings.TrimPrefix(link, "https://"+u.Host)
		}
	}
	return ids, pages
}

func TestPagesToTheEndAreTheWholeSetWithoutRepeats(t *testing.T) {
	cfg := quick()
	cfg.PageSize = 7
	p := start(t, cfg)
	f := p.directory.tenant(DefaultTenantID).fleet()
	medium := 0
	for _, a := range f.alerts {
		if a.Severity == "Medium" {
			medium++
		}
	}
	for _, c := range []struct {
		name, service, path string
		rows, pages         int
	}{
		{"alerts", "mde", "/api/alerts", 60, 9},
		{"machines under v1.0 and in capitals", "mde", "/API/v1.0/Machines", 35, 5},
		{"a filter with a quote, a plus and a semicolon", "mde", "/api/alerts?$filter=severity+eq+'Medium'%20or%20id%20eq%20'a;b''%2B'", medium, (medium + 6) / 7},
		{"a list that starts after some", "mde", "/api/machines?$skip=30", 5, 1},
		{"an empty list", "mde", "/api/alerts?$filter=severity%20eq%20'None'", 0, 1},
		{"an export page by page", "mde", "/api/machines/SoftwareVulnerabilitiesByMachine?pageSize=50", len(allRows(f, vulnerabilityRows)), (len(allRows(f, vulnerabilityRows)) + 49) / 50},
		{"Graph by $top", "graph", "/v1.0/security/alerts_v2?$top=25", 60, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &peer{p.Simulator, t, p.client}
			ids, pages := p.follow(c.path, p.token(c.service))
			if len(ids) != c.rows || pages != c.pages {
				t.Errorf("got %d rows on %d pages, want %d on %d", len(ids), pages, c.rows, c.pages)
			}
			slices.Sort(ids)
			if unique := slices.Compact(ids); len(unique) != len(ids) {
				t.Errorf("%d rows came twice", len(ids)-len(unique))
			}
		})
	}
}

func TestSkipTokensNeedCareOnTheirWay(t *testing.T) {
	p := start(t, Config{Seed: 1, Machines: 5, Alerts: 20, Vulnerabilities: 5, PageSize: 5, Delays: quick().Delays})
	link, _ := p.get("mde", "/api/alerts?$filter=severity%20ne%20'x'").object(t)["@odata.nextLink"].(string)
	if !strings.Contains(link, "%2B") || !strings.HasSuffix(link, "==") {
		t.Fatalf("next link %s has neither %%2B nor ==", link)
	}
	if !strings.Contains(link, "?$filter=severity%20ne%20'x'&$skiptoken=") {
		t.Errorf("next link %s lost the query of the request", link)
	}
	_, query, _ := strings.Cut(link, "?")
	for name, spoilt := range map[string]string{
		"a plus that was decoded":   strings.ReplaceAll(query, "%2B", "+"),
		"a lost end":                strings.TrimSuffix(query, "="),
		"another collection's":      "machines",
		"a token that was made up":  "$skiptoken=abc",
		"a token of another page's": strings.Replace(query, "AAAAAAA", "AAAAAAB", 1),
	} {
		t.Run(name, func(t *testing.T) {
			target := "/api/alerts?" + spoilt
			if spoilt == "machines" {
				target = "/api/machines?" + query[strings.Index(query, "$skiptoken"):]
			}
			if a := p.get("mde", target); a.status != 400 || a.code() != "ODataError" {
				t.Errorf("got %d %s, want 400 ODataError", a.status, a.body)
			}
		})
	}
	// Links live on after a restart.
	again := start(t, Config{Seed: 1, Machines: 5, Alerts: 20, Vulnerabilities: 5, PageSize: 5, Delays: quick().Delays})
	if a := again.get("mde", "/api/alerts?"+query); a.status != 200 || len(a.rows(t)) != 5 {
		t.Errorf("after a restart: %d %.200s", a.status, a.body)
	}
}

func TestQueryOptionsShapeAnAnswer(t *testing.T) {
	p := start(t, quick())
	for _, c := range []struct {
		name, path string
		check      func(t *testing.T, a answer)
	}{
		{"$count behind a collection is a number in plain text", "/api/machines/$count", func(t *testing.T, a answer) {
			if string(a.body) != "35" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
				t.Errorf("got %q as %s", a.body, a.header.Get("Content-Type"))
			}
		}},
		{"@odata.count is the total after the filter", "/api/machines?$count=true&$top=1&$filter=osPlatform%20eq%20'Linux'", func(t *testing.T, a answer) {
			if n := a.object(t)["@odata.count"]; n != 5.0 {
				t.Errorf("got %v, want 5", n)
			}
		}},
		{"$select gives the named properties only", "/api/machines?$top=1&$select=id,osPlatform", func(t *testing.T, a answer) {
			if row := a.rows(t)[0]; len(row) != 2 || row["osPlatform"] != "Windows11" {
				t.Errorf("got %v", row)
			}
		}},
		{"$orderby goes down and then up", "/api/machines?$orderby=rbacGroupId%20desc,computerDnsName&$select=rbacGroupId,computerDnsName", func(t *testing.T, a answer) {
			rows := a.rows(t)
			if !slices.IsSortedFunc(rows, func(a, b map[string]any) int {
				if d := int(b["rbacGroupId"].(float64) - a["rbacGroupId"].(float64)); d != 0 {
					return d
				}
				return strings.Compare(a["computerDnsName"].(string), b["computerDnsName"].(string))
			}) || rows[0]["rbacGroupId"] == rows[len(rows)-1]["rbacGroupId"] {
				t.Errorf("not in order: %v", rows)
			}
		}},
		{"evidence is empty", "/api/alerts?$top=1", func(t *testing.T, a answer) {
			if e := a.rows(t)[0]["evidence"].([]any); len(e) != 0 {
				t.Errorf("got %v", e)
			}
		}},
		{"evidence is there when expanded", "/api/alerts?$top=1&$expand=evidence", func(t *testing.T, a answer) {
			if e := a.rows(t)[0]["evidence"].([]any); len(e) != 5 {
				t.Errorf("got %v", e)
			}
		}},
		{"a slash behind the collection makes no difference", "/api/machines/?$top=1", func(t *testing.T, a answer) {
			if len(a.rows(t)) != 1 {
				t.Errorf("got %s", a.body)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(t, p.get("mde", c.path)) })
	}
	for _, bad := range []string{
		"/api/machines?$top=10001", "/api/machines?$top=-1", "/api/machines?$top=x", "/api/vulnerabilities?$top=8001", "/api/machines?$skip=-1",
		"/api/machines?$count=maybe", "/api/machines?$select=nothing", "/api/machines?$expand=evidence", "/api/machines?$orderby=id%20sideways",
		"/api/machines?$search=x", "/api/machines?$filter=id%20eq%20'a'&$filter=id%20eq%20'b'", "/api/machines?$stop=1", "/api/machines?$filter=%zz",
	} {
		if a := p.get("mde", bad); a.status != 400 || a.code() != "ODataError" {
			t.Errorf("%s: got %d %s, want 400 ODataError", bad, a.status, a.body)
		}
	}
	if a := p.get("xdr", "/api/incidents?$top=101"); a.code() != "ODataError" {
		t.Errorf("101 incidents: got %d %s", a.status, a.body)
	}
	if a := p.get("xdr", "/api/incidents?$top=3&$skip=1"); len(a.rows(t)) != 3 {
		t.Errorf("incidents by $top and $skip: %s", a.body)
	}
}

func TestAnswersAreCompressedForThoseWhoAsk(t *testing.T) {
	p := start(t, quick())
	token := p.token("mde")
	for encoding, want := range map[string]string{"gzip": "gzip", "deflate, gzip;q=0.5": "gzip", "gzip;q=0": "", "identity": "", "": ""} {
		r, err := http.NewRequest("GET", p.Endpoint("eu")+"/api/alerts?$top=3", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		if encoding != "" {
			r.Header.Set("Accept-Encoding", encoding)
		}
		a, err := p.send(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: got Content-Encoding %q, want %q", encoding, got, want)
		}
		if want == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(a.body))
			if err != nil {
				t.Fatal(err)
			}
			if a.body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if len(a.rows(t)) != 3 {
			t.Errorf("Accept-Encoding %q: got %.100s", encoding, a.body)
		}
	}
}
