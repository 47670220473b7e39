package simulator

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// options are the query options of a request.
type options struct {
	filter    *expr
	top       int // -1 when absent
	skip      int
	count     bool
	selects   []string
	orders    []order
	expands   []string
	skiptoken string
	// custom are the parameters without a dollar sign, by name in lower case.
	custom map[string]string
	// kept are the parameters that a next link repeats, as they stood.
	kept []string
}

// order is one part of $orderby.
type order struct {
	name       string
	descending bool
}

// readOptions reads the raw query. It splits at & alone, as ASP.NET does: a
// semicolon is a character like any other.
func readOptions(raw string) (options, *problem) {
	o := options{top: -1, custom: map[string]string{}}
	seen := map[string]bool{}
	for _, pair := range strings.Split(raw, "&") {
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(rawName)
		value, err2 := url.QueryUnescape(rawValue)
		if err1 != nil || err2 != nil {
			return o, odataProblem("The query parameter '%s' is not encoded correctly.", rawName)
		}
		name = strings.ToLower(name)
		if name != "$skiptoken" && name != "$skip" {
			o.kept = append(o.kept, pair)
		}
		if !strings.HasPrefix(name, "$") {
			o.custom[name] = value
			continue
		}
		if seen[name] {
			return o, odataProblem("Query option '%s' was specified more than once, but it must be specified at most once.", name)
		}
		seen[name] = true
		if p := o.set(name, value); p != nil {
			return o, p
		}
	}
	return o, nil
}

func (o *options) set(name, value string) (p *problem) {
	switch name {
	case "$filter":
		o.filter, p = parseFilter(value)
	case "$top":
		o.top, p = naturalNumber(name, value)
	case "$skip":
		o.skip, p = naturalNumber(name, value)
	case "$count":
		switch strings.ToLower(value) {
		case "true":
			o.count = true
		case "false":
		default:
			return odataProblem("Invalid value '%s' for $count query option found. Valid values are 'true' and 'false'.", value)
		}
	case "$select":
		o.selects, p = names(name, value)
	case "$expand":
		o.expands, p = names(name, value)
	case "$orderby":
		o.orders, p = orders(value)
	case "$skiptoken":
		o.skiptoken = value
	case "$format", "$search", "$apply", "$compute", "$levels", "$deltatoken":
		return odataProblem("The query option '%s' is not supported.", name)
	default:
		return odataProblem("The query parameter '%s' is not supported.", name)
	}
	return p
}

func naturalNumber(name, value string) (int, *problem) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return 0, odataProblem("Invalid value '%s' for %s query option found. The %s query option requires a non-negative integer value.", value, name, name)
	}
	return n, nil
}

func names(option, value string) ([]string, *problem) {
	var out []string
	for _, n := range strings.Split(value, ",") {
		if n = strings.TrimSpace(n); n == "" {
			return nil, odataProblem("Empty name in %s.", option)
		}
		out = append(out, n)
	}
	return out, nil
}

func orders(value string) ([]order, *problem) {
	parts, p := names("$orderby", value)
	if p != nil {
		return nil, p
	}
	var out []order
	for _, part := range parts {
		words := strings.Fields(part)
		o := order{name: words[0]}
		switch {
		case len(words) == 1, len(words) == 2 && words[1] == "asc":
		case len(words) == 2 && words[1] == "desc":
			o.descending = true
		default:
			return nil, odataProblem("Syntax error in $orderby: '%s'.", part)
		}
		out = append(out, o)
	}
	return out, nil
}

// check compares the options with a resource type.
func (o *options) check(s *schema) *problem {
	if o.filter != nil {
		if p := checkFilter(o.filter, s); p != nil {
			return p
		}
	}
	for _, name := range slices.Concat(o.selects, orderNames(o.orders)) {
		if _, ok := s.find(name); !ok && name != "*" {
			return odataProblem("Could not find a property named '%s' on type 'microsoft.windowsDefenderATP.api.%s'.", name, s.name)
		}
	}
	for _, name := range o.expands {
		if f, ok := s.find(name); !ok || !f.expand {
			return odataProblem("Property '%s' on type 'microsoft.windowsDefenderATP.api.%s' is not a navigation property or complex property. Only navigation properties can be expanded.", name, s.name)
		}
	}
	return nil
}

func orderNames(orders []order) []string {
	var out []string
	for _, o := range orders {
		out = append(out, o.name)
	}
	return out
}
