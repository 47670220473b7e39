package simulator

import (
	"cmp"
	"reflect"
	"strings"
	"time"
)

// checkFilter compares a filter with a resource type: only properties that its
// page lists, and only types that fit.
func checkFilter(e *expr, s *schema) *problem {
	k, _, p := kindIn(e, s)
	if p == nil && k != kindBool {
		p = odataProblem("The $filter expression must evaluate to a single boolean value.")
	}
	return p
}

// kindIn finds the kind of an expression. null tells that it is the literal
// null, which fits everything.
func kindIn(e *expr, s *schema) (k kind, null bool, p *problem) {
	switch e.op {
	case "literal":
		return kindOfLiteral(e.value), e.value == nil, nil
	case "variable":
		return kindText, false, nil
	case "property":
		f, ok := s.find(e.name)
		if !ok {
			return 0, false, odataProblem("Could not find a property named '%s' on type 'microsoft.windowsDefenderATP.api.%s'.", e.name, s.name)
		}
		if !f.filter {
			return 0, false, odataProblem("The property '%s' cannot be used in the $filter query option.", f.name)
		}
		return f.kind, false, nil
	case "any":
		if f, _, p := kindIn(e.args[0], s); p != nil {
			return 0, false, p
		} else if f != kindTexts {
			return 0, false, odataProblem("Any/All may only be used following a collection.")
		}
		k, _, p := kindIn(e.args[1], s)
		if p == nil && k != kindBool {
			p = odataProblem("Any/All must hold a boolean expression.")
		}
		return kindBool, false, p
	}
	kinds := make([]kind, len(e.args))
	nulls := make([]bool, len(e.args))
	for i, a := range e.args {
		if kinds[i], nulls[i], p = kindIn(a, s); p != nil {
			return 0, false, p
		}
	}
	want := kinds[0]
	switch e.op {
	case "and", "or", "not":
		want = kindBool
	case "contains", "startswith", "endswith":
		want = kindText
	}
	for i, k := range kinds {
		if k != want && !(nulls[i] || nulls[0] && e.op != "and" && e.op != "or") || k == kindTexts || k == kindOther && !nulls[i] {
			return 0, false, odataProblem("A binary operator with incompatible types was detected. Found operand types '%s' and '%s' for operator kind '%s'.",
				kinds[0].edm(), k.edm(), e.op)
		}
	}
	return kindBool, false, nil
}

func kindOfLiteral(v any) kind {
	switch v.(type) {
	case string:
		return kindText
	case float64:
		return kindNumber
	case bool:
		return kindBool
	case time.Time:
		return kindTime
	}
	return kindOther
}

// environment is what names in a filter stand for.
type environment struct {
	schema  *schema
	row     reflect.Value
	element any // of any
}

// holds evaluates a checked filter for one row.
func (env environment) holds(e *expr) bool {
	b, _ := env.value(e).(bool)
	return b
}

func (env environment) value(e *expr) any {
	switch e.op {
	case "literal":
		return e.value
	case "variable":
		return env.element
	case "property":
		p, _ := env.schema.find(e.name)
		return valueOf(env.row, p)
	case "and":
		return env.holds(e.args[0]) && env.holds(e.args[1])
	case "or":
		return env.holds(e.args[0]) || env.holds(e.args[1])
	case "not":
		return !env.holds(e.args[0])
	case "any":
		all, _ := env.value(e.args[0]).([]string)
		for _, one := range all {
			env.element = one
			if env.holds(e.args[1]) {
				return true
			}
		}
		return false
	case "in":
		left := env.value(e.args[0])
		for _, a := range e.args[1:] {
			if order, ok := compare(left, a.value); ok && order == 0 {
				return true
			}
		}
		return false
	case "contains", "startswith", "endswith":
		text, ok1 := env.value(e.args[0]).(string)
		part, ok2 := env.value(e.args[1]).(string)
		if !ok1 || !ok2 {
			return false
		}
		switch e.op {
		case "contains":
			return strings.Contains(text, part)
		case "startswith":
			return strings.HasPrefix(text, part)
		}
		return strings.HasSuffix(text, part)
	}
	order, ok := compare(env.value(e.args[0]), env.value(e.args[1]))
	switch e.op {
	case "eq":
		return ok && order == 0
	case "ne":
		return !ok || order != 0
	case "gt":
		return ok && order > 0
	case "ge":
		return ok && order >= 0
	case "lt":
		return ok && order < 0
	}
	return ok && order <= 0
}

// compare orders two values of one kind; false when they have no order, as
// null with anything but null.
func compare(a, b any) (int, bool) {
	if a == nil || b == nil {
		return 0, a == nil && b == nil
	}
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return cmp.Compare(x, y), true
		}
	case float64:
		if y, ok := b.(float64); ok {
			return cmp.Compare(x, y), true
		}
	case time.Time:
		if y, ok := b.(time.Time); ok {
			return x.Compare(y), true
		}
	case bool:
		if y, ok := b.(bool); ok {
			return cmp.Compare(toInt(x), toInt(y)), true
		}
	}
	return 0, false
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
