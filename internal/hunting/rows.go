package hunting

import (
	"bytes"
	"encoding/json"
	"strings"
)

// space takes white space between values: that of rows is kept.
func (r *Reader) space(c byte) {
	switch r.place {
	case inRow, inRowMore:
		r.held = append(r.held, c)
	case atRowColon, inRowNext:
		r.emit([]byte{c})
	}
}

// emit sends what belongs to a row, unless its member is dropped.
func (r *Reader) emit(data []byte) {
	if !r.drop {
		r.out = append(r.out, data...)
		r.size += int64(len(data))
	}
}

// begin begins a row.
func (r *Reader) begin(c byte) {
	r.drop, r.row = false, false
	r.held = r.held[:0]
	r.emit([]byte{c})
	r.place = inRow
}

// end ends a row. White space before its end stays where nothing was dropped.
func (r *Reader) end(c byte) {
	if r.place == inRow {
		r.emit(r.held)
	}
	r.drop = false
	r.emit([]byte{c})
	r.settle()
	r.rows++
	r.place = atRowEnd
}

// rowName decides whether a row's member goes out, and sends its name.
func (r *Reader) rowName() {
	at := bytes.IndexByte(r.held, '"')
	r.drop = annotation(r.held[at:])
	r.place = atRowColon
	if r.drop {
		return
	}
	quoted := r.held[at:]
	if !r.row && r.held[0] == ',' {
		r.held = r.held[1:] // those before it were dropped
	}
	r.row = true
	r.emit(r.held)
	r.named(quoted, len(r.out)-len(quoted))
}

var mark = []byte("@odata.")

// annotation reports whether a name, as the document has it, is that of an OData
// annotation.
func annotation(quoted []byte) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return bytes.Contains(quoted, mark)
	}
	var name string
	return json.Unmarshal(quoted, &name) == nil && strings.Contains(name, string(mark))
}
