package links

import (
	"encoding/json"
	"unicode/utf8"
)

// maxNext bounds a link that Reader.OnNext is told, in bytes as the document has
// it.
const maxNext = 8 << 10

var nextName = []byte(`@odata.nextLink"`)

// next collects a link from the bytes that a Reader hands out. The zero value
// waits for one.
type next struct {
	pending bool   // a link begins once its new origin has gone out
	on      bool   // the bytes that go out belong to one
	escape  bool   // the last of raw is a backslash that escapes what follows
	raw     []byte // of the link from its path on
}

// begin starts a link if one is pending.
func (x *next) begin() {
	if x.pending {
		*x = next{on: true, raw: x.raw[:0]}
	}
}

// take reads on and reports whether the link is complete. One that is too long is
// given up.
func (x *next) take(p []byte) bool {
	for i, c := range p {
		switch {
		case len(x.raw)+i > maxNext:
			x.on = false
			return false
		case x.escape:
			x.escape = false
		case c == '\\':
			x.escape = true
		case c == '"':
			x.raw = append(x.raw, p[:i]...)
			x.on = false
			return true
		}
	}
	x.raw = append(x.raw, p...)
	return false
}

// link decodes what was collected, as encoding/json does. It reports false for what
// is no JSON string.
func (x *next) link() (string, bool) {
	simple := utf8.Valid(x.raw)
	for _, c := range x.raw {
		simple = simple && c != '\\' && c >= ' '
	}
	if simple {
		return string(x.raw), true
	}
	quoted := make([]byte, 0, len(x.raw)+2)
	quoted = append(append(append(quoted, '"'), x.raw...), '"')
	var link string
	err := json.Unmarshal(quoted, &link)
	return link, err == nil
}
