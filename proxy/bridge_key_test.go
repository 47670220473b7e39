package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"defender-proxy/policy"
)

const runByKey = "/api/advancedqueries"

// The sample for Power BI asks with a GET, and has its query in a parameter.
func TestTheQueryOfAParameterGoesToGraphInABody(t *testing.T) {
	for _, c := range []struct{ name, target, body, want string }{
		{"a query", runByKey + "?key=DeviceInfo%20%7C%20take%202", "", aQuery},
		{"a query with plus signs for blanks", runByKey + "?key=DeviceInfo+%7C+take+2", "", aQuery},
		{"a query with semicolons and quotation marks", runByKey + `?a=b&key=let%20x=1;%20DeviceInfo%20%7C%20where%20A%20==%20%22%26%22`, "", `{"Query":"let x=1; DeviceInfo | where A == \"\u0026\""}`},
		{"a parameter that is written otherwise", "/API/AdvancedQueries?%6Bey=T", "", `{"Query":"T"}`},
		{"a query that is not encoded well", runByKey + "?key=100%25%zz", "", `{"Query":"100%25%zz"}`},
		{"no query", runByKey, "", `{"Query":""}`},
		{"a body beside, which a GET has no use for", runByKey + "?key=T", `{"Query":"other"}`, `{"Query":"T"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := hunts(t, HuntingGraph, nil, gives(200, graphAnswer))
			got := w.do("GET", c.target, c.body, "Content-Type", "text/plain")
			if got.status != 200 || got.body != mdeAnswer {
				t.Errorf("got %d %s", got.status, got.body)
			}
			a := w.regions[0].requests()[0]
			if a.method != "POST" || a.target != runGraph || a.body != c.want || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("what arrived: %s %s %s %v, want %s", a.method, a.target, a.body, a.header, c.want)
			}
			rec := w.recordsOf(got)[0]
			if rec["operation"] != "hunting.runMDEByKey" || rec["sent_as"] != "graph.hunting.run" || strings.Contains(fmt.Sprint(rec["query"]), "DeviceInfo") {
				t.Errorf("record %v", rec)
			}
		})
	}
}

func TestTheQueryOfAParameterGoesTheOldWayUntilThatIsGone(t *testing.T) {
	for way, want := range map[Hunting][]string{
		HuntingLegacy: {runByKey + "?key=T"},
		HuntingAuto:   {runByKey + "?key=T", runGraph, runGraph},
	} {
		w := hunts(t, way, gives(http.StatusGone, `{"error":{"code":"Gone","message":"x"}}`), gives(200, graphAnswer))
		got := w.do("GET", runByKey+"?key=T", "")
		if way == HuntingAuto {
			if got.status != 200 || got.body != mdeAnswer {
				t.Errorf("%s: got %d %s", way, got.status, got.body)
			}
			if head := w.do("HEAD", runByKey+"?key=T", ""); head.status != 200 || head.body != "" {
				t.Errorf("HEAD: got %d %q", head.status, head.body)
			}
		} else if got.status != http.StatusGone {
			t.Errorf("%s: got %d %s", way, got.status, got.body)
		}
		if paths := w.paths(); strings.Join(paths, " ") != strings.Join(want, " ") {
			t.Errorf("%s: asked for %v, want %v", way, paths, want)
		}
	}
}

// A condition on the body holds of no query that stands elsewhere.
func TestAConditionOnTheBodyDoesNotHoldOfAParameter(t *testing.T) {
	w := hunts(t, HuntingGraph, nil, gives(200, graphAnswer), with(granting(t, []policy.Entry{when(t, `request.body.Query.startsWith("DeviceInfo")`, "hunt")}, nil)))
	if got := w.do("GET", runByKey+"?key=DeviceInfo", ""); got.status != 403 || got.code() != "NotGranted" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := w.do("GET", runByKey+"?key=DeviceInfo", aQuery); got.status != 403 {
		t.Errorf("a body that is not what is asked opens it: %d %s", got.status, got.body)
	}
	if n := len(w.regions[0].requests()); n > 0 {
		t.Errorf("%d requests went out", n)
	}
}
