package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func operation(t *testing.T, c *Catalog, id string) *Operation {
	t.Helper()
	op, ok := c.ByID(id)
	if !ok {
		t.Fatalf("there is no %s", id)
	}
	return op
}

func TestWhatMicrosoftRetires(t *testing.T) {
	c := catalog(t)
	var retired []string
	for _, op := range c.Operations() {
		if err := c.succession(op); err != nil {
			t.Errorf("%s: %v", op.ID, err)
		}
		if op.Retires() {
			retired = append(retired, op.ID)
		}
	}
	if want := []string{"hunting.runMDE", "hunting.runXDR", "hunting.runMDEByKey"}; !slices.Equal(retired, want) {
		t.Errorf("retired are %q, want %q", retired, want)
	}
	for id, page := range map[string]string{
		"hunting.runMDE":    "https://learn.microsoft.com/defender-endpoint/api/run-advanced-query-api",
		"hunting.runXDR":    "https://learn.microsoft.com/defender-xdr/api-advanced-hunting",
		"graph.hunting.run": "https://learn.microsoft.com/graph/api/security-security-runhuntingquery",
	} {
		if got := operation(t, c, id).Page(); got != page {
			t.Errorf("the page of %s is %q, want %q", id, got, page)
		}
	}
	mde := operation(t, c, "hunting.runMDE")
	if next := c.Successor(mde); next == nil || next.ID != "graph.hunting.run" || next.Class != mde.Class || c.Successor(next) != nil {
		t.Errorf("the successor is %v", next)
	}
	if c.Successor(nil) != nil || c.Successor(&Operation{Successor: "nothing"}) != nil {
		t.Error("there is a successor of nothing")
	}
	sunset := time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC)
	if at := mde.SunsetAt(); !at.Equal(sunset) || mde.Past(sunset.Add(-time.Nanosecond)) || !mde.Past(sunset) {
		t.Errorf("the sunset is %v", at)
	}
	if at := mde.DeprecatedAt(); !at.Equal(time.Date(2026, 2, 6, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("it is deprecated since %v", at)
	}
	if op := operation(t, c, "alerts.list"); op.Past(sunset) || !op.SunsetAt().IsZero() {
		t.Errorf("%s has a sunset", op.ID)
	}
	for _, doc := range []string{"", "https://lab.example/x", "a page.md", "../x.md", "notes"} {
		if got := (&Operation{Service: ServiceMDE, Doc: doc}).Page(); got != "" {
			t.Errorf("doc %q has the page %s", doc, got)
		}
	}
}

func TestWhatOfARetirementCanNeverBeMeant(t *testing.T) {
	for _, c := range []struct {
		name string
		op   Operation
		want string
	}{
		{"a day that is none", Operation{ID: "alerts.list", Sunset: "2027-02-30"}, `sunset "2027-02-30" is not a day`},
		{"a moment for a day", Operation{ID: "alerts.list", Deprecated: "2027-02-01T00:00:00Z"}, `deprecated "2027-02-01T00:00:00Z" is not a day`},
		{"a successor that is not there", Operation{ID: "alerts.list", Successor: "alerts.lst"}, `successor "alerts.lst" is no operation of the catalog`},
		{"itself", Operation{ID: "alerts.list", Successor: "Alerts.List"}, "is the operation itself"},
		{"one of another class", Operation{ID: "alerts.list", Successor: "machines.isolate"}, "is of class respond, the operation of class read"},
		{"a path outside the catalog", Operation{ID: "alerts.list", Successor: "unknown.mde"}, "is no operation of the catalog"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewCatalog([]Operation{c.op})
			var addition *AdditionError
			if !errors.As(err, &addition) || addition.Index != 0 || addition.ID != "alerts.list" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	c, err := NewCatalog([]Operation{{ID: "alerts.list", Successor: "lab.alerts", Sunset: "2030-01-01"}, {ID: "lab.alerts", Service: ServiceMDE, Method: "GET", Path: "/api/lab", Class: ClassRead, Application: []Permission{"Alert.Read.All"}}})
	if err != nil {
		t.Fatal(err)
	}
	if next := c.Successor(operation(t, c, "alerts.list")); next == nil || next.ID != "lab.alerts" {
		t.Errorf("the successor that the operator added: %v", next)
	}
}

func TestTheTokenIsJudgedByWhatIsSent(t *testing.T) {
	c := catalog(t)
	old, graph := operation(t, c, "hunting.runMDE"), operation(t, c, "graph.hunting.run")
	hunt := mustGrants(t, c, "hunt")
	for _, tc := range []struct {
		name   string
		grants *Grants
		roles  []string
		want   Verdict
	}{
		{"granted by class, permitted by Graph's permission", hunt, []string{"ThreatHunting.Read.All"}, Allowed},
		{"granted by class, with the old permission", hunt, []string{"AdvancedQuery.Read.All"}, MissingPermission},
		{"granted by the old id", mustGrants(t, c, "hunting.runMDE"), []string{"ThreatHunting.Read.All"}, Allowed},
		{"granted by Graph's id", mustGrants(t, c, "graph.hunting.run"), []string{"ThreatHunting.Read.All"}, NotGranted},
		{"not granted", nil, []string{"ThreatHunting.Read.All"}, NotGranted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := (&Policy{Catalog: c}).DecideSent(old, graph, tc.grants, Situation{}, c.Permits(tc.roles, nil)); d.Verdict != tc.want {
				t.Errorf("got %v, want %v", d.Verdict, tc.want)
			}
		})
	}
	if d := (&Policy{Catalog: c, ReportOnly: true}).DecideSent(old, graph, hunt, Situation{}, c.Permits(nil, nil)); d.Verdict != Reported || !d.Unpermitted {
		t.Errorf("in report mode: %+v", d)
	}
}

func TestReportsAreOfWhatIsSent(t *testing.T) {
	c := catalog(t)
	old, graph := operation(t, c, "hunting.runMDE"), operation(t, c, "graph.hunting.run")
	group := []Grantee{{"soc", mustGrants(t, c, "hunting.runMDE")}}
	as := func(all ...*Operation) Sends {
		return func(op *Operation) []*Operation {
			if op == old {
				return all
			}
			return []*Operation{op}
		}
	}
	for _, tc := range []struct {
		name       string
		sends      Sends
		mde, graph bool
	}{
		{"as itself", nil, true, false},
		{"as its successor", as(graph), false, true},
		{"as both", as(old, graph), true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for s, want := range map[Service]bool{ServiceMDE: tc.mde, ServiceGraph: tc.graph, ServiceXDR: false} {
				if got := c.Uses(s, group, Situation{}, tc.sends); got != want {
					t.Errorf("%s is used: %v", s, got)
				}
				missing := c.Missing(s, group, Situation{}, tc.sends, c.Permits([]string{"Alert.Read.All"}, nil))
				if !want && len(missing) == 0 {
					continue
				}
				needs := map[Service]Permission{ServiceMDE: "AdvancedQuery.Read.All", ServiceGraph: "ThreatHunting.Read.All"}[s]
				if len(missing) != 1 || !slices.Equal(missing[0].AnyOf, []Permission{needs}) || !slices.Equal(missing[0].Operations, []string{"hunting.runMDE"}) {
					t.Errorf("%s lacks %+v", s, missing)
				}
				if more := c.Missing(s, group, Situation{}, tc.sends, c.Permits([]string{string(needs)}, nil)); len(more) != 0 {
					t.Errorf("%s lacks %+v of what it holds", s, more)
				}
			}
		})
	}
}
