package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defender-proxy/internal/tenant"
	"defender-proxy/policy"
)

func TestAutoGoesToGraphOnceTheOldAPIIsGone(t *testing.T) {
	for _, status := range []int{404, 410} {
		for name, graph := range map[string]struct {
			path string
			body string
		}{"mde": {runMDE, mdeAnswer}} {
			t.Run(fmt.Sprint(name, status), func(t *testing.T) {
				gone := false
				w := hunts(t, HuntingAuto, func(rw http.ResponseWriter, r *http.Request) {
					if gone {
						gives(status, `<html>gone</html>`, "Content-Type", "text/html")(rw, r)
						return
					}
					gives(200, `{"Schema":[],"Results":[{"old":1}]}`)(rw, r)
				}, gives(200, graphAnswer))
				if got := w.do("POST", graph.path, aQuery); !strings.Contains(got.body, "old") {
					t.Fatalf("before: %s", got.body)
				}
				gone = true
				first := w.do("POST", graph.path, aQuery)
				second := w.do("POST", graph.path, aQuery)
				for _, got := range []*reply{first, second} {
					if got.status != 200 || got.body != graph.body {
						t.Errorf("after: %d %s", got.status, got.body)
					}
				}
				if want := []string{runMDE, runMDE, runGraph, runGraph}; !slices.Equal(w.paths(), want) {
					t.Errorf("asked %q, want %q", w.paths(), want)
				}
				rec := w.recordsOf(first)[0]
				if rec["sent_as"] != "graph.hunting.run" || rec["attempts"] != 2.0 || rec["status"] != 200.0 || !strings.Contains(fmt.Sprint(rec["region_reason"]), "gone") {
					t.Errorf("record of the first: %v", rec)
				}
				if rec := w.recordsOf(second)[0]; rec["sent_as"] != "graph.hunting.run" || rec["attempts"] != 1.0 {
					t.Errorf("record of the second: %v", rec)
				}
				// The other operation has not said that it is gone, and other paths have
				// nothing to do with it.
				gone = false
				w.do("POST", runXDR, aQuery)
				if all := w.paths(); all[len(all)-1] != runXDR {
					t.Errorf("the other operation went to %s", all[len(all)-1])
				}
			})
		}
	}
	t.Run("other statuses are the old API's answers", func(t *testing.T) {
		for _, status := range []int{400, 403, 405, 429, 500, 503} {
			w := hunts(t, HuntingAuto, gives(status, `{"error":{"code":"x","message":"y","target":"z"}}`), gives(200, graphAnswer))
			if got := w.do("POST", runMDE, aQuery); got.status != status || len(w.paths()) != 1 {
				t.Errorf("%d: got %d, asked %q", status, got.status, w.paths())
			}
		}
	})
	t.Run("legacy passes the answer on", func(t *testing.T) {
		w := hunts(t, HuntingLegacy, gives(410, `{"error":{"code":"Gone","message":"y","target":"z"}}`), nil)
		if got := w.do("POST", runMDE, aQuery); got.status != 410 || len(w.paths()) != 1 || got.header.Get("Sunset") == "" {
			t.Errorf("got %d, asked %q", got.status, w.paths())
		}
	})
	t.Run("another operation's 404 is an answer", func(t *testing.T) {
		w := hunts(t, HuntingAuto, gives(404, `{}`), nil)
		if got := w.do("GET", "/api/alerts/1", ""); got.status != 404 || len(w.paths()) != 1 {
			t.Errorf("got %d, asked %q", got.status, w.paths())
		}
	})
	t.Run("a body that is not kept is not sent again", func(t *testing.T) {
		w := hunts(t, HuntingAuto, gives(404, `{}`), gives(200, graphAnswer))
		long := `{"Query":"` + strings.Repeat("x", maxKept) + `"}`
		for range 2 { // nobody knows yet that Graph answers
			if got := w.do("POST", runMDE, long); got.status != 404 {
				t.Errorf("before: %d, asked %q", got.status, w.paths())
			}
		}
		w.do("POST", runMDE, aQuery)
		if got := w.do("POST", runMDE, long); got.status != 200 || got.body != mdeAnswer {
			t.Errorf("afterwards: %d %.200s", got.status, got.body)
		}
		if want := []string{runMDE, runMDE, runMDE, runGraph, runGraph}; !slices.Equal(w.paths(), want) {
			t.Errorf("asked %q, want %q", w.paths(), want)
		}
	})
}

// What one caller does must not decide where everybody's queries go: the older API
// counts as gone for the tenant only when its plain call was answered so, and Graph
// gave what was asked for.
func TestOnlyAPlainCallThatGraphAnsweredIsRemembered(t *testing.T) {
	for _, c := range []struct {
		name, target string
		graph        http.HandlerFunc
		roles        []string
		remembered   bool
	}{
		{"the path itself", runMDE, gives(200, graphAnswer), huntRoles, true},
		{"in letters of another case", "/API/AdvancedQueries/Run", gives(200, graphAnswer), huntRoles, true},
		{"with a version", "/api/v1.0/advancedqueries/run", gives(200, graphAnswer), huntRoles, false},
		{"with a query", runMDE + "?api-version=9", gives(200, graphAnswer), huntRoles, false},
		{"with an empty query", runMDE + "?", gives(200, graphAnswer), huntRoles, false},
		{"without Graph's permission", runMDE, gives(200, graphAnswer), []string{"AdvancedQuery.Read.All"}, false},
		{"with an error of Graph's", runMDE, gives(500, ``), huntRoles, false},
		{"with a bad query", runMDE, gives(400, `{"error":{"code":"BadRequest","message":"m"}}`), huntRoles, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			gone := true
			w := hunts(t, HuntingAuto, func(rw http.ResponseWriter, r *http.Request) {
				if gone {
					gives(404, `{}`)(rw, r)
					return
				}
				gives(200, `{"Schema":[],"Results":["old"]}`)(rw, r)
			}, c.graph, func(o *options) { o.roles = c.roles })
			w.do("POST", c.target, aQuery)
			gone = false
			got := w.do("POST", runMDE, aQuery)
			if strings.Contains(got.body, "old") == c.remembered || got.status != 200 {
				t.Errorf("the next got %d %s, asked %q", got.status, got.body, w.paths())
			}
		})
	}
}

// When the old API is gone and Graph may not be asked, the refusal says both.
func TestWhatGraphNeedsIsSaidWhenTheOldAPIIsGone(t *testing.T) {
	gone := gives(410, ``)
	t.Run("the permission", func(t *testing.T) {
		w := hunts(t, HuntingAuto, gone, gives(200, graphAnswer), func(o *options) { o.roles = []string{"AdvancedQuery.Read.All"} })
		got := w.do("POST", runMDE, aQuery)
		for _, want := range []string{"answered 410 to POST " + runMDE, "that API is gone", "Microsoft Graph", "needs ThreatHunting.Read.All", "holds AdvancedQuery.Read.All"} {
			if !strings.Contains(got.message(), want) {
				t.Errorf("%q is not in %q", want, got.message())
			}
		}
		if got.code() != "MissingPermission" || !slices.Equal(w.paths(), []string{runMDE}) {
			t.Errorf("got %d %s, asked %q", got.status, got.code(), w.paths())
		}
		if rec := w.lines(1)[0]; rec["decision"] != "refused" || rec["code"] != "MissingPermission" {
			t.Errorf("record %v", rec)
		}
	})
	t.Run("the service", func(t *testing.T) {
		w := hunts(t, HuntingAuto, gone, nil, func(o *options) { o.graph = false })
		got := w.do("POST", runMDE, aQuery)
		if got.code() != "RegionUnavailable" || !strings.Contains(got.message(), "that API is gone") || !strings.Contains(got.message(), "Microsoft Graph") {
			t.Errorf("got %d %s", got.status, got.body)
		}
	})
	t.Run("the token", func(t *testing.T) {
		var w *world
		w = hunts(t, HuntingAuto, func(rw http.ResponseWriter, r *http.Request) {
			w.entra.set(func(e *entra) { e.refuses = true })
			gone(rw, r)
		}, nil)
		if got := w.do("POST", runMDE, aQuery); got.code() != "TokenUnavailable" || !strings.Contains(got.message(), "that API is gone") {
			t.Errorf("got %d %s", got.status, got.body)
		}
	})
}

// Whoever is refused for Graph's sake learns why Graph is asked at all, the first and
// whoever comes later.
func TestEveryRefusalOnTheWayToGraphSaysWhy(t *testing.T) {
	const said = "Microsoft answered 410 to POST " + runMDE + ": that API is gone. "
	over := func(d *Deps) {
		c, err := policy.NewCatalog([]policy.Operation{{ID: "hunting.runMDE", Sunset: "2026-01-01"}})
		if err != nil {
			t.Fatal(err)
		}
		d.Policy.Catalog = c
		granting(t, policy.Entries("hunt"), nil)(d)
	}
	dead := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	lost := func(w *world) {
		w.entra.set(func(e *entra) { e.roles = []string{"AdvancedQuery.Read.All"} })
	}
	fails := func(after http.HandlerFunc) http.HandlerFunc {
		n := 0
		return func(w http.ResponseWriter, r *http.Request) {
			if n++; n == 1 {
				gives(200, graphAnswer)(w, r)
				return
			}
			after(w, r)
		}
	}
	for _, c := range []struct {
		name       string
		graph      http.HandlerFunc
		warm       func(*world) // after a call that was answered; nil: there was none
		more       func(*Deps)
		code, said string
	}{
		{"no answer, at once", dead, nil, nil, "RegionUnavailable", said},
		{"no answer of a query, at once", gives(200, `{"value":[]}`), nil, nil, "InvalidAnswer", said},
		{"no answer, later", fails(dead), func(*world) {}, nil, "RegionUnavailable", said},
		{"no permission any more, later", fails(gives(401, `{}`)), lost, nil, "", ""}, // Microsoft's own no
		{"no answer, after the day", dead, nil, over, "RegionUnavailable", "POST " + runMDE + " ended on 2026-01-01. "},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := hunts(t, HuntingAuto, gives(410, ``), c.graph, with(func(d *Deps) {
				if c.more != nil {
					c.more(d)
				}
			}))
			if c.warm != nil {
				if got := w.do("POST", runMDE, aQuery); got.status != 200 {
					t.Fatalf("the first: %d %s", got.status, got.body)
				}
				c.warm(w)
			}
			got := w.do("POST", runMDE, aQuery)
			if got.code() != c.code || !strings.HasPrefix(got.message(), c.said) || strings.Count(got.message(), "gone") > 1 {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
	t.Run("what has nothing to do with Graph does not", func(t *testing.T) {
		w := hunts(t, HuntingAuto, nil, nil, with(over), with(func(d *Deps) { granting(t, policy.Entries("read"), nil)(d) }))
		if got := w.do("POST", runMDE, aQuery); got.code() != "NotGranted" || strings.Contains(got.message(), "ended on") {
			t.Errorf("got %d %s", got.status, got.body)
		}
	})
}

// bare is a proxy for questions of what is sent, and a tenant.
func bare(t *testing.T, way Hunting, additions ...policy.Operation) (*Proxy, *Tenant, map[string]*policy.Operation) {
	t.Helper()
	c, err := policy.NewCatalog(additions)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Deps: Deps{Policy: &policy.Policy{Catalog: c}, Bridges: new(Bridges)}}
	tn := &Tenant{Tenant: tenant.Tenant{Name: "contoso", ID: "1"}, Hunting: way}
	p.tenants = map[string]*Tenant{"contoso": tn}
	ops := map[string]*policy.Operation{}
	for _, op := range c.Operations() {
		ops[op.ID] = op
	}
	return p, tn, ops
}

func TestWhatIsSentOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where it is 2000
		p, tn, ops := bare(t, HuntingAuto)
		mde, xdr, graph := ops["hunting.runMDE"], ops["hunting.runXDR"], ops["graph.hunting.run"]
		is := func(when string, op, want *policy.Operation) {
			t.Helper()
			if got := p.sends(tn, op, time.Now()); got != want {
				t.Errorf("%s %s is sent as %s", when, op.ID, got.ID)
			}
		}
		is("in the beginning", mde, mde)
		if got := p.Sends("contoso")(mde); !slices.Equal(got, []*policy.Operation{mde, graph}) {
			t.Errorf("it may go to %v", got)
		}
		p.Bridges.put(tn, mde, 410)
		is("once it is gone", mde, graph)
		is("of the other", xdr, xdr)
		if got := p.Sends("contoso")(mde); !slices.Equal(got, []*policy.Operation{mde, graph}) {
			t.Errorf("once it is gone, for an hour, it may go to %v", got) // and then the older one is asked again
		}
		elsewhere, other := *tn, *tn
		elsewhere.Cloud, other.ID = "dod", "2"
		for _, tn := range []*Tenant{&elsewhere, &other} {
			if got := p.sends(tn, mde, time.Now()); got != mde {
				t.Errorf("the memory of one tenant is that of %s in %q", tn.ID, tn.Cloud)
			}
		}
		time.Sleep(goneFor - time.Second)
		is("within the hour", mde, graph)
		time.Sleep(time.Second)
		is("after the hour", mde, mde)

		time.Sleep(time.Until(time.Date(2027, 1, 31, 23, 59, 59, 0, time.UTC)))
		is("in the last second", mde, mde)
		time.Sleep(time.Second)
		is("from the day on", mde, graph)
		is("from the day on", xdr, graph)
		is("from the day on", graph, graph)
		is("from the day on", ops["alerts.list"], ops["alerts.list"])
		if got := p.Sends("contoso")(xdr); !slices.Equal(got, []*policy.Operation{graph}) {
			t.Errorf("it goes to %v", got)
		}
		tn.Hunting = HuntingLegacy
		is("and with legacy", mde, mde)
		if p.Sends("contoso") != nil || p.Sends("fabrikam") != nil {
			t.Error("there is something to tell of a tenant that has no bridge")
		}
	})
	t.Run("what an operator corrects", func(t *testing.T) {
		p, tn, ops := bare(t, HuntingAuto, policy.Operation{ID: "hunting.runMDE", Sunset: "2026-01-01"}, policy.Operation{ID: "hunting.runXDR", Successor: "hunting.runMDE"},
			policy.Operation{ID: "machines.list", Successor: "alerts.list", Sunset: "2026-01-01"})
		for id, want := range map[string]string{"hunting.runMDE": "graph.hunting.run", "hunting.runXDR": "hunting.runXDR", "machines.list": "machines.list"} {
			if got := p.sends(tn, ops[id], time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)); got.ID != want {
				t.Errorf("%s is sent as %s", id, got.ID)
			}
		}
	})
}

func TestWhatIsGoneTakesBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, ops := bare(t, HuntingAuto)
		b := new(Bridges)
		op := ops["hunting.runMDE"]
		of := func(i int) *Tenant { return &Tenant{Tenant: tenant.Tenant{ID: tenant.ID(strconv.Itoa(i))}} }
		for i := range maxGone + 10 {
			b.put(of(i), op, 404)
		}
		if len(b.said) != maxGone || b.gone(of(maxGone+1), op) != 0 || b.gone(of(0), op) != 404 {
			t.Errorf("%d are remembered", len(b.said))
		}
		time.Sleep(goneFor)
		b.put(of(maxGone+1), op, 404)
		if len(b.said) != 1 || b.gone(of(maxGone+1), op) != 404 {
			t.Errorf("%d are remembered after the hour", len(b.said))
		}
	})
}
