// Package token gets and keeps the tokens that the proxy presents to
// Microsoft: it asks Entra ID with a tenant's credential, judges the answer
// before anybody may use it, renews ahead of expiry and reads the claims.
//
// There is one [Source] for each (cloud, tenant, client id, subject, audience).
// Its Current is lock-free, for every request; its Bearer waits for the one
// fetch that all waiters share. The goroutines belong to [Engine.Run]: a fetch
// runs on Run's context, so a caller who leaves ends his own wait and nothing
// else.
//
// What the package promises: Current and Bearer never return a token that is
// dead by either clock of the machine, was made for another tenant, audience
// or application, or did not come in a whole and well-formed answer. When
// there is none, Bearer returns an [*Error] with a sentence and a remedy. The
// value of a token leaves the package through [Bearer.Authorization] only, and
// a secret through the body of the request to the authority only.
//
// Left to others: how an application proves itself (package credential, behind
// [Credential]), the audience of an operation (policy, regions), what the claims
// permit (policy), the transport with egress proxy and trusted roots (whoever
// calls [New]), and what a caller is told (proxy). proxy asks for bearers; cmd
// builds the Engine, runs it and tells it with [Engine.Keep] whom to forget;
// admin reads [State].
package token
