package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// decoder fills a Config from YAML nodes and remembers where each key stood.
type decoder struct {
	*report
	dir    string // relative paths start here
	lookup func(string) (string, bool)
}

// rules are the tags of a field; see Config.
type rules struct {
	kind, def, min, max string
	oneof               []string
}

func rulesOf(f reflect.StructField) rules {
	return rules{
		kind:  f.Tag.Get("kind"),
		def:   f.Tag.Get("default"),
		min:   f.Tag.Get("min"),
		max:   f.Tag.Get("max"),
		oneof: strings.Fields(f.Tag.Get("oneof")),
	}
}

// keyOf gives the key of a field, or "" for one that the file does not set.
// Types of other packages say their keys in their json tags.
func keyOf(f reflect.StructField) string {
	key := f.Tag.Get("yaml")
	if key == "" {
		key = f.Tag.Get("json")
	}
	if key == "-" || !f.IsExported() {
		return ""
	}
	return key
}

// setDefaults gives every field of a struct, and of the structs in it, its
// default.
func setDefaults(v reflect.Value) {
	for i := range v.NumField() {
		field, r := v.Field(i), rulesOf(v.Type().Field(i))
		switch {
		case r.def != "":
			if reason := parse(r.def, field, r.kind); reason != "" {
				panic(fmt.Sprintf("config: default of %s: %s", v.Type().Field(i).Name, reason))
			}
		case field.Kind() == reflect.Struct && keyOf(v.Type().Field(i)) != "":
			setDefaults(field)
		}
	}
}

// decode reads the node at path into v. Where that fails it reports a fault and
// leaves v as it is.
func (d *decoder) decode(n *yaml.Node, path string, v reflect.Value, r rules) {
	switch {
	case n.Kind == yaml.AliasNode:
		return // refused already
	case n.Kind == yaml.ScalarNode && v.Type() == reflect.TypeFor[Secret]():
		// What stands here may be the secret itself.
		d.fault(path, "a secret is not written into the configuration; name where it is: %s", secretForms(r.kind))
		return
	case n.Kind == yaml.ScalarNode && v.Type() == reflect.TypeFor[Grant]():
		var text string
		if d.decodeScalar(n, path, reflect.ValueOf(&text).Elem(), r); d.clean(path) {
			v.Set(reflect.ValueOf(Grant{Operations: []string{text}}))
		}
		return
	case v.Kind() == reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		setDefaults(fresh.Elem())
		d.decode(n, path, fresh.Elem(), r)
		v.Set(fresh)
		return
	case v.Kind() == reflect.Struct && !isScalar(v.Type()):
		if d.expect(n, yaml.MappingNode, path) {
			d.decodeStruct(n, path, v)
		}
	case v.Kind() == reflect.Map:
		if d.expect(n, yaml.MappingNode, path) {
			d.decodeMap(n, path, v, r)
		}
	case v.Kind() == reflect.Slice:
		if d.expect(n, yaml.SequenceNode, path) {
			d.decodeList(n, path, v, r)
		}
	default:
		if d.expect(n, yaml.ScalarNode, path) {
			d.decodeScalar(n, path, v, r)
		}
	}
}

// refuseNull refuses a key without a value: whether it means nothing, everything
// or the default differs from reader to reader.
func (d *decoder) refuseNull(n *yaml.Node, path string) bool {
	null := n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Style == 0
	if null {
		d.fault(path, "has no value; give it one or leave the key out")
	}
	return null
}

func (d *decoder) expect(n *yaml.Node, kind yaml.Kind, path string) bool {
	if n.Kind == kind {
		return true
	}
	wanted := map[yaml.Kind]string{
		yaml.MappingNode:  "a mapping of keys is wanted",
		yaml.SequenceNode: "a list is wanted, such as [a, b]",
		yaml.ScalarNode:   "a single value is wanted",
	}[kind]
	d.fault(path, "found %s where %s", kindName(n), wanted)
	return false
}

func (d *decoder) decodeStruct(n *yaml.Node, path string, v reflect.Value) {
	fields := make(map[string]int)
	var keys []string
	secret := v.Type() == reflect.TypeFor[Secret]()
	for i := range v.NumField() {
		if key := keyOf(v.Type().Field(i)); key != "" {
			fields[key] = i
			keys = append(keys, key)
		}
	}
	d.eachKey(n, path, secret, func(key string, at mark, value *yaml.Node) {
		child := join(path, key)
		i, known := fields[key]
		if !known && !unbuiltKey(child) {
			if word := nearest(key, keys); word != "" {
				d.meant[join(path, word)] = true
			}
			if secret {
				// {SECRET} is a mapping with a key, too.
				d.faultAt(at, path, "has a key that is not shown, because it may be the secret; known are %s%s", strings.Join(keys, ", "), DidYouMean(key, keys))
				return
			}
			d.faultAt(at, child, "unknown key%s; known are %s", DidYouMean(key, keys), strings.Join(keys, ", "))
			return
		}
		d.marks[child] = at
		if d.refuseNull(value, child) || d.asksForUnbuilt(child, value, n) || !known {
			return
		}
		d.decode(value, child, v.Field(i), rulesOf(v.Type().Field(i)))
	})
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if needs := f.Tag.Get("required"); needs != "" {
			d.missing(join(path, keyOf(f)), needs)
		}
	}
}

func (d *decoder) decodeMap(n *yaml.Node, path string, v reflect.Value, r rules) {
	fresh := reflect.MakeMap(v.Type())
	d.eachKey(n, path, false, func(key string, at mark, value *yaml.Node) {
		child := join(path, key)
		d.marks[child] = at
		elem := reflect.New(v.Type().Elem()).Elem()
		if d.refuseNull(value, child) {
			return
		}
		d.decode(value, child, elem, r)
		fresh.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), elem)
	})
	v.Set(fresh)
}

func (d *decoder) decodeList(n *yaml.Node, path string, v reflect.Value, r rules) {
	fresh := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		if d.full() {
			return
		}
		child := fmt.Sprintf("%s[%d]", path, i)
		d.marks[child] = d.here(item)
		elem := fresh.Index(i)
		if elem.Kind() == reflect.Struct && !isScalar(elem.Type()) {
			setDefaults(elem)
		}
		if !d.refuseNull(item, child) && !d.asksForUnbuilt(child, item, n) {
			d.decode(item, child, elem, r)
		}
	}
	v.Set(fresh)
}

// eachKey calls f for the keys of a mapping, and reports those that are no text
// or given before. The keys of a secret are not shown.
func (d *decoder) eachKey(n *yaml.Node, path string, secret bool, f func(key string, at mark, value *yaml.Node)) {
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if d.full() {
			return
		}
		k, value := n.Content[i], n.Content[i+1]
		at := d.here(k)
		switch {
		case k.Kind == yaml.AliasNode || k.Tag == "!!merge":
			continue // refused already
		case k.Kind != yaml.ScalarNode || k.Value == "":
			d.faultAt(at, path, "a key must be a word")
			continue
		case first[k.Value] > 0 && secret:
			d.faultAt(at, path, "has a key twice that is not shown, because it may be the secret; first in line %d", first[k.Value])
			continue
		case first[k.Value] > 0:
			d.faultAt(at, join(path, k.Value), "is given twice; first in line %d", first[k.Value])
			continue
		}
		first[k.Value] = k.Line
		f(k.Value, at, value)
	}
}

func (d *decoder) decodeScalar(n *yaml.Node, path string, v reflect.Value, r rules) {
	put := expand
	if r.kind == kindProxy {
		put = expandProxy
	}
	text, used, err := put(n.Value, d.lookup)
	if err != nil {
		d.fault(path, "%v", err)
		return
	}
	if used {
		d.fromEnvironment(path, n.Value)
	}
	found := d.show(path, text)
	if v.Type() == reflect.TypeFor[LocalKey]() {
		k, reason := localKey(text, used)
		if reason != "" {
			d.fault(path, "the value, which is not shown, %s", reason)
		}
		v.Set(reflect.ValueOf(k))
		return
	}
	if r.kind == kindVault || r.kind == kindProxy && strings.Count(text, ":") > 2 {
		// It may well be the secret itself, or hold one.
		found = "the value, which is not shown,"
	}
	if !used {
		if reason := wrongType(n, v, r.kind); reason != "" {
			d.fault(path, "%s %s", found, reason)
			return
		}
	}
	fresh := reflect.New(v.Type()).Elem()
	if reason := parse(text, fresh, r.kind); reason != "" {
		d.fault(path, "%s %s", found, reason)
		return
	}
	if len(r.oneof) > 0 && !slices.Contains(r.oneof, text) {
		hint := ""
		if !used {
			hint = DidYouMean(text, r.oneof)
		}
		d.fault(path, "unknown value %s; known are %s%s", found, strings.Join(r.oneof, ", "), hint)
		return
	}
	if r.min != "" && (less(fresh, bound(r.min, v.Type(), r.kind)) || less(bound(r.max, v.Type(), r.kind), fresh)) {
		d.fault(path, "%s is out of bounds; allowed is from %s to %s", found, r.min, r.max)
		return
	}
	if r.kind == kindPath || r.kind == kindOutput {
		fresh.SetString(d.resolve(fresh.String(), r.kind))
	}
	v.Set(fresh)
}

// wrongType says why a scalar that stands in the file as it is cannot be read
// into v: YAML tells numbers and truth values from text by their quotes.
func wrongType(n *yaml.Node, v reflect.Value, kind string) string {
	quoted := n.Style != 0
	if kind == kindAccount && n.Tag == "!!int" {
		return "" // the number of a user or group
	}
	switch v.Kind() {
	case reflect.Bool:
		if quoted || n.Tag != "!!bool" {
			return "is not true or false"
		}
	case reflect.Int:
		if quoted {
			return "is text; a number is wanted, without quotes"
		}
	case reflect.String:
		if !quoted && (n.Tag == "!!bool" || n.Tag == "!!int" || n.Tag == "!!float") {
			return "is not text; put it in quotes if it is meant to be"
		}
	}
	return ""
}

func bound(text string, t reflect.Type, kind string) reflect.Value {
	v := reflect.New(t).Elem()
	if reason := parse(text, v, kind); reason != "" {
		panic(fmt.Sprintf("config: bound %s: %s", text, reason))
	}
	return v
}

func less(a, b reflect.Value) bool {
	if a.CanFloat() {
		return a.Float() < b.Float()
	}
	return a.Int() < b.Int()
}

// join appends a key to a path. Keys that would not fit into a line are quoted
// and cut.
func join(path, key string) string {
	if !plainKey.MatchString(key) {
		key = shortKey(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// generic gives a path with its indices left out: tenants[].name.
func generic(path string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(path, "[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		index, after, closed := strings.Cut(rest, "]")
		if _, err := strconv.Atoi(index); !closed || err != nil {
			b.WriteString("[" + rest)
			return b.String()
		}
		b.WriteString("[]")
		path = after
	}
}
