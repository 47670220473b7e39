package hunting

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
)

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

// unfinished are members, in small letters, of an answer that is not the whole of
// what was asked for. The older answers had nothing of the kind, so that whoever reads
// them would take a part for all.
var unfinished = []string{"error", "@odata.nextlink", "@odata.deltalink"}

// value begins the value of a member of the document.
func (r *Reader) value(c byte) (int, error) {
	var name string
	if json.Unmarshal(r.held, &name) != nil {
		return 0, wrong("a member has no name")
	}
	r.v.reset()
	r.held = r.held[:0]
	name = lower(name)
	switch {
	case name == "schema":
		if r.schema || c != '[' && c != 'n' {
			return 0, wrong("schema is no list, or there are two")
		}
		r.schema = true
		r.member(`"Schema":`)
		r.place = inSchema
	case name == "results":
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
	case slices.Contains(unfinished, name) && c != 'n':
		return 0, wrong("it tells of an error, or of more than one page")
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
