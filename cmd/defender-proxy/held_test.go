package main

import (
	"net/http"
	"strings"
	"testing"
)

// A call that is held for a second person ends its wait at a reload, and is judged by
// the next configuration when it is repeated.
func TestAReloadEndsTheWaitOfACallThatIsHeld(t *testing.T) {
	group := func(name, address string, allow ...string) object {
		return object{"name": name, "from": []string{address}, "allow": allow}
	}
	l := newLab(t, func(l *lab) {
		if err := l.sim.SetPermissions(labID(0), labApp, "mde", "Machine.Read.All", "Machine.Isolate", "Alert.Read.All"); err != nil {
			l.t.Fatal(err)
		}
		l.config["clients"] = []object{group("soc", "127.0.0.1", "read", "respond"), group("soc-leads", "127.0.0.2", "read")}
		l.config["approval"] = object{"operations": []string{"machines.isolate"}, "by": []string{"soc-leads"}, "within": "5m"}
	})
	lead := caller(t, from("127.0.0.2"))
	url := l.url + "/api/machines/" + l.sim.MachineID() + "/isolate"
	const body = `{"Comment":"Isolate","IsolationType":"Full"}`
	type reply struct {
		status int
		id     string
		text   string
	}
	held := make(chan reply, 1)
	go func() {
		status, header, text := ask(t, client, http.MethodPost, url, body, "Prefer", "wait=600", "Content-Type", "application/json")
		held <- reply{status, header.Get("X-Approval-Id"), text}
	}()
	l.eventually("the call waits", func() bool {
		_, _, text := ask(t, lead, http.MethodGet, l.url+"/-/approvals?state=pending", "")
		return strings.Contains(text, "machines.isolate")
	})
	l.config["clients"] = []object{group("soc", "127.0.0.1", "read"), group("soc-leads", "127.0.0.2", "read")}
	l.save()
	l.reload()
	got := <-held
	if got.status != http.StatusAccepted || got.id == "" {
		t.Fatalf("the held call gets %d %s, want 202 and an id", got.status, got.text)
	}
	if status, _, text := ask(t, lead, http.MethodPost, l.url+"/-/approvals/"+got.id+"/approve", ""); status != http.StatusOK {
		t.Errorf("the decision: %d %s", status, text)
	}
	if status, _, text := ask(t, client, http.MethodPost, url, body, "X-Approval-Id", got.id, "Content-Type", "application/json"); status != http.StatusForbidden || !strings.Contains(text, "NotGranted") {
		t.Errorf("repeated: %d %s", status, text)
	}
	for _, r := range l.sim.Requests() {
		if r.Method == http.MethodPost && strings.HasSuffix(r.Target, "/isolate") {
			t.Errorf("it was sent: %+v", r)
		}
	}
}
