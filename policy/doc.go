// Package policy decides what may be asked of Microsoft's APIs.
//
// It holds the catalog of operations, finds the one that a method and a
// canonical path ask for, and answers two questions about it: did the operator
// grant it to this client group (Grants), and does the tenant's token permit it
// (Permits)? Both must say yes. The first that says no gives the reason.
//
// The package is pure: it reads no clock, no file and no network, and decides
// without allocation. It leaves the path's canonical form to internal/canon,
// the token to internal/token and the refusal's words to proxy.
package policy
