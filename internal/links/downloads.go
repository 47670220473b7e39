package links

import (
	"bytes"
	"encoding/json"
	"io"
)

// maxLink bounds, in bytes as the document has it, a link that is offered. It has to
// fit into a buffer with room to spare.
const maxLink = 16 << 10

// maxDepth bounds how deep a document may be nested: what stands behind the place
// where it goes deeper passes as it came.
const maxDepth = 256

// downloads reads a JSON document and offers the URLs in it.
type downloads struct {
	src  io.Reader
	turn func(string) (string, bool)

	buf        *[bufferSize]byte
	start, end int
	err        error // why src ended; nil while it goes on

	pass   int    // bytes from start on that go out as they are
	skip   int    // bytes after those that are dropped
	insert []byte // what takes the place of the dropped

	where    place
	searched int    // bytes of the string at start+1 that hold no end of it
	url      []byte // a link as it is read
}

// place is what is known of the document where the next byte stands.
type place struct {
	in      bool // a string, up to its closing quote
	escaped bool // the next byte of the string, by a backslash
	key     bool // the next string is the name of a member
	lost    bool // too deep: nothing is known any more
	depth   int
	objects [maxDepth/64 + 1]uint64 // for each depth whether it is that of an object
}

// NewDownloads returns a reader of src, a JSON document, that offers turn every string
// value that as a whole is a URL beginning with https:// or http://, and puts what
// turn gives in its place. The URL comes as JSON decodes it. Names of members, parts
// of longer strings, URLs of more than 16 KiB and whatever holds a character beyond
// printable ASCII are not offered. A URL may have quotation marks of its own around
// it, within the string, as the page of getPackageUri shows it
// (learn.microsoft.com/defender-endpoint/api/get-package-sas-uri, read 2026-11); they
// stay.
//
// A URL that src breaks off within is dropped, quote and all, because it may have come
// nearly whole; where src ends with an error, so is what could have become one.
//
// All else passes byte for byte, in constant memory, and does not depend on how the
// document arrives. One that isn't JSON comes to no harm beyond the strings it seems
// to hold. The errors are those of src, after the bytes that src gave. turn is called
// within Read. The reader is for one goroutine and needs no Close, like a Reader.
func NewDownloads(src io.Reader, turn func(url string) (string, bool)) io.Reader {
	return &downloads{src: src, turn: turn}
}

// Read implements io.Reader. It waits for src only when it has nothing to hand out.
func (d *downloads) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		switch {
		case d.pass > 0:
			k := copy(p[n:], d.buf[d.start:d.start+d.pass])
			n += k
			d.start += k
			d.pass -= k
		case d.skip > 0:
			d.start += d.skip
			d.skip = 0
		case len(d.insert) > 0:
			k := copy(p[n:], d.insert)
			n += k
			d.insert = d.insert[k:]
		case d.start < d.end && d.decide():
		case n > 0:
			return n, nil
		case d.err != nil:
			if d.buf != nil {
				buffers.Put(d.buf)
				d.buf, d.start, d.end = nil, 0, 0
			}
			return 0, d.err
		default:
			d.fill()
		}
	}
	return n, nil
}

// fill reads from src once, or until it gives something.
func (d *downloads) fill() {
	if d.buf == nil {
		d.buf = buffers.Get().(*[bufferSize]byte)
	}
	d.end = copy(d.buf[:], d.buf[d.start:d.end])
	d.start = 0
	room := d.buf[d.end:]
	for range maxEmptyReads {
		n, err := d.src.Read(room)
		if n < 0 || n > len(room) {
			d.err = errImpossibleCount // see Reader.fill
			return
		}
		d.end += n
		d.err = err
		if n > 0 || err != nil {
			return
		}
	}
	d.err = io.ErrNoProgress
}

// decide settles what becomes of some of the bytes that wait, or reports false when it
// takes more of them to tell.
func (d *downloads) decide() bool {
	data := d.buf[d.start:d.end]
	i := 0
	for i < len(data) {
		if d.where.lost {
			i = len(data)
			break
		}
		if d.where.in {
			i += d.where.inside(data[i:])
			continue
		}
		c := data[i]
		if c != '"' {
			if structural[c] {
				d.where.step(c)
			}
			i++
			continue
		}
		if d.where.key || d.turn == nil {
			d.where.in = true
			i++
			continue
		}
		from, to, v := d.candidate(data[i+1:])
		if v == more && d.err == nil {
			d.pass = i
			return i > 0
		}
		if v == more { // its end will never come
			d.pass, d.skip = i, len(data)-i
			return true
		}
		d.searched = 0
		d.where.in = true
		i++
		if v != rewrite {
			continue
		}
		if turned, ok := d.turn(string(d.url)); ok {
			d.pass, d.skip, d.insert = i+from, to-from, inJSON(turned)
			return true
		}
	}
	d.pass = i
	return true
}

var structural = [256]bool{'{': true, '[': true, '}': true, ']': true, ',': true, ':': true}

// step goes over a byte between strings.
func (w *place) step(c byte) {
	switch c {
	case '{', '[':
		if w.depth++; w.depth > maxDepth {
			w.lost = true
			return
		}
		bit := uint64(1) << (w.depth % 64)
		if w.objects[w.depth/64] &^= bit; c == '{' {
			w.objects[w.depth/64] |= bit
		}
		w.key = c == '{'
	case '}', ']':
		w.depth = max(0, w.depth-1)
		w.key = false
	case ',':
		w.key = w.objects[w.depth/64]>>(w.depth%64)&1 == 1
	case ':':
		w.key = false
	}
}

// inside counts the bytes at the start of data that belong to the string that it is
// in, the closing quote included.
func (w *place) inside(data []byte) int {
	i := 0
	if w.escaped {
		i, w.escaped = 1, false
	}
	end, escaped, ok := closed(data, i)
	if !ok {
		w.escaped = escaped
		return len(data)
	}
	w.in = false
	return end + 1
}

// closed finds the quote that ends the string that data begins within, from an index
// on that is not behind a backslash. Where there is none, escaped tells of the byte
// behind data.
func closed(data []byte, from int) (end int, escaped, ok bool) {
	quote := -1 // the next one from where it was looked for
	for from < len(data) {
		if quote < from {
			if quote = bytes.IndexByte(data[from:], '"'); quote < 0 {
				quote = len(data)
			} else {
				quote += from
			}
		}
		switch esc := bytes.IndexByte(data[from:quote], '\\'); {
		case esc >= 0:
			from += esc + 2
		case quote < len(data):
			return quote, false, true
		default:
			return len(data), false, false
		}
	}
	return len(data), from > len(data), false
}

// candidate judges the string value that data begins with, behind its quote. On
// rewrite, data[from:to] is the URL, and url what it decodes to. On more behind the
// end of src it is to be dropped.
func (d *downloads) candidate(data []byte) (from, to int, v verdict) {
	undecided := more
	if d.err == io.EOF {
		undecided = leave // it is too short for a link
	}
	s := scanner{data: data}
	quote := quoted(data)
	s.at = quote
	for _, c := range []byte("http") {
		if !s.accept(c) {
			return 0, 0, min(s.failed(), undecided)
		}
	}
	s.accept('s')
	for _, c := range []byte("://") {
		if !s.accept(c) {
			return 0, 0, min(s.failed(), undecided)
		}
	}
	bounded := data[:min(len(data), maxLink+1)]
	end, escaped, ok := closed(bounded, min(d.searched, len(bounded)))
	switch {
	case !ok && len(data) > maxLink:
		return 0, 0, leave
	case !ok:
		d.searched = end
		if escaped {
			d.searched--
		}
		return 0, 0, more
	}
	d.url = d.url[:0]
	for s.at = quote; s.at < end; {
		c, n := decode(data[s.at:end])
		if c < 0 {
			if quote > 0 && s.at+quoted(data[s.at:end]) == end {
				return quote, s.at, rewrite
			}
			return 0, 0, leave
		}
		d.url = append(d.url, byte(c))
		s.at += n
	}
	if quote > 0 {
		return 0, 0, leave
	}
	return 0, end, rewrite
}

// quoted counts the bytes of an escaped quotation mark that data begins with.
func quoted(data []byte) int {
	switch {
	case bytes.HasPrefix(data, []byte(`\"`)):
		return 2
	case bytes.HasPrefix(data, []byte(`\u0022`)):
		return 6
	}
	return 0
}

// inJSON writes what stands between the quotes of a JSON string.
func inJSON(s string) []byte {
	plain := true
	for _, c := range []byte(s) {
		plain = plain && c > ' ' && c < 0x7f && c != '"' && c != '\\'
	}
	if plain {
		return []byte(s)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil // strings can be marshalled
	}
	return b[1 : len(b)-1]
}
