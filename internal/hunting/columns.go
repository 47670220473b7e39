package hunting

import (
	"encoding/json"
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
// has them, in quotes.
type names struct {
	folded map[string]string // by the name in small letters; empty: several columns
	known  map[string]string // what was found before, empty: the name itself
}

// maxNames and longestName bound what names remembers of rows, in names and in bytes
// of each.
const maxNames, longestName = 4096, 256

func newNames(n int) *names {
	return &names{folded: make(map[string]string, n), known: make(map[string]string, n)}
}

func (n *names) put(column string) {
	n.known[column] = ""
	small := strings.ToLower(column)
	if other, ok := n.folded[small]; ok && other != column {
		column = ""
	}
	n.folded[small] = column
}

// column gives the name to put in the place of a row's; empty: it stays. A name that
// is a column's stays, and so does one that may be several columns'.
func (n *names) column(quoted []byte) string {
	if n == nil {
		return "" // rows came before the schema
	}
	found, known := n.known[string(quoted)]
	if !known {
		found = n.folded[strings.ToLower(string(quoted))]
		if len(n.known) < maxNames && len(quoted) <= longestName {
			n.known[string(quoted)] = found
		}
	}
	return found
}
