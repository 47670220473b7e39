package integration

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

const (
	analystKey = "a-key-of-the-analysts"
	leadKey    = "a-key-of-the-soc-leads"
)

// localKey gives what the configuration holds of a local key: its hash.
func localKey(key string) object {
	return object{"X-Api-Key": fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(key)))}
}

// twoPeople lets everything that responds wait for the soc leads. Both groups are on
// this machine and told apart by a key; whoever has none reads.
func twoPeople(within string) setup {
	return setup{
		permissions: map[string][]string{"mde": {"Machine.Isolate"}},
		config: func(c object) {
			home := []string{"127.0.0.0/8", "::1/128"}
			c["clients"] = []object{
				{"name": "analysts", "from": home, "headers": localKey(analystKey), "allow": []string{"read", "respond"}},
				{"name": "soc-leads", "from": home, "headers": localKey(leadKey), "allow": []string{"read"}},
				{"name": "others", "from": home, "allow": []string{"read"}},
			}
			c["approval"] = object{"operations": []string{"respond.*"}, "by": []string{"soc-leads"}, "within": within}
			inRegions(c, "eu")
		},
	}
}

// approvals are the fields of an approval that a script would look at.
type approvals struct {
	ID, State, Client, Tenant, Operation, Body, Comment string
	DecidedBy                                           string `json:"decided_by"`
	May                                                 bool   `json:"may_decide"`
}

func (a answer) approval(t *testing.T) (one approvals) {
	t.Helper()
	if err := json.Unmarshal(a.body, &one); err != nil || a.status != http.StatusOK {
		t.Fatalf("the answer is no approval: %v: %v", err, a)
	}
	return one
}

// An analyst asks for a machine to be isolated, and gets 202 with an id: nothing has
// left the proxy. A soc lead reads what was asked for and approves it. The analyst's
// script repeats the call with the id, and the machine is isolated, once, whoever
// repeats it how often. Both people are in the records.
func TestTwoPeopleIsolateAMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoPeople("15m"))
	machine := w.sim.MachineID()
	path := "/api/machines/" + machine + "/isolate"
	const body = `{"Comment":"ransomware on this host","IsolationType":"Full"}`
	isolate := func(header ...string) answer {
		return w.do(http.MethodPost, path, body, append([]string{"X-Api-Key", analystKey, "Content-Type", "application/json"}, header...)...)
	}
	if a := w.do(http.MethodPost, path, body); a.status != http.StatusForbidden {
		t.Errorf("somebody without a key: %v", a)
	}
	asked := isolate()
	id := asked.header.Get("X-Approval-Id")
	if asked.status != http.StatusAccepted || id == "" || asked.ours() || asked.header.Get("Location") != w.url+"/-/approvals/"+id {
		t.Fatalf("the call: %v", asked)
	}
	if a := isolate("X-Approval-Id", id); a.status != http.StatusAccepted || a.header.Get("X-Approval-Id") != id {
		t.Errorf("repeated too early: %v", a)
	}
	if n := w.arrivals(http.MethodPost, path); len(n) > 0 {
		t.Fatalf("%d calls went out unapproved", len(n))
	}

	// The analyst's script waits for the decision, as the answer told it.
	decided := make(chan answer, 1)
	go func() { decided <- w.get(asked.header.Get("Location")+"?wait=25", "X-Api-Key", analystKey) }()
	lead := []string{"X-Api-Key", leadKey}
	if a := w.do(http.MethodPost, "/-/approvals/"+id+"/approve", "", "X-Api-Key", analystKey); a.status != http.StatusForbidden {
		t.Errorf("the analyst approves: %v", a)
	}
	if seen := w.get("/-/approvals/"+id, lead...).approval(t); !seen.May || seen.Body != body || seen.Client != "analysts" || seen.Operation != "machines.isolate" || seen.State != "pending" {
		t.Errorf("the soc lead sees %+v", seen)
	}
	verdict := w.do(http.MethodPost, "/-/approvals/"+id+"/approve", "comment=alert+4711", append(lead, "Content-Type", "application/x-www-form-urlencoded")...)
	if got := verdict.approval(t); got.State != "approved" || got.DecidedBy != "soc-leads" {
		t.Fatalf("the soc lead approves: %v", verdict)
	}
	if got := (<-decided).approval(t); got.State != "approved" || got.Comment != "alert 4711" {
		t.Errorf("the analyst is told %+v", got)
	}

	answers := make(chan answer, 6)
	for range cap(answers) {
		go func() { answers <- isolate("X-Approval-Id", id) }()
	}
	sent := answer{}
	for range cap(answers) {
		a := <-answers
		if code, _ := a.refused(); a.status == http.StatusCreated && !a.ours() && sent.status == 0 {
			sent = a
		} else if code != "NotApproved" {
			t.Errorf("another repetition: %v", a)
		}
	}
	if n := w.arrivals(http.MethodPost, path); len(n) != 1 || sent.status == 0 || n[0].Header.Get("X-Approval-Id") != "" || n[0].Header.Get("X-Api-Key") != "" || n[0].BodyBytes != int64(len(body)) {
		t.Fatalf("arrived: %+v", n)
	}

	// The records, as somebody reads them who asks a year later who did it.
	type approved struct {
		record
		Approval   string
		State      string `json:"approval_state"`
		ApprovedBy string `json:"approved_by"`
	}
	recordsOf := func(a answer) (all []approved) {
		for _, r := range w.recordsOf(a) {
			for line := range strings.Lines(w.stdout.String()) {
				var full approved
				if json.Unmarshal([]byte(line), &full) == nil && full.RequestID == r.RequestID && full.Event == r.Event {
					all = append(all, full)
				}
			}
		}
		return all
	}
	for _, want := range []struct {
		what                    string
		of                      answer
		events, client, by, end string
	}{
		{"the question", asked, "request", "analysts", "", "pending"},
		{"the decision", verdict, "intent request", "soc-leads", "soc-leads", "approved"},
		{"the call", sent, "intent request", "analysts", "soc-leads", "sent"},
	} {
		var events []string
		var last approved
		for _, r := range recordsOf(want.of) {
			events = append(events, r.Event)
			last = r
		}
		if strings.Join(events, " ") != want.events || last.Client != want.client || last.Approval != id || last.State != want.end || last.ApprovedBy != want.by || last.Tenant != "contoso" {
			t.Errorf("the records of %s are %v, the last %+v; want %+v", want.what, events, last, want)
		}
	}
}

// A legacy tool knows nothing of ids, but can wait: it sends Prefer: wait, and has
// Microsoft's answer as soon as a soc lead, who uses the operator's page, approves.
// Reaching that page makes nobody a soc lead.
func TestACallWaitsForTheOperatorsPage(t *testing.T) {
	t.Parallel()
	s := twoPeople("15m")
	usual := s.config
	s.config = func(c object) {
		usual(c)
		c["limits"] = object{"read_header_timeout": "1s", "idle_timeout": "1s"} // none of which is for a call that waits
	}
	w := newWorld(t, s)
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	served := make(chan answer, 1)
	go func() {
		served <- w.do(http.MethodPost, path, `{"Comment":"c","IsolationType":"Full"}`, "X-Api-Key", analystKey, "Content-Type", "application/json", "Prefer", "wait=25")
	}()
	var waiting struct{ Approvals []approvals }
	w.eventually("the call waits", func() error {
		a := w.get(w.admin+"/-/approvals?state=pending", "X-Api-Key", leadKey)
		if err := json.Unmarshal(a.body, &waiting); err != nil || len(waiting.Approvals) != 1 {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	id := waiting.Approvals[0].ID
	for name, header := range map[string][]string{"nobody": nil, "the analyst": {"X-Api-Key", analystKey}, "a page of another origin": {"X-Api-Key", leadKey, "Origin", "https://evil.example"}} {
		if a := w.do(http.MethodPost, w.admin+"/-/approvals/"+id+"/approve", "", header...); a.status != http.StatusForbidden {
			t.Errorf("%s approves on the operator's page: %v", name, a)
		}
	}
	if a := w.get(w.admin + "/-/approvals"); a.status != http.StatusOK || strings.Contains(string(a.body), "IsolationType") {
		t.Errorf("whoever reaches the page sees what was asked: %v", a)
	}
	html := w.get(w.admin+"/-/approvals/"+id, "X-Api-Key", leadKey, "Accept", "text/html")
	if !strings.Contains(string(html.body), `action="`+id+`/approve"`) || !strings.Contains(html.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("the page for browsers: %v", html)
	}
	if n := w.arrivals(http.MethodPost, path); len(n) > 0 {
		t.Fatalf("%d calls went out unapproved", len(n))
	}
	time.Sleep(1500 * time.Millisecond)
	// Another one, who waits too, gives up: that is seen at once.
	left, giveUp := context.WithCancel(context.Background())
	go func() {
		_, _ = ask(left, http.MethodPost, w.url+"/api/machines/m2/isolate", "{}", "X-Api-Key", analystKey, "Prefer", "wait=25")
	}()
	w.eventually("the other call waits", func() error {
		if n := w.metrics()[`defender_proxy_approvals{state="pending"}`]; n != 2 {
			return fmt.Errorf("%v wait", n)
		}
		return nil
	})
	giveUp()
	w.eventually("who left is not waited with", func() error {
		for _, r := range records(t, w.stdout.bytes()) {
			if r.Code == "ClientGone" && r.Path == "/api/machines/m2/isolate" {
				return nil
			}
		}
		return errors.New("there is no record")
	})
	form := w.do(http.MethodPost, w.admin+"/-/approvals/"+id+"/approve", "comment=", "X-Api-Key", leadKey, "Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html", "Origin", w.admin, "Sec-Fetch-Site", "same-origin")
	if form.status != http.StatusSeeOther {
		t.Errorf("the form: %v", form)
	}
	if a := <-served; a.status != http.StatusCreated || a.ours() {
		t.Errorf("the tool gets %v", a)
	}
	if n := w.arrivals(http.MethodPost, path); len(n) != 1 {
		t.Errorf("%d calls arrived", len(n))
	}
	decision := w.recordsOf(form)
	if last := decision[len(decision)-1]; last.Client != "soc-leads" || last.Event != "request" || last.Status != http.StatusSeeOther {
		t.Errorf("the records of the decision are %+v", decision)
	}
}

// Nobody decides, and the time is over; a soc lead says no; the configuration is
// read again in between. Nothing goes out, and what is approved survives the reload.
func TestWhatIsNotApprovedIsNotSent(t *testing.T) {
	t.Parallel()
	s := twoPeople("2s")
	w := newWorld(t, s)
	isolate := func(machine string, header ...string) answer {
		return w.do(http.MethodPost, "/api/machines/"+machine+"/isolate", `{"Comment":"c","IsolationType":"Full"}`, append([]string{"X-Api-Key", analystKey}, header...)...)
	}
	late := isolate("m1").header.Get("X-Approval-Id")
	w.eventually("it expires", func() error {
		if a := w.get("/-/approvals/"+late, "X-Api-Key", analystKey); a.approval(t).State != "expired" {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if a := w.do(http.MethodPost, "/-/approvals/"+late+"/approve", "", "X-Api-Key", leadKey); a.status != http.StatusForbidden {
		t.Errorf("approved too late: %v", a)
	}
	if code, message := isolate("m1", "X-Approval-Id", late).refused(); code != "NotApproved" || !strings.Contains(message, "expired") {
		t.Errorf("repeated too late: %s %s", code, message)
	}

	c := w.configuration()
	s.config(c)
	c["approval"].(object)["within"] = "10m"
	w.configure(c)
	reload := func() {
		t.Helper()
		if a := w.do(http.MethodPost, w.admin+"/-/reload", ""); a.status != http.StatusOK {
			t.Fatalf("the reload: %v", a)
		}
	}
	reload()
	no, yes := isolate("m2").header.Get("X-Approval-Id"), isolate(w.sim.MachineID()).header.Get("X-Approval-Id")
	if a := w.do(http.MethodPost, "/-/approvals/"+no+"/deny", `{"comment":"wrong machine"}`, "X-Api-Key", leadKey, "Content-Type", "application/json"); a.approval(t).State != "denied" {
		t.Errorf("the denial: %v", a)
	}
	if code, message := isolate("m2", "X-Approval-Id", no).refused(); code != "NotApproved" || !strings.Contains(message, "wrong machine") {
		t.Errorf("denied, it is answered %s %s", code, message)
	}
	w.do(http.MethodPost, "/-/approvals/"+yes+"/approve", "", "X-Api-Key", leadKey)
	if n := len(w.upstream()); n > 0 {
		t.Fatalf("%d calls went out unapproved", n)
	}
	c["approval"].(object)["within"] = "11m"
	w.configure(c)
	reload()
	if a := isolate(w.sim.MachineID(), "X-Approval-Id", yes); a.status != http.StatusCreated {
		t.Errorf("approved before the reload: %v", a)
	}
	m := w.metrics()
	if m[`defender_proxy_approvals{state="pending"}`] != 0 || m[`defender_proxy_refusals_total{reason="NotApproved"}`] < 2 {
		t.Errorf("the metrics: %v pending, %v refused", m[`defender_proxy_approvals{state="pending"}`], m[`defender_proxy_refusals_total{reason="NotApproved"}`])
	}
}

// The approval is for a call that never leaves: the region is away. It stays good,
// and once the region is back the same call is sent with it.
func TestAnApprovalOutlastsAnOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoPeople("15m"))
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	isolate := func(header ...string) answer {
		return w.do(http.MethodPost, path, `{"Comment":"c","IsolationType":"Full"}`, append([]string{"X-Api-Key", analystKey}, header...)...)
	}
	id := isolate().header.Get("X-Approval-Id")
	w.do(http.MethodPost, "/-/approvals/"+id+"/approve", "", "X-Api-Key", leadKey)
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
		t.Fatal(err)
	}
	// A kept connection that has not been noticed to be dead takes a write, and then
	// nobody knows whether it arrived.
	w.eventually("the outage is noticed", func() error {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusBadGateway {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if a := isolate("X-Approval-Id", id); a.status != http.StatusBadGateway && a.status != http.StatusGatewayTimeout {
		t.Errorf("during the outage: %v", a)
	}
	if got := w.get("/-/approvals/"+id, "X-Api-Key", analystKey).approval(t); got.State != "approved" {
		t.Fatalf("it is %+v", got)
	}
	if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is sent", func() error {
		if a := isolate("X-Approval-Id", id); a.status != http.StatusCreated {
			time.Sleep(100 * time.Millisecond)
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if n := w.arrivals(http.MethodPost, path); len(n) != 1 {
		t.Errorf("%d calls arrived", len(n))
	}
}
