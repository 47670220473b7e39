package regions

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatNoTenantUsesAnyMoreIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		kept := mustPool(t, m, lab(EU, UK), "mde", []Name{EU}, "")
		both := mustPool(t, m, lab(EU, UK), "mde", nil, "")
		run(t, m)
		time.Sleep(100 * time.Second)
		before := len(n.asked(UK))
		if before == 0 || !both.Answering() {
			t.Fatal("uk was not probed")
		}
		eu, euBefore := state(t, m, EU), len(n.asked(EU))

		m.Keep([]*Pool{kept})
		time.Sleep(10 * time.Minute)
		if got := len(n.asked(UK)); got != before {
			t.Errorf("uk was probed %d times after it was forgotten", got-before)
		}
		if all := m.Snapshot(); len(all) != 1 || all[0].Region != EU || all[0].Samples <= eu.Samples || all[0].Since != eu.Since {
			t.Errorf("known are %+v; before, eu was %+v", all, eu)
		}
		if len(n.asked(EU)) <= euBefore {
			t.Error("eu, which is still used, is probed no more")
		}
		// Who still goes through the pool finds what it had, and may report.
		wantOrder(t, both, "eu, uk")
		m.Report(find(both, UK), TimedOut(nil))

		// A region that comes back begins anew.
		again := mustPool(t, m, lab(EU, UK), "mde", nil, "")
		if again == both {
			t.Error("the pool that came back is the forgotten one")
		}
		if st := state(t, m, UK); st.Samples > 1 || st.Failures != 0 { // one probe may have come back already
			t.Errorf("uk came back with %+v", st)
		}
		time.Sleep(time.Second)
		if len(n.asked(UK)) == before {
			t.Error("uk came back and is not probed")
		}
		if !again.Answering() {
			t.Error("the pool that came back is not answering")
		}
	})
}

func TestKeepBeforeAnythingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		m := NewMonitor(steady(), &n)
		mustPool(t, m, lab(EU), "mde", nil, "")
		m.Keep(nil)
		m.Keep(nil)
		if all := m.Snapshot(); len(all) != 0 {
			t.Errorf("known are %+v", all)
		}
		run(t, m)
		time.Sleep(time.Minute)
		if got := len(n.asked(EU)); got != 0 {
			t.Errorf("a forgotten region was probed %d times", got)
		}
	})
}

// A cloud whose audience Microsoft states nowhere says so for that service alone.
func TestAssumedAudiencesAreMarked(t *testing.T) {
	for _, c := range Clouds() {
		government := !strings.HasPrefix(c.Name, "commercial")
		for s, audience := range c.Audiences {
			if marked := c.Assumed[s] != ""; marked != (government && s != "graph") {
				t.Errorf("cloud %s, audience %s: marked as assumed: %v", c.Name, audience, marked)
			}
		}
	}
}
