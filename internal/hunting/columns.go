package hunting

import (
	"encoding/json"
	"slices"
	"strings"
)

// columns sends schema, which is held. encoding/json finds the members in either
// spelling.
func (r *Reader) columns() error {
	var all []*struct{ Name, Type json.RawMessage }
	if err := json.Unmarshal(r.held, &all); err != nil {
		return wrong("schema is no list of objects")
	}
	r.names = newNames(len(all))
	r.out = append(r.out, '[')
	for i, c := range all {
		if c == nil || len(c.Name) == 0 || c.Name[0] != '"' || len(c.Type) > 0 && c.Type[0] != '"' && c.Type[0] != 'n' {
			return wrong("a column of schema has no name, or a type that is none")
		}
		if len(c.Type) == 0 {
			c.Type = json.RawMessage("null")
		}
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = append(append(r.out, `{"Name":`...), c.Name...)
		r.out = append(append(r.out, `,"Type":`...), c.Type...)
		r.out = append(r.out, '}')
		r.names.put(string(c.Name))
	}
	r.out = append(r.out, ']')
	r.held = r.held[:0]
	return nil
}

// names finds the column that a row's member means. The older answers have the same
// name in Schema and in rows, and tools look rows up by it; of Graph's samples one
// has schema with Timestamp and rows with timestamp. All names are as the document
// has them, in quotes. Only ASCII letters have two cases here.
type names struct {
	folded map[string]column // by the name in small letters
	known  map[string]column // what was found before
	last   []int64           // the row in which a column came last, by the column's place
}

// column is what a name means.
type column struct {
	place int    // among the columns, from 1 on; 0: none, or one of several
	name  string // to put in the place of the row's; empty: that is the column's own
}

// maxNames and longestName bound what names remembers of rows, in names and in bytes
// of each.
const maxNames, longestName = 4096, 256

func newNames(n int) *names {
	return &names{folded: make(map[string]column, n), known: make(map[string]column, n), last: make([]int64, 1, n+1)}
}

func (n *names) put(name string) {
	if _, twice := n.known[name]; twice {
		return
	}
	place := len(n.last)
	n.last = append(n.last, 0)
	n.known[name] = column{place, ""}
	small := lower(name)
	if _, other := n.folded[small]; other {
		n.folded[small] = column{}
		return
	}
	n.folded[small] = column{place, name}
}

// column gives the column that a row's name means. A name that is a column's means
// that one, and one that may be several columns' means none.
func (n *names) column(quoted []byte) column {
	found, known := n.known[string(quoted)]
	if !known {
		found = n.folded[lower(string(quoted))]
		if len(n.known) < maxNames && len(quoted) <= longestName {
			n.known[string(quoted)] = found
		}
	}
	return found
}

// lower gives the ASCII letters of a name in small.
func lower(name string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}, name)
}

// pending is a name in Reader.out that becomes its column's when the row is whole and
// no other member of it has that name.
type pending struct {
	at     int // in out, of the opening quotation mark
	column column
}

// maxPending bounds what of a row is held for its names, in bytes. The names of a
// longer row change without its end being known.
const maxPending = 1 << 20

// named looks at a row's name, which begins at a place of out. What means a column
// that another member means too stays as it is, and so does the other one.
func (r *Reader) named(quoted []byte, at int) {
	if r.names == nil {
		return // rows came before the schema
	}
	c := r.names.column(quoted)
	row := r.rows + 1
	switch {
	case c.place == 0:
	case r.names.last[c.place] == row:
		r.pending = slices.DeleteFunc(r.pending, func(p pending) bool { return p.column.place == c.place })
	default:
		r.names.last[c.place] = row
		if c.name != "" {
			r.pending = append(r.pending, pending{at, c})
		}
	}
}

// settle gives the names that wait their columns', which are as long: they differ in
// the case of letters alone.
func (r *Reader) settle() {
	for _, p := range r.pending {
		copy(r.out[p.at:], p.column.name)
	}
	r.pending = r.pending[:0]
}

// ready is how much of out may be handed out.
func (r *Reader) ready() int {
	if len(r.pending) > 0 {
		return r.pending[0].at
	}
	return len(r.out)
}

// keep makes room in out for more, when what is ready was handed out.
func (r *Reader) keep() {
	at := r.ready()
	r.out = r.out[:copy(r.out, r.out[at:])]
	for i := range r.pending {
		r.pending[i].at -= at
	}
	r.sent = 0
}
