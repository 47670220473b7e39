package regions

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// maxPages bounds the keys of one generation. When as many are there, or
	// after pageLife, the next generation begins.
	maxPages = 32 << 10
	pageLife = 30 * time.Minute
)

// Pages remembers which region gave a page of a query, so that the pages that
// follow come from there too: regions may order or index what they hold
// differently. A key is remembered for 30 to 60 minutes after it was put last, for
// less when more than 32,768 others are put meanwhile; at most twice as many are
// held, in about 4 MiB. Pages is safe for concurrent use.
type Pages struct {
	seed maphash.Seed

	mu     sync.Mutex
	young  map[uint64]Name
	old    map[uint64]Name // the generation before; only read
	turned time.Time       // when young began
}

// NewPages returns an empty Pages.
func NewPages() *Pages {
	return &Pages{seed: maphash.MakeSeed(), young: make(map[uint64]Name), turned: time.Now()}
}

// Key names the page that a tenant asks for with query, or the pages that share it.
// Keys cannot be guessed, and hold for this Pages alone.
func (p *Pages) Key(tenant, query string) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	_, _ = h.WriteString(tenant)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(query)
	return h.Sum64()
}

// Put remembers the region of key.
func (p *Pages) Put(key uint64, n Name) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age()
	if _, known := p.young[key]; !known && len(p.young) >= maxPages {
		p.turn()
	}
	p.young[key] = n
}

// Region gives the region of key, if it is known.
func (p *Pages) Region(key uint64) (Name, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age()
	n, known := p.young[key]
	if !known {
		n, known = p.old[key]
	}
	return n, known
}

// age drops what is too old.
func (p *Pages) age() {
	age := time.Since(p.turned)
	if age >= pageLife {
		p.turn()
	}
	if age >= 2*pageLife {
		p.old = nil
	}
}

func (p *Pages) turn() {
	p.young, p.old = make(map[uint64]Name), p.young
	p.turned = time.Now()
}
