package listen

import (
	"bytes"
	"net/http"
	"strings"
)

// field judges a header. Of most only the form counts; of those that say where the
// request ends and whom it is for, the value too.
func (h *head) field(b []byte, line span) *Violation {
	text := line.of(b)
	if text[0] == ' ' || text[0] == '\t' {
		return bad(whyFolded)
	}
	colon := bytes.IndexByte(text, ':')
	if colon < 0 {
		return bad("A header line has no colon.")
	}
	name, value := text[:colon], bytes.Trim(text[colon+1:], " \t")
	if !isToken(name) {
		return bad("The name of a header is not a word that the colon follows at once.")
	}
	switch len(name) {
	case len("host"):
		if is(name, "host") {
			h.hosts++
			from := line.from + colon + 1 + bytes.Index(text[colon+1:], value)
			h.host = span{from, from + len(value)}
			if h.hosts > 1 {
				return bad("The request has more than one Host.")
			}
			if bytes.ContainsFunc(value, notInHost) {
				return bad("The request's Host holds a character that names, addresses and ports do not have.")
			}
		}
	case len("content-length"):
		if is(name, "content-length") {
			return h.contentLength(value)
		}
	case len("transfer-encoding"):
		if is(name, "transfer-encoding") {
			return h.transferEncoding(value)
		}
	case len("trailer"):
		if is(name, "trailer") {
			return bad(whyTrailer)
		}
	case len("expect"):
		if is(name, "expect") {
			if h.expects++; h.expects > 1 || !is(value, "100-continue") {
				return &Violation{Status: http.StatusExpectationFailed, Reason: whyExpect}
			}
		}
	case len("connection"):
		if is(name, "connection") {
			return connection(value)
		}
	}
	return nil
}

func (h *head) contentLength(value []byte) *Violation {
	const most = 18 // digits, so that no sum overflows
	if h.lengths++; h.lengths > 1 {
		return bad("The request has more than one Content-Length.")
	}
	if len(value) == 0 || len(value) > most || len(value) > 1 && value[0] == '0' {
		return bad("The request's Content-Length is not a plain number.")
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return bad("The request's Content-Length is not a plain number.")
		}
		h.length = h.length*10 + int64(c-'0')
	}
	return nil
}

func (h *head) transferEncoding(value []byte) *Violation {
	h.codings++
	switch {
	case h.codings > 1:
		return bad("The request has more than one Transfer-Encoding.")
	case h.old:
		return bad("The request has a Transfer-Encoding, which HTTP/1.0 does not know.")
	case is(value, "chunked"):
		return nil
	}
	for coding := range bytes.SplitSeq(value, []byte(",")) {
		if !isToken(bytes.Trim(coding, " \t")) {
			return bad("The request's Transfer-Encoding is not chunked.")
		}
	}
	return &Violation{Status: http.StatusNotImplemented, Reason: "The request's Transfer-Encoding is not chunked alone, the only one that is taken."}
}

// connection refuses to have a header taken away that says where the request
// ends or whom it is for: a program on the way that obeyed would read another
// request than we do.
func connection(value []byte) *Violation {
	for option := range bytes.SplitSeq(value, []byte(",")) {
		switch option = bytes.Trim(option, " \t"); {
		case is(option, "host"), is(option, "content-length"), is(option, "transfer-encoding"):
			return bad("The request's Connection names a header that every program on the way needs.")
		}
	}
	return nil
}

// is compares as ASCII; what is in lower case.
func is(b []byte, what string) bool {
	if len(b) != len(what) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != what[i] {
			return false
		}
	}
	return true
}

// tokenByte are the characters of methods and of headers' names (RFC 9110, section
// 5.6.2).
var tokenByte = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte[c] {
			return false
		}
	}
	return len(b) > 0
}

// notInHost finds what no uri-host and port hold (RFC 3986, section 3.2.2).
func notInHost(r rune) bool {
	return r >= 0x7f || strings.IndexByte("-._~!$&'()*+,;=:[]%", byte(r)) < 0 &&
		!('0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z')
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
