//go:build network

package integration

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"defender-proxy/internal/egress"
)

// A region moves while its old address still answers, as when traffic is led to
// another site: no request fails, and so none would ever look the name up again.
// Connections get no older than they may all the same, and the requests move with
// the name. The binary's ten minutes are too long for a story, so this one is of
// the transport alone, whose names a server of the test's own knows.
func TestNetworkNameThatMovesIsFollowedAlthoughTheOldAddressAnswers(t *testing.T) {
	// Not in parallel: there is one resolver in a process.
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const name = "example.com" // as in the certificate of httptest
	names := serveNames(t, conn, map[string]string{name: "127.0.0.2"})
	before := net.DefaultResolver
	defer func() { net.DefaultResolver = before }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}

	var asked [2]atomic.Int64
	port := "0"
	var servers [2]*httptest.Server
	for i, address := range []string{"127.0.0.2", "127.0.0.3"} {
		servers[i] = httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked[i].Add(1) }))
		servers[i].Listener.Close()
		if servers[i].Listener, err = net.Listen("tcp4", address+":"+port); err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(servers[i].Listener.Addr().String())
		servers[i].StartTLS()
		defer servers[i].Close()
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: servers[0].Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	transport, err := egress.New(egress.Settings{CAFile: ca, ConnectTimeout: connectTimeout, MaxAge: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- transport.Run(ctx, nil) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
	}()
	send := func() {
		r, err := http.NewRequest(http.MethodGet, "https://"+net.JoinHostPort(name, port)+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatalf("a request failed while both addresses answer: %v", err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	for range 20 {
		send()
	}
	if there, here := asked[0].Load(), asked[1].Load(); there != 20 || here != 0 {
		t.Fatalf("before the name moves, %d and %d requests came to its two addresses", there, here)
	}
	names.move(name, "127.0.0.3")
	eventually(t, "requests go to the new address", func() error {
		if send(); asked[1].Load() == 0 {
			return fmt.Errorf("%d went to the old one", asked[0].Load())
		}
		return nil
	})
	there := asked[0].Load()
	for range 20 {
		send()
	}
	if got := asked[0].Load(); got != there {
		t.Errorf("%d requests went to the old address after that", got-there)
	}
}
