package listen

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// pieces is a connection whose bytes come in pieces, one for each read, and then
// end. It needs no socket, so that a test can have a million of them.
type pieces struct {
	mu     sync.Mutex
	in     []string
	out    bytes.Buffer
	seen   []string
	closed chan struct{}
	once   sync.Once
}

func (p *pieces) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.in) > 0 && p.in[0] == "" {
		p.in = p.in[1:]
	}
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.in[0])
	p.in[0] = p.in[0][n:]
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *pieces) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pieces) saw(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, text)
}

func (*pieces) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*pieces) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*pieces) SetDeadline(time.Time) error      { return nil }
func (*pieces) SetReadDeadline(time.Time) error  { return nil }
func (*pieces) SetWriteDeadline(time.Time) error { return nil }

// memory is a listener for them.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

func (*memory) Addr() net.Addr { return &net.TCPAddr{} }

// pieceServer is net/http behind a front that reads pieces.
type pieceServer struct {
	t testing.TB
	m *memory
}

func pieced(t testing.TB) *pieceServer {
	s := &pieceServer{t, &memory{conns: make(chan net.Conn), closed: make(chan struct{})}}
	serve(t, newFront(s.m, nil, 0, 0), func(served *served) {
		served.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ConnContext(ctx, c), s, c.(interface{ NetConn() net.Conn }).NetConn())
		}
		served.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text := line(r)
			r.Context().Value(s).(*pieces).saw(text)
			w.Header().Set("X-Handler", "1")
			if v := Violated(r); v != nil {
				w.WriteHeader(v.Status)
			}
			_, _ = io.WriteString(w, "ok")
		})
	})
	return s
}

// run sends the pieces and gives the requests that net/http saw, and all answers.
func (s *pieceServer) run(in ...string) (seen []string, out string) {
	s.t.Helper()
	p := &pieces{in: append([]string(nil), in...), closed: make(chan struct{})}
	s.m.conns <- p
	select {
	case <-p.closed:
	case <-time.After(patience):
		s.t.Fatalf("the connection is open after %v: %q", patience, in)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen, p.out.String()
}
