package policy

import (
	"fmt"
	"slices"
	"strings"
)

// CheckPattern says whether an entry of allow or deny names at least one
// operation; the error tells what an entry may be.
func (c *Catalog) CheckPattern(entry string) error {
	if len(c.named(entry)) > 0 {
		return nil
	}
	return fmt.Errorf("%q names no operation; an entry is a class (%s), an operation's id with * for any characters (machines.*), or the method and path of a row (\"GET /api/machines/{id}\"); the command operations lists them",
		entry, joined(Classes(), ", "))
}

// named lists the operations that an entry names.
func (c *Catalog) named(entry string) []*Operation {
	var is func(*Operation) bool
	if method, path, ok := strings.Cut(entry, " "); ok {
		path = plainTemplate(strings.TrimSpace(path))
		is = func(op *Operation) bool { return op.Method == method && plainTemplate(op.Path) == path }
	} else if slices.Contains(Classes(), Class(entry)) {
		is = func(op *Operation) bool { return op.Class == Class(entry) }
	} else {
		pattern := fold(entry)
		class, _ := strings.CutSuffix(entry, ".*") // respond.*: the class, and what has such an id
		is = func(op *Operation) bool { return op.Class == Class(class) || glob(pattern, fold(op.ID)) }
	}
	var ops []*Operation
	for _, op := range c.rows {
		if is(op) {
			ops = append(ops, op)
		}
	}
	return ops
}

// plainTemplate makes templates comparable: in lower case, without the names of
// placeholders and the version.
func plainTemplate(path string) string {
	var b strings.Builder
	inside := false
	for _, r := range fold(path) {
		switch {
		case r == '{':
			inside = true
		case r == '}':
			inside = false
		case inside:
			continue
		}
		b.WriteRune(r)
	}
	if rest, ok := strings.CutPrefix(b.String(), "/api/v1.0/"); ok {
		return "/api/" + rest
	}
	return strings.TrimSuffix(b.String(), "/")
}

// glob matches s against a pattern in which * stands for any characters, in
// time linear in their lengths multiplied: each star takes as little as it can,
// and only the last one is ever asked for more.
func glob(pattern, s string) bool {
	star, taken := -1, 0 // the last star's place, and how far it has taken s
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, taken = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			taken++
			p, i = star+1, taken
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
