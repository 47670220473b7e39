package egress

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestConnectionsAreRenewedInTime(t *testing.T) {
	tr := transport(t, Settings{})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		begun := time.Now()
		var warmed []time.Duration
		go func() {
			done <- tr.Run(ctx, func(_ context.Context, rt http.RoundTripper) {
				if rt == http.RoundTripper(tr.current.Load()) {
					t.Error("requests use the new connections before they are warm")
				}
				warmed = append(warmed, time.Since(begun))
				time.Sleep(3 * time.Second)
				begun = time.Now()
			})
		}()
		before := tr.current.Load()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if len(warmed) < 10 || len(warmed) > 13 {
			t.Errorf("%d renewals in two hours", len(warmed))
		}
		differ := false
		for _, d := range warmed {
			if d < 9*time.Minute || d > 11*time.Minute {
				t.Errorf("a generation served for %v", d)
			}
			differ = differ || d != warmed[0]
		}
		if !differ || tr.current.Load() == before || len(tr.retired) > 8 {
			t.Errorf("times %v, %d generations kept", warmed, len(tr.retired))
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func TestRunEndsWhileItWarms(t *testing.T) {
	tr := transport(t, Settings{MaxAge: time.Millisecond})
	before := tr.current.Load()
	ctx, cancel := context.WithCancel(t.Context())
	if err := tr.Run(ctx, func(context.Context, http.RoundTripper) { cancel() }); err != nil || tr.current.Load() != before {
		t.Errorf("%v; renewed: %v", err, tr.current.Load() != before)
	}
}

// Fifty renewals under load, with writes that nothing could repeat: none fails,
// and no connection is left of those that are not used any more.
func TestNoRequestFailsWhileConnectionsAreRenewed(t *testing.T) {
	noProxies(t)
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			var open, arrived atomic.Int64
			server := upstream(t, func(w http.ResponseWriter, r *http.Request) {
				arrived.Add(1)
				n, _ := io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/slow" {
					time.Sleep(30 * time.Millisecond)
				}
				fmt.Fprintf(w, "%d %s", n, strings.Repeat("x", 10_000))
			}, func(s *httptest.Server) {
				s.EnableHTTP2 = http2
				s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
					switch state {
					case http.StateNew:
						open.Add(1)
					case http.StateClosed, http.StateHijacked:
						open.Add(-1)
					}
				}
			})
			tr := transport(t, Settings{CAFile: trust(t, server.Certificate().Raw), HTTP2: http2, MaxAge: 20 * time.Millisecond})
			ctx, cancel := context.WithCancel(t.Context())
			var renewals, sent atomic.Int64
			var all sync.WaitGroup
			all.Go(func() {
				tr.Run(ctx, func(ctx context.Context, rt http.RoundTripper) {
					if renewals.Add(1) > 50 {
						cancel()
						return
					}
					r, _ := http.NewRequestWithContext(ctx, "HEAD", server.URL, nil)
					if resp, err := rt.RoundTrip(r); err == nil {
						resp.Body.Close()
					}
				})
			})
			for i := range 8 {
				all.Go(func() {
					path := []string{"/", "/slow"}[i%2]
					for ctx.Err() == nil {
						body := struct{ io.Reader }{strings.NewReader("something to write")} // no GetBody
						r, _ := http.NewRequestWithContext(t.Context(), "POST", server.URL+path, body)
						sent.Add(1)
						resp, err := tr.RoundTrip(r)
						if err != nil {
							t.Errorf("after %d renewals: %v", renewals.Load(), err)
							return
						}
						answer, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						if err != nil || !strings.HasPrefix(string(answer), "18 ") {
							t.Errorf("after %d renewals: %.20q, %v", renewals.Load(), answer, err)
						}
					}
				})
			}
			all.Wait()
			if sent.Load() < 50 || arrived.Load() < sent.Load() {
				t.Errorf("%d of %d requests arrived", arrived.Load(), sent.Load())
			}
			tr.renew(tr.generation()) // now no connection is of use
			for limit := time.Now().Add(10 * time.Second); open.Load() != 0; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatalf("%d connections are still open", open.Load())
				}
			}
		})
	}
}

func TestWarmConnectionsAreThereWhenTheyAreNeeded(t *testing.T) {
	noProxies(t)
	server := upstream(t, func(http.ResponseWriter, *http.Request) {}, nil)
	tr := transport(t, Settings{CAFile: trust(t, server.Certificate().Raw), MaxAge: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tr.Run(ctx, func(_ context.Context, rt http.RoundTripper) {
		if tr.retired != nil {
			cancel() // the first renewal is over
			return
		}
		if _, _, err := get(t, rt, server.URL); err != nil {
			t.Error(err)
		}
	})
	reused := false
	r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
	}), "GET", server.URL, nil)
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if !reused {
		t.Error("the first request after a renewal had to open a connection")
	}
}
