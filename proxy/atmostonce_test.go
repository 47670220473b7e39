package proxy

import (
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"defender-proxy/regions"
)

var (
	scheduleSeed  = flag.Uint64("schedule.seed", 0, "run the random schedule of this seed alone")
	scheduleCount = flag.Int("schedule.count", 0, "random `schedules` to run; 0: 5,000, or 1,000 with the race detector. With -schedule.seed: how often that is run, 0: once")
)

// TestNoWriteIsSentTwiceAndEveryCallerIsToldTheTruth lets requests of all kinds
// meet regions that fail at random in every way that a network and a server can,
// and holds what the callers were told and what the audit says against what the
// regions saw.
//
// A failure names its seed. The plan follows from the seed alone:
//
//	go test ./proxy -run EveryCallerIsToldTheTruth -args -schedule.seed=N
//
// What happens at the very same instant is in the scheduler's hands, so that a
// rare failure may want -schedule.count=1000 as well, to run it so often.
func TestNoWriteIsSentTwiceAndEveryCallerIsToldTheTruth(t *testing.T) {
	// The bubbles make much garbage, and nothing that lasts.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	if *scheduleSeed != 0 {
		for range max(*scheduleCount, 1) {
			if runSchedule(t, dice(*scheduleSeed)) {
				break
			}
		}
		return
	}
	count := *scheduleCount
	if count == 0 {
		count = 5000
		if withRaceDetector() {
			count = 1000 // each takes several times as long
		}
	}
	base := 1 + rand.Uint64()>>1
	t.Logf("seeds %d to %d", base, base+uint64(count)-1)
	var next, failed atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for failed.Load() < 3 {
				i := next.Add(1) - 1
				if i >= int64(count) {
					return
				}
				if runSchedule(t, dice(base+uint64(i))) {
					failed.Add(1)
				}
			}
		})
	}
	workers.Wait()
}

func withRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// runSchedule runs the schedule of a seed and reports whether it failed.
func runSchedule(t *testing.T, d dice) (failed bool) {
	t.Run(fmt.Sprintf("seed=%d", uint64(d)), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSchedule(d)
			wrong := s.run(t)
			if failed = len(wrong) > 0; failed {
				t.Error(s.report(wrong))
			}
		})
	})
	return failed
}

func (s *schedule) report(wrong []string) string {
	return fmt.Sprintf("%s\n%s\nthe log:\n%s", strings.Join(wrong, "\n"), s, s.world.witness.journal())
}

// schedule is what happens to one proxy.
type schedule struct {
	dice
	calls    []*call
	regions  []regions.Name
	allow    []regions.Name
	weather  map[regions.Name][]spell
	monitor  bool
	hunting  bool // is repeated
	http2    bool // is what the regions speak, over TLS
	maxWait  time.Duration
	trouble  float64       // the share of requests and connections that fare badly
	grain    time.Duration // times are multiples of it, so that things coincide
	latency  map[regions.Name]time.Duration
	auditOut [2]time.Duration // when no record can be stored
	entraOut [2]time.Duration // when Entra ID refuses

	world *fakeWorld
}

// spell is how a region is from a time on.
type spell struct {
	from   time.Duration
	kind   string
	breaks string // how the connections end that are open then; empty: not
}

const (
	fair      = "fair"
	refusing  = "refusing"
	silent    = "silent"    // answers no attempt to connect
	deaf      = "deaf"      // accepts, and reads nothing
	hanging   = "hanging"   // reads, and answers nothing
	failing   = "failing"   // answers 503
	resetting = "resetting" // reads, and resets
)

func newSchedule(d dice) *schedule {
	r := d.roll("schedule")
	s := &schedule{dice: d, weather: make(map[regions.Name][]spell), latency: make(map[regions.Name]time.Duration)}
	s.regions = []regions.Name{"us", "eu", "uk", "au"}[:3+r.IntN(2)]
	s.monitor = r.IntN(3) > 0
	s.hunting = r.IntN(2) > 0
	s.maxWait = []time.Duration{0, 4 * time.Second}[r.IntN(2)]
	s.trouble = []float64{0.1, 0.4, 0.8}[r.IntN(3)]
	s.grain = []time.Duration{1, time.Millisecond, 20 * time.Millisecond}[r.IntN(3)]
	if r.IntN(4) == 0 {
		s.allow = []regions.Name{"us", "uk"}
	}
	horizon := []time.Duration{2 * time.Second, time.Minute}[r.IntN(2)]
	if r.IntN(15) == 0 {
		from := s.time(r, horizon)
		s.auditOut = [2]time.Duration{from, from + s.time(r, horizon)}
	}
	if r.IntN(15) == 0 {
		from := s.time(r, horizon)
		s.entraOut = [2]time.Duration{from, from + s.time(r, horizon)}
	}
	for _, name := range s.regions {
		s.latency[name] = max(s.time(r, 40*time.Millisecond), s.grain)
		at := time.Duration(0)
		for at < horizon {
			spell := spell{from: at, kind: fair}
			if r.Float64() < s.trouble {
				spell.kind = []string{refusing, silent, deaf, hanging, failing, resetting}[r.IntN(6)]
			}
			spell.breaks = []string{"", "", byReset, byClosing, byVanishing}[r.IntN(5)]
			s.weather[name] = append(s.weather[name], spell)
			at += s.grain + s.time(r, horizon)
		}
	}
	for i := range 1 + r.IntN(7) {
		c := &call{id: fmt.Sprintf("%s%04d", idPrefix, i), kind: []*kind{isolate, update, remove, upload, hunt, read, head}[pick(r, 3, 2, 2, 2, 2, 3, 1)], at: s.time(r, horizon)}
		if i > 0 && r.IntN(4) == 0 {
			c.at = s.calls[i-1].at
		}
		if r.IntN(5) == 0 {
			c.leaves = max(s.time(r, []time.Duration{200 * time.Millisecond, 10 * time.Second, 80 * time.Second}[r.IntN(3)]), s.grain)
		}
		switch k := c.kind; {
		case k.stream:
			c.size = maxKept + 1 + r.IntN(128<<10)
			c.pause = []time.Duration{0, s.time(r, 100*time.Millisecond), s.time(r, 6*time.Second)}[pick(r, 4, 4, 1)]
			c.chunked = r.IntN(2) == 0
		case k.method == "POST", k.method == "PATCH":
			c.size = 40 + r.IntN([]int{100, 20 << 10, maxKept - 40}[pick(r, 6, 2, 1)])
			c.chunked = r.IntN(3) == 0
		}
		s.calls = append(s.calls, c)
	}
	return s
}

// time gives a time up to most in the schedule's grain.
func (s *schedule) time(r *rand.Rand, most time.Duration) time.Duration {
	return upTo(r, most) / s.grain * s.grain
}

func (s *schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the schedule: monitor runs %v, hunting is repeated %v, allowed %v, max_wait %v, grain %v\n", s.monitor, s.hunting, s.allow, s.maxWait, s.grain)
	for _, name := range s.regions {
		fmt.Fprintf(&b, "  %s: latency %v, weather %v\n", name, s.latency[name], s.weather[name])
	}
	for _, c := range s.calls {
		fmt.Fprintf(&b, "  %s: %s at %v, leaves after %v, body %d, chunked %v, pauses %v; told %d %v %.300s %v after %v\n",
			c.id, c.kind.method, c.at, c.leaves, c.size, c.chunked, c.pause, c.status, c.header["Proxy-Status"], c.body, c.err, c.ended.Sub(c.began))
	}
	return b.String()
}

// run plays the schedule and returns what is wrong.
func (s *schedule) run(t *testing.T) (wrong []string) {
	s.world = newFakeWorld(t, fakeOptions{
		dice: s.dice, monitor: s.monitor, http2: s.http2, regions: s.regions, allow: s.allow,
		limits: func(l *Limits) { l.MaxWait = s.maxWait },
		deps:   func(d *Deps) { d.RepeatHunting = s.hunting },
		serve:  s.serve,
		entra: func(rw http.ResponseWriter, _ *http.Request) {
			if s.within(s.entraOut) {
				rw.Header().Set("Content-Type", "application/json")
				rw.WriteHeader(http.StatusUnauthorized)
				_, _ = io.WriteString(rw, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
			}
		},
	})
	w := s.world
	for _, r := range w.regions {
		if s.http2 {
			var stop func()
			r.serve, stop = s.serveHTTP2()
			defer stop()
		}
	}
	w.records.fails = func() bool { return s.within(s.auditOut) }
	over := make(chan struct{})
	for _, r := range w.regions {
		r.net.fate = func() fate { return s.fate(r) }
		go s.turn(r, over)
	}
	w.start()
	var calling sync.WaitGroup
	for _, c := range s.calls {
		calling.Go(func() { w.call(c) })
	}
	calling.Wait()
	close(over)
	for _, left := range w.close() {
		wrong = append(wrong, "the connection "+left+" is still open in the end")
	}
	return append(wrong, s.judge()...)
}

func (s *schedule) within(window [2]time.Duration) bool {
	now := time.Since(s.world.witness.start)
	return window[0] <= now && now < window[1]
}

// now is the region's weather.
func (s *schedule) now(r *fakeRegion) (kind string) {
	kind = fair
	for _, w := range s.weather[r.name] {
		if time.Since(s.world.witness.start) >= w.from {
			kind = w.kind
		}
	}
	return kind
}

// turn ends the region's connections when its weather changes.
func (s *schedule) turn(r *fakeRegion, over <-chan struct{}) {
	for _, w := range s.weather[r.name] {
		select {
		case <-over:
			return
		case <-time.After(time.Until(s.world.witness.start.Add(w.from))):
		}
		s.world.witness.logf("%s: %s from now on; connections: %s", r.name, w.kind, w.breaks)
		if w.breaks != "" {
			for _, u := range r.connections() {
				u.finish(w.breaks)
			}
		}
	}
}

// fate decides about an attempt to connect.
func (s *schedule) fate(r *fakeRegion) fate {
	f := fate{latency: s.latency[r.name]}
	if s.http2 {
		f.window = unbounded
	}
	r.mu.Lock()
	n := r.count
	r.mu.Unlock()
	dice := s.roll("dial", r.name, n, time.Since(s.world.witness.start))
	switch kind := s.now(r); {
	case kind == refusing:
		f.refused = true
	case kind == silent:
		f.silent = true
	case kind == fair && dice.Float64() < s.trouble/4:
		f.refused = dice.IntN(2) == 0
		f.silent = !f.refused
	}
	if f.refused || f.silent {
		s.world.witness.logf("%s: an attempt to connect is refused %v, is not answered %v", r.name, f.refused, f.silent)
	}
	return f
}

// dice give the random choices of a schedule. Each is drawn by what it is for and
// not in the order in which they come up, so that the plan is the seed's alone
// and not the scheduler's.
type dice uint64

func (d dice) roll(what ...any) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintln(h, what...)
	return rand.New(rand.NewPCG(uint64(d), h.Sum64()))
}

// pick gives an index by weights.
func pick(r *rand.Rand, weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	n := r.IntN(sum)
	for i, w := range weights {
		if n -= w; n < 0 {
			return i
		}
	}
	panic("unreachable")
}

func upTo(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most) + 1))
}
