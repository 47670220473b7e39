package approval

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	lead  = Approver{Client: "leads", RequestID: "r2", Listener: "127.0.0.1:8080"}
)

func isolate(machine string) Call {
	return Call{
		Client: "soc", Tenant: "contoso", Operation: "machines.isolate", Method: "POST", Path: "/api/machines/" + machine + "/isolate",
		ContentType: "application/json", BodySum: sha256.Sum256([]byte(`{"Comment":"x","IsolationType":"Full"}`)),
	}
}

const within = 15 * time.Minute

// ask asks and fails the test when that is refused.
func ask(t *testing.T, s *Store, c Call, now time.Time) Request {
	t.Helper()
	r, err := s.Ask(c, Shown{RequestID: "r1"}, within, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A call that is approved is sent once, in its time, and only as it was approved.
func TestTheLifeOfAnApproval(t *testing.T) {
	type step struct {
		at   time.Duration
		do   func(*Store, Request, time.Time) error
		want error
	}
	decide := func(approve bool, by Approver) func(*Store, Request, time.Time) error {
		return func(s *Store, r Request, now time.Time) error {
			_, err := s.Decide(r.ID, approve, by, "", now)
			return err
		}
	}
	take := func(change func(*Call)) func(*Store, Request, time.Time) error {
		return func(s *Store, r Request, now time.Time) error {
			c := r.Call
			change(&c)
			_, err := s.Take(r.ID, c, now)
			return err
		}
	}
	same := take(func(*Call) {})
	giveBack := func(s *Store, r Request, _ time.Time) error { s.GiveBack(r.ID); return nil }
	for _, c := range []struct {
		name  string
		steps []step
		end   State
	}{
		{"approved and repeated, it is sent", []step{{1, decide(true, lead), nil}, {2, same, nil}}, Sent},
		{"it is sent once", []step{{1, decide(true, lead), nil}, {2, same, nil}, {3, same, ErrSentOnce}}, Sent},
		{"nobody decides", []step{{1, same, ErrWaiting}, {within, same, ErrExpired}}, Expired},
		{"a moment before its end it can be decided", []step{{within - 1, decide(true, lead), nil}}, Approved},
		{"at its end it cannot", []step{{within, decide(true, lead), ErrOver}}, Expired},
		{"the time for repeating begins with the decision", []step{{within - 1, decide(true, lead), nil}, {2*within - 2, same, nil}}, Sent},
		{"approved and not repeated in time", []step{{1, decide(true, lead), nil}, {1 + within, same, ErrExpired}}, Expired},
		{"denied", []step{{1, decide(false, lead), nil}, {2, same, ErrDenied}}, Denied},
		{"what was denied stays so", []step{{1, decide(false, lead), nil}, {2, decide(true, lead), ErrOver}, {2, decide(true, Approver{Client: "chiefs"}), ErrOver}}, Denied},
		{"what was approved is not approved again", []step{{1, decide(true, lead), nil}, {2, decide(true, Approver{Client: "chiefs"}), ErrOver}}, Approved},
		{"an approval is withdrawn", []step{{1, decide(true, lead), nil}, {2, decide(false, lead), nil}, {3, same, ErrDenied}}, Denied},
		{"another group withdraws it", []step{{1, decide(true, lead), nil}, {2, decide(false, Approver{Client: "chiefs"}), nil}, {3, same, ErrDenied}}, Denied},
		{"whoever asked does not withdraw it", []step{{1, decide(true, lead), nil}, {2, decide(false, Approver{Client: "soc"}), ErrSame}}, Approved},
		{"what is sent is not withdrawn", []step{{1, decide(true, lead), nil}, {2, same, nil}, {3, decide(false, lead), ErrOver}}, Sent},
		{"what has expired is not withdrawn", []step{{1, decide(true, lead), nil}, {1 + within, decide(false, lead), ErrOver}}, Expired},
		{"the same tenant's name for another directory", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.TenantID = "x" }), ErrOther}}, Approved},
		{"the same tenant's name in another cloud", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.Cloud = "gov" }), ErrOther}}, Approved},
		{"another caller of the group", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.Caller = "x" }), ErrOther}}, Approved},
		{"other headers", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.HeaderSum[0]++ }), ErrOther}}, Approved},
		{"whoever asked cannot approve", []step{{1, decide(true, Approver{Client: "soc"}), ErrSame}}, Pending},
		{"nor deny", []step{{1, decide(false, Approver{Client: "soc"}), ErrSame}}, Pending},
		{"nothing was sent, so it is approved still", []step{{1, decide(true, lead), nil}, {2, same, nil}, {3, giveBack, nil}, {4, same, nil}, {5, same, ErrSentOnce}}, Sent},
		{"what is given back ends when it would have", []step{{1, decide(true, lead), nil}, {2, same, nil}, {3, giveBack, nil}, {1 + within, same, ErrExpired}}, Expired},
		{"what was not taken cannot be given back", []step{{1, giveBack, nil}, {2, same, ErrWaiting}}, Pending},
		{"a denial cannot be given back", []step{{1, decide(false, lead), nil}, {2, giveBack, nil}, {3, same, ErrDenied}}, Denied},
		{"another group", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.Client = "other" }), ErrUnknown}}, Approved},
		{"another tenant", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.Tenant = "fabrikam" }), ErrOther}}, Approved},
		{"another operation", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.Operation = "machines.offboard" }), ErrOther}}, Approved},
		{"another method", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.Method = "DELETE" }), ErrOther}}, Approved},
		{"another machine", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.Path = "/api/machines/2/isolate" }), ErrOther}}, Approved},
		{"another query", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.Query = "a=b" }), ErrOther}}, Approved},
		{"another type of body", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.ContentType = "text/plain" }), ErrOther}}, Approved},
		{"another encoding of it", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.ContentEncoding = "gzip" }), ErrOther}}, Approved},
		{"another body", []step{{1, decide(true, lead), nil}, {2, take(func(c *Call) { c.BodySum[0]++ }), ErrOther}}, Approved},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New()
			r := ask(t, s, isolate("1"), start)
			now := start
			for i, step := range c.steps {
				now = start.Add(step.at)
				if err := step.do(s, r, now); !errors.Is(err, step.want) {
					t.Fatalf("step %d: got %v, want %v", i+1, err, step.want)
				}
			}
			if got, ok := s.Get(r.ID, now); !ok || got.State != c.end || got.Call != r.Call {
				t.Errorf("it ends as %q %+v, %v; want %q", got.State, got.Call, ok, c.end)
			}
		})
	}
}

func TestWhoDecidedIsKept(t *testing.T) {
	s := New()
	r := ask(t, s, isolate("1"), start)
	got, err := s.Decide(r.ID, true, lead, "seen the alert", start.Add(time.Minute))
	if err != nil || got.By != lead || got.Comment != "seen the alert" || !got.Decided.Equal(start.Add(time.Minute)) || !got.Expires.Equal(start.Add(time.Minute+within)) {
		t.Errorf("got %+v, %v", got, err)
	}
	if !got.Says(true, "leads") || got.Says(false, "leads") || got.Says(true, "soc") {
		t.Errorf("it says %v %v %v", got.Says(true, "leads"), got.Says(false, "leads"), got.Says(true, "soc"))
	}
	if _, err := s.Decide("nothing", true, lead, "", start); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown id gives %v", err)
	}
	if _, err := s.Take("nothing", isolate("1"), start); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown id gives %v", err)
	}
	for _, over := range []State{Sent, Expired, Denied} {
		r := got
		if r.State = over; r.Says(true, "leads") {
			t.Errorf("an approval still stands when it is %s", over)
		}
	}
	if pending := ask(t, s, isolate("2"), start); pending.Says(false, "") || pending.Says(true, "") {
		t.Error("what nobody decided says something")
	}
}

func TestACallThatWaitsIsNotKeptTwice(t *testing.T) {
	s := New()
	first := ask(t, s, isolate("1"), start)
	again := ask(t, s, isolate("1"), start.Add(time.Minute))
	if again.ID != first.ID || !again.Expires.Equal(first.Expires) {
		t.Errorf("got %+v, want the first, %+v", again, first)
	}
	if other := ask(t, s, isolate("2"), start); other.ID == first.ID {
		t.Error("another call has the same id")
	}
	if _, err := s.Decide(first.ID, true, lead, "", start); err != nil {
		t.Fatal(err)
	}
	if again := ask(t, s, isolate("1"), start); again.ID != first.ID || again.State != Approved {
		t.Errorf("what is approved already is asked again: %+v", again)
	}
	if _, err := s.Take(first.ID, isolate("1"), start); err != nil {
		t.Fatal(err)
	}
	if next := ask(t, s, isolate("1"), start); next.ID == first.ID || next.State != Pending {
		t.Errorf("what was sent is not asked anew: %+v", next)
	}
	if n := len(s.List(start)); n != 3 {
		t.Errorf("%d are kept, want 3", n)
	}
}

func TestTheStoreIsBounded(t *testing.T) {
	s := New()
	for i := range MaxOpenPerClient {
		ask(t, s, isolate(fmt.Sprint(i)), start)
	}
	if _, err := s.Ask(isolate("one more"), Shown{}, within, start); !errors.Is(err, ErrFull) {
		t.Errorf("one more of the same group: %v", err)
	}
	if r := ask(t, s, isolate("0"), start); r.State != Pending {
		t.Errorf("one that is there is refused: %+v", r)
	}
	for i := range MaxOpen - MaxOpenPerClient {
		c := isolate(fmt.Sprint(i))
		c.Client = fmt.Sprint("g", i/MaxOpenPerClient)
		ask(t, s, c, start)
	}
	c := isolate("one more")
	c.Client = "last"
	if _, err := s.Ask(c, Shown{}, within, start); !errors.Is(err, ErrFull) {
		t.Errorf("one more of all: %v", err)
	}
	// What ran out makes room, and what is over is forgotten, the oldest first.
	now := start
	for round := range 4 {
		now = now.Add(within)
		for i := range MaxOpenPerClient {
			ask(t, s, isolate(fmt.Sprint(round, "-", i)), now)
		}
		for i := range MaxOpen - MaxOpenPerClient {
			c := isolate(fmt.Sprint(round, "-", i))
			c.Client = fmt.Sprint("g", i/MaxOpenPerClient)
			ask(t, s, c, now)
		}
		if n := len(s.List(now)); n > MaxKept {
			t.Fatalf("%d are kept", n)
		}
	}
	if n, byID := len(s.List(now)), len(s.byID); n != byID || n < MaxOpen {
		t.Errorf("%d in the list, %d by id", n, byID)
	}
	if n := len(s.List(now.Add(within + Kept))); n != 0 {
		t.Errorf("%d are kept for ever", n)
	}
}

func TestIDsCannotBeGuessed(t *testing.T) {
	s := New()
	seen := make(map[string]bool)
	for i := range 100 {
		id := ask(t, s, isolate(fmt.Sprint(i)), start).ID
		if len(id) < 26 || seen[id] || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			t.Fatalf("the id %q", id)
		}
		seen[id] = true
	}
}

func TestAmongManyWhoRepeatItAtOnceOneSends(t *testing.T) {
	s := New()
	now := time.Now()
	r := ask(t, s, isolate("1"), now)
	if _, err := s.Decide(r.ID, true, lead, "", now); err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := s.Take(r.ID, isolate("1"), now); err == nil {
				sent.Add(1)
			}
		})
	}
	wg.Wait()
	if sent.Load() != 1 {
		t.Errorf("it was sent %d times", sent.Load())
	}
}

func TestWaitEndsWithTheDecisionTheTimeOrTheCaller(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(*Store, string)
		leave time.Duration
		want  State
		took  time.Duration
	}{
		{"approved", func(s *Store, id string) { _, _ = s.Decide(id, true, lead, "", time.Now()) }, time.Hour, Approved, time.Minute},
		{"denied", func(s *Store, id string) { _, _ = s.Decide(id, false, lead, "", time.Now()) }, time.Hour, Denied, time.Minute},
		{"nobody decides", func(*Store, string) {}, time.Hour, Expired, within},
		{"the caller leaves", func(*Store, string) {}, 10 * time.Second, Pending, 10 * time.Second},
		{"the process stops", func(s *Store, _ string) { s.Stop() }, time.Hour, Pending, time.Minute},
		{"somebody looks after its end", func(s *Store, _ string) {
			time.Sleep(within)
			s.List(time.Now())
		}, time.Hour, Expired, within},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New()
				begun := time.Now()
				r := ask(t, s, isolate("1"), begun)
				var wg sync.WaitGroup
				wg.Go(func() {
					time.Sleep(time.Minute)
					c.do(s, r.ID)
				})
				for range 3 {
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), c.leave)
						defer cancel()
						got, ok := s.Wait(ctx, r.ID, nil)
						if took := time.Since(begun); !ok || got.State != c.want || took != c.took {
							t.Errorf("got %q %v after %v, want %q after %v", got.State, ok, took, c.want, c.took)
						}
					})
				}
				wg.Wait()
				if got, ok := s.Wait(t.Context(), r.ID, nil); c.want != Pending && (!ok || got.State != c.want) {
					t.Errorf("waiting for what is over gives %q, %v", got.State, ok)
				}
			})
		})
	}
	if _, ok := New().Wait(t.Context(), "nothing", nil); ok {
		t.Error("an unknown id is known")
	}
}
