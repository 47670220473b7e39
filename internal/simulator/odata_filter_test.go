package simulator

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// sample is a row for filters.
type sample struct {
	ID     string      `json:"id" odata:"filter"`
	Name   optional    `json:"name" odata:"filter"`
	Count  int         `json:"count" odata:"filter"`
	Number optionalInt `json:"number" odata:"filter"`
	Score  float64     `json:"score" odata:"filter"`
	On     bool        `json:"on" odata:"filter"`
	Seen   instant     `json:"seen" odata:"filter"`
	Tags   []string    `json:"tags" odata:"filter"`
	Hidden string      `json:"hidden"`
}

func matches(t *testing.T, filter string, row sample) bool {
	t.Helper()
	e, p := parseFilter(filter)
	if p == nil {
		p = checkFilter(e, schemaOf[sample]())
	}
	if p != nil {
		t.Fatalf("%s: %v", filter, p)
	}
	return len(where([]sample{row}, e, schemaOf[sample]())) == 1
}

func TestFiltersHoldAsODataSays(t *testing.T) {
	row := sample{ID: "o'brien", Count: 5, Score: 7.5, On: true, Seen: at(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), Tags: []string{"vip", "lab"}}
	for filter, want := range map[string]bool{
		"id eq 'o''brien'":                     true,
		"id ne 'o''brien'":                     false,
		"id eq 'O''BRIEN'":                     false,
		"'o''brien' eq id":                     true,
		"ID eq 'o''brien'":                     true,
		"count gt 4":                           true,
		"count ge 5 and count le 5":            true,
		"count lt 5":                           false,
		"count eq 5.0":                         true,
		"score gt 7.4 and score lt 7.6":        true,
		"count gt -1":                          true,
		"on eq true":                           true,
		"on":                                   true,
		"not on":                               false,
		"not (on eq false)":                    true,
		"not startswith(id,'x')":               true,
		"name eq null":                         true,
		"name ne null":                         false,
		"null eq name":                         true,
		"number eq null":                       true,
		"number gt 0":                          false,
		"id ne null":                           true,
		"seen gt 2026-01-02T03:04:04Z":         true,
		"seen eq 2026-01-02T04:04:05+01:00":    true,
		"seen lt 2026-01-02":                   false,
		"seen ge 2026-01-02T03:04:05.0000000Z": true,
		"startswith(id,'o''b') and endswith(id, 'en')": true,
		"contains(id,'bri') eq true":                   true,
		"contains(id,'BRI')":                           false,
		"contains(name,'x')":                           false,
		"id in ('a', 'o''brien')":                      true,
		"count in (1,2,3)":                             false,
		"tags/any(t: t eq 'vip')":                      true,
		"tags/any(t: startswith(t,'la') or t eq 'x')":  true,
		"tags/any(t: t eq 'none')":                     false,
		"not tags/any(t:t eq 'none')":                  true,
		"false or count eq 5 and on":                   true, // and binds tighter
		"(true or count eq 9) and count eq 9":          false,
		"true or count eq 9 and count eq 9":            true,
		"id eq 'a;b&c=d+e' or count eq 5":              true,
		"(((count eq 5)))":                             true,
		"(count eq 5) eq true":                         true,
	} {
		if got := matches(t, filter, row); got != want {
			t.Errorf("%s: got %v, want %v", filter, got, want)
		}
	}
}

func TestFaultyFiltersAreRefused(t *testing.T) {
	for filter, want := range map[string]string{
		"":                                   "Syntax error",
		"id":                                 "single boolean",
		"id eq":                              "Syntax error",
		"id eq 'a":                           "unterminated",
		"id eq 'a' and":                      "Syntax error",
		"eq 'a'":                             "Syntax error",
		"(id eq 'a'":                         "Syntax error",
		"id eq 'a')":                         "Syntax error",
		"id == 'a'":                          "not valid",
		"nothing eq 'a'":                     "Could not find a property named 'nothing'",
		"hidden eq 'a'":                      "cannot be used in the $filter",
		"id eq 5":                            "incompatible types",
		"count eq 'a'":                       "incompatible types",
		"seen eq '2026-01-01'":               "incompatible types",
		"seen eq 2026-13-01":                 "Unrecognized literal",
		"count eq 5x":                        "Unrecognized literal",
		"tags eq 'a'":                        "incompatible types",
		"id/any(t: t eq 'a')":                "Any/All",
		"tags/all(t: t eq 'a')":              "Syntax error",
		"tags/any(t: t)":                     "boolean",
		"length(id) eq 5":                    "unknown function",
		"contains(id)":                       "Syntax error",
		"contains(count,'a')":                "incompatible types",
		"id in ()":                           "Syntax error",
		"id in (count)":                      "Syntax error",
		"not id":                             "incompatible types",
		"id and on":                          "incompatible types",
		"not and":                            "Syntax error",
		"1e999 eq count":                     "Unrecognized literal",
		strings.Repeat("(", 60) + "on":       "nests deeper",
		strings.Repeat("not ", 60) + "on":    "nests deeper",
		strings.Repeat("on or ", 400) + "on": "node count",
	} {
		e, p := parseFilter(filter)
		if p == nil {
			p = checkFilter(e, schemaOf[sample]())
		}
		if p == nil || p.status != 400 || p.code != "ODataError" || !strings.Contains(p.message, want) {
			t.Errorf("%.60s: got %v, want an ODataError with %q", filter, p, want)
		}
	}
}

// FuzzFilter: parsing never panics; printing a parsed filter and parsing that
// gives the same expression and the same print; a filter that fits a type can
// be evaluated.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		"id eq 'o''brien' and (count gt 5 or not on)", "tags/any(t: t eq 'a')", "seen ge 2026-01-02T03:04:05.1234567Z", "id in ('a','b')",
		"contains(id,'x') eq true", "name eq null", "not not on", "count eq -1.5e3", "'a' eq 'a'", "((on))",
	} {
		f.Add(seed)
	}
	row := sample{ID: "a", Count: 1, Tags: []string{"x"}}
	f.Fuzz(func(t *testing.T, text string) {
		e, p := parseFilter(text)
		if p != nil {
			return
		}
		printed := e.String()
		again, p := parseFilter(printed)
		if p != nil {
			// Parentheses are added where they are not needed, so a filter
			// near the bound may pass it.
			if strings.Contains(p.message, "nests deeper") {
				return
			}
			t.Fatalf("%q was printed as %q, which is refused: %v", text, printed, p)
		}
		if !reflect.DeepEqual(e, again) || again.String() != printed {
			t.Fatalf("%q was printed as %q, which reads as %q", text, printed, again)
		}
		if checkFilter(e, schemaOf[sample]()) == nil {
			where([]sample{row}, e, schemaOf[sample]())
		}
	})
}
