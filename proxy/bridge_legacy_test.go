package proxy

import (
	"strings"
	"testing"
)

// The default does not send anything elsewhere, but says what would help.
func TestWhoHuntsTheOldWayIsToldOnceThatItIsGone(t *testing.T) {
	const words = "hunting: auto or graph of the tenant lets Microsoft Graph answer"
	w := hunts(t, HuntingLegacy, gives(410, `{"error":{"code":"Gone","message":"m"}}`), nil)
	if w.do("POST", runMDE+"?odd=1", aQuery); strings.Contains(w.log.String(), words) {
		t.Error("a call that the 410 may have been for says it of all")
	}
	for range 3 {
		if got := w.do("POST", runMDE, aQuery); got.status != 410 || !strings.Contains(got.body, "Gone") {
			t.Errorf("got %d %s", got.status, got.body)
		}
	}
	if n := strings.Count(w.log.String(), words); n != 1 {
		t.Errorf("it is told %d times, want once:\n%s", n, w.log)
	}
}

// What is told of one way decides nothing on the other: with auto the older API is
// asked until Graph has answered.
func TestWhatWasToldOfTheOldWayIsNotBelievedOnTheOther(t *testing.T) {
	b := &Bridges{}
	w := hunts(t, HuntingLegacy, gives(410, "{}"), nil, with(func(d *Deps) { d.Bridges = b }))
	w.do("POST", runMDE, aQuery)
	w = hunts(t, HuntingAuto, gives(200, mdeAnswer), gives(200, graphAnswer), with(func(d *Deps) { d.Bridges = b }))
	if got := w.do("POST", runMDE, aQuery); got.body != mdeAnswer || strings.Join(w.paths(), " ") != runMDE {
		t.Errorf("got %s of %v, want the older API's answer", got.body, w.paths())
	}
}
