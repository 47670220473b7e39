//go:build network

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// wide is a world in which a network lies between the proxy and Microsoft's
// side. The proxy knows that side under Microsoft's own names, as the built-in
// cloud has them, at port 443.
type wide struct {
	*world
	net    *namespaces
	names  *names
	relays map[string]*relay // by the place or the name of what they stand for
}

const (
	probeInterval  = 5 * time.Second
	connectTimeout = 2 * time.Second
	// detection is how long a dead connection may go unnoticed.
	detection = 15 * time.Second
	// slack is what a busy machine may add to any bound.
	slack = 10 * time.Second
)

// The addresses of what has no region.
const (
	loginHost  = "login.microsoftonline.com"
	graphHost  = "graph.microsoft.com"
	corpHost   = "proxy.corp.example"
	globalSeen = "aea" // the region of the simulator that stands for Graph
)

var (
	entraAddress = address("core", 2)
	graphAddress = address("core", 3)
	namesAddress = address("core", 4)
	corpAddress  = address("egress", 2)
)

func regionHost(region string) string { return region + ".api.security.microsoft.com" }

// newWide makes the network and Microsoft's side, but starts no proxy: serve
// does.
func newWide(t *testing.T, s setup) *wide {
	t.Helper()
	ns := newNamespaces(t)
	office := ns.openOffice()
	w := &wide{net: ns, relays: make(map[string]*relay)}
	if s.sim.Delays == nil {
		s.sim.Delays = map[string]time.Duration{"eu": time.Millisecond, "uk": 150 * time.Millisecond, "us": 300 * time.Millisecond}
	}
	change := s.config
	s.config = func(c object) {
		c["listeners"] = []object{{"address": office + ":0"}}
		c["admin"] = object{"address": office + ":0"}
		delete(c, "clouds")
		c["tenants"].([]object)[0]["cloud"] = "commercial"
		inRegions(c, "eu", "uk", "us", "global")
		c["regions"] = object{"probe_interval": probeInterval.String(), "connect_timeout": connectTimeout.String()}
		if change != nil {
			change(c)
		}
	}
	w.world = simulated(t, s)
	known := map[string]string{loginHost: entraAddress, graphHost: graphAddress, corpHost: corpAddress}
	for _, r := range []string{"eu", "uk", "us"} {
		known[regionHost(r)] = address(r, 2)
		w.relays[r] = ns.relay(r, address(r, 2)+":443", hostPort(w.sim.Endpoint(r)))
	}
	for _, a := range []string{graphAddress, namesAddress} {
		ns.ip("core", "addr add "+a+"/24 dev eth0")
	}
	w.relays[loginHost] = ns.relay("core", entraAddress+":443", hostPort(w.sim.Authority()))
	w.relays[graphHost] = ns.relay("core", graphAddress+":443", hostPort(w.sim.Endpoint(globalSeen)))
	w.names = serveNames(t, ns.listenPacket("core", namesAddress+":53"), known)
	for _, p := range []string{"office", "egress"} {
		ns.etc(p, "resolv.conf", "nameserver "+namesAddress+"\noptions timeout:1 attempts:2\n")
		ns.etc(p, "hosts", "127.0.0.1 localhost\n")
	}
	return w
}

func hostPort(url string) string { return strings.TrimPrefix(url, "https://") }

// serve starts the proxy in the office.
func (w *wide) serve(env ...string) {
	w.t.Helper()
	p := &process{t: w.t, cmd: w.office(env, "serve", "--config", w.file, "--log-level", "info"), stdout: new(output), stderr: new(output), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	w.t.Cleanup(p.finish)
	w.process = p
	w.eventually("the proxy listens", func() error {
		select {
		case <-p.ended:
			w.t.Fatalf("the proxy ended: %v\n%s", p.err, p.stderr)
		default:
		}
		if p.find(); p.url == "" || p.admin == "" {
			return fmt.Errorf("its log:\n%s", p.stderr)
		}
		return nil
	})
}

// office makes a run of the binary in the office.
func (w *wide) office(env []string, args ...string) *exec.Cmd {
	return w.net.command("office", command(append([]string{secretVariable + "=" + secret}, env...), args...))
}

// timed is an answer and how long it took to come.
type timed struct {
	answer
	took time.Duration
	err  error
}

// later sends a request and gives the answer when it has come.
func (w *wide) later(method, path, body string) <-chan timed {
	answers := make(chan timed, 1)
	url := w.url + path
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
		defer cancel()
		begun := time.Now()
		a, err := ask(ctx, method, url, body)
		answers <- timed{a, time.Since(begun), err}
	}()
	return answers
}

// answered checks that an answer came from one of the regions, in time, and gives
// that one.
func (w *wide) answered(what string, answers <-chan timed, within time.Duration, regions ...string) string {
	w.t.Helper()
	a := <-answers
	if a.err != nil || a.status/100 != 2 || !slices.Contains(regions, a.hop()) || a.took > within {
		w.t.Errorf("%s was answered after %v (want %v at most, from %q): %v %v", what, a.took, within, regions, a.answer, a.err)
	} else {
		w.t.Logf("%s was answered from %s after %v", what, a.hop(), a.took.Round(time.Millisecond))
	}
	return a.hop()
}

// reads checks that reads are answered by one of the regions at the first
// attempt.
func (w *wide) reads(count int, regions ...string) {
	w.t.Helper()
	for i := range count {
		a := w.get("/api/alerts?$top=1")
		if a.status != http.StatusOK || !slices.Contains(regions, a.hop()) {
			w.t.Fatalf("read %d of %d: %v; want it from %q", i+1, count, a, regions)
		}
		if r := w.recordsOf(a); r[len(r)-1].Attempts != 1 {
			w.t.Errorf("read %d of %d took %d attempts: %+v", i+1, count, r[len(r)-1].Attempts, r)
		}
	}
}

// healed mends the way to the nearest region, unless it is mended, and checks
// that reads go there again within two probe intervals, and after two probes of it
// that were answered.
func (w *wide) healed(region string, mend func()) {
	w.t.Helper()
	before := w.samples(region)
	if mend != nil {
		mend()
	}
	begun := time.Now()
	w.eventually("reads go to "+region+" again", func() error {
		if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK || a.hop() != region {
			return fmt.Errorf("got %d from %s; the regions: %s", a.status, a.hop(), w.get(w.admin+"/-/regions").body)
		}
		return nil
	})
	took, probes := time.Since(begun), w.samples(region)-before
	if took > 2*probeInterval+slack || probes > 2 {
		w.t.Errorf("%s was used again %v and %d good probes after its recovery; want %v and two at most", region, took, probes, 2*probeInterval)
	}
	w.t.Logf("%s was used again %v and %d good probes after its recovery", region, took.Round(time.Millisecond), probes)
}

// samples counts the probes of a region that were answered.
func (w *wide) samples(region string) int {
	w.t.Helper()
	var view struct {
		Regions []struct {
			Service, Region string
			Samples         int
		}
	}
	if err := json.Unmarshal(w.get(w.admin+"/-/regions").body, &view); err != nil {
		w.t.Fatal(err)
	}
	for _, r := range view.Regions {
		if r.Service == "mde" && r.Region == region {
			return r.Samples
		}
	}
	w.t.Fatalf("/-/regions does not know %s", region)
	return 0
}

// keptTo opens connections to the nearest region, by reads at once that it
// delays, and has them kept.
func (w *wide) keptTo(region string, count int, path string) {
	w.t.Helper()
	w.strike(region, faultDelay(path, 500*time.Millisecond))
	defer w.strike(region, noFault)
	var all []<-chan timed
	for range count {
		all = append(all, w.later(http.MethodGet, path+"?$top=1", ""))
	}
	for _, a := range all {
		if a := <-a; a.err != nil || a.status != http.StatusOK || a.hop() != region {
			w.t.Fatalf("before anything is wrong: %v %v", a.answer, a.err)
		}
	}
}

// regionsOf lists where requests arrived.
func (w *wide) regionsOf(method, path string) []string {
	var all []string
	for _, r := range w.arrivals(method, path) {
		all = append(all, r.Region)
	}
	slices.Sort(all)
	return all
}

// arrived waits until a request has arrived.
func (w *wide) arrived(method, path string) {
	w.t.Helper()
	w.eventually(method+" "+path+" has arrived", func() error {
		if len(w.arrivals(method, path)) == 0 {
			return fmt.Errorf("it has not")
		}
		return nil
	})
}
