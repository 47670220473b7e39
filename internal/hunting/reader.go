package hunting

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Shape is that of one of the older answers.
type Shape uint8

// The shapes. The zero value is that of Defender for Endpoint.
const (
	MDE Shape = iota // Schema and Results
	XDR              // Stats too
)

// ErrShape says that an answer is not what Microsoft documents: no JSON, no object,
// without schema or results or with one of them twice. Errors that wrap it hold
// nothing of the answer.
var ErrShape = errors.New("the answer is not that of a hunting query")

const (
	// bufferSize is what is read of the source at once, in bytes.
	bufferSize = 32 << 10
	// maxName and maxSchema bound what is held back, in bytes: a member's name with
	// the white space before it, and the whole of schema. Tables have some hundred
	// columns at most.
	maxName   = 64 << 10
	maxSchema = 1 << 20
)

// place is what a Reader goes on with.
type place uint8

const (
	atStart   place = iota // the document's {
	atName                 // a member's name
	inName                 // its rest
	atColon                // the colon behind it
	atValue                // its value
	inOther                // the value of a member that the older answers do not have
	inNull                 // results: null
	inSchema               // schema, which is held
	atRow                  // a row, or the ] of no rows
	atNextRow              // a row behind a comma
	inRow                  // a row's member, or its } if it has none yet
	inRowMore              // a row's member behind a comma
	inRowName              // the member's name
	atRowColon
	inRowValue
	inRowNext // a comma or the row's }
	atRowEnd  // a comma or the ] of the rows
	atNext    // a comma or the document's }
	atEnd     // nothing but white space
)

// Reader turns an answer of Graph's into one of the older shape. Members keep the
// order in which they come, rows their bytes but for annotations (members whose
// name has @odata. in it) of the row itself, and for names that differ from that of a
// column in the case of ASCII letters alone and are the row's only ones of it; what
// lies deeper is the caller's data. It hands out what it has whenever the source has no
// more, but for the rest of a row from such a name on, and holds no more than maxSchema
// or maxPending of it. An answer that breaks off or is none never looks complete: the
// last brace goes out when the source has said io.EOF. Nor does one that tells of an
// error or of more pages beside its rows.
//
// A Reader is for one goroutine. It takes its buffer from a pool at the first Read
// and gives it back with the error that ends the stream, never earlier.
type Reader struct {
	src   io.Reader
	shape Shape
	took  time.Duration

	place   place
	v       value
	held    []byte // a name with what stands before it, or schema
	names   *names // of the columns, once schema came
	pending []pending
	comma   bool // something went out in the document
	row     bool // something went out in the row
	drop    bool // the row's member is an annotation
	schema  bool // came
	results bool // came
	rows    int64
	size    int64 // of the rows, in bytes as they go out

	buf  *[bufferSize]byte
	out  []byte
	sent int // of out
	err  error
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// NewReader returns a Reader of src, the plain body of an answer. took is how long
// Graph took to begin it, for Stats. The errors of its Read are those of src, and
// ErrShape.
func NewReader(src io.Reader, shape Shape, took time.Duration) *Reader {
	return &Reader{src: src, shape: shape, took: took}
}

// maxEmptyReads bounds how often in a row a source may return neither bytes nor
// an error.
const maxEmptyReads = 100

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for empty := 0; r.sent == r.ready(); empty++ {
		if r.err != nil {
			r.release()
			return 0, r.err
		}
		if r.buf == nil {
			r.buf = buffers.Get().(*[bufferSize]byte)
		}
		r.keep()
		n, err := r.src.Read(r.buf[:])
		if n < 0 || n > len(r.buf) {
			// The buffer was another answer's before: what src did not write must not
			// go out.
			n, err = 0, errors.New("hunting: the source says it read more than it was given room for")
		}
		switch wrong := r.feed(r.buf[:n]); {
		case wrong != nil:
			r.err = wrong
		case err == io.EOF:
			r.err = r.finish()
		case err != nil:
			r.err = err
		case n > 0:
			empty = 0
		case empty == maxEmptyReads:
			r.err = io.ErrNoProgress
		}
	}
	n := copy(p, r.out[r.sent:r.ready()])
	r.sent += n
	return n, nil
}

func (r *Reader) release() {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf, r.out, r.held, r.pending, r.sent = nil, nil, nil, nil, 0
	}
}

func wrong(what string) error { return fmt.Errorf("%w: %s", ErrShape, what) }

// feed takes what has come.
func (r *Reader) feed(data []byte) error {
	for len(data) > 0 {
		n, err := r.step(data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if len(r.pending) > 0 && len(r.out)-r.pending[0].at > maxPending {
		r.settle()
	}
	return nil
}

// step takes one byte or one piece of a value, and gives how many bytes that were;
// none where only the place changed.
func (r *Reader) step(data []byte) (int, error) {
	switch r.place {
	case inName, inRowName, inSchema:
		return r.hold(data)
	case inOther, inNull, inRowValue:
		return r.through(data)
	}
	c := data[0]
	if isSpace(c) {
		r.space(c)
		return 1, r.bounded(maxName)
	}
	switch r.place {
	case atStart:
		if c != '{' {
			return 0, wrong("it is no JSON object")
		}
		r.out = append(r.out, '{')
		r.place = atName
	case atName:
		return 0, r.name(c, inName)
	case atColon, atRowColon:
		if c != ':' {
			return 0, wrong("a member has no value")
		}
		if r.place == atRowColon {
			r.emit(data[:1])
			r.v.reset()
		}
		r.place++ // to the value
	case atValue:
		return r.value(c)
	case atRow, atNextRow:
		switch {
		case c == '{':
			r.begin(c)
		case c == ']' && r.place == atRow:
			r.out = append(r.out, ']')
			r.place = atNext
		default:
			return 0, wrong("a row is no object")
		}
	case inRow, inRowMore:
		if c == '}' && r.place == inRow {
			r.end(c)
			break
		}
		return 0, r.name(c, inRowName)
	case inRowNext:
		switch c {
		case ',':
			r.held = append(r.held[:0], c)
			r.place = inRowMore
		case '}':
			r.end(c)
		default:
			return 0, wrong("a row does not end")
		}
	case atRowEnd:
		switch c {
		case ',':
			r.out = append(r.out, ',')
			r.place = atNextRow
		case ']':
			r.out = append(r.out, ']')
			r.place = atNext
		default:
			return 0, wrong("results do not end")
		}
	case atNext:
		switch c {
		case ',':
			r.held = r.held[:0]
			r.place = atName
		case '}':
			r.place = atEnd
		default:
			return 0, wrong("the object does not end")
		}
	default:
		return 0, wrong("something follows it")
	}
	return 1, nil
}

func (r *Reader) bounded(most int) error {
	if len(r.held) > most {
		return wrong("a name or the schema is too long")
	}
	return nil
}

// name begins a member's name.
func (r *Reader) name(c byte, in place) error {
	if c != '"' {
		return wrong("a member has no name")
	}
	if in == inName {
		r.held = r.held[:0]
	}
	r.v.reset()
	r.v.state = key
	r.place = in
	return nil
}

// hold keeps a name or schema until it is whole.
func (r *Reader) hold(data []byte) (int, error) {
	n, done, ok := r.v.take(data)
	r.held = append(r.held, data[:n]...)
	most := maxName
	if r.place == inSchema {
		most = maxSchema
	}
	switch err := r.bounded(most); {
	case !ok:
		return n, wrong("it is no JSON")
	case err != nil || !done:
		return n, err
	}
	switch r.place {
	case inName:
		r.place = atColon
	case inRowName:
		r.rowName()
	default:
		r.place = atNext
		return n, r.columns()
	}
	return n, nil
}

// through passes a value on, or drops it.
func (r *Reader) through(data []byte) (int, error) {
	n, done, ok := r.v.take(data)
	if r.place == inRowValue {
		r.emit(data[:n])
	}
	switch {
	case !ok:
		return n, wrong("it is no JSON")
	case !done:
		return n, nil
	case r.place == inNull:
		r.out = append(r.out, "[]"...)
	}
	if r.place == inRowValue {
		r.place = inRowNext
	} else {
		r.place = atNext
	}
	return n, nil
}
