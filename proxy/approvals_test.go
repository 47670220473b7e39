package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/clients"
)

func TestWhoMayDecide(t *testing.T) {
	w := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}, deps: twoPeople(t, nil)})
	id := w.do("POST", "/t/contoso/api/machines/m1/isolate", isolateBody).waiting(t)
	other := w.do("POST", "/t/fabrikam/api/machines/m1/isolate", isolateBody).waiting(t)
	own := w.do("POST", "/t/contoso/api/machines/m1/isolate", isolateBody, asLead...).waiting(t)
	for _, c := range []struct {
		name, id, verdict, body string
		header                  []string
		code                    string
		words                   string
	}{
		{"whoever asked", id, "approve", "", nil, "NotGranted", "soc-leads, chiefs"},
		{"whoever asked denies", id, "deny", "", nil, "NotGranted", ""},
		{"a group that has nothing to do with it", id, "approve", "", asOther, "UnknownOperation", ""},
		{"a group that is not for the tenant", other, "approve", "", asChief, "UnknownOperation", ""},
		{"an approver for the own group", own, "approve", "", asLead, "NotApproved", "another group"},
		{"an id of nobody", "AAAA", "approve", "", asLead, "UnknownOperation", ""},
		{"a comment that is too long", id, "approve", "comment=" + strings.Repeat("x", 501), asLead, "InvalidRequest", "500"},
		{"a body that is too long", id, "approve", "comment=x&y=" + strings.Repeat("x", 5000), asLead, "RequestTooLarge", "4096"},
		{"a page of another origin", id, "approve", "", append([]string{"Origin", "https://evil.example"}, asLead...), "CrossSiteRequest", ""},
		{"a page without an origin", id, "approve", "", append([]string{"Origin", "null"}, asLead...), "CrossSiteRequest", ""},
		{"a rebound name", id, "approve", "", append([]string{"Host", "evil.example"}, asLead...), "HostNotAllowed", ""},
	} {
		if got := w.decide(c.id, c.verdict, c.body, c.header...); got.code() != c.code || !strings.Contains(got.message(), c.words) {
			t.Errorf("%s: got %d %s, want %s with %q", c.name, got.status, got.body, c.code, c.words)
		}
	}
	if got := w.do("GET", "/-/approvals/"+id+"/approve", "", asLead...); got.code() != "MethodNotAllowed" || got.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d %s %v", got.status, got.body, got.header)
	}
	for _, a := range w.proxy.Approval.Store.List(time.Now()) {
		if a.State != approval.Pending {
			t.Errorf("%s is %s by %+v", a.ID, a.State, a.By)
		}
	}
	if got := w.decide(own, "approve", "", asChief...).view(t); got.State != approval.Approved {
		t.Errorf("another group approves for the first: %+v", got)
	}
	if got := w.do("POST", "/-/approvals/"+id+"/deny", `{"comment":"wrong machine"}`, append([]string{"Content-Type", "application/json; charset=utf-8"}, asChief...)...).view(t); got.State != approval.Denied || got.Comment != "wrong machine" {
		t.Errorf("denied: %+v", got)
	}
	if got := w.decide(id, "deny", "", asChief...).view(t); got.State != approval.Denied {
		t.Errorf("the same once more: %+v", got)
	}
	for name, got := range map[string]*reply{"changed": w.decide(id, "approve", "", asChief...), "by another": w.decide(id, "deny", "", asLead...)} {
		if got.code() != "NotApproved" || !strings.Contains(got.message(), "denied by client group chiefs") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := w.do("POST", "/t/contoso/api/machines/m1/isolate", isolateBody, "X-Approval-Id", id); got.code() != "NotApproved" || !strings.Contains(got.message(), "chiefs denied it") || !strings.Contains(got.message(), "wrong machine") {
		t.Errorf("what was denied is answered %d %s", got.status, got.body)
	}
	if n := w.arrivals(); n > 0 {
		t.Errorf("%d requests went out", n)
	}
}

func TestWhoSeesWhat(t *testing.T) {
	w := newWorld(t, options{tenants: []string{"contoso", "fabrikam"}, deps: twoPeople(t, nil)})
	contoso := w.do("POST", "/t/contoso/api/machines/m1/isolate", isolateBody).waiting(t)
	fabrikam := w.do("POST", "/t/fabrikam/api/machines/m1/isolate", isolateBody).waiting(t)
	others := w.do("POST", "/t/contoso/api/machines/m2/isolate", isolateBody, asOther...).waiting(t)
	w.decide(contoso, "deny", "", asLead...)
	all := []string{others, fabrikam, contoso} // newest first
	for _, c := range []struct {
		name, target string
		header       []string
		want, may    []string
	}{
		{"an approver of all tenants", "/-/approvals", asLead, all, []string{others, fabrikam}},
		{"an approver of one tenant", "/-/approvals", asChief, []string{others, contoso}, []string{others}},
		{"whoever asked", "/-/approvals", nil, []string{fabrikam, contoso}, nil},
		{"another who asked", "/-/approvals", asOther, []string{others}, nil},
		{"what still waits", "/-/approvals?state=pending", asLead, []string{others, fabrikam}, []string{others, fabrikam}},
		{"one tenant's", "/t/fabrikam/-/approvals", asLead, []string{fabrikam}, []string{fabrikam}},
	} {
		got := w.do("GET", c.target, "", c.header...)
		var page approval.Page
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || got.status != 200 {
			t.Fatalf("%s: %d %s, %v", c.name, got.status, got.body, err)
		}
		var ids, may []string
		for _, v := range page.Approvals {
			ids = append(ids, v.ID)
			if v.May {
				may = append(may, v.ID)
			}
		}
		if !slices.Equal(ids, c.want) || !slices.Equal(may, c.may) {
			t.Errorf("%s: sees %v and may %v, want %v and %v", c.name, ids, may, c.want, c.may)
		}
		for _, id := range all {
			one := w.do("GET", strings.Split(c.target, "?")[0]+"/"+id, "", c.header...)
			if seen := slices.Contains(c.want, id) || strings.Contains(c.target, "state"); seen != (one.status == 200) {
				t.Errorf("%s: %s alone gives %d", c.name, id, one.status)
			}
		}
	}
	if got := w.do("GET", "/t/nobody/-/approvals", "", asLead...); got.code() != "UnknownTenant" {
		t.Errorf("a tenant of nobody: %d %s", got.status, got.body)
	}
	html := w.do("GET", "/-/approvals", "", append([]string{"Accept", "text/html"}, asLead...)...)
	if !strings.HasPrefix(html.header.Get("Content-Type"), "text/html") || !strings.Contains(html.body, `href="approvals/`+others+`"`) || strings.Contains(html.body, "<form") {
		t.Errorf("a browser gets %v %s", html.header, html.body)
	}
	one := w.do("GET", "/-/approvals/"+others, "", append([]string{"Accept", "text/html"}, asLead...)...)
	if !strings.Contains(one.body, `action="`+others+`/approve"`) || !strings.Contains(one.body, `href="../approvals"`) {
		t.Errorf("a browser gets %s", one.body)
	}
	back := w.decide(others, "approve", "comment=", append([]string{"Accept", "text/html", "Origin", w.server.URL, "Sec-Fetch-Site", "same-origin"}, asLead...)...)
	if back.status != 303 || back.header.Get("Location") != "../../approvals" {
		t.Errorf("a form gives %d %v", back.status, back.header)
	}
}

func TestWithoutApprovalsThereAreNoPagesOfThem(t *testing.T) {
	w := newWorld(t, options{})
	for _, got := range []*reply{w.do("GET", "/-/approvals", ""), w.do("GET", "/-/approvals/A", ""), w.do("POST", "/-/approvals/A/approve", "")} {
		if got.code() != "UnknownOperation" || !strings.Contains(got.message(), "approval") {
			t.Errorf("got %d %s", got.status, got.body)
		}
	}
	if got := w.isolate("m1", "X-Approval-Id", "A"); got.status != 200 {
		t.Errorf("a call that need not wait: %d %s", got.status, got.body)
	}
}

func TestADecisionWithoutARecordIsNotMade(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	id := w.isolate("m1").waiting(t)
	w.lines(1)
	w.records.setFail(errors.New("disk full"))
	if got := w.decide(id, "approve", "", asLead...); got.code() != "AuditUnavailable" || !strings.Contains(got.message(), "decision is not made") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if a, _ := w.proxy.Approval.Store.Get(id, time.Now()); a.State != approval.Pending {
		t.Errorf("it is %s", a.State)
	}
	w.proxy.WritesNeedAudit = false
	if got := w.decide(id, "approve", "", asLead...).view(t); got.State != approval.Approved {
		t.Errorf("where the record may be missing: %+v", got)
	}
	w.records.setFail(nil)
}

func TestAPageWaitsForTheDecision(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	id := w.isolate("m1").waiting(t)
	var asked sync.WaitGroup
	asked.Go(func() {
		if v := w.do("GET", "/-/approvals/"+id+"?wait=60", "").view(t); v.State != approval.Approved {
			t.Errorf("got %+v", v)
		}
	})
	for w.proxy.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	w.decide(id, "approve", "", asLead...)
	asked.Wait()
	if v := w.do("GET", "/-/approvals/"+id+"?wait=60", "").view(t); v.State != approval.Approved {
		t.Errorf("what is decided: %+v", v)
	}
}

// An approval by a caller with an address that is in no group is no approval.
func TestAStrangerApprovesNothing(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	id := w.isolate("m1").waiting(t)
	for i := range w.proxy.Clients {
		w.proxy.Clients[i].From = []clients.Source{clients.Addresses(netip.MustParsePrefix("10.0.0.0/8"))}
	}
	h, err := w.proxy.Handler(Listener{Address: "127.0.0.1:8080"})
	if err != nil {
		t.Fatal(err)
	}
	w.server.Config.Handler = h
	if got := w.decide(id, "approve", "", asLead...); got.code() != "ClientNotAdmitted" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// askAt sends a request to a listener of its own.
func (w *world) askAt(l Listener, method, target, body string, header ...string) *reply {
	w.t.Helper()
	h, err := w.proxy.Handler(l)
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	was := w.server
	w.server = server
	defer func() { w.server = was }()
	return w.do(method, target, body, header...)
}

// One caller is not two people because two listeners have other groups, nor because it
// can leave its key out.
func TestOneCallerIsNotTwoPeople(t *testing.T) {
	near := func(d *Deps, name string) Client {
		return Client{Name: name, From: []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.0/8"))}, Grants: d.Clients[0].Grants}
	}
	lead := Listener{Address: "127.0.0.1:8082", Clients: []string{"soc-leads"}}
	soc := Listener{Address: "127.0.0.1:8083", Clients: []string{"soc"}}
	all := Listener{Address: "127.0.0.1:8084"}
	for _, c := range []struct {
		name      string
		groups    func(*Deps) []Client
		ask, by   Listener
		askAs, as []string
		code      string
		words     string
	}{
		{name: "the group that approves comes behind, and has a listener of its own",
			groups: func(d *Deps) []Client { return []Client{near(d, "soc"), near(d, "soc-leads")} },
			ask:    all, by: lead, askAs: []string{"X-Key", ""}, as: []string{"X-Key", ""}, code: "NotGranted", words: "the first group of clients that fits you is soc"},
		{name: "the group that asks comes behind, and has a listener of its own",
			groups: func(d *Deps) []Client { return []Client{near(d, "soc-leads"), near(d, "soc")} },
			ask:    soc, by: all, askAs: []string{"X-Key", ""}, as: []string{"X-Key", ""}, code: "NotApproved", words: "could be one of it"},
		{name: "the key is left out for the asking",
			groups: func(d *Deps) []Client { return []Client{keyed(t, near(d, "soc-leads"), leadsKey), near(d, "soc")} },
			ask:    all, by: all, askAs: []string{"X-Key", ""}, as: asLead, code: "NotApproved", words: "without your certificate or key"},
		{name: "the key is left out, and a third group comes between",
			groups: func(d *Deps) []Client {
				return []Client{keyed(t, near(d, "soc-leads"), leadsKey), near(d, "third"), near(d, "soc")}
			},
			ask: soc, by: all, askAs: []string{"X-Key", ""}, as: asLead, code: "NotApproved", words: "could be one of it"},
		{name: "each has a key",
			groups: func(d *Deps) []Client {
				return []Client{keyed(t, near(d, "soc-leads"), leadsKey), keyed(t, near(d, "soc"), analystsKey)}
			},
			ask: all, by: lead, askAs: []string{"X-Key", analystsKey}, as: asLead},
		{name: "those who ask have a key and those who approve have none",
			groups: func(d *Deps) []Client { return []Client{keyed(t, near(d, "soc"), analystsKey), near(d, "soc-leads")} },
			ask:    all, by: all, askAs: []string{"X-Key", analystsKey}, as: []string{"X-Key", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{deps: twoPeople(t, func(d *Deps) {
				d.Clients = c.groups(d)
				d.Approval.By = []string{"soc-leads"}
			})})
			id := w.askAt(c.ask, "POST", isolatePath, isolateBody, append([]string{"Content-Type", "application/json"}, c.askAs...)...).waiting(t)
			page := w.askAt(c.by, "GET", "/-/approvals/"+id, "", c.as...).view(t)
			got := w.askAt(c.by, "POST", "/-/approvals/"+id+"/approve", "", c.as...)
			if got.code() != c.code || !strings.Contains(got.message(), c.words) || page.May != (c.code == "") || got.status == 200 != (c.code == "") {
				t.Errorf("got %d %s, and may %v; want %q with %q", got.status, got.body, page.May, c.code, c.words)
			}
			if again := w.askAt(c.ask, "POST", isolatePath, isolateBody, append([]string{"Content-Type", "application/json", "X-Approval-Id", id}, c.askAs...)...); again.status == 200 != (c.code == "") {
				t.Errorf("the call: %d %s", again.status, again.body)
			}
		})
	}
}

// The group that asked counts as well as the one that the caller fitted first: what a
// group is may have changed since.
func TestWhoCouldBeOfTheGroupThatAskedDoesNotDecide(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, func(d *Deps) {
		d.Clients[0].Keys, d.Clients[3].Keys = keyed(t, Client{}, leadsKey).Keys, nil // soc-leads and local
	})})
	lead := &Exchange{Client: &w.proxy.Clients[0], Caller: clients.Caller{Addr: netip.MustParseAddr("127.0.0.1"), Header: http.Header{"X-Key": {leadsKey}}}}
	for _, c := range []struct {
		client, caller string
		may            bool
	}{
		{"local", "gone", false}, {"gone", "local", false}, {"local", "local", false}, {"gone", "gone", true}, {"gone", "soc-leads", false}, {"other", "other", true},
	} {
		err := w.proxy.mayDecide(lead, approval.Request{Call: approval.Call{Client: c.client, Caller: c.caller, Tenant: "contoso"}})
		if err == nil != c.may {
			t.Errorf("asked by %s, a caller of %s: %v", c.client, c.caller, err)
		}
	}
}

// An approval can be taken back until the call is sent; what is over is not decided
// again, by nobody.
func TestAnApprovalCanBeWithdrawnUntilTheCallIsSent(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	id := w.isolate("m1").waiting(t)
	w.decide(id, "approve", "", asLead...)
	if got := w.decide(id, "approve", "", asLead...).view(t); got.State != approval.Approved || got.May || !got.Withdraw {
		t.Errorf("the same once more: %+v", got)
	}
	if got := w.decide(id, "approve", "", asChief...); got.code() != "NotApproved" {
		t.Errorf("another one's approval: %d %s", got.status, got.body)
	}
	if got := w.decide(id, "deny", ""); got.code() != "NotGranted" {
		t.Errorf("whoever asked: %d %s", got.status, got.body)
	}
	denied := w.decide(id, "deny", "comment=wrong+machine", asChief...)
	if got := denied.view(t); got.State != approval.Denied || got.DecidedBy != "chiefs" {
		t.Errorf("withdrawn: %+v", got)
	}
	records := w.recordsOf(denied)
	if len(records) != 2 || records[0]["event"] != "intent" || records[1]["approval_state"] != "denied" || records[1]["approved_by"] != "chiefs" {
		t.Errorf("the records are %v", records)
	}
	if got := w.isolate("m1", "X-Approval-Id", id); got.code() != "NotApproved" || !strings.Contains(got.message(), "chiefs denied it") || w.arrivals() > 0 {
		t.Errorf("the call: %d %s", got.status, got.body)
	}

	id = w.isolate("m1").waiting(t)
	w.decide(id, "approve", "", asLead...)
	w.isolate("m1", "X-Approval-Id", id)
	for _, verdict := range []string{"approve", "deny"} {
		if got := w.decide(id, verdict, "", asLead...); got.code() != "NotApproved" || !strings.Contains(got.message(), "sent already") {
			t.Errorf("%s of what is sent: %d %s", verdict, got.status, got.body)
		}
	}

	w.proxy.Approval.Within = 50 * time.Millisecond
	id = w.isolate("m2").waiting(t)
	if got := w.decide(id, "approve", "", asLead...); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	for {
		if a, _ := w.proxy.Approval.Store.Get(id, time.Now()); a.State == approval.Expired {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for _, verdict := range []string{"approve", "deny"} {
		if got := w.decide(id, verdict, "", asLead...); got.code() != "NotApproved" || !strings.Contains(got.message(), "has expired before it was sent") {
			t.Errorf("%s of what is over: %d %s", verdict, got.status, got.body)
		}
	}
}

func TestWhoMayNotDecideIsToldWhyItIsTakenForThat(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	id := w.isolate("m1").waiting(t)
	got := w.decide(id, "approve", "")
	for _, want := range []string{"client group local", "127.0.0.1 with a key", "soc-leads, chiefs", "The first group of clients that fits", "/-/whoami"} {
		if !strings.Contains(got.message(), want) {
			t.Errorf("%q is not in %s", want, got.message())
		}
	}
	if strings.Contains(got.message(), "approval.by") {
		t.Errorf("it advises to open the lock: %s", got.message())
	}
}

func TestAListOfApprovalsHasNoBodies(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	for i := range approval.MaxRows + 5 {
		w.do("POST", fmt.Sprintf("/api/machines/%d/isolate", i), `{"Comment":"ransomware`+strings.Repeat("x", 2000)+`"}`, "Content-Type", "application/json").waiting(t)
	}
	for _, as := range [][]string{asLead, nil} {
		got := w.do("GET", "/-/approvals?state=pending", "", as...)
		var page approval.Page
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || len(page.Approvals) != approval.MaxRows || page.More != 5 || len(got.body) > 100<<10 || strings.Contains(got.body, "ransomware") {
			t.Errorf("%d rows and %d more in %d bytes, %v", len(page.Approvals), page.More, len(got.body), err)
		}
		rest := w.do("GET", "/-/approvals"+page.Next, "", as...)
		page = approval.Page{}
		if err := json.Unmarshal([]byte(rest.body), &page); err != nil || len(page.Approvals) != 5 || page.More != 0 || page.Next != "" {
			t.Errorf("%d rows and %d more: %s, %v", len(page.Approvals), page.More, rest.body, err)
		}
	}
}
