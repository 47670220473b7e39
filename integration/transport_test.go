package integration

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// connections gives the numbers of a region's connections on which something
// arrived that is wanted.
func (w *world) connections(region string, wanted func(simulator.Request) bool) map[uint64]bool {
	found := make(map[uint64]bool)
	for _, r := range w.sim.Requests() {
		if r.Listener == "api" && r.Region == region && wanted(r) {
			found[r.Conn] = true
		}
	}
	return found
}

// withToken wants what callers sent, withoutToken the probes.
func withToken(r simulator.Request) bool    { return r.Header.Get("Authorization") != "" }
func withoutToken(r simulator.Request) bool { return !withToken(r) }

// Four callers come at once, after a while in which nobody did. Each finds a
// warm connection to the nearest region; and when that goes down, to the next.
func TestCallersFindWarmConnectionsToTheTwoNearestRegions(t *testing.T) {
	t.Parallel()
	const warm = 4
	w := newWorld(t, setup{config: func(c object) {
		preferring(c, "eu", "uk")
		timing(c, "probe_interval", "4s")
	}})
	w.nearest("eu")
	for _, region := range []string{"eu", "uk"} {
		w.get("/api/alerts?$top=1") // somebody uses it
		// Just after a probe, so that none is in the way.
		before := -1
		w.eventually(fmt.Sprintf("%d connections to %s are warm", warm, region), func() error {
			n := 0
			for _, r := range w.sim.Requests() {
				if r.Region == region && r.Method == http.MethodHead {
					n++
				}
			}
			if open := w.connections(region, withoutToken); len(open) < warm || before < 0 || n == before {
				before = n
				return fmt.Errorf("%d", len(open))
			}
			return nil
		})
		time.Sleep(200 * time.Millisecond) // the rest of the probe's requests are answered
		if region == "uk" {
			if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
				t.Fatal(err)
			}
			w.get("/api/machines?$top=1")
		}
		if err := w.sim.SetRegion(region, simulator.Fault{Kind: simulator.FaultDelay, Delay: 300 * time.Millisecond, Match: "/api/alerts"}); err != nil {
			t.Fatal(err)
		}
		newest := slices.Max(slices.Collect(maps.Keys(w.connections(region, func(simulator.Request) bool { return true }))))
		begun := time.Now()
		var all sync.WaitGroup
		for range warm {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if a, err := ask(ctx, http.MethodGet, w.url+"/api/alerts?$top=1", ""); err != nil || a.status != http.StatusOK || a.hop() != region {
					t.Errorf("%v, %v", a, err)
				}
			})
		}
		all.Wait()
		cold := 0
		for c := range w.connections(region, func(r simulator.Request) bool { return withToken(r) && r.Time.After(begun) }) {
			if c > newest {
				cold++
			}
		}
		// One may have been opened for a probe that found another in the end: then
		// nothing has arrived on it yet, though it is warm.
		if cold > 1 {
			t.Errorf("%d of %d callers at once met a connection to %s that was not warm", cold, warm, region)
		}
	}
}

// With HTTP/2 many requests share a connection.
func TestWithHTTP2RequestsShareAConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{sim: simulator.Config{HTTP2: true}, config: func(c object) {
		inRegions(c, "eu")
		c["egress"].(object)["http2"] = true
	}})
	w.get("/api/alerts?$top=1")
	w.sim.ResetRequests()
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultDelay, Delay: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if a, err := ask(ctx, http.MethodGet, w.url+"/api/alerts?$top=1", ""); err != nil || a.status != http.StatusOK {
				t.Errorf("%v, %v", a, err)
			}
		})
	}
	callers.Wait()
	if used := w.connections("eu", withToken); len(used) != 1 {
		t.Errorf("eight callers at once used the connections %v", used)
	}
}

// A region speaks TLS 1.1 and no more. No token goes there; the others, with TLS
// 1.2 and 1.3, are used, and the operator reads what is wrong.
func TestARegionWithAnOldTLSIsNotUsed(t *testing.T) {
	t.Parallel()
	answer := func(version uint16) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if version == tls.VersionTLS11 || r.TLS.Version != version {
				t.Errorf("a request came with %s", tls.VersionName(r.TLS.Version))
			}
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"value":[]}`)
		}
	}
	servers := make(map[string]*httptest.Server)
	for region, version := range map[string]uint16{"us": tls.VersionTLS11, "eu": tls.VersionTLS12, "uk": tls.VersionTLS13} {
		servers[region] = newOwn(t, &tls.Config{MinVersion: version, MaxVersion: version}, answer(version))
	}
	w := among(t, setup{config: probing}, servers)
	for range 5 {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK || a.hop() == "us" {
			t.Errorf("got %v", a)
		}
	}
	w.eventually("the operator reads of it", func() error {
		a := w.get(w.admin + "/-/regions")
		if r := w.places("mde")["us"]; r.Failures == 0 || r.Samples > 0 || !strings.Contains(string(a.body), "protocol version") {
			return fmt.Errorf("%s", a.body)
		}
		return nil
	})
}

// A hundred callers ask for an answer that has no end, read a little of it and
// then nothing. Each holds one connection to Microsoft and next to no memory;
// others are served as if nothing were. When they leave, so does what they held.
func TestCallersThatReadSlowlyHoldAConnectionAndNoMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // another process's memory is read from /proc, which others do not have
	}
	overBoth(t, func(t *testing.T, s setup) {
		slow := 100
		if s.sim.HTTP2 {
			slow = 32 // each stream has up to 1 MiB in hand
		}
		w := newWorld(t, s.and(func(c object) { inRegions(c, "eu") }))
		for range 20 {
			w.get("/api/machines?$top=100")
		}
		w.sim.ResetRequests()
		if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultEndless, Match: "/api/alerts"}); err != nil {
			t.Fatal(err)
		}
		before, _ := w.resident(t)
		var open []net.Conn
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		for range slow {
			c, err := net.Dial("tcp", w.address())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
			_ = c.SetDeadline(time.Now().Add(2 * patience))
			fmt.Fprintf(c, "GET /api/alerts HTTP/1.1\r\nHost: %s\r\n\r\n", w.address())
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, resp.Body, 4<<10); err != nil {
				t.Fatal(err)
			}
		}
		// Until all that has a place to go has gone there.
		now, _ := w.resident(t)
		w.eventually("nothing moves any more", func() error {
			time.Sleep(500 * time.Millisecond)
			last := now
			if now, _ = w.resident(t); now > last+(1<<20) {
				return fmt.Errorf("%d MiB, and %d MiB a moment ago", now>>20, last>>20)
			}
			return nil
		})
		t.Logf("%d slow readers: grown by %d MiB", slow, (now-before)>>20)
		if now-before > slowGrowth {
			t.Errorf("the process grew by %d MiB for %d slow readers", (now-before)>>20, slow)
		}
		held := w.arrivals(http.MethodGet, "/api/alerts")
		connections := w.connections("eu", withToken)
		if want := map[bool]int{false: slow, true: 1}[s.sim.HTTP2]; len(held) != slow || len(connections) != want {
			t.Errorf("%d slow readers hold %d requests on %d connections, want %d", slow, len(held), len(connections), want)
		}
		for range 20 {
			if a := w.get("/api/machines?$top=3"); a.status != http.StatusOK || a.err != nil {
				t.Fatalf("another caller: %v", a)
			}
		}
		for _, c := range open {
			c.Close()
		}
		w.eventually("Microsoft's side sees them go", func() error {
			for _, r := range w.arrivals(http.MethodGet, "/api/alerts") {
				if r.Status == 0 {
					return fmt.Errorf("%+v", r)
				}
			}
			return nil
		})
	})
}

// A file is uploaded while the nearest region has just closed its port. What was
// not sent goes whole to the next region, whether the proxy keeps the body or
// streams it; what may have been sent is not sent again.
func TestABodyThatWasNotSentArrivesWholeAtTheNextRegion(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100 << 10, 3 << 20} {
		t.Run(fmt.Sprintf("of %d KiB", size>>10), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{
				permissions: map[string][]string{"mde": {"Library.Manage"}},
				config: func(c object) {
					preferring(c, "eu", "uk")
					allow(c, "read", "libraryfiles.*")
				},
			})
			w.nearest("eu")
			whole := 0
			for i := range 5 {
				body := fmt.Sprintf("--b\r\nContent-Disposition: form-data; name=\"File\"; filename=\"f%d.bin\"\r\n\r\n%s\r\n--b--\r\n", i, strings.Repeat("x", size))
				w.sim.ResetRequests()
				if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultRefuse}); err != nil {
					t.Fatal(err)
				}
				// Most likely it is noticed by now that the kept connections are
				// gone; who takes one before that has sent something.
				time.Sleep(100 * time.Millisecond)
				a := w.do(http.MethodPost, "/api/libraryfiles", body, "Content-Type", "multipart/form-data; boundary=b")
				arrived := w.arrivals(http.MethodPost, "/api/libraryfiles")
				_, message := a.refused()
				sum := sha256.Sum256([]byte(body))
				switch {
				case a.status == http.StatusOK && a.hop() == "uk" && len(arrived) == 1 && arrived[0].BodySHA256 == hex.EncodeToString(sum[:]):
					whole++
				case a.ours() && strings.Contains(message, "may have been carried out") && len(arrived) <= 1:
				default:
					t.Errorf("upload %d arrived as %+v, and its caller was told %v", i, arrived, a)
				}
				if err := w.sim.SetRegion("eu", simulator.Fault{}); err != nil {
					t.Fatal(err)
				}
				if whole > 0 {
					break
				}
				w.nearest("eu")
			}
			if whole == 0 {
				t.Error("no upload arrived whole")
			}
		})
	}
}
