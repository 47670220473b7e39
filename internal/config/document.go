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

// form is what a file holds, and how much of it.
type form struct {
	bytes       int
	size        string // bytes in words
	what, needs string
	such        string // a key that it has
}

// The configuration file, which holds some ten thousand tenants, and a tenant's.
var (
	wholeForm  = form{4 << 20, "4MiB", "a configuration", "at least one tenant, config.example.yaml shows every key", "tenants"}
	tenantForm = form{64 << 10, "64KiB", "a tenant", "its id and its credential, as an entry of tenants does", "id"}
)

// document reads the one YAML document of a file. It gives nil when a fault
// keeps the rest from being understood.
func (r *report) document(data []byte, want form) *yaml.Node {
	if !r.plainText(data, want) {
		return nil
	}
	docs := yaml.NewDecoder(bytes.NewReader(data))
	root, err := next(docs)
	if err == io.EOF || err == nil && empty(root) {
		r.faultAt(r.line(0), "", "the file is empty; %s needs %s", want.what, want.needs)
		return nil
	}
	if err != nil {
		r.syntax(data, err)
		return nil
	}
	switch second, err := next(docs); {
	case err == nil:
		r.faultAt(r.here(second), "", "a second YAML document begins here; %s is one", want.what)
		return nil
	case err != io.EOF:
		r.syntax(data, err)
		return nil
	}
	content := root.Content[0]
	r.refuseTricks(content)
	if content.Kind != yaml.MappingNode {
		r.faultAt(r.here(content), "", "the file holds %s; %s is a mapping of keys such as %s", kindName(content), want.what, want.such)
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

// line is a line of the file that is being read, 0 for the whole of it.
func (r *report) line(n int) mark { return mark{file: r.reading, line: n} }

func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Value == ""
}

// plainText refuses what no editor shows: bytes that are not UTF-8, controls,
// and tabs where YAML counts spaces.
func (r *report) plainText(data []byte, want form) bool {
	if len(data) > want.bytes {
		r.faultAt(r.line(0), "", "the file has %d bytes; at most %d (%s) are read", len(data), want.bytes, want.size)
		return false
	}
	line, column, indent := 1, 1, true
	for len(data) > 0 {
		c, n := utf8.DecodeRune(data)
		here := r.line(line)
		here.column = column
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
		r.faultAt(r.line(1+bytes.Count(before, []byte("\n"))), "", "an alias (*) is not allowed; write the value out, in quotes if it begins with *")
		return
	}
	lines := bytes.Split(data, []byte("\n"))
	line = min(line, len(lines))
	hint := ""
	if flowTrouble.Match(lines[line-1]) {
		hint = "; within [ ] or { }, ${NAME} needs quotes"
	}
	r.faultAt(r.line(line), "", "not valid YAML, in this line or just before it: %s%s", text, hint)
}

// refuseTricks refuses what makes YAML mean something else than it shows.
// Aliases also make small files large. Their names are not shown: what stands
// where a secret was meant to be may be the secret.
func (r *report) refuseTricks(n *yaml.Node) {
	here := r.here(n)
	switch {
	case n.Kind == yaml.AliasNode:
		r.faultAt(here, "", "aliases (*) are not allowed; write the value out, in quotes if it begins with *")
	case n.Anchor != "":
		r.faultAt(here, "", "anchors (&) are not allowed; write the value out where it is needed, in quotes if it begins with &")
	case n.Style&yaml.TaggedStyle != 0:
		r.faultAt(here, "", "tags (!) are not allowed; write the value in quotes if it begins with !")
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Tag == "!!merge" {
			r.faultAt(r.here(c), "", "merge keys (<<) are not allowed; write the values out")
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
