package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// The service manager sends SIGTERM while callers wait. Their requests finish,
// whether they have not begun to be answered or are in the middle of it; nobody
// new gets in; the process ends with 0 as soon as the last one has its answer.
func TestAStopLetsRunningRequestsFinish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{Alerts: 400, PageSize: 400}, config: func(c object) { inRegions(c, "eu") }})
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultSlowBody, Delay: 100 * time.Millisecond, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	if err := w.sim.SetDelay("eu", 500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	const callers = 6
	answers := make(chan answer, callers)
	for i := range callers {
		path := "/api/alerts"
		if i%2 == 0 {
			path = "/api/machines"
		}
		go func() { answers <- w.get(path) }()
	}
	w.eventually("all have arrived", func() error {
		if n := len(w.upstream()); n < callers {
			return fmt.Errorf("%d of %d", n, callers)
		}
		return nil
	})
	w.stop()
	w.eventually("nobody new gets in", func() error {
		c, err := net.Dial("tcp", w.address())
		if err == nil {
			c.Close()
			return fmt.Errorf("a connection was taken")
		}
		return nil
	})
	for range callers {
		a := <-answers
		if p := a.page(t); a.err != nil || len(p.Value) == 0 {
			t.Errorf("a request that was running: %v", a)
		}
	}
	if code := w.wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
	if strings.Contains(w.stderr.String(), "cut off") {
		t.Errorf("something was cut off:\n%s", w.stderr)
	}
	done := 0
	for _, r := range records(t, w.stdout.bytes()) {
		if r.Status == http.StatusOK && r.Event == "request" {
			done++
		}
	}
	if done != callers {
		t.Errorf("%d records of %d requests", done, callers)
	}
}

// One request hangs and would never end. It gets shutdown_timeout and no more;
// the log says that something was cut off, and the process ends with 0.
func TestAStopCutsOffWhatOutlastsItsPatience(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{config: func(c object) {
		inRegions(c, "eu")
		c["limits"] = object{"shutdown_timeout": "1s"}
	}})
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultHang, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() {
		a, err := ask(ctx, http.MethodGet, w.url+"/api/alerts", "")
		if err == nil {
			err = fmt.Errorf("it was answered: %v", a)
		}
		failed <- err
	}()
	w.eventually("it has arrived", func() error {
		if len(w.upstream()) == 0 {
			return fmt.Errorf("nothing so far")
		}
		return nil
	})
	begun := time.Now()
	w.stop()
	if code := w.wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
	if took := time.Since(begun); took < time.Second || took > 5*time.Second {
		t.Errorf("it took %v to end, with a patience of 1s", took)
	}
	if err := <-failed; strings.Contains(err.Error(), "answered") {
		t.Error(err)
	}
	if !strings.Contains(w.stderr.String(), "requests that were still running are cut off") {
		t.Errorf("the log does not tell of it:\n%s", w.stderr)
	}
}

// Told twice, it still ends in order.
func TestAStopWithoutRequestsIsImmediate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	begun := time.Now()
	w.stop()
	w.stop()
	if code := w.wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
