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
