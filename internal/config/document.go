package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxFileBytes bounds a configuration file: some ten thousand tenants.
const maxFileBytes = 4 << 20

// document reads the one YAML document of a file. It gives nil when a fault
// keeps the rest from being understood.
func (r *report) document(data []byte) *yaml.Node {
	if !r.plainText(data) {
		return nil
	}
	docs := yaml.NewDecoder(bytes.NewReader(data))
	root, err := next(docs)
	if err == io.EOF || err == nil && empty(root) {
		r.faultAt(mark{}, "", "the file is empty; a configuration needs at least one tenant, config.example.yaml shows every key")
		return nil
	}
	if err != nil {
		r.syntax(data, err)
		return nil
	}
	switch second, err := next(docs); {
	case err == nil:
		r.faultAt(mark{line: second.Line, column: second.Column}, "", "a second YAML document begins here; a configuration is one")
		return nil
	case err != io.EOF:
		r.syntax(data, err)
		return nil
	}
	content := root.Content[0]
	r.refuseTricks(content)
	if content.Kind != yaml.MappingNode {
		r.faultAt(mark{line: content.Line, column: content.Column}, "", "the file holds %s; a configuration is a mapping of keys such as tenants", kindName(content))
		return nil
	}
	return content
}

// next reads one document. The parser panics on what its authors did not expect;
// a faulty file must not end a proxy that reads it anew.
func next(docs *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("yaml: the YAML parser cannot make sense of the file")
		}
	}()
	doc = new(yaml.Node)
	if err := docs.Decode(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Value == ""
}

// plainText refuses what no editor shows: bytes that are not UTF-8, controls,
// and tabs where YAML counts spaces.
func (r *report) plainText(data []byte) bool {
	if len(data) > maxFileBytes {
		r.faultAt(mark{}, "", "the file has %d bytes; at most %d (4MiB) are read", len(data), maxFileBytes)
		return false
	}
	line, column, indent := 1, 1, true
	for len(data) > 0 {
		c, n := utf8.DecodeRune(data)
		here := mark{line: line, column: column}
		switch {
		case c == utf8.RuneError && n == 1:
			r.faultAt(here, "", "the byte 0x%02X is not UTF-8; save the file as UTF-8", data[0])
			return false
		case c == '\t' && indent:
			r.faultAt(here, "", "a tab stands in the indentation; YAML takes spaces only")
			return false
		case c != '\t' && c != '\n' && c != '\r' && unicode.IsControl(c), c == '\u2028', c == '\u2029', c == '\uFEFF' && (line > 1 || column > 1):
			r.faultAt(here, "", "the invisible character %U is not allowed", c)
			return false
		}
		data = data[n:]
		indent = indent && c == ' '
		column++
		if c == '\n' {
			line, column, indent = line+1, 1, true
		}
	}
	return true
}

var (
	yamlLine    = regexp.MustCompile(`^line (\d+): `)
	yamlAnchor  = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
	flowTrouble = regexp.MustCompile(`[\[{].*\$\{`)
)

// syntax tells an error of the YAML parser in the form of the other faults.
func (r *report) syntax(data []byte, err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	if m := yamlAnchor.FindStringSubmatch(text); m != nil {
		// The parser does not say where; aliases are refused in any case.
		before, _, _ := bytes.Cut(data, []byte("*"+m[1]))
		r.faultAt(mark{line: 1 + bytes.Count(before, []byte("\n"))}, "", "the alias %s is not allowed; write the value out, in quotes if it begins with *", quote("*"+m[1]))
		return
	}
	lines := bytes.Split(data, []byte("\n"))
	line = min(line, len(lines))
	hint := ""
	if flowTrouble.Match(lines[line-1]) {
		hint = "; within [ ] or { }, ${NAME} needs quotes"
	}
	r.faultAt(mark{line: line}, "", "not valid YAML, in this line or just before it: %s%s", text, hint)
}

// refuseTricks refuses what makes YAML mean something else than it shows.
// Aliases also make small files large.
func (r *report) refuseTricks(n *yaml.Node) {
	here := mark{line: n.Line, column: n.Column}
	switch {
	case n.Kind == yaml.AliasNode:
		r.faultAt(here, "", "aliases (*%s) are not allowed; write the value out", shortKey(n.Value))
	case n.Anchor != "":
		r.faultAt(here, "", "anchors (&%s) are not allowed; write the value out where it is needed", shortKey(n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		r.faultAt(here, "", "tags (%s) are not allowed", shortKey(n.Tag))
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Tag == "!!merge" {
			r.faultAt(mark{line: c.Line, column: c.Column}, "", "merge keys (<<) are not allowed; write the values out")
		}
		r.refuseTricks(c)
	}
}

// kindName says in a word what a node is.
func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		return "a single value"
	}
	return "an alias"
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.*-]{1,64}$`)

// shortKey makes a key of the file fit to stand in one line of a fault.
func shortKey(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return fmt.Sprintf("%.66s", quote(key))
}
