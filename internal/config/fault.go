package config

import (
	"fmt"
	"strings"

	"defender-proxy/internal/redact"
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

// Faults is the error of Load and Parse: every fault of the configuration, sorted
// by position, those of the configuration file before those of tenants' files.
type Faults []Fault

// Error gives one fault a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// maxShown is the number of characters of a value that a fault repeats.
const maxShown = 80

// quote shows a value of the file, but for those with an @: a URL with a password
// in it has one. Of a URL's query or fragment, where keys stand, nothing is shown, nor
// of what else is known for a secret.
func quote(value string) string {
	if strings.Contains(value, "@") {
		return "the value, not shown for its @,"
	}
	if i := strings.IndexAny(value, "?#"); i >= 0 && (strings.Contains(value, "://") || strings.Contains(value[i:], "=")) {
		value = value[:i+1] + "[redacted]"
	}
	value = redact.Text(value)
	if r := []rune(value); len(r) > maxShown {
		value = string(r[:maxShown]) + "…"
	}
	return fmt.Sprintf("%q", value)
}
