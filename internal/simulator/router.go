package simulator

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"defender-proxy/policy"
)

// operation is a row of the catalog with what the simulator makes of it.
type operation struct {
	policy.Operation
	application, delegated []string
	placeholders           []string
	handle                 handler
}

// corrected are the rows whose page is wrong or silent about permissions: two
// pages list none (the sibling export's are taken), one lists a permission to
// read for stopping a file, and two lost those to read in their last revision.
var corrected = map[string]struct{ application, delegated []string }{
	"baselineConfigurations.list":    {[]string{"SecurityBaselinesAssessment.Read.All"}, []string{"SecurityBaselinesAssessment.Read"}},
	"baselineProfiles.list":          {[]string{"SecurityBaselinesAssessment.Read.All"}, []string{"SecurityBaselinesAssessment.Read"}},
	"domains.alerts":                 {[]string{"Alert.Read.All", "Alert.ReadWrite.All"}, []string{"Alert.Read", "Alert.ReadWrite"}},
	"users.machines":                 {[]string{"Machine.Read.All", "Machine.ReadWrite.All"}, []string{"Machine.Read", "Machine.ReadWrite"}},
	"machines.stopAndQuarantineFile": {[]string{"Machine.StopAndQuarantine"}, []string{"Machine.StopAndQuarantine"}},
}

// router finds the operation of a method and a path. Fixed segments go before
// placeholders; letters are compared without regard to ASCII case.
type router struct {
	root       *node
	operations []*operation
}

// node is a place in the tree of path segments.
type node struct {
	fixed     map[string]*node
	wild      *node
	functions map[string]*function
	methods   map[string]*operation
}

// function is a segment such as findbyip(ip='{IP}',timestamp={TimeStamp}).
type function struct {
	arguments []argument
	next      *node
}

type argument struct {
	name   string // lower case
	quoted bool
}

func newNode() *node {
	return &node{fixed: map[string]*node{}, functions: map[string]*function{}, methods: map[string]*operation{}}
}

// newRouter builds the tree from the catalog. An operation without a handler
// is an error: the catalog has grown and the simulator has not.
func newRouter() (*router, error) {
	rt := &router{root: newNode()}
	all := handlers()
	for _, row := range slices.Concat(policy.Documented(), policy.Graph(), policy.Seen()) {
		op := &operation{Operation: row, handle: all[row.ID]}
		if op.handle == nil {
			return nil, fmt.Errorf("operation %s of the catalog is not simulated", row.ID)
		}
		for _, p := range row.Application {
			op.application = append(op.application, string(p))
		}
		for _, p := range row.Delegated {
			op.delegated = append(op.delegated, string(p))
		}
		if c, ok := corrected[row.ID]; ok {
			op.application, op.delegated = c.application, c.delegated
		}
		if err := rt.add(op); err != nil {
			return nil, err
		}
	}
	return rt, nil
}

var functionSegment = regexp.MustCompile(`^([A-Za-z]+)\((.*)\)$`)

// add puts one template into the tree.
func (rt *router) add(op *operation) error {
	at := rt.root
	for _, segment := range strings.Split(strings.TrimPrefix(op.Path, "/"), "/") {
		if m := functionSegment.FindStringSubmatch(segment); m != nil {
			f := &function{next: newNode()}
			for _, pair := range strings.Split(m[2], ",") {
				name, value, ok := strings.Cut(pair, "=")
				if !ok {
					return fmt.Errorf("operation %s: segment %q is no function", op.ID, segment)
				}
				bare := strings.Trim(value, "'")
				f.arguments = append(f.arguments, argument{strings.ToLower(name), bare != value})
				op.placeholders = append(op.placeholders, strings.ToLower(name))
			}
			at.functions[strings.ToLower(m[1])] = f
			at = f.next
			continue
		}
		if strings.HasPrefix(segment, "{") {
			if at.wild == nil {
				at.wild = newNode()
			}
			// One name for all that the pages call {id}, {machineId}, {cveId} …
			op.placeholders = append(op.placeholders, "id")
			at = at.wild
			continue
		}
		key := strings.ToLower(segment)
		if at.fixed[key] == nil {
			at.fixed[key] = newNode()
		}
		at = at.fixed[key]
	}
	if at.methods[op.Method] != nil {
		return fmt.Errorf("operations %s and %s have the same method and path", at.methods[op.Method].ID, op.ID)
	}
	at.methods[op.Method] = op
	rt.operations = append(rt.operations, op)
	return nil
}

// route is what a path was found to be.
type route struct {
	methods map[string]*operation
	values  []string
	count   bool // the path ended in /$count
}

// find reads a path as it stands in the request target, without the query.
// ok is false for a path that is none of the catalog's.
func (rt *router) find(rawPath string) (found route, ok bool) {
	segments := strings.Split(strings.TrimPrefix(rawPath, "/"), "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return route{}, false
		}
		segments[i] = plain
	}
	if len(segments) > 1 && segments[len(segments)-1] == "" {
		segments = segments[:len(segments)-1]
	}
	if len(segments) > 2 && strings.EqualFold(segments[0], "api") && strings.EqualFold(segments[1], "v1.0") {
		segments = slices.Delete(segments, 1, 2)
	}
	if last := len(segments) - 1; strings.EqualFold(segments[last], "$count") {
		found.count = true
		segments = segments[:last]
	}
	end, values := rt.root.walk(segments, nil)
	if end == nil {
		return route{}, false
	}
	found.methods, found.values = end.methods, values
	return found, true
}

// walk goes down the tree and comes back from a fixed segment that leads
// nowhere: a machine may be called findbytag.
func (n *node) walk(segments, values []string) (*node, []string) {
	if len(segments) == 0 {
		if len(n.methods) == 0 {
			return nil, nil
		}
		return n, values
	}
	segment := segments[0]
	if next := n.fixed[strings.ToLower(segment)]; next != nil {
		if end, v := next.walk(segments[1:], values); end != nil {
			return end, v
		}
	}
	if m := functionSegment.FindStringSubmatch(segment); m != nil {
		if f := n.functions[strings.ToLower(m[1])]; f != nil {
			if got, ok := f.read(m[2]); ok {
				return f.next.walk(segments[1:], slices.Concat(values, got))
			}
		}
		return nil, nil
	}
	if n.wild != nil && segment != "" {
		return n.wild.walk(segments[1:], slices.Concat(values, []string{segment}))
	}
	return nil, nil
}

// read takes the arguments out of a call, in the order of the template. A
// string needs its quotes where the template has them.
func (f *function) read(text string) ([]string, bool) {
	given := map[string]string{}
	for _, pair := range splitOutside(text, ',') {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, false
		}
		given[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	if len(given) != len(f.arguments) {
		return nil, false
	}
	out := make([]string, len(f.arguments))
	for i, a := range f.arguments {
		v, ok := given[a.name]
		if !ok {
			return nil, false
		}
		quoted := len(v) >= 2 && v[0] == '\'' && v[len(v)-1] == '\''
		if a.quoted && !quoted {
			return nil, false
		}
		if quoted {
			v = strings.ReplaceAll(v[1:len(v)-1], "''", "'")
		}
		out[i] = v
	}
	return out, true
}

// splitOutside splits at a separator that is not inside quotes.
func splitOutside(s string, sep byte) []string {
	var parts []string
	quoted, from := false, 0
	for i := range len(s) {
		switch {
		case s[i] == '\'':
			quoted = !quoted
		case s[i] == sep && !quoted:
			parts = append(parts, s[from:i])
			from = i + 1
		}
	}
	return append(parts, s[from:])
}
