package redact

import "strings"

// Query gives a raw query, without its question mark, with all values taken out but
// those that say nothing of persons or machines and can hide nothing: how many, how
// many not, in what order and which properties ($top, $skip, $count, $orderby,
// $select, $expand, pageSize and their like). Names stay where they are words; a
// parameter without = is a value. Behind the 32nd parameter the rest is left out.
//
//	Query("$top=10&$filter=title eq 'x'&se=2026") // $top=10&$filter=[redacted]&se=[redacted]
func Query(raw string) string {
	const most = 32
	var out []byte
	kept, n := 0, 0
	for start := 0; start <= len(raw); n++ {
		if n == most {
			return string(append(append(out, raw[kept:start]...), "…"...))
		}
		end := len(raw)
		if i := strings.IndexByte(raw[start:], '&'); i >= 0 {
			end = start + i
		}
		if with, ok := parameter(raw[start:end]); !ok {
			out = append(append(out, raw[kept:start]...), with...)
			kept = end
		}
		start = end + 1
	}
	if kept == 0 {
		return raw
	}
	return string(append(out, raw[kept:]...))
}

// parameter judges one parameter of a query: ok where it stays as it is, else with
// what stands for it.
func parameter(p string) (with string, ok bool) {
	name, value, valued := strings.Cut(p, "=")
	switch {
	case p == "" || p == mark || p == mark+"="+mark || p == "…":
		return "", true
	case !valued:
		return mark, word(p) && known(p) != nil
	case !word(name):
		return mark + "=" + mark, false
	case value == "" || keeps(name, value):
		return "", true
	}
	return name + "=" + mark, false
}

// word reports whether a parameter's name is one: a caller can put anything there.
func word(name string) bool {
	const most = 40
	name = dollar(name)
	if name == "" || len(name) > most || strings.Contains(name, "eyJ") {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c|0x20 < 'a' || c|0x20 > 'z') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// dollar gives the name of a system query option without its dollar or at sign,
// percent-encoded or not.
func dollar(name string) string {
	for _, sign := range [...]string{"$", "%24", "@", "%40"} {
		if rest, ok := strings.CutPrefix(name, sign); ok {
			return rest
		}
	}
	return name
}

// keeps reports whether a parameter's value may be seen: its name is one of a few,
// and the value is what that one takes, so that nothing else can hide there.
func keeps(name, value string) bool {
	if value == mark {
		return true
	}
	may := known(name)
	return may != nil && may(strings.TrimRight(value, ".,)")) // of the sentence around it
}

// known gives what the value of a parameter has to be; nil where it is never seen.
func known(name string) func(value string) bool {
	name = dollar(name)
	var lower [14]byte
	if len(name) > len(lower) {
		return nil
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
	}
	switch string(lower[:len(name)]) {
	case "top", "skip", "count", "inlinecount", "pagesize", "lookbackhours", "lookbackindays":
		return number
	case "select", "orderby", "expand":
		return properties
	case "code": // https://login.microsoftonline.com/error?code=7000215 explains an error
		return number
	case "client_id":
		return guid
	case "prompt", "response_type", "sso_reload": // of the address where an administrator consents
		return func(v string) bool { return v == "consent" || v == "code" || v == "true" }
	}
	return nil
}

func number(v string) bool {
	const most = 9
	return v == "true" || v == "false" || len(v) <= most && strings.Trim(v, "0123456789") == ""
}

// guid reports whether v is 32 hex digits in the groups of a GUID.
func guid(v string) bool {
	const form = "00000000-0000-0000-0000-000000000000"
	if len(v) != len(form) {
		return false
	}
	for i := range len(v) {
		if isHex := hexDigit(v[i]) < 16; isHex != (form[i] == '0') || !isHex && v[i] != '-' {
			return false
		}
	}
	return true
}

// properties reports whether v lists properties: words with at most three digits,
// with commas, slashes and spaces between.
func properties(v string) bool {
	const most, mostOfOne, mostDigits = 256, 32, 3
	if len(v) > most || strings.Contains(v, "eyJ") {
		return false
	}
	length, digits := 0, 0
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c == '%' {
			if !isEscape(v, i, ' ') && !isEscape(v, i, ',') && !isEscape(v, i, '/') {
				return false
			}
			c, i = ',', i+2
		}
		switch {
		case c == ',' || c == '/' || c == '+':
			length, digits = 0, 0
			continue
		case c >= '0' && c <= '9':
			digits++
		case c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '*':
		default:
			return false
		}
		if length++; length > mostOfOne || digits > mostDigits {
			return false
		}
	}
	return true
}

// queryOf gives the query behind the question mark at i of a URL or of a path, as
// Query has it.
func (r *reader) queryOf(i int) (from, to int, with string) {
	s := r.s
	slash := false
	for b := i - 1; b >= 0; b-- {
		c := s[b]
		if c == '?' || classes[c]&chunk == 0 && c != '\\' {
			break
		}
		if slash = c == '/'; slash {
			break
		}
	}
	if !slash {
		return 0, 0, ""
	}
	from = i + 1
	to = r.past(from, chunk)
	with = Query(s[from:to])
	if with == s[from:to] {
		return 0, 0, ""
	}
	return from, to, with
}

// afterAmpersand reports whether a parameter's name at i stands behind an
// ampersand, which JSON or HTML may have escaped.
func afterAmpersand(s string, i int) bool {
	for _, amp := range [...]string{"&", "&amp;", `\u0026`} {
		if strings.HasSuffix(s[:i], amp) {
			return true
		}
	}
	return false
}
