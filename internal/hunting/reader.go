package hunting

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
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
// name has @odata. in it) of the row itself, and for names that differ from those of
// columns in the case of letters alone; what lies deeper is the caller's data.
// It hands out what it has whenever the source has no more, and holds no more than
// maxSchema of it. An answer that breaks off or is none never looks complete: the
// last brace goes out when the source has said io.EOF.
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
	comma   bool   // something went out in the document
	row     bool   // something went out in the row
	drop    bool   // the row's member is an annotation
	schema  bool   // came
	results bool   // came
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
	for empty := 0; r.sent == len(r.out); empty++ {
		if r.err != nil {
			r.release()
			return 0, r.err
		}
		if r.buf == nil {
			r.buf = buffers.Get().(*[bufferSize]byte)
		}
		r.out, r.sent = r.out[:0], 0
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
	n := copy(p, r.out[r.sent:])
	r.sent += n
	return n, nil
}

func (r *Reader) release() {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf, r.out, r.held, r.sent = nil, nil, nil, 0
	}
}

// finish ends the document, and gives io.EOF where it is whole.
func (r *Reader) finish() error {
	switch {
	case r.place != atEnd:
		return io.ErrUnexpectedEOF
	case !r.schema || !r.results:
		return fmt.Errorf("%w: schema or results is missing", ErrShape)
	}
	if r.shape == XDR {
		r.out = append(r.out, r.stats()...)
	}
	r.out = append(r.out, '}')
	return io.EOF
}

// stats are what of Stats can be told from here: Graph does not tell the resources
// that a query used.
func (r *Reader) stats() string {
	return `,"Stats":{"ExecutionTime":` + strconv.FormatFloat(r.took.Seconds(), 'f', -1, 64) +
		`,"dataset_statistics":[{"table_row_count":` + strconv.FormatInt(r.rows, 10) + `,"table_size":` + strconv.FormatInt(r.size, 10) + `}]}`
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

// value begins the value of a member of the document.
func (r *Reader) value(c byte) (int, error) {
	var name string
	if json.Unmarshal(r.held, &name) != nil {
		return 0, wrong("a member has no name")
	}
	r.v.reset()
	r.held = r.held[:0]
	switch is := func(known string) bool { return strings.ToLower(name) == known }; {
	case is("schema"):
		if r.schema || c != '[' && c != 'n' {
			return 0, wrong("schema is no list, or there are two")
		}
		r.schema = true
		r.member(`"Schema":`)
		r.place = inSchema
	case is("results"):
		if r.results || c != '[' && c != 'n' {
			return 0, wrong("results is no list, or there are two")
		}
		r.results = true
		r.member(`"Results":`)
		if c == 'n' {
			r.place = inNull
			return 0, nil
		}
		r.out = append(r.out, '[')
		r.place = atRow
		return 1, nil
	default:
		r.place = inOther
	}
	return 0, nil
}

// member sends the name of one of the document's members.
func (r *Reader) member(name string) {
	if r.comma {
		r.out = append(r.out, ',')
	}
	r.comma = true
	r.out = append(r.out, name...)
}
