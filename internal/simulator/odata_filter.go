package simulator

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// expr is a node of a parsed $filter.
//
// op is one of: or and not; eq ne gt ge lt le; in; contains startswith
// endswith; any; property; variable; literal.
type expr struct {
	op    string
	args  []*expr
	name  string // of a property, or of the variable of any
	value any    // of a literal: nil, bool, string, float64 or time.Time
}

// Bounds of a filter: how deep it may nest and how many nodes it may have.
// Microsoft's library stops at 100 nodes by default.
const (
	maxFilterDepth = 50
	maxFilterNodes = 500
)

// filterParser is a recursive descent over the words of a filter.
type filterParser struct {
	text     string
	words    []token
	at       int
	depth    int
	nodes    int
	variable string // inside any: the name of the element
}

// parseFilter reads a $filter. It knows the grammar only; check compares it
// with a resource type.
func parseFilter(s string) (*expr, *problem) {
	words, p := lex(s)
	if p != nil {
		return nil, p
	}
	f := &filterParser{text: s, words: words}
	e, p := f.or()
	if p != nil {
		return nil, p
	}
	if f.peek().kind != tokEnd {
		return nil, f.syntax()
	}
	return e, nil
}

func (f *filterParser) peek() token { return f.words[f.at] }

func (f *filterParser) next() token {
	t := f.words[f.at]
	if t.kind != tokEnd {
		f.at++
	}
	return t
}

func (f *filterParser) isWord(w string) bool {
	t := f.peek()
	return t.kind == tokWord && t.text == w
}

func (f *filterParser) take(mark string) bool {
	if t := f.peek(); t.kind == tokMark && t.text == mark {
		f.at++
		return true
	}
	return false
}

func (f *filterParser) syntax() *problem {
	return odataProblem("Syntax error at position %d in '%s'.", f.peek().at, f.text)
}

// node counts and makes a node.
func (f *filterParser) node(e *expr) (*expr, *problem) {
	if f.nodes++; f.nodes > maxFilterNodes {
		return nil, odataProblem("The node count limit of '%d' has been exceeded.", maxFilterNodes)
	}
	return e, nil
}

func (f *filterParser) or() (*expr, *problem) {
	if f.depth++; f.depth > maxFilterDepth {
		return nil, odataProblem("Recursion limit reached: the filter nests deeper than %d levels.", maxFilterDepth)
	}
	defer func() { f.depth-- }()
	return f.chain("or", func() (*expr, *problem) { return f.chain("and", f.not) })
}

// chain reads operands that are joined by the same operator.
func (f *filterParser) chain(op string, operand func() (*expr, *problem)) (*expr, *problem) {
	left, p := operand()
	for p == nil && f.isWord(op) {
		f.next()
		var right *expr
		if right, p = operand(); p == nil {
			left, p = f.node(&expr{op: op, args: []*expr{left, right}})
		}
	}
	return left, p
}

// not binds tighter than comparison in OData, so its operand is a term.
func (f *filterParser) not() (*expr, *problem) {
	if !f.isWord("not") {
		return f.comparison()
	}
	f.next()
	if f.depth++; f.depth > maxFilterDepth {
		return nil, odataProblem("Recursion limit reached: the filter nests deeper than %d levels.", maxFilterDepth)
	}
	defer func() { f.depth-- }()
	e, p := f.not()
	if p != nil {
		return nil, p
	}
	return f.node(&expr{op: "not", args: []*expr{e}})
}

var comparisons = []string{"eq", "ne", "gt", "ge", "lt", "le"}

func (f *filterParser) comparison() (*expr, *problem) {
	left, p := f.term()
	if p != nil {
		return nil, p
	}
	t := f.peek()
	if t.kind == tokWord && slices.Contains(comparisons, t.text) {
		f.next()
		right, p := f.term()
		if p != nil {
			return nil, p
		}
		return f.node(&expr{op: t.text, args: []*expr{left, right}})
	}
	if t.kind == tokWord && t.text == "in" {
		f.next()
		return f.in(left)
	}
	return left, nil
}

func (f *filterParser) in(left *expr) (*expr, *problem) {
	if !f.take("(") {
		return nil, f.syntax()
	}
	e := &expr{op: "in", args: []*expr{left}}
	for {
		one, p := f.term()
		if p != nil {
			return nil, p
		}
		if one.op != "literal" {
			return nil, f.syntax()
		}
		e.args = append(e.args, one)
		if f.take(")") {
			return f.node(e)
		}
		if !f.take(",") {
			return nil, f.syntax()
		}
	}
}

// functions takes the same two arguments each.
var functions = []string{"contains", "startswith", "endswith"}

func (f *filterParser) term() (*expr, *problem) {
	if f.take("(") {
		e, p := f.or()
		if p != nil {
			return nil, p
		}
		if !f.take(")") {
			return nil, f.syntax()
		}
		return e, nil
	}
	t := f.peek()
	switch t.kind {
	case tokLiteral:
		f.next()
		return f.node(&expr{op: "literal", value: t.value})
	case tokWord:
		return f.word()
	}
	return nil, f.syntax()
}

// word reads what begins with a name.
func (f *filterParser) word() (*expr, *problem) {
	t := f.next()
	switch t.text {
	case "null":
		return f.node(&expr{op: "literal"})
	case "true", "false":
		return f.node(&expr{op: "literal", value: t.text == "true"})
	case "and", "or", "not", "in", "eq", "ne", "gt", "ge", "lt", "le":
		f.at--
		return nil, f.syntax()
	}
	switch {
	case f.take("("):
		if !slices.Contains(functions, t.text) {
			return nil, odataProblem("An unknown function with name '%s' was found.", t.text)
		}
		return f.function(t.text)
	case f.take("/"):
		return f.lambda(t.text)
	case t.text == f.variable:
		return f.node(&expr{op: "variable", name: t.text})
	}
	return f.node(&expr{op: "property", name: t.text})
}

func (f *filterParser) function(name string) (*expr, *problem) {
	left, p := f.term()
	if p != nil {
		return nil, p
	}
	if !f.take(",") {
		return nil, f.syntax()
	}
	right, p := f.term()
	if p != nil {
		return nil, p
	}
	if !f.take(")") {
		return nil, f.syntax()
	}
	return f.node(&expr{op: name, args: []*expr{left, right}})
}

// lambda reads machineTags/any(tag: tag eq 'x'), the one form of the pages.
func (f *filterParser) lambda(property string) (*expr, *problem) {
	if !f.isWord("any") || f.variable != "" {
		return nil, f.syntax()
	}
	f.next()
	if !f.take("(") {
		return nil, f.syntax()
	}
	v := f.next()
	if v.kind != tokWord || slices.Contains(reserved, v.text) || !f.take(":") {
		return nil, f.syntax()
	}
	f.variable = v.text
	body, p := f.or()
	f.variable = ""
	if p != nil {
		return nil, p
	}
	if !f.take(")") {
		return nil, f.syntax()
	}
	return f.node(&expr{op: "any", name: v.text, args: []*expr{{op: "property", name: property}, body}})
}

var reserved = []string{"and", "or", "not", "in", "eq", "ne", "gt", "ge", "lt", "le", "null", "true", "false"}

// String prints the filter so that parsing gives the same expression again.
func (e *expr) String() string {
	var b strings.Builder
	e.print(&b)
	return b.String()
}

func (e *expr) print(b *strings.Builder) {
	switch e.op {
	case "literal":
		b.WriteString(literal(e.value))
	case "property", "variable":
		b.WriteString(e.name)
	case "not":
		b.WriteString("not ")
		e.args[0].printTerm(b)
	case "any":
		b.WriteString(e.args[0].name + "/any(" + e.name + ": ")
		e.args[1].print(b)
		b.WriteByte(')')
	case "contains", "startswith", "endswith":
		b.WriteString(e.op + "(")
		e.args[0].printTerm(b)
		b.WriteString(", ")
		e.args[1].printTerm(b)
		b.WriteByte(')')
	case "in":
		e.args[0].printTerm(b)
		b.WriteString(" in (")
		for i, a := range e.args[1:] {
			if i > 0 {
				b.WriteString(", ")
			}
			a.print(b)
		}
		b.WriteByte(')')
	default:
		e.args[0].printTerm(b)
		b.WriteString(" " + e.op + " ")
		e.args[1].printTerm(b)
	}
}

// printTerm adds the parentheses that an operand needs. It adds more than the
// fewest: only what stands for itself goes without.
func (e *expr) printTerm(b *strings.Builder) {
	switch e.op {
	case "literal", "property", "variable", "any", "contains", "startswith", "endswith":
		e.print(b)
	default:
		b.WriteByte('(')
		e.print(b)
		b.WriteByte(')')
	}
}

func literal(v any) string {
	switch x := v.(type) {
	case bool:
		return strconv.FormatBool(x)
	case string:
		return "'" + strings.ReplaceAll(x, "'", "''") + "'"
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case time.Time:
		return x.Format(time.RFC3339Nano)
	}
	return "null"
}
