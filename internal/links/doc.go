// Package links turns the links in Microsoft's answers home, so that a caller
// who follows one comes back to the proxy: the members @odata.nextLink,
// @odata.context and @odata.deltaLink of a JSON body, and the headers that
// hold a URL.
//
// A link is rewritten when it is absolute and its path is one of those that
// the proxy serves, whatever host it names. That is safe because no token goes
// to a host named by a link: only the path and what follows are kept, and they
// are judged again like any request when they return. Scheme and authority are
// replaced; the rest stays byte for byte, and so does everything that is not a
// link.
//
// The body is rewritten on the stream, in constant memory, without being
// parsed. Content types, content encodings and Content-Length are left to the
// caller, package proxy, which has the whole answer in view: a compressed body
// has to be unpacked before it comes here, and a rewritten one may be longer or
// shorter than it was.
//
// Download links are signed and lead to storage, so they are another matter: where an
// operator wants them to lead through the proxy, NewDownloads finds them in an answer,
// and a Sealer seals each into a link that opens nothing else, for nobody else, and
// not for longer. Which hosts are storage is the caller's to know.
package links
