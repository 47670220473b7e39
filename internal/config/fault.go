package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a configuration, or unwise.
type Fault struct {
	File string
	// Line and Column count from 1, Column in characters. Line is 0 for a fault
	// of the whole file, Column 0 where only the line is known.
	Line, Column int
	// Key is the path of the key, such as tenants[0].credential.client_secret;
	// empty where the fault is none of a key.
	Key string
	// Message says what was found and what is allowed, in one line. It holds no
	// secret and nothing that came out of the environment.
	Message string
}

// String gives the fault in the form file:line:column: key: message.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
		if f.Column > 0 {
			fmt.Fprintf(&b, ":%d", f.Column)
		}
	}
	b.WriteString(": ")
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Faults is the error of Load and Parse: every fault of a file, sorted by
// position.
type Faults []Fault

// Error gives one fault a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// maxFaults bounds what one file can be told; a file with more is not a
// configuration.
const maxFaults = 200

// mark is where a key was given, and how.
type mark struct {
	line, column int
	// raw is the scalar as written, env whether a variable was put into it.
	raw string
	env bool
}

// report gathers the faults of one file and knows where each key stands.
type report struct {
	file     string
	marks    map[string]mark
	env      map[string]bool // keys with a value of the environment below them
	faults   Faults
	warnings Faults
}

// full reports whether there is no use in looking for more faults.
func (r *report) full() bool { return len(r.faults) > maxFaults }

// fromEnvironment notes that the value of a key holds a variable's.
func (r *report) fromEnvironment(key, raw string) {
	m := r.marks[key]
	m.raw, m.env = raw, true
	r.marks[key] = m
	for i := len(key); i >= 0; i = strings.LastIndexAny(key[:i], ".[") {
		r.env[key[:i]] = true
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

func (r *report) fault(key, format string, args ...any) {
	r.faultAt(r.at(key), key, format, args...)
}

func (r *report) faultAt(m mark, key, format string, args ...any) {
	switch n := len(r.faults); {
	case n < maxFaults:
		r.faults = append(r.faults, Fault{r.file, m.line, m.column, key, clip(fmt.Sprintf(format, args...))})
	case n == maxFaults:
		r.faults = append(r.faults, Fault{File: r.file, Message: fmt.Sprintf("there are more faults than the %d told here", maxFaults)})
	}
}

func (r *report) warn(key, format string, args ...any) {
	if m := r.at(key); len(r.warnings) < maxFaults {
		r.warnings = append(r.warnings, Fault{r.file, m.line, m.column, key, fmt.Sprintf(format, args...)})
	}
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

// given reports whether the file has the key.
func (r *report) given(key string) bool {
	_, ok := r.marks[key]
	return ok
}

// clean reports whether nothing is wrong with the key and what is below it, so
// that one mistake is told once.
func (r *report) clean(key string) bool {
	return !slices.ContainsFunc(r.faults, func(f Fault) bool {
		rest, below := strings.CutPrefix(f.Key, key)
		return below && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// show quotes the value of a key for a fault. Of a value that came out of the
// environment it shows what the file says instead.
func (r *report) show(key, value string) string {
	m := r.marks[key]
	if m.env {
		return quote(m.raw) + " (its value from the environment is not shown)"
	}
	return quote(value)
}

// maxShown is the number of characters of a value that a fault repeats.
const maxShown = 80

// quote shows a value of the file. No value that is right holds an @, but a URL
// with a password in it does.
func quote(value string) string {
	if strings.Contains(value, "@") {
		return "the value, not shown for its @,"
	}
	if r := []rune(value); len(r) > maxShown {
		value = string(r[:maxShown]) + "…"
	}
	return fmt.Sprintf("%q", value)
}
