package token

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

func liveSource(tb testing.TB) *Source {
	tb.Helper()
	e := New(Options{Transport: &entra{}})
	ctx, cancel := context.WithCancel(tb.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Run(ctx) })
	tb.Cleanup(func() { cancel(); wg.Wait() })
	s := e.Source(contoso(), mde)
	if _, err := s.Bearer(ctx); err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestHandingOutATokenAllocatesNothing(t *testing.T) {
	s := liveSource(t)
	got := testing.AllocsPerRun(1000, func() {
		if b, ok := s.Current(); !ok || b.Authorization() == "" {
			t.Error("no token")
		}
	})
	if got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}

func BenchmarkCurrent64Goroutines(b *testing.B) {
	s := liveSource(b)
	b.SetParallelism((64 + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if t, ok := s.Current(); !ok || t.Authorization() == "" {
				b.Error("no token")
				return
			}
		}
	})
}

// BenchmarkClock is the floor of the one above: the reading of the clocks.
func BenchmarkClock(b *testing.B) {
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_ = readClocks()
		}
	})
}

func TestAnIdleSourceTakesLittleMemory(t *testing.T) {
	const n, limit = 1000, 16 << 10
	f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
		a := contoso()
		a.ClientID = form["client_id"]
		return answer(200, granted(a, mde, time.Hour)), nil
	}}
	e := running(t, Options{Transport: f})
	measure := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := measure()
	keep := make([]*Source, n)
	for i := range keep {
		a := contoso()
		a.ClientID = uuid.NewString()
		keep[i] = e.Source(a, mde)
		mustBearer(t, keep[i])
	}
	if got := (measure() - before) / n; got > limit {
		t.Errorf("a source with its token takes %d bytes, want at most %d", got, limit)
	}
	runtime.KeepAlive(keep)
}
