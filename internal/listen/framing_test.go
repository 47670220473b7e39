package listen

import (
	"io"
	"slices"
	"strings"
	"testing"
)

const followed = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n"

// attacks are byte strings that programs have read in more than one way, and what
// becomes of them; and those that look like it and are honest. A want that begins
// with "refused" is the beginning of what the caller is told; nothing may follow it.
var attacks = []struct {
	name, bytes string
	want        []string
}{
	{"a plain request", "GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n", []string{`GET /a?b=c "h" ""`}},
	{"two on a connection", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n" + followed, []string{`GET /a "h" ""`, `GET /next "h" ""`}},
	{"HTTP/1.0 without a Host", "GET /a HTTP/1.0\r\n\r\n", []string{`GET /a "" ""`}},
	{"HTTP/1.0 that keeps its connection", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + followed, []string{`GET /a "" ""`, `GET /next "h" ""`}},
	{"a request after the last of a connection", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + followed, []string{`GET /a "h" ""`}},
	{"an empty line before the request", "\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`GET /a "h" ""`}},
	{"an empty line after a body", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi\r\n" + followed, []string{`POST /a "h" "hi"`, `GET /next "h" ""`}},
	{"a body of a stated length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" + followed, []string{`POST /a "h" "hello"`, `GET /next "h" ""`}},
	{"a GET with a body", "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}" + followed, []string{`GET /a "h" "{}"`, `GET /next "h" ""`}},
	{"a length of nothing", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" + followed, []string{`POST /a "h" ""`, `GET /next "h" ""`}},
	{"a chunked body", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n" + followed, []string{`POST /a "h" "hello world"`, `GET /next "h" ""`}},
	{"CHUNKED in capitals, sizes in both cases and with zeros before", "POST /a HTTP/1.1\r\nHOST: h\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0a\r\n0123456789\r\nB\r\n0123456789a\r\n000\r\n\r\n", []string{`POST /a "h" "01234567890123456789a"`}},
	{"an extension of a chunk as RFC 9112 has it", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;a;b=c;d=\"e \\\" f\"\r\nhi\r\n0;z\r\n\r\n", []string{`POST /a "h" "hi"`}},
	{"chunks that hold what looks like requests", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n", []string{`POST /a "h" "0\r\n\r\n"`}},
	{"an absolute target with its own Host", "GET http://h:80/a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`GET http://h:80/a "h:80" ""`}},
	{"an absolute target in capitals", "GET HTTP://H/a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`GET HTTP://H/a "H" ""`}},
	{"an address of IPv6", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", []string{`GET / "[::1]:8080" ""`}},
	{"a CONNECT, which the guard refuses", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", []string{`CONNECT h:443 "h:443" ""`}},
	{"OPTIONS of everything", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", []string{`OPTIONS * "h" ""`}},
	{"a body that waits for leave", "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", []string{`POST /a "h" "hi"`}},
	{"an upgrade, which nobody follows", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + followed, []string{`GET /a "h" ""`, `GET /next "h" ""`}},
	{"bytes above ASCII in a value", "GET /a HTTP/1.1\r\nHost: h\r\nX-A: \xc3\xbc\t\"\r\n\r\n", []string{`GET /a "h" ""`}},
	{"a tab around a value", "POST /a HTTP/1.1\r\nHost:\th\t\r\nContent-Length:\t2 \t\r\n\r\nhi" + followed, []string{`POST /a "h" "hi"`, `GET /next "h" ""`}},

	{"line feeds alone", "GET /a HTTP/1.1\nHost: h\n\n", []string{`refused 400 "GET" "/a": A line of the request ends with a line feed alone`}},
	{"one line feed alone behind a header", "GET /a HTTP/1.1\r\nHost: h\nX-A: b\r\n\r\n", []string{`refused 400 "GET" "/a": A line of the request ends with a line feed alone`}},
	{"a line feed alone as the last line", "GET /a HTTP/1.1\r\nHost: h\r\n\n", []string{`refused 400 "GET" "/a": A line of the request ends with a line feed alone`}},
	{"a carriage return in a header", "GET /a HTTP/1.1\r\nHost: h\r\nX-A: b\rTransfer-Encoding: chunked\r\n\r\n", []string{`refused 400 "GET" "/a": A line of the request holds a carriage return`}},
	{"two carriage returns at a line's end", "GET /a HTTP/1.1\r\nHost: h\r\r\n\r\n", []string{`refused 400 "GET" "/a": A line of the request holds a carriage return`}},
	{"a NUL in a header", "GET /a HTTP/1.1\r\nHost: h\r\nX-A: b\x00c\r\n\r\n", []string{`refused 400 "GET" "/a": The request's line or headers hold a control character`}},
	{"an escape for terminals in the target", "GET /a\x1b[2J HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "/a?": The request's line or headers hold a control character`}},
	{"a folded header", "GET /a HTTP/1.1\r\nHost: h\r\nX-A: b\r\n Transfer-Encoding: chunked\r\n\r\n", []string{`refused 400 "GET" "/a": A header line begins with a space`}},
	{"a folded header with a tab", "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\t5\r\n\r\nhello", []string{`refused 400 "GET" "/a": The request's Content-Length is not a plain number`}},
	{"a space before the first header", "GET /a HTTP/1.1\r\n Host: h\r\n\r\n", []string{`refused 400 "GET" "/a": A header line begins with a space`}},
	{"a length and chunks", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", []string{`refused 400 "POST" "/a": The request has both`}},
	{"chunks and a length", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG", []string{`refused 400 "POST" "/a": The request has both`}},
	{"two lengths", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", []string{`refused 400 "POST" "/a": The request has more than one Content-Length`}},
	{"the same length twice", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\nhello", []string{`refused 400 "POST" "/a": The request has more than one Content-Length`}},
	{"a list of lengths", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", []string{`refused 400 "POST" "/a": The request's Content-Length is not`}},
	{"a length with a sign", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", []string{`refused 400 "POST" "/a": The request's Content-Length is not`}},
	{"a negative length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", []string{`refused 400 "POST" "/a": The request's Content-Length is not`}},
	{"a length in octal", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 010\r\n\r\n0123456789", []string{`refused 400 "POST" "/a": The request's Content-Length is not`}},
	{"a length in hexadecimal", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", []string{`refused 400 "POST" "/a": The request's Content-Length is not`}},
	{"a length with an underscore", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1_0\r\n\r\n0123456789", []string{`refused 400 "POST" "/a": The request's Content-Length is not`}},
	{"a length beyond 64 bits", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551621\r\n\r\nhello", []string{`refused 400 "POST" "/a": The request's Content-Length is not`}},
	{"an empty length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", []string{`refused 400 "POST" "/a": The request's Content-Length is not`}},
	{"a space before the colon", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", []string{`refused 400 "POST" "/a": The name of a header is not a word`}},
	{"a tab before the colon", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length\t: 5\r\n\r\nhello", []string{`refused 400 "POST" "/a": The name of a header is not a word`}},
	{"a header without a name", "GET /a HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n", []string{`refused 400 "GET" "/a": The name of a header is not a word`}},
	{"a header without a colon", "GET /a HTTP/1.1\r\nHost: h\r\nX-A\r\n\r\n", []string{`refused 400 "GET" "/a": A header line has no colon`}},
	{"a header's name above ASCII", "GET /a HTTP/1.1\r\nHost: h\r\nTran\xc5\xbffer-Encoding: chunked\r\n\r\n", []string{`refused 400 "GET" "/a": The name of a header is not a word`}},
	{"chunked twice in a list", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", []string{`refused 501 "POST" "/a": The request's Transfer-Encoding is not chunked alone, the only one`}},
	{"chunked after another coding", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", []string{`refused 501 "POST" "/a": The request's Transfer-Encoding is not chunked alone, the only one`}},
	{"chunked in two headers", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []string{`refused 400 "POST" "/a": The request has more than one Transfer-Encoding`}},
	{"identity behind chunked", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", []string{`refused 400 "POST" "/a": The request has more than one Transfer-Encoding`}},
	{"a coding that is a word like chunked", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", []string{`refused 501 "POST" "/a": The request's Transfer-Encoding is not chunked alone, the only one`}},
	{"chunked in quotes", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", []string{`refused 400 "POST" "/a": The request's Transfer-Encoding is not chunked.`}},
	{"chunked with a parameter", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", []string{`refused 400 "POST" "/a": The request's Transfer-Encoding is not chunked.`}},
	{"chunked behind a vertical tab", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", []string{`refused 400 "POST" "/a": The request's line or headers hold a control character`}},
	{"chunked with a letter that folds to k", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chun\xe2\x84\xaaed\r\n\r\n0\r\n\r\n", []string{`refused 400 "POST" "/a": The request's Transfer-Encoding is not chunked.`}},
	{"chunks in HTTP/1.0", "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []string{`refused 400 "POST" "/a": The request has a Transfer-Encoding, which HTTP/1.0`}},
	{"gzip as the only coding", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", []string{`refused 501 "POST" "/a": The request's Transfer-Encoding is not chunked alone, the only one`}},
	{"two Hosts", "GET /a HTTP/1.1\r\nHost: h\r\nHost: evil.example\r\n\r\n", []string{`refused 400 "GET" "/a": The request has more than one Host`}},
	{"the same Host twice", "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "/a": The request has more than one Host`}},
	{"no Host", "GET /a HTTP/1.1\r\n\r\n", []string{`refused 400 "GET" "/a": The request has no Host`}},
	{"a Host with a slash", "GET /a HTTP/1.1\r\nHost: h/../evil\r\n\r\n", []string{`refused 400 "GET" "/a": The request's Host holds a character`}},
	{"a Host with userinfo", "GET /a HTTP/1.1\r\nHost: a@h\r\n\r\n", []string{`refused 400 "GET" "/a": The request's Host holds a character`}},
	{"a list of Hosts", "GET /a HTTP/1.1\r\nHost: h evil.example\r\n\r\n", []string{`refused 400 "GET" "/a": The request's Host holds a character`}},
	{"an absolute target with another Host", "GET http://evil.example/a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "http://evil.example/a": The request's target names another host`}},
	{"an absolute target with userinfo", "GET http://h@evil.example/a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "http://h@evil.example/a": The request's target is no path`}},
	{"a target of another scheme", "GET file:///etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "file:///etc/passwd": The request's target is no path`}},
	{"an absolute target without an authority", "GET http:/a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "http:/a": The request's target is no path`}},
	{"a target without a slash", "GET a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "a": The request's target is no path`}},
	{"a space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "/a": The request line is not METHOD TARGET VERSION`}},
	{"two spaces in the request line", "GET  /a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "": The request line is not METHOD TARGET VERSION`}},
	{"tabs in the request line", "GET\t/a\tHTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "" "": The request line is not METHOD TARGET VERSION`}},
	{"a space before the method", " GET /a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "" "": The request's method is not a word`}},
	{"a space behind the version", "GET /a HTTP/1.1 \r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "/a": The request line is not METHOD TARGET VERSION`}},
	{"a method that is no word", "G@T /a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "" "": The request's method is not a word`}},
	{"HTTP/0.9", "GET /a\r\n\r\n", []string{`refused 400 "GET" "/a": The request line is not METHOD TARGET VERSION`}},
	{"HTTP/1.2, as what stands in says", "GET /a HTTP/1.2\r\nHost: h\r\n\r\n", []string{`refused 505 "GET" "/a": The request's version of HTTP`}},
	{"what stands in for others", standIn, []string{`refused 505 "REFUSED" "*": The request's version of HTTP`}},
	{"HTTP/1.10", "GET /a HTTP/1.10\r\nHost: h\r\n\r\n", []string{`refused 505 "GET" "/a": The request's version of HTTP`}},
	{"http/1.1 in small letters", "GET /a http/1.1\r\nHost: h\r\n\r\n", []string{`refused 505 "GET" "/a": The request's version of HTTP`}},
	{"HTTP/2 by prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []string{`refused 505 "PRI" "*": The proxy speaks HTTP/1.1 and not HTTP/2.`}},
	{"TLS to a plain listener", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", []string{`refused 400 "" "": The request begins like TLS`}},
	{"two empty lines before the request", "\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "" "": The request begins with empty lines`}},
	{"PROXY protocol version 2", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x01\xc3\x50\x01\xbb", []string{`refused 400 "" "": The request begins with empty lines. So does a header of PROXY protocol: if this is one, name its sender under balancers of the listener.`}},
	{"PROXY protocol version 1", "PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "PROXY" "TCP4": This looks like PROXY protocol version 1: name its sender under balancers`}},
	{"a percent sign alone", "GET /a%zz?b=%zz HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "/a%zz": The request's path holds a percent sign`}},
	{"a percent sign at the end", "GET /a%2 HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "/a%2": The request's path holds a percent sign`}},
	{"trailers that were announced", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n0\r\nX-A: b\r\n\r\n", []string{`refused 400 "POST" "/a": The request has trailers`}},
	{"an expectation that nobody knows", "GET /a HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", []string{`refused 417 "GET" "/a": The request expects something other`}},
	{"two expectations", "GET /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue, tea\r\n\r\n", []string{`refused 417 "GET" "/a": The request expects something other`}},
	{"a Connection that names Content-Length", "POST /a HTTP/1.1\r\nHost: h\r\nConnection: close, Content-Length\r\nContent-Length: 5\r\n\r\nhello", []string{`refused 400 "POST" "/a": The request's Connection names a header`}},
	{"a CONNECT of more than a host", "CONNECT h:4?3 HTTP/1.1\r\nHost: h:4\r\n\r\n", []string{`refused 400 "CONNECT" "h:4": The target of a CONNECT is not HOST:PORT`}},
	{"a CONNECT of a path", "CONNECT /a HTTP/1.1\r\nHost: h\r\n\r\n", []string{`refused 400 "CONNECT" "/a": The target of a CONNECT is not HOST:PORT`}},
	{"a CONNECT with a body", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nContent-Length: 30\r\n\r\n" + followed, []string{`refused 400 "CONNECT" "h:443": A CONNECT has no body`}},
	{"a query with a secret in what is refused", "GET /a?sig=secret HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", []string{`refused 400 "GET" "/a": The request has more than one Host`}},
	{"one behind a good one", followed + "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n" + followed, []string{`GET /next "h" ""`, `refused 400 "GET" "/a": The request has more than one Host`}},
	{"a request in the body of one that has none", "GET /a HTTP/1.1\r\nHost: h\r\n\r\nX" + followed, []string{`GET /a "h" ""`, `XGET /next "h" ""`}},

	{"trailers that nobody announced", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: b\r\n\r\n" + followed, []string{`POST /a "h" "hi" broken`}},
	{"a chunk's size with a line feed alone", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n" + followed, []string{`POST /a "h" "" broken`}},
	{"a chunk's data with a line feed alone", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\n0\r\n\r\n" + followed, []string{`POST /a "h" "hi" broken`}},
	{"a chunk longer than it says", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhim\r\n0\r\n\r\n" + followed, []string{`POST /a "h" "hi" broken`}},
	{"a chunk's extension with a line feed (CVE-2025-55315)", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\nhi\r\n0\r\n\r\n" + followed, []string{`POST /a "h" "" broken`}},
	{"a chunk's extension with a carriage return", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;a\rb\r\nhi\r\n0\r\n\r\n", []string{`POST /a "h" "" broken`}},
	{"a chunk's extension with a line break in quotes", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"\r\nhi\r\n0\r\n\r\n\"\r\n", []string{`POST /a "h" "" broken`}},
	{"a chunk's extension without end", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("a", 300) + "\r\nhi\r\n0\r\n\r\n", []string{`POST /a "h" "" broken`}},
	{"spaces around a chunk's size", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n", []string{`POST /a "h" "" broken`}},
	{"a chunk's size with 0x", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n", []string{`POST /a "h" "" broken`}},
	{"a chunk's size with a sign", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n", []string{`POST /a "h" "" broken`}},
	{"a negative size of a chunk", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhi\r\n0\r\n\r\n", []string{`POST /a "h" "" broken`}},
	{"an empty size of a chunk", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhi\r\n0\r\n\r\n", []string{`POST /a "h" "" broken`}},
	{"a chunk's size beyond 64 bits", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nhi\r\n0\r\n\r\n", []string{`POST /a "h" "" broken`}},
	{"a body that breaks off", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", []string{`POST /a "h" "hel" broken`}},
}

func TestAttacksOnTheFramingOfRequests(t *testing.T) {
	for _, tc := range attacks {
		t.Run(tc.name, func(t *testing.T) {
			s := plain(t)
			got := answers(t, converse(t, s.address, tc.bytes))
			compare(t, got, tc.want)
			if seen := s.lines(); !slices.Equal(seen, got) {
				t.Errorf("net/http saw %q and answered %q", seen, got)
			}
		})
	}
}

// compare holds that the lines are those, or begin like them where they tell of a
// refusal.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	same := slices.EqualFunc(got, want, func(got, want string) bool {
		return got == want || strings.HasPrefix(want, "refused") && strings.HasPrefix(got, want)
	})
	if !same {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Whatever pieces the bytes come in, what becomes of them is the same.
func TestAttacksInPieces(t *testing.T) {
	s := pieced(t)
	for _, tc := range attacks {
		t.Run(tc.name, func(t *testing.T) {
			for cut := range len(tc.bytes) {
				got, _ := s.run(tc.bytes[:cut], tc.bytes[cut:])
				compare(t, got, tc.want)
			}
			got, _ := s.run(strings.Split(tc.bytes, "")...)
			compare(t, got, tc.want)
			if t.Failed() {
				t.Logf("%q", tc.bytes)
			}
		})
	}
}

func TestHeadsAreBoundedToTheByte(t *testing.T) {
	const limit = 4 << 10
	s := serve(t, newFront(loopback(t), nil, limit, 0), nil)
	for _, tc := range []struct {
		name, begin, fill, end string
	}{
		{"one large header", "GET /a HTTP/1.1\r\nHost: h\r\nX-A: ", "a", "\r\n\r\n"},
		{"many small headers", "GET /a HTTP/1.1\r\nHost: h\r\nX-A: 4", "\r\nX: 12", "\r\n\r\n"},
		{"a large target", "GET /", "a", " HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"a large method", "A", "a", " / HTTP/1.1\r\nHost: h\r\n\r\n"},
	} {
		for _, more := range []int{0, 1} {
			size := limit - len(tc.begin) - len(tc.end)
			text := tc.begin + strings.Repeat(tc.fill, size/len(tc.fill)) + strings.Repeat("b", size%len(tc.fill)+more) + tc.end
			if len(text) != limit+more {
				t.Fatalf("the test makes a head of %d bytes", len(text))
			}
			got := answers(t, converse(t, s.address, "\r\n"+text+followed))
			switch {
			case more == 0 && len(got) != 2:
				t.Errorf("%s, as long as it may be: got %.300q", tc.name, got)
			case more == 1 && (len(got) != 1 || !strings.HasPrefix(got[0], "refused 431 ")):
				t.Errorf("%s, a byte longer: got %.300q", tc.name, got)
			}
		}
	}
	// Of just that length, and nothing behind it.
	text := "\r\nGET /" + strings.Repeat("a", limit-len("GET / HTTP/1.0\r\n\r\n")) + " HTTP/1.0\r\n\r\n"
	c := dial(t, s.address)
	_, _ = io.WriteString(c, text)
	if got := answers(t, readAll(t, c)); len(got) != 1 || !strings.HasPrefix(got[0], "GET /aaa") {
		t.Errorf("got %.300q", got)
	}
	for _, endless := range []string{"a", "A: b\r\n"} {
		got := answers(t, converse(t, s.address, "GET /a HTTP/1.1\r\nHost: h\r\nX: "+strings.Repeat(endless, 100_000)))
		if len(got) != 1 || !strings.HasPrefix(got[0], `refused 431 "GET" "/a"`) {
			t.Errorf("headers without end: got %.300q", got)
		}
	}
}

// A stand-in that reaches a server without ConnContext, and a request that looks
// like one, are refused all the same.
func TestWhatLooksLikeAStandInIsNeverServed(t *testing.T) {
	s := serve(t, newFront(loopback(t), nil, 0, 0), func(s *served) { s.ConnContext = nil })
	got := answers(t, converse(t, s.address, "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"))
	compare(t, got, []string{`refused 505 "" "": The request's version of HTTP`})
	s = serve(t, loopback(t), nil)
	got = answers(t, converse(t, s.address, standIn))
	compare(t, got, []string{`refused 505 "" "": The request's version of HTTP`})
}

func TestAViolationIsAnErrorThatQuotesNothing(t *testing.T) {
	var err error = bad(whyFolded)
	if got, want := err.Error(), "framing of the request: "+whyFolded; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// BenchmarkHead costs what the front adds to a request of a common client.
func BenchmarkHead(b *testing.B) {
	text := []byte("GET /api/alerts?$filter=severity+eq+'High'&$top=100 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: python-requests/2.32.3\r\n" +
		"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nAuthorization: Bearer " + strings.Repeat("e", 1200) + "\r\n\r\n")
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var h head
		if end, v := h.scan(text, 32<<10); v != nil || end != len(text) {
			b.Fatal(end, v)
		}
	}
}
