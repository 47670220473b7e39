package admin

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/listen"
)

// What could be read in more than one way does not become a page, or worse a
// reload.
func TestAnAmbiguousRequestIsRefused(t *testing.T) {
	s := newSide(t, nil)
	l, err := listen.Open(t.Context(), listen.Settings{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.handler, ConnContext: listen.ConnContext, ConnState: listen.ConnState}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	host := l.Addr().String()
	for _, c := range []struct{ name, request, status, code string }{
		{"a request like any other", "GET /-/healthy HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", "200", ""},
		{"bare line feeds", "GET /-/healthy HTTP/1.1\nHost: " + host + "\n\n", "400", "InvalidRequest"},
		{"a length and a transfer coding", "POST /-/reload HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "InvalidRequest"},
		{"a folded header", "GET /-/healthy HTTP/1.1\r\nHost: " + host + "\r\nX-A: b\r\n c\r\n\r\n", "400", "InvalidRequest"},
	} {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, c.request)
		answer, _ := io.ReadAll(conn)
		conn.Close()
		text := string(answer)
		if !strings.HasPrefix(text, "HTTP/1.1 "+c.status+" ") || c.code != "" && !strings.Contains(text, `"code":"`+c.code+`"`) || strings.Contains(text, "healthy") != (c.code == "") {
			t.Errorf("%s: got %q, want %s %s", c.name, text, c.status, c.code)
		}
	}
}
