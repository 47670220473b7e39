package listen

import (
	"math/bits"
	"sync"
	"time"
)

// unfinishedBytes bounds the buffers in which a listener keeps heads that have not
// come to their end. Those of smallBuffer, which most heads fit into, do not count:
// connections that wait with nothing to say cost nothing of it.
const unfinishedBytes = 64 << 20

// heads counts the buffers of unfinished heads. When there is no room for one more,
// the largest that wait outside net/http have to go: whoever fills the room with
// heads that do not end loses them, and a head that is smaller comes through.
type heads struct {
	most int

	mu    sync.Mutex // guards what follows and counted of every wire
	bytes int
	// by are the wires that can be told to go, by the bits of their size.
	by [bits.UintSize + 1]map[*wire]struct{}
}

// counted is what a wire's head counts for.
type counted struct {
	bytes int
	gone  bool // was told to go
}

// grow takes room for a head's buffer, in place of what it had, and reports whether
// there is any.
func (h *heads) grow(w *wire, size int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.counted.gone {
		return false
	}
	h.drop(w)
	for h.bytes+size > h.most {
		if !h.evict(bits.Len(uint(size))) {
			return false
		}
	}
	h.bytes += size
	w.counted.bytes, w.grown = size, true
	if w.waits {
		class := &h.by[bits.Len(uint(size))]
		if *class == nil {
			*class = make(map[*wire]struct{})
		}
		(*class)[w] = struct{}{}
	}
	return true
}

// drop forgets what a wire counts for.
func (h *heads) drop(w *wire) {
	h.bytes -= w.counted.bytes
	delete(h.by[bits.Len(uint(w.counted.bytes))], w)
	w.counted.bytes = 0
}

// evict lets one of the largest go, of that class at least.
func (h *heads) evict(least int) bool {
	for class := len(h.by) - 1; class >= least; class-- {
		for w := range h.by[class] {
			h.drop(w)
			w.counted.gone = true
			_ = w.SetReadDeadline(time.Unix(1, 0)) // its read ends, and it learns of it
			return true
		}
	}
	return false
}

// gone reports whether a wire's head was told to go.
func (h *heads) gone(w *wire) bool {
	if !w.grown {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return w.counted.gone
}

// finish gives a head's room free: it is complete, or it is given up.
func (h *heads) finish(w *wire) {
	if !w.grown {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(w)
	w.counted, w.grown = counted{}, false
}
