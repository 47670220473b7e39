package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf16"
)

// annotatable refuses a write whose comment could not be read, where the operator
// wants it to tell who really asks: else a caller would only have to pack its body.
// Uploads (multipart) have no comment, and pass.
func (p *Proxy) annotatable(x *Exchange, r *http.Request) error {
	if !p.Annotate || !x.Operation.Class.Writes() || x.Body.keep && len(x.Body.kept) == 0 {
		return nil
	}
	kind := kindOf(r.Header["Content-Type"])
	if strings.HasPrefix(kind, "multipart/") {
		return nil
	}
	why := ""
	switch {
	case packed(r.Header["Content-Encoding"]):
		why = "it is packed (Content-Encoding)"
	case !x.Body.keep:
		why = fmt.Sprintf("it is longer than %d bytes", maxKept)
	case isJSON(kind) || bytes.HasPrefix(bytes.TrimLeft(unmarked(x.Body.kept), " \t\r\n"), []byte("{")):
		if !json.Valid(unmarked(x.Body.kept)) {
			why = "it is not JSON in UTF-8"
		}
	}
	if why == "" {
		return nil
	}
	return refusal(InvalidRequest, "The comment of %s gets the caller's group appended, and the request's body cannot be read for that: %s. Send plain JSON of at most %d bytes. An operator decides on this by audit.annotate in the proxy's configuration.",
		x.Operation.ID, why, maxKept)
}

// kindOf is the media type without parameters; empty where none is told, or more
// than one.
func kindOf(contentType []string) string {
	if len(contentType) != 1 {
		return ""
	}
	kind, _, _ := strings.Cut(contentType[0], ";")
	return asciiLower(strings.TrimSpace(kind))
}

// isJSON reports whether a body of this type is read as JSON. One without a type may
// be.
func isJSON(kind string) bool {
	return kind == "" || kind == "application/json" || kind == "text/json" || strings.HasSuffix(kind, "+json")
}

// packed reports whether Content-Encoding names an encoding. identity is none.
func packed(encodings []string) bool {
	for _, v := range encodings {
		for e := range strings.SplitSeq(v, ",") {
			if e = asciiLower(strings.TrimSpace(e)); e != "" && e != "identity" {
				return true
			}
		}
	}
	return false
}

// unmarked is a text without its byte order mark, with which .NET's writers begin.
func unmarked(text []byte) []byte { return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) }

// annotate appends who really asks to the comment of an action, where the operator
// wants that and there is one.
func (p *Proxy) annotate(x *Exchange, r *http.Request) {
	if !p.Annotate || !x.Operation.Class.Writes() || !x.Body.keep || packed(r.Header["Content-Encoding"]) {
		return
	}
	if noted := annotate(x.Body.kept, x.Client.Name+", request "+x.ID); len(noted) != len(x.Body.kept) {
		x.Body.kept, x.Body.length, x.Annotated = noted, int64(len(noted)), true
	}
}

// annotate appends a note to the comment of a JSON body, so that Defender's portal
// shows it where it shows the comment:
//
//	{"Comment":"found malware","IsolationType":"Full"}
//	{"Comment":"found malware [defender-proxy: local, request 0198…]","IsolationType":"Full"}
//
// A comment is each member of the outermost object whose name is Comment in any
// letter case and spelling: which of several counts is Microsoft's to say. All else
// stays byte for byte. A body without a comment, with one that is blank or no text,
// or that is no JSON in UTF-8 is returned as it is: what Microsoft would refuse is
// not made acceptable. A caller can write into a comment whatever it likes, so only
// the note at its end is the proxy's.
func annotate(body []byte, note string) []byte {
	text := unmarked(body)
	if !json.Valid(text) {
		return body
	}
	ends := comments(text)
	if ends == nil {
		return body
	}
	note = escaped(" [defender-proxy: " + note + "]")
	out := slices.Grow(body[:len(body)-len(text):len(body)-len(text)], len(text)+len(ends)*len(note))
	from := 0
	for _, end := range ends {
		out = append(append(out, text[from:end]...), note...)
		from = end
	}
	return append(out, text[from:]...)
}

// comments gives where each comment of the outermost object ends, before its
// quotation mark. text is valid JSON.
func comments(text []byte) (ends []int) {
	depth, wanted := 0, false
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			if depth == 0 && text[i] == '[' {
				return nil
			}
			depth++
			wanted = false
		case '}', ']':
			depth--
		case ',':
			wanted = false
		case '"':
			begin := i
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if depth != 1 {
				continue
			}
			if rest := bytes.TrimLeft(text[i+1:], " \t\r\n"); rest[0] == ':' { // something follows, if only the object's end
				wanted = strings.EqualFold(unquoted(text[begin:i+1]), "comment")
			} else if wanted && strings.TrimSpace(unquoted(text[begin:i+1])) != "" {
				ends = append(ends, i)
			}
		}
	}
	return ends
}

// unquoted gives the text of a JSON string, which is a valid one.
func unquoted(quoted []byte) (s string) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	_ = json.Unmarshal(quoted, &s)
	return s
}

// escaped gives text as it stands inside a JSON string, in ASCII alone, whatever
// the encoding of the rest is.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
