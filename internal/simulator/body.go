package simulator

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
)

// maxJSON bounds the bodies of calls; only library files are longer.
const maxJSON = 4 << 20

// fields is a JSON object by its exact names: Microsoft compares parameter
// names with regard to case, encoding/json would not.
type fields map[string]json.RawMessage

// object reads the body of a call.
func (c *call) object() (fields, *problem) {
	data, err := io.ReadAll(io.LimitReader(c.r.Body, maxJSON+1))
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "BadRequest", "The request body could not be read.")
	}
	if len(data) > maxJSON {
		return nil, problemf(http.StatusRequestEntityTooLarge, "BadRequest", "The request body is longer than %d bytes.", maxJSON)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: it is empty.")
	}
	if kind := c.r.Header.Get("Content-Type"); kind != "" && !strings.HasPrefix(strings.ToLower(kind), "application/json") {
		return nil, problemf(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "The request entity's media type '%s' is not supported for this resource.", kind)
	}
	var f fields
	if err := json.Unmarshal(data, &f); err != nil || f == nil {
		return nil, problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: it is not a JSON object.")
	}
	return f, nil
}

// read decodes a field; false when it is absent or null.
func (f fields) read(name string, into any) (bool, *problem) {
	raw, ok := f[name]
	if !ok || string(raw) == "null" {
		return false, nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: %s has the wrong type.", name)
	}
	return true, nil
}

// text reads a string that may be absent.
func (f fields) text(name string) (string, *problem) {
	var s string
	_, p := f.read(name, &s)
	return s, p
}

// need reads a string that must be there.
func (f fields) need(name string) (string, *problem) {
	s, p := f.text(name)
	if p == nil && strings.TrimSpace(s) == "" {
		p = missing(name)
	}
	return s, p
}

// oneOf reads a string that must be among some; fallback when it is absent,
// an error then when fallback is empty too.
func (f fields) oneOf(name, fallback string, allowed ...string) (string, *problem) {
	s, p := f.text(name)
	if p != nil {
		return "", p
	}
	if s == "" {
		if fallback == "" {
			return "", missing(name)
		}
		return fallback, nil
	}
	if !slices.Contains(allowed, s) {
		return "", invalidInput("Invalid input %s: '%s'. Allowed are %s.", name, s, strings.Join(allowed, ", "))
	}
	return s, nil
}

// optionalOneOf changes target when the field is there.
func (f fields) optionalOneOf(name string, target *string, allowed ...string) *problem {
	if _, ok := f[name]; !ok {
		return nil
	}
	s, p := f.oneOf(name, "", allowed...)
	if p == nil {
		*target = s
	}
	return p
}

// texts reads a list of strings; nil when it is absent.
func (f fields) texts(name string) ([]string, *problem) {
	var list []string
	_, p := f.read(name, &list)
	return list, p
}

// batch reads a list of ids that must be there, no longer than limit.
func (f fields) batch(name string, limit int) ([]string, *problem) {
	ids, p := f.texts(name)
	switch {
	case p != nil:
		return nil, p
	case len(ids) == 0:
		return nil, missing(name)
	case len(ids) > limit:
		return nil, problemf(http.StatusBadRequest, "MaximumBatchSizeExceeded", "Maximum batch size exceeded. Received: %d, allowed: %d.", len(ids), limit)
	}
	return ids, nil
}
