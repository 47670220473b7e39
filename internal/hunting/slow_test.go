package hunting

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// slow is the converter that encoding/json makes simple. ok is false where the
// answer is none.
func slow(doc []byte) (out string, ok bool) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') || !json.Valid(doc) {
		return "", false
	}
	var parts, columns []string
	seen := map[string]bool{}
	for d.More() {
		tok, _ := d.Token()
		name := inSmall(tok.(string))
		var raw json.RawMessage
		if d.Decode(&raw) != nil || string(raw) != "null" && slices.Contains([]string{"error", "@odata.nextlink", "@odata.deltalink"}, name) {
			return "", false
		}
		if name != "schema" && name != "results" {
			continue
		}
		if seen[name] {
			return "", false
		}
		seen[name] = true
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			return "", false
		}
		var items []string
		for _, item := range list {
			switch {
			case item[0] != '{':
				return "", false
			case name == "schema":
				var c struct{ Name, Type json.RawMessage }
				if json.Unmarshal(item, &c) != nil || len(c.Name) == 0 || c.Name[0] != '"' || len(c.Type) > 0 && c.Type[0] != '"' && c.Type[0] != 'n' {
					return "", false
				}
				if c.Type == nil {
					c.Type = json.RawMessage("null")
				}
				items = append(items, fmt.Sprintf(`{"Name":%s,"Type":%s}`, c.Name, c.Type))
				columns = append(columns, string(c.Name))
			default:
				items = append(items, slowRow(item, columns))
			}
		}
		parts = append(parts, fmt.Sprintf(`"%s":[%s]`, map[string]string{"schema": "Schema", "results": "Results"}[name], strings.Join(items, ",")))
	}
	return "{" + strings.Join(parts, ",") + "}", seen["schema"] && seen["results"]
}

// slowRow drops annotations, and white space with them, and names what is left as
// the columns are named, but for members that would then be called the same.
func slowRow(row []byte, columns []string) string {
	d := json.NewDecoder(bytes.NewReader(row))
	_, _ = d.Token()
	var names, renamed, values []string
	for d.More() {
		tok, _ := d.Token()
		quoted := bytes.TrimLeft(row[:d.InputOffset()], " \t\r\n,{")
		quoted = quoted[len(quoted)-lastString(quoted):]
		var raw json.RawMessage
		_ = d.Decode(&raw)
		if strings.Contains(tok.(string), "@odata.") {
			continue
		}
		var like []string
		for _, c := range columns {
			if inSmall(c) == inSmall(string(quoted)) && !slices.Contains(like, c) {
				like = append(like, c)
			}
		}
		names, renamed, values = append(names, string(quoted)), append(renamed, string(quoted)), append(values, string(raw))
		if len(like) == 1 {
			renamed[len(renamed)-1] = like[0]
		}
	}
	var kept []string
	for i, name := range renamed {
		if n := slices.Index(renamed, name); n != i || slices.Contains(renamed[i+1:], name) {
			name = names[i]
		}
		kept = append(kept, name+":"+values[i])
	}
	return "{" + strings.Join(kept, ",") + "}"
}

// inSmall gives ASCII letters in small.
func inSmall(s string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}, s)
}

// lastString gives the length of the string that ends data.
func lastString(data []byte) int {
	for i := len(data) - 2; ; i-- {
		if data[i] != '"' {
			continue
		}
		slashes := 0
		for slashes < i && data[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 && json.Valid(data[i:]) {
			return len(data) - i
		}
	}
}

// plainly gives a document without white space and with its names in one form, for
// comparison.
func plainly(doc string) string {
	var out bytes.Buffer
	d := json.NewDecoder(strings.NewReader(doc))
	d.UseNumber()
	for {
		tok, err := d.Token()
		if err != nil {
			return out.String()
		}
		fmt.Fprintf(&out, "%T %v\n", tok, tok)
	}
}
