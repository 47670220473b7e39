// Package usage counts what client groups really call, so that an operator can
// see which grants and permissions nobody uses.
//
// It counts from audit records: those of the running process as they are written,
// or those of a file that was kept. Package admin compares the counts with what is
// granted and held.
package usage

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"defender-proxy/internal/audit"
)

// Key is what is counted apart.
type Key struct{ Client, Tenant, Operation string }

// Count is what is known of one Key.
type Count struct {
	Key
	Answered int64     // requests that got Microsoft's answer
	Reported int64     // those of them that no entry granted, and report mode let pass
	Bridged  int64     // those of them that were sent as the operation's successor
	Refused  int64     // requests that the proxy refused
	First    time.Time // of those that were answered; zero where there is none
	Last     time.Time
}

// MaxKeys is how many keys a Counter tells apart. A client group that asks for a
// hundred operations of a hundred tenants has ten thousand.
const MaxKeys = 100_000

// Counter counts. It is safe for concurrent use.
type Counter struct {
	mu     sync.Mutex // guards what follows
	counts map[Key]*Count
	missed int64
	first  time.Time
	last   time.Time
}

// New makes an empty Counter.
func New() *Counter { return &Counter{counts: make(map[Key]*Count)} }

// Observe counts one record; those of other events than request are passed over,
// those that name no operation of the catalog, and downloads of a file: the call that
// gave their link is counted. It does not keep the record.
func (c *Counter) Observe(r *audit.Record) {
	if r.Event != audit.Request {
		return
	}
	c.count(seen{Key{r.Client, r.Tenant, r.Operation}, r.Time, r.Code, r.Attempts, slices.Contains(r.Reported, notGranted), r.SentAs != "", r.File != ""})
}

// seen is what of a record counts.
type seen struct {
	Key
	at                time.Time
	code              string
	attempts          int
	reported, bridged bool
	download          bool
}

// gone is the code of a caller that left before its answer ended: Microsoft has
// answered, or would have.
const gone = "ClientGone"

// notGranted is the code that report mode lets pass for want of an entry.
const notGranted = "NotGranted"

func (c *Counter) count(s seen) {
	k, at, code := s.Key, s.at, s.code
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first.IsZero() || at.Before(c.first) {
		c.first = at
	}
	if at.After(c.last) {
		c.last = at
	}
	if s.download || k.Client == "" || k.Tenant == "" || k.Operation == "" {
		return
	}
	answered := s.attempts > 0 && (code == "" || code == gone)
	if !answered && (code == "" || code == gone) {
		return // waits for an approval, or left before it was sent
	}
	n := c.counts[k]
	if n == nil {
		if len(c.counts) >= MaxKeys {
			c.missed++
			return
		}
		n = &Count{Key: k}
		c.counts[k] = n
	}
	if !answered {
		n.Refused++
		return
	}
	n.Answered++
	if s.reported {
		n.Reported++
	}
	if s.bridged {
		n.Bridged++
	}
	if n.First.IsZero() || at.Before(n.First) {
		n.First = at
	}
	if at.After(n.Last) {
		n.Last = at
	}
}

// Counts gives what was counted, in the order of the keys.
func (c *Counter) Counts() []Count {
	c.mu.Lock()
	all := make([]Count, 0, len(c.counts))
	for _, n := range c.counts {
		all = append(all, *n)
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Operation, b.Operation))
	})
	return all
}

// Of gives what was counted of some operations, by their ids, in no order.
func (c *Counter) Of(operations map[string]bool) (all []Count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, n := range c.counts {
		if operations[k.Operation] {
			all = append(all, *n)
		}
	}
	return all
}

// Span gives the times of the first and the last record, whatever they were about;
// zero where there is none. missed is how many requests had a key beyond MaxKeys.
func (c *Counter) Span() (first, last time.Time, missed int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first, c.last, c.missed
}

// Read counts the lines of an audit file. lines is how many records it had, of any
// event. Lines that are none are an error, but for the last one, which may be on
// its way.
func (c *Counter) Read(r io.Reader) (lines int, err error) {
	var faulty error // of the line before
	in := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return lines, fmt.Errorf("usage: line %d: %w", number, err)
		}
		if len(line) > 0 && faulty != nil {
			return lines, faulty
		}
		var rec struct {
			Event           audit.Event
			Time            time.Time
			Client, Tenant  string
			Operation, Code string
			Attempts        int
			Reported        []string
			SentAs          string `json:"sent_as"`
			File            string
		}
		switch {
		case len(line) == 0 || len(line) == 1:
		case json.Unmarshal(line, &rec) != nil || rec.Event == "" || rec.Time.IsZero():
			faulty = fmt.Errorf("usage: line %d is no audit record", number)
		default:
			lines++
			if rec.Event == audit.Request {
				c.count(seen{Key{rec.Client, rec.Tenant, rec.Operation}, rec.Time, rec.Code, rec.Attempts, slices.Contains(rec.Reported, notGranted), rec.SentAs != "", rec.File != ""})
			}
		}
		if err == io.EOF {
			return lines, nil
		}
	}
}
