package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// Microsoft's side has a bad day: one answer in five goes wrong, 503, 429, 401
// for a good token, a reset, and Entra's no less. Whatever a caller gets is
// right or honestly wrong, and a write that was sent once is not sent again.
func TestOnABadDayEveryAnswerIsRightOrHonest(t *testing.T) {
	t.Parallel()
	const seed = 20260821
	t.Logf("the seed of the simulator's misbehaviour is %d", seed)
	w := newWorld(t, setup{
		sim: simulator.Config{Seed: seed, Misbehave: 0.2, Alerts: 90, PageSize: 30},
		permissions: map[string][]string{
			"mde": {"Machine.Isolate", "Ti.ReadWrite.All"},
		},
		config: func(c object) { allow(c, "read", "hunt", "indicators.create") },
	})
	honest := func(a answer) error {
		code, message := a.refused()
		switch {
		case a.err != nil:
			return fmt.Errorf("it broke off: %v", a.err)
		case code == "" || message == "":
			return fmt.Errorf("it is no error in Microsoft's shape: %v", a)
		case a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable || a.status == http.StatusBadGateway || a.status == http.StatusUnauthorized:
			return nil
		}
		return fmt.Errorf("%v", a)
	}
	// patiently asks again while there is no token, which is to say that nothing
	// was sent.
	patiently := func(method, path, body string) (a answer) {
		w.eventually("there is a token", func() error {
			a = w.do(method, path, body)
			if code, message := a.refused(); code == "TokenUnavailable" {
				if a.header.Get("Retry-After") == "" {
					t.Errorf("it does not say when to come again: %v", a)
				}
				return fmt.Errorf("%s", message)
			}
			return nil
		})
		return a
	}
	right, wrong := 0, 0
	for i := range 120 {
		a := patiently(http.MethodGet, "/api/alerts", "")
		if a.status != http.StatusOK {
			wrong++
			if err := honest(a); err != nil {
				t.Errorf("read %d: %v", i, err)
			}
			continue
		}
		right++
		if p := a.page(t); len(p.Value) != 30 || !strings.HasPrefix(p.Next, w.url+"/api/alerts?") {
			t.Errorf("read %d is not the first page: %v", i, a)
		}
	}
	// A reset and most 401s are made good by another try, 503s and 429s by a little
	// patience.
	bad := 0
	for _, r := range w.arrivals(http.MethodGet, "/api/alerts") {
		if r.Status != http.StatusOK {
			bad++
		}
	}
	if right < 100 || bad < 10 {
		t.Errorf("%d reads were right and %d honestly wrong; upstream went wrong %d times", right, wrong, bad)
	}

	created := make(map[string]bool) // by value
	for i := range 60 {
		value := fmt.Sprintf("%040x", i+1)
		body := `{"indicatorValue":"` + value + `","indicatorType":"FileSha1","action":"Audit","generateAlert":true,"title":"t","description":"d"}`
		a := patiently(http.MethodPost, "/api/indicators", body)
		if a.status != http.StatusOK {
			if err := honest(a); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
			if code, message := a.refused(); code == "RegionUnavailable" && !strings.Contains(message, "may have been carried out") {
				t.Errorf("write %d was lost, and the caller is told: %s", i, message)
			}
			continue
		}
		var made struct{ IndicatorValue string }
		if err := json.Unmarshal(a.body, &made); err != nil || made.IndicatorValue != value {
			t.Errorf("write %d: %v", i, a)
		}
		created[value] = true
	}
	if len(created) < 30 {
		t.Errorf("only %d of 60 writes were carried out", len(created))
	}
	// What arrived, by body: the one repetition that is allowed is after a 401,
	// by which Microsoft says that it did nothing.
	arrived := make(map[string]int)
	for _, r := range w.upstream() {
		if r.Method == http.MethodPost && strings.HasPrefix(r.Target, "/api/indicators") && r.Status != http.StatusUnauthorized && r.BodySHA256 != "" {
			arrived[r.BodySHA256]++
		}
	}
	for sum, n := range arrived {
		if n > 1 {
			t.Errorf("the write with body %.12s arrived %d times", sum, n)
		}
	}
	if len(arrived) < len(created) {
		t.Errorf("%d writes were carried out, and %d arrived", len(created), len(arrived))
	}
	intents := 0
	for _, r := range records(t, w.stdout.bytes()) {
		if r.Event == "intent" {
			intents++
		}
	}
	if intents < len(created) {
		t.Errorf("%d writes were carried out, and %d were announced", len(created), intents)
	}
}
