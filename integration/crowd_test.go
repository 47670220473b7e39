package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is callers who read one after the other, each as soon as it has its
// answer, until they are told to stop.
type crowd struct {
	w             *world
	begun         time.Time
	reads, broken atomic.Int32
	stop          atomic.Bool
	all           sync.WaitGroup
}

// readers lets a crowd read. Every answer has to be a good one, but for those
// that had begun to come when their region was cut off: they are no longer the
// proxy's to repeat, and are counted.
//
// They read alerts, or the paths given, by turns.
func (w *world) readers(size int, paths ...string) *crowd {
	if len(paths) == 0 {
		paths = []string{"/api/alerts?$top=3"}
	}
	c := &crowd{w: w, begun: time.Now().Truncate(time.Millisecond)} // records have milliseconds
	during, leave := context.WithCancel(context.Background())
	w.t.Cleanup(func() { // where a story ended before its crowd
		c.stop.Store(true)
		leave()
		c.all.Wait()
	})
	for range size {
		c.all.Go(func() {
			for i := 0; !c.stop.Load(); i++ {
				ctx, cancel := context.WithTimeout(during, patience)
				a, err := ask(ctx, http.MethodGet, w.url+paths[i%len(paths)], "")
				cancel()
				if during.Err() != nil {
					return
				}
				c.reads.Add(1)
				if code, _ := a.refused(); a.status == http.StatusBadGateway && code == "InvalidAnswer" || a.status == http.StatusOK && a.err != nil {
					c.broken.Add(1)
					continue
				}
				if err != nil || a.status != http.StatusOK {
					w.t.Errorf("a read: %v, %v", a, err)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	return c
}

// more waits until the crowd has read n times more.
func (c *crowd) more(n int32) {
	c.w.t.Helper()
	until := c.reads.Load() + n
	c.w.eventually(fmt.Sprintf("%d more reads are done", n), func() error {
		if now := c.reads.Load(); now < until && !c.w.t.Failed() {
			return fmt.Errorf("%d are missing", until-now)
		}
		return nil
	})
}

// end stops the crowd and gives the records of its reads.
func (c *crowd) end() (all []record) {
	c.stop.Store(true)
	c.all.Wait()
	c.w.eventually("every read has its record", func() error {
		all = nil
		for _, r := range records(c.w.t, c.w.stdout.bytes()) {
			if strings.HasPrefix(r.Path, "/api/alerts") && !r.Time.Before(c.begun) {
				all = append(all, r)
			}
		}
		if n := int(c.reads.Load()); len(all) < n {
			return fmt.Errorf("%d of %d", len(all), n)
		}
		return nil
	})
	return all
}

// late picks the records of reads that went to more than one region.
func late(all []record) (some []record) {
	for _, r := range all {
		if r.Attempts > 1 {
			some = append(some, r)
		}
	}
	return some
}
