package listen

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
)

// Violation is a request that was not let through to net/http, because its bytes
// could be read in more than one way, or by nobody, or took too much room.
//
// It is also the error that reading a request's body ends with when its chunks
// are of that kind.
type Violation struct {
	// Status is the HTTP status to answer with.
	Status int
	// Reason is a sentence for the caller.
	Reason string
	// Method and Path are what the request line began with, cleaned for a record
	// and without a query; empty where it cannot be told.
	Method, Path string
}

func (v *Violation) Error() string { return "framing of the request: " + v.Reason }

func bad(reason string) *Violation { return &Violation{Status: http.StatusBadRequest, Reason: reason} }

const (
	whyBareLF   = "A line of the request ends with a line feed alone. Lines end with a carriage return and a line feed."
	whyBareCR   = "A line of the request holds a carriage return that no line feed follows."
	whyControl  = "The request's line or headers hold a control character."
	whyEmpty    = "The request begins with empty lines. So does a header of PROXY protocol: if this is one, name its sender under balancers of the listener."
	whyVersion1 = "This looks like PROXY protocol version 1: name its sender under balancers of the listener, and let it send version 2."
	whyTLS      = "The request begins like TLS, and this listener speaks plain HTTP. Call it with http:// in place of https://."
	whyFolded   = "A header line begins with a space, which would make it a part of the line before."
	whyExpect   = "The request expects something other than 100-continue."
	whyTooBig   = "The request's line and headers are longer than limits.header_bytes of the proxy's configuration allows."
	whyTooMuch  = "The proxy keeps as much of unfinished requests as it may, and this one was among those with the largest headers. Send them without a pause, or fewer of them."
)

// head reads the request line and headers of one request, RFC 9112 to the letter
// where programs are known to differ: section 2.2 (line ends), 3 (request line), 5
// (no folding, no space before the colon), and 6 (what decides where the body
// ends). It looks at each byte once, however they come.
//
// Whatever it lets through net/http takes as well, so that each refusal is one
// that the caller is told in our words and the audit learns of.
type head struct {
	at    int // the next byte to look at
	line  int // where the line under way begins
	start int // where the request line begins
	lines int // that are complete

	target   span
	method   span
	host     span
	old      bool // HTTP/1.0
	hosts    int
	lengths  int
	codings  int
	expects  int
	length   int64
	absolute bool // the target names an authority
	connect  bool // bytes behind the head are no body
}

// span is a part of the bytes, from and to.
type span struct{ from, to int }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }

// scan goes on with all bytes of the request that have come so far; limit bounds
// line and headers. end is where the body begins; 0 means that bytes are missing.
func (h *head) scan(b []byte, limit int) (end int, v *Violation) {
	for start := -1; start != h.start && end == 0 && v == nil; { // an empty line before it is no part of it
		start = h.start
		end, v = h.advance(b[:min(len(b), start+limit)])
	}
	if v == nil && end == 0 && len(b) >= h.start+limit {
		v = &Violation{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: whyTooBig}
	}
	if v != nil {
		v.Method, v.Path = beginning(b[h.start:min(h.at+1, len(b))])
	}
	return end, v
}

func (h *head) advance(b []byte) (end int, v *Violation) {
	for {
		for h.at < len(b) && !special[b[h.at]] {
			h.at++
		}
		switch {
		case h.at == len(b), b[h.at] == '\r' && h.at+1 == len(b):
			return 0, nil
		case b[h.at] == '\n':
			return 0, bad(whyBareLF)
		case b[h.at] == '\r' && b[h.at+1] != '\n':
			return 0, bad(whyBareCR)
		case h.at == 0 && b[0] == 0x16: // a record of TLS, handshake (RFC 8446, section 5.1)
			return 0, bad(whyTLS)
		case b[h.at] != '\r':
			return 0, bad(whyControl)
		}
		line := span{h.line, h.at}
		switch empty := line.from == line.to; {
		case empty && h.lines > 0:
			return h.at + 2, h.whole(b)
		case empty && h.start > 0:
			return 0, bad(whyEmpty)
		case empty: // one is to be ignored (RFC 9112, section 2.2)
			h.start = h.at + 2
		case h.lines == 0:
			h.lines++
			v = h.requestLine(b, line)
		default:
			h.lines++
			v = h.field(b, line)
		}
		if v != nil {
			return 0, v
		}
		h.at += 2
		h.line = h.at
	}
}

// special are the bytes that no line holds: the controls but for the tab.
var special = func() (t [256]bool) {
	for c := range ' ' {
		t[c] = c != '\t'
	}
	t[0x7f] = true
	return t
}()

func (h *head) requestLine(b []byte, line span) *Violation {
	text := line.of(b)
	if bytes.HasPrefix(text, []byte("PROXY TCP")) || bytes.HasPrefix(text, []byte("PROXY UNKNOWN")) {
		return bad(whyVersion1)
	}
	first, last := bytes.IndexByte(text, ' '), bytes.LastIndexByte(text, ' ')
	if first < 0 || first == last {
		return bad("The request line is not METHOD TARGET VERSION.")
	}
	h.method, h.target = span{line.from, line.from + first}, span{line.from + first + 1, line.from + last}
	if !isToken(h.method.of(b)) {
		return bad("The request's method is not a word.")
	}
	if t := h.target.of(b); len(t) == 0 || bytes.ContainsAny(t, " \t") {
		return bad("The request line is not METHOD TARGET VERSION with one space between them; a space in the target is written %20.")
	}
	switch version := text[last+1:]; string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.old = true
	case "HTTP/2.0":
		return &Violation{Status: http.StatusHTTPVersionNotSupported, Reason: "The proxy speaks HTTP/1.1 and not HTTP/2."}
	default:
		return &Violation{Status: http.StatusHTTPVersionNotSupported, Reason: "The request's version of HTTP is none of HTTP/1.1 and HTTP/1.0."}
	}
	return h.judgeTarget(h.target.of(b), string(h.method.of(b)) == http.MethodConnect)
}

// judgeTarget refuses what net/http would, and what is of no form that RFC 9112
// knows (section 3.2). Package canon judges the path.
func (h *head) judgeTarget(target []byte, connect bool) *Violation {
	h.connect = connect
	switch {
	case connect:
		// What net/http makes of it.
		if u, err := url.ParseRequestURI("http://" + string(target)); err != nil || u.Host != string(target) {
			return bad("The target of a CONNECT is not HOST:PORT.")
		}
	case target[0] == '/':
		path, _, _ := bytes.Cut(target, []byte("?"))
		for i, c := range path {
			if c == '%' && (len(path)-i < 3 || unhex(path[i+1]) < 0 || unhex(path[i+2]) < 0) {
				return bad("The request's path holds a percent sign that no two hexadecimal digits follow.")
			}
		}
	case string(target) == "*":
	default:
		h.absolute = true
		u, err := url.ParseRequestURI(string(target))
		if scheme, authority := authorityOf(string(target)); err != nil || scheme != "http" && scheme != "https" || authority == "" || authority != u.Host {
			return bad("The request's target is no path that begins with a slash.")
		}
	}
	return nil
}

// authorityOf cuts scheme, in lower case, and authority out of an absolute target.
func authorityOf(target string) (scheme, authority string) {
	scheme, authority, _ = strings.Cut(target, "://")
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority = authority[:i]
	}
	return lower(scheme), authority
}

// whole judges what only all headers together tell.
func (h *head) whole(b []byte) *Violation {
	switch {
	case h.lengths > 0 && h.codings > 0:
		return bad("The request has both a Content-Length and a Transfer-Encoding.")
	case h.hosts == 0 && !h.old:
		return bad("The request has no Host.")
	case h.connect && (h.lengths > 0 || h.codings > 0):
		return bad("A CONNECT has no body.")
	case h.absolute && h.hosts > 0 && !sameAuthority(string(h.target.of(b)), string(h.host.of(b))):
		return bad("The request's target names another host than its Host does.")
	}
	return nil
}

// sameAuthority compares the authority of an absolute target with a Host. Clients
// leave out the port that the scheme implies, in one of them or in both.
func sameAuthority(target, host string) bool {
	scheme, authority := authorityOf(target)
	implied := ":80"
	if scheme == "https" {
		implied = ":443"
	}
	return strings.TrimSuffix(lower(authority), implied) == strings.TrimSuffix(lower(host), implied)
}

// longestMethod is how much of a method is recorded, in bytes.
const longestMethod = 32

// beginning gives method and path of a request that was refused, as far as its
// first line tells them.
func beginning(b []byte) (method, path string) {
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		b = b[:i]
	}
	m, rest, ok := bytes.Cut(b, []byte(" "))
	if !ok || len(m) > longestMethod || !isToken(m) {
		return "", ""
	}
	if i := bytes.IndexAny(rest, " ?#"); i >= 0 {
		rest = rest[:i]
	}
	const most = 256
	rest = bytes.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, rest[:min(len(rest), most)])
	return string(m), string(rest)
}
