package regions

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPagesRememberTheRegionOfAQuery(t *testing.T) {
	p := NewPages()
	contoso := p.Key("contoso", "$skiptoken=a")
	if n, ok := p.Region(contoso); ok {
		t.Errorf("an empty Pages knows %q", n)
	}
	p.Put(contoso, EU)
	p.Put(p.Key("fabrikam", "$skiptoken=a"), UK)
	for _, c := range []struct {
		name, tenant, query string
		want                Name
	}{
		{"the same query", "contoso", "$skiptoken=a", EU},
		{"the same query of another tenant", "fabrikam", "$skiptoken=a", UK},
		{"another query", "contoso", "$skiptoken=b", ""},
		{"another split of tenant and query", "contos", "o$skiptoken=a", ""},
		{"a query that holds the mark between the two", "contoso\x00$skiptoken=a", "", ""},
	} {
		if got, ok := p.Region(p.Key(c.tenant, c.query)); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, ok, c.want)
		}
	}
	p.Put(contoso, US)
	if got, _ := p.Region(contoso); got != US {
		t.Errorf("put again: got %q, want the newest, %q", got, US)
	}
	if other := NewPages(); other.Key("contoso", "$skiptoken=a") == contoso {
		t.Error("two Pages have the same keys")
	}
}

func TestAPageIsRememberedForHalfAnHourToAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPages()
		known := func(key uint64, want bool) {
			t.Helper()
			if _, got := p.Region(key); got != want {
				t.Errorf("after %v: known is %v, want %v", time.Since(p.turned), got, want)
			}
		}
		p.Put(1, EU)
		time.Sleep(pageLife - time.Second)
		p.Put(2, EU)
		known(1, true)
		time.Sleep(2 * time.Second) // a generation turns over
		p.Put(3, EU)
		p.Put(1, EU)
		known(1, true)
		known(2, true)
		time.Sleep(pageLife)
		known(1, true) // it was put again
		known(2, false)
		known(3, true)
		time.Sleep(pageLife)
		known(1, false)
		known(3, false)

		p.Put(4, EU)
		time.Sleep(2*pageLife - time.Second) // nobody asks meanwhile
		known(4, true)
		p.Put(5, EU)
		time.Sleep(3 * pageLife)
		known(5, false)
		known(4, false)
	})
}

func TestPagesAreBounded(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	p := NewPages()
	p.Put(p.Key("contoso", "the first"), EU)
	for i := range maxPages {
		p.Put(p.Key("contoso", fmt.Sprint(i)), UK)
	}
	if n, ok := p.Region(p.Key("contoso", "the first")); !ok || n != EU {
		t.Errorf("after one turn-over the first is %q, %v, want %q", n, ok, EU)
	}
	var most int
	for i := range 1_000_000 {
		p.Put(p.Key("fabrikam", fmt.Sprint(i)), UK)
		most = max(most, len(p.young)+len(p.old))
	}
	if most > 2*maxPages {
		t.Errorf("at most %d keys were held, want %d at most", most, 2*maxPages)
	}
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes, want 8 MiB at most", grown)
	}
	if _, ok := p.Region(p.Key("contoso", "the first")); ok {
		t.Error("the first of a million is still known")
	}
	if n, ok := p.Region(p.Key("fabrikam", "999999")); !ok || n != UK {
		t.Errorf("the newest is %q, %v, want %q", n, ok, UK)
	}
}

func TestPagesServeManyAtOnce(t *testing.T) {
	p := NewPages()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			tenant := fmt.Sprint("t", i)
			for j := range 10_000 {
				key := p.Key(tenant, fmt.Sprint(j))
				p.Put(key, EU)
				if n, ok := p.Region(key); ok && n != EU {
					t.Errorf("tenant %s, page %d: got %q, want %q", tenant, j, n, EU)
					return
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkPagesLookUp(b *testing.B) {
	p := NewPages()
	for i := range maxPages {
		p.Put(p.Key("contoso", fmt.Sprint(i)), EU)
	}
	const query = "$filter=severity+eq+'Medium'&$skiptoken=eyJhIjoiYWFhYWFhYWFhYWFhYWFhYWFhYWFhIn0"
	p.Put(p.Key("contoso", query), EU)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.Region(p.Key("contoso", query)); !ok {
			b.Fatal("not known")
		}
	}
}
