// Package simulator is Microsoft's side of the wire in one process: Entra ID,
// Defender for Endpoint, Defender XDR and Graph security in seven regions, the
// blob storage behind download links, and a key vault, each on a TLS listener
// of its own on a loopback address, with a certificate of the simulator's own
// authority; beside them, in plain HTTP as in life, what gives a machine the
// token of its managed identity.
//
// It is the peer that the proxy is tried against, in tests, in the command
// demo and in the command simulate. It is therefore written from Microsoft's
// public documentation alone: of the rest of the module it knows only the rows
// of the catalog (which operations there are, with which permissions and
// limits). Routing, OData, tokens and permission checks are its own code, so
// that a misreading on one side shows as a difference between the two.
//
// What it does as documented: tokens of both versions of the endpoint, signed
// with RS256, for client secrets, certificates, federated tokens, managed
// identities and users (password, authorization code with PKCE, device code,
// refresh token); claims challenges; the rotation of keys; Entra's errors; the
// check of signature, audience, life and permission; every operation of the
// catalog from a generated fleet, with filters, pages, exports and signed
// links; writes that change state; the limits in calls. What it leaves out: the
// limit of hunting in processor time, HTTP/2, and the pages of the sign-in: its
// people are signed in, and say yes. Where a page is silent the code says so.
//
// A control port (plain HTTP, loopback) and the methods of Simulator set
// delays and faults, change permissions, sign people in and out, and tell which
// requests arrived and which tokens were refused.
//
// Everything it holds is bounded: the requests and refused tokens it remembers,
// what sign-ins leave behind, the bodies it reads and the objects that writes
// may add to a fleet.
package simulator
