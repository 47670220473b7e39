package egress

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// loopHeader names those by whom a request came, each of which adds itself (RFC 8586).
//
// Via would tell the same, and cost much: Microsoft's web servers by default do not
// compress for a request that has one (learn.microsoft.com/azure/cdn/cdn-troubleshoot-compression,
// read 2026-11).
const loopHeader = "Cdn-Loop"

// marked is a request as it leaves: with a name on it by which a proxy like this one
// knows it when it comes back. The caller's own stays as it is.
func marked(r *http.Request) *http.Request {
	header := maps.Clone(r.Header)
	if header == nil {
		header = make(http.Header, 1)
	}
	header[loopHeader] = append(slices.Clip(header[loopHeader]), pseudonym)
	r = r.WithContext(r.Context())
	r.Header = header
	return r
}

// FromProxy reports whether a request with these headers was sent by this proxy or by
// another one like it: each request that leaves through a Transport says so. It may
// be called concurrently.
func FromProxy(h http.Header) bool { return namesUs(h[loopHeader]) }

// namesUs reports whether the lines of a list have a member of ours. Its parameters do
// not matter.
func namesUs(lines []string) bool {
	for _, line := range lines {
		for member := range members(line) {
			name, _, _ := strings.Cut(member, ";")
			if strings.Trim(name, " \t\"") == pseudonym {
				return true
			}
		}
	}
	return false
}
