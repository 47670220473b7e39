package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
)

// genesis is the hash of the record before the first.
var genesis = strings.Repeat("0", 2*sha256.Size)

// chain knows the newest record. The hash that the next one carries is SHA-256
// over all that stands from the start of the newest record to the end of the line
// before the next: the record itself, and behind it what a crash or a full disk may
// have left of another.
type chain struct {
	seq  uint64
	text hash.Hash // nil: nothing stands before
}

// sum is the hash of the newest record.
func (c *chain) sum() string {
	if c.text == nil {
		return genesis
	}
	return hex.EncodeToString(c.text.Sum(nil))
}

// seal makes a line {…} the next of the chain: {…,"seq":7,"prev":"…"}, and the
// chain one with it. The first record of a file is marked, so that it shows when it
// is missing.
func (c *chain) seal(line *bytes.Buffer, first bool) {
	line.Truncate(line.Len() - len("}\n"))
	line.WriteString(`,"seq":`)
	line.Write(strconv.AppendUint(line.AvailableBuffer(), c.seq+1, 10))
	line.WriteString(`,"prev":"`)
	line.WriteString(c.sum())
	line.WriteByte('"')
	if first {
		line.WriteString(`,"begins":true`)
	}
	line.WriteByte('}')
	c.stored(line.Bytes())
	line.WriteByte('\n')
}

// stored notes that a line stands in the file, which is given without its end.
func (c *chain) stored(line []byte) {
	c.seq++
	c.follow(line)
}

// left notes what stands in the file of lines that could not be written whole.
func (c *chain) left(part []byte) {
	for line := range bytes.Lines(part) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if _, ok := parseLink(line); ok {
			c.stored(line)
		} else {
			c.fragment(line)
		}
	}
}

// clone gives a chain that goes its own way.
func (c *chain) clone() (*chain, error) {
	to := &chain{seq: c.seq}
	if c.text == nil {
		return to, nil
	}
	text, err := c.text.(hash.Cloner).Clone() // SHA-256 can
	to.text = text
	return to, err
}

// follow begins the hash anew with a record.
func (c *chain) follow(record []byte) {
	if c.text == nil {
		c.text = sha256.New()
	}
	c.text.Reset()
	c.text.Write(record)
}

// fragment notes what stands in the file behind the newest record.
func (c *chain) fragment(part []byte) {
	if c.text == nil {
		c.text = sha256.New()
	} else {
		c.text.Write([]byte("\n"))
	}
	c.text.Write(part)
}

// link is what the chain needs of a line.
type link struct {
	Seq    *uint64 `json:"seq"`
	Prev   *string `json:"prev"`
	Begins bool    `json:"begins"`
}

// parseLink reads a line. One that is no record, but what is left of one, is not ok.
func parseLink(line []byte) (l link, ok bool) {
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &l) != nil {
		return link{}, false
	}
	return l, true
}

// tail is the end of a file.
type tail struct {
	found bool   // there is a record
	text  []byte // from the start of the last record on, or all where there is none; without the last end of line
	link  link
}

// longest is how long a line may be, with what a crash left behind it. Requests
// are bounded by limits.header_bytes, and records with them.
const longest = 4 << 20

// readTail reads the end of a file of size bytes.
func readTail(r io.ReaderAt, size int64) (tail, error) {
	for window := int64(64 << 10); ; window *= 4 {
		from := max(0, size-window)
		text := make([]byte, size-from)
		if _, err := r.ReadAt(text, from); err != nil && err != io.EOF {
			return tail{}, err
		}
		var t tail
		text = bytes.TrimSuffix(text, []byte("\n"))
		for end := len(text); end >= 0; {
			start := bytes.LastIndexByte(text[:end], '\n') + 1
			if start == 0 && from > 0 {
				break // the beginning of this line is further up
			}
			if t.link, t.found = parseLink(text[start:end]); t.found {
				t.text = text[start:]
				return t, nil
			}
			end = start - 1
		}
		if from == 0 {
			t.text = text
			return t, nil
		}
		if window >= longest {
			return tail{}, fmt.Errorf("the last %d bytes hold no audit record", window)
		}
	}
}
