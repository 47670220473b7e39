package config

import (
	"strings"
	"testing"
)

func TestAGroupThatNobodyCanBelongToIsWarnedOf(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an address within a network before it", `
clients:
  - {name: local, from: [127.0.0.0/8]}
  - {name: soc-leads, from: [127.0.0.2]}
`, "clients[1]: nobody can belong to it: clients[0] (local) comes first and has all of its addresses; put it before"},
		{"the other order", `
clients:
  - {name: soc-leads, from: [127.0.0.2]}
  - {name: local, from: [127.0.0.0/8]}
`, ""},
		{"who should approve", `
clients:
  - {name: local, from: [127.0.0.0/8]}
  - {name: soc-leads, from: [127.0.0.2]}
approval: {operations: [respond], by: [soc-leads]}
`, "clients[1]: nobody can belong to it: clients[0] (local) comes first and has all of its addresses, so that nobody of approval.by is there; put it before"},
		{"who should approve, with a listener of its own", `
listeners: [{address: "127.0.0.1:0", clients: [local]}, {address: "127.0.0.1:0", clients: [soc-leads]}]
clients:
  - {name: local, from: [127.0.0.0/8]}
  - {name: soc-leads, from: [127.0.0.2]}
approval: {operations: [respond], by: [soc-leads]}
`, "clients[1]: nobody can approve as it: clients[0] (local) comes first and has all of its addresses, so that nobody of approval.by is there, and an approver is of the first group of all that fits; put it before"},
		{"a key behind the same address without one", `
clients:
  - {name: everybody, from: [127.0.0.1]}
  - {name: responder, from: [127.0.0.1], headers: {X-Api-Key: "sha256:` + strings.Repeat("0", 64) + `"}}
`, "clients[1]: nobody can belong to it: clients[0] (everybody) comes first and has all of its addresses; put it before"},
		{"a key before it", `
clients:
  - {name: responder, from: [127.0.0.1], headers: {X-Api-Key: "sha256:` + strings.Repeat("0", 64) + `"}}
  - {name: everybody, from: [127.0.0.1]}
`, ""},
		{"an approver who could leave its key out and ask", `
clients:
  - {name: leads, from: [127.0.0.1], headers: {X-Api-Key: "sha256:` + strings.Repeat("0", 64) + `"}}
  - {name: readers, from: [127.0.0.1, 127.0.0.3], allow: [read]}
  - {name: analysts, from: [127.0.0.1, 127.0.0.2], allow: [respond]}
approval: {operations: [respond], by: [leads]}
`, "clients[0]: nobody of it can approve what clients[2] (analysts) asks for: whoever leaves the key out is one of those; let the two come from different addresses or users"},
		{"one address is left", `
clients:
  - {name: local, from: [127.0.0.1]}
  - {name: others, from: [127.0.0.1, 127.0.0.2]}
`, ""},
		{"two groups have one each", `
clients:
  - {name: a, from: [127.0.0.1]}
  - {name: b, from: [127.0.0.2]}
  - {name: c, from: [127.0.0.2, 127.0.0.1]}
`, "clients[2]: nobody can belong to it: clients[0] (a) and clients[1] (b) come first and have all of its addresses; put it before"},
		{"a listener of its own", `
listeners: [{address: "127.0.0.1:0", clients: [local]}, {address: "127.0.0.1:0", clients: [second]}]
clients:
  - {name: local, from: [127.0.0.0/8]}
  - {name: second, from: [127.0.0.1]}
`, ""},
		{"a user behind whoever can open the socket", `
listeners: [{address: unix:/run/a.sock}]
clients:
  - {name: all, from: ["unix:*"]}
  - {name: one, from: ["unix:uid=1"]}
`, "clients[1]: nobody can belong to it: clients[0] (all) comes first and has all of its callers; put it before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := parsed(t, minimal+c.text, contosoEnv).Warnings.Error()
			if c.want == "" && got != "" || c.want != "" && (!strings.HasSuffix(got, c.want) || strings.Contains(got, "\n")) {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
