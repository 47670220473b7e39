package listen

import (
	"fmt"
	"strconv"
	"strings"
)

// habits are the ways in which programs have been seen to read HTTP/1 other than
// RFC 9112 has it (the http-garden's list of trophies; golang/go, Kestrel, HAProxy
// and others have had each). None of them is a reading that takes nothing but what
// is written down, and refuses the rest. It shares no code with the front.
type habits struct {
	lf, cr       bool // alone they end a line
	blanks       bool // any number of empty lines goes before a request
	spaces       bool // any white space stands between the words of a request line
	foldJoins    bool // a line that begins with a space goes on with the one before
	foldIsHeader bool // or is one of its own
	trimsName    bool // white space before a colon does not count
	trimsControl bool // nor do control characters around a value
	nulEnds      bool // a value
	lastCounts   bool // of several headers of a name, not the first
	looseNumbers bool // signs, 0x, underscores, what follows the digits, more than 64 bits
	octal        bool
	codingWithin bool // chunked anywhere in a Transfer-Encoding counts
	codingLast   bool // or as the last word
	lengthWins   bool // over chunks
	oldChunks    bool // HTTP/1.0 has them
	hostWins     bool // over the authority of a target
	listedGoes   bool // what Connection names
	extensionLF  bool // a line feed ends an extension, whatever is before it
	quotedLines  bool // a line break in quotes does not
	dataEndsAny  bool // two bytes behind a chunk's data are skipped, whatever they are
	trailers     bool // are read
	noTrailers   bool // are no part of chunks: the body ends with the last line of a size
}

// each is all of them, one at a time and a few together.
func each() map[string]habits {
	all := map[string]habits{
		"none": {}, "lf": {lf: true}, "cr": {cr: true}, "blanks": {blanks: true}, "spaces": {spaces: true},
		"foldJoins": {foldJoins: true}, "foldIsHeader": {foldIsHeader: true}, "trimsName": {trimsName: true},
		"trimsControl": {trimsControl: true}, "nulEnds": {nulEnds: true}, "lastCounts": {lastCounts: true},
		"looseNumbers": {looseNumbers: true}, "octal": {octal: true}, "codingWithin": {codingWithin: true},
		"codingLast": {codingLast: true}, "lengthWins": {lengthWins: true},
		"oldChunks": {oldChunks: true}, "hostWins": {hostWins: true}, "listedGoes": {listedGoes: true},
		"extensionLF": {extensionLF: true}, "quotedLines": {quotedLines: true}, "dataEndsAny": {dataEndsAny: true},
		"trailers": {trailers: true}, "noTrailers": {noTrailers: true},
	}
	all["one lenient program"] = habits{
		lf: true, blanks: true, spaces: true, foldJoins: true, trimsName: true, trimsControl: true, looseNumbers: true, codingLast: true,
		oldChunks: true, trailers: true,
	}
	all["another"] = habits{
		lf: true, cr: true, blanks: true, spaces: true, foldIsHeader: true, trimsName: true, nulEnds: true, lastCounts: true, octal: true,
		codingWithin: true, lengthWins: true, hostWins: true, listedGoes: true, extensionLF: true, dataEndsAny: true, noTrailers: true,
	}
	return all
}

// loose reports whether there is any habit.
func (h habits) loose() bool { return h != habits{} }

type outcome int

const (
	whole outcome = iota
	missing
	refusing
)

// read gives the requests in b, in the words of line, and why there are no more.
func (h habits) read(b string) (all []string, end outcome) {
	for b != "" {
		text, rest, o := h.request(b)
		if o != whole {
			return all, o
		}
		if text != "" {
			all = append(all, text)
		}
		b = rest
	}
	return all, whole
}

func (h habits) request(b string) (text, rest string, o outcome) {
	first, rest, ok := h.line(b)
	for n := 0; ok && first == ""; n++ {
		if n > 0 && !h.blanks {
			return "", "", refusing
		}
		if rest == "" {
			return "", "", whole // an empty line at the end
		}
		first, rest, ok = h.line(rest)
	}
	if !ok {
		return "", "", missing
	}
	words := strings.Split(first, " ")
	if h.spaces {
		words = strings.Fields(first)
	}
	if len(words) != 3 || words[1] == "" || !strings.HasPrefix(words[2], "HTTP/1.") || h.controls(first) {
		return "", "", refusing
	}
	method, target, old := words[0], words[1], words[2] == "HTTP/1.0"

	headers, rest, o := h.headers(rest)
	if o != whole {
		return "", "", o
	}
	hosts := headers["host"]
	switch {
	case len(hosts) == 0 && !old, len(hosts) > 1 && !h.loose():
		return "", "", refusing
	}
	body, rest, o := h.body(headers, old, rest)
	if o != whole {
		return "", "", o
	}
	return fmt.Sprintf("%s %s %q %q", method, target, h.host(target, h.pick(hosts)), body), rest, whole
}

// host gives the authority of the target, unless the habit is to go by Host and
// that is another one.
func (h habits) host(target, host string) string {
	scheme, after, ok := strings.Cut(target, "://")
	if !ok || strings.HasPrefix(target, "/") {
		if !strings.HasPrefix(target, "/") && target != "*" {
			return target // of a CONNECT, which is refused whatever it names
		}
		return host
	}
	authority := after
	if i := strings.IndexAny(after, "/?"); i >= 0 {
		authority = after[:i]
	}
	plain := func(s string) string {
		return strings.TrimSuffix(strings.ToLower(s), map[bool]string{true: ":443", false: ":80"}[strings.EqualFold(scheme, "https")])
	}
	if h.hostWins && host != "" && plain(host) != plain(authority) {
		return host
	}
	return authority
}

// line cuts a line off; ok is false when its end has not come.
func (h habits) line(b string) (line, rest string, ok bool) {
	for i := range len(b) {
		switch {
		case b[i] == '\n' && i > 0 && b[i-1] == '\r':
			return b[:i-1], b[i+1:], true
		case b[i] == '\n' && h.lf:
			return b[:i], b[i+1:], true
		case b[i] == '\r' && h.cr && i+1 < len(b) && b[i+1] != '\n':
			return b[:i], b[i+1:], true
		}
	}
	return "", "", false
}

func (h habits) controls(s string) bool {
	return !h.trimsControl && !h.nulEnds && strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

func (h habits) pick(values []string) string {
	switch {
	case len(values) == 0:
		return ""
	case h.lastCounts:
		return values[len(values)-1]
	}
	return values[0]
}

// headers reads the fields that matter, up to the empty line.
func (h habits) headers(b string) (fields map[string][]string, rest string, o outcome) {
	fields = make(map[string][]string)
	var last string
	for {
		line, after, ok := h.line(b)
		switch {
		case !ok:
			return nil, "", missing
		case line == "":
			if h.listedGoes {
				for _, option := range strings.Split(strings.Join(fields["connection"], ","), ",") {
					if option = strings.ToLower(strings.TrimSpace(option)); option != "connection" {
						delete(fields, option)
					}
				}
			}
			return fields, after, whole
		}
		b = after
		if line[0] == ' ' || line[0] == '\t' {
			switch {
			case h.foldJoins && last != "":
				values := fields[last]
				values[len(values)-1] += " " + strings.Trim(line, " \t")
				continue
			case h.foldIsHeader:
				line = strings.TrimLeft(line, " \t")
			default:
				return nil, "", refusing
			}
		}
		name, value, ok := strings.Cut(line, ":")
		if h.trimsName {
			name = strings.TrimSpace(name)
		}
		if !ok || h.controls(line) || strings.ContainsAny(name, " \t") && !h.loose() {
			return nil, "", refusing
		}
		if h.nulEnds {
			value, _, _ = strings.Cut(value, "\x00")
		}
		if h.trimsControl {
			value = strings.TrimFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f })
		}
		last = strings.ToLower(name)
		fields[last] = append(fields[last], strings.Trim(value, " \t"))
	}
}

func (h habits) body(headers map[string][]string, old bool, b string) (body, rest string, o outcome) {
	lengths, codings := headers["content-length"], headers["transfer-encoding"]
	if !h.loose() && (len(lengths)+len(codings) > 1 || old && len(codings) > 0) {
		return "", "", refusing
	}
	coding := strings.ToLower(h.pick(codings))
	words := strings.Split(coding, ",")
	chunked := coding == "chunked" || h.codingWithin && strings.Contains(coding, "chunked") ||
		h.codingLast && strings.TrimSpace(words[len(words)-1]) == "chunked"
	switch {
	case old && !h.oldChunks, h.lengthWins && len(lengths) > 0:
		chunked = false
	case !chunked && len(codings) > 0:
		return "", "", refusing
	}
	if chunked {
		return h.chunks(b)
	}
	if len(lengths) == 0 {
		return "", b, whole
	}
	n, ok := h.number(h.pick(lengths), 10)
	switch {
	case !ok:
		return "", "", refusing
	case n > uint64(len(b)):
		return "", "", missing
	}
	return b[:n], b[n:], whole
}

func (h habits) chunks(b string) (body, rest string, o outcome) {
	for {
		line, after, ok := h.chunkLine(b)
		if !ok {
			return "", "", missing
		}
		size, extension, _ := strings.Cut(line, ";")
		if !h.extensionLF && strings.ContainsAny(extension, "\r\n") && !h.quotedLines {
			return "", "", refusing
		}
		n, ok := h.number(size, 16)
		if !ok {
			return "", "", refusing
		}
		if n == 0 {
			return h.last(body, after)
		}
		if n > uint64(len(after)) || uint64(len(after))-n < 2 {
			return "", "", missing
		}
		body, b = body+after[:n], after[n:]
		switch {
		case strings.HasPrefix(b, "\r\n"), h.dataEndsAny:
			b = b[2:]
		case h.lf && b[0] == '\n':
			b = b[1:]
		default:
			return "", "", refusing
		}
	}
}

// last reads what follows the last chunk.
func (h habits) last(body, b string) (string, string, outcome) {
	if h.noTrailers {
		// What is left is an empty line before the next request.
		return body, strings.TrimPrefix(b, "\r\n"), whole
	}
	for {
		line, rest, ok := h.line(b)
		switch {
		case !ok:
			return "", "", missing
		case line == "":
			return body, rest, whole
		case !h.trailers:
			return "", "", refusing
		}
		b = rest
	}
}

func (h habits) chunkLine(b string) (line, rest string, ok bool) {
	quoted := false
	for i := range len(b) {
		switch {
		case h.quotedLines && b[i] == '"' && (i == 0 || b[i-1] != '\\'):
			quoted = !quoted
		case quoted:
		case b[i] == '\n' && (h.lf || h.extensionLF && strings.Contains(b[:i], ";") || i > 0 && b[i-1] == '\r'):
			return strings.TrimSuffix(b[:i], "\r"), b[i+1:], true
		}
	}
	return "", "", false
}

func (h habits) number(s string, base int) (uint64, bool) {
	if h.octal && base == 10 && len(s) > 1 && s[0] == '0' {
		base = 8
	}
	if !h.looseNumbers {
		n, err := strconv.ParseUint(s, base, 62)
		return n, err == nil && !strings.HasPrefix(s, "+")
	}
	s = strings.ToLower(strings.TrimSpace(strings.ReplaceAll(s, "_", "")))
	s = strings.TrimPrefix(s, "+")
	if after, ok := strings.CutPrefix(s, "0x"); ok {
		s, base = after, 16
	}
	var n uint64
	for i, c := range s {
		d, err := strconv.ParseUint(string(c), base, 8)
		if err != nil {
			return n, i > 0
		}
		n = n*uint64(base) + d // and on past 64 bits
	}
	return n, s != ""
}
