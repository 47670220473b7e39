package proxy

import (
	"net/http"
	"net/textproto"
	"strings"
)

// headerList says which request headers go out.
type headerList struct{ more map[string]bool }

func newHeaderList(more []string) headerList {
	l := headerList{make(map[string]bool, len(more))}
	for _, name := range more {
		l.more[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	// net/http's transport takes these for leave to send a write twice.
	delete(l.more, "Idempotency-Key")
	delete(l.more, "X-Idempotency-Key")
	delete(l.more, approvalHeader)
	return l
}

// allows reports whether a header goes out. The list is closed: what is not on
// it cannot carry a credential, a path, a method or a framing of its own,
// however it is spelt.
func (l headerList) allows(name string) bool {
	switch name {
	case "Accept", "Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "User-Agent",
		"Range", "Prefer", "Consistencylevel", "Mime-Version",
		"Client-Request-Id", "X-Ms-Client-Request-Id", "Return-Client-Request-Id":
		return true
	}
	for _, prefix := range [...]string{"Accept-", "If-", "Odata-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return l.more[name]
}

// named gives a header that goes out and that the caller's Connection header names:
// what is left out on the way was judged all the same. Empty: none.
func (l headerList) named(in http.Header) string {
	for _, v := range in["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			name = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))
			if l.allows(name) || strings.HasPrefix(name, "Content-") {
				return name
			}
		}
	}
	return ""
}

// outgoing makes the headers of the request to upstream from those of the list.
// Names that the caller's Connection header lists are its own hop's (RFC 9110,
// section 7.6.1). The bearer comes later, so nothing here can take it away.
func (l headerList) outgoing(in http.Header, version string) http.Header {
	out := make(http.Header, 8)
	for name, values := range in {
		if l.allows(name) {
			out[name] = values
		}
	}
	for _, v := range in["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			out.Del(strings.TrimSpace(name))
		}
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = []string{"defender-proxy/" + version}
	}
	// Links can be rewritten in plain text and in gzip, so no other encoding is
	// asked for. Without the header upstream may choose; identity leaves nothing
	// to choose.
	if accepts(out["Accept-Encoding"], "gzip") {
		out["Accept-Encoding"] = gzipOnly
	} else {
		out["Accept-Encoding"] = identityOnly
	}
	return out
}

var (
	gzipOnly     = []string{"gzip"}
	identityOnly = []string{"identity"}
)

// accepts reports whether Accept-Encoding names an encoding, or else all, without
// forbidding it (RFC 9110, section 12.5.3).
func accepts(values []string, encoding string) bool {
	all := false
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			name, weight, _ := strings.Cut(item, ";")
			q, weighted := strings.CutPrefix(strings.ReplaceAll(asciiLower(weight), " ", ""), "q=")
			wanted := !weighted || strings.Trim(q, "0.") != ""
			switch asciiLower(strings.TrimSpace(name)) {
			case encoding:
				return wanted
			case "*":
				all = wanted
			}
		}
	}
	return all
}

// clean takes from an answer's headers what belongs to Microsoft's own hop or
// speaks to browsers about Microsoft's origin, and what only the proxy may say. A
// browser that shows the answer gives it no origin, and above all not the proxy's:
// what it holds can ask the proxy for nothing.
func clean(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for name := range h {
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
			"Set-Cookie", "Set-Cookie2", "Alt-Svc", "Strict-Transport-Security", "Www-Authenticate",
			"Proxy-Status", "X-Request-Id":
			delete(h, name)
		default:
			if strings.HasPrefix(name, "Access-Control-") {
				delete(h, name)
			}
		}
	}
	h["X-Content-Type-Options"], h["Content-Security-Policy"] = nosniff, sandboxed
}

var (
	nosniff   = []string{"nosniff"}
	sandboxed = []string{"sandbox; default-src 'none'"}
)
