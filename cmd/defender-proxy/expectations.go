package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// expectations is a file for policy test. docs/policy.md describes it.
type expectations struct {
	Config string      `yaml:"config"`
	At     time.Time   `yaml:"at"`
	Tests  []yaml.Node `yaml:"tests"`

	tests []expectation
}

// expectation is one entry of tests.
type expectation struct {
	Name    string    `yaml:"name"`
	Client  string    `yaml:"client"`
	Tenant  string    `yaml:"tenant"`
	Request oneOrMore `yaml:"request"`
	// Roles and Scopes are the token's; nil: it is not asked.
	Roles       []string  `yaml:"roles"`
	Scopes      []string  `yaml:"scopes"`
	At          time.Time `yaml:"at"`
	Body        yaml.Node `yaml:"body"`
	ContentType string    `yaml:"content_type"`
	Expect      yaml.Node `yaml:"expect"`

	at   string // FILE:LINE
	body []byte // nil: not known
	want outcome
}

// oneOrMore is a text or a list of texts.
type oneOrMore []string

func (l *oneOrMore) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*l = []string{n.Value}
		return nil
	}
	return n.Decode((*[]string)(l))
}

// readExpectations reads a file strictly: what is not known, given twice or missing
// is an error with its line.
func readExpectations(file string) (*expectations, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f := &expectations{}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var top yaml.Node
	switch err := d.Decode(&top); {
	case err == io.EOF:
		return nil, fmt.Errorf("%s: the file is empty", file)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(top.Content) == 0 {
		return nil, fmt.Errorf("%s: the file is empty", file)
	}
	if err := load(file, top.Content[0], f); err != nil {
		return nil, err
	}
	if err := d.Decode(new(yaml.Node)); err != io.EOF {
		return nil, fmt.Errorf("%s: there is a second document in the file", file)
	}
	if len(f.Tests) == 0 {
		return nil, fmt.Errorf("%s: there is nothing under tests", file)
	}
	var faults []error
	for i := range f.Tests {
		n := &f.Tests[i]
		e := expectation{at: fmt.Sprintf("%s:%d", file, n.Line)}
		if err := load(file, n, &e); err != nil {
			faults = append(faults, err)
		} else if err := e.read(file); err != nil {
			if _, placed := errors.AsType[*placedError](err); !placed {
				err = fmt.Errorf("%s: %w", e.at, err)
			}
			faults = append(faults, err)
		}
		f.tests = append(f.tests, e)
	}
	return f, errors.Join(faults...)
}

// read looks at what was loaded.
func (e *expectation) read(file string) error {
	switch {
	case e.Client == "":
		return errors.New("client is missing: the name of a client group")
	case len(e.Request) == 0:
		return errors.New("request is missing, such as GET /api/alerts")
	case e.Expect.IsZero():
		return fmt.Errorf("expect is missing: one of %s", strings.Join(decisions(), ", "))
	}
	for _, r := range e.Request {
		if method, path, ok := strings.Cut(r, " "); !ok || method == "" || method != strings.ToUpper(method) || !strings.HasPrefix(path, "/") {
			return fmt.Errorf("request %q is no method and path such as GET /api/alerts", r)
		}
	}
	if !e.Body.IsZero() {
		var err error
		if e.body, err = expectedBody(&e.Body); err != nil {
			return fmt.Errorf("body: %w", err)
		}
	} else if e.ContentType != "" {
		return errors.New("content_type is given and no body")
	}
	if e.Expect.Kind == yaml.ScalarNode {
		e.want.Decision = e.Expect.Value
	} else if err := load(file, &e.Expect, &e.want); err != nil {
		return err
	}
	return e.want.check()
}

// expectedBody gives the bytes of a body: a text as it stands, anything else as JSON.
func expectedBody(n *yaml.Node) ([]byte, error) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		return append([]byte{}, n.Value...), nil
	}
	var b bytes.Buffer
	if err := writeNode(&b, n, 0); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// writeNode writes YAML as JSON in the order of the file. What YAML takes for a
// time is a text in JSON.
func writeNode(b *bytes.Buffer, n *yaml.Node, depth int) error {
	const most = 100
	if depth > most {
		return fmt.Errorf("deeper than %d levels", most)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return writeNode(b, n.Alias, depth+1)
	case yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSONValue(b, n.Content[i].Value); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeNode(b, n.Content[i+1], depth+1); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, e := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeNode(b, e, depth+1); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	var v any
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		v = n.Value
	default:
		if err := n.Decode(&v); err != nil {
			return err
		}
	}
	return writeJSONValue(b, v)
}

func writeJSONValue(b *bytes.Buffer, v any) error {
	text, err := json.Marshal(v)
	b.Write(text)
	return err
}
