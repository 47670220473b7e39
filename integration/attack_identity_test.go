package integration

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
)

// twoGroups lets addresses of an office isolate machines and this machine read. It
// is the office that everybody here wants to be taken for.
func twoGroups(c object) {
	c["clients"] = []object{
		{"name": "office", "from": []string{"10.1.2.0/24"}, "allow": []string{"read", "machines.isolate"}},
		{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{"read"}},
	}
}

// seen tells from a request's record who called, and from where.
func (w *world) seen(a answer) (client, address string) {
	w.t.Helper()
	w.recordsOf(a) // it is written
	for line := range bytes.Lines(w.stdout.bytes()) {
		var r struct {
			Client, Address string
			RequestID       string `json:"request_id"`
		}
		if json.Unmarshal(line, &r) == nil && r.RequestID == a.header.Get("X-Request-Id") {
			client, address = r.Client, r.Address
		}
	}
	return client, address
}

// A caller says of itself where it comes from. Without proxies that are trusted for
// it, nobody listens: the group is that of the socket, in the decision and in the
// record.
func TestAttackToBeTakenForAnother(t *testing.T) {
	t.Parallel()
	w := victim(t, twoGroups)
	for _, header := range []string{
		"X-Forwarded-For: 10.1.2.3", "X-Forwarded-For: 10.1.2.3, 127.0.0.1", "X-Forwarded-For: 127.0.0.1, 10.1.2.3", "X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-For: 10.1.2.3", "Forwarded: for=10.1.2.3", "Forwarded: for=\"10.1.2.3:80\";by=127.0.0.1",
		"X-Real-IP: 10.1.2.3", "X-Client-IP: 10.1.2.3", "Client-IP: 10.1.2.3", "True-Client-IP: 10.1.2.3", "CF-Connecting-IP: 10.1.2.3", "Fastly-Client-IP: 10.1.2.3", "X-Azure-ClientIP: 10.1.2.3", "X-Original-For: 10.1.2.3", "X-ProxyUser-Ip: 10.1.2.3",
		"X-Forwarded-User: office", "X-Remote-User: office", "Remote-User: office", "X-MS-Client-Principal-Name: office", "X-Client-Group: office", "X-Client-Cert: CN=office", "X-SSL-Client-S-DN: CN=office", "X-Forwarded-Client-Cert: Subject=\"CN=office\"", "SPIFFE-ID: spiffe://corp.example/office", "Authorization: Bearer office", "Cookie: group=office",
	} {
		t.Run(header, func(t *testing.T) {
			w := w.in(t)
			got := w.fire(attack{
				request: "POST /api/machines/1/isolate HTTP/1.1\r\nHost: HOST\r\n" + header + "\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
				status:  http.StatusForbidden, code: "NotGranted",
			})
			if client, address := w.seen(got[0]); client != "local" || address != "127.0.0.1" {
				t.Errorf("the record says that %s of %s called", client, address)
			}
		})
	}
}

// Behind a proxy that is trusted, the caller is the last address that is none of the
// proxies': what stands before it was written by the caller itself.
func TestAttackToBeTakenForAnotherBehindATrustedProxy(t *testing.T) {
	t.Parallel()
	w := victim(t, func(c object) {
		twoGroups(c)
		c["listeners"].([]object)[0]["trusted_proxies"] = []string{"127.0.0.1", "127.0.0.9"}
	})
	ask := func(name, headers string, status int, code string) attack {
		return attack{name: name, request: "POST /api/machines/1/isolate HTTP/1.1\r\nHost: HOST\r\n" + headers + "Content-Length: 0\r\nConnection: close\r\n\r\n", status: status, code: code}
	}
	for _, a := range []attack{
		ask("the office before the caller", "X-Forwarded-For: 10.1.2.3, 127.0.0.5\r\n", 403, "NotGranted"),
		ask("the office before a stranger", "X-Forwarded-For: 10.1.2.3, 203.0.113.7\r\n", 403, "ClientNotAdmitted"),
		ask("the office before a stranger and a proxy", "X-Forwarded-For: 10.1.2.3, 203.0.113.7, 127.0.0.9\r\n", 403, "ClientNotAdmitted"),
		ask("the office in a header before that of a stranger", "X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-For: 203.0.113.7\r\n", 403, "ClientNotAdmitted"),
		ask("the office in another header", "Forwarded: for=10.1.2.3\r\nX-Forwarded-For: 203.0.113.7\r\n", 403, "ClientNotAdmitted"),
		ask("the office under a name that looks alike", "X_Forwarded_For: 10.1.2.3\r\nX-Forwarded-For: 127.0.0.5\r\n", 400, "InvalidRequest"),
	} {
		t.Run(a.name, func(t *testing.T) { w.in(t).fire(a) })
	}
	for _, value := range []string{"10.1.2.3, nonsense", "10.1.2.3,", "10.1.2.3, unknown", "10.1.2.3, _hidden", "10.1.2.3, 10.1.2.3.4", "10.1.2.3, \"203.0.113.7\"", "10.1.2.300"} {
		t.Run("what is no address: "+value, func(t *testing.T) {
			w := w.in(t)
			w.sim.ResetRequests()
			got := exchange(t, w.address(), "POST /api/machines/1/isolate HTTP/1.1\r\nHost: "+w.address()+"\r\nX-Forwarded-For: "+value+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if len(got) != 1 || got[0].status/100 != 4 || len(w.upstream()) > 0 {
				t.Errorf("got %v, arrived %+v", got, w.upstream())
			}
		})
	}
	// And the honest one is served.
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	got := exchange(t, w.address(), "POST "+path+" HTTP/1.1\r\nHost: "+w.address()+"\r\nX-Forwarded-For: 203.0.113.7, 10.1.2.3\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{\"Comment\":\"x\"}")
	if len(got) != 1 || got[0].status != http.StatusCreated {
		t.Errorf("the office itself: %v", got)
	} else if client, address := w.seen(got[0]); client != "office" || address != "10.1.2.3" {
		t.Errorf("the record says that %s of %s called", client, address)
	}
}
