package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/clients"
	"defender-proxy/policy"
)

// Who asks is told by a local key: everybody is on loopback here.
const (
	leadsKey    = "key-of-the-soc-leads"
	chiefsKey   = "key-of-the-chiefs-xx"
	otherKey    = "key-of-another-group"
	analystsKey = "key-of-the-analysts-x"
)

var (
	asLead  = []string{"X-Key", leadsKey}
	asChief = []string{"X-Key", chiefsKey}
	asOther = []string{"X-Key", otherKey}
)

// keyed is a client group that others cannot pass for.
func keyed(t *testing.T, c Client, text string) Client {
	t.Helper()
	k, err := clients.NewKey("X-Key", text)
	if err != nil {
		t.Fatal(err)
	}
	c.Keys = []clients.Key{k}
	return c
}

// twoPeople lets respond wait for the soc leads or the chiefs, who are for contoso
// only. What is sent without a key is sent with that of local.
func twoPeople(t *testing.T, change func(*Deps)) func(*Deps) {
	return func(d *Deps) {
		waiting, err := d.Policy.Catalog.Grants(policy.Entries("respond"), nil)
		if err != nil {
			t.Fatal(err)
		}
		d.Approval = &Approval{Operations: waiting, By: []string{"soc-leads", "chiefs"}, Within: 15 * time.Minute, Store: approval.New()}
		group := func(name, text string, tenants []string) Client {
			return keyed(t, Client{Name: name, From: d.Clients[0].From, Tenants: tenants, Grants: d.Clients[0].Grants}, text)
		}
		d.Clients[0] = keyed(t, d.Clients[0], analystsKey)
		d.Clients = append([]Client{group("soc-leads", leadsKey, nil), group("chiefs", chiefsKey, []string{"contoso"}), group("other", otherKey, nil)}, d.Clients...)
		if change != nil {
			change(d)
		}
	}
}

const isolateBody = `{"Comment":"ransomware","IsolationType":"Full"}`

// isolate asks for machine m to be isolated.
func (w *world) isolate(m string, header ...string) *reply {
	return w.do("POST", "/api/machines/"+m+"/isolate", isolateBody, append([]string{"Content-Type", "application/json"}, header...)...)
}

// decide posts to an approval's page.
func (w *world) decide(id, verdict, body string, header ...string) *reply {
	return w.do("POST", "/-/approvals/"+id+"/"+verdict, body, append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

// arrivals counts what reached the regions.
func (w *world) arrivals() (n int) {
	for _, r := range w.regions {
		n += len(r.requests())
	}
	return n
}

// view reads an approval's page.
func (r *reply) view(t *testing.T) approval.View {
	t.Helper()
	var v approval.View
	if err := json.Unmarshal([]byte(r.body), &v); err != nil || r.status != 200 {
		t.Fatalf("got %d %s, %v", r.status, r.body, err)
	}
	return v
}

// waiting reads the answer to a call that waits.
func (r *reply) waiting(t *testing.T) string {
	t.Helper()
	var v struct {
		ID       string // at the top, a program would take it for a machine action's
		Approval approval.View
		Message  string
	}
	id := r.header.Get("X-Approval-Id")
	if err := json.Unmarshal([]byte(r.body), &v); err != nil || r.status != 202 || v.Approval.ID == "" || v.Approval.ID != id || v.ID != "" || !strings.Contains(v.Message, id) {
		t.Fatalf("got %d %s, %v; want 202 and an id", r.status, r.body, err)
	}
	return id
}

func TestACallWaitsForASecondPersonAndIsSentOnce(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	first := w.isolate("m1")
	id := first.waiting(t)
	if h := first.header; h.Get("Location") != w.server.URL+"/-/approvals/"+id || h.Get("Retry-After") == "" || !strings.HasPrefix(h.Get("Proxy-Status"), "defender-proxy; details=") {
		t.Errorf("the headers are %v", h)
	}
	for name, again := range map[string]*reply{"with the id": w.isolate("m1", "X-Approval-Id", id), "without": w.isolate("m1")} {
		if got := again.waiting(t); got != id {
			t.Errorf("repeated %s it waits as %s, not as %s", name, got, id)
		}
	}
	if n := w.arrivals(); n > 0 {
		t.Fatalf("%d requests went out unapproved", n)
	}

	v := w.do("GET", "/-/approvals/"+id, "", asLead...).view(t)
	if v.State != approval.Pending || v.Client != "local" || v.Tenant != "contoso" || v.Operation != "machines.isolate" || v.Class != "respond" ||
		v.Path != "/api/machines/m1/isolate" || v.Body != isolateBody || v.Cut || !v.May || v.RequestID != first.header.Get("X-Request-Id") || v.Address != "127.0.0.1" {
		t.Errorf("an approver sees %+v", v)
	}
	if got := w.decide(id, "approve", "comment=seen+the+alert", asLead...).view(t); got.State != approval.Approved || got.DecidedBy != "soc-leads" || got.Comment != "seen the alert" {
		t.Errorf("approved: %+v", got)
	}
	if hint := w.isolate("m1"); hint.waiting(t) != id || !strings.Contains(hint.body, "is approved") || w.arrivals() > 0 {
		t.Errorf("without the id: %d %s, %d arrived", hint.status, hint.body, w.arrivals())
	}
	if other := w.isolate("m2", "X-Approval-Id", id); other.code() != "NotApproved" || !strings.Contains(other.message(), "its path") {
		t.Errorf("another machine: %d %s", other.status, other.body)
	}
	sent := w.isolate("m1", "X-Approval-Id", id)
	if up := w.regions[0].requests(); sent.status != 200 || len(up) != 1 || up[0].body != isolateBody || up[0].header.Get("X-Approval-Id") != "" || up[0].header.Get("X-Key") != "" {
		t.Fatalf("repeated: %d %s; %+v arrived", sent.status, sent.body, up)
	}
	if again := w.isolate("m1", "X-Approval-Id", id); again.code() != "NotApproved" || !strings.Contains(again.message(), "one time") {
		t.Errorf("once more: %d %s", again.status, again.body)
	}
	if next := w.isolate("m1"); next.waiting(t) == id || w.arrivals() != 1 {
		t.Errorf("asked anew: %d %s, %d arrived", next.status, next.body, w.arrivals())
	}
}

func TestTheRecordsNameBothPeople(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	id := w.isolate("m1").waiting(t)
	w.decide(id, "approve", "", asLead...)
	w.isolate("m1", "X-Approval-Id", id)
	lines := w.lines(5)
	for i, want := range []map[string]any{
		{"event": "request", "client": "local", "operation": "machines.isolate", "status": 202.0, "approval": id, "approval_state": "pending"},
		{"event": "intent", "client": "soc-leads", "path": "/-/approvals/" + id + "/approve", "tenant": "contoso", "approval": id, "approval_state": "pending"},
		{"event": "request", "client": "soc-leads", "status": 200.0, "approval": id, "approval_state": "approved", "approved_by": "soc-leads", "approver_address": "127.0.0.1"},
		{"event": "intent", "client": "local", "operation": "machines.isolate", "approval": id, "approval_state": "sent", "approved_by": "soc-leads", "approver_address": "127.0.0.1"},
		{"event": "request", "client": "local", "status": 200.0, "attempts": 1.0, "approval": id, "approval_state": "sent", "approved_by": "soc-leads"},
	} {
		for key, value := range want {
			if lines[i][key] != value {
				t.Errorf("record %d: %s is %v, want %v, in %v", i+1, key, lines[i][key], value, lines[i])
			}
		}
	}
	if _, there := lines[0]["attempts"]; there {
		t.Errorf("a call that waits was tried: %v", lines[0])
	}
}

func TestOnlyWhatIsNamedWaits(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil), allow: []string{"read", "manage", "machines.isolate"}})
	if got := w.do("GET", "/api/alerts", ""); got.status != 200 {
		t.Errorf("a read: %d %s", got.status, got.body)
	}
	if got := w.do("POST", "/api/indicators", "{}"); got.status != 200 {
		t.Errorf("another write: %d %s", got.status, got.body)
	}
	if got := w.do("POST", "/api/machines/m1/unisolate", "{}"); got.code() != "NotGranted" {
		t.Errorf("what is not granted: %d %s", got.status, got.body)
	}
	if got := w.do("POST", "/api/machines/m1/offboard", "{}"); got.code() != "NotGranted" {
		t.Errorf("what is neither granted nor permitted: %d %s", got.status, got.body)
	}
	if got := w.decide("A", "maybe", "", asLead...); got.code() != "UnknownOperation" {
		t.Errorf("a verdict that there is not: %d %s", got.status, got.body)
	}
	if n := len(w.proxy.Approval.Store.List(time.Now())); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// What cannot be known whole beforehand cannot be approved.
func TestWhatCannotBeApproved(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	big := `{"Comment":"` + strings.Repeat("x", maxKept) + `"}`
	if got := w.do("POST", "/api/machines/m1/isolate", big, "Expect", "100-continue"); got.code() != "RequestTooLarge" || !strings.Contains(got.message(), "262144") {
		t.Errorf("a body that streams: %d %s", got.status, got.body)
	}
	if got := w.do("POST", "/api/machines/m1/isolate?a="+strings.Repeat("x", maxTarget), isolateBody); got.code() != "InvalidRequest" {
		t.Errorf("a long query: %d %s", got.status, got.body)
	}
	for i := range approval.MaxOpenPerClient {
		w.isolate(fmt.Sprint(i)).waiting(t)
	}
	if got := w.isolate("one-more"); got.code() != "Overloaded" || got.header.Get("Retry-After") != "60" {
		t.Errorf("too many: %d %s", got.status, got.body)
	}
	if got := w.isolate("one-more", asOther...); got.status != 202 {
		t.Errorf("another group meanwhile: %d %s", got.status, got.body)
	}
	if n := w.arrivals(); n > 0 {
		t.Errorf("%d requests went out", n)
	}
}

// Whatever is odd about the id, nothing is sent.
func TestAnApprovalIsForOneCallOfOneGroup(t *testing.T) {
	w := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}, deps: twoPeople(t, nil)})
	ask := func(target, body string, header ...string) *reply {
		return w.do("POST", target, body, append([]string{"Content-Type", "application/json"}, header...)...)
	}
	const path = "/api/machines/m1/isolate"
	id := ask("/t/contoso"+path, isolateBody).waiting(t)
	w.decide(id, "approve", "", asLead...)
	with := []string{"X-Approval-Id", id}
	for _, c := range []struct {
		name  string
		got   *reply
		code  string
		words string
	}{
		{"another body", ask("/t/contoso"+path, strings.Replace(isolateBody, "Full", "Selective", 1), with...), "NotApproved", "its body"},
		{"no body", ask("/t/contoso"+path, "", with...), "NotApproved", "its body"},
		{"another query", ask("/t/contoso"+path+"?x=1", isolateBody, with...), "NotApproved", "its query"},
		{"another tenant", ask("/t/fabrikam"+path, isolateBody, with...), "NotApproved", "its tenant"},
		{"another operation", ask("/t/contoso/api/machines/m1/unisolate", isolateBody, with...), "NotApproved", "its operation, path"},
		{"another spelling of the path", ask("/t/contoso/api/v1.0/machines/m1/isolate", isolateBody, with...), "NotApproved", "its path"},
		{"another type", w.do("POST", "/t/contoso"+path, isolateBody, append([]string{"Content-Type", "text/json"}, with...)...), "NotApproved", "its Content-Type"},
		{"an encoding", ask("/t/contoso"+path, isolateBody, append([]string{"Content-Encoding", "gzip"}, with...)...), "NotApproved", "its Content-Encoding"},
		{"another group", ask("/t/contoso"+path, isolateBody, slices.Concat(with, asOther)...), "NotApproved", "There is no approval"},
		{"an id of nobody", ask("/t/contoso"+path, isolateBody, "X-Approval-Id", "AAAA"), "NotApproved", "There is no approval"},
		{"an empty id", ask("/t/contoso"+path, isolateBody, "X-Approval-Id", ""), "NotApproved", "There is no approval"},
		{"two ids", ask("/t/contoso"+path, isolateBody, slices.Concat(with, with)...), "InvalidRequest", "several"},
		{"an underscore", ask("/t/contoso"+path, isolateBody, "X_Approval_Id", id), "InvalidRequest", ""},
	} {
		if c.got.code() != c.code || !strings.Contains(c.got.message(), c.words) {
			t.Errorf("%s: got %d %s, want %s with %q", c.name, c.got.status, c.got.body, c.code, c.words)
		}
	}
	if n := w.arrivals(); n > 0 {
		t.Errorf("%d requests went out", n)
	}
	if got := ask("/t/contoso"+path, isolateBody, with...); got.status != 200 || w.arrivals() != 1 {
		t.Errorf("the call itself: %d %s", got.status, got.body)
	}
}

func TestAnApprovalOfAGroupThatMayNotAnyMoreDoesNotCount(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	id := w.isolate("m1").waiting(t)
	w.decide(id, "approve", "", asLead...)
	w.proxy.Approval.By = []string{"chiefs"}
	if got := w.isolate("m1", "X-Approval-Id", id); got.code() != "NotApproved" || !strings.Contains(got.message(), "soc-leads") || w.arrivals() > 0 {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// As long as nothing was sent, the approval stays good; once something may have
// arrived it is used up.
func TestWhatBecomesOfAnApprovalWhenSendingFails(t *testing.T) {
	for _, c := range []struct {
		name  string
		fail  func(*world)
		code  string
		state approval.State
	}{
		{name: "there is no connection",
			fail: func(w *world) {
				for _, r := range w.regions {
					r.server.Close()
				}
			}, code: "RegionUnavailable", state: approval.Approved},
		{name: "its record cannot be written", fail: func(w *world) { w.records.setFail(errors.New("disk full")) }, code: "AuditUnavailable", state: approval.Approved},
		{name: "the region ends the connection", fail: func(w *world) {
			for _, r := range w.regions {
				r.answer(reset)
			}
		}, code: "RegionUnavailable", state: approval.Sent},
		{name: "Microsoft says no", fail: func(w *world) {
			w.regions[0].answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) })
		}, state: approval.Sent},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{deps: twoPeople(t, nil)})
			id := w.isolate("m1").waiting(t)
			w.decide(id, "approve", "", asLead...)
			c.fail(w)
			got := w.isolate("m1", "X-Approval-Id", id)
			w.records.setFail(nil)
			a, ok := w.proxy.Approval.Store.Get(id, time.Now())
			if got.code() != c.code || !ok || a.State != c.state {
				t.Errorf("got %d %s and %q; want %s and %q", got.status, got.body, a.State, c.code, c.state)
			}
		})
	}
}

func TestACallerCanWaitForTheDecision(t *testing.T) {
	for _, c := range []struct {
		name, prefer, verdict string
		status                int
		code                  string
		arrived               int
	}{
		{"approved meanwhile", "respond-async, wait=20", "approve", 200, "", 1},
		{"in capitals and quotes", `Wait="20"`, "approve", 200, "", 1},
		{"denied meanwhile", "wait=20", "deny", 403, "NotApproved", 0},
		{"nobody decides", "wait=1", "", 202, "", 0},
		{"a wait of nothing", "wait=0", "", 202, "", 0},
		{"no number", "wait=soon", "", 202, "", 0},
		{"another preference", "return=minimal", "", 202, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{deps: twoPeople(t, nil)})
			var decided sync.WaitGroup
			if c.verdict != "" {
				decided.Go(func() {
					for {
						for _, a := range w.proxy.Approval.Store.List(time.Now()) {
							w.decide(a.ID, c.verdict, "", asLead...)
							return
						}
						time.Sleep(time.Millisecond)
					}
				})
			}
			got := w.isolate("m1", "Prefer", c.prefer)
			decided.Wait()
			if got.status != c.status || got.code() != c.code || w.arrivals() != c.arrived {
				t.Errorf("got %d %s and %d arrived; want %d %s and %d", got.status, got.body, w.arrivals(), c.status, c.code, c.arrived)
			}
			if c.status == 200 {
				if id := w.proxy.Approval.Store.List(time.Now())[0].ID; w.isolate("m1", "X-Approval-Id", id).code() != "NotApproved" {
					t.Error("it can be sent once more")
				}
			}
		})
	}
}

func TestFewWaitAtOnce(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil), limits: func(l *Limits) { l.InFlight = 8 }})
	w.proxy.waiting.Store(2)
	begun := time.Now()
	w.isolate("m1", "Prefer", "wait=60").waiting(t)
	id := w.proxy.Approval.Store.List(time.Now())[0].ID
	if v := w.do("GET", "/-/approvals/"+id+"?wait=60", "").view(t); v.State != approval.Pending {
		t.Errorf("got %+v", v)
	}
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("they waited %v although others do", took)
	}
	if n := w.proxy.waiting.Load(); n != 2 {
		t.Errorf("%d wait", n)
	}
}

func TestACallerThatLeavesDoesNotKeepItsPlace(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	c, err := (&http.Client{Timeout: 200 * time.Millisecond}).Do(func() *http.Request {
		r, err := http.NewRequest("POST", w.server.URL+"/api/machines/m1/isolate", strings.NewReader(isolateBody))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Prefer", "wait=600")
		r.Header.Set("X-Key", analystsKey)
		return r
	}())
	if err == nil {
		c.Body.Close()
		t.Fatal("it was answered at once")
	}
	line := w.lines(1)[0]
	if line["code"] != "ClientGone" || line["approval_state"] != "pending" {
		t.Errorf("the record is %v", line)
	}
	if n := w.proxy.waiting.Load(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// The name of a tenant may mean another one after a reload.
func TestAnApprovalIsForTheTenantThatTheNameMeant(t *testing.T) {
	store := approval.New()
	shared := twoPeople(t, func(d *Deps) { d.Approval.Store = store })
	before := newWorld(t, options{deps: shared})
	after := newWorld(t, options{tenants: []string{"fabrikam", "contoso"}, listener: Listener{Tenant: "contoso"}, deps: shared})
	id := before.isolate("m1").waiting(t)
	before.decide(id, "approve", "", asLead...)
	if got := after.isolate("m1", "X-Approval-Id", id); got.code() != "NotApproved" || !strings.Contains(got.message(), "its tenant") || after.arrivals() > 0 {
		t.Errorf("got %d %s, %d arrived", got.status, got.body, after.arrivals())
	}
}

// What the headers say is approved with the rest, but for those that only say who asks
// and which answer is wanted.
func TestAnApprovalIsForTheHeadersThatSayWhatIsDone(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, func(d *Deps) { d.ForwardHeaders = []string{"X-Corp-Ticket"} })})
	base := []string{"If-Match", "a", "Prefer", "return=minimal", "X-Corp-Ticket", "1"}
	for name, c := range map[string]struct {
		header []string
		same   bool
	}{
		"all as it was":                         {base, true},
		"a wait for the decision":               {[]string{"If-Match", "a", "Prefer", "return=minimal, wait=1", "X-Corp-Ticket", "1"}, true},
		"respond-async":                         {[]string{"If-Match", "a", "Prefer", "respond-async,return=minimal", "X-Corp-Ticket", "1"}, true},
		"another tool, with other wishes":       {append([]string{"User-Agent", "x", "Accept", "a/b", "Accept-Language", "de", "Client-Request-Id", "1"}, base...), true},
		"a header that does not go out":         {append([]string{"X-Other", "x"}, base...), true},
		"another If-Match":                      {[]string{"If-Match", "b", "Prefer", "return=minimal", "X-Corp-Ticket", "1"}, false},
		"no If-Match":                           {[]string{"Prefer", "return=minimal", "X-Corp-Ticket", "1"}, false},
		"another preference":                    {[]string{"If-Match", "a", "Prefer", "return=representation", "X-Corp-Ticket", "1"}, false},
		"another header that is let through":    {[]string{"If-Match", "a", "Prefer", "return=minimal", "X-Corp-Ticket", "2"}, false},
		"an OData header":                       {append([]string{"OData-MaxVersion", "4.0"}, base...), false},
		"a language of what is sent":            {append([]string{"Content-Language", "de"}, base...), false},
		"a name of a file":                      {append([]string{"Content-Disposition", "attachment"}, base...), false},
		"a header twice":                        {append([]string{"If-Match", "a"}, base...), false},
		"one value that looks like two of them": {[]string{"If-Match", "a", "Prefer", "return=minimal", "X-Corp-Ticket", "1, 2"}, false},
	} {
		id := w.isolate("m1", base...).waiting(t)
		w.decide(id, "approve", "", asLead...)
		before := w.arrivals()
		got := w.isolate("m1", append([]string{"X-Approval-Id", id}, c.header...)...)
		if c.same && (got.status != 200 || w.arrivals() != before+1) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if !c.same && (got.code() != "NotApproved" || !strings.Contains(got.message(), "its other headers") || w.arrivals() != before) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := w.isolate("m1", "Content-Encoding", strings.Repeat("x", maxKind)); got.code() != "InvalidRequest" {
		t.Errorf("a long encoding: %d %s", got.status, got.body)
	}
}
