package redact

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"
)

// maxLine is the length in bytes up to which a line waits for its end. Of a longer
// one nobody could tell what stands at a cut, so it is taken out as a whole.
const maxLine = 1 << 20

// Writer gives a writer that passes whole lines on to w, one Write call each, as
// Text would give them. A line that is a JSON object stays one: its strings are
// judged one by one, and those whose member has a secret's name are taken out.
//
// A line without its end waits for it. Write may be called concurrently. Its error
// is w's, and the lines that came with the failed one are lost.
func Writer(w io.Writer) io.Writer { return &writer{w: w} }

type writer struct {
	mu   sync.Mutex // held while lines are written, so that they stay whole
	w    io.Writer
	rest []byte // the beginning of a line whose end has not come
	long bool   // that line has become too long
	key  int    // how many lines a private key may still have
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for left := p; len(left) > 0; {
		end := bytes.IndexByte(left, '\n') + 1
		if end == 0 {
			w.keep(left)
			break
		}
		whole := left[:end]
		if len(w.rest) > 0 || w.long || end > maxLine {
			w.keep(whole[:end-1])
			whole = append(w.rest, '\n')
		}
		left = left[end:]
		_, err := w.w.Write(w.line(whole))
		w.rest, w.long = w.rest[:0], false
		if err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// keep adds to the line whose end has not come.
func (w *writer) keep(b []byte) {
	if w.long || len(w.rest)+len(b) > maxLine {
		w.rest, w.long = append(w.rest[:0], mark...), true
		return
	}
	w.rest = append(w.rest, b...)
}

// maxKeyLines bounds how many lines a private key in PEM has: 8192 bits of RSA
// have a hundred.
const maxKeyLines = 200

// line gives a line as Text would have it, and JSON as JSON.
func (w *writer) line(b []byte) []byte {
	if out, ok := object(b); ok {
		return out
	}
	s := string(b)
	if w.key > 0 {
		if w.key--; strings.Contains(s, keyEnd) {
			w.key = 0
		}
		return []byte(mark + "\n")
	}
	t := Text(s)
	if t == s {
		return b
	}
	if !strings.HasSuffix(t, "\n") { // a private key whose end has not come
		w.key = maxKeyLines
		t += "\n"
	}
	return []byte(t)
}

// object gives the JSON object b with its strings as Text would have them; false
// where b is none. What is no string stays byte for byte, except numbers that are
// called a secret.
func object(b []byte) ([]byte, bool) {
	if len(b) == 0 || b[0] != '{' || !json.Valid(b) {
		return nil, false
	}
	var out []byte
	kept := 0
	replace := func(from, to int, with string) {
		var quoted bytes.Buffer
		e := json.NewEncoder(&quoted)
		e.SetEscapeHTML(false)
		_ = e.Encode(with) // a string can always be encoded
		out = append(append(out, b[kept:from]...), bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
		kept = to
	}
	named := false // the member at hand is called a secret
	depth := 0     // of arrays in its value
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			end := i + 1
			for b[end] != '"' {
				if b[end] == '\\' {
					end++
				}
				end++
			}
			end++
			text := decoded(b[i:end])
			switch isName := isKey(b[end:]); {
			case isName:
				named, depth = sortOf(text) != plain, 0
				if t := Text(text); t != text {
					replace(i, end, t)
				}
			case named && text != "" && text != mark:
				replace(i, end, mark)
			case !named:
				if t := Text(text); t != text {
					replace(i, end, t)
				}
			}
			i = end - 1
		case named && (c == '-' || '0' <= c && c <= '9'):
			end := i
			for b[end] != ',' && b[end] != '}' && b[end] != ']' && b[end] > ' ' {
				end++
			}
			replace(i, end, mark)
			i = end - 1
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == '{' || c == '}' || c == ',' && depth <= 0:
			named = false
		}
	}
	if kept == 0 {
		return b, true
	}
	return append(out, b[kept:]...), true
}

// isKey reports whether what follows a string of JSON is the colon of a member.
func isKey(after []byte) bool {
	after = bytes.TrimLeft(after, " \t\r\n")
	return len(after) > 0 && after[0] == ':'
}

// decoded gives the text of a JSON string in its quotation marks.
func decoded(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return mark // it is part of valid JSON
	}
	return text
}
