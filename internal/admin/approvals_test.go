package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
)

// ledger keeps audit lines, and can be told to fail.
type ledger struct {
	mu   sync.Mutex
	b    bytes.Buffer
	fail error
}

func (l *ledger) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return 0, l.fail
	}
	return l.b.Write(p)
}

func (l *ledger) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

// lines gives the records, each of which is as docs/audit.schema.json has it.
func (l *ledger) lines(t *testing.T) (all []map[string]any) {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile("../../docs/audit.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.b.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(m); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

const (
	leadsKey = "key-of-the-soc-leads"
	chiefKey = "key-of-the-chiefs-xx"
	otherKey = "key-of-another-group"
	socKey   = "key-of-the-analysts-x"
)

// twoPeople lets calls wait: soc-leads approve for all tenants, chiefs for fabrikam;
// soc asks.
func twoPeople(t *testing.T) (func(*side, *Sources), *approval.Store, *ledger) {
	store, records := approval.New(), &ledger{}
	return func(s *side, sources *Sources) {
		sources.Approvals, sources.Audit, sources.Address = store, audit.New(records), "127.0.0.1:8081"
		home := []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.0/8"))}
		var groups []clients.Group
		for _, g := range []struct{ name, key string }{{"soc-leads", leadsKey}, {"chiefs", chiefKey}, {"other", otherKey}, {"soc", socKey}} {
			group := clients.Group{Name: g.name, From: home}
			k, err := clients.NewKey("X-Key", g.key)
			if err != nil {
				t.Fatal(err)
			}
			group.Keys = []clients.Key{k}
			groups = append(groups, group)
		}
		s.view.Approval = &Approval{By: []string{"soc-leads", "chiefs"}, Callers: clients.New(groups), Names: []string{"soc-leads", "chiefs", "other", "soc"}}
		s.view.Groups = []Group{{Name: "soc-leads"}, {Name: "chiefs", Tenants: []string{"fabrikam"}}, {Name: "other"}, {Name: "soc"}}
		s.view.WritesNeedAudit = true
	}, store, records
}

const secretBody = `{"Comment":"ransomware","IsolationType":"Full"}`

func waitingCall(t *testing.T, store *approval.Store, client, machine string) string {
	t.Helper()
	r, err := store.Ask(approval.Call{
		Client: client, Tenant: "contoso", Operation: "machines.isolate", Method: "POST", Path: "/api/machines/" + machine + "/isolate", BodySum: sha256.Sum256([]byte(secretBody)),
	}, approval.Shown{RequestID: "r1", Class: "respond", Body: secretBody, BodyBytes: int64(len(secretBody))}, 15*time.Minute, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// post sends a decision.
func (s *side) post(path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Host, r.RemoteAddr = "127.0.0.1:8081", "127.0.0.1:5555"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8081})))
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

func TestAnApproverDecidesOnTheOperatorsListener(t *testing.T) {
	change, store, records := twoPeople(t)
	s := newSide(t, change)
	id := waitingCall(t, store, "soc", "m1")
	w := s.get("/-/approvals", "X-Key", leadsKey)
	var page approval.Page
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || len(page.Approvals) != 1 || !page.Approvals[0].May || page.Approvals[0].Body != "" || page.Client != "soc-leads" {
		t.Fatalf("got %d %s, %v", w.Code, w.Body, err)
	}
	var one approval.View
	if err := json.Unmarshal(s.get("/-/approvals/"+id, "X-Key", leadsKey).Body.Bytes(), &one); err != nil || one.Body != secretBody {
		t.Errorf("the page of one: %+v, %v", one, err)
	}
	w = s.post("/-/approvals/"+id+"/approve", "comment=seen", "X-Key", leadsKey, "User-Agent", strings.Repeat("x", 500))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"state":"approved"`) {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	a, _ := store.Get(id, time.Now())
	requestID := w.Header().Get("X-Request-Id")
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(requestID) {
		t.Errorf("the request id is %q", requestID)
	}
	if a.State != approval.Approved || a.By.Client != "soc-leads" || a.By.Listener != "127.0.0.1:8081" || a.By.RequestID != requestID || a.Comment != "seen" {
		t.Errorf("it is %+v", a)
	}
	lines := records.lines(t)
	if len(lines) != 2 {
		t.Fatalf("%d records: %v", len(lines), lines)
	}
	for i, want := range []map[string]any{
		{"event": "intent", "approval_state": "pending", "approved_by": nil, "decision": "allowed"},
		{"event": "request", "approval_state": "approved", "approved_by": "soc-leads", "approver_address": "127.0.0.1", "status": 200.0, "decision": "allowed"},
	} {
		want["request_id"], want["approval"], want["tenant"], want["client"] = requestID, id, "contoso", "soc-leads"
		want["path"], want["listener"], want["address"], want["method"] = "/-/approvals/"+id+"/approve", "127.0.0.1:8081", "127.0.0.1", "POST"
		for key, value := range want {
			if lines[i][key] != value {
				t.Errorf("record %d: %s is %v, want %v", i, key, lines[i][key], value)
			}
		}
		if n := len(lines[i]["user_agent"].(string)); n > 300 {
			t.Errorf("the User-Agent has %d bytes", n)
		}
	}
	if w := s.post("/-/approvals/"+id+"/approve", "", "X-Key", leadsKey, "Accept", "text/html", "Origin", "http://127.0.0.1:8081"); w.Code != 303 || w.Header().Get("Location") != "../../approvals" {
		t.Errorf("a form gets %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestTheOperatorsListenerMakesNobodyAnApprover(t *testing.T) {
	change, store, records := twoPeople(t)
	s := newSide(t, change)
	id, own := waitingCall(t, store, "soc", "m1"), waitingCall(t, store, "soc-leads", "m2")
	denied := waitingCall(t, store, "soc", "m3")
	if w := s.post("/-/approvals/"+denied+"/deny", "", "X-Key", leadsKey); w.Code != 200 {
		t.Fatalf("a denial: %d %s", w.Code, w.Body)
	}
	before := len(records.lines(t))
	for _, c := range []struct {
		name, path, body string
		header           []string
		status           int
		code, words      string
		recorded         bool
	}{
		{"whoever asked", id + "/approve", "", []string{"X-Key", socKey}, 403, "NotGranted", "You are client group soc", true},
		{"nobody", id + "/approve", "", nil, 403, "NotGranted", "You belong to no client group", true},
		{"another group", id + "/approve", "", []string{"X-Key", otherKey}, 403, "NotGranted", "soc-leads, chiefs", true},
		{"a group that is not for the tenant", id + "/approve", "", []string{"X-Key", chiefKey}, 403, "NotGranted", "its tenant", true},
		{"an approver for the own group", own + "/approve", "", []string{"X-Key", leadsKey}, 403, "NotApproved", "another group", true},
		{"an id of nobody", "AAAA/approve", "", []string{"X-Key", leadsKey}, 404, "NotFound", "", true},
		{"what is denied", denied + "/approve", "", []string{"X-Key", leadsKey}, 403, "NotApproved", "denied by client group soc-leads", true},
		{"a long comment", id + "/approve", "comment=" + strings.Repeat("x", 501), []string{"X-Key", leadsKey}, 400, "InvalidRequest", "500", true},
		{"a long body", id + "/approve", strings.Repeat("x", 5000), []string{"X-Key", leadsKey}, 400, "InvalidRequest", "4096", true},
		{"another verdict", id + "/maybe", "", []string{"X-Key", leadsKey}, 404, "NotFound", "", false},
		{"a page of another origin", id + "/approve", "", []string{"X-Key", leadsKey, "Origin", "http://evil.example"}, 403, "CrossSiteRequest", "", false},
		{"a page without an origin", id + "/approve", "", []string{"X-Key", leadsKey, "Origin", "null"}, 403, "CrossSiteRequest", "", false},
		{"a rebound name", id + "/approve", "", []string{"X-Key", leadsKey, "Host", "evil.example"}, 421, "HostNotAllowed", "", false},
	} {
		w := s.post("/-/approvals/"+c.path, c.body, c.header...)
		if w.Code != c.status || !strings.Contains(w.Body.String(), `"code":"`+c.code+`"`) || !strings.Contains(w.Body.String(), c.words) {
			t.Errorf("%s: got %d %s, want %d %s with %q", c.name, w.Code, w.Body, c.status, c.code, c.words)
		}
		if strings.Contains(w.Body.String(), "contoso") {
			t.Errorf("%s: it tells the tenant: %s", c.name, w.Body)
		}
		lines := records.lines(t)
		if got := lines[before:]; c.recorded {
			last := lines[len(lines)-1]
			if len(got) == 0 || last["code"] != c.code || last["decision"] != "refused" || last["event"] != "request" {
				t.Errorf("%s: the records are %v", c.name, got)
			}
		} else if len(got) > 0 {
			t.Errorf("%s: there are records: %v", c.name, got)
		}
		before = len(lines)
	}
	for _, r := range store.List(time.Now()) {
		if r.ID != denied && r.State != approval.Pending {
			t.Errorf("%s is %s", r.ID, r.State)
		}
	}
	if w := s.get("/-/approvals/" + id + "/approve"); w.Code != 405 || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d %v", w.Code, w.Header())
	}
}

// Whoever only reaches the operator's listener sees that something waits, and not
// what is in it.
func TestWhatWaitsIsShownToWhoMayDecide(t *testing.T) {
	change, store, _ := twoPeople(t)
	s := newSide(t, change)
	id := waitingCall(t, store, "soc", "m1")
	for _, c := range []struct {
		name   string
		key    string
		hidden bool
	}{
		{"an approver", leadsKey, false},
		{"whoever asked", socKey, false},
		{"nobody", "", true},
		{"an approver of another tenant", chiefKey, true},
		{"another", otherKey, true},
	} {
		for _, path := range []string{"/-/approvals", "/-/approvals/" + id, "/-/approvals?state=pending"} {
			for _, accept := range []string{"*/*", "text/html"} {
				w := s.get(path, "X-Key", c.key, "Accept", accept)
				body := w.Body.String()
				if w.Code != 200 || !strings.Contains(body, id) || !strings.Contains(body, "pending") || !strings.Contains(body, "respond") {
					t.Errorf("%s, %s as %s: %d %s", c.name, path, accept, w.Code, body)
				}
				for _, secret := range []string{"machines.isolate", "/api/machines", "contoso", "r1", ">soc<", `"soc"`, "application/json", "10.0.0.7"} {
					if strings.Contains(body, secret) && c.hidden {
						t.Errorf("%s, %s as %s: %s is in %s", c.name, path, accept, secret, body)
					}
				}
				if !c.hidden && !strings.Contains(body, "machines.isolate") || strings.Contains(body, "ransomware") == (c.hidden || !strings.HasSuffix(path, id)) {
					t.Errorf("%s, %s as %s: %s", c.name, path, accept, body)
				}
			}
		}
	}
	if w := s.get("/-/approvals?state=denied", "X-Key", leadsKey); strings.Contains(w.Body.String(), id) {
		t.Errorf("it is not denied: %s", w.Body)
	}
	if w := s.get("/-/approvals/AAAA", "X-Key", leadsKey); w.Code != 404 {
		t.Errorf("an id of nobody: %d", w.Code)
	}
}

func TestADecisionWithoutARecordIsNotMade(t *testing.T) {
	change, store, records := twoPeople(t)
	s := newSide(t, change)
	id := waitingCall(t, store, "soc", "m1")
	records.setFail(errors.New("no space left on device"))
	if w := s.post("/-/approvals/"+id+"/approve", "", "X-Key", leadsKey); w.Code != 503 || !strings.Contains(w.Body.String(), "AuditUnavailable") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if r, _ := store.Get(id, time.Now()); r.State != approval.Pending {
		t.Errorf("it is %s", r.State)
	}
	text := s.get("/metrics").Body.String()
	for _, want := range []string{"defender_proxy_audit_failing 1", `defender_proxy_audit_records_total{outcome="lost"} 2`, `defender_proxy_approvals{state="pending"} 1`, `defender_proxy_approvals{state="approved"} 0`} {
		if !strings.Contains(text, want) {
			t.Errorf("no line has %s", want)
		}
	}
	if w := s.get("/-/audit"); w.Code != 200 || !strings.Contains(w.Body.String(), "no space left on device") {
		t.Errorf("/-/audit: %d %s", w.Code, w.Body)
	}
	if w := s.get("/", "Accept", "text/html"); !strings.Contains(w.Body.String(), "no space left on device") || !strings.Contains(w.Body.String(), "1 call waits") {
		t.Errorf("the dashboard: %s", w.Body)
	}
	s.with(func(s *side) {
		view := *s.view
		view.WritesNeedAudit = false
		s.view = &view
	})
	if w := s.post("/-/approvals/"+id+"/approve", "", "X-Key", leadsKey); w.Code != 200 {
		t.Errorf("where the record may be missing: %d %s", w.Code, w.Body)
	}
}

func TestWithoutApprovalsThereIsNothingToDecide(t *testing.T) {
	change, store, _ := twoPeople(t)
	s := newSide(t, func(s *side, sources *Sources) {
		change(s, sources)
		s.view.Approval = nil
	})
	id := waitingCall(t, store, "soc", "m1")
	for _, w := range []*httptest.ResponseRecorder{s.get("/-/approvals"), s.get("/-/approvals/" + id), s.post("/-/approvals/"+id+"/approve", "", "X-Key", leadsKey)} {
		if w.Code != 404 || !strings.Contains(w.Body.String(), "approval in the proxy's configuration") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
	plain := newSide(t, nil)
	for _, path := range []string{"/-/approvals", "/-/usage", "/-/audit", "POST /-/approvals/A/approve"} {
		if w := plain.get(path); w.Code != 404 {
			t.Errorf("%s of an operator's listener without these: %d", path, w.Code)
		}
	}
}

// Whoever could be one of those who asked does not decide, and an approval is taken
// back by the same rules.
func TestWhoCouldHaveAskedDoesNotDecide(t *testing.T) {
	change, store, _ := twoPeople(t)
	s := newSide(t, func(s *side, sources *Sources) {
		change(s, sources)
		home := []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.0/8"))}
		k, err := clients.NewKey("X-Key", leadsKey)
		if err != nil {
			t.Fatal(err)
		}
		s.view.Approval = &Approval{
			By: []string{"soc-leads"}, Names: []string{"soc-leads", "soc", "others"},
			Callers: clients.New([]clients.Group{{Name: "soc-leads", From: home, Keys: []clients.Key{k}}, {Name: "soc", From: home}, {Name: "others", From: home}}),
		}
	})
	id := waitingCall(t, store, "soc", "m1")
	if w := s.post("/-/approvals/"+id+"/approve", "", "X-Key", leadsKey); w.Code != 403 || !strings.Contains(w.Body.String(), "could be one of it") {
		t.Errorf("without its key it is who asked: %d %s", w.Code, w.Body)
	}
	id = waitingCall(t, store, "others", "m1") // which nobody on loopback can be: soc comes before
	if w := s.post("/-/approvals/"+id+"/approve", "", "X-Key", leadsKey); w.Code != 200 {
		t.Errorf("approve: %d %s", w.Code, w.Body)
	}
	if w := s.get("/-/approvals/"+id, "X-Key", leadsKey); !strings.Contains(w.Body.String(), `"may_withdraw":true`) || strings.Contains(w.Body.String(), "may_decide") {
		t.Errorf("approved: %s", w.Body)
	}
	if w := s.post("/-/approvals/"+id+"/deny", "", "X-Key", leadsKey); w.Code != 200 || !strings.Contains(w.Body.String(), `"state":"denied"`) {
		t.Errorf("withdrawn: %d %s", w.Code, w.Body)
	}
	if w := s.post("/-/approvals/"+id+"/approve", "", "X-Key", leadsKey); w.Code != 403 || !strings.Contains(w.Body.String(), "denied by client group soc-leads") {
		t.Errorf("approved again: %d %s", w.Code, w.Body)
	}
}
