package listen

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// told is what a server that was opened with some Settings knows of a caller.
type told struct {
	Addr, Via   netip.Addr
	Unix        *Process
	Certificate string
	Local       string // the address that the caller came to
	Proto       string
	Resumed     bool // of TLS
}

// openFor runs a server that tells each caller who it is.
func openFor(t *testing.T, s Settings) (address string) {
	t.Helper()
	l, err := Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l)
}

func serveOn(t *testing.T, l net.Listener) (address string) {
	t.Helper()
	server := &http.Server{ConnContext: ConnContext, ConnState: ConnState, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := Violated(r); v != nil {
			http.Error(w, v.Reason, v.Status)
			return
		}
		peer := PeerOf(r)
		_ = json.NewEncoder(w).Encode(told{
			Addr: peer.Addr, Via: peer.Via, Unix: peer.Unix, Certificate: peer.CertificateName(), Proto: r.Proto,
			Local: r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(), Resumed: r.TLS != nil && r.TLS.DidResume,
		})
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return l.Addr().String()
}

// ask sends a request over a connection that dial makes.
func ask(t *testing.T, dial func(context.Context) (net.Conn, error)) (told, error) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	defer tr.CloseIdleConnections()
	return askThrough(t, tr, "http://localhost/")
}

func askThrough(t *testing.T, tr *http.Transport, url string) (got told, err error) {
	t.Helper()
	client := &http.Client{Transport: tr, Timeout: 20 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return got, errors.New(resp.Status + " " + string(b))
	}
	return got, json.NewDecoder(resp.Body).Decode(&got)
}

func TestOpenTellsWhichAddressIsTaken(t *testing.T) {
	first, err := Open(t.Context(), Settings{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	address := first.Addr().String()
	_, err = Open(t.Context(), Settings{Address: address})
	var used *InUseError
	if !errors.As(err, &used) || used.Address != address || !strings.Contains(err.Error(), address) {
		t.Errorf("got %v, want an InUseError for %s", err, address)
	}
	if _, err := Open(t.Context(), Settings{Address: "127.0.0.1:0", CertFile: "missing.pem", KeyFile: "missing.key"}); err == nil || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestOneConnectionTooManyIsClosedAndTheOthersStay(t *testing.T) {
	bound, err := bind(t.Context(), Settings{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	l := newGate(bound, Settings{})
	defer l.Close()
	l.open = MaxConnections - 1
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	last := dial()
	server := <-accepted
	if _, err := dial().Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the connection beyond the bound reads %v, want EOF", err)
	}
	if _, err := server.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := last.Read(make([]byte, 1)); err != nil {
		t.Errorf("the last one within the bound reads %v", err)
	}
	server.Close()
	server.Close() // counts once
	dial()
	select {
	case c := <-accepted:
		c.Close()
	case <-time.After(10 * time.Second):
		t.Error("the place of a closed connection is not free again")
	}
}

func TestOneSourceHoldsAtMostHalfOfTheConnections(t *testing.T) {
	half := MaxConnections / 2
	one := source{addr: netip.MustParseAddr("10.0.0.1")}
	for _, c := range []struct {
		name string
		from source
		want int
	}{
		{"an address", one, half},
		{"a user of a Unix socket", source{unix: true, uid: 1000}, half},
		{"root", source{unix: true}, half},
		{"those that stand for many", source{}, MaxConnections},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGate(nil, Settings{})
			got := 0
			for got <= MaxConnections && g.enter(c.from) {
				got++
			}
			if got != c.want {
				t.Errorf("it got %d, want %d", got, c.want)
			}
			if other := (source{addr: netip.MustParseAddr("10.0.0.2")}); g.enter(other) != (c.want == half) {
				t.Errorf("another one entered is %t", c.want != half)
			} else if c.want == half {
				g.leave(&socket{source: other})
			}
			for range got {
				g.leave(&socket{source: c.from})
			}
			if g.open != 0 || len(g.by) != 0 {
				t.Errorf("afterwards %d are open, by source %v", g.open, g.by)
			}
		})
	}
}
