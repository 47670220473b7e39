// Package credential has the kinds of proof that an application gives to Entra
// ID, each a [token.Credential]:
//
//   - [ClientSecret]: one or two secrets, each from a variable, a file or Azure
//     Key Vault ([Plain], [Vault]).
//   - [Certificate]: an assertion signed with the key of a certificate, from PEM
//     or PKCS#12.
//   - [FederatedToken]: the token of another issuer, from a file that somebody
//     renews, such as Kubernetes' projected service account token.
//   - [ManagedIdentity]: the identity of the machine gets the token itself; it is
//     a [token.Issuer]. [ManagedIdentityAssertion] uses the identity's token as
//     the assertion of an application, in any tenant that consented to it.
//   - [User]: a person, with a refresh token kept in an encrypted [Store], or with
//     a password for those who must.
//
// What holds for all: files are read anew for each fetch, so that what was
// rotated is used; they may be swapped behind a symbolic link at any time. A
// fault names the file, the address or the identity, and what to do about it,
// and belongs to one tenant. No secret, key, password or assertion gets into an
// error, into [token.Health] or into the printed form of a value. Nothing runs
// in the background but the end of a vault's read that its caller did not wait for,
// eight seconds at most, and nothing is asked that a fetch did not need.
//
// Left to others: when to fetch, how often to try again, and what to make of
// Entra's answer (token); where secrets are (config). cmd builds the
// credentials.
package credential
