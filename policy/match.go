package policy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// ErrUnknownPath means that no operation of the catalog has the path.
var ErrUnknownPath = errors.New("policy: the path is in no operation of the catalog")

// MethodError means that the catalog has the path, but not with the method.
type MethodError struct {
	// Allow lists the methods that the path has, as the header Allow does.
	Allow string
}

func (e *MethodError) Error() string { return "policy: the path allows only " + e.Allow }

// Match finds the operation that a method and a canonical path ask for. HEAD
// asks for the operation of GET. Its errors are ErrUnknownPath and
// *MethodError. It does not allocate.
//
// Letters are compared without regard to ASCII case, /api/v1.0/ is /api/, and a
// fixed segment beats a placeholder even where the path leads nowhere
// behind it: a path with two readings is unknown.
func (c *Catalog) Match(method, path string) (*Operation, error) {
	n := c.root
	if len(path) < 2 || path[0] != '/' {
		return nil, ErrUnknownPath
	}
	rest := path[1:]
	for depth := 0; ; depth++ {
		seg, more, last := rest, "", true
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			seg, more, last = rest[:i], rest[i+1:], false
		}
		version := depth == 1 && len(path) > len("/api/v1.0") && foldEqual(path[:len("/api/v1.0/")], "/api/v1.0/")
		if !version {
			if n = n.child(seg); n == nil {
				return nil, ErrUnknownPath
			}
		}
		if last {
			break
		}
		rest = more
	}
	return n.operation(method)
}

// node is one segment in the tree of paths.
type node struct {
	fixed       map[string]*node // by name in lower case
	functions   []*function
	placeholder *node
	ops         []*Operation // one for each method
	wrongMethod *MethodError // set by finish where ops is not empty
}

// longestFixed bounds the names that child looks up without allocation; add
// refuses longer ones.
const longestFixed = 96

func (n *node) child(seg string) *node {
	if len(seg) <= longestFixed {
		var b [longestFixed]byte
		for i := 0; i < len(seg); i++ {
			b[i] = lower(seg[i])
		}
		if next, ok := n.fixed[string(b[:len(seg)])]; ok {
			return next
		}
	}
	if strings.HasSuffix(seg, ")") && strings.Contains(seg, "(") {
		// A call is a function of the catalog or nothing: a placeholder would
		// take in functions and keys that nobody has judged.
		for _, f := range n.functions {
			if f.called(seg) {
				return f.next
			}
		}
		return nil
	}
	if seg == "" || seg[0] == '$' {
		return nil // $batch, $query, $entity, $ref: calls inside calls
	}
	return n.placeholder
}

func (n *node) operation(method string) (*Operation, error) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, op := range n.ops {
		if op.Method == method {
			return op, nil
		}
	}
	if n.wrongMethod == nil {
		return nil, ErrUnknownPath
	}
	return nil, n.wrongMethod
}

// add puts an operation into the tree under the root n.
func (n *node) add(op *Operation) error {
	var seg string
	for seg = range strings.SplitSeq(strings.TrimPrefix(op.Path, "/"), "/") {
		switch {
		case seg == "":
			return fmt.Errorf("path %q has an empty segment", op.Path)
		case strings.HasPrefix(seg, "{") && strings.HasSuffix(seg, "}"):
			if n.placeholder == nil {
				n.placeholder = &node{}
			}
			n = n.placeholder
		case strings.ContainsAny(seg, "(){}"):
			f, err := parseFunction(seg)
			if err != nil {
				return fmt.Errorf("path %q: %w", op.Path, err)
			}
			i := slices.IndexFunc(n.functions, f.same)
			if i < 0 {
				f.next = &node{}
				n.functions = append(n.functions, f)
				i = len(n.functions) - 1
			}
			n = n.functions[i].next
		case len(seg) > longestFixed:
			return fmt.Errorf("path %q has a segment of more than %d characters", op.Path, longestFixed)
		default:
			n = n.get(fold(seg))
		}
	}
	if i := slices.IndexFunc(n.ops, func(o *Operation) bool { return o.Method == op.Method }); i >= 0 {
		return fmt.Errorf("%s %s is operation %q already", op.Method, op.Path, n.ops[i].ID)
	}
	n.ops = append(n.ops, op)
	if collection(op, seg) {
		count := n.get("$count")
		count.ops = append(count.ops, op)
	}
	return nil
}

// collection reports whether /$count may stand behind the operation's path,
// whose last segment is given. Clients count alerts and machines so, although
// no page says it.
func collection(op *Operation, last string) bool {
	return op.Method == http.MethodGet && op.Class == ClassRead && !strings.ContainsAny(last, "{(")
}

func (n *node) get(name string) *node {
	next, ok := n.fixed[name]
	if !ok {
		next = &node{}
		if n.fixed == nil {
			n.fixed = make(map[string]*node)
		}
		n.fixed[name] = next
	}
	return next
}

// finish prepares the answers for wrong methods, so that Match need not.
func (n *node) finish() {
	if len(n.ops) > 0 {
		var allow []string
		for _, op := range n.ops {
			allow = append(allow, op.Method)
			if op.Method == http.MethodGet {
				allow = append(allow, http.MethodHead)
			}
		}
		slices.Sort(allow)
		n.wrongMethod = &MethodError{Allow: strings.Join(allow, ", ")}
	}
	for _, next := range n.fixed {
		next.finish()
	}
	for _, f := range n.functions {
		f.next.finish()
	}
	if n.placeholder != nil {
		n.placeholder.finish()
	}
}

// function is an OData function in a path, such as
// findbyip(ip='{IP}',timestamp={TimeStamp}) (OData 4.01 URL conventions,
// section 4.5, inline parameter syntax).
type function struct {
	name string   // in lower case
	args []string // in lower case, at most 8
	next *node
}

func parseFunction(seg string) (*function, error) {
	name, list, ok := strings.Cut(seg, "(")
	list, closed := strings.CutSuffix(list, ")")
	if !ok || !closed || name == "" {
		return nil, fmt.Errorf("segment %q is neither a name, a {placeholder} nor a function(name={placeholder},…)", seg)
	}
	f := &function{name: fold(name)}
	for arg := range strings.SplitSeq(list, ",") {
		name, value, ok := strings.Cut(arg, "=")
		value = strings.TrimSuffix(strings.TrimPrefix(value, "'"), "'")
		if !ok || name == "" || !strings.HasPrefix(value, "{") || !strings.HasSuffix(value, "}") {
			return nil, fmt.Errorf("argument %q of %s is not name={placeholder}", arg, f.name)
		}
		f.args = append(f.args, fold(name))
	}
	if len(f.args) > 8 {
		return nil, fmt.Errorf("%s has more than 8 arguments", f.name)
	}
	return f, nil
}

func (f *function) same(g *function) bool {
	return f.name == g.name && slices.Equal(f.args, g.args)
}

// called reports whether seg calls f with each of its arguments once, in any
// order. A value is either quoted, with a quote in it doubled, or a bare word;
// Microsoft's pages show both for the same argument.
func (f *function) called(seg string) bool {
	if len(seg) < len(f.name)+2 || !foldEqual(seg[:len(f.name)], f.name) || seg[len(f.name)] != '(' {
		return false
	}
	rest := seg[len(f.name)+1:]
	var seen uint
	for {
		eq := strings.IndexByte(rest, '=')
		if eq < 0 {
			return false
		}
		arg := slices.IndexFunc(f.args, func(a string) bool { return foldEqual(a, rest[:eq]) })
		if arg < 0 || seen&(1<<arg) != 0 {
			return false
		}
		seen |= 1 << arg
		n := valueLength(rest[eq+1:])
		if n == 0 {
			return false
		}
		rest = rest[eq+1+n:]
		switch {
		case rest == ")":
			return seen == 1<<len(f.args)-1
		case rest == "" || rest[0] != ',':
			return false
		}
		rest = rest[1:]
	}
}

// valueLength is the length of the argument that s begins with, 0 for none.
func valueLength(s string) int {
	if s == "" || s[0] != '\'' {
		return max(0, strings.IndexAny(s, "'(),="))
	}
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			i++
			continue
		}
		if i == 1 {
			return 0 // an empty value
		}
		return i + 1
	}
	return 0
}
