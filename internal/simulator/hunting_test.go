package simulator

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
)

func (p *peer) hunt(service, path, query string) answer {
	p.t.Helper()
	body, err := json.Marshal(map[string]string{"Query": query})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.do("POST", p.Endpoint("eu")+path, p.token(service), string(body))
}

func TestQueriesGiveTheRowsTheyAskFor(t *testing.T) {
	p := start(t, quick())
	for query, check := range map[string]func(t *testing.T, rows []map[string]any){
		"DeviceInfo": func(t *testing.T, rows []map[string]any) {
			if len(rows) != 35 {
				t.Errorf("got %d rows", len(rows))
			}
		},
		`DeviceInfo | where OSPlatform == "Linux" | project DeviceName, OSPlatform`: func(t *testing.T, rows []map[string]any) {
			if len(rows) != 5 || len(rows[0]) != 2 || rows[0]["OSPlatform"] != "Linux" {
				t.Errorf("got %v", rows)
			}
		},
		"DeviceInfo\n| where OSPlatform startswith 'windows' and OSBuild > 20000 or OSPlatform == 'macOS' // comment\n| count": func(t *testing.T, rows []map[string]any) {
			if len(rows) != 1 || rows[0]["Count"] != 20.0 {
				t.Errorf("got %v", rows)
			}
		},
		"DeviceProcessEvents | take 3 | count": func(t *testing.T, rows []map[string]any) {
			if rows[0]["Count"] != 3.0 {
				t.Errorf("got %v", rows)
			}
		},
		"DeviceProcessEvents | where Timestamp > ago(36500s) | limit 2;": func(t *testing.T, rows []map[string]any) {
			if len(rows) > 2 {
				t.Errorf("got %v", rows)
			}
		},
		`AlertInfo | where Severity in ("High", "Medium") | take 0`: func(t *testing.T, rows []map[string]any) {
			if len(rows) != 0 {
				t.Errorf("got %v", rows)
			}
		},
		"DeviceNetworkEvents | project DeviceId, RemotePort": func(t *testing.T, rows []map[string]any) {
			if len(rows) != maxHuntingRows {
				t.Errorf("got %d rows, want the limit of %d", len(rows), maxHuntingRows)
			}
		},
	} {
		t.Run(query, func(t *testing.T) {
			p := &peer{p.Simulator, t, p.client}
			a := p.hunt("mde", "/api/advancedqueries/run", query)
			var out struct {
				Schema  []struct{ Name, Type string }
				Results []map[string]any
			}
			if err := json.Unmarshal(a.body, &out); err != nil || a.status != 200 {
				t.Fatalf("got %d %.300s, %v", a.status, a.body, err)
			}
			check(t, out.Results)
			for _, col := range out.Schema {
				if _, ok := append(out.Results, map[string]any{col.Name: 0})[0][col.Name]; !ok || col.Type == "" {
					t.Errorf("column %v is not in the rows", col)
				}
			}
		})
	}
}

func TestEachHuntingAPIHasItsShape(t *testing.T) {
	p := start(t, quick())
	for path, want := range map[string]string{
		"/api/advancedqueries/run":       "mde Schema Results",
		"/api/advancedhunting/run":       "xdr Stats Schema Results",
		"/v1.0/security/runHuntingQuery": "graph @odata.context schema results",
		"/API/v1.0/AdvancedQueries/RUN":  "mde Schema Results",
		"/v1.0/Security/runhuntingquery": "graph @odata.context schema results",
	} {
		words := strings.Fields(want)
		o := p.hunt(words[0], path, "DeviceInfo | take 1").object(t)
		if len(o) != len(words)-1 {
			t.Errorf("%s: got %v", path, o)
		}
		for _, name := range words[1:] {
			if _, ok := o[name]; !ok {
				t.Errorf("%s: no %s in %v", path, name, o)
			}
		}
	}
}

func TestQueriesThatAreNotUnderstoodAreRefused(t *testing.T) {
	p := start(t, quick())
	for _, query := range []string{
		"", "Nothing", "DeviceInfo |", "DeviceInfo | summarize count() by OSPlatform", "DeviceInfo | where Nothing == 1", "DeviceInfo | take x",
		"DeviceInfo | where OSBuild ~ 1", "DeviceInfo | where OSBuild ==", "DeviceInfo | where DeviceName in ('a'", "DeviceInfo take 1", "DeviceInfo | project",
		"DeviceInfo | where Timestamp > ago(7y)", "DeviceInfo | count | where DeviceName == 'x'", `DeviceInfo | where DeviceName == "open`,
	} {
		a := p.hunt("mde", "/api/advancedqueries/run", query)
		if want := map[bool]string{true: "MissingRequiredParameter", false: "BadRequest"}[query == ""]; a.status != 400 || a.code() != want {
			t.Errorf("%q: got %d %s, want 400 %s", query, a.status, a.body, want)
		}
	}
}

// FuzzQuery: parsing never panics, and what is understood can be run.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"DeviceInfo | where OSPlatform == 'x' and OSBuild > 1 or DeviceName contains \"y\" | project DeviceName | take 5 | count",
		"AlertInfo | where Timestamp between", "DeviceInfo | where DeviceName in ('a','b') // c", "AlertInfo | where Timestamp > ago(7d)",
		"AlertInfo | where Timestamp > datetime('2026-01-01')", `DeviceInfo | where DeviceName == "a\"b\\"`,
	} {
		f.Add(seed)
	}
	fl := newFleet(Config{Machines: 3, Alerts: 3, Vulnerabilities: 3, Now: time.Now}, DefaultTenantID, "contoso")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseQuery(text, time.Now())
		if err != nil || len(q.stages) > 20 || q.table.rows(fl) > 1000 {
			return
		}
		if err := q.run(fl, func(row members) error {
			if len(row) != len(q.columns()) {
				t.Fatalf("%q: %d values for %d columns", text, len(row), len(q.columns()))
			}
			return nil
		}); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// Graph says of numbers of 64 bits what they are, and has errors of its own form.
func TestGraphAnswersHuntingInItsOwnForm(t *testing.T) {
	p := start(t, quick())
	const path = "/v1.0/security/runHuntingQuery"
	a := p.hunt("graph", path, "DeviceProcessEvents | project FileName, ProcessId, ReportId | take 1")
	if text := string(a.body); a.status != 200 || !strings.Contains(text, `"ProcessId@odata.type":"#Int64","ProcessId":`) || strings.Contains(text, "FileName@odata") || !strings.Contains(text, `"schema":[{"name":"FileName","type":"String"}`) {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := p.hunt("mde", "/api/advancedqueries/run", "DeviceProcessEvents | take 1"); strings.Contains(string(a.body), "@odata.type") {
		t.Errorf("the older API annotates: %s", a.body)
	}
	var e struct {
		Error struct {
			Code, Message, Target string
			InnerError            map[string]string
		}
	}
	a = p.hunt("graph", path, "Nothing | take 1")
	if err := json.Unmarshal(a.body, &e); err != nil || a.status != 400 || e.Error.Code != "BadRequest" || e.Error.Target != "" || e.Error.InnerError["request-id"] != a.header.Get("request-id") || e.Error.InnerError["date"] == "" {
		t.Errorf("got %d %s, %v", a.status, a.body, err)
	}
}

func TestTheOlderHuntingAPIsCanBeSwitchedOff(t *testing.T) {
	p := start(t, quick())
	for _, status := range []int{404, 410} {
		if a := p.do("PUT", p.ControlURL()+"/retired", "", `{"status":`+strconv.Itoa(status)+`}`); a.status != 204 {
			t.Fatalf("the control port: %d %s", a.status, a.body)
		}
		for service, path := range map[string]string{"mde": "/api/advancedqueries/run", "xdr": "/api/advancedhunting/run"} {
			if a := p.hunt(service, path, "DeviceInfo"); a.status != status {
				t.Errorf("%s: got %d", path, a.status)
			}
		}
		if a := p.hunt("graph", "/v1.0/security/runHuntingQuery", "DeviceInfo"); a.status != 200 {
			t.Errorf("Graph: got %d", a.status)
		}
		if a := p.do("GET", p.Endpoint("eu")+"/api/alerts", p.token("mde"), ""); a.status != 200 {
			t.Errorf("alerts: got %d", a.status)
		}
	}
	if err := p.Reset(); err != nil {
		t.Fatal(err)
	}
	if a := p.hunt("mde", "/api/advancedqueries/run", "DeviceInfo"); a.status != 200 {
		t.Errorf("after the reset: got %d", a.status)
	}
	if a := p.do("PUT", p.ControlURL()+"/retired", "", `{"status":500}`); a.status != 400 {
		t.Errorf("a status that is none: %d", a.status)
	}
}
