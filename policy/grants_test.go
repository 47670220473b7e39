package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// when is a condition by its text.
type when string

func (w when) String() string { return string(w) }

// noon is when the tests ask.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestRule(t *testing.T) {
	c := catalog(t)
	before, after := noon.Add(-time.Nanosecond), noon.Add(time.Nanosecond)
	entries := func(e ...Entry) []Entry { return e }
	at := Situation{"contoso", noon}
	for _, tc := range []struct {
		name        string
		allow, deny []Entry
		at          Situation
		want        string // the entries that decide, one after the other; "deny NAME", or "" for none
	}{
		{"nothing", nil, nil, at, ""},
		{"an entry for all tenants and for ever", Entries("respond"), nil, at, "respond"},
		{"an entry for this tenant", entries(Entry{Operations: []string{"respond"}, Tenants: []string{"fabrikam", "contoso"}}), nil, at, "respond"},
		{"an entry for another tenant", entries(Entry{Operations: []string{"respond"}, Tenants: []string{"fabrikam"}}), nil, at, ""},
		{"a tenant's name is compared as it is", entries(Entry{Operations: []string{"respond"}, Tenants: []string{"Contoso"}}), nil, at, ""},
		{"an entry that has not ended", entries(Entry{Operations: []string{"respond"}, Until: after}), nil, at, "respond"},
		{"an entry that ends now", entries(Entry{Operations: []string{"respond"}, Until: noon}), nil, at, ""},
		{"an entry that has ended", entries(Entry{Operations: []string{"respond"}, Until: before}), nil, at, ""},
		{"one that has ended leaves it to the next", entries(Entry{Operations: []string{"respond"}, Until: before}, Entry{Operations: []string{"machines.*"}}), nil, at, "machines.*"},
		{"a denial for this tenant", Entries("respond"), entries(Entry{Operations: []string{"machines.isolate"}, Tenants: []string{"contoso"}}), at, "deny machines.isolate"},
		{"a denial for another tenant", Entries("respond"), entries(Entry{Operations: []string{"machines.isolate"}, Tenants: []string{"fabrikam"}}), at, "respond"},
		{"a denial that has ended", Entries("respond"), entries(Entry{Operations: []string{"machines.isolate"}, Until: before}), at, "respond"},
		{"a denial that has not ended wins over a longer grant", entries(Entry{Operations: []string{"respond"}, Until: after.Add(time.Hour)}), entries(Entry{Operations: []string{"*"}, Until: after}), at, "deny *"},
		{"what is not known counts against the caller: the tenant of a grant", entries(Entry{Operations: []string{"respond"}, Tenants: []string{"contoso"}}), nil, Situation{"", noon}, ""},
		{"the tenant of a denial", Entries("respond"), entries(Entry{Operations: []string{"respond"}, Tenants: []string{"contoso"}}), Situation{"", noon}, "deny respond"},
		{"the time of a grant", entries(Entry{Operations: []string{"respond"}, Until: after}), nil, Situation{"contoso", time.Time{}}, ""},
		{"the time of a denial", Entries("respond"), entries(Entry{Operations: []string{"respond"}, Until: before}), Situation{"contoso", time.Time{}}, "deny respond"},
		{"a condition", entries(Entry{Operations: []string{"respond"}, When: when("a")}), nil, at, "respond when a"},
		{"conditions one after the other", entries(Entry{Operations: []string{"respond"}, When: when("a")}, Entry{Operations: []string{"machines.*"}, When: when("b")}), nil, at, "respond when a, machines.* when b"},
		{"one whose time is over is not asked", entries(Entry{Operations: []string{"respond"}, When: when("a")}, Entry{Operations: []string{"*"}, When: when("b"), Until: before}, Entry{Operations: []string{"machines.*"}, When: when("c")}), nil, at, "respond when a, machines.* when c"},
		{"an entry without a condition saves the question", entries(Entry{Operations: []string{"respond"}, When: when("a")}, Entry{Operations: []string{"machines.*"}}), nil, at, "machines.*"},
		{"a denial saves it as well", entries(Entry{Operations: []string{"respond"}, When: when("a")}), Entries("machines.isolate"), at, "deny machines.isolate"},
		{"an entry of several operations is told by them", entries(Entry{Operations: []string{"read", "machines.isolate", "respond"}}), nil, at, "read, machines.isolate, respond"},
		{"or by its own text", entries(Entry{Operations: []string{"read", "respond"}, Text: "for the night shift"}), nil, at, "for the night shift"},
		{"a class in the way of an id", Entries("respond.*"), nil, at, "respond.*"},
		{"another class in the way of an id", Entries("manage.*"), nil, at, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g, err := c.Grants(tc.allow, tc.deny)
			if err != nil {
				t.Fatal(err)
			}
			op, _ := c.ByID("machines.isolate")
			var got []string
			for r := g.Rule(op, tc.at); r.Entry != ""; r = g.Next(op, tc.at, r) {
				switch {
				case !r.Allow:
					got = append(got, "deny "+r.Entry)
				case r.When != nil:
					got = append(got, r.Entry+" when "+r.When.String())
				default:
					got = append(got, r.Entry)
				}
			}
			if s := strings.Join(got, ", "); s != tc.want {
				t.Errorf("got %q, want %q", s, tc.want)
			}
		})
	}
}

func TestAClassWithAStarIsTheClassAndWhatHasSuchAnID(t *testing.T) {
	c := catalog(t, Operation{ID: "respond.drill", Service: ServiceMDE, Method: "GET", Path: "/api/drill", Class: ClassRead, Application: []Permission{"Drill.Read"}})
	g := mustGrants(t, c, "respond.*")
	for _, op := range c.Operations() {
		want := op.Class == ClassRespond || op.ID == "respond.drill"
		if got := g.Rule(op, Situation{}).Allow; got != want {
			t.Errorf("respond.* names %s (%s): %v, want %v", op.ID, op.Class, got, want)
		}
	}
}

func TestEntriesThatCannotBeMeant(t *testing.T) {
	c := catalog(t)
	for _, tc := range []struct {
		name        string
		allow, deny Entry
		want        string
	}{
		{"no operation", Entry{Text: "x"}, Entry{}, `entry "x" names no operation`},
		{"an operation of nobody behind one of ours", Entry{Operations: []string{"read", "machine.isolate"}}, Entry{}, `"machine.isolate" names no operation`},
		{"an empty list of tenants", Entry{Operations: []string{"read"}, Tenants: []string{}}, Entry{}, `entry "read" holds for no tenant`},
		{"an empty list of tenants in deny", Entry{}, Entry{Operations: []string{"read"}, Tenants: []string{}}, `entry "read" holds for no tenant`},
		{"a condition in deny", Entry{}, Entry{Operations: []string{"read"}, When: when("a")}, `entry "read" of deny has a condition`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			allow, deny := Entries("hunt"), Entries("manage")
			if tc.allow.Operations != nil || tc.allow.Text != "" {
				allow = append(allow, tc.allow)
			}
			if tc.deny.Operations != nil {
				deny = append(deny, tc.deny)
			}
			if g, err := c.Grants(allow, deny); g != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want an error with %q", g, err, tc.want)
			}
		})
	}
}

func TestReportModeOfGrants(t *testing.T) {
	c := catalog(t)
	g, err := c.Grants(append(Entries("read"), Entry{Operations: []string{"hunt"}, Until: noon}), Entries("libraryfiles.*"))
	if err != nil {
		t.Fatal(err)
	}
	r := g.Reporting()
	if g.Reports() || !r.Reports() || (*Grants)(nil).Reports() {
		t.Fatal("Reporting changes the grants that it is asked of, or nothing")
	}
	all := c.Permits([]string{"Alert.Read.All", "Machine.Isolate", "Library.Manage", "AdvancedQuery.Read.All"}, nil)
	for _, tc := range []struct {
		name, operation string
		claims          bool // policy.claims: report
		permits         *Permits
		want            Decision
	}{
		{"what is granted is allowed", "alerts.list", false, all, Decision{Verdict: Allowed, Rule: Rule{Entry: "read", Allow: true}}},
		{"what is not granted is reported", "machines.isolate", false, all, Decision{Verdict: Reported, Ungranted: true}},
		{"a grant that has ended is reported", "hunting.runMDE", false, all, Decision{Verdict: Reported, Ungranted: true}},
		{"what is denied is refused", "libraryfiles.delete", false, all, Decision{Verdict: NotGranted, Rule: Rule{Entry: "libraryfiles.*"}}},
		{"what the token forbids is refused", "machines.isolate", false, c.Permits(nil, nil), Decision{Verdict: MissingPermission, Ungranted: true, Unpermitted: true}},
		{"unless that is reported too", "machines.isolate", true, c.Permits(nil, nil), Decision{Verdict: Reported, Ungranted: true, Unpermitted: true}},
		{"reported for the token alone", "alerts.list", true, c.Permits(nil, nil), Decision{Verdict: Reported, Unpermitted: true, Rule: Rule{Entry: "read", Allow: true}}},
		{"never without a token", "machines.isolate", true, nil, Decision{Verdict: MissingPermission, Ungranted: true, Unpermitted: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			op, ok := c.ByID(tc.operation)
			if !ok {
				t.Fatalf("no operation %s", tc.operation)
			}
			p := &Policy{Catalog: c, ReportOnly: tc.claims}
			at := Situation{"contoso", noon}
			d := p.Decide(op, r, at, tc.permits)
			d.Rule.place = 0
			if d != tc.want {
				t.Errorf("got %+v, want %+v", d, tc.want)
			}
			if half := p.Granted(op, r, at); (half.Verdict == NotGranted) != (d.Verdict == NotGranted) || half.Ungranted != tc.want.Ungranted {
				t.Errorf("the operator's half alone is %+v, want as in %+v", half, tc.want)
			}
		})
	}
	other, _ := catalog(t).ByID("machines.isolate")
	for name, op := range map[string]*Operation{"no operation": nil, "a zero operation": {}, "an operation of another catalog": other} {
		if d := (&Policy{Catalog: c, ReportOnly: true}).Decide(op, r, Situation{"contoso", noon}, all); d.Allowed() {
			t.Errorf("%s is let pass by report mode: %+v", name, d)
		}
	}
}

func TestSettled(t *testing.T) {
	rule := Rule{Entry: "respond", Allow: true}
	for _, tc := range []struct {
		name      string
		d         Decision
		rule      Rule
		ungranted bool
		want      Decision
	}{
		{"a no stays one", Decision{Verdict: NotGranted}, rule, false, Decision{Verdict: NotGranted}},
		{"so does a missing permission", Decision{Verdict: MissingPermission, Unpermitted: true}, rule, false, Decision{Verdict: MissingPermission, Unpermitted: true}},
		{"the operator's half alone stays open", Decision{}, rule, false, Decision{Rule: rule}},
		{"a condition holds", Decision{Verdict: Allowed}, rule, false, Decision{Verdict: Allowed, Rule: rule}},
		{"no condition holds, and that is reported", Decision{Verdict: Allowed, Rule: rule}, Rule{}, true, Decision{Verdict: Reported, Ungranted: true}},
		{"a condition holds, the token is reported", Decision{Verdict: Reported, Unpermitted: true}, rule, false, Decision{Verdict: Reported, Unpermitted: true, Rule: rule}},
	} {
		if got := tc.d.Settled(tc.rule, tc.ungranted); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestTrace(t *testing.T) {
	c := catalog(t)
	g, err := c.Grants([]Entry{
		{Operations: []string{"read"}},
		{Operations: []string{"respond"}, When: when("a")},
		{Operations: []string{"machines.isolate"}, Tenants: []string{"fabrikam"}},
		{Operations: []string{"*"}, Until: noon.Add(-time.Hour), Text: "the night of the drill"},
		{Operations: []string{"machines.*"}, When: when("b")},
		{Operations: []string{"machines.isolate"}, Tenants: []string{"a", "b", "c", "d", "e", "f", "g"}},
	}, []Entry{{Operations: []string{"machines.*"}, Tenants: []string{"fabrikam", "adatum"}}})
	if err != nil {
		t.Fatal(err)
	}
	op, _ := c.ByID("machines.isolate")
	steps := []Step{
		{List: "deny", Entry: "machines.*", Why: "holds for the tenants fabrikam, adatum"},
		{List: "allow", Entry: "machines.isolate", Why: "holds for tenant fabrikam"},
		{List: "allow", Entry: "the night of the drill", Why: "ended 2026-11-21T11:00:00Z"},
		{List: "allow", Entry: "machines.isolate", Why: "holds for the tenants a, b, c, d, e and 2 more"},
		{List: "allow", Entry: "respond", Fits: true, When: "a", Decided: true},
		{List: "allow", Entry: "machines.*", Fits: true, When: "b"},
	}
	if got := g.Trace(op, Situation{"contoso", noon}); !slices.Equal(got, steps) {
		t.Errorf("got %+v\nwant %+v", got, steps)
	}
	if entry, end, ok := g.Ended(op, Situation{"contoso", noon}); !ok || entry != "the night of the drill" || !end.Equal(noon.Add(-time.Hour)) {
		t.Errorf("ended is %q at %s, %t; want the drill", entry, end, ok)
	}
	if entry, _, ok := g.Ended(op, Situation{Tenant: "contoso"}); ok {
		t.Errorf("without a time %q has ended", entry)
	}
	steps[0] = Step{List: "deny", Entry: "machines.*", Fits: true, Decided: true}
	steps[1] = Step{List: "allow", Entry: "machines.isolate", Fits: true}
	steps[4].Decided = false
	if got := g.Trace(op, Situation{"fabrikam", noon}); !slices.Equal(got, steps) {
		t.Errorf("for another tenant got %+v\nwant %+v", got, steps)
	}
	if got := g.Trace(op, Situation{Tenant: "contoso"}); got[2].Why != "the time is not known" {
		t.Errorf("without a time got %+v", got[2])
	}
	for name, got := range map[string][]Step{"of nil": (*Grants)(nil).Trace(op, Situation{}), "of no operation": g.Trace(nil, Situation{})} {
		if got != nil {
			t.Errorf("the trace %s is %+v", name, got)
		}
	}
}

// A second, slow reading of the entries must agree with the compiled grants, for
// every operation, tenant and time, and for whatever the conditions say.
func TestGrantsAgreeWithASecondReading(t *testing.T) {
	c := catalog(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var patterns []string
	for _, op := range c.Operations() {
		patterns = append(patterns, op.ID, op.Method+" "+op.Path, strings.SplitAfter(op.ID, ".")[0]+"*")
	}
	for _, class := range Classes() {
		patterns = append(patterns, string(class), string(class)+".*")
	}
	patterns = append(patterns, "*", "*.list", "m*i*")
	tenants := []string{"contoso", "fabrikam", "adatum", ""}
	for range 200 {
		draw := func(allow bool) (all []Entry) {
			for range r.IntN(6) {
				e := Entry{Text: fmt.Sprintf("entry %d", r.Uint32())}
				for range 1 + r.IntN(3) {
					e.Operations = append(e.Operations, patterns[r.IntN(len(patterns))])
				}
				if r.IntN(3) == 0 {
					e.Tenants = []string{tenants[r.IntN(3)], tenants[r.IntN(3)]}
				}
				if r.IntN(3) == 0 {
					e.Until = noon.Add(time.Duration(r.IntN(3)-1) * time.Hour)
				}
				if allow && r.IntN(3) == 0 {
					e.When = when(e.Text)
				}
				all = append(all, e)
			}
			return all
		}
		allow, deny := draw(true), draw(false)
		g, err := c.Grants(allow, deny)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range c.Operations() {
			at := Situation{Tenant: tenants[r.IntN(len(tenants))], Now: noon}
			holds := make(map[string]bool)
			for _, e := range allow {
				holds[e.Text] = r.IntN(2) == 0
			}
			got := g.Rule(op, at)
			for got.When != nil && !holds[got.When.String()] {
				got = g.Next(op, at, got)
			}
			want, denied := secondReading(op, allow, deny, at, holds)
			if got.Allow != (want != nil) || got.Allow && !slices.Contains(want, got.Entry) || !got.Allow && got.Entry != denied {
				t.Fatalf("%s of %+v with %v: got %+v, want one of %v, or denied by %q\nallow %+v\ndeny %+v", op.ID, at, maps.Collect(maps.All(holds)), got, want, denied, allow, deny)
			}
		}
	}
}

var globs = make(map[string]*regexp.Regexp) // the second reading of patterns

// secondReading gives the entries by which an operation is allowed, or the one by
// which it is denied.
func secondReading(op *Operation, allow, deny []Entry, at Situation, holds map[string]bool) (by []string, denied string) {
	names := func(e Entry) bool {
		return slices.ContainsFunc(e.Operations, func(pattern string) bool {
			if slices.Contains(Classes(), Class(strings.TrimSuffix(pattern, ".*"))) && op.Class == Class(strings.TrimSuffix(pattern, ".*")) {
				return true
			}
			if strings.Contains(pattern, " ") {
				return pattern == op.Method+" "+op.Path
			}
			if globs[pattern] == nil {
				globs[pattern] = regexp.MustCompile("(?i)^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
			}
			return globs[pattern].MatchString(op.ID)
		})
	}
	for _, e := range deny {
		tenant := e.Tenants == nil || at.Tenant == "" || slices.Contains(e.Tenants, at.Tenant)
		if names(e) && tenant && (e.Until.IsZero() || e.Until.After(at.Now)) {
			return nil, e.Text
		}
	}
	for _, e := range allow {
		tenant := e.Tenants == nil || slices.Contains(e.Tenants, at.Tenant)
		if names(e) && tenant && (e.Until.IsZero() || e.Until.After(at.Now)) && (e.When == nil || holds[e.When.String()]) {
			by = append(by, e.Text)
		}
	}
	return by, ""
}

// many makes the grants of a group with 200 entries that all name one operation,
// of which only the last holds for the tenant asked for, one of thousands.
func many(tb testing.TB, c *Catalog) (*Grants, Situation) {
	tb.Helper()
	var allow, deny []Entry
	for i := range 199 {
		e := Entry{Operations: []string{"machines.isolate", "respond"}, Until: noon.Add(time.Hour)}
		for n := range 50 {
			e.Tenants = append(e.Tenants, fmt.Sprintf("tenant-%d-%d", i, n))
		}
		if i%2 == 0 {
			deny = append(deny, e)
		} else {
			allow = append(allow, e)
		}
	}
	allow = append(allow, Entry{Operations: []string{"respond"}, Tenants: []string{"contoso"}, Until: noon.Add(time.Hour)})
	g, err := c.Grants(allow, deny)
	if err != nil {
		tb.Fatal(err)
	}
	return g, Situation{"contoso", noon}
}

func TestADecisionDoesNotAllocate(t *testing.T) {
	c := catalog(t)
	g, at := many(t, c)
	p, permits := &Policy{Catalog: c}, c.Permits([]string{"Machine.Isolate"}, nil)
	n := testing.AllocsPerRun(100, func() {
		op, err := p.Operation("POST", "/api/machines/m1/isolate")
		if err != nil || !p.Decide(op, g, at, permits).Allowed() {
			t.Fatal(op, err)
		}
	})
	if n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// BenchmarkDecide200Grants is the worst that 200 entries can do: 199 that name the
// operation and hold for other tenants.
func BenchmarkDecide200Grants(b *testing.B) {
	c := catalog(b)
	groups := make([]*Grants, 50)
	var at Situation
	for i := range groups {
		groups[i], at = many(b, c)
	}
	p, permits := &Policy{Catalog: c}, c.Permits([]string{"Machine.Isolate"}, nil)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		op, err := p.Operation("POST", "/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/isolate")
		if err != nil || !p.Decide(op, groups[i%len(groups)], at, permits).Allowed() {
			b.Fatal(op, err)
		}
	}
}
