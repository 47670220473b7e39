package integration

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/rs/zerolog/log"

	"defender-proxy/internal/simulator"
)

func init() {
	// Toxiproxy's bandwidth toxic writes to the global logger.
	log.Logger = zerolog.Nop()
}

// between is the network on the way to one region: Toxiproxy, which delays,
// cuts, slices and swallows what passes.
type between struct {
	t       *testing.T
	address string // host:port that it listens on
	proxy   *toxiproxy.Proxy
}

// newBetween starts a network to the address of a URL.
func newBetween(t *testing.T, to string) *between {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	b := &between{t: t, proxy: toxiproxy.NewProxy(server, u.Host, "127.0.0.1:0", u.Host)}
	if err := b.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.proxy.Stop)
	b.address = b.proxy.Listen
	return b
}

// toxic adds one to a direction: downstream is towards the proxy that is tested.
func (b *between) toxic(kind, stream string, attributes object) {
	b.t.Helper()
	text, err := json.Marshal(object{"name": kind + "_" + stream, "type": kind, "stream": stream, "attributes": attributes})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.proxy.Toxics.AddToxicJson(bytes.NewReader(text)); err != nil {
		b.t.Fatalf("the toxic %s: %v", text, err)
	}
}

// swallow makes a black hole: connections are accepted, and nothing comes back.
// What was sent on its way there arrives, unless both directions are swallowed.
func (b *between) swallow(both bool) {
	b.t.Helper()
	b.toxic("timeout", "downstream", object{"timeout": 0})
	if both {
		b.toxic("timeout", "upstream", object{"timeout": 0})
	}
}

// heal takes all toxics away. Connections that were swallowed end.
func (b *between) heal() { b.proxy.Toxics.ResetToxics(b.t.Context()) }

// afar starts a simulator and a proxy with a network between the proxy and each
// region that is named; the tenant may use no others.
func afar(t *testing.T, s setup, names ...string) (*world, map[string]*between) {
	t.Helper()
	ways := make(map[string]*between)
	inner := s.config
	var sim *simulator.Simulator
	before := s.before
	s.before = func(made *simulator.Simulator) {
		sim = made
		if before != nil {
			before(sim)
		}
	}
	s.config = func(c object) {
		endpoints := object{}
		for _, name := range names {
			ways[name] = newBetween(t, sim.Endpoint(name))
			endpoints[name] = "https://" + ways[name].address
		}
		everywhere(c, endpoints)
		if inner != nil {
			inner(c)
		}
	}
	return newWorld(t, s), ways
}

// everywhere gives the lab's services the same endpoints, by region.
func everywhere(c object, endpoints object) {
	c["clouds"].([]object)[0]["endpoints"] = object{"mde": endpoints, "xdr": endpoints, "graph": endpoints}
}

// timing sets keys of regions: in the configuration.
func timing(c object, keysAndValues ...any) {
	regions, ok := c["regions"].(object)
	if !ok {
		regions = object{}
		c["regions"] = regions
	}
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		regions[keysAndValues[i].(string)] = keysAndValues[i+1]
	}
}

// hop is the region that an answer came from; empty for one of the proxy's own.
func (a answer) hop() string {
	_, hop, _ := strings.Cut(a.header.Get("Proxy-Status"), "next-hop=")
	return hop
}
