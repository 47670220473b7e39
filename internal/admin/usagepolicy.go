package admin

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// WritePolicy writes the suggested grants in the form of the configuration: for
// each client group an allow to take the place of the one that it has. What else is
// in a group, from and deny above all, stays as it is.
func (r UsageReport) WritePolicy(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# What client groups really used")
	if !r.Since.IsZero() {
		fmt.Fprintf(&b, ", from %s to %s", r.Since.UTC().Format(time.RFC3339), r.Until.UTC().Format(time.RFC3339))
	}
	b.WriteString(".\n# Put each allow in the place of the one that the group has. What was not called in this\n# time is not granted any more: look at unused grants that are for emergencies first.\n")
	if r.Missed > 0 {
		fmt.Fprintf(&b, "# %d requests could not be told apart and are not in it.\n", r.Missed)
	}
	b.WriteString("clients:\n")
	for _, c := range r.Clients {
		if c.Gone {
			continue
		}
		fmt.Fprintf(&b, "  - name: %s\n", quoted(c.Client))
		for _, u := range c.Unused {
			fmt.Fprintf(&b, "    # not used: %s (%s)\n", oneLine(u.Entry), operationsWords(u))
		}
		if len(c.Allow) == 0 {
			b.WriteString("    allow: []\n")
			continue
		}
		b.WriteString("    allow:\n")
		for _, g := range c.Allow {
			g.write(&b)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (g SuggestedGrant) write(b *strings.Builder) {
	if g.New {
		b.WriteString("      # not granted now, and let pass by report mode:\n")
	}
	if g.Tenants == nil && g.Until.IsZero() && g.When == "" {
		for _, id := range g.Operations {
			fmt.Fprintf(b, "      - %s\n", quoted(id))
		}
		return
	}
	b.WriteString("      - operations:\n")
	for _, id := range g.Operations {
		fmt.Fprintf(b, "          - %s\n", quoted(id))
	}
	if g.Tenants != nil {
		b.WriteString("        tenants:\n")
		for _, name := range g.Tenants {
			fmt.Fprintf(b, "          - %s\n", quoted(name))
		}
	}
	if !g.Until.IsZero() {
		fmt.Fprintf(b, "        until: %s\n", g.Until.Format(time.RFC3339))
	}
	if g.When != "" {
		fmt.Fprintf(b, "        when: %s\n", quoted(g.When))
	}
}

func operationsWords(u UnusedGrant) string {
	words := fmt.Sprintf("%d operations", u.Operations)
	if u.Operations == 1 {
		words = "1 operation"
	}
	if u.Why != "" {
		words += ", " + u.Why
	}
	return words
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// quoted writes a text as YAML reads it: plain where it is a name, else as JSON,
// which is YAML.
func quoted(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == "" && s[0] >= 'a' && s[0] <= 'z' && !reserved[s] {
		return s
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a text has a form
	return strings.TrimSuffix(b.String(), "\n")
}

// reserved are words that YAML takes for something else than a text.
var reserved = map[string]bool{"null": true, "true": true, "false": true, "yes": true, "no": true, "on": true, "off": true, "y": true, "n": true}
