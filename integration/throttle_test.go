package integration

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

const huntingPath, huntingQuery = "/api/advancedqueries/run", `{"Query":"DeviceInfo | take 1"}`

// Most callers cannot wait and try again; the proxy does it for them, where that
// is harmless and short. What would take longer, and what is asked of a write,
// is Microsoft's answer to the caller, at once and as it came. No other region is
// asked: the limit is the tenant's.
func TestAShortRetryAfterIsWaitedOutAndALongOneIsPassedOn(t *testing.T) {
	t.Parallel()
	read := [3]string{http.MethodGet, "/api/alerts?$top=1"}
	hunt := [3]string{http.MethodPost, huntingPath, huntingQuery}
	write := [3]string{http.MethodPost, "/api/machines/1/isolate", `{"Comment":"x"}`}
	throttle := func(after string, count int) simulator.Fault {
		return simulator.Fault{Kind: simulator.FaultThrottle, RetryAfter: after, Count: count}
	}
	status := func(status int, after string, count int) simulator.Fault {
		return simulator.Fault{Kind: simulator.FaultStatus, Status: status, RetryAfter: after, Count: count}
	}
	for _, world := range []struct {
		name    string
		regions []string
		wait    string // quota.max_wait; empty: the default
		cases   []throttled
	}{
		{"by default", []string{"eu", "uk"}, "", []throttled{
			{"a read is asked to wait for a second", throttle("1", 1), read, 200, 2, true},
			{"a read is asked to wait for five seconds", throttle("5", 0), read, 429, 1, false},
		}},
		{"with other regions at hand", []string{"eu", "uk"}, "20s", []throttled{
			{"a read is asked to wait for a second", throttle("1", 1), read, 200, 2, true},
			{"a hunting query is asked to wait for a second", throttle("1", 1), hunt, 200, 2, true},
			{"a read is asked for patience twice", throttle("1", 2), read, 200, 3, true},
			{"a read is asked to wait for half a minute", throttle("30", 0), read, 429, 1, false},
			{"a hunting query is asked to wait for half a minute", throttle("30", 0), hunt, 429, 1, false},
			{"a write is asked to wait for a second", throttle("1", 0), write, 429, 1, false},
			{"a read is refused without a word about when to come again", status(429, "", 0), read, 429, 1, false},
			{"a read is told something that is no time", throttle("soon", 0), read, 429, 1, false},
		}},
		{"with one region", []string{"eu"}, "", []throttled{
			{"a read meets a region that will be back in a second", status(503, "1", 1), read, 200, 2, true},
			{"a hunting query meets a region that will be back in a second", status(503, "1", 1), hunt, 200, 2, true},
			{"a write meets a region that will be back in a second", status(503, "1", 1), write, 503, 1, false},
			{"a read meets a region that will be back in an hour", status(503, "3600", 1), read, 503, 1, false},
		}},
		{"with little patience", []string{"eu", "uk"}, "1500ms", []throttled{
			{"a read is asked to wait for a second", throttle("1", 1), read, 200, 2, true},
			{"a read is asked to wait for two seconds", throttle("2", 0), read, 429, 1, false},
			{"a read is asked for a second again and again", throttle("1", 0), read, 429, 2, true},
		}},
		{"without patience", []string{"eu", "uk"}, "0s", []throttled{
			{"a read is asked to wait for a second", throttle("1", 0), read, 429, 1, false},
			{"a hunting query is asked to wait for a second", throttle("1", 0), hunt, 429, 1, false},
		}},
	} {
		t.Run(world.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, respond(func(c object) {
				preferring(c, world.regions...)
				if world.wait != "" {
					c["quota"] = object{"max_wait": world.wait}
				}
			}))
			w.nearest("eu")
			for _, tc := range world.cases {
				t.Run(tc.name, func(t *testing.T) { tc.check(w.in(t)) })
			}
		})
	}
}

type throttled struct {
	name     string
	fault    simulator.Fault // of eu
	request  [3]string       // method, target, body
	status   int
	arrivals int
	waited   bool
}

func (tc throttled) check(w *world) {
	t := w.t
	w.sim.ResetRequests()
	// The probes are no part of it.
	tc.fault.Match = "/api/a"
	if tc.request[1][:6] != "/api/a" {
		tc.fault.Match = "/api/m"
	}
	if err := w.sim.SetRegion("eu", tc.fault); err != nil {
		t.Fatal(err)
	}
	a := w.do(tc.request[0], tc.request[1], tc.request[2])
	if a.status != tc.status || a.ours() || a.hop() != "eu" {
		t.Errorf("got %v, want %d of Microsoft's", a, tc.status)
	}
	if tc.status != http.StatusOK && a.header.Get("Retry-After") != tc.fault.RetryAfter {
		t.Errorf("Retry-After is %q, not %q as it came", a.header.Get("Retry-After"), tc.fault.RetryAfter)
	}
	arrived := w.upstream()
	if len(arrived) != tc.arrivals {
		t.Errorf("it arrived %d times, want %d", len(arrived), tc.arrivals)
	}
	for _, r := range arrived {
		if r.Region != "eu" {
			t.Errorf("%s was asked in place of eu", r.Region)
		}
	}
	// Timers may be early by a hair.
	rs := w.recordsOf(a)
	last := rs[len(rs)-1]
	if waited := last.Waited >= 990*float64(tc.arrivals-1); tc.waited != (waited && last.Waited > 0) {
		t.Errorf("by its record it waited %v ms: %+v", last.Waited, last)
	}
	if last.Duration < last.Waited {
		t.Errorf("it took %v ms, and %v ms of them waiting", last.Duration, last.Waited)
	}
}

// A region that asks for patience with a 503 is passed by when there is another:
// that costs the caller nothing.
func TestA503WithARetryAfterIsNotWaitedForWhereAnotherRegionAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) {
		preferring(c, "eu", "uk")
		c["quota"] = object{"max_wait": "20s"}
	}})
	w.nearest("eu")
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultStatus, Status: 503, RetryAfter: "3", Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	a := w.get("/api/alerts?$top=1")
	if rs := w.recordsOf(a); a.status != http.StatusOK || a.hop() != "uk" || len(rs) != 1 || rs[0].Waited != 0 || fmt.Sprint(rs[0].Tried) != "[eu uk]" {
		t.Errorf("got %v, and the record %+v", a, rs)
	}
	// When both ask for it, the caller waits once, in the end.
	for _, region := range []string{"eu", "uk"} {
		if err := w.sim.SetRegion(region, simulator.Fault{Kind: simulator.FaultStatus, Status: 503, RetryAfter: "1", Match: "/api/alerts", Count: 1}); err != nil {
			t.Fatal(err)
		}
	}
	a = w.get("/api/alerts?$top=1")
	if rs := w.recordsOf(a); a.status != http.StatusOK || len(rs) != 1 || rs[0].Waited < 990 || rs[0].Attempts != 3 {
		t.Errorf("with both asking for a second: %v, and the record %+v", a, rs)
	}
}

// A caller that leaves while its Retry-After is waited out takes its request
// along: it does not go out again.
func TestACallerThatLeavesDuringAWaitIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	const wait = 15 * time.Second
	w := newWorld(t, setup{config: func(c object) {
		inRegions(c, "eu")
		c["quota"] = object{"max_wait": "20s"}
	}})
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultThrottle, RetryAfter: "15", Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", w.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewWriter(c)
	fmt.Fprintf(in, "GET /api/alerts HTTP/1.1\r\nHost: %s\r\n\r\n", w.address())
	if err := in.Flush(); err != nil {
		t.Fatal(err)
	}
	w.eventually("it was answered 429", func() error {
		if got := w.upstream(); len(got) != 1 || got[0].Status != http.StatusTooManyRequests {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	c.Close()
	var left record
	w.eventually("its record says 499", func() error {
		for _, r := range records(t, w.stdout.bytes()) {
			if r.Path == "/api/alerts" && r.Status == 499 && r.Code == "ClientGone" {
				left = r
				return nil
			}
		}
		return fmt.Errorf("records: %s", w.stdout)
	})
	if left.Duration > float64(wait.Milliseconds()) || left.Attempts != 1 {
		t.Errorf("it was waited for: %+v", left)
	}
	if n := len(w.upstream()); n != 1 {
		t.Errorf("it went out %d times", n)
	}
}
