package admin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/usage"
	"defender-proxy/policy"
)

// when is a condition that nobody asks here.
type when string

func (w when) String() string { return string(w) }

var usedAt = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func calls(client, tenant, operation string, answered, refused int64) usage.Count {
	c := usage.Count{Key: usage.Key{Client: client, Tenant: tenant, Operation: operation}, Answered: answered, Refused: refused}
	if answered > 0 {
		c.First, c.Last = usedAt.Add(-time.Hour), usedAt.Add(-time.Minute)
	}
	return c
}

// let says how many of the calls report mode alone let pass.
func let(reported int64, c usage.Count) usage.Count {
	c.Reported = reported
	return c
}

// viewOf makes a view of one group in two tenants.
func viewOf(t *testing.T, allow, deny []policy.Entry, report bool) *View {
	t.Helper()
	catalog, err := policy.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	grants, err := catalog.Grants(allow, deny)
	if err != nil {
		t.Fatal(err)
	}
	if report {
		grants = grants.Reporting()
	}
	return &View{Catalog: catalog, Groups: []Group{{Name: "soc", Grants: grants, Allow: allow}}, Tenants: []Tenant{{Name: "contoso"}, {Name: "fabrikam"}}}
}

func TestUsageTellsWhatIsGrantedInVain(t *testing.T) {
	until := usedAt.Add(time.Hour)
	for _, c := range []struct {
		name        string
		allow, deny []policy.Entry
		report      bool
		counts      []usage.Count
		unused      []string
		want        []SuggestedGrant
		used        int
	}{
		{name: "nothing was called", allow: policy.Entries("read", "machines.isolate"), unused: []string{"read", "machines.isolate"}},
		{name: "a class of which one operation was called", allow: policy.Entries("read", "respond"), counts: []usage.Count{calls("soc", "contoso", "alerts.list", 3, 0)},
			unused: []string{"respond"}, want: []SuggestedGrant{{Operations: []string{"alerts.list"}}}, used: 1},
		{name: "several, in the order of the catalog", allow: policy.Entries("read"), counts: []usage.Count{calls("soc", "contoso", "machines.list", 1, 0), calls("soc", "fabrikam", "alerts.list", 1, 0), calls("soc", "contoso", "alerts.list", 1, 0)},
			want: []SuggestedGrant{{Operations: []string{"alerts.list", "machines.list"}}}, used: 2},
		{name: "what was refused was not used", allow: policy.Entries("read"), counts: []usage.Count{calls("soc", "contoso", "alerts.list", 0, 9)}, unused: []string{"read"}},
		{name: "another group's calls", allow: policy.Entries("read"), counts: []usage.Count{calls("bots", "contoso", "alerts.list", 3, 0)}, unused: []string{"read"}},
		{name: "the entry behind one that covers it", allow: policy.Entries("alerts.*", "read"), counts: []usage.Count{calls("soc", "contoso", "alerts.list", 1, 0)},
			unused: []string{"read"}, want: []SuggestedGrant{{Operations: []string{"alerts.list"}}}, used: 1},
		{name: "what an entry is bound to stays", allow: []policy.Entry{{Operations: []string{"read"}, Tenants: []string{"contoso"}, Until: until, Text: "reads"}},
			counts: []usage.Count{calls("soc", "contoso", "alerts.list", 1, 0)}, want: []SuggestedGrant{{Operations: []string{"alerts.list"}, Tenants: []string{"contoso"}, Until: until}}, used: 1},
		{name: "a condition stays", allow: []policy.Entry{{Operations: []string{"respond"}, When: when(`request.body.IsolationType == "Selective"`)}},
			counts: []usage.Count{calls("soc", "contoso", "machines.isolate", 1, 0)}, want: []SuggestedGrant{{Operations: []string{"machines.isolate"}, When: `request.body.IsolationType == "Selective"`}}, used: 1},
		{name: "of several conditions nobody knows which held", allow: []policy.Entry{{Operations: []string{"respond"}, When: when("a")}, {Operations: []string{"machines.*"}, When: when("b")}, {Operations: []string{"hunt"}, When: when("c"), Text: "hunting"}},
			counts: []usage.Count{calls("soc", "contoso", "machines.isolate", 1, 0)}, unused: []string{"hunting"},
			want: []SuggestedGrant{{Operations: []string{"machines.isolate"}, When: "a"}, {Operations: []string{"machines.isolate"}, When: "b"}}, used: 1},
		{name: "an entry without a condition goes before one with", allow: []policy.Entry{{Operations: []string{"respond"}, When: when("a"), Text: "conditional"}, {Operations: []string{"machines.isolate"}}},
			counts: []usage.Count{calls("soc", "contoso", "machines.isolate", 1, 0)}, unused: []string{"conditional"}, want: []SuggestedGrant{{Operations: []string{"machines.isolate"}}}, used: 1},
		{name: "an entry for another tenant", allow: []policy.Entry{{Operations: []string{"respond"}, Tenants: []string{"fabrikam"}, Text: "elsewhere"}, {Operations: []string{"machines.isolate"}}},
			counts: []usage.Count{calls("soc", "contoso", "machines.isolate", 1, 0)}, unused: []string{"elsewhere"}, want: []SuggestedGrant{{Operations: []string{"machines.isolate"}}}, used: 1},
		{name: "a grant that has ended", allow: []policy.Entry{{Operations: []string{"respond"}, Until: usedAt.Add(-time.Second), Text: "drill"}, {Operations: []string{"read"}}},
			counts: []usage.Count{calls("soc", "contoso", "machines.isolate", 1, 0), calls("soc", "contoso", "alerts.list", 1, 0)}, unused: []string{"drill"}, want: []SuggestedGrant{{Operations: []string{"alerts.list"}}}, used: 1},
		{name: "what report mode let pass", allow: policy.Entries("read"), report: true,
			counts: []usage.Count{calls("soc", "contoso", "alerts.list", 1, 0), calls("soc", "contoso", "machines.isolate", 1, 0), calls("soc", "contoso", "machines.offboard", 1, 0), calls("soc", "fabrikam", "machines.offboard", 1, 0), calls("soc", "contoso", "machines.unisolate", 2, 0)},
			want:   []SuggestedGrant{{Operations: []string{"alerts.list"}}, {Operations: []string{"machines.isolate", "machines.unisolate"}, Tenants: []string{"contoso"}, New: true}, {Operations: []string{"machines.offboard"}, Tenants: []string{"contoso", "fabrikam"}, New: true}}, used: 1},
		{name: "what report mode let pass because a condition did not hold", allow: []policy.Entry{{Operations: []string{"machines.isolate"}, When: when("a")}, {Operations: []string{"read"}}}, report: true,
			counts: []usage.Count{let(5, calls("soc", "contoso", "machines.isolate", 5, 0)), calls("soc", "contoso", "alerts.list", 1, 0)}, unused: []string{"machines.isolate"},
			want: []SuggestedGrant{{Operations: []string{"alerts.list"}}, {Operations: []string{"machines.isolate"}, Tenants: []string{"contoso"}, New: true}}, used: 1},
		{name: "what a condition allowed once, and report mode the other times", allow: []policy.Entry{{Operations: []string{"machines.isolate"}, When: when("a")}}, report: true,
			counts: []usage.Count{let(4, calls("soc", "contoso", "machines.isolate", 5, 0))},
			want:   []SuggestedGrant{{Operations: []string{"machines.isolate"}, When: "a"}, {Operations: []string{"machines.isolate"}, Tenants: []string{"contoso"}, New: true}}, used: 1},
		{name: "what report mode let pass and an entry grants since", allow: policy.Entries("machines.isolate"), report: true,
			counts: []usage.Count{let(5, calls("soc", "contoso", "machines.isolate", 5, 0))}, want: []SuggestedGrant{{Operations: []string{"machines.isolate"}}}, used: 1},
		{name: "paths outside the catalog", allow: policy.Entries("read"), counts: []usage.Count{calls("soc", "contoso", "unknown.mde", 1, 0), calls("soc", "contoso", "alerts.list", 1, 0)},
			want: []SuggestedGrant{{Operations: []string{"alerts.list", "unknown.mde"}}}, used: 1},
		{name: "an operation that is in the catalog no more", allow: policy.Entries("read"), counts: []usage.Count{calls("soc", "contoso", "lab.ping", 1, 0)}, unused: []string{"read"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := viewOf(t, c.allow, c.deny, c.report)
			got := v.Usage(c.counts, usedAt).Clients[0]
			var unused []string
			for _, u := range got.Unused {
				unused = append(unused, u.Entry)
				if u.Operations == 0 {
					t.Errorf("%s names nothing", u.Entry)
				}
			}
			if !slices.Equal(unused, c.unused) || got.Used != c.used {
				t.Errorf("unused %q, %d used; want %q, %d", unused, got.Used, c.unused, c.used)
			}
			same := slices.EqualFunc(got.Allow, c.want, func(a, b SuggestedGrant) bool {
				return slices.Equal(a.Operations, b.Operations) && slices.Equal(a.Tenants, b.Tenants) && a.Until.Equal(b.Until) && a.When == b.When && a.New == b.New
			})
			if !same {
				t.Errorf("suggested %+v\nwant      %+v", got.Allow, c.want)
			}
		})
	}
}

// What is suggested grants all that was called, and nothing that was not granted
// before.
func TestWhatIsSuggestedGrantsWhatWasUsedAndNoMore(t *testing.T) {
	allow := []policy.Entry{
		{Operations: []string{"read", "machines.isolate"}}, {Operations: []string{"hunt"}, Tenants: []string{"fabrikam"}}, {Operations: []string{"manage"}},
		{Operations: []string{"respond"}, When: when("x")},
	}
	deny := policy.Entries("indicators.delete")
	v := viewOf(t, allow, deny, false)
	var counts []usage.Count
	for i, op := range v.Catalog.Operations() {
		for _, tenant := range []string{"contoso", "fabrikam"} {
			if i%3 == 0 && v.Groups[0].Grants.Rule(op, policy.Situation{Tenant: tenant, Now: usedAt}).Allow {
				counts = append(counts, calls("soc", tenant, op.ID, 1, 0))
			}
		}
	}
	var suggested []policy.Entry
	for _, s := range v.Usage(counts, usedAt).Clients[0].Allow {
		e := policy.Entry{Operations: s.Operations, Tenants: s.Tenants, Until: s.Until}
		if s.When != "" {
			e.When = when(s.When)
		}
		suggested = append(suggested, e)
	}
	grants, err := v.Catalog.Grants(suggested, deny)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range v.Catalog.Operations() {
		called := false
		for _, tenant := range []string{"contoso", "fabrikam"} {
			at := policy.Situation{Tenant: tenant, Now: usedAt}
			before, after := v.Groups[0].Grants.Rule(op, at), grants.Rule(op, at)
			was := slices.ContainsFunc(counts, func(c usage.Count) bool { return c.Tenant == tenant && c.Operation == op.ID })
			called = called || slices.ContainsFunc(counts, func(c usage.Count) bool { return c.Operation == op.ID })
			switch {
			case was && !after.Allow, was && (before.When == nil) != (after.When == nil):
				t.Errorf("%s was called in %s: granted by %+v before, by %+v after", op.ID, tenant, before, after)
			case after.Allow && !before.Allow:
				t.Errorf("%s in %s was not granted and is now, by %+v", op.ID, tenant, after)
			case after.Allow && !called:
				t.Errorf("%s was not called and is granted by %+v", op.ID, after)
			}
		}
	}
}

func TestUsageComparesPermissionsUsedWithThoseHeld(t *testing.T) {
	for _, c := range []struct {
		name                        string
		holds                       []string
		operations                  []string
		used, unused, enough        []policy.Permission
		withoutToken, withoutCounts bool
	}{
		{name: "nine are held and two used", holds: []string{"Alert.Read.All", "Machine.Read.All", "Machine.Isolate", "Ti.ReadWrite.All", "Library.Manage", "Score.Read.All", "Software.Read.All", "Vulnerability.Read.All", "User.Read.All"},
			operations: []string{"alerts.list", "machines.isolate"},
			used:       []policy.Permission{"Alert.Read.All", "Machine.Isolate"}, enough: []policy.Permission{"Alert.Read.All", "Machine.Isolate"},
			unused: []policy.Permission{"Machine.Read.All", "Ti.ReadWrite.All", "Library.Manage", "Score.Read.All", "Software.Read.All", "Vulnerability.Read.All", "User.Read.All"}},
		{name: "a smaller one would do", holds: []string{"Alert.ReadWrite.All"}, operations: []string{"alerts.list"},
			used: []policy.Permission{"Alert.ReadWrite.All"}, enough: []policy.Permission{"Alert.Read.All"}},
		{name: "the larger one is needed all the same", holds: []string{"Alert.Read.All", "Alert.ReadWrite.All"}, operations: []string{"alerts.list", "alerts.update"},
			used: []policy.Permission{"Alert.ReadWrite.All"}, unused: []policy.Permission{"Alert.Read.All"}, enough: []policy.Permission{"Alert.ReadWrite.All"}},
		{name: "nothing was called", holds: []string{"Alert.Read.All"}, unused: []policy.Permission{"Alert.Read.All"}},
		{name: "letters of another case", holds: []string{"alert.read.all"}, operations: []string{"alerts.list"},
			used: []policy.Permission{"Alert.Read.All"}, enough: []policy.Permission{"Alert.Read.All"}},
		{name: "report mode let it pass", holds: []string{"Machine.Read.All"}, operations: []string{"alerts.list"},
			unused: []policy.Permission{"Machine.Read.All"}, enough: []policy.Permission{"Alert.Read.All"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSide(t, granting(t, "read", "respond", "triage"))
			s.with(func(s *side) { s.roles = c.holds })
			var counts []usage.Count
			for _, id := range c.operations {
				counts = append(counts, calls("soc", "contoso", id, 1, 0))
			}
			before := s.current().Usage(counts, usedAt).Tenants[0].Services[0]
			if before.Known || before.Holds != nil || !slices.Equal(before.Enough, c.enough) {
				t.Errorf("without a token: %+v", before)
			}
			s.warm()
			got := s.current().Usage(counts, usedAt).Tenants[0].Services[0]
			if !got.Known || len(got.Holds) != len(c.holds) || !slices.Equal(got.Used, c.used) || !slices.Equal(got.Unused, c.unused) || !slices.Equal(got.Enough, c.enough) {
				t.Errorf("got %+v\nwant used %v, unused %v, enough %v", got, c.used, c.unused, c.enough)
			}
		})
	}
}

// What may be sent to either API needs both permissions, whichever was sent last: a
// permission that usage calls unused is one that somebody takes away.
func TestBothPermissionsOfAQueryThatMayGoEitherWayAreUsed(t *testing.T) {
	s := newSide(t, granting(t, "hunt"))
	s.with(func(s *side) { s.roles = []string{"AdvancedQuery.Read.All", "Alert.Read.All"} })
	s.warm()
	v := s.current()
	op, ok := v.operation("hunting.runMDE")
	if !ok {
		t.Fatal("there is no such operation")
	}
	next := v.Catalog.Successor(op)
	bridged := calls("soc", "contoso", op.ID, 3, 0)
	bridged.Bridged = 3
	refused := calls("soc", "contoso", op.ID, 0, 3)
	for _, c := range []struct {
		name         string
		count        usage.Count
		sends        []*policy.Operation
		used, unused []policy.Permission
	}{
		{"all went to Graph, and the next may not", bridged, []*policy.Operation{op, next}, []policy.Permission{"AdvancedQuery.Read.All"}, []policy.Permission{"Alert.Read.All"}},
		{"all went to Graph, and all will", bridged, []*policy.Operation{next}, nil, []policy.Permission{"Alert.Read.All", "AdvancedQuery.Read.All"}},
		{"none went anywhere", refused, []*policy.Operation{op, next}, nil, []policy.Permission{"Alert.Read.All", "AdvancedQuery.Read.All"}},
	} {
		v.Tenants[0].Sends = func(*policy.Operation) []*policy.Operation { return c.sends }
		row := v.Usage([]usage.Count{c.count}, usedAt).Tenants[0].Services[0]
		slices.Sort(row.Unused)
		slices.Sort(c.unused)
		if !slices.Equal(row.Used, c.used) || !slices.Equal(row.Unused, c.unused) {
			t.Errorf("%s: %+v, want used %v and unused %v", c.name, row, c.used, c.unused)
		}
	}
}

func TestThePageOfUsage(t *testing.T) {
	counter := usage.New()
	s := newSide(t, func(s *side, sources *Sources) {
		granting(t, "read", "machines.isolate")(s, sources)
		sources.Usage = counter
	})
	for _, r := range []audit.Record{
		{Event: audit.Request, Time: usedAt, Client: "soc", Tenant: "contoso", Operation: "alerts.list", Attempts: 1},
		{Event: audit.Request, Time: usedAt.Add(time.Hour), Client: "soc", Tenant: "fabrikam", Operation: "machines.list", Attempts: 1},
		{Event: audit.Request, Time: usedAt, Client: "before", Tenant: "contoso", Operation: "alerts.get", Attempts: 1},
	} {
		counter.Observe(&r)
	}
	read := func(path string) (report UsageReport) {
		t.Helper()
		w := s.get(path)
		if err := json.Unmarshal(w.Body.Bytes(), &report); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s, %v", path, w.Code, w.Body, err)
		}
		return report
	}
	names := func(r UsageReport) (all []string) {
		for _, c := range r.Clients {
			all = append(all, fmt.Sprintf("%s:%d", c.Client, len(c.Operations)))
		}
		for _, t := range r.Tenants {
			all = append(all, t.Tenant)
		}
		return all
	}
	all := read("/-/usage")
	if got := names(all); !slices.Equal(got, []string{"soc:2", "others:0", "before:1", "contoso"}) || !all.Since.Equal(usedAt) || !all.Until.Equal(usedAt.Add(time.Hour)) {
		t.Errorf("got %v from %v to %v", got, all.Since, all.Until)
	}
	if !all.Clients[2].Gone || len(all.Clients[2].Allow) != 0 {
		t.Errorf("a group that is gone: %+v", all.Clients[2])
	}
	if got := names(read("/-/usage?client=soc")); !slices.Equal(got, []string{"soc:2", "contoso"}) {
		t.Errorf("one group: %v", got)
	}
	if got := names(read("/-/usage?tenant=fabrikam&client=soc")); !slices.Equal(got, []string{"soc:1"}) {
		t.Errorf("one tenant: %v", got)
	}
	w := s.get("/-/usage?output=policy")
	want := `# What client groups really used, from 2026-11-21T12:00:00Z to 2026-11-21T13:00:00Z.
# Put each allow in the place of the one that the group has. What was not called in this
# time is not granted any more: look at unused grants that are for emergencies first.
clients:
  - name: soc
    # not used: machines.isolate (1 operation)
    allow:
      - alerts.list
      - machines.list
  - name: others
    # not used: read (90 operations)
    # not used: machines.isolate (1 operation)
    allow: []
`
	if w.Code != 200 || w.Body.String() != want || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/yaml") {
		t.Errorf("got %d %v\n%s", w.Code, w.Header(), w.Body)
	}
	for path, want := range map[string]struct {
		status int
		words  string
	}{
		"/-/usage?client=sock":                  {404, `no client group is called \"sock\"; there are before, others, soc.`},
		"/-/usage?tenant=nobody":                {404, `no tenant is called \"nobody\"; there are contoso, fabrikam.`},
		"/-/usage?tenant=contoso&output=policy": {400, "A policy is of all tenants"},
	} {
		if w := s.get(path); w.Code != want.status || !strings.Contains(w.Body.String(), want.words) {
			t.Errorf("%s: got %d %s, want %d with %s", path, w.Code, w.Body, want.status, want.words)
		}
	}
	if w := s.get("/-/usage?output=xml"); w.Code != 400 {
		t.Errorf("another output: %d", w.Code)
	}
	html := s.get("/", "Accept", "text/html").Body.String()
	for _, want := range []string{"<title>defender-proxy: operator</title>", "contoso", "2 of 91", "Since 2026-11-21 12:00:00 UTC"} {
		if !strings.Contains(html, want) {
			t.Errorf("%s is not in\n%s", want, html)
		}
	}
}

func TestAPolicyKeepsWhatEntriesAreBoundTo(t *testing.T) {
	r := UsageReport{Missed: 3, Clients: []ClientUsage{
		{Client: "soc", Allow: []SuggestedGrant{
			{Operations: []string{"alerts.list"}, Tenants: []string{"contoso", "on"}, Until: usedAt, When: `request.body.a == "b: #c"`},
			{Operations: []string{"machines.isolate"}, New: true},
		}, Unused: []UnusedGrant{{Entry: "two\nlines", Operations: 2, Why: "ended yesterday"}}},
		{Client: "gone", Gone: true},
	}}
	var b strings.Builder
	if err := r.WritePolicy(&b); err != nil {
		t.Fatal(err)
	}
	want := `# What client groups really used.
# Put each allow in the place of the one that the group has. What was not called in this
# time is not granted any more: look at unused grants that are for emergencies first.
# 3 requests could not be told apart and are not in it.
clients:
  - name: soc
    # not used: two lines (2 operations, ended yesterday)
    allow:
      - operations:
          - alerts.list
        tenants:
          - contoso
          - "on"
        until: 2026-11-21T12:00:00Z
        when: "request.body.a == \"b: #c\""
      # not granted now, and let pass by report mode:
      - machines.isolate
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
