package proxy

import (
	"encoding/json"
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
			a := w.asked()[0]
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
		HuntingAuto:   {runByKey + "?key=T", runGraph, runByKey + "?key=T"}, // a caller's key may be what it has no answer for
	} {
		w := hunts(t, way, gives(http.StatusGone, `{"error":{"code":"Gone","message":"x"}}`), gives(200, graphAnswer))
		got := w.do("GET", runByKey+"?key=T", "")
		if way == HuntingAuto {
			if got.status != 200 || got.body != mdeAnswer {
				t.Errorf("%s: got %d %s", way, got.status, got.body)
			}
			if head := w.do("HEAD", runByKey+"?key=T", ""); head.status != http.StatusGone {
				t.Errorf("HEAD, which Graph has nothing for: got %d %q", head.status, head.body)
			}
		} else if got.status != http.StatusGone {
			t.Errorf("%s: got %d %s", way, got.status, got.body)
		}
		if paths := w.paths(); strings.Join(paths, " ") != strings.Join(want, " ") {
			t.Errorf("%s: asked for %v, want %v", way, paths, want)
		}
	}
}

// Whatever a caller sends beside it, and however much, what runs is the parameter.
func TestTheParameterRunsBesideABodyOfAnyLength(t *testing.T) {
	long := `{"Query":"EmailEvents //` + strings.Repeat("x", maxKept) + `"}`
	for way, want := range map[Hunting]int{HuntingGraph: 1, HuntingAuto: 2} {
		w := hunts(t, way, gives(http.StatusNotFound, ``), gives(200, graphAnswer))
		got := w.do("GET", runByKey+"?key=T", long, "Content-Type", "application/json", "Content-Encoding", "identity", "Expect", "100-continue")
		all := w.asked()
		if got.status != 200 || got.body != mdeAnswer || len(all) != want {
			t.Fatalf("%s: got %d %s after %d requests", way, got.status, got.body, len(all))
		}
		if a := all[want-1]; a.body != `{"Query":"T"}` || a.length != int64(len(a.body)) || a.header.Get("Content-Type") != "application/json" || a.header["Content-Encoding"] != nil {
			t.Errorf("%s: Graph got %.80s %v", way, a.body, a.header)
		}
	}
}

// HEAD of it would be a whole query whose answer nobody gets.
func TestHEADDoesNotCrossTheBridge(t *testing.T) {
	w := hunts(t, HuntingGraph, nil, gives(200, graphAnswer))
	got := w.do("HEAD", runByKey+"?key=T", "")
	rec := w.recordsOf(got)[0]
	if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != "GET" || got.body != "" || len(w.asked()) != 0 {
		t.Errorf("got %d %v, asked %d times", got.status, got.header, len(w.asked()))
	}
	if rec["code"] != "MethodNotAllowed" || !strings.Contains(fmt.Sprint(rec["reason"]), "Microsoft Graph") || rec["operation"] != "hunting.runMDEByKey" {
		t.Errorf("record %v", rec)
	}
	if e := w.do("GET", "/-/explain?method=HEAD&path="+runByKey, "").body; !strings.Contains(e, `"MethodNotAllowed"`) {
		t.Errorf("explain says %s", e)
	}
}

// A condition on the body cannot be told of a query that stands elsewhere, whatever it
// asks and whichever way the query goes.
func TestAConditionOnTheBodyDoesNotHoldOfAParameter(t *testing.T) {
	for _, condition := range []string{
		`request.body.Query.startsWith("DeviceInfo")`,
		`!has(request.body.Query) || !request.body.Query.contains("EmailEvents")`,
		`request.body == null`,
	} {
		for _, way := range []Hunting{HuntingLegacy, HuntingAuto, HuntingGraph} {
			w := hunts(t, way, nil, gives(200, graphAnswer), with(granting(t, []policy.Entry{when(t, condition, "hunt")}, nil)))
			for _, body := range []string{"", aQuery} {
				got := w.do("GET", runByKey+"?key=DeviceInfo", body, "Content-Type", "application/json")
				if got.code() != "NotGranted" || body == "" && !strings.Contains(got.message(), "stands in the parameter key") {
					t.Errorf("%s when %s, body %q: %d %s", way, condition, body, got.status, got.body)
				}
			}
			var e Explanation
			if err := json.Unmarshal([]byte(w.do("GET", "/-/explain?path="+runByKey, "").body), &e); err != nil || e.Allowed || e.Code != NotGranted || e.When != "" {
				t.Errorf("explain: %v %+v", err, e)
			}
			if n := len(w.asked()); n > 0 {
				t.Errorf("%s when %s: %d requests went out", way, condition, n)
			}
		}
	}
	t.Run("one that does not look at it does", func(t *testing.T) {
		w := hunts(t, HuntingGraph, nil, gives(200, graphAnswer), with(granting(t, []policy.Entry{when(t, `request.tenant == "contoso"`, "hunt")}, nil)))
		if got := w.do("GET", runByKey+"?key=T", ""); got.status != 200 {
			t.Errorf("got %d %s", got.status, got.body)
		}
	})
	t.Run("denying the one says nothing of the other, and a pattern denies both", func(t *testing.T) {
		for denied, status := range map[string]int{"hunting.runMDE": 200, "hunting.*": 403} {
			w := hunts(t, HuntingGraph, nil, gives(200, graphAnswer), with(granting(t, policy.Entries("hunt"), policy.Entries(denied))))
			if got := w.do("GET", runByKey+"?key=T", ""); got.status != status {
				t.Errorf("deny %s: got %d %s", denied, got.status, got.body)
			}
		}
	})
}
