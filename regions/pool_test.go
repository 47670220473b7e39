package regions

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAllowIsTheResidencyGuard(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	p := mustPool(t, m, lab(US, EU, UK), "mde", []Name{UK, EU, EU}, "")
	wantOrder(t, p, "eu, uk")
	for range 2 * outAfter {
		for _, e := range p.Order() {
			m.Report(e, Answered(502))
		}
	}
	if got := len(p.Order()); got != 2 {
		t.Errorf("with all regions out the order has %d endpoints, want both that are allowed", got)
	}
	if _, reason := p.Current(); !strings.HasPrefix(reason, "every allowed region is out") {
		t.Errorf("reason is %q", reason)
	}
}

func TestWhenAllAreOutTheOneThatAnsweredLastIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMonitor(steady(), &network{})
		p := mustPool(t, m, lab(US, EU, UK), "mde", nil, "")
		m.Report(find(p, EU), Answered(502))
		time.Sleep(time.Second)
		m.Report(find(p, EU), Answered(200)) // a success is booked when there was a failure to undo
		for _, n := range []Name{US, EU, UK} {
			for range outAfter {
				m.Report(find(p, n), Answered(504))
			}
		}
		wantOrder(t, p, "eu, us, uk")
	})
}

func TestThePreferredRegionWinsWhileItIsHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay = 10 * time.Millisecond })
		n.set(EU, func(h *host) { h.delay = 30 * time.Millisecond })
		n.set(UK, func(h *host) { h.delay = 200 * time.Millisecond })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU, UK), "mde", nil, UK)
		wantOrder(t, p, "uk, us, eu")
		run(t, m)
		time.Sleep(time.Minute)
		wantOrder(t, p, "uk, us, eu")
		uk := find(p, UK)
		for range outAfter {
			m.Report(uk, Answered(503))
		}
		wantOrder(t, p, "us, eu, uk")
		if _, reason := p.Current(); reason != "nearest: 10ms; uk is out: answered 503 Service Unavailable" {
			t.Errorf("reason is %q", reason)
		}
		m.Report(uk, Answered(200))
		wantOrder(t, p, "uk, us, eu")
	})
}

func TestAMeasuredRegionComesBeforeAnUnmeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.set(US, func(h *host) { h.delay = time.Hour })
		n.set(UK, func(h *host) { h.delay = time.Second })
		m := NewMonitor(steady(), &n)
		p := mustPool(t, m, lab(US, EU, UK), "mde", []Name{US, UK}, "")
		run(t, m)
		time.Sleep(4 * time.Second)
		wantOrder(t, p, "uk, us")
		if _, reason := p.Current(); reason != "nearest: 1s" {
			t.Errorf("reason is %q", reason)
		}
	})
}

func TestPoolsAskedForAlikeAreOne(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	a := mustPool(t, m, lab(US, EU, UK), "mde", []Name{UK, EU}, "")
	b := mustPool(t, m, lab(US, EU, UK), "mde", []Name{EU, UK}, "")
	c := mustPool(t, m, lab(US, EU, UK), "mde", []Name{EU, UK}, UK)
	if a != b || a == c {
		t.Errorf("same arguments give the same pool: %v, another preference too: %v; want true, false", a == b, a == c)
	}
	if find(a, EU) != find(c, EU) {
		t.Error("pools with an endpoint in common should share it")
	}
	for range outAfter {
		m.Report(find(a, EU), Answered(502))
	}
	wantOrder(t, c, "uk, eu")
}

func TestSnapshotTellsWhoChoseARegion(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	mustPool(t, m, lab(US, EU, UK), "mde", nil, "")
	mustPool(t, m, lab(US, EU, UK), "mde", []Name{EU}, "")
	mustPool(t, m, lab(US, EU, UK), "graph", nil, "")
	all := m.Snapshot()
	var names []Name
	for _, s := range all {
		names = append(names, s.Region)
	}
	if got := join(names); got != "global, us, eu, uk" {
		t.Fatalf("the snapshot holds %s", got)
	}
	if eu := state(t, m, EU); len(eu.Chosen) != 1 || join(eu.Chosen[0].Allowed) != "eu" || eu.Chosen[0].Reason != "the only region allowed" {
		t.Errorf("eu was chosen by %+v", eu.Chosen)
	}
	if uk := state(t, m, UK); len(uk.Chosen) != 0 {
		t.Errorf("uk was chosen by %+v, want nobody", uk.Chosen)
	}
}

func TestPoolErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		service Service
		allow   []Name
		prefer  Name
		want    error
		text    string
	}{
		"a service that the cloud lacks":              {"xdr", nil, "", ErrNoService, `regions: cloud lab, service xdr: the cloud does not have the service`},
		"a region that the cloud lacks":               {"mde", []Name{US, "ue"}, "", ErrUnknownRegion, `regions: cloud lab, service mde: allowed region "ue": the cloud does not have the region; this service has us, eu`},
		"a preferred region that it lacks":            {"mde", nil, "ue", ErrUnknownRegion, `regions: cloud lab, service mde: preferred region "ue": the cloud does not have the region; this service has us, eu`},
		"a preferred region that is not allowed":      {"mde", []Name{EU}, US, ErrNotAllowed, `regions: cloud lab, service mde: preferred region "us": the region is not allowed; allowed are eu`},
		"a service that has none of what is allowed":  {"graph", []Name{EU}, "", ErrNotAllowed, `regions: cloud lab, service graph: the region is not allowed: the service has global, allowed are eu; allow one that it has to use it`},
		"a service without a name, as the zero value": {"", nil, "", ErrNoService, `regions: cloud lab, service : the cloud does not have the service`},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := NewMonitor(steady(), &network{}).Pool(lab(US, EU), tc.service, tc.allow, tc.prefer)
			if p != nil || !errors.Is(err, tc.want) || err.Error() != tc.text {
				t.Errorf("got %v, %q, want %q", p, err, tc.text)
			}
		})
	}
}

func TestAPreferenceForARegionOfOtherServicesIsPassedOver(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	wantOrder(t, mustPool(t, m, lab(US, EU), "graph", []Name{EU, Global}, EU), "global")
}

func TestNoTokenGoesInClearTextOrAstray(t *testing.T) {
	for base, ok := range map[string]bool{
		"https://api.example":       true,
		"https://api.example:8443":  true,
		"http://127.0.0.1:8443":     true,
		"http://[::1]:8443":         true,
		"http://localhost:8443":     true,
		"http://api.example":        false,
		"http://localhost.example":  false,
		"ftp://api.example":         false,
		"api.example":               false,
		"":                          false,
		"https://":                  false,
		"https://api.example/":      false,
		"https://api.example/api":   false,
		"https://api.example?a":     false,
		"https://api.example?":      false,
		"https://api.example#a":     false,
		"https://a@api.example":     false,
		"https://api.example:x":     false,
		"https://169.254.169.254%2": false,
	} {
		c := Cloud{Endpoints: map[Service]map[Name]string{"mde": {EU: base}}}
		if _, err := NewMonitor(steady(), &network{}).Pool(c, "mde", nil, ""); (err == nil) != ok {
			t.Errorf("endpoint %q: error %v, want accepted: %v", base, err, ok)
		}
	}
}

func TestTheBuiltInCloudsGivePools(t *testing.T) {
	m := NewMonitor(steady(), &network{})
	for _, c := range Clouds() {
		for s := range c.Endpoints {
			if p := mustPool(t, m, c, s, nil, ""); len(p.Order()) != len(c.Endpoints[s]) {
				t.Errorf("cloud %s, service %s: the order is %s", c.Name, s, order(p))
			}
		}
	}
}

func TestRegionsAreOrderedAsListed(t *testing.T) {
	c := lab("zz", Global, "north", AEA, UK, US)
	if got := join(c.Regions("mde")); got != "us, uk, aea, global, north, zz" {
		t.Errorf("got %s", got)
	}
	if got := c.Regions("none"); len(got) != 0 {
		t.Errorf("a service that is missing has regions %s", join(got))
	}
}

// FuzzOrder: whatever happens to its endpoints, an order holds each allowed
// region once and no other; a healthy one is never behind one that is suspect, nor
// that behind one that is out; the preferred one is first while it is healthy; and
// Lost is closed for those that are suspect alone.
func FuzzOrder(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint8(seed), uint16(200))
	}
	f.Fuzz(func(t *testing.T, seed uint64, allowed uint8, events uint16) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		all := []Name{US, EU, UK, AU, SWA, INA}
		var allow []Name
		for i, n := range all {
			if allowed&(1<<i) != 0 {
				allow = append(allow, n)
			}
		}
		if len(allow) == 0 {
			allow = all
		}
		var prefer Name
		if rnd.IntN(2) == 0 {
			prefer = allow[rnd.IntN(len(allow))]
		}
		m := NewMonitor(steady(), &network{})
		everywhere := mustPool(t, m, lab(all...), "mde", nil, "")
		p := mustPool(t, m, lab(all...), "mde", allow, prefer)
		for range events % 1000 {
			e := everywhere.Order()[rnd.IntN(len(all))]
			switch rnd.IntN(6) {
			case 0:
				m.note(e, Answered(401), true, time.Duration(rnd.IntN(300))*time.Millisecond)
			case 1:
				m.note(e, TimedOut(nil), true, 0)
			case 2:
				m.Report(e, Answered(200+rnd.IntN(310)))
			case 3:
				m.Report(e, ConnectFailed(nil))
			case 4:
				m.note(e, Answered(503), true, 0)
			case 5:
				m.Report(e, Broken(nil))
			}
			got := p.Order()
			var names []Name
			for i, e := range got {
				names = append(names, e.Region)
				rank := e.health.rank()
				if i > 0 && got[i-1].health.rank() > rank && (i > 1 || got[0].Region != prefer || got[0].health.rank() > rankUnmeasured) {
					t.Fatalf("%s, of rank %d, is behind %s, of rank %d", e.Region, rank, got[i-1].Region, got[i-1].health.rank())
				}
				if e.Region == prefer && rank < rankSuspect && i != 0 {
					t.Fatalf("%s is preferred and healthy but comes as number %d", prefer, i)
				}
				if closed(e.Lost()) != e.health.suspect {
					t.Fatalf("%s: lost %v, suspect %v", e.Region, closed(e.Lost()), e.health.suspect)
				}
				if e.Up() != (rank < rankSuspect) {
					t.Fatalf("%s: up %v, of rank %d", e.Region, e.Up(), rank)
				}
				// What is suspect stays out after an answer to a request.
				if failed := e.health.failures.Load() >= outAfter; failed && !e.health.out || e.health.out && !failed && !e.health.suspect {
					t.Fatalf("%s: out %v after %d failures", e.Region, e.health.out, e.health.failures.Load())
				}
			}
			slices.SortFunc(names, compareNames)
			if !slices.Equal(names, allow) {
				t.Fatalf("the order holds %s, allowed are %s", join(names), join(allow))
			}
			if first, reason := p.Current(); first != got[0] || reason == "" {
				t.Fatalf("current is %s (%q), the order begins with %s", first.Region, reason, got[0].Region)
			}
		}
	})
}

// The measure to keep: under 200 ns, without allocation.
func BenchmarkOrder(b *testing.B) {
	m := NewMonitor(steady(), &network{})
	p := mustPool(b, m, Clouds()[0], "mde", nil, "")
	for _, e := range p.Order() {
		m.note(e, Answered(401), true, 20*time.Millisecond)
	}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		p.Begin()
		p.Measured(ctx, time.Second)
		if order, _ := p.Choice(); len(order) != 7 {
			b.Fatal("wrong length")
		}
	}
}

func BenchmarkOrderOfManyCallers(b *testing.B) {
	m := NewMonitor(steady(), &network{})
	p := mustPool(b, m, Clouds()[0], "mde", nil, "")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.Begin()
			if len(p.Order()) != 7 {
				b.Error("wrong length")
			}
		}
	})
}

func BenchmarkReportOfASuccess(b *testing.B) {
	m := NewMonitor(steady(), &network{})
	e, _ := mustPool(b, m, Clouds()[0], "mde", nil, "").Current()
	b.ReportAllocs()
	for b.Loop() {
		m.Report(e, Answered(200))
	}
}
