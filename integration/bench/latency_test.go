package bench

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The round trips are those of a caller in western Europe: Entra ID, which is
// asked for tokens, and the regions of Defender for Endpoint.
const (
	entraRTT   = 40 * time.Millisecond
	nearestRTT = 12 * time.Millisecond
)

var regionRTT = map[string]time.Duration{
	"eu": nearestRTT, "uk": 30 * time.Millisecond, "us": 90 * time.Millisecond,
	"swa": 110 * time.Millisecond, "ina": 130 * time.Millisecond, "au": 250 * time.Millisecond,
}

const (
	nearest = "eu"
	second  = "uk"
	// fixed is what a tool has that knows one address.
	fixed = "us"
	// proxies is how many run side by side, each with the defaults of the
	// configuration, so that what takes half a minute is waited for once.
	proxies = 20
	// resters is how many more probe each second, and so are at rest when
	// nobody has asked for twenty.
	resters = 8
	// warmCalls is how many are made of each kind that leaves all as it was.
	warmCalls = 100
	// atOnce is a burst.
	atOnce = 8
)

// BenchmarkLatency measures what a caller waits for the first byte of an answer,
// through the proxy and as curl would without it, over a network as wide as the
// world: relays hold every byte back for half a round trip. It prints a table in
// Markdown, and fails when there is no answer, or it comes from another region
// than it should; how long things take is for the reader to judge.
//
//	make bench-latency
func BenchmarkLatency(b *testing.B) {
	w := newWideWorld(b)
	t := &table{}

	var fleet []*served
	var firsts []time.Duration
	right := 0
	for range proxies {
		p := w.serve(b, "30s")
		took, region := p.read(b)
		firsts = append(firsts, took)
		if region == nearest {
			right++ // it knows only what has answered its first probe by now
		}
		fleet = append(fleet, p)
	}
	for _, p := range fleet {
		p.settle(b)
	}

	toNearest, toFixed := w.firstDirect(b, nearest), w.firstDirect(b, fixed)
	warm, kept, direct := w.warm(b, fleet[0])
	t.add("first call, direct, to "+fixed, toFixed)
	t.add("first call, direct, to the nearest", toNearest)
	t.add("first call through a proxy that is just ready", firsts)
	t.add("warm call, direct, connection and token kept", direct)
	t.add("warm call through the proxy", warm)
	t.add("warm call through the proxy, connection to it kept", kept)
	b.ReportMetric(milliseconds(median(warm)-nearestRTT), "ms-beyond-1-RTT")
	b.ReportMetric(milliseconds(median(warm)-median(direct)), "ms-beyond-direct")

	rested := w.rested(b)
	each, slowest := w.bursts(b, fleet)
	t.add(fmt.Sprintf("%d calls at once after idling: each", atOnce), each)
	t.add(fmt.Sprintf("%d calls at once after idling: the slowest", atOnce), slowest)
	t.add("first call after a long rest, no connection left", rested)

	failing, after, returned := w.failover(b, fleet)
	t.add("the nearest region refuses: the read that meets it", failing)
	t.add("the nearest region refuses: the read after it", after)
	b.ReportMetric(milliseconds(median(failing)-median(warm)), "ms-added-by-failover")
	b.ReportMetric(median(returned).Seconds(), "s-to-return")
	b.ReportMetric(0, "ns/op")

	fmt.Fprintf(os.Stdout, "\nRound trips: %s\n\n%s\n", w.roundTrips(), t)
	fmt.Fprintf(os.Stdout, "First calls that went to the nearest region: %d of %d.\n", right, proxies)
	fmt.Fprintf(os.Stdout, "Back at the nearest region after its recovery, with probes every 30 s: median %.0f s, at most %.0f s.\n",
		median(returned).Seconds(), slices.Max(returned).Seconds())
}

// firstDirect is what curl does: a connection and TLS to Entra ID for the token,
// a connection and TLS to the region for the call.
func (w *wideWorld) firstDirect(b *testing.B, region string) []time.Duration {
	b.Helper()
	var took []time.Duration
	for range proxies {
		begun := time.Now()
		login := w.direct()
		token := w.token(b, login)
		login.CloseIdleConnections()
		api := w.direct()
		at, answered := ask(b, api, w.regions[region].url(), token)
		api.CloseIdleConnections()
		from(b, answered, region)
		took = append(took, at.Sub(begun))
	}
	return took
}

// warm makes calls through the proxy and straight, in turn, so that a drift of
// the machine's speed meets all of them: over a new connection to the proxy for
// each call, as with curl, over one that is kept, and straight over one that is
// kept with a token at hand.
func (w *wideWorld) warm(b *testing.B, p *served) (through, kept, straight []time.Duration) {
	b.Helper()
	c := w.direct()
	defer c.CloseIdleConnections()
	token := w.token(b, c)
	timed := func(base, token string) time.Duration {
		begun := time.Now()
		at, answered := ask(b, c, base, token)
		from(b, answered, nearest)
		return at.Sub(begun)
	}
	timed(w.regions[nearest].url(), token) // these two open the connections
	timed(p.callers, "")
	for range warmCalls {
		through = append(through, p.call(b, nearest))
		kept = append(kept, timed(p.callers, ""))
		straight = append(straight, timed(w.regions[nearest].url(), token))
	}
	return through, kept, straight
}

// rested waits until proxies have been unused for so long that they do not probe
// any more, and calls through each once when its connections are gone too.
func (w *wideWorld) rested(b *testing.B) []time.Duration {
	b.Helper()
	var rest []*served
	for range resters {
		rest = append(rest, w.serve(b, "1s"))
	}
	for _, p := range rest {
		until(b, time.Minute, 200*time.Millisecond, "the proxy rests", func() error {
			for _, r := range p.regions(b) {
				if !r.Resting {
					return fmt.Errorf("%s does not", r.Region)
				}
			}
			return nil
		})
	}
	w.drop()
	var took []time.Duration
	for _, p := range rest {
		time.Sleep(time.Second) // the one before probes all regions now
		// What it knows is as old as its rest: where the machine was busy during
		// the last probes, another region may come first.
		if t, region := p.read(b); region == nearest {
			took = append(took, t)
		}
	}
	if len(took) == 0 {
		b.Fatalf("no proxy that rested went to %s", nearest)
	}
	return took
}

// bursts closes every connection, as front ends do with what idles, waits until the proxies have measured the
// regions again, which makes the nearest warm, and has each asked for several
// things at once.
func (w *wideWorld) bursts(b *testing.B, fleet []*served) (each, slowest []time.Duration) {
	b.Helper()
	before := make([]map[string]int, len(fleet))
	for i, p := range fleet {
		before[i] = p.samples(b)
	}
	w.drop()
	for i, p := range fleet {
		until(b, time.Minute, 200*time.Millisecond, "the proxy has measured each region again", func() error {
			for region, n := range p.samples(b) {
				if n == before[i][region] {
					return fmt.Errorf("not %s", region)
				}
			}
			return nil
		})
	}
	for _, p := range fleet {
		p.settle(b)
		took := make([]time.Duration, atOnce)
		var wg sync.WaitGroup
		for i := range took {
			wg.Go(func() { took[i] = p.call(b, nearest) })
		}
		wg.Wait()
		each = append(each, took...)
		slowest = append(slowest, slices.Max(took))
	}
	return each, slowest
}

// failover cuts the nearest region off, reads twice through each proxy, lets the
// region back after some time and waits until each proxy goes there again.
func (w *wideWorld) failover(b *testing.B, fleet []*served) (meets, after, returned []time.Duration) {
	b.Helper()
	for _, p := range fleet {
		p.settle(b)
	}
	w.regions[nearest].refuse(true)
	for _, p := range fleet {
		meets = append(meets, p.call(b, second))
	}
	for _, p := range fleet {
		after = append(after, p.call(b, second))
	}
	// Long enough for the wait between two probes to have grown.
	time.Sleep(20 * time.Second)
	w.regions[nearest].refuse(false)
	recovered := time.Now()
	back := make([]time.Duration, len(fleet))
	until(b, 3*time.Minute, 500*time.Millisecond, "each proxy has returned to "+nearest, func() error {
		away := 0
		for i, p := range fleet {
			if back[i] > 0 {
				continue
			}
			if _, region := p.read(b); region == nearest {
				back[i] = time.Since(recovered)
			} else {
				away++
			}
		}
		if away > 0 {
			return fmt.Errorf("%d have not", away)
		}
		return nil
	})
	return meets, after, back
}

// table is what was measured, as a table in Markdown.
type table struct{ strings.Builder }

func (t *table) add(what string, took []time.Duration) {
	if t.Len() == 0 {
		fmt.Fprintf(t, "| %-52s | %9s | %17s | %11s |\n|%s|%s:|%s:|%s:|\n", "time to first byte", "median", "10 % to 90 %", "round trips",
			strings.Repeat("-", 54), strings.Repeat("-", 10), strings.Repeat("-", 18), strings.Repeat("-", 12))
	}
	slices.Sort(took)
	n := len(took)
	fmt.Fprintf(t, "| %-52s | %6.2f ms | %5.1f to %6.1f ms | %11.1f |\n", what, milliseconds(median(took)),
		milliseconds(took[n/10]), milliseconds(took[n-1-n/10]), float64(median(took))/float64(nearestRTT))
}

func (w *wideWorld) roundTrips() string {
	names := make([]string, 0, len(regionRTT))
	for name := range regionRTT {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(regionRTT[a], regionRTT[b]) })
	text := fmt.Sprintf("Entra ID %d ms", entraRTT.Milliseconds())
	for _, name := range names {
		text += fmt.Sprintf(", %s %d ms", name, regionRTT[name].Milliseconds())
	}
	return text + "; the last column counts those to the nearest region."
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
