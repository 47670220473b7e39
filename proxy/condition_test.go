package proxy

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/condition"
	"defender-proxy/policy"
)

// granting replaces what the world's client group is granted.
func granting(t *testing.T, allow, deny []policy.Entry, more ...func(*Deps)) func(*Deps) {
	return func(d *Deps) {
		g, err := d.Policy.Catalog.Grants(allow, deny)
		if err != nil {
			t.Fatal(err)
		}
		d.Clients[0].Grants = g
		for _, f := range more {
			f(d)
		}
	}
}

func reporting(d *Deps) { d.Clients[0].Grants = d.Clients[0].Grants.Reporting() }

func when(t *testing.T, text string, operations ...string) policy.Entry {
	t.Helper()
	c, err := condition.Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return policy.Entry{Operations: operations, When: c}
}

// recordsOf gives the records of one request, the outcome last.
func (w *world) recordsOf(r *reply) (all []map[string]any) {
	w.t.Helper()
	for n := 1; ; n++ {
		all = nil
		for _, line := range w.lines(n) {
			if line["request_id"] != r.header.Get("X-Request-Id") {
				continue
			}
			if all = append(all, line); line["event"] == "request" {
				return all
			}
		}
	}
}

const isolatePath = "/api/machines/m1/isolate"

func TestAConditionDecidesByTheBodyThatIsSent(t *testing.T) {
	const selective = `request.body.IsolationType == "Selective"`
	w := newWorld(t, options{deps: granting(t, []policy.Entry{when(t, selective, "machines.isolate"), {Operations: []string{"read"}}}, nil)})
	for _, c := range []struct {
		name, body string
		header     []string
		passes     bool
	}{
		{name: "what the condition asks for passes", body: `{"IsolationType":"Selective","Comment":"x"}`, passes: true},
		{name: "another spelling of the name, which a server may ignore, is refused", body: `{"isolationtype":"Selective"}`},
		{name: "another value is refused", body: `{"IsolationType":"Full"}`},
		{name: "a second value behind the first is refused", body: `{"IsolationType":"Selective","IsolationType":"Full"}`},
		{name: "a second value under another spelling is refused", body: `{"IsolationType":"Selective","isolationType":"Full"}`},
		{name: "a body without it is refused", body: `{}`},
		{name: "no body is refused", body: ``},
		{name: "what is no JSON is refused", body: `{"IsolationType":"Selective"`},
		{name: "a second document is refused", body: `{"IsolationType":"Selective"}{"IsolationType":"Full"}`},
		{name: "a body that says it is a form is refused", body: `{"IsolationType":"Selective"}`, header: []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{name: "a body in another character set is refused", body: `{"IsolationType":"Selective"}`, header: []string{"Content-Type", "application/json; charset=utf-16"}},
		{name: "a body that is packed is refused", body: `{"IsolationType":"Selective"}`, header: []string{"Content-Encoding", "gzip"}},
		{name: "a body that is too large to be judged is refused", body: `{"IsolationType":"Selective","Comment":"` + strings.Repeat("x", condition.MaxBody) + `"}`},
		{name: "a body that streams is refused", body: `{"IsolationType":"Selective","Comment":"` + strings.Repeat("x", maxKept) + `"}`, header: []string{"Expect", "100-continue"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(w.regions[0].requests())
			header := c.header
			if !slices.Contains(header, "Content-Type") {
				header = append(header, "Content-Type", "application/json")
			}
			got := w.do("POST", isolatePath, c.body, header...)
			sent := w.regions[0].requests()[before:]
			if c.passes {
				if got.status != 200 || len(sent) != 1 || sent[0].body != c.body {
					t.Errorf("got %d %s, upstream got %+v", got.status, got.body, sent)
				}
				return
			}
			if got.code() != string(NotGranted) || !strings.Contains(got.message(), selective) || len(sent) != 0 {
				t.Errorf("got %d %s, upstream got %+v", got.status, got.body, sent)
			}
		})
	}
	if got := w.do("GET", "/api/alerts", ""); got.status != 200 {
		t.Errorf("a grant without a condition: %d %s", got.status, got.body)
	}
}

func TestTheFirstConditionThatHoldsDecides(t *testing.T) {
	w := newWorld(t, options{deps: granting(t, []policy.Entry{
		when(t, `request.body.IsolationType == "Selective"`, "machines.isolate"),
		when(t, `request.path.startsWith("/api/machines/m1/")`, "respond"),
		{Operations: []string{"machines.unisolate"}},
		when(t, `request.body.never`, "machines.unisolate"),
	}, nil)})
	for _, c := range []struct {
		path, body, rule string
		records          int
	}{
		{isolatePath, `{"IsolationType":"Selective"}`, "machines.isolate", 2},
		{isolatePath, `{"IsolationType":"Full"}`, "respond", 2},
		{"/api/machines/m2/isolate", `{"IsolationType":"Full"}`, "machines.isolate", 1},
		{"/api/machines/m2/unisolate", `not JSON at all`, "machines.unisolate", 2},
	} {
		got := w.do("POST", c.path, c.body, "Content-Type", "application/json")
		recs := w.recordsOf(got)
		if len(recs) != c.records || recs[len(recs)-1]["rule"] != c.rule || (got.status == 200) != (c.records == 2) {
			t.Errorf("%s %s: %d %s, records %v, want rule %q in %d", c.path, c.body, got.status, got.body, recs, c.rule, c.records)
		}
	}
}

func TestReportModeLetsUngrantedRequestsPassAndSaysSo(t *testing.T) {
	deny := policy.Entries("machines.offboard")
	w := newWorld(t, options{
		roles: []string{"Alert.Read.All", "Machine.Isolate"},
		deps: granting(t, []policy.Entry{{Operations: []string{"hunt"}}, when(t, `request.body.IsolationType == "Selective"`, "machines.isolate")}, deny, reporting,
			func(d *Deps) { d.Policy.ReportOnly = true }),
	})
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		reported                 []any
	}{
		{"what no entry names passes", "GET", "/api/alerts", "", 200, []any{"NotGranted"}},
		{"what the token lacks as well is reported twice", "GET", "/api/machines", "", 200, []any{"NotGranted", "MissingPermission"}},
		{"what is denied is refused", "POST", "/api/machines/m1/offboard", "{}", 403, nil},
		{"a condition that holds is no report", "POST", isolatePath, `{"IsolationType":"Selective"}`, 200, nil},
		{"a condition that does not hold is reported", "POST", isolatePath, `{"IsolationType":"Full"}`, 200, []any{"NotGranted"}},
		{"an unknown path is refused", "GET", "/api/nothing/like/it", "", 404, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.do(c.method, c.path, c.body, "Content-Type", "application/json")
			recs := w.recordsOf(got)
			rec := recs[len(recs)-1]
			reported, _ := rec["reported"].([]any)
			if got.status != c.status || !slices.Equal(reported, c.reported) {
				t.Errorf("got %d %s, record %v; want %d and reported %v", got.status, got.body, rec, c.status, c.reported)
			}
			if len(c.reported) > 0 && !strings.Contains(rec["reason"].(string), "report") {
				t.Errorf("the record's reason is %v", rec["reason"])
			}
		})
	}
}

func TestAGrantEndsAndHoldsForItsTenantsOnly(t *testing.T) {
	w := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}, deps: granting(t, []policy.Entry{
		{Operations: []string{"alerts.list"}, Tenants: []string{"contoso"}},
		{Operations: []string{"machines.list"}, Until: time.Now().Add(-time.Second)},
		{Operations: []string{"machines.get"}, Until: time.Now().Add(time.Hour)},
	}, nil)})
	for path, want := range map[string]int{
		"/t/contoso/api/alerts": 200, "/t/fabrikam/api/alerts": 403, "/t/contoso/api/machines": 403, "/t/fabrikam/api/machines/1": 200,
	} {
		got := w.do("GET", path, "")
		if got.status != want {
			t.Errorf("%s: %d %s, want %d", path, got.status, got.body, want)
		}
		if ended := `any more: the entry "machines.list" ended `; strings.Contains(got.body, "ended") != (path == "/t/contoso/api/machines") || strings.Contains(got.body, "ended") && !strings.Contains(got.message(), ended) {
			t.Errorf("%s: %s", path, got.body)
		}
	}
}

func TestExplainTellsOfEachRuleAndCondition(t *testing.T) {
	w := newWorld(t, options{deps: granting(t, []policy.Entry{
		{Operations: []string{"respond"}, Until: time.Now().Add(-time.Minute)},
		when(t, `request.body.IsolationType == "Selective"`, "machines.isolate"),
	}, policy.Entries("libraryfiles.*"))})
	ask := func(query string) (e Explanation) {
		t.Helper()
		got := w.do("GET", "/-/explain?method=POST&path="+isolatePath+query, "")
		if err := json.Unmarshal([]byte(got.body), &e); err != nil || got.status != 200 {
			t.Fatalf("%d %s: %v", got.status, got.body, err)
		}
		return e
	}
	open := ask("")
	if open.Allowed || open.When == "" || open.Code != "" || len(open.Rules) != 2 {
		t.Errorf("without a body: %+v", open)
	}
	lapsed := slices.ContainsFunc(open.Rules, func(s policy.Step) bool { return s.Entry == "respond" && !s.Fits && s.Why != "" })
	if !lapsed {
		t.Errorf("the entry that has ended is not told: %+v", open.Rules)
	}
	if yes := ask("&body=" + url.QueryEscape(`{"IsolationType":"Selective"}`)); !yes.Allowed || yes.When != "" || yes.Rule != "machines.isolate" {
		t.Errorf("with the body that passes: %+v", yes)
	}
	if no := ask("&body=" + url.QueryEscape(`{"IsolationType":"Full"}`)); no.Allowed || no.Code != NotGranted {
		t.Errorf("with another: %+v", no)
	}
}

// A condition that is asked in vain before the one that looks at the body is not the
// one to blame, and what is not known is not let pass by report mode for sure.
func TestExplainNamesTheConditionThatLookedAtTheBody(t *testing.T) {
	const elsewhere, selective = `request.tenant == "elsewhere"`, `request.body.IsolationType == "Selective"`
	entries := func(t *testing.T) []policy.Entry {
		first, second := when(t, elsewhere, "respond"), when(t, selective, "machines.isolate")
		return []policy.Entry{first, second}
	}
	for _, report := range []bool{false, true} {
		o := options{deps: granting(t, entries(t), nil)}
		if report {
			o.deps = granting(t, entries(t), nil, reporting)
		}
		w := newWorld(t, o)
		for _, c := range []struct {
			name, body, when, rule string
			decided                int // the place of the entry that decides, or -1
		}{
			{name: "without a body", when: selective, rule: "machines.isolate", decided: 1},
			{name: "with the body that passes", body: `{"IsolationType":"Selective"}`, rule: "machines.isolate", decided: 1},
			{name: "with another", body: `{"IsolationType":"Full"}`, decided: -1},
		} {
			var e Explanation
			got := w.do("GET", "/-/explain?method=POST&path="+isolatePath+"&body="+url.QueryEscape(c.body), "")
			if err := json.Unmarshal([]byte(got.body), &e); err != nil || len(e.Rules) != 2 {
				t.Fatalf("%s: %s %v", c.name, got.body, err)
			}
			decided := slices.IndexFunc(e.Rules, func(s policy.Step) bool { return s.Decided })
			if e.When != c.when || c.rule != "" && e.Rule != c.rule || decided != c.decided || e.Rules[0].Why != "its condition is not so" {
				t.Errorf("%s, report mode %t: %+v", c.name, report, e)
			}
			if passes := c.body != "" && (c.rule != "" || report); e.Allowed != passes || (len(e.Reported) > 0) != (report && c.decided < 0) {
				t.Errorf("%s, report mode %t: allowed %t, reported %v: %s", c.name, report, e.Allowed, e.Reported, e.Message)
			}
			if c.when != "" && (!strings.Contains(e.Message, selective) || strings.Contains(e.Message, elsewhere)) {
				t.Errorf("%s, report mode %t: %s", c.name, report, e.Message)
			}
		}
	}
}

// What is sent is what was judged, with the note behind its comment.
func TestTheCommentOfAnActionTellsWhoAsked(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.Annotate = true }})
	got := w.do("POST", isolatePath, `{"Comment":"odd traffic","IsolationType":"Full"}`, "Content-Type", "application/json")
	sent := w.regions[0].requests()
	want := `{"Comment":"odd traffic [defender-proxy: local, request ` + got.header.Get("X-Request-Id") + `]","IsolationType":"Full"}`
	if got.status != 200 || len(sent) != 1 || sent[0].body != want {
		t.Fatalf("got %d %s, upstream got %+v, want the body %s", got.status, got.body, sent, want)
	}
	recs := w.recordsOf(got)
	for _, rec := range recs {
		if rec["annotated"] != true {
			t.Errorf("the record does not say so: %v", rec)
		}
	}
	if len(recs) != 2 {
		t.Errorf("%d records, want the intent and the outcome", len(recs))
	}
}
