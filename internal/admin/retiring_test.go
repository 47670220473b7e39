package admin

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/usage"
	"defender-proxy/policy"
)

func TestUsageTellsWhoCallsWhatIsRetired(t *testing.T) {
	v := viewOf(t, policy.Entries("read", "hunt"), nil, false)
	mde := calls("soc", "contoso", "hunting.runMDE", 5, 1)
	mde.Bridged = 2
	counts := []usage.Count{
		calls("bots", "fabrikam", "hunting.runMDE", 1, 0), calls("soc", "contoso", "alerts.list", 9, 0), calls("soc", "contoso", "graph.hunting.run", 3, 0),
		mde, calls("soc", "contoso", "hunting.runXDR", 0, 4), calls("soc", "contoso", "unknown.mde", 1, 0), calls("soc", "contoso", "lab.gone", 1, 0),
	}
	last := usedAt.Add(-time.Minute)
	want := []RetiringUsage{
		{"hunting.runMDE", "2026-02-06", "2027-02-01", "graph.hunting.run", []RetiringClient{{"bots", "fabrikam", 1, 0, 0, last}, {"soc", "contoso", 5, 2, 1, last}}},
		{"hunting.runXDR", "2026-02-06", "2027-02-01", "graph.hunting.run", []RetiringClient{{Client: "soc", Tenant: "contoso", Refused: 4}}},
	}
	same := func(a, b RetiringUsage) bool {
		return a.Operation == b.Operation && a.Deprecated == b.Deprecated && a.Sunset == b.Sunset && a.Successor == b.Successor && slices.Equal(a.Clients, b.Clients)
	}
	if got := v.Usage(counts, usedAt).Retiring; !slices.EqualFunc(got, want, same) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	text, err := json.Marshal(v.Usage(nil, usedAt))
	if err != nil || !strings.Contains(string(text), `"retiring":[]`) {
		t.Errorf("without calls: %s, %v", text, err)
	}
}

// The report of one client group or tenant has only its calls.
func TestTheReportOfOneGroupHasOnlyItsRetiringCalls(t *testing.T) {
	v := viewOf(t, policy.Entries("hunt"), nil, false)
	c := usage.New()
	for _, r := range []audit.Record{
		{Client: "soc", Tenant: "contoso"}, {Client: "soc", Tenant: "fabrikam"}, {Client: "bots", Tenant: "contoso"},
	} {
		r.Event, r.Time, r.Operation, r.Attempts = audit.Request, usedAt, "hunting.runMDE", 1
		c.Observe(&r)
	}
	for _, asked := range []struct {
		tenant, client string
		want           int
	}{{"", "", 3}, {"contoso", "", 2}, {"", "soc", 2}, {"contoso", "bots", 1}} {
		r, err := v.Used(c, asked.tenant, asked.client, usedAt)
		if err != nil || len(r.Retiring) != 1 || len(r.Retiring[0].Clients) != asked.want {
			t.Errorf("%+v: %+v, %v", asked, r.Retiring, err)
		}
	}
}

// What is sent to Graph needs Graph's permission, not that of the older API.
func TestBridgedCallsNeedThePermissionOfTheSuccessor(t *testing.T) {
	v := viewOf(t, policy.Entries("hunt"), nil, false)
	tenant := Tenant{Name: "contoso"}
	s := newSide(t, nil)
	for _, service := range []policy.Service{policy.ServiceMDE, policy.ServiceGraph} {
		access := s.tenant("contoso").Access[0]
		access.Service = service
		tenant.Access = append(tenant.Access, access)
	}
	for _, c := range []struct {
		bridged    int64
		mde, graph []policy.Permission
	}{
		{0, []policy.Permission{"AdvancedQuery.Read.All"}, nil},
		{5, nil, []policy.Permission{"ThreatHunting.Read.All"}},
		{2, []policy.Permission{"AdvancedQuery.Read.All"}, []policy.Permission{"ThreatHunting.Read.All"}},
	} {
		count := calls("soc", "contoso", "hunting.runMDE", 5, 0)
		count.Bridged = c.bridged
		for _, row := range v.tenantUsage(tenant, []usage.Count{count}).Services {
			want := map[policy.Service][]policy.Permission{policy.ServiceMDE: c.mde, policy.ServiceGraph: c.graph}[row.Service]
			if !slices.Equal(row.Enough, want) {
				t.Errorf("%d of 5 bridged: %s needs %v, want %v", c.bridged, row.Service, row.Enough, want)
			}
		}
	}
}

func TestTheMetricOfRetiringOperationsIsBoundedByTheConfiguration(t *testing.T) {
	counter := usage.New()
	s := newSide(t, func(s *side, sources *Sources) {
		v := viewOf(t, policy.Entries("hunt"), nil, false)
		s.view.Catalog, s.view.Groups = v.Catalog, v.Groups
		sources.Usage = counter
	})
	for _, r := range []audit.Record{
		{Client: "soc", Operation: "hunting.runMDE", Attempts: 1}, {Client: "soc", Operation: "hunting.runMDE", Attempts: 1, SentAs: "graph.hunting.run"},
		{Client: "soc", Operation: "hunting.runMDE", Code: "NotGranted"}, {Client: "gone", Operation: "hunting.runMDE", Attempts: 1},
		{Client: "soc", Operation: "alerts.list", Attempts: 1}, {Client: "soc", Operation: "graph.hunting.run", Attempts: 1},
	} {
		r.Event, r.Time, r.Tenant = audit.Request, usedAt, "contoso"
		counter.Observe(&r)
	}
	if page := s.get("/", "Accept", "text/html").Body.String(); !strings.Contains(page, "<tr><td>hunting.runMDE<td>2027-02-01<td>graph.hunting.run<td>soc<td>contoso") {
		t.Errorf("the dashboard:\n%s", page)
	}
	w := s.get("/metrics")
	var series []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "defender_proxy_retiring_requests_total") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	if want := []string{`defender_proxy_retiring_requests_total{client="soc",operation="hunting.runMDE"} 3`}; !slices.Equal(series, want) {
		t.Errorf("got %q (%d), want %q", series, w.Code, want)
	}
}
