package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// throttled answers with a status and headers the first n times, and well from
// then on.
func throttled(n int32, code int, header ...string) http.HandlerFunc {
	var asked atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > n {
			fmt.Fprint(w, "well")
			return
		}
		status(code, header...)(w, r)
	}
}

func patientFor(d time.Duration) func(*Limits) { return func(l *Limits) { l.MaxWait = d } }

func TestAShortRetryAfterIsWaitedOutWhereNothingIsChanged(t *testing.T) {
	const hunt = "/api/advancedqueries/run"
	for _, c := range []struct {
		name         string
		method, path string
		first        http.HandlerFunc
		maxWait      time.Duration
		status       int
		us, eu       int // requests that arrive
	}{
		{"a read that is throttled once", "GET", "/api/alerts", throttled(1, 429, "Retry-After", "0"), time.Second, 200, 2, 0},
		{"a read whose wait is named by a date", "GET", "/api/alerts", func() http.HandlerFunc {
			h := throttled(1, 429)
			return func(w http.ResponseWriter, r *http.Request) {
				// The answer's own clock counts, and that is an hour slow.
				then := time.Now().Add(-time.Hour)
				w.Header().Set("Date", then.UTC().Format(http.TimeFormat))
				w.Header().Set("Retry-After", then.Add(time.Second).UTC().Format(http.TimeFormat))
				h(w, r)
			}
		}(), 4 * time.Second, 200, 2, 0},
		{"a hunting query that is throttled once", "POST", hunt, throttled(1, 429, "Retry-After", "0"), time.Second, 200, 2, 0},
		{"a hunting query that is told 503", "POST", hunt, throttled(1, 503, "Retry-After", "0"), time.Second, 200, 2, 0},
		{"a read that is told 503 goes to another region instead", "GET", "/api/alerts", throttled(1, 503, "Retry-After", "0"), time.Second, 200, 1, 1},
		{"no write", "POST", "/api/machines/m1/isolate", throttled(1, 429, "Retry-After", "0"), time.Second, 429, 1, 0},
		{"no deletion", "DELETE", "/api/indicators/1", throttled(1, 503, "Retry-After", "0"), time.Second, 503, 1, 0},
		{"not when the wait is longer than may be", "GET", "/api/alerts", throttled(1, 429, "Retry-After", "2"), time.Second, 429, 1, 0},
		{"not when no wait is named", "GET", "/api/alerts", throttled(1, 429), time.Second, 429, 1, 0},
		{"not when the wait is no number", "GET", "/api/alerts", throttled(1, 429, "Retry-After", "soon"), time.Second, 429, 1, 0},
		{"not when the wait is below zero", "GET", "/api/alerts", throttled(1, 429, "Retry-After", "-1"), time.Second, 429, 1, 0},
		{"not when nothing may be waited for", "GET", "/api/alerts", throttled(1, 429, "Retry-After", "0"), 0, 429, 1, 0},
		{"not more than three times", "GET", "/api/alerts", throttled(9, 429, "Retry-After", "0"), 20 * time.Second, 429, 4, 0},
		{"not when the server has had enough", "GET", "/api/alerts", throttled(1, 500, "Retry-After", "0"), time.Second, 500, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{limits: patientFor(c.maxWait)})
			w.regions[0].answer(c.first)
			body := ""
			if c.method == "POST" {
				body = `{"Comment":"x"}`
			}
			got := w.do(c.method, c.path, body)
			if got.status != c.status {
				t.Errorf("got %d %s, want %d", got.status, got.body, c.status)
			}
			if got.status == 429 && strings.Contains(got.header.Get("Proxy-Status"), "error") {
				t.Errorf("Microsoft's answer is passed off as ours: %v", got.header)
			}
			if us, eu := len(w.regions[0].requests()), len(w.regions[1].requests()); us != c.us || eu != c.eu {
				t.Errorf("arrived: %d and %d, want %d and %d", us, eu, c.us, c.eu)
			}
			for _, a := range w.regions[0].requests() {
				if a.body != body {
					t.Errorf("a body arrived as %q", a.body)
				}
			}
			lines := w.lines(1)
			line := lines[len(lines)-1]
			if waited, ok := line["waited_ms"]; ok != (c.us > 1) || ok && waited.(float64) < 90 {
				t.Errorf("the record: %v", line)
			}
		})
	}
}

func TestWhoWaitsForMicrosoftLeavesRoomForTheOthers(t *testing.T) {
	w := newWorld(t, options{limits: func(l *Limits) { l.InFlight, l.MaxWait = 8, time.Minute }})
	w.regions[0].answer(status(429, "Retry-After", "30"))
	ctx, leave := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 2 { // a quarter of eight
		waiting.Go(func() {
			r, _ := http.NewRequestWithContext(ctx, "GET", w.server.URL+"/api/alerts", nil)
			if resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r); err == nil {
				resp.Body.Close()
				t.Errorf("one that should wait got %d", resp.StatusCode)
			}
		})
	}
	deadline := time.Now().Add(10 * time.Second)
	for w.proxy.waiting.Load() != 2 {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait, want 2", w.proxy.waiting.Load())
		}
		time.Sleep(time.Millisecond)
	}
	if got := w.do("GET", "/api/alerts", ""); got.status != 429 || got.header.Get("Retry-After") != "30" {
		t.Errorf("the third: %d %v, want Microsoft's answer at once", got.status, got.header)
	}
	leave() // who leaves does not wait on
	waiting.Wait()
	for w.proxy.waiting.Load() != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait when all have left", w.proxy.waiting.Load())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAHuntingQueryIsRepeatedElsewhereOnlyWhenTheOperatorSaysSo(t *testing.T) {
	for _, c := range []struct {
		name   string
		repeat bool
		path   string
		status int
		eu     int
	}{
		{"not by default", false, "/api/advancedqueries/run", 502, 0},
		{"when the operator says so", true, "/api/advancedqueries/run", 200, 1},
		{"a write never", true, "/api/machines/m1/isolate", 502, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{deps: func(d *Deps) { d.RepeatHunting = c.repeat }})
			w.regions[0].answer(reset)
			got := w.do("POST", c.path, `{"Query":"x"}`)
			if n := len(w.regions[1].requests()); got.status != c.status || n != c.eu {
				t.Errorf("got %d, and %d arrived elsewhere; want %d and %d", got.status, n, c.status, c.eu)
			}
		})
	}
}
