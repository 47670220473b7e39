package proxy

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// What the other tests conclude from this network holds only if it is one.
func TestTheNetworkInMemoryBehavesAsTCPDoes(t *testing.T) {
	const latency = 10 * time.Millisecond
	for _, c := range []struct {
		name string
		test func(t *testing.T, a, b *fakeConn)
	}{
		{"what is written arrives in order after the latency", func(t *testing.T, a, b *fakeConn) {
			begun := time.Now()
			go func() {
				_, _ = io.WriteString(a, "one ")
				_, _ = io.WriteString(a, "two")
				_ = a.Close()
			}()
			got, err := io.ReadAll(b)
			if string(got) != "one two" || err != nil || time.Since(begun) != latency {
				t.Errorf("got %q, %v after %v", got, err, time.Since(begun))
			}
		}},
		{"a write is accepted although the peer closes meanwhile, and a reset comes back", func(t *testing.T, a, b *fakeConn) {
			_ = b.Close()
			if n, err := io.WriteString(a, "request"); n != 7 || err != nil {
				t.Errorf("the write gives %d, %v", n, err)
			}
			time.Sleep(2 * latency)
			synctest.Wait()
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the read gives %v", err)
			}
			if _, err := io.WriteString(a, "more"); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the second write gives %v", err)
			}
		}},
		{"closing with unread data takes the answer with it", func(t *testing.T, a, b *fakeConn) {
			_, _ = io.WriteString(a, "request")
			time.Sleep(latency)
			synctest.Wait()
			_, _ = io.WriteString(b, "answer")
			if got := string(b.cut(false)); got != "request" {
				t.Errorf("unread is %q", got)
			}
			time.Sleep(latency)
			synctest.Wait()
			if got, err := io.ReadAll(a); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %q, %v", got, err)
			}
		}},
		{"a write waits for the window, and no longer than its deadline", func(t *testing.T, a, b *fakeConn) {
			begun := time.Now()
			_ = a.SetWriteDeadline(begun.Add(time.Second))
			n, err := a.Write(make([]byte, window+1))
			if n != window || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Second {
				t.Errorf("got %d, %v after %v", n, err, time.Since(begun))
			}
		}},
		{"a deadline in the past wakes a read", func(t *testing.T, a, b *fakeConn) {
			go func() {
				time.Sleep(time.Second)
				_ = a.SetReadDeadline(time.Unix(1, 0))
			}()
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}},
		{"nothing comes over a way that has gone", func(t *testing.T, a, b *fakeConn) {
			_, _ = io.WriteString(b, "on its way")
			b.vanish()
			_ = a.SetReadDeadline(time.Now().Add(time.Hour))
			if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %d, %v", n, err)
			}
		}},
		{"half of it can be closed", func(t *testing.T, a, b *fakeConn) {
			_ = a.CloseWrite()
			if _, err := b.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("b reads %v", err)
			}
			_, _ = io.WriteString(b, "still")
			_ = b.Close()
			if got, err := io.ReadAll(a); string(got) != "still" || err != nil {
				t.Errorf("a reads %q, %v", got, err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newFakeNet()
				l := n.listen("127.0.1.1:80")
				l.fate = func() fate { return fate{latency: latency} }
				a, err := n.dial(t.Context(), "tcp", "127.0.1.1:80")
				if err != nil {
					t.Fatal(err)
				}
				b, err := l.accept()
				if err != nil {
					t.Fatal(err)
				}
				c.test(t, a.(*fakeConn), b)
				_ = a.Close()
				_ = b.Close()
			})
		})
	}
	t.Run("who is refused and who is not answered learn it in their time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newFakeNet()
			l := n.listen("127.0.1.1:80")
			l.fate = func() fate { return fate{latency: latency, refused: true} }
			begun := time.Now()
			if _, err := n.dial(t.Context(), "tcp", "127.0.1.1:80"); !errors.Is(err, syscall.ECONNREFUSED) || time.Since(begun) != 2*latency {
				t.Errorf("refused: %v after %v", err, time.Since(begun))
			}
			l.fate = func() fate { return fate{latency: latency, silent: true} }
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begun = time.Now()
			if _, err := n.dial(ctx, "tcp", "127.0.1.1:80"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
				t.Errorf("not answered: %v after %v", err, time.Since(begun))
			}
		})
	})
}
