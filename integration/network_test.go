//go:build network

package integration

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

const secret = simulator.DefaultSecret

var noFault = simulator.Fault{}

func faultDelay(match string, d time.Duration) simulator.Fault {
	return simulator.Fault{Kind: simulator.FaultDelay, Delay: d, Match: match}
}

func (w *wide) strike(region string, f simulator.Fault) {
	w.t.Helper()
	if err := w.sim.SetRegion(region, f); err != nil {
		w.t.Fatal(err)
	}
}

// way is how the proxy speaks with Microsoft's side. A dead connection shows
// itself by other signs on each.
type way struct {
	name    string
	http2   bool
	proxied bool // through squid, whose own connection to us looks well all the time
}

var (
	httpOne      = way{name: "HTTP 1.1"}
	httpTwo      = way{name: "HTTP 2", http2: true}
	http1Proxied = way{name: "HTTP 1.1 through squid", proxied: true}
	http2Proxied = way{name: "HTTP 2 through squid", http2: true, proxied: true}
)

// by starts a proxy that goes that way and has found that eu is the nearest.
func by(t *testing.T, way way, s setup) *wide {
	t.Helper()
	change := s.config
	s.config = func(c object) {
		if way.proxied {
			through("http", plainPort)(c)
		}
		if way.http2 {
			c["egress"].(object)["http2"] = true
		}
		if change != nil {
			change(c)
		}
	}
	s.sim.HTTP2 = way.http2
	w := newWide(t, s)
	if way.proxied {
		w.restricted()
		w.squid()
	}
	w.serve(corpVariable + "=" + corpPassword)
	w.ready()
	w.nearest("eu")
	return w
}

// The link of the nearest region goes down, and the router says that it cannot
// be reached. Then the office's own link goes down: callers are told so at once,
// and served again when it is back.
func TestNetworkLinkThatGoesDownAndComesUp(t *testing.T) {
	t.Parallel()
	w := by(t, httpOne, writing(setup{}))
	w.keptTo("eu", 4, "/api/alerts")
	w.net.ip("router", "link set eu down")
	var reads []<-chan timed
	for range 4 {
		reads = append(reads, w.later(http.MethodGet, "/api/alerts?$top=1", ""))
	}
	for i, a := range reads {
		w.answered(fmt.Sprintf("read %d", i+1), a, detection+slack, "uk", "us")
	}
	w.reads(10, "uk", "us")
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	at := w.answered("a write", w.later(http.MethodPost, path, `{"Comment":"x","IsolationType":"Full"}`), slack, "uk", "us")
	if got := w.regionsOf(http.MethodPost, path); !slices.Equal(got, []string{at}) {
		t.Errorf("the write arrived at %q, want %s", got, at)
	}
	w.healed("eu", func() { w.net.ip("router", "link set eu up") })

	w.net.ip("office", "link set eth0 down")
	a := <-w.later(http.MethodGet, "/api/alerts?$top=1", "")
	code, message := a.refused()
	if a.err != nil || code != "RegionUnavailable" || a.header.Get("Retry-After") == "" || a.took > 3*detection {
		t.Errorf("without a link a read was answered after %v: %v %v", a.took, a.answer, a.err)
	}
	t.Logf("without a link: %d after %v: %s", a.status, a.took.Round(time.Millisecond), message)
	if a := <-w.later(http.MethodPost, path, `{"Comment":"x","IsolationType":"Full"}`); a.status != http.StatusBadGateway && a.status != http.StatusGatewayTimeout || a.took > detection+slack {
		t.Errorf("without a link a write was answered after %v: %v %v", a.took, a.answer, a.err)
	}
	w.healed("eu", func() {
		w.net.ip("office", "link set eth0 up")
		w.net.defaultRoute("office")
	})
	if n := len(w.arrivals(http.MethodPost, path)); n != 1 {
		t.Errorf("the write that was refused for want of a link arrived: %d", n)
	}
}

// Packets to Entra ID are dropped from the start: callers are told that there is
// no token and why, not left waiting. When they get through, all is well; when
// they are dropped again, a live token serves on until it is dead, and not a
// request longer.
func TestNetworkEntraInABlackHole(t *testing.T) {
	t.Parallel()
	const life = 20 * time.Second
	w := newWide(t, setup{sim: simulator.Config{TokenLifetime: life}})
	w.net.swallow(entraAddress)
	w.serve()
	a := <-w.later(http.MethodGet, "/api/alerts?$top=1", "")
	code, message := a.refused()
	if a.err != nil || a.status != http.StatusServiceUnavailable || code != "TokenUnavailable" || a.header.Get("Retry-After") == "" || a.took > 30*time.Second+slack {
		t.Errorf("without a token a read was answered after %v: %v %v", a.took, a.answer, a.err)
	}
	t.Logf("without Entra ID: %d after %v: %s", a.status, a.took.Round(time.Millisecond), message)
	w.net.pass(entraAddress)
	w.ready()
	w.nearest("eu")
	w.reads(3, "eu")

	w.net.swallow(entraAddress)
	w.sim.ResetRequests()
	served := 0
	w.eventually("the token is dead", func() error {
		a := w.get("/api/alerts?$top=1")
		if code, _ := a.refused(); code == "TokenUnavailable" {
			return nil
		}
		if a.status != http.StatusOK {
			t.Fatalf("while the token lives: %v", a)
		}
		served++
		time.Sleep(200 * time.Millisecond)
		return fmt.Errorf("it serves")
	})
	if served < 10 {
		t.Errorf("only %d reads were served by the token that was alive", served)
	}
	for _, r := range w.upstream() {
		if r.Refused != "" {
			t.Errorf("a request left with a token that Microsoft refuses: %+v", r)
		}
	}
	w.net.pass(entraAddress)
	w.eventually("reads are answered again", func() error {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
			return fmt.Errorf("got %v", a)
		}
		return nil
	})
}

// A region moves: its name leads to another address, and nothing answers at the
// old one. The proxy follows without a restart, as soon as it has to connect.
// (How it follows while the old address still answers, by the age of its
// connections, is a test of package egress: ten minutes are too long for a story.)
func TestNetworkNameThatMovesIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWide(t, setup{})
	next := address("eu", 3)
	w.net.ip("eu", "addr add "+next+"/24 dev eth0")
	moved := w.net.relay("eu", next+":443", hostPort(w.sim.Endpoint("eu")))
	w.serve()
	w.ready()
	w.nearest("eu")
	w.reads(3, "eu")
	if moved.accepted.Load() != 0 {
		t.Fatal("something went to the new address before the name did")
	}
	w.names.move(regionHost("eu"), next)
	w.net.swallow(address("eu", 2))
	w.eventually("a connection came to the new address", func() error {
		w.get("/api/alerts?$top=1")
		if moved.accepted.Load() == 0 {
			return fmt.Errorf("none did")
		}
		return nil
	})
	w.healed("eu", nil)
	w.reads(3, "eu")
}
