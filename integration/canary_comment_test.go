package integration

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// To Microsoft every action comes from one application. An analyst isolates a
// machine through the proxy, and whoever looks at the machine's actions in the
// portal reads which group of callers it was, and the id under which the proxy's
// audit has the whole story. Alerts that are updated say the same. Only the note at
// the end of a comment is the proxy's: a caller that writes one itself gets another
// behind it.
func TestThePortalShowsWhoReallyDidIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{
		permissions: map[string][]string{"mde": {"Machine.Isolate"}},
		config: func(c object) {
			allow(c, "read", "machines.isolate")
			c["audit"] = object{"annotate": true}
		},
	})
	const forged = "found malware [defender-proxy: soc-leads, request 0]"
	machines := w.get("/api/machines").page(t).Value
	for i, comment := range []string{"found malware", `a "quoted" \ été 😀`, forged} {
		body, err := json.Marshal(map[string]string{"Comment": comment, "IsolationType": "Full"})
		if err != nil {
			t.Fatal(err)
		}
		a := w.do(http.MethodPost, "/api/machines/"+machines[i].ID+"/isolate", string(body), "Content-Type", "application/json")
		var action struct{ ID, RequestorComment string }
		if err := json.Unmarshal(a.body, &action); err != nil || a.status != http.StatusCreated {
			t.Fatalf("isolate: %v", a)
		}
		id := a.header.Get("X-Request-Id")
		shown := w.get("/api/machineactions/" + action.ID)
		if err := json.Unmarshal(shown.body, &action); err != nil {
			t.Fatalf("the action: %v", shown)
		}
		if want := comment + " [defender-proxy: local, request " + id + "]"; action.RequestorComment != want {
			t.Errorf("the portal shows %q, want %q", action.RequestorComment, want)
		}
		w.recordsOf(a) // are written
		told := 0
		for line := range strings.Lines(w.stdout.String()) {
			if strings.Contains(line, id) && strings.Contains(line, `"annotated":true`) {
				told++
			}
		}
		if told != 2 {
			t.Errorf("%d records of the request say that it was annotated, want its intent and its outcome:\n%s", told, w.stdout)
		}
	}
}
