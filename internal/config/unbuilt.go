package config

import (
	"cmp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// notBuilt is what the file has keys for and this version cannot do. Such a key
// is refused when it asks for the thing, because ignoring it would promise what
// does not happen, and passes when it asks for nothing. A row whose thing gets
// built is deleted here, and gets a field in Config or a further oneof value.
var notBuilt = []unbuilt{
	{key: "quota.enforce", asks: is("true"), show: true, what: "budgets", instead: "set it to false or leave it out"},
	{key: "quota.share", asks: anything, unless: "enforce", what: "budgets", instead: "leave it out, or set quota.enforce to false"},
	{key: "cache.ttl", asks: anything, what: "the cache", instead: "set it to {} or leave it out"},
	{key: "store", asks: begins("redis://", "rediss://"), what: "a store shared by replicas", instead: "set it to memory or leave it out"},
}

// unbuilt is one row of notBuilt.
type unbuilt struct {
	// key is the path with its indices left out.
	key string
	// asks reports whether a value asks for the thing. text is a scalar with its
	// variables put in.
	asks func(n *yaml.Node, text string) bool
	// unless is a key beside it that, set to false, makes the value ask for nothing.
	unless string
	// what follows "asks for", instead says what to do about it.
	what, instead string
	// show lets the fault repeat the value. Others may hold a secret.
	show bool
}

// is asks for the thing with one of the given values.
func is(values ...string) func(*yaml.Node, string) bool {
	return func(_ *yaml.Node, text string) bool { return slices.Contains(values, text) }
}

// begins asks for the thing with any text that has one of the prefixes.
func begins(prefixes ...string) func(*yaml.Node, string) bool {
	return func(_ *yaml.Node, text string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(text, p) })
	}
}

// anything asks for the thing with any value but an empty list or mapping.
func anything(n *yaml.Node, _ string) bool { return n.Kind == yaml.ScalarNode || len(n.Content) > 0 }

// unbuiltKey reports whether the key at path is known, though Config may have no
// field for it.
func unbuiltKey(path string) bool {
	key := generic(path)
	return slices.ContainsFunc(notBuilt, func(row unbuilt) bool { return row.key == key })
}

// asksForUnbuilt reports a fault, and true, when the value at path asks for what
// this version does not have. around is the mapping or list it stands in.
func (d *decoder) asksForUnbuilt(path string, n, around *yaml.Node) bool {
	key := generic(path)
	for _, row := range notBuilt {
		if row.key != key {
			continue
		}
		text, used := "", false
		if n.Kind == yaml.ScalarNode {
			// A variable that is not set leaves the text empty and is reported when
			// the value is decoded.
			text, used, _ = expand(n.Value, d.lookup)
		}
		if !row.asks(n, text) || row.unless != "" && d.isFalse(around, row.unless) {
			continue
		}
		value, instead := "", cmp.Or(row.instead, "leave it out")
		if row.show && !used {
			value = text + " "
		}
		d.fault(path, "%sasks for %s, which this version does not have; %s", value, row.what, instead)
		return true
	}
	return false
}

// isFalse reports whether a mapping gives the key as false.
func (d *decoder) isFalse(mapping *yaml.Node, key string) bool {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			text, _, err := expand(mapping.Content[i+1].Value, d.lookup)
			return err == nil && text == "false"
		}
	}
	return false
}
