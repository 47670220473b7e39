package proxy

import (
	"net/http"
	"runtime"
	"testing"
	"time"

	"defender-proxy/internal/approval"
	"defender-proxy/policy"
)

// held asks for a call that waits for its decision, and gives its id and its answer.
func (w *world) held(seconds string) (id string, answer <-chan *reply) {
	done := make(chan *reply, 1)
	go func() { done <- w.isolate("m1", "Prefer", "wait="+seconds) }()
	for id == "" {
		time.Sleep(time.Millisecond)
		for _, a := range w.proxy.Approval.Store.List(time.Now()) {
			id = a.ID
		}
	}
	for w.proxy.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	return id, done
}

// A call that was held is judged by what holds when it is approved.
func TestACallThatIsHeldIsJudgedAnewWhenItIsApproved(t *testing.T) {
	for _, c := range []struct {
		name   string
		allow  func(ends time.Time) []policy.Entry
		change func(*world)
		code   string
	}{
		{name: "nothing has changed", allow: func(time.Time) []policy.Entry { return policy.Entries("respond") }},
		{name: "its grant has ended", code: "NotGranted",
			allow: func(ends time.Time) []policy.Entry {
				return []policy.Entry{{Operations: []string{"respond"}, Until: ends}}
			}},
		{name: "the entry whose condition held has ended", code: "NotGranted",
			allow: func(ends time.Time) []policy.Entry {
				full, none := when(t, `request.body.IsolationType == "Full"`, "respond"), when(t, `request.body.IsolationType == "None"`, "respond")
				full.Until = ends
				return []policy.Entry{full, none}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ends := time.Now().Add(time.Second)
			w := newWorld(t, options{deps: granting(t, c.allow(ends), nil, twoPeople(t, nil))})
			id, answer := w.held("60")
			time.Sleep(time.Until(ends) + 10*time.Millisecond)
			if got := w.decide(id, "approve", "", asLead...); got.status != 200 {
				t.Fatalf("the decision: %d %s", got.status, got.body)
			}
			got := <-answer
			sent := 0
			if c.code == "" {
				sent = 1
			}
			if got.code() != c.code || w.arrivals() != sent {
				t.Errorf("got %d %s, %d arrived; want %q and %d", got.status, got.body, w.arrivals(), c.code, sent)
			}
			if a, _ := w.proxy.Approval.Store.Get(id, time.Now()); c.code != "" && a.State != approval.Approved {
				t.Errorf("it is %s although nothing was sent", a.State)
			}
		})
	}
}

// A configuration that another one has replaced sends nothing that was held.
func TestACallThatIsHeldIsNotSentByAConfigurationThatIsReplaced(t *testing.T) {
	retired := make(chan struct{})
	w := newWorld(t, options{deps: twoPeople(t, func(d *Deps) { d.Retired = retired })})
	id, answer := w.held("600")
	close(retired)
	if got := (<-answer).waiting(t); got != id {
		t.Errorf("it waits as %s, not as %s", got, id)
	}
	w.decide(id, "approve", "", asLead...)
	if got := w.isolate("m2", "Prefer", "wait=600"); got.status != 202 {
		t.Errorf("one that comes late is held: %d %s", got.status, got.body)
	}
	if n := w.arrivals(); n > 0 {
		t.Errorf("%d arrived", n)
	}
}

// A decision that was made under the next configuration is not for the old one to use,
// however close they come.
func TestAnApprovalThatComesWithAReloadIsNotUsedByTheOldConfiguration(t *testing.T) {
	retired := make(chan struct{})
	w := newWorld(t, options{deps: twoPeople(t, func(d *Deps) { d.Retired = retired })})
	id, answer := w.held("600")
	// With one processor the call that is held does not look before both are done.
	processors := runtime.GOMAXPROCS(1)
	close(retired)
	_, err := w.proxy.Approval.Store.Decide(id, true, approval.Approver{Client: "soc-leads"}, "", time.Now())
	runtime.GOMAXPROCS(processors)
	if err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got.waiting(t) != id || w.arrivals() > 0 {
		t.Errorf("got %d %s, %d arrived", got.status, got.body, w.arrivals())
	}
}

// Microsoft has seen it and said 401, and then there is no other token: whether it was
// carried out is not for the proxy to say.
func TestAnApprovalIsUsedUpByAnAnswer(t *testing.T) {
	w := newWorld(t, options{deps: twoPeople(t, nil)})
	id := w.isolate("m1").waiting(t)
	w.decide(id, "approve", "", asLead...)
	w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
		w.entra.set(func(e *entra) { e.refuses = true })
		rw.WriteHeader(http.StatusUnauthorized)
	})
	for range 2 {
		w.isolate("m1", "X-Approval-Id", id)
	}
	if v := w.do("GET", "/-/approvals/"+id, "").view(t); v.State != approval.Sent || w.arrivals() != 1 {
		t.Errorf("it is %s, and %d arrived", v.State, w.arrivals())
	}
}
