package simulator

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// mischief lets a share of the answers go wrong. The sequence of mishaps
// depends on the seed alone; which request meets which depends on the order in
// which requests arrive.
type mischief struct {
	share float64
	seed  uint64

	mu  sync.Mutex
	rng *rand.Rand
}

// mishap is one answer that goes wrong before anything was carried out.
type mishap uint8

const (
	mishapUnavailable mishap = iota + 1
	mishapThrottled
	mishapUnauthorized
	mishapReset
)

func newMischief(share float64, seed uint64) *mischief {
	m := &mischief{share: share, seed: seed}
	m.reset()
	return m
}

func (m *mischief) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rng = rand.New(rand.NewPCG(m.seed, 0x6d697363))
}

// draw gives the next mishap among those that are possible, nil for none.
func (m *mischief) draw(possible ...mishap) *mishap {
	if m.share == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rng.Float64() >= m.share {
		return nil
	}
	return &possible[m.rng.IntN(len(possible))]
}

// api draws for an authenticated request of the API: probes stay as they are.
func (m *mischief) api() *mishap {
	return m.draw(mishapUnavailable, mishapThrottled, mishapUnauthorized, mishapReset)
}

// entra draws for a request to Entra ID.
func (m *mischief) entra() *mishap {
	return m.draw(mishapUnavailable, mishapThrottled, mishapReset)
}

// strike answers for Entra ID.
func (m mishap) strike(w http.ResponseWriter, r *http.Request, now time.Time) {
	switch m {
	case mishapReset:
		resetCaller(w, r)
	case mishapThrottled:
		refuse(50196).write(w, r, now)
	default:
		refuse(90033).write(w, r, now)
	}
}

// strikeAPI answers for a region.
func (m mishap) strikeAPI(w http.ResponseWriter, r *http.Request) {
	switch m {
	case mishapReset:
		resetCaller(w, r)
	case mishapThrottled:
		writeProblem(w, &problem{http.StatusTooManyRequests, "TooManyRequests", "API calls quota exceeded! You can send requests again in 1 second.", 1, ""})
	case mishapUnauthorized:
		writeProblem(w, unauthorized("The access token was refused."))
	default:
		writeProblem(w, &problem{http.StatusServiceUnavailable, "ServiceUnavailable", "The service is unavailable. Try again.", 1, ""})
	}
}
