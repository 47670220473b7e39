package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"defender-proxy/regions"
)

// sighting is a request that arrived at a region, wholly or in part.
type sighting struct {
	at     time.Time
	told   time.Time // when it was answered
	region regions.Name
	id     string // empty where too little arrived to tell
	words  string // its first ones
	kept   bool   // it was not the first on its connection
	status int    // of the answer that reached the proxy; 0: none
	again  string // the Retry-After of that
	bytes  int64  // of its body
	// mangled says that the body came to its end and is not what the caller sent.
	mangled bool
	begun   bool // some of an answer was sent, if not whole
	number  int  // stands in the answer's header
}

func (s sighting) String() string {
	return fmt.Sprintf("{%s %s %q answered %d, Retry-After %q}", s.at.Format("04:05.000000"), s.region, s.words, s.status, s.again)
}

// witness knows what the regions saw, and keeps the log of a schedule.
type witness struct {
	start time.Time

	mu   sync.Mutex // guards what follows
	seen []*sighting
	came map[int]bool // the answers that the proxy got, by the number of the sighting
	// strays are the regions that sent 408 on an idle connection.
	strays []regions.Name
	log    []event
}

// event is a line of the log. It is written only when somebody reads it, and most
// schedules go well.
type event struct {
	at     time.Duration
	format string
	args   []any
}

// logf takes note; the arguments must not change any more.
func (w *witness) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, event{time.Since(w.start), format, args})
}

func (w *witness) journal() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, e := range w.log {
		fmt.Fprintf(&b, "%14v  %s\n", e.at, fmt.Sprintf(e.format, e.args...))
	}
	return b.String()
}

// of gives the sightings of a request, in order, once all is over. Those of an
// empty id are the ones of which nobody can tell whose they were.
func (w *witness) of(id string) []sighting {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []sighting
	for _, s := range w.seen {
		if s.id == id {
			o := *s
			if !w.came[s.number] {
				o.status = 0 // it was lost on the way
			}
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b sighting) int { return a.at.Compare(b.at) })
	return out
}

// note adds a sighting and tells how many of the same request came before.
func (w *witness) note(s *sighting) (before int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.seen {
		if o.id == s.id {
			before++
		}
	}
	w.seen = append(w.seen, s)
	s.number = len(w.seen)
	return before
}

// sightHeader carries a sighting's number in the answer to it.
const sightHeader = "Odata-Sighting"

// mangled notes that a body came to its end and is not what the caller sent.
func (w *witness) mangled(s *sighting, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.mangled, s.bytes = true, n
}

// got notes that the proxy was given an answer.
func (w *witness) got(h http.Header) {
	n, err := strconv.Atoi(h.Get(sightHeader))
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.came == nil {
		w.came = make(map[int]bool)
	}
	w.came[n] = true
}
