package listen

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// BenchmarkRequest is a request on an open connection, without and with a front.
func BenchmarkRequest(b *testing.B) {
	for _, bm := range []struct {
		name  string
		front bool
	}{{"plain", false}, {"front", true}} {
		b.Run(bm.name, func(b *testing.B) {
			var l net.Listener = loopback(b)
			if bm.front {
				l = newFront(l, nil, 0, 0)
			}
			s := serve(b, l, func(s *served) {
				s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
			})
			c := dial(b, s.address)
			_ = c.SetDeadline(time.Time{})
			in := bufio.NewReader(c)
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				get(b, c, in, "/")
			}
		})
	}
}
