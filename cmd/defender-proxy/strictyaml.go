package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"defender-proxy/internal/config"
)

// placedError is a fault with its line.
type placedError struct {
	file string
	line int
	text string
}

func (e *placedError) Error() string { return fmt.Sprintf("%s:%d: %s", e.file, e.line, e.text) }

// load reads a mapping into the struct that v points to, strictly: every key known,
// given once, and with a value of its kind. Its errors are of type *placedError, all
// in one. Keys that come by << are looked at where they stand.
func load(file string, n *yaml.Node, v any) error {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	fields := make(map[string]reflect.Type)
	var names []string
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" {
			fields[name] = t.Field(i).Type
			names = append(names, name)
		}
	}
	if n.Kind != yaml.MappingNode {
		return &placedError{file, n.Line, "this is no mapping; it takes the keys " + strings.Join(names, ", ")}
	}
	var faults []error
	fault := func(at *yaml.Node, format string, args ...any) {
		faults = append(faults, &placedError{file, at.Line, fmt.Sprintf(format, args...)})
	}
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := key.Value
		kind, known := fields[name]
		switch {
		case name == "<<":
		case !known:
			fault(key, "unknown key %.64s%s", name, config.DidYouMean(name, names))
		case first[name] > 0:
			fault(key, "%s is given twice, first in line %d", name, first[name])
		case value.Load(reflect.New(kind).Interface()) != nil:
			fault(value, "%s takes %s", name, kindOf(kind))
		}
		first[name] = key.Line
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	if err := n.Load(v, yaml.WithKnownFields()); err != nil {
		return &placedError{file, n.Line, err.Error()}
	}
	return nil
}

// kindOf says what a key takes.
func kindOf(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "a moment with its zone, such as 2026-12-24T20:00:00Z"
	case t == reflect.TypeFor[oneOrMore]():
		return "a text or a list of texts"
	case t == reflect.TypeFor[[]string]():
		return "a list of texts, in brackets: [ ]"
	case t.Kind() == reflect.Slice:
		return "a list"
	}
	return "a text"
}
