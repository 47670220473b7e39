// Package proxy is the way of a request: a caller without a credential asks,
// and gets Microsoft's answer or a refusal that says why.
//
//	guard → tenant → operation → policy → quota → token → region → forward → rewrite → audit
//
// Serve.go holds these steps as calls, top to bottom. Each has a file of its name,
// but for operation, which is in policy.go, and audit, which is in serve.go:
//
//   - guard finds the client group (admit.go), checks Host and what browsers send,
//     and turns the raw request target into one canonical path. Package listen has
//     read the framing before.
//   - tenant picks the tenant: the path's prefix /t/{name}, else the listener's
//     default, else the only one.
//   - operation finds the row of the catalog that is asked for.
//   - policy asks whether the operator granted it to the client group, and then
//     whether the tenant's token permits it; when the body has come, whether the
//     grant's condition holds of it, and whether a second person has to approve the
//     call first (approval.go).
//   - quota spends the documented budget. It lets everything pass so far.
//   - token gives the bearer for the operation's audience.
//   - region gives the endpoints in order: where the page before came from, else
//     the nearest first.
//   - forward sends a request made from nothing: an allow-list of headers, the
//     canonical path, the raw query, the bearer last. Each attempt (attempt.go)
//     ends unsent, unknown or answered, and that decides where it may be sent
//     again; patience.go waits where Microsoft asks for it.
//   - rewrite cleans the answer's headers and turns its links home.
//   - audit writes the record, whatever happened; for a write one more before it
//     is sent.
//
// Three things leave this way. What a tool asks for to log in is answered behind the
// guard (placeholder.go). A sealed download link goes guard, tenant, open, grant, and
// then to storage, with no token (download.go). And an older hunting call may go out as
// Microsoft Graph's (bridge.go): then audience, permission and region are those of what
// is sent, and grants, approval and records those of what was asked for.
//
// A step takes what it needs and returns a value and an error; guard and forward,
// which find many things, put them into the Exchange. An error that a caller
// should understand is a *Refusal; any other becomes a bare 500. Refusals are
// written in serve.go alone, Microsoft's answers in rewrite.go, and our own pages
// in help.go, pages.go, explain.go, approvals.go and placeholder.go.
//
// # Vocabulary
//
//   - client group: callers that the operator granted the same things, known by
//     their address, socket peer, certificate or local key.
//   - tenant: an Entra directory, under the operator's name for it.
//   - operation: a row of the catalog: something that can be asked.
//   - class: what operations do to a tenant: read, hunt, download, triage,
//     manage, respond.
//   - grant: what the operator allows a client group.
//   - condition: what has to be true of a request beside, for a grant to hold.
//   - approval: the word of a second person, of another client group.
//   - permission: what an administrator allows the application in Entra; the
//     token's claims roles and scp list them.
//   - audience: the resource that a token is for. It goes with the operation's
//     service, never with a host.
//   - region: where an endpoint of a service stands.
//   - upstream: the endpoint that answers.
//   - successor: the operation that takes the place of one that Microsoft retires.
//   - placeholder token: what a tool gets that insists on logging in; it is worth
//     nothing.
//   - sealed link: a download link as the proxy gives it, for one tenant and client
//     group.
//   - refusal: an answer that the proxy makes itself.
package proxy
