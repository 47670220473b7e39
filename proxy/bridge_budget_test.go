package proxy

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"defender-proxy/policy"
)

// steps answers with one handler after the other, the last for all that follow.
func steps(all ...http.HandlerFunc) http.HandlerFunc {
	var n atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		all[min(int(n.Add(1)), len(all))-1](w, r)
	}
}

// A query that goes to both APIs has the patience of one.
func TestBothAPIsShareOneBudget(t *testing.T) {
	t.Run("of waiting", func(t *testing.T) {
		w := hunts(t, HuntingAuto,
			steps(gives(429, ``, "Retry-After", "1"), gives(404, ``)),
			steps(gives(429, ``, "Retry-After", "1"), gives(200, graphAnswer)),
			func(o *options) { o.limits = func(l *Limits) { l.MaxWait = 1500 * time.Millisecond } })
		if got := w.do("POST", runMDE, aQuery); got.status != 429 || got.header.Get("Retry-After") != "1" || len(w.asked()) != 3 {
			t.Errorf("got %d %s after %q", got.status, got.body, w.paths())
		}
	})
	t.Run("of waits", func(t *testing.T) {
		w := hunts(t, HuntingAuto,
			steps(gives(429, ``, "Retry-After", "0"), gives(429, ``, "Retry-After", "0"), gives(404, ``)),
			gives(429, ``, "Retry-After", "0"),
			func(o *options) { o.limits = func(l *Limits) { l.MaxWait = time.Minute } })
		if got := w.do("POST", runMDE, aQuery); got.status != 429 || len(w.asked()) != 3+2 {
			t.Errorf("got %d after %q", got.status, w.paths())
		}
	})
	t.Run("of time", func(t *testing.T) {
		slowly := func(h http.HandlerFunc) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(2400 * time.Millisecond)
				h(w, r)
			}
		}
		w := hunts(t, HuntingAuto, slowly(steps(gives(429, ``, "Retry-After", "0"), gives(404, ``))), gives(429, ``, "Retry-After", "0"), func(o *options) {
			o.limits = func(l *Limits) {
				l.ConnectTimeout, l.FirstByteTimeout, l.MaxWait = 500*time.Millisecond, 4*time.Second, time.Minute
			}
		})
		if got := w.do("POST", runMDE, aQuery); got.status != 429 || len(w.asked()) != 3 {
			t.Errorf("got %d after %q: no attempt is left once the time of one is over", got.status, w.paths())
		}
	})
}

// Each API has a token of its own, so that each may be renewed.
func TestBothAPIsMayRefuseATokenOnce(t *testing.T) {
	w := hunts(t, HuntingAuto, steps(gives(401, ``), gives(404, ``)), steps(gives(401, `{}`), gives(200, graphAnswer)))
	got := w.do("POST", runMDE, aQuery)
	if all := w.asked(); got.status != 200 || len(all) != 4 || all[2].header.Get("Authorization") == all[3].header.Get("Authorization") {
		t.Errorf("got %d %s after %q", got.status, got.body, w.paths())
	}
}

// The older API's answer is let go before Graph is asked: its connection would be held
// as long as Graph takes.
func TestWhatTheOldAPISaidIsLetGo(t *testing.T) {
	ended := make(chan struct{})
	w := hunts(t, HuntingAuto, func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(404)
		_, _ = rw.Write(make([]byte, 100))
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
		close(ended)
	}, func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			t.Error("it is still held while Graph answers")
		}
		gives(200, graphAnswer)(rw, r)
	})
	if got := w.do("POST", runMDE, aQuery); got.body != mdeAnswer {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// ExecutionTime is Graph's, not that of an approval, of the older API or of a wait.
func TestExecutionTimeIsThatOfTheLastAttempt(t *testing.T) {
	w := hunts(t, HuntingAuto, func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Second)
		gives(404, ``)(rw, r)
	}, steps(gives(429, ``, "Retry-After", "1"), gives(200, graphAnswer)), func(o *options) { o.limits = func(l *Limits) { l.MaxWait = 3 * time.Second } })
	begun := time.Now()
	got := w.do("POST", runXDR, aQuery)
	whole := time.Since(begun)
	var answer struct {
		Stats struct{ ExecutionTime float64 }
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || got.status != 200 {
		t.Fatalf("%d %s: %v", got.status, got.body, err)
	}
	if took := time.Duration(answer.Stats.ExecutionTime * float64(time.Second)); took <= 0 || took > whole-3*time.Second {
		t.Errorf("it says %v of %v, three seconds of which were others'", took, whole)
	}
}

// Nothing ran where the older API was gone and Graph was not reached.
func TestAnApprovalIsKeptUntilAQueryRan(t *testing.T) {
	for name, c := range map[string]struct {
		roles []string
		code  string
		graph bool
	}{
		"no permission": {[]string{"AdvancedQuery.Read.All"}, "MissingPermission", true},
		"no Graph":      {huntRoles, "RegionUnavailable", false},
	} {
		t.Run(name, func(t *testing.T) {
			gone := true
			w := hunts(t, HuntingAuto, func(rw http.ResponseWriter, r *http.Request) {
				if gone {
					gives(410, ``)(rw, r)
					return
				}
				gives(200, `{"Schema":[],"Results":[]}`)(rw, r)
			}, nil, func(o *options) { o.roles, o.graph = c.roles, c.graph }, with(twoPeople(t, func(d *Deps) {
				waiting, err := d.Policy.Catalog.Grants(policy.Entries("hunt"), nil)
				if err != nil {
					t.Fatal(err)
				}
				d.Approval.Operations = waiting
			})))
			id := w.do("POST", runMDE, aQuery, "Content-Type", "application/json").waiting(t)
			w.decide(id, "approve", "comment=x", asLead...)
			again := func() *reply {
				return w.do("POST", runMDE, aQuery, "Content-Type", "application/json", "X-Approval-Id", id)
			}
			if got := again(); got.code() != c.code || !strings.Contains(got.message(), "is gone") {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			gone = false
			if got := again(); got.status != 200 {
				t.Errorf("with the approval that nothing was sent for: %d %s", got.status, got.body)
			}
			if got := again(); got.code() != "NotApproved" {
				t.Errorf("once it was used: %d %s", got.status, got.body)
			}
		})
	}
}
