// Package placeholder answers tools that insist on logging in before they ask for
// anything: with a token that is worth nothing anywhere, from every path where such
// a tool looks for one. It finds those paths and makes the answers; package proxy
// guards the requests and writes the answers.
//
// An answer depends on the path, on the name that the proxy was called by and on
// the time. What a tool sends to prove itself, in the body, in the query or as
// Authorization, never comes here: a right secret, a wrong one and none have the
// same answer, so that nobody learns which it was, and nothing of it can be kept.
//
// The forms are those of Entra ID, of both versions of its endpoint, as far as
// libraries read them: MSAL for Go (apps/internal/oauth/ops), Node
// (lib/msal-common/src), Python (msal/authority.py, token_cache.py) and ADAL, each
// read in 2026-11, and golang.org/x/oauth2; beside them OpenID Connect Discovery
// 1.0, RFC 6749 for the token, and RFC 8628 for the device code.
package placeholder
