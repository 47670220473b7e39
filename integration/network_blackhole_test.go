//go:build network

package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// A router on the way begins to drop what is sent to the nearest region, and
// says nothing. Whoever waits for it is answered by the next region before the
// kernel would notice; whoever comes after that notices nothing. When packets
// get through again, the nearest region is used again.
func TestNetworkBlackHoleIsPaidForOnceByTheReadsUnderWay(t *testing.T) {
	t.Parallel()
	for _, way := range []way{httpOne, httpTwo} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			w := by(t, way, setup{})
			before := w.relays["eu"].accepted.Load()
			w.keptTo("eu", 8, "/api/alerts")
			if all := w.relays["eu"].accepted.Load(); way.http2 && all > before || !way.http2 && all < 8 {
				t.Errorf("eight reads at once used %d connections, and opened %d of them", all, all-before)
			}
			w.strike("eu", simulator.Fault{Kind: simulator.FaultHang, Match: "/api/machines"})
			waiting := w.later(http.MethodGet, "/api/machines?$top=1", "")
			w.arrived(http.MethodGet, "/api/machines")
			w.sim.ResetRequests()

			w.net.swallow(address("eu", 2))
			var sent []<-chan timed
			for range 8 {
				sent = append(sent, w.later(http.MethodGet, "/api/alerts?$top=1", ""))
			}
			for i, a := range sent {
				w.answered(fmt.Sprintf("read %d, sent into the black hole,", i+1), a, detection+slack, "uk", "us")
			}
			w.answered("the read that was waiting", waiting, detection+slack, "uk", "us")
			w.reads(20, "uk", "us")
			if at := w.regionsOf(http.MethodGet, "/api/machines"); len(at) != 1 {
				t.Errorf("the read that was waiting was repeated at %q, want once", at)
			}
			if at := w.regionsOf(http.MethodGet, "/api/alerts"); len(at) != 28 {
				t.Errorf("28 reads arrived as %d: %q", len(at), at)
			}

			w.strike("eu", noFault)
			w.healed("eu", func() { w.net.pass(address("eu", 2)) })
			w.reads(5, "eu")
		})
	}
}

// Both near regions fall into a black hole at once, under reads that are sent to
// the first of them, while many connections to the second are kept from better
// days. The reads find the third; also where the other end of all these
// connections is a proxy of the network, so that none of them ever seems dead.
func TestNetworkBlackHoleOfTwoRegionsLeavesTheThird(t *testing.T) {
	t.Parallel()
	for _, way := range []way{httpOne, http1Proxied} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			w := by(t, way, setup{})
			eu, uk := address("eu", 2), address("uk", 2)
			w.net.swallow(eu)
			w.nearest("uk")
			w.keptTo("uk", 30, "/api/alerts")
			w.healed("eu", func() { w.net.pass(eu) })
			w.keptTo("eu", 4, "/api/alerts")
			w.net.swallow(eu)
			w.net.swallow(uk)
			var sent []<-chan timed
			for range 4 {
				sent = append(sent, w.later(http.MethodGet, "/api/alerts?$top=1", ""))
			}
			for i, a := range sent {
				w.answered(fmt.Sprintf("read %d", i+1), a, detection+slack, "us")
			}
			w.reads(10, "us")
		})
	}
}

// While nobody asks, both near regions fall into a black hole. The probes notice,
// and the first read goes to the third as if that had always been the nearest.
func TestNetworkBlackHoleThatProbesNoticedCostsNoReadAnything(t *testing.T) {
	t.Parallel()
	w := by(t, httpOne, setup{})
	w.reads(1, "eu")
	w.net.swallow(address("eu", 2))
	w.net.swallow(address("uk", 2))
	w.nearest("us")
	w.reads(10, "us")
	w.healed("uk", func() { w.net.pass(address("uk", 2)) })
	w.healed("eu", func() { w.net.pass(address("eu", 2)) })
}

// three writes whose requests look alike to the proxy.
var writes = []string{"isolate", "restrictCodeExecution", "runAntiVirusScan"}

func writing(s setup) setup {
	s.permissions = map[string][]string{"mde": {"Machine.Isolate", "Machine.RestrictExecution", "Machine.Scan"}}
	change := s.config
	s.config = func(c object) {
		allow(c, "read", "hunt", "respond")
		if change != nil {
			change(c)
		}
	}
	return s
}

// Writes meet the black hole at different moments: one waits for its answer, of
// one the answer is swallowed, one never arrives. Nobody can tell these apart, so
// each caller is told that it may have been carried out; not after four minutes,
// but when the connection is known to be dead. None is sent twice, not even when
// packets get through again.
func TestNetworkBlackHoleWritesAreToldTheTruthAndArriveOnceAtMost(t *testing.T) {
	t.Parallel()
	for _, way := range []way{httpOne, httpTwo, http2Proxied} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			w := by(t, way, writing(setup{}))
			w.keptTo("eu", 8, "/api/alerts")
			machine := "/api/machines/" + w.sim.MachineID() + "/"
			eu := address("eu", 2)
			post := func(action string) <-chan timed {
				return w.later(http.MethodPost, machine+action, `{"Comment":"x","IsolationType":"Full","ScanType":"Full"}`)
			}
			w.strike("eu", simulator.Fault{Kind: simulator.FaultHang, Match: machine + writes[0]})
			answers := make(map[string]<-chan timed)
			answers[writes[0]] = post(writes[0])
			w.arrived(http.MethodPost, machine+writes[0])
			w.net.swallowFrom(eu)
			answers[writes[1]] = post(writes[1])
			w.arrived(http.MethodPost, machine+writes[1])
			w.net.swallow(eu)
			answers[writes[2]] = post(writes[2])

			for _, action := range writes {
				a := <-answers[action]
				code, message := a.refused()
				if a.err != nil || a.status != http.StatusBadGateway && a.status != http.StatusGatewayTimeout || code != "RegionUnavailable" || !a.ours() ||
					!strings.Contains(message, "region eu") || !strings.Contains(message, "may have been carried out") || a.header.Get("Retry-After") != "" {
					t.Errorf("%s was answered %v %v", action, a.answer, a.err)
				}
				if a.took > detection+slack {
					t.Errorf("%s was answered after %v, want about %v", action, a.took, detection)
				}
				t.Logf("%s: %d after %v: %s", action, a.status, a.took.Round(time.Millisecond), message)
			}
			// A write that comes now goes elsewhere.
			after := w.answered("a write after that", w.later(http.MethodPost, machine+"unisolate", `{"Comment":"x"}`), slack, "uk", "us")
			w.strike("eu", noFault)
			w.healed("eu", func() {
				w.net.passFrom(eu)
				w.net.pass(eu)
			})
			for _, c := range []struct {
				action string
				want   []string
			}{{writes[0], []string{"eu"}}, {writes[1], []string{"eu"}}, {writes[2], nil}, {"unisolate", []string{after}}} {
				if at := w.regionsOf(http.MethodPost, machine+c.action); !slices.Equal(at, c.want) {
					t.Errorf("%s arrived at %q, want %q", c.action, at, c.want)
				}
			}
		})
	}
}

// The way is cut for some seconds, less than a connection survives. A write that
// was under way is answered when the packets get through, as if nothing had been,
// although the region was given up for others meanwhile.
func TestNetworkShortCutCostsAWriteTimeAndNothingElse(t *testing.T) {
	t.Parallel()
	w := by(t, httpOne, writing(setup{}))
	w.keptTo("eu", 4, "/api/alerts")
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	w.net.swallow(address("eu", 2))
	begun := time.Now()
	write := w.later(http.MethodPost, path, `{"Comment":"x","IsolationType":"Full"}`)
	w.eventually("the region is given up", func() error {
		if a := w.get("/api/alerts?$top=1"); a.hop() == "eu" {
			return fmt.Errorf("it answers reads")
		}
		return nil
	})
	w.net.pass(address("eu", 2))
	t.Logf("the cut lasted %v", time.Since(begun).Round(time.Millisecond))
	w.answered("the write", write, detection+slack, "eu")
	if at := w.regionsOf(http.MethodPost, path); !slices.Equal(at, []string{"eu"}) {
		t.Errorf("the write arrived at %q", at)
	}
	w.healed("eu", nil)
}
