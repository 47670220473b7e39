package links

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// bufferSize is the memory that a Reader holds while it is read, in bytes. It
// must exceed maxHeld, so that there is always room to read into. As much as package
// proxy sends in one piece: with half of it each piece goes out in two, which costs
// a tenth of the speed.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// maxEmptyReads bounds how often in a row a source may return neither bytes nor
// an error.
const maxEmptyReads = 100

var errImpossibleCount = errors.New("links: the source says it read more than it was given room for")

// Reader reads a JSON document and turns its links home. It hands out bytes as
// soon as they are decided: nothing is held back but the start of a member that
// may be a link, at most 10 KiB, and what it hands out does not depend on how the
// document arrives. A document that isn't JSON comes to no harm beyond the
// members it seems to hold.
//
// A Reader is for one goroutine. It takes its buffer from a pool at the first
// Read and gives it back with the error that ends the stream, never earlier:
// that is why there is no Close, which could give a buffer to the next request
// while this one is still being read. One that is abandoned is collected.
type Reader struct {
	// OnNext, when set before the first Read, is told of each @odata.nextLink that
	// is turned home: the link from its path on, as JSON decodes it, such as
	// /api/alerts?$skiptoken=a&b. It is called within the Read that hands out the
	// end of the link, so it knows of the link before the caller can follow it.
	// Links of more than 8 KiB, as the document has them, are not told.
	OnNext func(link string)

	src    io.Reader
	target Target

	buf        *[bufferSize]byte
	start, end int   // the bytes of buf that have not been handed out
	err        error // why src ended; nil while it goes on

	pass   int    // bytes from start on that go out as they are
	skip   int    // bytes after those that are dropped
	insert []byte // what takes the place of the dropped
	next   next
}

// NewReader returns a Reader of src that leads links to target. The errors of
// its Read are those of src, after all the bytes that src gave.
func NewReader(src io.Reader, target Target) *Reader {
	return &Reader{src: src, target: target}
}

// Read implements io.Reader. It waits for src only when it has nothing to hand
// out.
func (r *Reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		switch {
		case r.pass > 0:
			k := copy(p[n:], r.buf[r.start:r.start+r.pass])
			if r.next.on && r.next.take(p[n:n+k]) {
				r.tell()
			}
			n += k
			r.start += k
			r.pass -= k
		case r.skip > 0:
			r.start += r.skip
			r.skip = 0
		case len(r.insert) > 0:
			k := copy(p[n:], r.insert)
			n += k
			r.insert = r.insert[k:]
			if len(r.insert) == 0 {
				r.next.begin()
			}
		case r.start < r.end && r.decide():
		case n > 0:
			return n, nil
		case r.err != nil:
			r.release()
			return 0, r.err
		default:
			r.fill()
		}
	}
	return n, nil
}

// decide settles what becomes of some of the bytes that wait, or reports false
// when it takes more of them to tell.
func (r *Reader) decide() bool {
	data := r.buf[r.start:r.end]
	if len(r.target.base) == 0 {
		r.pass = len(data)
		return true
	}
	ended := r.err != nil
	i := bytes.Index(data, marker)
	if i < 0 {
		r.pass = len(data)
		if !ended {
			r.pass -= partial(data)
		}
		return r.pass > 0
	}
	at, end, v := match(data[i:])
	switch {
	case v == rewrite:
		r.pass, r.skip, r.insert = i+at, end-at, r.target.base
		r.next.pending = r.OnNext != nil && bytes.HasPrefix(data[i:], nextName)
	case v == more && !ended:
		r.pass = i
	default:
		r.pass = i + len(marker)
	}
	return r.pass > 0
}

// tell passes on the link that is complete.
func (r *Reader) tell() {
	if link, ok := r.next.link(); ok {
		r.OnNext(link)
	}
}

// partial counts the bytes at the end of data that a marker may begin with.
func partial(data []byte) int {
	tail := data[max(0, len(data)-len(marker)+1):]
	i := bytes.LastIndexByte(tail, marker[0])
	if i < 0 || !bytes.HasPrefix(marker, tail[i:]) {
		return 0
	}
	return len(tail) - i
}

// fill reads from src once, or until it gives something.
func (r *Reader) fill() {
	if r.buf == nil {
		r.buf = buffers.Get().(*[bufferSize]byte)
	}
	r.end = copy(r.buf[:], r.buf[r.start:r.end])
	r.start = 0
	room := r.buf[r.end:]
	for range maxEmptyReads {
		n, err := r.src.Read(room)
		if n < 0 || n > len(room) {
			// The buffer was another answer's before: what src did not
			// write must not go out.
			r.err = errImpossibleCount
			return
		}
		r.end += n
		r.err = err
		if n > 0 || err != nil {
			return
		}
	}
	r.err = io.ErrNoProgress
}

func (r *Reader) release() {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf, r.start, r.end = nil, 0, 0
	}
}
