package condition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"cel.dev/cel-go/common/ast"
)

// names is what a condition spells out of a body.
type names struct {
	body bool
	// keys are the names of fields, by their folded form.
	keys map[string][]string
}

// barred are the functions of the string extension that a caller could make
// expensive with one call: the cost of a call is known only afterwards.
var barred = []string{"format", "join", "quote", "strings.quote", "replace", "reverse", "split"}

// look goes through a condition and says what it spells out, or what of it is not
// allowed.
func look(tree *ast.AST) (names, error) {
	found := names{keys: make(map[string][]string)}
	var literals []string
	var faults []error
	loops := false
	spelt := func(key string) {
		f := folded(key)
		if !slices.Contains(found.keys[f], key) {
			found.keys[f] = append(found.keys[f], key)
		}
	}
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			found.body = found.body || e.AsIdent() == body
		case ast.SelectKind:
			spelt(e.AsSelect().FieldName())
		case ast.LiteralKind:
			if s, ok := e.AsLiteral().Value().(string); ok {
				literals = append(literals, s)
			}
		case ast.ComprehensionKind:
			loops = true
		case ast.CallKind:
			faults = append(faults, call(e.AsCall(), spelt))
		}
	}))
	if loops { // it may go through keys, and compare them with any of these
		for _, s := range literals {
			spelt(s)
		}
	}
	return found, errors.Join(faults...)
}

// call judges one call of a function.
func call(c ast.CallExpr, spelt func(string)) error {
	text := func(i int) {
		if args := c.Args(); i < len(args) && args[i].Kind() == ast.LiteralKind {
			if s, ok := args[i].AsLiteral().Value().(string); ok {
				spelt(s)
			}
		}
	}
	switch name := c.FunctionName(); {
	case slices.Contains(barred, name):
		return fmt.Errorf("the function %s is not for conditions", name)
	case name == "matches":
		if args := c.Args(); len(args) > 0 && args[len(args)-1].Kind() != ast.LiteralKind {
			return errors.New("the pattern of matches must be written out")
		}
	case name == "_[_]":
		text(1)
	case name == "@in":
		text(0)
	}
	return nil
}

// check goes through a body and refuses it where a key is one that the condition
// spells out, but in other letter case. Whether the far side takes it for the same
// is not certain: names in bodies are documented as case-sensitive, while the usual
// JSON readers of .NET find properties in any letter case.
func (n names) check(value any) error {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if want := n.keys[folded(key)]; want != nil && !slices.Contains(want, key) {
				return fmt.Errorf("the body spells %s as %s", want[0], shortened(fmt.Sprintf("%q", key)))
			}
			if err := n.check(inner); err != nil {
				return err
			}
		}
	case []any:
		for _, inner := range v {
			if err := n.check(inner); err != nil {
				return err
			}
		}
	}
	return nil
}

// folded gives keys that differ in letter case the same form, by Unicode's simple
// folding. It takes more for the same than .NET's OrdinalIgnoreCase does, which is
// the safe side.
func folded(key string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, key)
}
