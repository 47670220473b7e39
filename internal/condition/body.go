package condition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Body is a JSON body that was read once. The zero value is null. It is immutable
// and safe for concurrent use.
type Body struct {
	value any // nil, bool, int64, float64, string, []any or map[string]any
}

// MaxBody is the size in bytes up to which a body can be judged.
const MaxBody = 64 << 10

// maxDepth is how deep arrays and objects may stand in one another: as deep as the
// JSON readers of .NET go by default.
const maxDepth = 64

// ParseBody reads a body by its Content-Type and Content-Encoding, each with all
// its values as they came. Its error says why the body cannot be judged: longer
// than MaxBody, another type than JSON in UTF-8, encoded, malformed, a key twice in
// any letter case, a number or a character that readers take differently. An empty
// body is null, whatever the headers say.
func ParseBody(contentType, contentEncoding []string, body []byte) (*Body, error) {
	if len(body) == 0 {
		return &Body{}, nil
	}
	if len(body) > MaxBody {
		return nil, fmt.Errorf("the body is longer than %d bytes, the most that a condition looks at", MaxBody)
	}
	if err := plainJSON(contentType, contentEncoding); err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(body, []byte("\xef\xbb\xbf")):
		return nil, errors.New("the body begins with a byte order mark; send it without")
	case !utf8.Valid(body):
		return nil, errors.New("the body is not UTF-8")
	}
	r := reader{json.NewDecoder(bytes.NewReader(body))}
	r.UseNumber()
	value, err := r.value(0)
	if err == nil {
		if _, after := r.Token(); after != io.EOF {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it breaks off")
		}
		return nil, fmt.Errorf("the body is no JSON that has one meaning: %w", err)
	}
	return &Body{value}, nil
}

// plainJSON says whether headers announce JSON in UTF-8, as it is.
func plainJSON(contentType, contentEncoding []string) error {
	for _, e := range contentEncoding {
		if e != "" && !strings.EqualFold(e, "identity") {
			return fmt.Errorf("the body is encoded (Content-Encoding: %s); send it as it is", shortened(e))
		}
	}
	const wanted = "send Content-Type: application/json"
	switch len(contentType) {
	case 0:
		return errors.New("the body has no Content-Type; " + wanted)
	case 1:
	default:
		return errors.New("the body has more than one Content-Type; " + wanted)
	}
	kind, parameters, err := mime.ParseMediaType(contentType[0])
	if err != nil || kind != "application/json" && kind != "text/json" {
		return fmt.Errorf("the body is %s, not JSON; %s", shortened(strconv.Quote(contentType[0])), wanted)
	}
	if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8") {
		return fmt.Errorf("the body is in %s, not UTF-8", shortened(strconv.Quote(charset)))
	}
	return nil
}

// reader reads JSON token by token, to see what encoding/json would pass over.
type reader struct{ *json.Decoder }

func (r reader) value(depth int) (any, error) {
	token, err := r.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		switch {
		case depth == maxDepth:
			return nil, fmt.Errorf("deeper than %d levels", maxDepth)
		case t == '{':
			return r.object(depth + 1)
		}
		return r.array(depth + 1)
	case json.Number:
		return number(string(t))
	case string:
		return t, sound(t)
	}
	return token, nil // true, false or null
}

func (r reader) object(depth int) (any, error) {
	members := make(map[string]any)
	spelt := make(map[string]string) // by the folded key
	for r.More() {
		token, err := r.Token()
		if err != nil {
			return nil, err
		}
		key, ok := token.(string)
		if !ok {
			return nil, errors.New("a key that is no string")
		}
		if err := sound(key); err != nil {
			return nil, err
		}
		if before, twice := spelt[folded(key)]; twice {
			if before == key {
				return nil, fmt.Errorf("the key %s twice", shortened(strconv.Quote(key)))
			}
			return nil, fmt.Errorf("the keys %s and %s", shortened(strconv.Quote(before)), shortened(strconv.Quote(key)))
		}
		spelt[folded(key)] = key
		if members[key], err = r.value(depth); err != nil {
			return nil, err
		}
	}
	_, err := r.Token()
	return members, err
}

func (r reader) array(depth int) (any, error) {
	elements := []any{}
	for r.More() {
		v, err := r.value(depth)
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
	}
	_, err := r.Token()
	return elements, err
}

// number gives integers as such, as far as every reader has them exactly.
func number(s string) (any, error) {
	if !strings.ContainsAny(s, ".eE") {
		i, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, errors.New("a number too large to be judged")
		}
		return i, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, errors.New("a number too large to be judged")
	}
	return f, nil
}

// sound refuses the replacement character, which encoding/json also gives for half
// a surrogate pair (\ud800).
func sound(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return errors.New("a string with a character that is none")
	}
	return nil
}
