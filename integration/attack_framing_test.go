package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Requests that two programs would cut apart in two ways. The one in front sees a
// hunting query with a body; the one behind it sees the body's end earlier, and in
// what is left a request of its own. None of them is let in to be cut at all: each
// is refused, in our words and with a record, and the connection ends.
func TestAttackRequestSmuggling(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	const (
		post   = "POST /api/advancedqueries/run HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\n"
		get    = "GET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\n"
		hidden = "POST /api/machines/1/isolate HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\n\r\n{}"
		end    = "\r\n"
	)
	refused := func(name, request string) attack {
		return attack{name: name, request: request, status: http.StatusBadRequest, code: "InvalidRequest"}
	}
	unknown := func(name, request string) attack {
		return attack{name: name, request: request, status: http.StatusNotImplemented, code: "InvalidRequest"}
	}
	var all []attack
	add := func(a ...attack) { all = append(all, a...) }

	// Two answers to the question where the body ends.
	add(
		refused("a length and chunks", post+"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+hidden),
		refused("chunks and a length", post+"Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n"+hidden),
		refused("chunks and a length of nothing", post+"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"+hidden),
		refused("two lengths", post+"Content-Length: 0\r\nContent-Length: 60\r\n\r\n"+hidden),
		refused("the same length twice", post+"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
		refused("two lengths in one line", post+"Content-Length: 2, 2\r\n\r\n{}"),
		refused("two codings", post+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		refused("two codings of two kinds", post+"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"+hidden),
		unknown("a list of codings", post+"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"+hidden),
		unknown("a list that ends with chunked", post+"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
		refused("a list with an empty member", post+"Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n"),
		refused("a coding with a parameter", post+"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
		refused("a coding in quotes", post+"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
		refused("no coding", post+"Transfer-Encoding:\r\n\r\n"),
		unknown("a coding that nobody knows", post+"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"+hidden),
		unknown("the coding identity", post+"Transfer-Encoding: identity\r\n\r\n"+hidden),
		refused("chunks in HTTP/1.0", "POST /api/advancedqueries/run HTTP/1.0\r\nHost: HOST\r\n"+chunked("{}")),
	)
	for name, coding := range map[string]string{
		"a vertical tab before a coding": "Transfer-Encoding:\x0bchunked", "a null character before a coding": "Transfer-Encoding:\x00chunked",
		"a space before a coding's colon": "Transfer-Encoding : chunked", "a tab before a coding's colon": "Transfer-Encoding\t: chunked",
		"a coding in a folded line": "Transfer-Encoding:\r\n chunked", "a coding in a line folded by a tab": "Transfer-Encoding:\r\n\tchunked",
		"a coding behind a lone line feed": "X-A: b\nTransfer-Encoding: chunked", "a coding behind a lone carriage return": "X-A: b\rTransfer-Encoding: chunked",
		"a coding behind a space": " Transfer-Encoding: chunked", "a coding with a high byte": "Transfer-Encoding: chunked\xff",
	} {
		add(refused(name, post+"Content-Length: 6\r\n"+coding+"\r\n\r\n0\r\n\r\n"+hidden))
	}
	for name, n := range map[string]string{
		"with a plus sign": "+2", "below zero": "-1", "in hexadecimal": "0x2", "with a zero in front": "02", "with letters behind it": "2a", "as a fraction": "2.0",
		"in scientific notation": "2e0", "of more digits than any number has": strings.Repeat("9", 40), "beyond 63 bits": "18446744073709551618", "of nothing at all": "",
		"with a space inside": "1 0", "with an underscore": "1_0", "in quotes": `"2"`, "with a semicolon": "2;", "in Arabic digits": "\u0662",
	} {
		add(refused("a length "+name, post+"Content-Length: "+n+"\r\n\r\n{}"+hidden))
	}

	// Lines that end, begin or hold what they should not.
	for name, request := range map[string]string{
		"lines that end with a line feed alone":           strings.ReplaceAll(get, "\r\n", "\n") + "\n",
		"a head that ends with a line feed alone":         get + "\n",
		"a head that ends with line feed, then properly":  get + "X-A: b\n\r\n",
		"a request line that ends with a line feed alone": strings.Replace(get, "\r\n", "\n", 1) + end,
		"a request line with a carriage return inside":    strings.Replace(get, " HTTP", "\r HTTP", 1) + end,
		"a line that ends with a carriage return alone":   get + "X-A: b\rX-B: c\r\n\r\n",
		"a folded line":                                 "" + get + "X-A: b\r\n c\r\n\r\n",
		"a line folded by a tab":                        get + "X-A: b\r\n\tc\r\n\r\n",
		"a folded line that holds a header":             get + "X-A: b\r\n Content-Length: 60\r\n\r\n" + hidden,
		"a first line that is folded":                   "GET /api/alerts HTTP/1.1\r\n X-A: b\r\nHost: HOST\r\n\r\n",
		"a line without a colon":                        get + "X-A\r\n\r\n",
		"a line without a name":                         get + ": b\r\n\r\n",
		"a name with a space":                           get + "X A: b\r\n\r\n",
		"a name with a space before the colon":          get + "X-A : b\r\n\r\n",
		"a name in brackets":                            get + "X[A]: b\r\n\r\n",
		"a name with a high byte":                       get + "X-\xc3\xa9: b\r\n\r\n",
		"a null character in a value":                   get + "X-A: b\x00c\r\n\r\n",
		"a control character in a value":                get + "X-A: b\x01c\r\n\r\n",
		"a delete character in a value":                 get + "X-A: b\x7fc\r\n\r\n",
		"a null character in a name":                    get + "X\x00A: b\r\n\r\n",
		"a null character in the request line":          strings.Replace(get, "/api", "/\x00api", 1) + end,
		"two empty lines before the request":            "\r\n\r\n" + get + end,
		"an empty line of a line feed before it":        "\n" + get + end,
		"two spaces in the request line":                strings.Replace(get, "GET ", "GET  ", 1) + end,
		"a tab in the request line":                     strings.Replace(get, "GET ", "GET\t", 1) + end,
		"a space in the target":                         "GET /api/alerts /api/machines HTTP/1.1\r\nHost: HOST\r\n\r\n",
		"a space before the request line":               " " + get + end,
		"no target":                                     "GET HTTP/1.1\r\nHost: HOST\r\n\r\n",
		"a request line of a target alone (HTTP/0.9)":   "GET /api/alerts\r\n\r\n",
		"a method that is no word":                      "GE(T /api/alerts HTTP/1.1\r\nHost: HOST\r\n\r\n",
		"bytes of no protocol":                          "\x01\x02\x03\x04\r\n\r\n",
		"the beginning of TLS":                          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\xaa", 512),
		"the beginning of another protocol: SSH":        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
		"the beginning of another protocol: Redis":      "*1\r\n$4\r\nPING\r\n\r\n",
		"the beginning of another protocol: SMTP":       "EHLO evil.example\r\nMAIL FROM:<a@evil.example>\r\n\r\n",
		"the PROXY protocol of nobody that was named":   "PROXY TCP4 10.1.2.3 10.1.2.4 5555 80\r\n" + get + end,
		"the PROXY protocol's second version, the same": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x01\x02\x03\x0a\x01\x02\x04\x15\xb3\x00\x50" + get + end,
	} {
		add(refused(name, request))
	}

	// Whose request is it?
	add(
		refused("two hosts", get+"Host: HOST\r\n\r\n"),
		refused("two hosts, one of another", get+"Host: evil.example\r\n\r\n"),
		refused("no host", "GET /api/alerts HTTP/1.1\r\n\r\n"),
		refused("a host with a path", "GET /api/alerts HTTP/1.1\r\nHost: HOST/evil\r\n\r\n"),
		refused("a host with a user", "GET /api/alerts HTTP/1.1\r\nHost: HOST@evil.example\r\n\r\n"),
		refused("a list of hosts", "GET /api/alerts HTTP/1.1\r\nHost: HOST evil.example\r\n\r\n"),
		refused("a host with a backslash", "GET /api/alerts HTTP/1.1\r\nHost: HOST\\evil.example\r\n\r\n"),
		refused("a target of another host than Host", "GET http://evil.example/api/alerts HTTP/1.1\r\nHost: HOST\r\n\r\n"),
		refused("a target of our host and another Host", "GET http://HOST/api/alerts HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
		refused("a target with a user", "GET http://a@HOST/api/alerts HTTP/1.1\r\nHost: HOST\r\n\r\n"),
		refused("a target without a host", "GET http:///api/alerts HTTP/1.1\r\nHost: HOST\r\n\r\n"),
	)
	for name, version := range map[string]string{
		"a version that comes too early": "HTTP/3.0", "a version of two digits": "HTTP/1.10", "a version in small letters": "http/1.1", "a version without a number": "HTTP/",
		"another protocol's version": "ICY/1.1", "HTTP/0.9 by its name": "HTTP/0.9", "a version between two": "HTTP/1.2",
	} {
		add(attack{name: name, request: "GET /api/alerts " + version + "\r\nHost: HOST\r\n\r\n", status: http.StatusHTTPVersionNotSupported, code: "InvalidRequest"})
	}
	add(attack{name: "HTTP/2 without being asked", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", status: http.StatusHTTPVersionNotSupported, code: "InvalidRequest"})

	// Chunks that end in two places.
	const chunks = post + "Transfer-Encoding: chunked\r\n\r\n"
	for name, body := range map[string]string{
		"an extension that ends with a line feed alone (CVE-2025-22871)": "2;a\n{}\r\n0\r\n\r\n" + hidden,
		"an extension with a line feed inside (CVE-2025-55315)":          "2;a\nb\r\n{}\r\n0\r\n\r\n" + hidden,
		"an extension with a carriage return inside":                     "2;a\rb\r\n{}\r\n0\r\n\r\n" + hidden,
		"an extension without a name":                                    "2;\r\n{}\r\n0\r\n\r\n",
		"an extension with an open quote":                                "2;a=\"b\r\n{}\r\n0\r\n\r\n" + hidden,
		"an extension without end (CVE-2023-39326)":                      "2;a=" + strings.Repeat("b", 70<<10) + "\r\n{}\r\n0\r\n\r\n",
		"an extension with a null character":                             "2;a=\x00\r\n{}\r\n0\r\n\r\n",
		"a size with 0x in front":                                        "0x2\r\n{}\r\n0\r\n\r\n",
		"a size with a plus sign":                                        "+2\r\n{}\r\n0\r\n\r\n",
		"a size below zero":                                              "-2\r\n{}\r\n0\r\n\r\n",
		"a size with a space in front":                                   " 2\r\n{}\r\n0\r\n\r\n",
		"a size with a space behind it":                                  "2 \r\n{}\r\n0\r\n\r\n",
		"a size with an underscore":                                      "0_2\r\n{}\r\n0\r\n\r\n",
		"a size beyond 64 bits":                                          "10000000000000002\r\n{}\r\n0\r\n\r\n" + hidden,
		"no size":                                                        "\r\n{}\r\n0\r\n\r\n",
		"a size that ends with a line feed alone":                        "2\n{}\r\n0\r\n\r\n",
		"a chunk longer than its size":                                   "2\r\n{} \r\n0\r\n\r\n" + hidden,
		"a chunk that ends with a line feed alone":                       "2\r\n{}\n0\r\n\r\n",
		"a chunk that ends with a carriage return alone":                 "2\r\n{}\r0\r\n\r\n",
		"a chunk without an end":                                         "2\r\n{}0\r\n\r\n",
		"a last chunk with a line feed alone":                            "2\r\n{}\r\n0\n\n" + hidden,
		"trailers":                                                       "2\r\n{}\r\n0\r\nX-A: b\r\n\r\n",
		"a trailer that decides":                                         "2\r\n{}\r\n0\r\nContent-Length: 60\r\n\r\n" + hidden,
		"a trailer that authorizes":                                      "2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
	} {
		add(refused(name, chunks+body))
	}
	add(refused("the announcement of a trailer", post+"Trailer: Content-Length\r\n"+chunked("{}")))

	// A body where nobody expects one is a body all the same.
	add(attack{
		name: "a request in the body of a read", request: get + "Connection: close\r\n" + length(hidden),
		status: http.StatusOK, arrive: []string{"GET /api/alerts?$top=1"},
	}, attack{
		name: "a request in the body of one that is refused", request: "POST /api/nothing HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n" + length(hidden),
		status: http.StatusNotFound, code: "UnknownOperation",
	}, attack{
		name: "a request in the chunks of one that is refused", request: "POST /api/nothing HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n" + chunked(hidden),
		status: http.StatusNotFound, code: "UnknownOperation",
	}, attack{
		name: "a request behind one that is refused for its framing", request: get + "Content-Length: +0\r\n\r\n" + hidden,
		status: http.StatusBadRequest, code: "InvalidRequest",
	})
	w.runAll(t, all)
	if n := len(all); n < 100 {
		t.Errorf("these are only %d attacks", n)
	}
}

// What only looks odd is no attack: the letters of a name, empty values, spaces
// around a value, one empty line before a request, extensions of chunks. It is
// served, and what arrives has a framing of the proxy's own.
func TestHonestOddFramingIsServed(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	const body = `{"Query":"DeviceInfo | take 1"}`
	for name, request := range map[string]string{
		"names in any letters":            "GET /api/alerts?$top=1 HTTP/1.1\r\nhOsT: HOST\r\ncOnNeCtIoN: close\r\n\r\n",
		"an empty value":                  "GET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\nX-A:\r\nConnection: close\r\n\r\n",
		"spaces and tabs around a value":  "GET /api/alerts?$top=1 HTTP/1.1\r\nHost: \tHOST \t\r\nConnection:close\r\n\r\n",
		"an empty line before a request":  "\r\nGET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
		"HTTP/1.0":                        "GET /api/alerts?$top=1 HTTP/1.0\r\nHost: HOST\r\n\r\n",
		"chunks in capitals":              "POST /api/advancedqueries/run HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nTransfer-Encoding: CHUNKED\r\n\r\n1F\r\n" + body + "\r\n0\r\n\r\n",
		"chunks with zeros in front":      "POST /api/advancedqueries/run HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0001f\r\n" + body + "\r\n000\r\n\r\n",
		"chunks with an extension":        "POST /api/advancedqueries/run HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1f;a=b;c=\"d;e\"\r\n" + body + "\r\n0;f\r\n\r\n",
		"chunks of a byte":                "POST /api/advancedqueries/run HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n" + chunked(strings.Split(body, "")...),
		"a length, and the body at once":  "POST /api/advancedqueries/run HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body),
		"a length in a read":              "GET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"the absolute form of our own":    "GET http://HOST/api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
		"a name with an underscore alone": "GET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\nx_request_source: soar\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.sim.ResetRequests()
			got := exchange(t, w.address(), strings.ReplaceAll(request, "HOST", w.address()))
			if len(got) != 1 || got[0].status != http.StatusOK {
				t.Fatalf("got %v", got)
			}
			arrived := w.upstream()
			if len(arrived) != 1 || strings.HasPrefix(request, "POST") != (arrived[0].BodyBytes == int64(len(body))) {
				t.Errorf("arrived: %+v", arrived)
			}
		})
	}
}

// Requests that were sent behind one another on one connection are judged one by
// one: what the first may do is no leave for the second, and a refusal of one in
// the middle does not shift those behind it.
func TestAttackPipelining(t *testing.T) {
	t.Parallel()
	w := victim(t, nil)
	read := func(n int) string { return fmt.Sprintf("GET /api/alerts?$top=%d HTTP/1.1\r\nHost: HOST\r\n\r\n", n) }
	w.sim.ResetRequests()
	got := exchange(t, w.address(), strings.ReplaceAll(read(1)+
		"DELETE /api/indicators/1 HTTP/1.1\r\nHost: HOST\r\nContent-Length: 47\r\n\r\nGET /api/machines HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"+
		read(2)+
		"GET /api/alerts HTTP/1.1\r\nHost: rebound.example\r\n\r\n"+
		"GET /api/alerts/../machines HTTP/1.1\r\nHost: HOST\r\n\r\n"+
		"POST /api/machines/1/isolate HTTP/1.1\r\nHost: HOST\r\nOrigin: https://evil.example\r\nContent-Length: 2\r\n\r\n{}"+
		read(3)+
		"GET /api/alerts HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"+
		read(4), "HOST", w.address()))
	var told []string
	for _, a := range got {
		code, _ := a.refused()
		told = append(told, strings.TrimSpace(fmt.Sprint(a.status, " ", code)))
	}
	if want := "200 | 403 NotGranted | 200 | 421 HostNotAllowed | 400 InvalidPath | 403 CrossSiteRequest | 200 | 400 InvalidRequest"; strings.Join(told, " | ") != want {
		t.Errorf("the answers are %s\nwant %s", strings.Join(told, " | "), want)
	}
	var arrived []string
	for _, r := range w.upstream() {
		arrived = append(arrived, r.Method+" "+r.Target)
	}
	if want := "GET /api/alerts?$top=1 | GET /api/alerts?$top=2 | GET /api/alerts?$top=3"; strings.Join(arrived, " | ") != want {
		t.Errorf("arrived: %q", arrived)
	}
}
