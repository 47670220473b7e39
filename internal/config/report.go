package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// maxFaults bounds what one configuration can be told; one with more is none.
const maxFaults = 200

// mark is where a key was given, and how.
type mark struct {
	file         string // the configuration file where empty
	line, column int
	// raw is the scalar as written, env whether a variable was put into it.
	raw string
	env bool
}

// report gathers the faults of a configuration and knows where each key stands.
//
// The tenants of all files are counted on, tenants[0] to tenants[n]; a fault of
// a tenant with a file of its own names its key as it stands in that file.
type report struct {
	file     string // the configuration file
	reading  string // the tenant's file that is being read, or empty
	marks    map[string]mark
	env      map[string]bool   // keys with a value of the environment below them
	bad      map[string]bool   // keys with a fault at them or below them
	meant    map[string]bool   // keys that were probably meant by misspelt ones
	from     map[string]string // keys of tenants whose value is that of a key of tenant_defaults
	faults   Faults
	warnings Faults
	// files are those of the faults that lie within one tenant's own file, by its
	// path.
	files map[string]Faults
}

func newReport(file string) *report {
	return &report{
		file:  file,
		marks: make(map[string]mark), env: make(map[string]bool), bad: make(map[string]bool),
		meant: make(map[string]bool), from: make(map[string]string), files: make(map[string]Faults),
	}
}

// full reports whether there is no use in looking for more faults.
func (r *report) full() bool { return len(r.faults) > maxFaults }

// here is the place of a node in the file that is being read.
func (r *report) here(n *yaml.Node) mark {
	return mark{file: r.reading, line: n.Line, column: n.Column}
}

// fromEnvironment notes that the value of a key holds a variable's.
func (r *report) fromEnvironment(key, raw string) {
	m := r.marks[key]
	m.raw, m.env = raw, true
	r.marks[key] = m
	around(key, func(outer string) { r.env[outer] = true })
}

// around calls f for a key and for those that it stands in.
func around(key string, f func(key string)) {
	for i := len(key); i >= 0; i = strings.LastIndexAny(key[:i], ".[") {
		f(key[:i])
	}
}

// at gives the position of a key, or of the nearest key around it that was
// given.
func (r *report) at(key string) mark {
	for {
		if m, ok := r.marks[key]; ok {
			return m
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return mark{}
		}
		key = key[:i]
	}
}

// source gives the key that a value was written at: the key itself, or the one
// of tenant_defaults that it was taken from.
func (r *report) source(key string) string {
	source := key
	if len(r.from) > 0 && strings.HasPrefix(key, "tenants[") {
		around(key, func(outer string) {
			if from, ok := r.from[outer]; ok {
				source = from + key[len(outer):]
			}
		})
	}
	return source
}

// given reports whether the file has the key.
func (r *report) given(key string) bool {
	_, ok := r.marks[key]
	return ok
}

// has reports whether the key has a value that was written somewhere, for a
// tenant or for all.
func (r *report) has(key string) bool { return r.given(r.source(key)) }

// fromEnv reports whether a variable is in the value of a key.
func (r *report) fromEnv(key string) bool { return r.marks[r.source(key)].env }

// clean reports whether nothing is wrong with the key and what is below it, so
// that one mistake is told once.
func (r *report) clean(key string) bool { return !r.bad[key] && !r.bad[r.source(key)] }

func (r *report) fault(key, format string, args ...any) {
	r.faultAt(r.at(key), key, format, args...)
}

// clash is a fault between two keys that may stand in two files.
func (r *report) clash(key, format string, args ...any) {
	r.add(r.at(key), key, fmt.Sprintf(format, args...))
}

func (r *report) faultAt(m mark, key, format string, args ...any) {
	if f := r.add(m, key, fmt.Sprintf(format, args...)); m.file != "" && f.Message != "" {
		r.files[m.file] = append(r.files[m.file], f)
	}
}

// add gives the fault as it is told; the zero value where there are too many.
func (r *report) add(m mark, key, message string) (f Fault) {
	around(key, func(outer string) { r.bad[outer] = true })
	switch n := len(r.faults); {
	case n < maxFaults:
		f = r.made(m, key, message)
		r.faults = append(r.faults, f)
	case n == maxFaults:
		r.faults = append(r.faults, Fault{File: r.file, Message: fmt.Sprintf("there are more faults than the %d told here", maxFaults)})
	}
	return f
}

// missing tells that a key is needed, unless a misspelt one was meant to be it.
func (r *report) missing(key, needs string) {
	if !r.has(key) && !r.meant[key] {
		r.fault(key, "is missing; it needs %s", needs)
	}
}

func (r *report) warn(key, format string, args ...any) {
	if len(r.warnings) < maxFaults {
		r.warnings = append(r.warnings, r.made(r.at(key), key, fmt.Sprintf(format, args...)))
	}
}

// made puts a fault together.
func (r *report) made(m mark, key, message string) Fault {
	f := Fault{oneLine(cmp.Or(m.file, r.file)), m.line, m.column, key, clip(oneLine(message))}
	if m.file != "" {
		_, inside, _ := strings.Cut(key, "]")
		f.Key = strings.TrimPrefix(inside, ".")
	}
	return f
}

// place names a key of a tenant for the fault of another one: by file and line
// where it stands in another file.
func (r *report) place(key, other string) string {
	m := r.at(key)
	if m.file == r.at(other).file {
		return r.made(m, key, "").Key
	}
	return fmt.Sprintf("%s:%d", oneLine(cmp.Or(m.file, r.file)), m.line)
}

// tellImpaired adds what impairs tenants to the faults of a configuration that
// is refused, each place once.
func (r *report) tellImpaired(c *Config) {
	told := make(map[Fault]bool)
	for _, i := range c.Impaired {
		if len(r.faults) < maxFaults && !told[i.Fault] {
			told[i.Fault] = true
			r.faults = append(r.faults, i.Fault)
		}
	}
}

// sort orders faults by their position, those of the configuration file first.
func (r *report) sort(f Faults) {
	rank := func(f Fault) string {
		if f.File == oneLine(r.file) {
			return ""
		}
		return f.File
	}
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// clip bounds the length of a message; other packages' errors repeat values
// whole.
func clip(message string) string {
	const most = 1000
	if len(message) <= most {
		return message
	}
	return strings.ToValidUTF8(message[:most], "") + "…"
}

// oneLine makes text fit to stand in one line: names of files and other
// packages' errors may hold anything.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r // bytes that are not UTF-8 come as U+FFFD
	}, text)
}

// show quotes the value of a key for a fault. Of a value that came out of the
// environment it shows what the file says instead.
func (r *report) show(key, value string) string {
	m := r.marks[r.source(key)]
	if m.env {
		return quote(m.raw) + " (its value from the environment is not shown)"
	}
	return quote(value)
}
